"""Triton kernels of the windows of N selected positions (rows of A_l): three kernels, each other's derivatives.

For the position i with features or weights of its own and the map f, over the keys j of the window of i::

    products   (rows q, map f)       u_ij  = q_i . f_j             the logits; the gradient of the weights
    sums       (weights u, map f)    z_i   = sum_j u_ij f_j        the routed feature; the gradient of the rows
    scatter    (weights u, rows q)   f_j  += sum_i u_ij q_i        the gradient of the map

A window's keys are numbered row by row, S of them; keys outside the map have weight 0. The N x S weights are kept (49
per query for a 7 x 7 window), so the softmax between them is torch's. Every sum is float32 and taken in a fixed order:
no atomics.

Legend as in ``ops/attention.py``; C, S, K sizes of blocks. Rows are (B, N, C), weights (B, N, S) float32, maps
(B, C, n).
"""

# mypy: ignore-errors
# A kernel is Triton, not Python: its arguments have no Python types.

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _window_keys(indices_ptr, query, s, height, width, radius_y, radius_x):
    """Positions of the keys ``s`` of the window of one selected query, and which of them exist."""
    index = tl.load(indices_ptr + query).to(tl.int32)
    side_x = 2 * radius_x + 1
    y = index // width + s // side_x - radius_y
    x = index % width + s % side_x - radius_x
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width) & (s < (2 * radius_y + 1) * side_x)
    return y * width + x, inside


@triton.jit
def window_products_kernel(
    rows_ptr, map_ptr, indices_ptr, products_ptr, channels, height, width, radius_y, radius_x, outside,
    BLOCK_S: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """q_i . f_j for S keys of one window, ``outside`` for those outside the map. Grid (N, key blocks, B)."""
    image = tl.program_id(2).to(tl.int64)
    query = image * tl.num_programs(0) + tl.program_id(0)
    size = (2 * radius_y + 1) * (2 * radius_x + 1)
    s = tl.program_id(1) * BLOCK_S + tl.arange(0, BLOCK_S)
    keys, inside = _window_keys(indices_ptr, query, s, height, width, radius_y, radius_x)
    map_ptr += image * channels * height * width

    products = tl.zeros((BLOCK_C, BLOCK_S), tl.float32)
    for start in range(0, channels, BLOCK_C):
        c = start + tl.arange(0, BLOCK_C)
        exist = c < channels
        q = tl.load(rows_ptr + query * channels + c, exist, other=0.0).to(tl.float32)
        f = tl.load(
            map_ptr + c[:, None] * (height * width) + keys[None, :], exist[:, None] & inside[None, :], other=0.0
        )
        products += q[:, None] * f.to(tl.float32)
    tl.store(products_ptr + query * size + s, tl.where(inside, tl.sum(products, 0), outside), s < size)


@triton.jit
def window_sums_kernel(
    weights_ptr, map_ptr, indices_ptr, sums_ptr, channels, height, width, radius_y, radius_x,
    BLOCK_S: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """C channels of sum_j u_ij f_j for one window. Grid (N, channel blocks, B)."""
    image = tl.program_id(2).to(tl.int64)
    query = image * tl.num_programs(0) + tl.program_id(0)
    size = (2 * radius_y + 1) * (2 * radius_x + 1)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    exist = c < channels
    map_ptr += image * channels * height * width

    sums = tl.zeros((BLOCK_C, BLOCK_S), tl.float32)
    for start in range(0, size, BLOCK_S):
        s = start + tl.arange(0, BLOCK_S)
        keys, inside = _window_keys(indices_ptr, query, s, height, width, radius_y, radius_x)
        u = tl.load(weights_ptr + query * size + s, inside, other=0.0)
        f = tl.load(
            map_ptr + c[:, None] * (height * width) + keys[None, :], exist[:, None] & inside[None, :], other=0.0
        )
        sums += u[None, :] * f.to(tl.float32)
    tl.store(sums_ptr + query * channels + c, tl.sum(sums, 1), exist)


@triton.jit
def window_scatter_kernel(
    weights_ptr, rows_ptr, indices_ptr, map_ptr, num_queries, channels, height, width, radius_y, radius_x,
    BLOCK_R: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """sum_i u_ij q_i at K positions and C channels, over all windows. Grid (key blocks, channel blocks, B).

    The other way round, window by window, needs atomics where windows overlap; here each position collects.
    """
    image = tl.program_id(2).to(tl.int64)
    positions = height * width
    keys = tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)
    keys_exist = keys < positions
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    side_x = 2 * radius_x + 1
    size = (2 * radius_y + 1) * side_x
    weights_ptr += image * num_queries * size
    rows_ptr += image * num_queries * channels

    sums = tl.zeros((BLOCK_C, BLOCK_K), tl.float32)
    for start in range(0, num_queries, BLOCK_R):
        rows = start + tl.arange(0, BLOCK_R)
        rows_exist = rows < num_queries
        index = tl.load(indices_ptr + image * num_queries + rows, rows_exist, other=0).to(tl.int32)
        y = (keys // width)[None, :] - (index // width)[:, None] + radius_y
        x = (keys % width)[None, :] - (index % width)[:, None] + radius_x
        inside = (y >= 0) & (y <= 2 * radius_y) & (x >= 0) & (x <= 2 * radius_x)
        u = tl.load(
            weights_ptr + rows[:, None] * size + y * side_x + x,
            inside & rows_exist[:, None] & keys_exist[None, :],
            other=0.0,
        )
        q = tl.load(
            rows_ptr + c[:, None] + rows[None, :] * channels, (c < channels)[:, None] & rows_exist[None, :], other=0.0
        )
        sums = tl.dot(q.to(tl.float32), u, sums, input_precision="tf32x3")
    offsets = image * channels * positions + c[:, None] * positions + keys[None, :]
    tl.store(map_ptr + offsets, sums, (c < channels)[:, None] & keys_exist[None, :])
