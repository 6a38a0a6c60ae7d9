"""Sizes that networks take: a multiple of 4 and at least 16 pixels, the rest mirrored at the right and below."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MULTIPLE = 4  # the generators halve twice
SMALLEST = 16  # below this, reflected borders would be wider than the feature maps


def padded_size(side: int) -> int:
    """The side of a padded image.

    >>> [padded_size(side) for side in (1, 16, 17, 256)]
    [16, 16, 20, 256]
    """
    return max(SMALLEST, -(-side // MULTIPLE) * MULTIPLE)


def pad(x_BCHW: Tensor) -> Tensor:
    """Extend right and bottom to sizes that networks take, mirrored at the last pixel as often as it takes.

    So the statistics that instance normalisation takes are those of the image, however small it is; a side of one
    pixel is repeated.
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
    """Positions 0 to ``side - 1`` and on from there back and forth, ``padded`` of them."""
    period = max(1, 2 * (side - 1))
    place = torch.arange(padded, device=device) % period
    return torch.minimum(place, period - place) if side > 1 else place
