"""FSeSim and LSeSim: translations preserve the self-similarity of image features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from unpaired.config import Amount, Count, CountOrZero, Positive, Side, Width, settings
from unpaired.errors import BackendError, ConfigError
from unpaired.losses.self_similarity import map_contrast_loss, self_similarity, self_similarity_loss
from unpaired.methods.adversarial import AdversarialConfig
from unpaired.methods.base import ImageBatch, OptimiserConfig, Phase, derive_seeds, register
from unpaired.methods.one_way import OneWay, OneWayOutputs
from unpaired.methods.recolouring import recoloured
from unpaired.networks.feature_maps import (
    DEFAULT_LAYERS,
    FeatureNetwork,
    MapProjector,
    layer_channels,
    load_feature_maps,
)
from unpaired.networks.frozen import Frozen
from unpaired.ops import location_draws


@settings
class FSeSimConfig(AdversarialConfig):
    """Settings of FSeSim; the defaults are those of its authors' current code."""

    num_queries: Count = 256
    """N_s: locations per layer and image whose self-similarity is compared (all where a feature map has fewer)."""
    patch_size: Side = 64
    """Side, in locations of the feature map, of the patch that a location is compared with; clipped to the map."""
    similarity: Literal["cosine", "dot"] = "dot"
    """Similarity of the features of two locations: the dot product of Eq. 2, through tanh, or the cosine."""
    feature_network: FeatureNetwork = "vgg16"
    """The frozen network: the paper's VGG16, EfficientNet-Lite0 where VGG16's weights are not available, or VGG16 with
    random weights (an ablation)."""
    feature_layers: tuple[str, ...] = ()
    """Its layers; empty means relu3_1, relu4_1 and relu4_3 (the first release: the first two), or stride4 and stride8
    of EfficientNet-Lite0."""
    vgg16_weights: Path | None = None
    """File with torchvision's VGG16 weights; unset means torchvision's cache."""
    download_weights: bool = False
    """Download VGG16's weights (528 MB) if they are missing."""
    image_pool: CountOrZero = 50
    """Earlier translations kept for the discriminator; 0 uses the newest only."""
    structure_weight: Amount = 10.0
    """lambda: weight of the spatially-correlative loss between I_x and G(I_x)."""
    optimiser: OptimiserConfig = field(default_factory=lambda: OptimiserConfig(learning_rate=1e-4))
    """Adam and its schedule."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.feature_network != "vgg16" and self.vgg16_weights is not None:
            raise ConfigError(f"vgg16_weights: feature_network '{self.feature_network}' has none; leave it unset")
        layer_channels(self.feature_network, self.layers)

    @property
    def frozen_networks(self) -> frozenset[str]:
        return super().frozen_networks | {self.feature_network}

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers of the frozen network, in order."""
        return self.feature_layers or DEFAULT_LAYERS[self.feature_network]


@settings
class LSeSimConfig(FSeSimConfig):
    """Settings of LSeSim; the defaults are those of its authors' current code."""

    temperature: Positive = 0.07
    """tau of the contrastive loss that trains the projector."""
    contrastive_weight: Amount = 1.0
    """Weight of that loss, which gives no gradient to the generator."""
    projector_width: Width | None = None
    """Channels of the projected maps; unset means a quarter of a layer's, at least 32."""


@dataclass(frozen=True, kw_only=True)
class SelfSimilarityOutputs(OneWayOutputs):
    """As :class:`OneWayOutputs`; lists have one entry per layer of the frozen network.

    Attributes:
        locations: The queries, (B, N) int64, the same in all images that are compared.
        source_features: Frozen features of I_x, (B, C_l, H_l, W_l), without gradient.
        translated_features: Frozen features of G(I_x), the same shapes, with gradient to the generator.
    """

    locations: list[Tensor]
    source_features: list[Tensor]
    translated_features: list[Tensor]


