"""Changes of colour that leave the structure of an image alone, as functions of its seed."""

from __future__ import annotations

import math

from torch import Tensor

from unpaired.ops import location_draws


def recoloured(x_BCHW: Tensor, seeds: Tensor) -> Tensor:
    """Change the colours of each image and nothing of its structure.

    Colours turn about the grey axis by up to 36 degrees, their distance from it (saturation) and from the image's mean
    (contrast) are scaled by 0.6 to 1.4, and all are shifted by up to 0.4 (brightness); images of one channel know
    contrast and brightness only.

    Args:
        x_BCHW: (B, 1 or 3, H, W) in [-1, 1].
        seeds: (B,) int64: the changes are a function of them.

    Returns:
        The same shape, in [-1, 1].
    """
    draws = (2 * location_draws(seeds, 4) - 1).to(x_BCHW, non_blocking=True)[:, :, None, None, None]
    hue, saturation, contrast, brightness = draws.unbind(dim=1)
    mean = x_BCHW.mean(dim=(1, 2, 3), keepdim=True)
    if x_BCHW.shape[1] == 3:
        grey = x_BCHW.mean(dim=1, keepdim=True)
        colour = x_BCHW - grey
        # A quarter turn about (1, 1, 1) / sqrt(3): the cross product with it.
        turned = (colour.roll(1, dims=1) - colour.roll(-1, dims=1)) / math.sqrt(3)
        angle = 0.2 * math.pi * hue
        x_BCHW = grey + (1 + 0.4 * saturation) * (angle.cos() * colour + angle.sin() * turned)
    return (mean + (1 + 0.4 * contrast) * (x_BCHW - mean) + 0.4 * brightness).clamp(-1, 1)
