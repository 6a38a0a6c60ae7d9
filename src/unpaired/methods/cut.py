"""CUT and FastCUT: contrastive learning between an image and its translation at random locations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from unpaired.config import settings
from unpaired.losses.patch_nce import Negatives
from unpaired.methods.adversarial import AdversarialConfig, judged
from unpaired.methods.base import (
    DEFAULT_REQUEST,
    ImageBatch,
    Method,
    OptimiserConfig,
    Phase,
    TranslateRequest,
    coin_flips,
    derive_seeds,
    register,
)
from unpaired.methods.contrast import Pair, mean_patch_nce, projected_pairs
from unpaired.methods.image_pool import ImagePool
from unpaired.networks import DEFAULT_TAPS, Projector


@settings
class CUTConfig(AdversarialConfig):
    """Settings of CUT; the defaults are the paper's."""

    taps: tuple[str, ...] = DEFAULT_TAPS
    """Places of the encoder where the contrastive loss is taken."""
    num_queries: PositiveInt = 256
    """N: anchors per tap and image (all locations where a map has fewer)."""
    temperature: PositiveFloat = 0.07
    """tau of Eq. 2, the contrastive loss."""
    projector_width: PositiveInt = 256
    """Dimension of the projected features."""
    negatives: Negatives = "image"
    """Where an anchor's negatives come from: its own image, or all images of the batch."""
    contrastive_weight: NonNegativeFloat = 1.0
    """Weight of L_X, the contrastive loss between I_x and G(I_x)."""
    identity_weight: NonNegativeFloat = 1.0
    """Weight of L_Y, the contrastive loss between I_y and G(I_y); 0 leaves the identity pass out."""
    identity_interval: PositiveInt = 1
    """The identity pass is made at every so many steps: at 4, at one step in four."""
    contrastive_reduction: Literal["mean", "sum"] = "mean"
    """How L_X and L_Y join: their mean (the published code) or their sum (Eq. 3)."""
    image_pool: NonNegativeInt = 0
    """Earlier translations kept for the discriminator (CycleGAN keeps 50, CUT none)."""
    flip_equivariance: bool = False
    """Translate a mirrored input half of the time and compare it with the features of the plain one."""

    @property
    def contrastive_share(self) -> float:
        """Factor of L_X and of L_Y: a half where they join as their mean, at steps without L_Y, too."""
        return 0.5 if self.identity_weight > 0 and self.contrastive_reduction == "mean" else 1.0


@settings
class FastCUTConfig(CUTConfig):
    """Settings of FastCUT: CUT without the identity pass, a stronger contrastive loss and mirrored inputs."""

    contrastive_weight: NonNegativeFloat = 10.0
    """Weight of L_X, the contrastive loss between I_x and G(I_x)."""
    identity_weight: NonNegativeFloat = 0.0
    """Weight of L_Y; 0 leaves the identity pass out."""
    flip_equivariance: bool = True
    """Translate a mirrored input half of the time and compare it with the features of the plain one."""
    optimiser: OptimiserConfig = field(default_factory=lambda: OptimiserConfig(epochs=200, constant_fraction=0.75))
    """Adam and its schedule."""


@dataclass(frozen=True)
class ContrastiveOutputs:
    """What one training step computes, once. K = 2 with the identity pass, else 1.

    Attributes:
        target: I_y, (B, C, H, W).
        translated: G(I_x), (B, C, H, W).
        shown: What the discriminator sees as translated: G(I_x), or earlier translations from the pool, (B, C, H, W).
        source_features: Per tap, the encodings of I_x (and I_y), (K B, C_t, H_t, W_t), from the full passes.
        translated_features: Per tap, the encodings of G(I_x) (and G(I_y)), the same shapes.
        seeds: (K B,) int64.
        identical: G(I_y), (B, C, H, W), or None without the identity pass.
    """

    target: Tensor
    translated: Tensor
    shown: Tensor
    source_features: list[Tensor]
    translated_features: list[Tensor]
    seeds: Tensor
    identical: Tensor | None