@dataclass(frozen=True, kw_only=True)
class LearnedOutputs(SelfSimilarityOutputs):
    """The same with the other inputs of the projector's loss: frozen features, (B, C_l, H_l, W_l), without gradient.

    Attributes:
        recoloured_features: Of the recoloured I_x.
        other_features: Of I_y, upside down.
        recoloured_other_features: Of the recoloured I_y, upside down.
    """

    recoloured_features: list[Tensor]
    other_features: list[Tensor]
    recoloured_other_features: list[Tensor]


@register("fsesim")
class FSeSim(OneWay):
    """Translation that keeps the fixed self-similarity of VGG16 features (Zheng et al., 2021).

    As in its authors' current code: features centred over the map, only the strongest quarter of a translation's
    map, smooth L1 with the dot form, the mean over three layers, a pool of 50. Their first release had two layers, no
    quarter, and tanh(dot / 6).

    Known deviations: locations are drawn per image, not once per batch; draws are functions of (seed, image); the
    schedule decays per image. ``feature_network`` other than ``vgg16`` is not the paper's method.

    Args:
        config: The settings.
        channels: Channels of the images of both domains: 3, or 1, repeated for the frozen network.
    """

    Config: ClassVar[type[FSeSimConfig]] = FSeSimConfig
    compiled = ("generator.forward", "discriminator.forward")
    data_defaults: ClassVar[Mapping[str, Any]] = {}
    has_pool = True
    config: FSeSimConfig
    title = "FSeSim"
    citation = "Zheng, Cham, Cai: The Spatially-Correlative Loss for Various Image Translation Tasks. CVPR 2021."

    def __init__(self, config: FSeSimConfig, channels: int = 3) -> None:
        if channels not in (1, 3):
            raise ConfigError(f"channels: {self.title} takes images of 1 or 3 channels, not {channels}")
        super().__init__(config, channels)
        self.smallest_image = max(16, self.smallest_image)  # at 8 pixels, the last layer has one location
        self._frozen: Frozen | None = None

    def prepare(self) -> None:
        super().prepare()
        config = self.config
        network = load_feature_maps(
            config.feature_network, config.layers, config.vgg16_weights, allow_download=config.download_weights
        )
        self._frozen = Frozen(network)

    def features(self, x_BCHW: Tensor) -> list[Tensor]:
        """Maps of the frozen network, one per layer; gradients flow to the images. Raises ``BackendError``."""
        if self._frozen is None:
            raise BackendError(f"{self.title}: its frozen {self.config.feature_network} is not loaded; call prepare()")
        return self._frozen(x_BCHW.expand(-1, 3, -1, -1))

    def forward_train(self, batch: ImageBatch) -> SelfSimilarityOutputs:
        with torch.no_grad():
            source_features = self.features(batch.source)
        return SelfSimilarityOutputs(**self._common_outputs(batch, source_features))

    def _common_outputs(self, batch: ImageBatch, source_features: list[Tensor]) -> dict[str, Any]:
        """The fields of :class:`SelfSimilarityOutputs`."""
        translated, _ = self.generator.translate_and_encode(batch.source, ())
        return {
            "target": batch.target,
            "translated": translated,
            "fakes": self.pool.exchange(translated, derive_seeds(batch.seeds, -3)),
            "locations": [self._locations(batch.seeds, k, each) for k, each in enumerate(source_features)],
            "source_features": source_features,
            # A separate pass: batched with I_x, backpropagation would go through both.
            "translated_features": self.features(translated),
            "seeds": batch.seeds,
        }

    def generator_loss(self, outputs: SelfSimilarityOutputs) -> dict[str, Tensor]:
        """The adversarial term and the spatially-correlative loss."""
        source_maps = [each.detach() for each in self.maps(outputs.source_features, outputs.locations)]
        translated_maps = self.maps(outputs.translated_features, outputs.locations)
        per_layer = [
            self_similarity_loss(source, translated, self.config.similarity).mean()
            for source, translated in zip(source_maps, translated_maps, strict=True)
        ]
        structure = {"structure": self.config.structure_weight * torch.stack(per_layer).mean()}
        return super().generator_loss(outputs) | structure

    def maps(self, features: Sequence[Tensor], locations: Sequence[Tensor]) -> list[Tensor]:
        """Self-similarity maps at the queries, per layer: (B, C_l, H_l, W_l) and (B, N) -> (B, N, N_p)."""
        return [
            self_similarity(self.project(layer, each), where, self.config.patch_size, self.config.similarity)
            for layer, each, where in zip(self.config.layers, features, locations, strict=True)
        ]

    def project(self, layer: str, features_BCHW: Tensor) -> Tensor:
        """Map frozen features before comparison; FSeSim uses them unchanged."""
        return features_BCHW

    def _locations(self, seeds: Tensor, number: int, features_BCHW: Tensor) -> Tensor:
        """Random locations of a map as a function of the images' seeds: (B, N) int64."""
        draws = location_draws(derive_seeds(seeds, number), features_BCHW[0, 0].numel())
        locations = draws.argsort(dim=1, stable=True)[:, : self.config.num_queries]
        return locations.to(features_BCHW.device, non_blocking=True)


