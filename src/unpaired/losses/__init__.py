"""Loss functions of tensors, independent of networks, methods and settings."""

from unpaired.losses.adversarial import GanMode, discriminator_loss, generator_loss, gradient_penalty, r1_penalty
from unpaired.losses.patch_nce import patch_nce_loss

__all__ = ["GanMode", "discriminator_loss", "generator_loss", "gradient_penalty", "patch_nce_loss", "r1_penalty"]
