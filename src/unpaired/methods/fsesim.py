"""FSeSim and LSeSim: the self-similarity of an image's features stays in its translation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor

from unpaired.errors import BackendError, ConfigError
from unpaired.losses import lsgan_discriminator_loss, lsgan_generator_loss
from unpaired.losses.self_similarity import map_contrast_loss, self_similarity, self_similarity_loss
from unpaired.methods.base import PLAIN, ImageBatch, Method, OptimiserConfig, Phase, Wish, derive_seeds
from unpaired.methods.frozen import Frozen
from unpaired.methods.recolouring import recoloured
from unpaired.networks import PatchDiscriminator, ResnetGenerator
from unpaired.networks.feature_maps import (
    DEFAULT_LAYERS,
    FeatureNetwork,
    MapProjector,
    layer_channels,
    load_feature_maps,
)
from unpaired.ops import location_draws


@dataclass(frozen=True)
class FSeSimConfig:
    """Settings of FSeSim; the defaults are the paper's."""

    base_channels: int = 64
    """Width of the generator's stem."""
    discriminator_channels: int | None = None
    """Width of the discriminator's first convolution; unset means base_channels."""
    blocks: int = 9
    """Residual blocks of the generator."""
    discriminator_layers: int = 3
    """Halvings of the discriminator: 3 is the 70 x 70 PatchGAN (84 pixels with its blurs), 2 the 34 x 34 one (40),
    which suits crops of 64 to 128 pixels."""
    num_queries: int = 256
    """N_s: locations per layer and image whose self-similarity is compared (all where a map has fewer)."""
    patch_size: int = 64
    """Side, in locations of the feature map, of the square that a location is compared with (all of a smaller map)."""
    similarity: Literal["cosine", "dot"] = "cosine"
    """Of two locations' features: the cosine, or the dot product as Eq. 2 has it."""
    feature_network: FeatureNetwork = "vgg16"
    """The frozen network: the paper's VGG16, EfficientNet-Lite0 as a stand-in where its weights cannot be had, or
    VGG16 with random weights (an ablation)."""
    feature_layers: tuple[str, ...] = ()
    """Its layers; empty takes relu3_1 and relu4_1, or those of the same strides (stride4, stride8) of the stand-in."""
    vgg16_weights: Path | None = None
    """File of torchvision's VGG16 weights; unset looks where torchvision keeps it."""
    download_weights: bool = False
    """Fetch VGG16's weights (528 MB) where they are missing."""
    adversarial_weight: float = 1.0
    """Weight of the generator's adversarial term."""
    structure_weight: float = 10.0
    """lambda: weight of the spatially-correlative loss between I_x and G(I_x)."""
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    """Adam and its schedule."""

    def __post_init__(self) -> None:
        for name in ("base_channels", "blocks", "discriminator_layers", "num_queries", "patch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.discriminator_channels is not None and self.discriminator_channels < 1:
            raise ConfigError(f"discriminator_channels must be at least 1, not {self.discriminator_channels}")
        for name in (each.name for each in fields(self) if each.name.endswith("_weight")):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} must be finite and not negative, but is {getattr(self, name)}")
        if self.feature_network != "vgg16" and self.vgg16_weights is not None:
            raise ConfigError(f"vgg16_weights: feature_network '{self.feature_network}' reads no such file; leave it")
        layer_channels(self.feature_network, self.layers)

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers of the frozen network, in order."""
        return self.feature_layers or DEFAULT_LAYERS[self.feature_network]


@dataclass(frozen=True)
class LSeSimConfig(FSeSimConfig):
    """Settings of LSeSim; the defaults are the paper's."""

    temperature: float = 0.07
    """tau of the contrastive loss that trains the projector."""
    contrastive_weight: float = 1.0
    """Weight of that loss; no gradient of it reaches the generator."""
    projector_width: int | None = None
    """Channels of the projected maps; unset takes a quarter of a layer's, but at least 32."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.temperature < float("inf"):
            raise ConfigError(f"temperature must be above 0 and finite, not {self.temperature}")
        if self.projector_width is not None and self.projector_width < 1:
            raise ConfigError(f"projector_width must be at least 1, not {self.projector_width}")


@dataclass(frozen=True)
class SelfSimilarityOutputs:
    """What one training step computes, once. Lists have one entry per layer of the frozen network.

    Attributes:
        target: I_y, (B, C, H, W).
        translated: G(I_x), (B, C, H, W).
        locations: The queries, (B, N) int64.
        source_maps: Self-similarity of I_x at the queries, (B, N, N_p).
        translated_features: Frozen features of G(I_x), (B, C_l, H_l, W_l), with gradient to the generator.
    """

    target: Tensor
    translated: Tensor
    locations: list[Tensor]
    source_maps: list[Tensor]
    translated_features: list[Tensor]


@dataclass(frozen=True)
class LearnedOutputs(SelfSimilarityOutputs):
    """The same, with what the projector learns from; these and ``source_maps`` carry gradient to it.

    Attributes:
        recoloured_maps: Self-similarity of the recoloured I_x at the same queries, (B, N, N_p).
        target_maps: Self-similarity of I_y at queries of its own, (B, N, N_p).
    """

    recoloured_maps: list[Tensor]
    target_maps: list[Tensor]


class FSeSim(Method):
    """Translation that keeps the fixed self-similarity of VGG16 features (Zheng et al., 2021).

    Deviations, named: features are centred over the map and compared by cosine (``similarity="dot"`` is Eq. 2); the
    loss is the mean over the layers; generator and discriminator are this package's of the CUT family, with its
    schedule; draws are functions of (seed, image). ``feature_network`` other than ``vgg16`` is not the paper's method.

    Args:
        config: The settings.
        channels: Channels of the images of both domains: 3, or 1, which the frozen network sees as grey.
    """

    Config: ClassVar[type[FSeSimConfig]] = FSeSimConfig
    compiled = ("generator.forward", "discriminator.forward")
    title = "FSeSim"
    citation = "Zheng, Cham, Cai: The Spatially-Correlative Loss for Various Image Translation Tasks. CVPR 2021."

    def __init__(self, config: FSeSimConfig, channels: int = 3) -> None:
        super().__init__()
        if channels not in (1, 3):
            raise ConfigError(f"channels: {self.title}'s frozen network sees images of 1 or 3 channels, not {channels}")
        self.config = config
        self.generator = ResnetGenerator(channels, channels, base_channels=config.base_channels, blocks=config.blocks)
        self.discriminator = PatchDiscriminator(
            channels,
            base_channels=config.discriminator_channels or config.base_channels,
            layers=config.discriminator_layers,
        )
        self.smallest_image = max(16, self.discriminator.smallest_image)  # of 8 pixels, a layer sees one location
        self.phases = (
            Phase("discriminator", ("discriminator",), self.discriminator_loss),
            Phase("generator", ("generator",), self.generator_loss),
        )
        self._frozen: Frozen | None = None

    def prepare(self) -> None:
        config = self.config
        network = load_feature_maps(
            config.feature_network, config.layers, config.vgg16_weights, allow_download=config.download_weights
        )
        self._frozen = Frozen(network)

    def features(self, x_BCHW: Tensor) -> list[Tensor]:
        """Maps of the frozen network, one per layer; gradients flow to the images.

        Raises:
            BackendError: It has not been loaded.
        """
        if self._frozen is None:
            raise BackendError(f"{self.title}: its frozen {self.config.feature_network} is not loaded; call prepare()")
        return self._frozen(x_BCHW.expand(-1, 3, -1, -1))

    def translate(self, x_BCHW: Tensor, wish: Wish = PLAIN) -> Tensor:
        return self.generator(x_BCHW)

    def encode(self, x_BCHW: Tensor, taps: Sequence[str]) -> list[Tensor]:
        return self.generator.encode(x_BCHW, taps)

    def forward_train(self, batch: ImageBatch) -> SelfSimilarityOutputs:
        translated = self.generator(batch.source)
        with torch.no_grad():
            source_features = self.features(batch.source)
        locations = [self._locations(batch.seeds, number, each) for number, each in enumerate(source_features)]
        return SelfSimilarityOutputs(
            target=batch.target,
            translated=translated,
            locations=locations,
            source_maps=[self._maps(each, where) for each, where in zip(source_features, locations, strict=True)],
            # A pass of its own: batched with I_x, backpropagation would go through both.
            translated_features=self.features(translated),
        )

    def discriminator_loss(self, outputs: SelfSimilarityOutputs) -> dict[str, Tensor]:
        """LSGAN loss of D on I_y and G(I_x), without gradient to G."""
        scores = self.discriminator(torch.cat([outputs.target, outputs.translated.detach()]))
        real, fake = scores.split(len(outputs.target))
        return {"discriminator": lsgan_discriminator_loss(real, fake)}

    def generator_loss(self, outputs: SelfSimilarityOutputs) -> dict[str, Tensor]:
        """The adversarial term and the spatially-correlative loss."""
        scores = self.discriminator(outputs.translated)
        per_layer = []
        for layer, features, where, source in zip(
            self.config.layers, outputs.translated_features, outputs.locations, outputs.source_maps, strict=True
        ):
            made = self._maps(self.project(layer, features), where)
            per_layer.append(self_similarity_loss(made, source.detach()).mean())
        return {
            "adversarial": self.config.adversarial_weight * lsgan_generator_loss(scores),
            "structure": self.config.structure_weight * torch.stack(per_layer).mean(),
        }

    def project(self, layer: str, features_BCHW: Tensor) -> Tensor:
        """What is done to the frozen features of a layer before they are compared: nothing."""
        return features_BCHW

    def _maps(self, features_BCHW: Tensor, locations_BN: Tensor) -> Tensor:
        return self_similarity(features_BCHW, locations_BN, self.config.patch_size, self.config.similarity)

    def _locations(self, seeds: Tensor, number: int, features_BCHW: Tensor) -> Tensor:
        """Random locations of a map, a function of the images' seeds: (B, N) int64."""
        draws = location_draws(derive_seeds(seeds, number), features_BCHW[0, 0].numel())
        chosen = draws.argsort(dim=1, stable=True)[:, : self.config.num_queries]
        return chosen.to(features_BCHW.device, non_blocking=True)


