"""Triton kernels that route one value by N rows of A_g, forward and backward; nothing N x n is written.

With s_ij the logits of the selected row i, p_ij = exp(s_ij - m_i) / l_i its softmax, v_j the values and w_i the
gradient of the routed feature::

    routed_i  = sum_j p_ij v_j                 delta_i = sum_j p_ij (w_i . v_j)
    dv_j      = sum_i p_ij w_i                 ds_ij   = p_ij (w_i . v_j - delta_i)
    dk_j      = scale sum_i ds_ij q_i          dq_i    = scale sum_j ds_ij k_j

N is small, so what runs over rows is split over the keys as well and the splits are added up afterwards, in order: no
atomics, the same bits in every run. Each kernel computes the logits again, by the same tiles. Kept for backward are m
and l rather than m + log l, which in float32 loses what tells probabilities apart where logits are in the thousands.
For the same reason delta is a sum over the keys and not w_i . routed_i, the usual shortcut: in a saturated row ds is
the difference of two equal numbers, and only the same arithmetic makes it 0.

Legend as in ``ops/attention.py``; R rows and K keys of a block, D channels of a block of values. Rows (selected
features, gradients) are (B, N, C), maps (B, C, n), all contiguous.
"""

# mypy: ignore-errors
# A kernel is Triton, not Python: its arguments have no Python types.

from __future__ import annotations

import triton
import triton.language as tl

from unpaired.ops.triton_selection import NO_KEY, product_tile


@triton.jit
def _product(left, right, sums):
    """sums + left @ right, as exact as float32 products."""
    return tl.dot(left.to(tl.float32), right.to(tl.float32), sums, input_precision="tf32x3")


@triton.jit
def _map_tile(map_ptr, c, keys, keys_exist, channels, positions):
    """Channels by keys of a map, (D, K): the map is read along its positions."""
    return tl.load(
        map_ptr + c[:, None] * positions + keys[None, :], (c < channels)[:, None] & keys_exist[None, :], other=0.0
    )


