"""The game between generator and discriminator, as every method here plays it: its settings and its loss terms."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor

from unpaired.config import settings
from unpaired.errors import ConfigError
from unpaired.losses import GanMode, discriminator_loss, generator_loss, gradient_penalty
from unpaired.methods.base import OptimiserConfig, derive_seeds
from unpaired.networks import (
    LightGenerator,
    PatchDiscriminator,
    ProjectedDiscriminator,
    ProjectedScores,
    ResnetGenerator,
)
from unpaired.ops import location_draws

GENERATORS: dict[str, Callable[..., Any]] = {
    "resnet": ResnetGenerator,
    "light": LightGenerator,
    "light_smooth": functools.partial(LightGenerator, smooth=True),
}
"""Generators by name: those with taps under the names of the paper's places."""
Scores = Tensor | ProjectedScores
"""What a discriminator gives: scores (B, ...), or those of several heads."""


@settings
class AdversarialConfig:
    """Kinds and sizes of generator and discriminator, and the adversarial loss; a method's Config inherits them."""

    generator: Literal["resnet", "light", "light_smooth"] = "resnet"
    """resnet: that of the paper. light: starts at the identity and does its work at a quarter of the side, five
    times as fast on a CPU. light_smooth: the same without texture of its own, for drawings."""
    discriminator: Literal["patch", "projected", "projected_patch"] = "patch"
    """patch: the PatchGAN of the paper. projected: small heads on a frozen network's maps, which knows images already.
    projected_patch: both."""
    base_channels: PositiveInt = 64
    """Width of the generator's first convolution."""
    discriminator_channels: PositiveInt | None = None
    """Width of the discriminator's first convolution; unset means base_channels."""
    blocks: PositiveInt = 9
    """Residual blocks of the generator."""
    discriminator_layers: PositiveInt = 3
    """Halvings of the discriminator: 3 is the 70 x 70 PatchGAN (84 pixels with its blurs), 2 the 34 x 34 one (40),
    which suits crops of 64 to 128 pixels."""
    spectral_norm: bool = False
    """Divide each weight of the discriminator by its largest singular value (Miyato et al., 2018)."""
    gan_mode: GanMode = "lsgan"
    """The adversarial loss: least squares, hinge, the non-saturating logistic one, or Wasserstein with a penalty."""
    gradient_penalty_weight: NonNegativeFloat = 10.0
    """Weight of the penalty on the discriminator's gradient; gan_mode wgangp alone has one."""
    adversarial_weight: NonNegativeFloat = 1.0
    """Weight of the generator's adversarial term."""
    backbone: str = "lite0"
    """The projected discriminator's frozen network: lite0 (EfficientNet-Lite0), dino, clip, timm:<model> or
    torchvision:<model>."""
    backbone_weights: Path | None = None
    """File of its weights; unset takes those of its library."""
    head_channels: PositiveInt = 64
    """Width of the projected discriminator's heads."""
    augment_shift: Annotated[float, Field(ge=0, le=0.5)] = 0.125
    """Largest shift of the images before the frozen network sees them, as a share of the side."""
    augment_noise: NonNegativeFloat = 0.08
    """Standard deviation of the noise added to them, in units of the range [-1, 1]; without it generators learn rasters
    that fool the frozen network."""
    patch_weight: NonNegativeFloat = 1.0
    """Weight of the patch discriminator's part of the generator's adversarial term, beside a projected one."""
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    """Adam and its schedule."""

    def __post_init__(self) -> None:
        if self.gan_mode == "wgangp" and self.discriminator != "patch":
            raise ConfigError(
                f"gan_mode: 'wgangp' penalises the gradient at images; discriminator '{self.discriminator}' needs "
                "another"
            )
        if self.gan_mode == "wgangp" and self.gradient_penalty_weight == 0:
            raise ConfigError(
                "gradient_penalty_weight: gan_mode 'wgangp' has no bound without a penalty; set it above 0 (usual: 10)"
            )

    def own_networks(self, title: str, *names: Literal["generator", "discriminator"]) -> None:
        """Raise ``ConfigError`` if a network is asked for by name that the method ``title`` has of its own."""
        for name in names:
            if getattr(self, name) != (usual := getattr(AdversarialConfig, name)):
                raise ConfigError(f"{name}: {title} has a {name} of its own; leave the setting at {usual}")

    @property
    def frozen_networks(self) -> frozenset[str]:
        """Names of the frozen networks that training looks through: scores by them are flattered."""
        return frozenset() if self.discriminator == "patch" else frozenset({self.backbone})

    def for_translation(self) -> Self:
        """The settings for translating alone, which needs no package that a frozen network comes with."""
        return replace(self, discriminator="patch")

    def new_generator(self, channels: int, **of_resnet: Any) -> Any:
        """The generator of these settings for images of ``channels`` channels.

        Args:
            channels: In and out.
            of_resnet: Further arguments of ``ResnetGenerator``; the others have no such choice.
        """
        options = of_resnet if self.generator == "resnet" else {}
        kind = GENERATORS[self.generator]
        return kind(channels, channels, base_channels=self.base_channels, blocks=self.blocks, **options)

    def new_discriminator(self, channels: int, **options: Any) -> PatchDiscriminator | ProjectedDiscriminator:
        """The discriminator of these settings for images of ``channels`` channels; options are the PatchGAN's.

        Raises:
            ConfigError: A frozen network cannot see such images, or there is none of that name.
            BackendError: The package that it comes with is missing.
        """
        if self.discriminator == "patch":
            return self.patch_discriminator(channels, **options)
        return ProjectedDiscriminator(
            channels,
            backbone=self.backbone,
            weights=self.backbone_weights,
            head_channels=self.head_channels,
            shift=self.augment_shift,
            noise=self.augment_noise,
            patch=self.patch_discriminator(channels, **options) if self.discriminator == "projected_patch" else None,
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
        discriminator: Callable[..., Scores],
        real_BCHW: Tensor,
        fake_BCHW: Tensor,
        seeds_B: Tensor,
        ending: str = "",
    ) -> dict[str, Tensor]:
        """The loss of D on real images and on translations, judged in one pass, and its penalty if the mode has one.

        Args:
            discriminator: (B, C, H, W) and (B,) seeds -> scores.
            real_BCHW: I_y.
            fake_BCHW: As many translations; no gradient reaches what made them.
            seeds_B: (B,) int64, one per image, for D's draws and the penalty's.
            ending: Of the terms' names.
        """
        seeds_2B = torch.cat([derive_seeds(seeds_B, -8), derive_seeds(seeds_B, -9)])
        scores = discriminator(torch.cat([real_BCHW, fake_BCHW.detach()]), seeds_2B)

        def loss(scores: Tensor, mode: GanMode) -> Tensor:
            real, fake = scores.split(len(real_BCHW))
            return discriminator_loss(real, fake, mode)

        if isinstance(scores, ProjectedScores):
            per_map = torch.stack([loss(each, "hinge") for each in scores.projected])
            terms = {f"discriminator{ending}": per_map.mean()}
            if scores.patch is not None:
                terms[f"patch_discriminator{ending}"] = loss(scores.patch, self.gan_mode)
            return terms
        return {
            f"discriminator{ending}": loss(scores, self.gan_mode),
            **self.penalty_terms(discriminator, real_BCHW, fake_BCHW, seeds_B, ending),
        }

    def penalty_terms(
        self,
        discriminator: Callable[..., Any],
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

    def adversarial_term(self, scores: Scores) -> Tensor:
        """The generator's weighted loss on the scores of its translations, a scalar.

        A projected discriminator's is the hinge loss, mean over its maps; the patch discriminator's is added to it.
        """
        if not isinstance(scores, ProjectedScores):
            return self.adversarial_weight * generator_loss(scores, self.gan_mode)
        term = torch.stack([generator_loss(each, "hinge") for each in scores.projected]).mean()
        if scores.patch is not None:
            term = term + self.patch_weight * generator_loss(scores.patch, self.gan_mode)
        return self.adversarial_weight * term


def judged(discriminator: Callable[..., Scores], fake_BCHW: Tensor, seeds_B: Tensor) -> Scores:
    """Scores of translations when G learns, with draws of D of their own.

    Args:
        discriminator: (B, C, H, W) and (B,) seeds -> scores.
        fake_BCHW: G(I_x), with gradient.
        seeds_B: (B,) int64, one per image, as :meth:`AdversarialConfig.discriminator_terms` has them.
    """
    return discriminator(fake_BCHW, derive_seeds(seeds_B, -10))
