"""The game between generator and discriminator, as every method here plays it: its settings and its loss terms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unpaired.errors import ConfigError
from unpaired.losses import GanMode, discriminator_loss, generator_loss, gradient_penalty
from unpaired.methods.base import OptimiserConfig, check_at_least_one, check_weights, derive_seeds
from unpaired.networks import PatchDiscriminator
from unpaired.ops import location_draws


@dataclass(frozen=True)
class AdversarialConfig:
    """Sizes of generator and discriminator, and the adversarial loss; a method's Config inherits them."""

    base_channels: int = 64
    """Width of the generator's first convolution."""
    discriminator_channels: int | None = None
    """Width of the discriminator's first convolution; unset means base_channels."""
    blocks: int = 9
    """Residual blocks of the generator."""
    discriminator_layers: int = 3
    """Halvings of the discriminator: 3 is the 70 x 70 PatchGAN (84 pixels with its blurs), 2 the 34 x 34 one (40),
    which suits crops of 64 to 128 pixels."""
    spectral_norm: bool = False
    """Divide each weight of the discriminator by its largest singular value (Miyato et al., 2018)."""
    gan_mode: GanMode = "lsgan"
    """The adversarial loss: least squares, hinge, the non-saturating logistic one, or Wasserstein with a penalty."""
    gradient_penalty_weight: float = 10.0
    """Weight of the penalty on the discriminator's gradient; gan_mode wgangp alone has one."""
    adversarial_weight: float = 1.0
    """Weight of the generator's adversarial term."""
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    """Adam and its schedule."""

    def __post_init__(self) -> None:
        check_at_least_one(self, "base_channels", "blocks", "discriminator_layers", "discriminator_channels")
        check_weights(self)
        if self.gan_mode == "wgangp" and self.gradient_penalty_weight == 0:
            raise ConfigError(
                "gradient_penalty_weight: gan_mode 'wgangp' has no bound without a penalty; set it above 0 (usual: 10)"
            )

    def discriminator_options(self) -> dict[str, Any]:
        """Arguments of the discriminator's constructor."""
        return {
            "base_channels": self.discriminator_channels or self.base_channels,
            "layers": self.discriminator_layers,
            "spectral_norm": self.spectral_norm,
        }

    def patch_discriminator(self, channels: int, **options: Any) -> PatchDiscriminator:
        """The discriminator of these settings for images of ``channels`` channels."""
        return PatchDiscriminator(channels, **self.discriminator_options(), **options)

    def discriminator_terms(
        self,
        discriminator: Callable[[Tensor], Tensor],
        real_BCHW: Tensor,
        fake_BCHW: Tensor,
        seeds_B: Tensor,
        ending: str = "",
    ) -> dict[str, Tensor]:
        """The loss of D on real images and on translations, judged in one pass, and its penalty if the mode has one.

        Args:
            discriminator: (B, C, H, W) -> scores (B, ...).
            real_BCHW: I_y.
            fake_BCHW: As many translations; no gradient reaches what made them.
            seeds_B: (B,) int64, one per image, for the penalty's draws.
            ending: Of the terms' names.
        """
        scores = discriminator(torch.cat([real_BCHW, fake_BCHW.detach()]))
        real, fake = scores.split(len(real_BCHW))
        return {
            f"discriminator{ending}": discriminator_loss(real, fake, self.gan_mode),
            **self.penalty_terms(discriminator, real_BCHW, fake_BCHW, seeds_B, ending),
        }

    def penalty_terms(
        self,
        discriminator: Callable[[Tensor], Tensor],
        real_BCHW: Tensor,
        fake_BCHW: Tensor,
        seeds_B: Tensor,
        ending: str = "",
    ) -> dict[str, Tensor]:
        """The weighted penalty on D's gradient; nothing where the mode has none. Arguments as above."""
        if self.gan_mode != "wgangp":
            return {}
        shares_B = location_draws(derive_seeds(seeds_B, -7), 1)[:, 0].to(real_BCHW, non_blocking=True)
        penalty = gradient_penalty(discriminator, real_BCHW, fake_BCHW, shares_B)
        return {f"gradient_penalty{ending}": self.gradient_penalty_weight * penalty}

    def adversarial_term(self, scores: Tensor) -> Tensor:
        """The generator's weighted loss on the scores of its translations, a scalar."""
        return self.adversarial_weight * generator_loss(scores, self.gan_mode)