@register("cut")
class CUT(Method):
    """Contrastive unpaired translation (Park et al., 2020).

    Deviations, named: draws are functions of (seed, image); the schedule falls per image instead of per epoch; keys
    come from the full passes instead of being encoded again (the same values).

    Args:
        config: The settings.
        channels: Channels of the images of both domains.
    """

    Config: ClassVar[type[CUTConfig]] = CUTConfig
    compiled = ("generator.translate_and_encode", "generator.encode", "discriminator.forward")
    title = "CUT"
    citation = "Park, Efros, Zhang, Zhu: Contrastive Learning for Unpaired Image-to-Image Translation. ECCV 2020."
    data_defaults: ClassVar[Mapping[str, Any]] = {"load_size_until": "decay"}

    def __init__(self, config: CUTConfig, channels: int = 3) -> None:
        super().__init__()
        self.config = config
        self.generator = self.new_generator(channels)
        self.generator.check_taps(config.taps)
        self.discriminator = self.new_discriminator(channels)
        self.pool = ImagePool(config.image_pool)
        self.projector = Projector(
            {tap: self.generator.tap_channels[tap] for tap in config.taps}, config.projector_width
        )
        self.smallest_image = self.discriminator.smallest_image
        self.cycle = config.identity_interval if config.identity_weight > 0 else 1
        if config.image_pool or config.flip_equivariance:
            self.not_recordable = "image_pool and flip_equivariance are decided on the host, image by image"
        if config.image_pool:
            self.one_process_only = "image_pool keeps images in each process, and a checkpoint holds those of the first"
        self.phases = (
            Phase("discriminator", ("discriminator",), self.discriminator_loss),
            Phase("generator", ("generator", "projector"), self.generator_loss),
        )

    def new_generator(self, channels: int) -> Any:
        """The generator of the settings, whose first part is the encoder."""
        return self.config.new_generator(channels)

    def new_discriminator(self, channels: int) -> Any:
        """The discriminator of the settings."""
        return self.config.new_discriminator(channels)

    def translate(self, x_BCHW: Tensor, request: TranslateRequest = DEFAULT_REQUEST) -> Tensor:
        return self.generator(x_BCHW)

    def encode(self, x_BCHW: Tensor, taps: Sequence[str]) -> list[Tensor]:
        return self.generator.encode(x_BCHW, taps)

    def keys_need_gradient(self) -> bool:
        """Whether any gradient flows into the encodings of the inputs (through attention rows)."""
        return False

    def forward_train(self, batch: ImageBatch) -> ContrastiveOutputs:
        taps = self.config.taps
        with_identity = self.config.identity_weight > 0 and batch.number % self.config.identity_interval == 0
        inputs = torch.cat([batch.source, batch.target]) if with_identity else batch.source
        copies = 2 if with_identity else 1
        seeds = torch.cat([derive_seeds(batch.seeds, term) for term in range(copies)])

        flips = coin_flips(derive_seeds(batch.seeds, -1)) * copies if self.config.flip_equivariance else []
        translated, source_features = self.generator.translate_and_encode(_mirror(inputs, flips), taps)
        if any(flips):
            # The keys are those of the plain inputs, so the mirrored ones are encoded once more.
            mirrored = [i for i, flip in enumerate(flips) if flip]
            with torch.set_grad_enabled(torch.is_grad_enabled() and self.keys_need_gradient()):
                plain = self.generator.encode(torch.stack([inputs[i] for i in mirrored]), taps)
            source_features = [
                torch.stack([own[mirrored.index(i)] if flip else mixed[i] for i, flip in enumerate(flips)])
                for mixed, own in zip(source_features, plain, strict=True)
            ]
        translated_features = [_mirror(f, flips) for f in self.generator.encode(translated, taps)]
        return ContrastiveOutputs(
            target=batch.target,
            translated=translated[: len(batch.source)],
            shown=self.pool.exchange(translated[: len(batch.source)], derive_seeds(batch.seeds, -3)),
            source_features=source_features,
            translated_features=translated_features,
            seeds=seeds,
            identical=translated[len(batch.source) :] if with_identity else None,
        )

    def discriminator_loss(self, outputs: ContrastiveOutputs) -> dict[str, Tensor]:
        """The loss of D on I_y and on what it is shown of G, without gradient to G."""
        seeds = outputs.seeds[: len(outputs.target)]
        return self.config.discriminator_terms(self.discriminator, outputs.target, outputs.shown, seeds)

    def generator_loss(self, outputs: ContrastiveOutputs) -> dict[str, Tensor]:
        """Eq. 3: adversarial term, L_X and L_Y."""
        terms = {"adversarial": self.adversarial_loss(outputs)}
        contrastive = self.contrastive_loss(outputs)
        images, share = len(outputs.target), self.config.contrastive_share
        terms["contrastive"] = share * self.config.contrastive_weight * contrastive[:images].mean()
        if len(contrastive) > images:
            terms["identity"] = share * self.config.identity_weight * contrastive[images:].mean()
        return terms

    def adversarial_loss(self, outputs: ContrastiveOutputs) -> Tensor:
        """The generator's weighted adversarial term, a scalar."""
        seeds = outputs.seeds[: len(outputs.target)]
        return self.config.adversarial_term(judged(self.discriminator, outputs.translated, seeds))

    def pairs(self, outputs: ContrastiveOutputs) -> list[Pair]:
        """What the contrastive loss compares: one pair per tap, of K B images."""
        return projected_pairs(
            self.config.taps,
            outputs.source_features,
            outputs.translated_features,
            outputs.seeds,
            projector=self.projector,
            num_queries=self.config.num_queries,
            selection=self.selection,
        )

    def contrastive_loss(self, outputs: ContrastiveOutputs) -> Tensor:
        """Mean over the taps of Eq. 2, per image: (K B,)."""
        config = self.config
        return mean_patch_nce(self.pairs(outputs), len(outputs.target), config.temperature, config.negatives)


@register("fastcut")
class FastCUT(CUT):
    """FastCUT: the lighter variant of the CUT paper, with mirrored inputs in place of the identity pass."""

    Config: ClassVar[type[CUTConfig]] = FastCUTConfig
    title = "FastCUT"


def _mirror(x_BCHW: Tensor, flips: list[bool]) -> Tensor:
    """Flip the images (or feature maps) along their width where ``flips`` says so; an empty list flips nothing."""
    if not any(flips):
        return x_BCHW
    if all(flips):
        return x_BCHW.flip(-1)
    return torch.stack([x.flip(-1) if flip else x for x, flip in zip(x_BCHW, flips, strict=True)])
