"""The projector of the contrastive loss: one small perceptron per tapped layer."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from unpaired.networks.layers import initialise


class Projector(nn.Module):
    """F of CUT: C -> ``width`` -> ``width`` per tap, then unit length. 560,384 parameters at the paper's five taps.

    The widths are known when it is made, so its optimizer exists before the first batch does.

    Args:
        tap_channels: Channels at each tap, by name.
        width: Dimension of the projected features (256 in the paper).
    """

    def __init__(self, tap_channels: Mapping[str, int], width: int = 256) -> None:
        super().__init__()
        self.taps = nn.ModuleDict(
            {
                tap: nn.Sequential(nn.Linear(channels, width), nn.ReLU(), nn.Linear(width, width))
                for tap, channels in tap_channels.items()
            }
        )
        initialise(self)

    def forward(self, tap: str, features_BNC: Tensor) -> Tensor:
        """Project features of one tap: (B, N, C) -> (B, N, width), each of unit length, float32 at least."""
        projected = self.taps[tap](features_BNC)
        return F.normalize(projected.float() if projected.itemsize < 4 else projected, dim=-1)