@register("lsesim")
class LSeSim(FSeSim):
    """FSeSim with a learned self-similarity: a projector on top of the frozen features.

    The projector is updated first in a step, as published. Its contrastive loss: each map of an image must match that
    of the same location in the translation and in a recoloured copy (torchvision's ColorJitter, 0.5, 0.5, 0.5 and hue
    0.3) against those of all other locations and those of another image, I_y rotated by 180 degrees.

    Known deviations: those of :class:`FSeSim`.
    """

    Config: ClassVar[type[LSeSimConfig]] = LSeSimConfig
    title = "LSeSim"
    config: LSeSimConfig

    def __init__(self, config: LSeSimConfig, channels: int = 3) -> None:
        super().__init__(config, channels)
        self.projector = MapProjector(layer_channels(config.feature_network, config.layers), config.projector_width)
        self.phases = (Phase("projector", ("projector",), self.projector_loss), *self.phases)

    def forward_train(self, batch: ImageBatch) -> LearnedOutputs:
        images = len(batch.source)
        recoloured_source, recoloured_target = (
            recoloured(image, derive_seeds(batch.seeds, purpose))
            for image, purpose in ((batch.source, -5), (batch.target, -6))
        )
        others = torch.cat([batch.target, recoloured_target]).flip(2, 3)
        with torch.no_grad():
            frozen = self.features(torch.cat([batch.source, recoloured_source, others]))
        kinds = [list(each) for each in zip(*(layer.split(images) for layer in frozen), strict=True)]
        return LearnedOutputs(
            **self._common_outputs(batch, kinds[0]),
            recoloured_features=kinds[1],
            other_features=kinds[2],
            recoloured_other_features=kinds[3],
        )

    def project(self, layer: str, features_BCHW: Tensor) -> Tensor:
        return self.projector(layer, features_BCHW)

    def projector_loss(self, outputs: LearnedOutputs) -> dict[str, Tensor]:
        """Contrastive loss of the maps, mean over both kinds of positives, layers and images; no gradient to G."""
        translated = [each.detach() for each in outputs.translated_features]
        kinds = (outputs.source_features, translated, outputs.other_features,
                 outputs.recoloured_features, outputs.recoloured_other_features)  # fmt: skip
        sources, made, others, copies, other_copies = (self.maps(kind, outputs.locations) for kind in kinds)
        contrasts = (*zip(sources, made, others, strict=True), *zip(sources, copies, other_copies, strict=True))
        losses = [map_contrast_loss(*maps, self.config.temperature).mean() for maps in contrasts]
        return {"contrastive": self.config.contrastive_weight * torch.stack(losses).mean()}
