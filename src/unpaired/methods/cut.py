"""CUT and FastCUT: contrastive learning between an image and its translation at random locations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from unpaired.config import Amount, Count, CountOrZero, settings
from unpaired.methods.adversarial import AdversarialConfig
from unpaired.methods.base import ImageBatch, OptimiserConfig, coin_flips, derive_seeds, register
from unpaired.methods.contrast import ContrastConfig, Pair, mean_patch_nce, projected_pairs
from unpaired.methods.one_way import OneWay, OneWayOutputs
from unpaired.networks import Projector
from unpaired.networks.generators import channels_at


@settings
class CUTConfig(ContrastConfig, AdversarialConfig):
    """Settings of CUT; the defaults are the paper's."""

    identity_weight: Amount = 1.0
    """Weight of L_Y, the contrastive loss between I_y and G(I_y); 0 skips the identity pass."""
    identity_interval: Count = 1
    """Interval of the identity pass, in steps."""
    contrastive_reduction: Literal["mean", "sum"] = "mean"
    """Combine L_X and L_Y as their mean (the published code) or their sum (Eq. 3)."""
    image_pool: CountOrZero = 0
    """Earlier translations kept for the discriminator (50 in CycleGAN); 0 uses the newest only."""
    flip_equivariance: bool = False
    """Translate a mirrored input half of the time and compare it with the features of the original."""

    @property
    def contrastive_share(self) -> float:
        """Factor of L_X and of L_Y: 0.5 where they are averaged, also at steps without L_Y."""
        return 0.5 if self.identity_weight > 0 and self.contrastive_reduction == "mean" else 1.0


@settings
class FastCUTConfig(CUTConfig):
    """Settings of FastCUT: CUT without the identity pass, a stronger contrastive loss and mirrored inputs."""

    contrastive_weight: Amount = 10.0
    """Weight of the contrastive loss between I_x and G(I_x)."""
    identity_weight: Amount = 0.0
    """Weight of L_Y, the contrastive loss between I_y and G(I_y); 0 skips the identity pass."""
    flip_equivariance: bool = True
    """Translate a mirrored input half of the time and compare it with the features of the original."""
    optimiser: OptimiserConfig = field(default_factory=lambda: OptimiserConfig(epochs=200, constant_fraction=0.75))
    """Adam and its schedule."""


@dataclass(frozen=True, kw_only=True)
class ContrastiveOutputs(OneWayOutputs):
    """As :class:`OneWayOutputs`, with what the contrastive loss needs. K = 2 with the identity pass, else 1.

    Attributes:
        source_features: Per tap, the encodings of I_x (and I_y), (K B, C_t, H_t, W_t), from the full passes.
        translated_features: Per tap, the encodings of G(I_x) (and G(I_y)), the same shapes.
        identical: G(I_y), (B, C, H, W), or None without the identity pass.
    """

    source_features: list[Tensor]
    translated_features: list[Tensor]
    identical: Tensor | None


@register("cut")
class CUT(OneWay):
    """Contrastive unpaired translation (Park et al., 2020).

    Known deviations: draws are functions of (seed, image); the schedule decays per image instead of per epoch; keys are
    taken from the full passes instead of being encoded again (the same values).
    """

    Config: ClassVar[type[CUTConfig]] = CUTConfig
    title = "CUT"
    citation = "Park, Efros, Zhang, Zhu: Contrastive Learning for Unpaired Image-to-Image Translation. ECCV 2020."
    updated_with_generator = ("projector",)
    has_pool = True
    config: CUTConfig

    def __init__(self, config: CUTConfig, channels: int = 3) -> None:
        super().__init__(config, channels)
        self.projector = Projector(channels_at(self.generator.tap_channels, config.taps), config.projector_width)
        self.cycle = config.identity_interval if config.identity_weight > 0 else 1
        if config.image_pool or config.flip_equivariance:
            self.not_recordable = "image_pool and flip_equivariance are decided on the host, image by image"

    def keys_need_gradient(self) -> bool:
        """Whether gradient flows into the encodings of the inputs (through attention rows)."""
        return False

    def with_identity(self, batch: ImageBatch) -> bool:
        """Whether this step has an identity pass."""
        return self.config.identity_weight > 0 and batch.number % self.config.identity_interval == 0

    def forward_train(self, batch: ImageBatch) -> ContrastiveOutputs:
        taps, images = self.config.taps, len(batch.source)
        with_identity = self.with_identity(batch)
        inputs = torch.cat([batch.source, batch.target]) if with_identity else batch.source
        copies = 2 if with_identity else 1

        flips = coin_flips(derive_seeds(batch.seeds, -1)) * copies if self.config.flip_equivariance else []
        translated, source_features = self.generator.translate_and_encode(_mirror(inputs, flips), taps)
        if any(flips):
            # The keys are those of the original inputs, so the mirrored ones are encoded once more.
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
            translated=translated[:images],
            fakes=self.pool.exchange(translated[:images], derive_seeds(batch.seeds, -3)),
            source_features=source_features,
            translated_features=translated_features,
            seeds=torch.cat([derive_seeds(batch.seeds, term) for term in range(copies)]),
            identical=translated[images:] if with_identity else None,
        )

    def generator_loss(self, outputs: ContrastiveOutputs) -> dict[str, Tensor]:
        """Eq. 3: adversarial term, L_X and L_Y."""
        return super().generator_loss(outputs) | self.contrastive_terms(outputs, self.pairs(outputs))

    def contrastive_terms(self, outputs: ContrastiveOutputs, pairs: list[Pair]) -> dict[str, Tensor]:
        """L_X and, with the identity pass, L_Y, weighted."""
        config = self.config
        of_source, of_target = self.contrastive_loss(outputs, pairs).tensor_split([len(outputs.target)])
        terms = {"contrastive": config.contrastive_share * config.contrastive_weight * of_source.mean()}
        if len(of_target):
            terms["identity"] = config.contrastive_share * config.identity_weight * of_target.mean()
        return terms

    def pairs(self, outputs: ContrastiveOutputs) -> list[Pair]:
        """Projected features that the contrastive loss compares: one pair per tap, of K B images."""
        features = (outputs.source_features, outputs.translated_features)
        return projected_pairs(self.config, self.selection, *features, outputs.seeds, self.projector)

    def contrastive_loss(self, outputs: ContrastiveOutputs, pairs: list[Pair]) -> Tensor:
        """Mean over the taps of the contrastive loss, per image: (K B,)."""
        return mean_patch_nce(pairs, len(outputs.target), self.config)


@register("fastcut")
class FastCUT(CUT):
    """FastCUT: the lighter variant of the CUT paper, with mirrored inputs in place of the identity pass."""

    Config: ClassVar[type[CUTConfig]] = FastCUTConfig
    title = "FastCUT"


def _mirror(x_BCHW: Tensor, flips: list[bool]) -> Tensor:
    """Mirror the images (or feature maps) whose flag is set; an empty list mirrors nothing."""
    if not any(flips):
        return x_BCHW
    if all(flips):
        return x_BCHW.flip(-1)
    return torch.stack([x.flip(-1) if flip else x for x, flip in zip(x_BCHW, flips, strict=True)])
