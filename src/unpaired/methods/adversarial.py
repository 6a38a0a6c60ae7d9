"""Settings and loss terms of the adversarial part, shared by all methods."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from unpaired.config import Amount, Depth, Levels, Width, settings
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
from unpaired.plugins import make_named

GENERATORS: dict[str, Callable[..., Any]] = {
    "resnet": ResnetGenerator,
    "light": LightGenerator,
    "light_smooth": functools.partial(LightGenerator, smooth=True),
}
"""Generators that can be chosen by name; their taps have the names of the paper's layers."""
_OF_A_GENERATOR = ("forward", "translate_and_encode", "encode", "tap_channels")
_PROJECTED = ("projected", "projected_patch")
NamedClass = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
"""A class of a plug-in, as ``package.module:Class``."""
Scores = Tensor | ProjectedScores
"""Output of a discriminator: scores (B, ...), or those of several heads."""


@settings
class AdversarialConfig:
    """Settings of generator, discriminator and adversarial loss; a method's Config inherits them."""

    generator: Literal["resnet", "light", "light_smooth"] | NamedClass = "resnet"
    """resnet: the paper's. light: starts at the identity and works at a quarter of the resolution, five times as fast
    on a CPU. light_smooth: the same without texture synthesis, for drawings. module:Class: your own, of a plug-in."""
    discriminator: Literal["patch", "projected", "projected_patch"] | NamedClass = "patch"
    """patch: the paper's PatchGAN. projected: small heads on the features of a frozen pretrained network.
    projected_patch: both. module:Class: your own, of a plug-in."""
    base_channels: Width = 64
    """Width of the generator's first convolution."""
    discriminator_channels: Width | None = None
    """Width of the discriminator's first convolution; unset means base_channels."""
    blocks: Depth = 9
    """Residual blocks of the generator."""
    discriminator_layers: Levels = 3
    """Downsampling layers of the discriminator: 3 is the 70 x 70 PatchGAN (84 pixels with its blurs), 2 the 34 x 34 one
    (40), which suits crops of 64 to 128 pixels."""
    spectral_norm: bool = False
    """Divide each weight of the discriminator by its largest singular value (Miyato et al., 2018)."""
    gan_mode: GanMode = "lsgan"
    """Adversarial loss: least squares, hinge, non-saturating logistic, or Wasserstein with gradient penalty."""
    gradient_penalty_weight: Amount = 10.0
    """Weight of the penalty on the discriminator's gradient; used by gan_mode wgangp only."""
    adversarial_weight: Amount = 1.0
    """Weight of the generator's adversarial term."""
    backbone: str = "lite0"
    """The projected discriminator's frozen network: lite0 (EfficientNet-Lite0), dino, clip, timm:<model> or
    torchvision:<model>."""
    backbone_weights: Path | None = None
    """File with its weights; unset uses those of its library."""
    head_channels: Width = 64
    """Width of the projected discriminator's heads."""
    augment_shift: Annotated[float, Field(ge=0, le=0.5)] = 0.125
    """Largest random shift of the frozen network's input, as a fraction of the side."""
    augment_noise: Amount = 0.08
    """Standard deviation of the noise added to it, in units of the range [-1, 1]: it hides fine patterns from the
    frozen network, so that they can neither fool it nor be penalised."""
    batch_deviation: bool = False
    """Minibatch standard deviation: show the projected discriminator how much the images of a batch differ, so that
    translations do not all have the same colours."""
    patch_weight: Amount = 1.0
    """Weight of the patch discriminator's part of the generator's adversarial term with projected_patch."""
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    """Adam and its schedule."""

    def __post_init__(self) -> None:
        if self.gan_mode == "wgangp" and self.discriminator in _PROJECTED:
            raise ConfigError(
                f"gan_mode: 'wgangp' needs discriminator 'patch'; choose another gan_mode for '{self.discriminator}'"
            )
        if self.gan_mode == "wgangp" and self.gradient_penalty_weight == 0:
            raise ConfigError(
                "gradient_penalty_weight: gan_mode 'wgangp' diverges without a penalty; set it above 0 (usual: 10)"
            )

    def require_defaults(self, title: str, *names: Literal["generator", "discriminator"]) -> None:
        """Raise ``ConfigError`` if a network was chosen that the method ``title`` defines itself."""
        for name in names:
            if getattr(self, name) != (default := getattr(AdversarialConfig, name)):
                raise ConfigError(f"{name}: {title} has a {name} of its own; leave the setting at {default}")

    @property
    def frozen_networks(self) -> frozenset[str]:
        """Frozen networks that training uses; scores computed with them are biased in its favour."""
        return frozenset({self.backbone}) if self.discriminator in _PROJECTED else frozenset()

    def for_translation(self) -> Self:
        """The settings for inference, which needs no frozen network and none of its packages."""
        return replace(self, discriminator="patch")

    def new_generator(self, channels: int, **resnet_options: Any) -> Any:
        """Create the generator for images of ``channels`` channels; options are for ``ResnetGenerator`` only."""
        options = resnet_options if self.generator == "resnet" else {}
        own = functools.partial(make_named, "generator", self.generator, _OF_A_GENERATOR)
        kind = GENERATORS.get(self.generator, own)
        return kind(channels, channels, base_channels=self.base_channels, blocks=self.blocks, **options)

    def new_discriminator(self, channels: int, **options: Any) -> Any:
        """Create the discriminator for images of ``channels`` channels; options are for the PatchGAN.

        Raises:
            ConfigError: The frozen network does not exist or does not take such images, or the plug-in is not loaded.
            BackendError: Its package is missing.
        """
        if self.discriminator == "patch":
            return self.patch_discriminator(channels, **options)
        if self.discriminator not in _PROJECTED:
            wanted, options = ("forward", "smallest_image"), self.discriminator_options()
            return make_named("discriminator", self.discriminator, wanted, channels, **options)
        return ProjectedDiscriminator(
            channels,
            backbone=self.backbone,
            weights=self.backbone_weights,
            head_channels=self.head_channels,
            shift=self.augment_shift,
            noise=self.augment_noise,
            batch_deviation=self.batch_deviation,
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
        """Create the PatchGAN for images of ``channels`` channels."""
        return PatchDiscriminator(channels, **self.discriminator_options(), **options)

    def discriminator_terms(
        self,
        discriminator: Callable[..., Scores],
        real_BCHW: Tensor,
        fake_BCHW: Tensor,
        seeds_B: Tensor,
        ending: str = "",
    ) -> dict[str, Tensor]:
        """Discriminator loss on real images and translations, scored in one pass, and its penalty if there is one.

        Args:
            discriminator: (B, C, H, W) and (B,) seeds -> scores.
            real_BCHW: I_y.
            fake_BCHW: As many translations, which are detached.
            seeds_B: (B,) int64, one per image, for the draws of D and of the penalty.
            ending: Suffix of the terms' names.
        """
        seeds_2B = torch.cat([derive_seeds(seeds_B, -8), derive_seeds(seeds_B, -9)])
        groups = {"groups": 2} if self.batch_deviation and self.discriminator in _PROJECTED else {}
        scores = discriminator(torch.cat([real_BCHW, fake_BCHW.detach()]), seeds_2B, **groups)

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
        """The weighted gradient penalty of D; empty unless gan_mode is wgangp. Arguments as above."""
        if self.gan_mode != "wgangp":
            return {}
        shares_B = location_draws(derive_seeds(seeds_B, -7), 1)[:, 0].to(real_BCHW, non_blocking=True)
        penalty = gradient_penalty(discriminator, real_BCHW, fake_BCHW, shares_B)
        return {f"gradient_penalty{ending}": self.gradient_penalty_weight * penalty}

    def adversarial_term(self, scores: Scores) -> Tensor:
        """The generator's weighted loss on the scores of its translations, a scalar.

        For a projected discriminator: the hinge loss, mean over its maps, plus the patch discriminator's loss if any.
        """
        if not isinstance(scores, ProjectedScores):
            return self.adversarial_weight * generator_loss(scores, self.gan_mode)
        term = torch.stack([generator_loss(each, "hinge") for each in scores.projected]).mean()
        if scores.patch is not None:
            term = term + self.patch_weight * generator_loss(scores.patch, self.gan_mode)
        return self.adversarial_weight * term


def generator_scores(discriminator: Callable[..., Scores], fake_BCHW: Tensor, seeds_B: Tensor) -> Scores:
    """Scores of translations for the generator's loss; D's draws differ from those for its own loss.

    Args:
        discriminator: (B, C, H, W) and (B,) seeds -> scores.
        fake_BCHW: G(I_x), with gradient.
        seeds_B: (B,) int64, one per image, as in :meth:`AdversarialConfig.discriminator_terms`.
    """
    return discriminator(fake_BCHW, derive_seeds(seeds_B, -10))
