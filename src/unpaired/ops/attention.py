"""Description of an attention matrix, and the tensor helpers that backends share.

Legend of the suffixes in this package: B images, C channels, H and W the map, n = H * W positions in row-major order
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
        local: Keys are the ``window`` x ``window`` square around the query, clipped at the border; otherwise all
            positions.
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
        """Factor from the dot product of two features (unit features for cosine) to their logit."""
        return (channels**-0.5 if self.similarity == "scaled" else 1.0) / self.temperature

    def max_mean_scale(self, channels: int) -> float:
        """Factor from logits to the terms of Eq. 6, which divides raw dot products by sqrt(C)."""
        return channels**-0.5 if self.similarity == "dot" else 1.0

    @property
    def radii(self) -> tuple[int, int]:
        """Vertical and horizontal radius of a window, at most those of the map."""
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
    """Features for the logits: float32 (float64 stays), of unit length for ``cosine``."""
    wide_BCn = widen(features_BCn)
    if attention.similarity != "cosine":
        return wide_BCn
    return torch.nn.functional.normalize(wide_BCn, dim=1)


def widen(tensor: Tensor) -> Tensor:
    """Half precision to float32; a softmax in bf16 selects 18 to 79 of 256 rows wrongly (measured)."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


class _GradientLayout(torch.autograd.Function):
    """Identity that sets the memory layout of its gradient.

    Contiguous, because ``torch.nn.functional.instance_norm`` with batch 1 on the CPU returns a wrong gradient if the
    incoming one has channels-last strides (torch 2.13, 2.14.1), as it has after reading a map as tokens; channels-last
    for channels-last maps, where another layout slows down the backward pass of norms (batch norm of 256 x 64 x 64 in
    bf16 on the CPU: 12 ms instead of 1.6).
    """

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, layout: torch.memory_format) -> Tensor:
        ctx.layout = layout
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0].contiguous(memory_format=ctx.layout), None


def as_positions(features_BCHW: Tensor) -> Tensor:
    """Flatten a map to positions: ``(B, C, H, W)`` -> contiguous ``(B, C, n)`` with a contiguous gradient.

    The gradient of the map is contiguous, too, or channels-last for channels-last maps in half precision.
    """
    if features_BCHW.itemsize == 2 and not features_BCHW.is_contiguous() and features_BCHW.requires_grad:
        features_BCHW = _GradientLayout.apply(features_BCHW, torch.channels_last)
    features_BCn = features_BCHW.flatten(2)
    if torch.is_grad_enabled() and features_BCn.requires_grad:
        features_BCn = _GradientLayout.apply(features_BCn, torch.contiguous_format)
    return features_BCn.contiguous()


def take_rows(features_BCHW: Tensor, indices_BN: Tensor) -> Tensor:
    """Features at the given positions: ``(B, C, H, W)``, ``(B, N)`` -> ``(B, N, C)``, in the dtype of the features.

    Channels-last maps in half precision are read without a copy, and their gradient is channels-last; others are read
    by :func:`as_positions`.
    """
    if features_BCHW.itemsize > 2 or features_BCHW.is_contiguous():
        return take_positions(as_positions(features_BCHW), indices_BN).transpose(1, 2)
    rows_BnC = features_BCHW.flatten(2).transpose(1, 2)
    images_B1 = torch.arange(len(rows_BnC), device=rows_BnC.device).unsqueeze(1)
    return rows_BnC[images_B1, indices_BN]  # its gradient is added in place; that of `gather` copies the whole map


def take_positions(features_BCn: Tensor, indices_BN: Tensor) -> Tensor:
    """Columns at the given positions: ``(B, C, n)``, ``(B, N)`` -> ``(B, C, N)``."""
    return features_BCn.gather(2, indices_BN.unsqueeze(1).expand(-1, features_BCn.shape[1], -1))
