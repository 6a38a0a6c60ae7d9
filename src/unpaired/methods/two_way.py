"""The base of methods that translate in both directions: two generators, two discriminators, two image pools."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from unpaired.config import CountOrZero, settings
from unpaired.methods.adversarial import AdversarialConfig, generator_scores
from unpaired.methods.base import (
    DEFAULT_REQUEST,
    AdamSettings,
    ImageBatch,
    Method,
    Phase,
    TranslateRequest,
    derive_seeds,
)
from unpaired.methods.contrast import mean_patch_nce, projected_pairs
from unpaired.methods.image_pool import ImagePool
from unpaired.networks import Projector
from unpaired.networks.layers import Initialisation, Resampling
from unpaired.ops import widen


@settings
class TwoWayConfig(AdversarialConfig):
    """Settings of a two-way method; sizes are those of each generator and discriminator."""

    image_pool: CountOrZero = 50
    """Earlier translations kept per domain for its discriminator; 0 uses the newest only."""


@dataclass(frozen=True)
class Direction:
    """Tensors of one direction in a training step.

    Attributes:
        source: Images of the generator's input domain, (B, C, H, W).
        target: Images of its output domain, (B, C, H, W); not paired with the source.
        translated: G(source), (B, C, H, W).
        fakes: Translations for the discriminator: G(source), some replaced by earlier ones from the pool.
        identity: G(target), (B, C, H, W), or None without the identity term.
        cycled: ``translated``, translated back by the other generator, or None without the cycle term.
        source_features: Per tap, the encodings of ``source`` by this generator, (B, C_t, H_t, W_t), from the full pass.
        translated_features: Per tap, the encodings of ``translated``, the same shapes; the method decides by which
            generator.
    """

    source: Tensor
    target: Tensor
    translated: Tensor
    fakes: Tensor
    identity: Tensor | None
    source_features: list[Tensor]
    cycled: Tensor | None = None
    translated_features: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class TwoWayOutputs:
    """Tensors that one training step computes once.

    Attributes:
        ab: From the source domain, A, to the target domain, B.
        ba: From B to A.
        seeds: (B,) int64, one per image.
    """

    ab: Direction
    ba: Direction
    seeds: Tensor

    def named(self) -> tuple[tuple[str, Direction], ...]:
        """Both directions with the suffixes of their terms' names."""
        return ("ab", self.ab), ("ba", self.ba)


