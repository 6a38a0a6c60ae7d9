"""SinCUT: CUT between two single pictures, learned from their crops at many scales."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, ClassVar

from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from unpaired.config import settings
from unpaired.losses import GanMode, r1_penalty
from unpaired.losses.patch_nce import Negatives
from unpaired.methods.base import OptimiserConfig, register
from unpaired.methods.cut import CUT, ContrastiveOutputs, CUTConfig
from unpaired.networks import LocalDiscriminator, LocalGenerator


@settings
class SinCUTConfig(CUTConfig):
    """Settings of SinCUT; the defaults are those of its authors' code."""

    base_channels: PositiveInt = 80
    """Width of the generator at the image's size; its blocks have twice as many channels."""
    discriminator_channels: PositiveInt | None = 32
    """Width of the discriminator's first convolution; unset means base_channels."""
    blocks: PositiveInt = 6
    """Residual blocks of the generator; the first half of them belongs to the encoder."""
    discriminator_layers: PositiveInt = 4
    """Halvings of the discriminator."""
    gan_mode: GanMode = "nonsaturating"
    """The adversarial loss: least squares, hinge, the non-saturating logistic one, or Wasserstein with a penalty."""
    r1_weight: NonNegativeFloat = 1.0
    """Weight of R1, the penalty on the discriminator's gradient at real crops; 0 leaves it out."""
    taps: tuple[str, ...] = ("input", "down", "block2")
    """Places of the encoder where the contrastive loss is taken: input, stem, down or a block of the first half."""
    num_queries: PositiveInt = 1
    """N: anchors per tap and crop."""
    negatives: Negatives = "batch"
    """Where an anchor's negatives come from: its own image, or all images of the batch."""
    contrastive_weight: NonNegativeFloat = 4.0
    """Weight of L_X, the contrastive loss between I_x and G(I_x)."""
    identity_weight: NonNegativeFloat = 4.0
    """Weight of L_Y, the contrastive loss between I_y and G(I_y); 0 leaves it out."""
    pixel_identity_weight: NonNegativeFloat = 1.0
    """Weight of the L1 distance between I_y and G(I_y); it needs the identity pass (identity_weight above 0)."""
    optimiser: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(learning_rate=2e-3, beta1=0.0, beta2=0.99, epochs=16)
    )
    """Adam and its schedule."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.own_networks("SinCUT", "generator", "discriminator")


@register("sincut")
class SinCUT(CUT):
    """Single-image translation (Park et al., 2020, section 4.4): one picture per domain, each crop an image.

    One location of each crop is an anchor, the other crops' are its negatives, so a batch must have several (16 in the
    published training).

    Deviations, named, beside those of :class:`CUT`: networks after StyleGAN2's as its authors' are, without noise, and
    with a score for each place of a crop instead of one for all of it; locations differ from crop to crop.

    Args:
        config: The settings.
        channels: Channels of the images of both domains.
    """

    Config: ClassVar[type[SinCUTConfig]] = SinCUTConfig
    data_defaults: ClassVar[Mapping[str, Any]] = {
        "image_size": 64,
        "load_size": 1024,
        "resize": "zoom_and_crop",
        "images_per_epoch": 100_000,
    }
    title = "SinCUT"
    config: SinCUTConfig

    def __init__(self, config: SinCUTConfig, channels: int = 3) -> None:
        super().__init__(config, channels)
        if config.negatives == "batch" and config.num_queries == 1:
            self.smallest_batch = 2

    def new_generator(self, channels: int) -> Any:
        return LocalGenerator(channels, channels, base_channels=self.config.base_channels, blocks=self.config.blocks)

    def new_discriminator(self, channels: int) -> Any:
        return LocalDiscriminator(channels, **self.config.discriminator_options())

    def discriminator_loss(self, outputs: ContrastiveOutputs) -> dict[str, Tensor]:
        """The adversarial loss of D, and R1 at I_y."""
        terms = super().discriminator_loss(outputs)
        if self.config.r1_weight > 0:
            terms["r1"] = self.config.r1_weight * r1_penalty(self.discriminator, outputs.target)
        return terms

    def generator_loss(self, outputs: ContrastiveOutputs) -> dict[str, Tensor]:
        """The terms of CUT and the L1 distance between I_y and G(I_y)."""
        terms = super().generator_loss(outputs)
        if outputs.identical is not None and self.config.pixel_identity_weight > 0:
            distance = (outputs.identical - outputs.target).abs().mean()
            terms["pixel_identity"] = self.config.pixel_identity_weight * distance
        return terms
