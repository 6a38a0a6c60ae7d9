"""The kernels of windows as operators of the namespace ``unpaired``; conventions as for selection.

Each of the three is linear in its two floating inputs and its derivatives are the other two, so they can be
differentiated any number of times.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from unpaired.ops import triton_windows
from unpaired.ops.triton_launch import ceil_div, channel_block, launch, next_power_of_2


def _window_size(radius_y: int, radius_x: int) -> int:
    return (2 * radius_y + 1) * (2 * radius_x + 1)


def _key_block(size: int) -> int:
    return min(64, next_power_of_2(size))


@custom_op("unpaired::window_products", mutates_args=())
def window_products(
    rows_BNC: Tensor,
    map_BCn: Tensor,
    indices_BN: Tensor,
    height: int,
    width: int,
    radius_y: int,
    radius_x: int,
    outside: float,
) -> Tensor:
    """Products of each row with the features in its window.

    Args:
        rows_BNC: (B, N, C), one per window.
        map_BCn: (B, C, n), n = height * width.
        indices_BN: (B, N) int64 centres of the windows.
        height: Rows of the map.
        width: Columns of the map.
        radius_y: How far a window reaches vertically.
        radius_x: How far it reaches horizontally.
        outside: The product with a key outside the map.

    Returns:
        (B, N, S), window row by window row.
    """
    rows_BNC, map_BCn, indices_BN = rows_BNC.contiguous(), map_BCn.contiguous(), indices_BN.contiguous()
    batch, num_queries, channels = rows_BNC.shape
    size = _window_size(radius_y, radius_x)
    products_BNS = map_BCn.new_empty((batch, num_queries, size), dtype=torch.float32)
    block_s = _key_block(size)
    launch(
        triton_windows.window_products_kernel, (num_queries, ceil_div(size, block_s), batch),
        rows_BNC, map_BCn, indices_BN, products_BNS, channels, height, width, radius_y, radius_x, outside,
        BLOCK_S=block_s, BLOCK_C=channel_block(channels, 32), num_warps=4, num_stages=2,
    )  # fmt: skip
    return products_BNS


@custom_op("unpaired::window_sums", mutates_args=())
def window_sums(
    weights_BNS: Tensor, map_BCn: Tensor, indices_BN: Tensor, height: int, width: int, radius_y: int, radius_x: int
) -> Tensor:
    """Sum of the features in each window, weighted by (B, N, S): (B, N, C). Weights outside the map are not read."""
    weights_BNS, map_BCn, indices_BN = weights_BNS.contiguous(), map_BCn.contiguous(), indices_BN.contiguous()
    batch, channels, _ = map_BCn.shape
    num_queries, size = weights_BNS.shape[1:]
    sums_BNC = map_BCn.new_empty((batch, num_queries, channels), dtype=torch.float32)
    block_c = channel_block(channels, 32)
    launch(
        triton_windows.window_sums_kernel, (num_queries, ceil_div(channels, block_c), batch),
        weights_BNS, map_BCn, indices_BN, sums_BNC, channels, height, width, radius_y, radius_x,
        BLOCK_S=_key_block(size), BLOCK_C=block_c, num_warps=4, num_stages=2,
    )  # fmt: skip
    return sums_BNC


@custom_op("unpaired::window_scatter", mutates_args=())
def window_scatter(
    weights_BNS: Tensor, rows_BNC: Tensor, indices_BN: Tensor, height: int, width: int, radius_y: int, radius_x: int
) -> Tensor:
    """Add each row, weighted, to the positions of its window: (B, N, S), (B, N, C) -> (B, C, n)."""
    weights_BNS, rows_BNC, indices_BN = weights_BNS.contiguous(), rows_BNC.contiguous(), indices_BN.contiguous()
    batch, num_queries, channels = rows_BNC.shape
    map_BCn = rows_BNC.new_empty((batch, channels, height * width), dtype=torch.float32)
    block_c = channel_block(channels, 64)
    launch(
        triton_windows.window_scatter_kernel,
        (ceil_div(height * width, 64), ceil_div(channels, block_c), batch),
        weights_BNS, rows_BNC, indices_BN, map_BCn, num_queries, channels, height, width, radius_y, radius_x,
        BLOCK_R=32, BLOCK_K=64, BLOCK_C=block_c, num_warps=4, num_stages=2,
    )  # fmt: skip
    return map_BCn


@window_products.register_fake
def _(
    rows_BNC: Tensor,
    map_BCn: Tensor,
    indices_BN: Tensor,
    height: int,
    width: int,
    radius_y: int,
    radius_x: int,
    outside: float,
) -> Tensor:
    return rows_BNC.new_empty((*rows_BNC.shape[:2], _window_size(radius_y, radius_x)), dtype=torch.float32)


@window_sums.register_fake
def _(weights_BNS: Tensor, map_BCn: Tensor, *_window: Any) -> Tensor:
    return map_BCn.new_empty((*weights_BNS.shape[:2], map_BCn.shape[1]), dtype=torch.float32)


@window_scatter.register_fake
def _(
    weights_BNS: Tensor, rows_BNC: Tensor, indices_BN: Tensor, height: int, width: int, radius_y: int, radius_x: int
) -> Tensor:
    return rows_BNC.new_empty((rows_BNC.shape[0], rows_BNC.shape[2], height * width), dtype=torch.float32)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    first, second, indices, height, width, radius_y, radius_x, *_ = inputs
    ctx.save_for_backward(first, second, indices)
    ctx.window = (height, width, radius_y, radius_x)


def _products_backward(ctx: Any, gradient_BNS: Tensor) -> tuple[Tensor | None, ...]:
    rows, features, indices = ctx.saved_tensors
    window = (indices, *ctx.window)
    to_rows = window_sums(gradient_BNS, features, *window).to(rows.dtype) if ctx.needs_input_grad[0] else None
    to_map = window_scatter(gradient_BNS, rows, *window).to(features.dtype) if ctx.needs_input_grad[1] else None
    return to_rows, to_map, *[None] * 6


def _sums_backward(ctx: Any, gradient_BNC: Tensor) -> tuple[Tensor | None, ...]:
    weights, features, indices = ctx.saved_tensors
    window = (indices, *ctx.window)
    to_weights = window_products(gradient_BNC, features, *window, 0.0) if ctx.needs_input_grad[0] else None
    to_map = window_scatter(weights, gradient_BNC, *window).to(features.dtype) if ctx.needs_input_grad[1] else None
    return to_weights, to_map, *[None] * 5


def _scatter_backward(ctx: Any, gradient_BCn: Tensor) -> tuple[Tensor | None, ...]:
    weights, rows, indices = ctx.saved_tensors
    window = (indices, *ctx.window)
    to_weights = window_products(rows, gradient_BCn, *window, 0.0) if ctx.needs_input_grad[0] else None
    to_rows = window_sums(weights, gradient_BCn, *window).to(rows.dtype) if ctx.needs_input_grad[1] else None
    return to_weights, to_rows, *[None] * 5


window_products.register_autograd(_products_backward, setup_context=_save)
window_sums.register_autograd(_sums_backward, setup_context=_save)
window_scatter.register_autograd(_scatter_backward, setup_context=_save)