class TwoWay(Method):
    """Base of two-way methods; G_ab is the paper's G: X -> Y, G_ba its F: Y -> X.

    Args:
        config: The settings.
        channels: Channels of the images of both domains.
        resampling: Down- and upsampling of the networks.
        initialisation: Of generators and discriminators.
        taps: Encoder layers whose features of the inputs a subclass needs.
    """

    served: ClassVar[tuple[str, ...]] = ("generator_ab", "generator_ba")
    compiled: ClassVar[tuple[str, ...]] = (
        "generator_ab.translate_and_encode",
        "generator_ba.translate_and_encode",
        "discriminator_a.forward",
        "discriminator_b.forward",
    )
    supports = frozenset({"reverse"})
    config: Any

    def __init__(
        self,
        config: TwoWayConfig,
        channels: int,
        *,
        resampling: Resampling = "blur",
        initialisation: Initialisation = "xavier",
        taps: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.config = config
        self.taps = taps
        options: dict[str, Any] = {"resampling": resampling, "initialisation": initialisation}
        self.generator_ab, self.generator_ba = (config.new_generator(channels, **options) for _ in range(2))
        self.discriminator_a, self.discriminator_b = (config.new_discriminator(channels, **options) for _ in range(2))
        self.pool_a, self.pool_b = ImagePool(config.image_pool), ImagePool(config.image_pool)
        self.smallest_image = self.discriminator_a.smallest_image
        self.not_recordable, self.one_process_only = self.pool_a.not_recordable, self.pool_a.one_process_only
        self.set_phases()

    def set_phases(self, *projectors: str, adam: AdamSettings | None = None) -> None:
        """Both discriminators, then both generators together with ``projectors``, whose Adam settings are ``adam``."""
        overrides = {} if adam is None else dict.fromkeys(projectors, adam)
        self.phases = (
            Phase("discriminators", ("discriminator_a", "discriminator_b"), self.discriminator_loss),
            Phase("generators", ("generator_ab", "generator_ba", *projectors), self.generator_loss, adam=overrides),
        )

    @abstractmethod
    def identity_factor(self) -> float:
        """Weight of the L1 distance between G(target) and target; 0 skips the identity passes."""

    def translate(self, x_BCHW: Tensor, request: TranslateRequest = DEFAULT_REQUEST) -> Tensor:
        return self.generator_ba(x_BCHW) if request.reverse else self.generator_ab(x_BCHW)

    def encode(self, x_BCHW: Tensor, taps: Sequence[str]) -> list[Tensor]:
        return self.generator_ab.encode(x_BCHW, taps)

    def forward_train(self, batch: ImageBatch) -> TwoWayOutputs:
        seeds_a, seeds_b = derive_seeds(batch.seeds, -4), derive_seeds(batch.seeds, -3)
        return TwoWayOutputs(
            ab=self._direction(self.generator_ab, batch.source, batch.target, self.pool_b, seeds_b),
            ba=self._direction(self.generator_ba, batch.target, batch.source, self.pool_a, seeds_a),
            seeds=batch.seeds,
        )

    def _direction(self, generator: Any, source: Tensor, target: Tensor, pool: ImagePool, seeds: Tensor) -> Direction:
        """Translate the source and, for the identity term, the target, in one batch."""
        images, with_identity = len(source), self.identity_factor() > 0
        inputs = torch.cat([source, target]) if with_identity else source
        translated, features = generator.translate_and_encode(inputs, self.taps)
        return Direction(
            source=source,
            target=target,
            translated=translated[:images],
            fakes=pool.exchange(translated[:images], seeds),
            identity=translated[images:] if with_identity else None,
            source_features=[each[:images] for each in features],
        )

    def discriminator_loss(self, outputs: TwoWayOutputs) -> dict[str, Tensor]:
        """Losses of D_A and D_B on real images and fakes, without gradient to the generators."""
        terms: dict[str, Tensor] = {}
        for number, (name, way) in enumerate((("a", outputs.ba), ("b", outputs.ab))):
            discriminator = self.discriminator_a if name == "a" else self.discriminator_b
            seeds = derive_seeds(outputs.seeds, number)
            terms |= self.config.discriminator_terms(discriminator, way.target, way.fakes, seeds, f"_{name}")
        return terms

    def generator_loss(self, outputs: TwoWayOutputs) -> dict[str, Tensor]:
        """The adversarial and identity terms of both directions."""
        terms = {}
        discriminators = (self.discriminator_b, self.discriminator_a)
        for number, ((name, way), discriminator) in enumerate(zip(outputs.named(), discriminators, strict=True)):
            scores = generator_scores(discriminator, way.translated, derive_seeds(outputs.seeds, number))
            terms[f"adversarial_{name}"] = self.config.adversarial_term(scores)
        for name, way in outputs.named():
            if way.identity is not None:
                terms[f"identity_{name}"] = self.identity_factor() * mean_distance(way.identity, way.target)
        return terms

    def contrastive_term(
        self, way: Direction, seeds: Tensor, projector: Projector, source_projector: Projector | None = None
    ) -> Tensor:
        """Weighted PatchNCE between the encodings of a direction's inputs and translations, a scalar.

        Args:
            way: With features at the taps.
            seeds: (B,) int64, one per image; a different set for each direction.
            projector: Of the anchors, and of the positives too without ``source_projector``.
            source_projector: Of the positives.
        """
        features = (way.source_features, way.translated_features)
        pairs = projected_pairs(self.config, self.selection, *features, seeds, projector, source_projector)
        return self.config.contrastive_weight * mean_patch_nce(pairs, len(seeds), self.config).mean()


def mean_distance(one_BCHW: Tensor, other_BCHW: Tensor) -> Tensor:
    """Mean absolute difference of two batches, a scalar; at least in float32."""
    return (widen(one_BCHW) - widen(other_BCHW)).abs().mean()
