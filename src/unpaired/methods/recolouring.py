"""Colour jitter as a function of an image's seed."""

from __future__ import annotations

import torch
from torch import Tensor

from unpaired.ops import location_draws


def recoloured(x_BCHW: Tensor, seeds: Tensor) -> Tensor:
    """Apply torchvision's ColorJitter(0.5, 0.5, 0.5, 0.3) to each image with seeded draws.

    Brightness, contrast and saturation are scaled by 0.5 to 1.5 and the hue is rotated by up to 0.3 of the circle, in
    random order. Saturation and hue leave single-channel images unchanged.

    Args:
        x_BCHW: (B, 1 or 3, H, W) in [-1, 1].
        seeds: (B,) int64; the changes are a function of them.

    Returns:
        The same shape, in [-1, 1].
    """
    from torchvision.transforms import functional as change  # takes a second to import

    images = []
    for x_CHW, draws in zip(x_BCHW, location_draws(seeds, 8).tolist(), strict=True):
        factors, order = draws[:4], sorted(range(4), key=draws[4:].__getitem__)
        image = (x_CHW + 1) / 2
        for step in order:
            if step == 3:
                image = change.adjust_hue(image, 0.6 * factors[3] - 0.3)
            else:
                adjust = (change.adjust_brightness, change.adjust_contrast, change.adjust_saturation)[step]
                image = adjust(image, 0.5 + factors[step])
        images.append(image * 2 - 1)
    return torch.stack(images)