class LSeSim(FSeSim):
    """Translation that keeps a self-similarity learned for the task: a projector on top of the frozen features.

    The projector learns that the maps of an image and of its recoloured copy agree at the same location and differ
    elsewhere, and from those of another image, I_y.

    Deviations, named, beside those of :class:`FSeSim`: the positive is the recoloured copy alone; recolouring is a
    random rotation of the hue, saturation, contrast and brightness; the projector learns last in a step, from the
    same maps of I_x that judged the translation.

    Args:
        config: The settings.
        channels: Channels of the images of both domains, 1 or 3.
    """

    Config: ClassVar[type[LSeSimConfig]] = LSeSimConfig
    title = "LSeSim"
    config: LSeSimConfig

    def __init__(self, config: LSeSimConfig, channels: int = 3) -> None:
        super().__init__(config, channels)
        self.projector = MapProjector(layer_channels(config.feature_network, config.layers), config.projector_width)
        self.phases = (*self.phases, Phase("projector", ("projector",), self.projector_loss))

    def forward_train(self, batch: ImageBatch) -> LearnedOutputs:
        translated, images = self.generator(batch.source), len(batch.source)
        changed = recoloured(batch.source, derive_seeds(batch.seeds, -5))
        with torch.no_grad():
            frozen = self.features(torch.cat([batch.source, changed, batch.target]))
        locations, maps = [], []
        for number, (layer, features) in enumerate(zip(self.config.layers, frozen, strict=True)):
            here, there = (self._locations(batch.seeds, purpose, features) for purpose in (number, -6 - number))
            locations.append(here)
            maps.append(self._maps(self.project(layer, features), torch.cat([here, here, there])).split(images))
        source_maps, recoloured_maps, target_maps = (list(each) for each in zip(*maps, strict=True))
        return LearnedOutputs(
            target=batch.target,
            translated=translated,
            locations=locations,
            source_maps=source_maps,
            translated_features=self.features(translated),
            recoloured_maps=recoloured_maps,
            target_maps=target_maps,
        )

    def project(self, layer: str, features_BCHW: Tensor) -> Tensor:
        return self.projector(layer, features_BCHW)

    def projector_loss(self, outputs: LearnedOutputs) -> dict[str, Tensor]:
        """The contrastive loss of the maps, mean over layers and images."""
        per_layer = [
            map_contrast_loss(*maps, self.config.temperature).mean()
            for maps in zip(outputs.source_maps, outputs.recoloured_maps, outputs.target_maps, strict=True)
        ]
        return {"contrastive": self.config.contrastive_weight * torch.stack(per_layer).mean()}
