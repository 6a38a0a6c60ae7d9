"""Channel counts of the two domains and of the networks between them.

Networks see images of C channels, the larger of the two counts, whatever the domain. Images of a domain with fewer
channels are repeated cyclically (channel i of the network is channel i mod c), and what the network makes for that
domain is reduced by averaging the copies.
"""

from __future__ import annotations

import torch
from torch import Tensor


def repeat_channels(images: Tensor, channels: int) -> Tensor:
    """Images (..., c, H, W) with their channels repeated cyclically to ``channels``; as they are if that is c.

    >>> repeat_channels(torch.arange(2.0).view(2, 1, 1), 5).flatten().tolist()
    [0.0, 1.0, 0.0, 1.0, 0.0]
    """
    own = images.shape[-3]
    if own == channels:
        return images
    return images[..., torch.arange(channels, device=images.device) % own, :, :]


def average_copies(images: Tensor, channels: int) -> Tensor:
    """The inverse: images (..., C, H, W) with ``channels`` channels, each the mean of its copies.

    >>> average_copies(torch.tensor([1.0, 5.0, 3.0]).view(3, 1, 1), 2).flatten().tolist()
    [2.0, 5.0]
    """
    if images.shape[-3] == channels:
        return images
    return torch.stack([images[..., first::channels, :, :].mean(-3) for first in range(channels)], dim=-3)