@triton.jit
def route_kernel(
    queries_ptr, keys_ptr, values_ptr, partial_ptr, statistics_ptr, num_queries, channels, positions, split_keys, scale,
    BLOCK_R: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """D channels of R routed features over ``split_keys`` keys, by the online softmax. Grid (blocks, splits, B).

    ``partial`` (B, splits, N, C) gets sum_j exp(s_ij - m) v_j, ``statistics`` (B, splits, 2, N) m and l of the split.
    """
    row_blocks = tl.cdiv(num_queries, BLOCK_R)
    image = tl.program_id(2).to(tl.int64)
    part = image * tl.num_programs(1) + tl.program_id(1)
    rows = tl.program_id(0) % row_blocks * BLOCK_R + tl.arange(0, BLOCK_R)
    rows_exist = rows < num_queries
    c = tl.program_id(0) // row_blocks * BLOCK_D + tl.arange(0, BLOCK_D)
    queries_ptr += image * num_queries * channels
    keys_ptr += image * channels * positions
    values_ptr += image * channels * positions

    largest = tl.full((BLOCK_R,), NO_KEY, tl.float32)
    total = tl.zeros((BLOCK_R,), tl.float32)
    routed = tl.zeros((BLOCK_R, BLOCK_D), tl.float32)
    first = tl.program_id(1) * split_keys
    for start in range(first, tl.minimum(positions, first + split_keys), BLOCK_K):
        keys = start + tl.arange(0, BLOCK_K)
        keys_exist = keys < positions
        logits = scale * product_tile(
            queries_ptr, rows * channels, 1, rows_exist, keys_ptr, keys, keys_exist, channels, positions,
            BLOCK_R, BLOCK_K, BLOCK_C,
        )  # fmt: skip
        logits = tl.where(keys_exist[None, :], logits, NO_KEY)
        merged = tl.maximum(largest, tl.max(logits, 1))
        shrink = tl.exp(largest - merged)
        weights = tl.exp(logits - merged[:, None])
        total = total * shrink + tl.sum(weights, 1)
        values = _map_tile(values_ptr, c, keys, keys_exist, channels, positions)
        routed = _product(weights, tl.trans(values), routed * shrink[:, None])
        largest = merged

    offsets = (part * num_queries + rows[:, None]) * channels + c[None, :]
    tl.store(partial_ptr + offsets, routed, rows_exist[:, None] & (c < channels)[None, :])
    # Every block of channels writes the same numbers here.
    tl.store(statistics_ptr + part * 2 * num_queries + rows, largest, rows_exist)
    tl.store(statistics_ptr + (part * 2 + 1) * num_queries + rows, total, rows_exist)


@triton.jit
def combine_kernel(
    partial_ptr, partial_statistics_ptr, routed_ptr, statistics_ptr, num_queries, channels, splits,
    BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Add the splits of ``route_kernel``: routed features (B, N, C), m and l of the whole row (B, 2, N)."""
    row_blocks = tl.cdiv(num_queries, BLOCK_R)
    image = tl.program_id(1).to(tl.int64)
    rows = tl.program_id(0) % row_blocks * BLOCK_R + tl.arange(0, BLOCK_R)
    rows_exist = rows < num_queries
    c = tl.program_id(0) // row_blocks * BLOCK_D + tl.arange(0, BLOCK_D)
    exist = rows_exist[:, None] & (c < channels)[None, :]
    offsets = rows[:, None] * channels + c[None, :]
    partial_ptr += image * splits * num_queries * channels
    partial_statistics_ptr += image * splits * 2 * num_queries

    largest = tl.full((BLOCK_R,), NO_KEY, tl.float32)
    for split in range(splits):
        largest = tl.maximum(
            largest, tl.load(partial_statistics_ptr + split * 2 * num_queries + rows, rows_exist, other=0.0)
        )
    total = tl.zeros((BLOCK_R,), tl.float32)
    routed = tl.zeros((BLOCK_R, BLOCK_D), tl.float32)
    for split in range(splits):
        statistics = partial_statistics_ptr + split * 2 * num_queries + rows
        shrink = tl.exp(tl.load(statistics, rows_exist, other=0.0) - largest)
        total += shrink * tl.load(statistics + num_queries, rows_exist, other=1.0)
        partial = tl.load(partial_ptr + split * num_queries * channels + offsets, exist, other=0.0)
        routed += shrink[:, None] * partial

    tl.store(routed_ptr + image * num_queries * channels + offsets, routed / total[:, None], exist)
    tl.store(statistics_ptr + image * 2 * num_queries + rows, largest, rows_exist)
    tl.store(statistics_ptr + (image * 2 + 1) * num_queries + rows, total, rows_exist)


@triton.jit
def _weights(
    queries_ptr, rows, rows_exist, keys_ptr, keys, keys_exist, largest, channels, positions, scale,
    BLOCK_R: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """exp(s - m) of a block, (R, K), 0 for what is no key or no row."""
    logits = scale * product_tile(
        queries_ptr, rows * channels, 1, rows_exist, keys_ptr, keys, keys_exist, channels, positions,
        BLOCK_R, BLOCK_K, BLOCK_C,
    )  # fmt: skip
    return tl.where(rows_exist[:, None] & keys_exist[None, :], tl.exp(logits - largest[:, None]), 0.0)


@triton.jit
def delta_kernel(
    queries_ptr, keys_ptr, values_ptr, gradient_ptr, statistics_ptr, partial_ptr,
    num_queries, channels, positions, split_keys, scale,
    BLOCK_R: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Sums of exp(s - m) (w . v) and of exp(s - m) over ``split_keys`` keys -> (B, splits, 2, N).

    Grid (row blocks, splits, B). delta is the quotient of the sums of the splits.
    """
    image = tl.program_id(2).to(tl.int64)
    part = image * tl.num_programs(1) + tl.program_id(1)
    rows = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    rows_exist = rows < num_queries
    queries_ptr += image * num_queries * channels
    gradient_ptr += image * num_queries * channels
    keys_ptr += image * channels * positions
    values_ptr += image * channels * positions
    largest = tl.load(statistics_ptr + image * 2 * num_queries + rows, rows_exist, other=0.0)

    total = tl.zeros((BLOCK_R,), tl.float32)
    delta = tl.zeros((BLOCK_R,), tl.float32)
    first = tl.program_id(1) * split_keys
    for start in range(first, tl.minimum(positions, first + split_keys), BLOCK_K):
        keys = start + tl.arange(0, BLOCK_K)
        keys_exist = keys < positions
        weights = _weights(
            queries_ptr, rows, rows_exist, keys_ptr, keys, keys_exist, largest, channels, positions, scale,
            BLOCK_R, BLOCK_K, BLOCK_C,
        )  # fmt: skip
        wv = product_tile(
            gradient_ptr, rows * channels, 1, rows_exist, values_ptr, keys, keys_exist, channels, positions,
            BLOCK_R, BLOCK_K, BLOCK_C,
        )  # fmt: skip
        total += tl.sum(weights, 1)
        delta += tl.sum(weights * wv, 1)
    tl.store(partial_ptr + part * 2 * num_queries + rows, delta, rows_exist)
    tl.store(partial_ptr + (part * 2 + 1) * num_queries + rows, total, rows_exist)


@triton.jit
def queries_gradient_kernel(
    queries_ptr, keys_ptr, values_ptr, gradient_ptr, statistics_ptr, delta_ptr, partial_ptr,
    num_queries, channels, positions, split_keys, scale,
    BLOCK_R: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """dq of R rows and D channels over ``split_keys`` keys -> (B, splits, N, C). Grid (blocks, splits, B)."""
    row_blocks = tl.cdiv(num_queries, BLOCK_R)
    image = tl.program_id(2).to(tl.int64)
    part = image * tl.num_programs(1) + tl.program_id(1)
    rows = tl.program_id(0) % row_blocks * BLOCK_R + tl.arange(0, BLOCK_R)
    rows_exist = rows < num_queries
    c = tl.program_id(0) // row_blocks * BLOCK_D + tl.arange(0, BLOCK_D)
    queries_ptr += image * num_queries * channels
    gradient_ptr += image * num_queries * channels
    keys_ptr += image * channels * positions
    values_ptr += image * channels * positions
    largest = tl.load(statistics_ptr + image * 2 * num_queries + rows, rows_exist, other=0.0)
    total = tl.load(statistics_ptr + (image * 2 + 1) * num_queries + rows, rows_exist, other=1.0)
    delta = tl.load(delta_ptr + image * num_queries + rows, rows_exist, other=0.0)

    dq = tl.zeros((BLOCK_R, BLOCK_D), tl.float32)
    first = tl.program_id(1) * split_keys
    for start in range(first, tl.minimum(positions, first + split_keys), BLOCK_K):
        keys = start + tl.arange(0, BLOCK_K)
        keys_exist = keys < positions
        weights = _weights(
            queries_ptr, rows, rows_exist, keys_ptr, keys, keys_exist, largest, channels, positions, scale,
            BLOCK_R, BLOCK_K, BLOCK_C,
        )  # fmt: skip
        wv = product_tile(
            gradient_ptr, rows * channels, 1, rows_exist, values_ptr, keys, keys_exist, channels, positions,
            BLOCK_R, BLOCK_K, BLOCK_C,
        )  # fmt: skip
        ds = weights * (wv - delta[:, None])
        dq = _product(ds, tl.trans(_map_tile(keys_ptr, c, keys, keys_exist, channels, positions)), dq)
    dq *= (scale / total)[:, None]
    offsets = (part * num_queries + rows[:, None]) * channels + c[None, :]
    tl.store(partial_ptr + offsets, dq, rows_exist[:, None] & (c < channels)[None, :])


@triton.jit
def maps_gradient_kernel(
    queries_ptr, keys_ptr, values_ptr, gradient_ptr, statistics_ptr, delta_ptr, keys_gradient_ptr, values_gradient_ptr,
    num_queries, channels, positions, scale, KEYS: tl.constexpr, VALUES: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """dk and dv of K positions and D channels, over all rows -> (B, C, n) each. Grid (key blocks, channel blocks, B).

    ``KEYS`` and ``VALUES`` say which of the two are wanted.
    """
    image = tl.program_id(2).to(tl.int64)
    keys = tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)
    keys_exist = keys < positions
    c = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    queries_ptr += image * num_queries * channels
    gradient_ptr += image * num_queries * channels
    keys_ptr += image * channels * positions
    values_ptr += image * channels * positions
    statistics_ptr += image * 2 * num_queries
    delta_ptr += image * num_queries

    dk = tl.zeros((BLOCK_D, BLOCK_K), tl.float32)
    dv = tl.zeros((BLOCK_D, BLOCK_K), tl.float32)
    for start in range(0, num_queries, BLOCK_R):
        rows = start + tl.arange(0, BLOCK_R)
        rows_exist = rows < num_queries
        largest = tl.load(statistics_ptr + rows, rows_exist, other=0.0)
        total = tl.load(statistics_ptr + num_queries + rows, rows_exist, other=1.0)
        probabilities = (
            _weights(
                queries_ptr, rows, rows_exist, keys_ptr, keys, keys_exist, largest, channels, positions, scale,
                BLOCK_R, BLOCK_K, BLOCK_C,
            ) / total[:, None]
        )  # fmt: skip
        offsets = c[:, None] + rows[None, :] * channels
        exist = (c < channels)[:, None] & rows_exist[None, :]
        if VALUES:
            dv = _product(tl.load(gradient_ptr + offsets, exist, other=0.0), probabilities, dv)
        if KEYS:
            delta = tl.load(delta_ptr + rows, rows_exist, other=0.0)
            wv = product_tile(
                gradient_ptr, rows * channels, 1, rows_exist, values_ptr, keys, keys_exist, channels, positions,
                BLOCK_R, BLOCK_K, BLOCK_C,
            )  # fmt: skip
            ds = scale * probabilities * (wv - delta[:, None])
            dk = _product(tl.load(queries_ptr + offsets, exist, other=0.0), ds, dk)

    offsets = image * channels * positions + c[:, None] * positions + keys[None, :]
    exist = (c < channels)[:, None] & keys_exist[None, :]
    if KEYS:
        tl.store(keys_gradient_ptr + offsets, dk, exist)
    if VALUES:
        tl.store(values_gradient_ptr + offsets, dv, exist)
