"""Losses: functions from tensors to tensors. They know no network, no method and no setting."""

from unpaired.losses.adversarial import lsgan_discriminator_loss, lsgan_generator_loss
from unpaired.losses.patch_nce import patch_nce_loss

__all__ = ["lsgan_discriminator_loss", "lsgan_generator_loss", "patch_nce_loss"]
