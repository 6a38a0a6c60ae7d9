"""Projectors for losses on features: small MLPs, one per tap."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unpaired.networks.layers import initialise
from unpaired.ops import widen


class Projector(nn.Module):
    """F of CUT: C -> ``width`` -> ``width`` per tap, then unit length. 560,384 parameters at the paper's five taps.

    Args:
        tap_channels: Channels at each tap, by name.
        width: Dimension of the projected features (256 in the paper).
        epsilon: Added to the norm that features are divided by, as in the published code. It matters in the first step
            only, when features are tiny.
    """

    def __init__(self, tap_channels: Mapping[str, int], width: int = 256, *, epsilon: float = 1e-7) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.taps = nn.ModuleDict(
            {
                tap: nn.Sequential(nn.Linear(channels, width), nn.ReLU(), nn.Linear(width, width))
                for tap, channels in tap_channels.items()
            }
        )
        initialise(self)

    def forward(self, tap: str, features_BNC: Tensor) -> Tensor:
        """Project features of one tap: (B, N, C) -> (B, N, width), each of unit length, float32 at least."""
        projected = widen(self.taps[tap](features_BNC))
        length = torch.linalg.vector_norm(projected, dim=-1, keepdim=True)
        return projected / (length + self.epsilon).clamp(min=1e-12)


class PredictingProjector(nn.Module):
    """Projection and prediction of EnCo per tap: C -> D -> D, then D -> D / 2 -> D.

    Channels are normalised over the locations of each image, which equals the published batch norm at the published
    batch size of 1. 510,976 parameters for EnCo's three taps.

    Args:
        tap_channels: Channels at each tap, by name.
        width: D, dimension of the projected features (256 in the paper), even.
    """

    def __init__(self, tap_channels: Mapping[str, int], width: int = 256) -> None:
        super().__init__()
        self.projections = nn.ModuleDict(
            {
                tap: nn.Sequential(
                    nn.Linear(channels, width, bias=False),
                    LocationNorm(width),
                    nn.ReLU(),
                    nn.Linear(width, width, bias=False),
                    LocationNorm(width, affine=False),
                )
                for tap, channels in tap_channels.items()
            }
        )
        self.predictions = nn.ModuleDict(
            {
                tap: nn.Sequential(
                    nn.Linear(width, width // 2, bias=False),
                    LocationNorm(width // 2),
                    nn.ReLU(),
                    nn.Linear(width // 2, width),
                )
                for tap in tap_channels
            }
        )
        initialise(self)

    def forward(self, tap: str, features_BNC: Tensor, *, predict: bool) -> Tensor:
        """Project features of one tap, optionally followed by the prediction: (B, N, C) -> (B, N, D)."""
        projected = self.projections[tap](features_BNC)
        return self.predictions[tap](projected) if predict else projected


class LocationNorm(nn.Module):
    """Zero mean and unit variance of each channel over the N locations of an image: (B, N, C) -> the same.

    Args:
        channels: C.
        affine: Learn a scale and a shift per channel, initially 1 and 0.
    """

    def __init__(self, channels: int, *, affine: bool = True) -> None:
        super().__init__()
        self.scale_C = nn.Parameter(torch.ones(channels)) if affine else None
        self.shift_C = nn.Parameter(torch.zeros(channels)) if affine else None

    def forward(self, x_BNC: Tensor) -> Tensor:
        channels_first = x_BNC.transpose(1, 2)
        return F.group_norm(channels_first, x_BNC.shape[2], self.scale_C, self.shift_C).transpose(1, 2)
