"""Reflection padding of images to sizes that the networks accept: multiples of 4, at least 16 pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MULTIPLE = 4  # the generators downsample twice
SMALLEST = 16  # below this, reflection padding would be wider than the feature maps


def padded_size(side: int) -> int:
    """The side of a padded image.

    >>> [padded_size(side) for side in (1, 16, 17, 256)]
    [16, 16, 20, 256]
    """
    return max(SMALLEST, -(-side // MULTIPLE) * MULTIPLE)


def pad(x_BCHW: Tensor) -> Tensor:
    """Pad at the right and bottom by reflection, repeated for small images; a side of one pixel is replicated.

    Reflection preserves the statistics of instance normalisation.
    """
    height, width = x_BCHW.shape[-2:]
    bottom, right = padded_size(height) - height, padded_size(width) - width
    if not bottom and not right:
        return x_BCHW
    if bottom < height and right < width:
        return F.pad(x_BCHW, (0, right, 0, bottom), mode="reflect")
    device = x_BCHW.device
    return x_BCHW[..., _mirrored(height, height + bottom, device), :][..., _mirrored(width, width + right, device)]


def _mirrored(side: int, padded: int, device: torch.device) -> Tensor:
    """``padded`` positions that run from 0 to ``side - 1`` and back, repeatedly."""
    period = max(1, 2 * (side - 1))
    position = torch.arange(padded, device=device) % period
    return torch.minimum(position, period - position) if side > 1 else position
