"""What translators of both directions share: two generators, two discriminators, and the pools between them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from unpaired.config import settings
from unpaired.losses.patch_nce import Negatives
from unpaired.methods.adversarial import AdversarialConfig, judged
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
from unpaired.networks import DEFAULT_TAPS, Projector
from unpaired.networks.layers import Initialisation, Resampling


@settings
class TwoWayConfig(AdversarialConfig):
    """Settings of a translator of both directions; sizes are those of each generator and discriminator."""

    image_pool: NonNegativeInt = 50
    """Earlier translations kept per domain for its discriminator; 0 shows the newest only."""


@settings
class TwoWayContrastConfig:
    """The settings of a contrastive loss in both directions; a method's Config inherits them beside its own."""

    taps: tuple[str, ...] = DEFAULT_TAPS
    """Places of the encoders where the contrastive loss is taken."""
    num_queries: PositiveInt = 256
    """N: anchors per tap, image and direction (all locations where a map has fewer)."""
    temperature: PositiveFloat = 0.07
    """tau of the contrastive loss."""
    projector_width: PositiveInt = 256
    """Dimension of the projected features."""
    contrastive_weight: NonNegativeFloat = 1.0
    """Weight of each direction's contrastive loss."""
    negatives: Negatives = "image"
    """Where an anchor's negatives come from: its own image, or all images of the batch."""


@dataclass(frozen=True)
class Direction:
    """What one generator makes in a step, and what that is held against.

    Attributes:
        source: Images of the domain that it reads, (B, C, H, W).
        target: Images of the domain that it writes, (B, C, H, W); not paired with the source.
        translated: G(source), (B, C, H, W).
        shown: What the discriminator sees as translated: G(source), or earlier translations from the pool.
        identity: G(target), (B, C, H, W), where it is asked for.
        cycled: ``translated`` brought back to the source's domain by the other generator, where it is asked for.
        source_features: Per tap, the encodings of ``source`` by this generator, (B, C_t, H_t, W_t), from the full pass.
        translated_features: Per tap, the encodings of ``translated``, the same shapes; whose, says the method.
    """

    source: Tensor
    target: Tensor
    translated: Tensor
    shown: Tensor
    identity: Tensor | None
    source_features: list[Tensor]
    cycled: Tensor | None = None
    translated_features: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class TwoWayOutputs:
    """What one training step computes, once.

    Attributes:
        ab: From the source domain, A, to the target domain, B.
        ba: From B to A.
        seeds: (B,) int64, one per image.
    """

    ab: Direction
    ba: Direction
    seeds: Tensor

    def named(self) -> tuple[tuple[str, Direction], ...]:
        """Both directions with the endings of their terms' names."""
        return ("ab", self.ab), ("ba", self.ba)


class TwoWay(Method):
    """Base of the translators of both directions; G_ab is the paper's G: X -> Y, G_ba its F: Y -> X.

    Args:
        config: The settings.
        channels: Channels of the images of both domains.
        resampling: How the networks halve and double.
        initialisation: Of generators and discriminators.
        taps: Places whose encodings of the inputs a subclass needs.
    """

    served: ClassVar[tuple[str, ...]] = ("generator_ab", "generator_ba")
    compiled: ClassVar[tuple[str, ...]] = (
        "generator_ab.translate_and_encode",
        "generator_ba.translate_and_encode",
        "discriminator_a.forward",
        "discriminator_b.forward",
    )
    supports = frozenset({"reverse"})
    config: TwoWayConfig

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
        shared: dict[str, Any] = {"resampling": resampling, "initialisation": initialisation}
        self.generator_ab, self.generator_ba = (config.new_generator(channels, **shared) for _ in range(2))
        self.discriminator_a, self.discriminator_b = (config.new_discriminator(channels, **shared) for _ in range(2))
        self.pool_a, self.pool_b = ImagePool(config.image_pool), ImagePool(config.image_pool)
        self.smallest_image = self.discriminator_a.smallest_image
        if config.image_pool:
            self.not_recordable = "image_pool is decided on the host, image by image; 0 turns it off"
            self.one_process_only = "image_pool keeps images in each process, and a checkpoint holds those of the first"
        self.set_phases()

    def set_phases(self, *projectors: str, adam: AdamSettings | None = None) -> None:
        """Both discriminators, then both generators together with ``projectors``, whose Adam may be their own."""
        own = {} if adam is None else dict.fromkeys(projectors, adam)
        self.phases = (
            Phase("discriminators", ("discriminator_a", "discriminator_b"), self.discriminator_loss),
            Phase("generators", ("generator_ab", "generator_ba", *projectors), self.generator_loss, adam=own),
        )

    @abstractmethod
    def identity_factor(self) -> float:
        """Factor of the L1 distance between G(target) and target; 0 leaves the identity passes out."""

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
        made, features = generator.translate_and_encode(inputs, self.taps)
        return Direction(
            source=source,
            target=target,
            translated=made[:images],
            shown=pool.exchange(made[:images], seeds),
            identity=made[images:] if with_identity else None,
            source_features=[each[:images] for each in features],
        )

    def discriminator_loss(self, outputs: TwoWayOutputs) -> dict[str, Tensor]:
        """The losses of D_A and D_B on their real images and on what they are shown, without gradient to G."""
        terms: dict[str, Tensor] = {}
        for number, (name, way) in enumerate((("a", outputs.ba), ("b", outputs.ab))):
            discriminator = self.discriminator_a if name == "a" else self.discriminator_b
            seeds = derive_seeds(outputs.seeds, number)
            terms |= self.config.discriminator_terms(discriminator, way.target, way.shown, seeds, f"_{name}")
        return terms

    def generator_loss(self, outputs: TwoWayOutputs) -> dict[str, Tensor]:
        """The adversarial and identity terms of both directions."""
        judges = ((self.discriminator_b, outputs.ab), (self.discriminator_a, outputs.ba))
        terms = {
            f"adversarial_{name}": self.config.adversarial_term(
                judged(discriminator, way.translated, derive_seeds(outputs.seeds, number))
            )
            for number, (name, (discriminator, way)) in enumerate(zip(("ab", "ba"), judges, strict=True))
        }
        for name, way in outputs.named():
            if way.identity is not None:
                terms[f"identity_{name}"] = self.identity_factor() * mean_distance(way.identity, way.target)
        return terms


def mean_distance(one_BCHW: Tensor, other_BCHW: Tensor) -> Tensor:
    """Mean absolute difference of two batches, a scalar."""
    return (one_BCHW - other_BCHW).abs().mean()


def direction_contrast(
    way: Direction,
    seeds: Tensor,
    config: TwoWayContrastConfig,
    selection: Callable[[str], dict[str, Any]],
    projector: Projector,
    source_projector: Projector | None = None,
) -> Tensor:
    """PatchNCE between the encodings of a direction's inputs and translations, a scalar: mean over images and taps.

    Args:
        way: With features at ``config.taps``.
        seeds: (B,) int64, one per image; another set for each direction.
        config: The settings of the contrast.
        selection: Options of ``query_selected_attention`` at a tap.
        projector: Of the anchors, and of the positives too unless they have their own.
        source_projector: Of the positives.
    """
    pairs = projected_pairs(
        config.taps,
        way.source_features,
        way.translated_features,
        seeds,
        projector=projector,
        num_queries=config.num_queries,
        selection=selection,
        source_projector=source_projector,
    )
    return mean_patch_nce(pairs, len(seeds), config.temperature, config.negatives).mean()
