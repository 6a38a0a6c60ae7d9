"""SinCUT: CUT between two single images, trained on their crops at many scales."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, ClassVar

from torch import Tensor

from unpaired.config import Amount, Count, Depth, Levels, Width, settings
from unpaired.losses import GanMode, r1_penalty
from unpaired.losses.patch_nce import Negatives
from unpaired.methods.base import OptimiserConfig, register
from unpaired.methods.cut import CUT, ContrastiveOutputs, CUTConfig
from unpaired.networks import LocalDiscriminator, LocalGenerator


@settings
class SinCUTConfig(CUTConfig):
    """Settings of SinCUT; the defaults are those of its authors' code."""

    base_channels: Width = 80
    """Width of the generator at full resolution; its blocks have twice as many channels."""
    discriminator_channels: Width | None = 32
    """Width of the discriminator's first convolution; unset means base_channels."""
    blocks: Depth = 6
    """Residual blocks of the generator; the first half belongs to the encoder."""
    discriminator_layers: Levels = 4
    """Downsampling layers of the discriminator."""
    gan_mode: GanMode = "nonsaturating"
    """Adversarial loss: least squares, hinge, non-saturating logistic, or Wasserstein with gradient penalty."""
    r1_weight: Amount = 1.0
    """Weight of R1, the penalty on the discriminator's gradient at real crops; 0 turns it off."""
    taps: tuple[str, ...] = ("input", "down", "block2")
    """Encoder layers at which the contrastive loss is computed: input, stem, down or a block of the first half."""
    num_queries: Count = 1
    """N: anchors per tap and crop."""
    negatives: Negatives = "batch"
    """Source of an anchor's negatives: its own image, or all images of the batch."""
    contrastive_weight: Amount = 4.0
    """Weight of the contrastive loss between I_x and G(I_x)."""
    identity_weight: Amount = 4.0
    """Weight of L_Y, the contrastive loss between I_y and G(I_y); 0 skips the identity pass."""
    pixel_identity_weight: Amount = 1.0
    """Weight of the L1 distance between I_y and G(I_y); it needs the identity pass (identity_weight above 0)."""
    optimiser: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(learning_rate=2e-3, beta1=0.0, beta2=0.99, epochs=16)
    )
    """Adam and its schedule."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_defaults("SinCUT", "generator", "discriminator")


@register("sincut")
class SinCUT(CUT):
    """Single-image translation (Park et al., 2020, section 4.4): one image per domain, each crop a training image.

    Each crop has one anchor, whose negatives are those of the other crops, so a batch needs several crops (16 in the
    published training).

    Known deviations beside those of :class:`CUT`: the networks follow StyleGAN2 like the authors', but without noise,
    and the discriminator scores each location of a crop instead of the whole crop; locations differ between crops.
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
        """Discriminator loss and R1 at I_y."""
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
