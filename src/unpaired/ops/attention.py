"""What every backend is told: which attention matrix is meant, over which map.

Legend of the suffixes in this room: B images, C channels, H and W the map, n = H * W positions in row-major order
(position = y * W + x), N selected positions, S keys of a local window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

Similarity = Literal["dot", "scaled", "cosine"]
Measure = Literal["entropy", "max_mean"]


@dataclass(frozen=True)
class Attention:
    """One attention matrix of the paper: A_g (``local=False``) or A_l (``local=True``) under one similarity.

    Attributes:
        height: Rows of the map.
        width: Columns of the map.
        local: Keys are the ``window`` x ``window`` square around the query, cut at the border; otherwise all
            positions are.
        window: Side of that square, odd.
        similarity: ``dot`` as in the paper, ``scaled`` by 1 / sqrt(C), or ``cosine``.
        temperature: Divides the logits; positive.
    """

    height: int
    width: int
    local: bool
    window: int
    similarity: Similarity
    temperature: float

    def logit_scale(self, channels: int) -> float:
        """Factor that turns a dot product of two features (of two unit features for cosine) into a logit."""
        return (channels**-0.5 if self.similarity == "scaled" else 1.0) / self.temperature

    def max_mean_scale(self, channels: int) -> float:
        """Factor from logits to the terms of Eq. 6, which divides raw dot products by sqrt(C)."""
        return channels**-0.5 if self.similarity == "dot" else 1.0

    @property
    def radii(self) -> tuple[int, int]:
        """How far a window reaches vertically and horizontally; never further than the map does."""
        reach = self.window // 2
        return min(reach, self.height - 1), min(reach, self.width - 1)


def outside_window(indices: Tensor, attention: Attention) -> Tensor:
    """Keys outside the window of each query: ``(...)`` int64 positions -> ``(..., n)`` bool."""
    reach = attention.window // 2
    ys = torch.arange(attention.height, device=indices.device)
    xs = torch.arange(attention.width, device=indices.device)
    far_y = (indices.div(attention.width, rounding_mode="floor").unsqueeze(-1) - ys).abs_() > reach
    far_x = (indices.remainder(attention.width).unsqueeze(-1) - xs).abs_() > reach
    return (far_y.unsqueeze(-1) | far_x.unsqueeze(-2)).flatten(-2)


def prepare(features_BCn: Tensor, attention: Attention) -> Tensor:
    """Features as the logits see them: float32 (float64 stays), of unit length for ``cosine``."""
    wide_BCn = widen(features_BCn)
    if attention.similarity != "cosine":
        return wide_BCn
    return torch.nn.functional.normalize(wide_BCn, dim=1)


def widen(tensor: Tensor) -> Tensor:
    """Half precision becomes float32: a softmax kept in bf16 picks 18-79 of 256 rows wrongly (measured)."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


class _GradientLaidOut(torch.autograd.Function):
    """Identity whose gradient has a given layout in memory.

    ``torch.nn.functional.instance_norm`` with batch 1 returns a wrong gradient on the CPU when the incoming one has
    channels-last strides (torch 2.13, 2.14.1), which reading a map as tokens produces: ours is contiguous. Where maps
    lie channels last, a gradient in another layout makes every norm's backward pass many times as slow (batch norm of
    256 x 64 x 64 in bf16 on the CPU: 12 ms where it takes 1.6): there it lies as the map does.
    """

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, layout: torch.memory_format) -> Tensor:
        ctx.layout = layout
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0].contiguous(memory_format=ctx.layout), None


def as_positions(features_BCHW: Tensor) -> Tensor:
    """Read a map as positions: ``(B, C, H, W)`` -> contiguous ``(B, C, n)`` whose gradient is contiguous as well.

    The gradient of the map is contiguous, too, but for a map in half precision that lies channels last: as that does.
    """
    if features_BCHW.itemsize == 2 and not features_BCHW.is_contiguous() and features_BCHW.requires_grad:
        features_BCHW = _GradientLaidOut.apply(features_BCHW, torch.channels_last)
    features_BCn = features_BCHW.flatten(2)
    if torch.is_grad_enabled() and features_BCn.requires_grad:
        features_BCn = _GradientLaidOut.apply(features_BCn, torch.contiguous_format)
    return features_BCn.contiguous()


def take_rows(features_BCHW: Tensor, indices_BN: Tensor) -> Tensor:
    """Features at the given positions: ``(B, C, H, W)``, ``(B, N)`` -> ``(B, N, C)``, in the dtype of the features.

    A map in half precision that lies channels last is read where it is, and its gradient lies as it does; neither is
    copied. Others are read as :func:`as_positions` reads them.
    """
    if features_BCHW.itemsize > 2 or features_BCHW.is_contiguous():
        return take_positions(as_positions(features_BCHW), indices_BN).transpose(1, 2)
    rows_BnC = features_BCHW.flatten(2).transpose(1, 2)
    images_B1 = torch.arange(len(rows_BnC), device=rows_BnC.device).unsqueeze(1)
    return rows_BnC[images_B1, indices_BN]  # its gradient is added in place; that of `gather` copies the whole map


def take_positions(features_BCn: Tensor, indices_BN: Tensor) -> Tensor:
    """Columns at the given positions: ``(B, C, n)``, ``(B, N)`` -> ``(B, C, N)``."""
    return features_BCn.gather(2, indices_BN.unsqueeze(1).expand(-1, features_BCn.shape[1], -1))
