"""Blur and downsampling by 2 in one operation on the CPU, computing only the pixels that are kept.

Legend: B images, C channels, H and W the map, h = ceil(H / 2), w = ceil(W / 2).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_ROWS, _COLUMNS = 2, 3


def blur_halve(x_BCHW: Tensor) -> Tensor:
    """Filter with [1, 2, 1] x [1, 2, 1] / 16, reflected borders, and keep every second pixel, beginning with the first.

    The memory layout is preserved; twice differentiable.

    Args:
        x_BCHW: (B, C, H, W) floating, H and W at least 2.

    Returns:
        (B, C, h, w).
    """
    result: Tensor = _Halve.apply(x_BCHW)
    return result


class _Halve(torch.autograd.Function):
    """The filter; its gradient is its transpose."""

    @staticmethod
    def forward(ctx: Any, x_BCHW: Tensor) -> Tensor:
        ctx.size = x_BCHW.shape[2:]
        return _along(_along(x_BCHW, _ROWS), _COLUMNS)

    @staticmethod
    def backward(ctx: Any, gradient_BChw: Tensor) -> Tensor:
        result: Tensor = _Spread.apply(gradient_BChw, *ctx.size)
        return result


class _Spread(torch.autograd.Function):
    """The transpose of the filter: (B, C, h, w) -> (B, C, H, W)."""

    @staticmethod
    def forward(ctx: Any, gradient_BChw: Tensor, height: int, width: int) -> Tensor:
        return _transposed(_transposed(gradient_BChw, _COLUMNS, width), _ROWS, height)

    @staticmethod
    def backward(ctx: Any, gradient_BCHW: Tensor) -> tuple[Tensor, None, None]:
        result: Tensor = _Halve.apply(gradient_BCHW)
        return result, None, None


def _along(x: Tensor, dim: int) -> Tensor:
    """[1, 2, 1] / 4 along one axis at the even positions, whose neighbours are the odd ones."""
    even, odd = _every_second(x, dim)
    kept, between = even.shape[dim], odd.shape[dim]
    out = even * 0.5
    out.narrow(dim, 0, between).add_(odd, alpha=0.25)
    out.narrow(dim, 1, kept - 1).add_(odd.narrow(dim, 0, kept - 1), alpha=0.25)
    out.narrow(dim, 0, 1).add_(odd.narrow(dim, 0, 1), alpha=0.25)  # reflected at the first position
    if kept > between:
        out.narrow(dim, kept - 1, 1).add_(odd.narrow(dim, between - 1, 1), alpha=0.25)  # and at the last one
    return out


def _transposed(gradient: Tensor, dim: int, length: int) -> Tensor:
    """The transpose of :func:`_along`, to ``length`` positions."""
    shape = list(gradient.shape)
    shape[dim] = length
    channels_last = gradient.is_contiguous(memory_format=torch.channels_last) and not gradient.is_contiguous()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    out = torch.empty(shape, dtype=gradient.dtype, device=gradient.device, memory_format=layout)
    even, odd = _every_second(out, dim)
    kept, between = even.shape[dim], odd.shape[dim]
    even.copy_(gradient).mul_(0.5)
    odd.copy_(gradient.narrow(dim, 0, between))
    odd.narrow(dim, 0, kept - 1).add_(gradient.narrow(dim, 1, kept - 1))
    odd.narrow(dim, 0, 1).add_(gradient.narrow(dim, 0, 1))
    if kept > between:
        odd.narrow(dim, between - 1, 1).add_(gradient.narrow(dim, kept - 1, 1))
    odd.mul_(0.25)
    return out


def _every_second(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Views of the even and of the odd positions along an axis."""
    if dim == _ROWS:
        return x[:, :, 0::2], x[:, :, 1::2]
    return x[:, :, :, 0::2], x[:, :, :, 1::2]
