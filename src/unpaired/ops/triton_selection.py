"""Triton kernels that measure how significant each query is, in one pass over its keys; nothing n x n is written.

Statistics of a row of logits s_j are carried through the blocks of keys (the online softmax of log H, Eq. 4 and 5)::

    largest   largest logit so far
    second    largest of the others, where the others are all keys but one instance of the largest
    total     sum over the others of exp(s_j - second)
    spread    sum over the others of exp(s_j - second) (s_j - second)

Two sets merge into one: the smaller of both largest logits joins the others, and each sum is moved to the new second
by d = old second - new second <= 0: total' = e^d total, spread' = e^d (spread + total d). All terms of a sum have one
sign, so nothing cancels. Eq. 6 needs the largest logit and the plain sum.

Legend as in ``ops/attention.py``; R rows (queries) and K keys of a block. All features are (B, C, n), contiguous.
"""

# mypy: ignore-errors
# A kernel is Triton, not Python: its arguments have no Python types.

from __future__ import annotations

import triton
import triton.language as tl

# "No key". Finite, so that 0 * (s - second) is 0 where -inf would give NaN; far below every logit.
NO_KEY = tl.constexpr(-1e37)
_IS_KEY = tl.constexpr(-1e36)  # above it is a logit
# The interpreter (3.8) multiplies the bits of bfloat16 numbers as integers. Widened they have the same products.
_INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
PLANES = tl.constexpr(4)  # numbers per row: largest, second, total, spread; for Eq. 6: largest, sum, unused, unused


@triton.jit
def product_tile(
    rows_ptr, row_offsets, row_step, rows_exist, keys_ptr, keys, keys_exist, channels, positions,
    BLOCK_R: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Products of R features with K features of a map, (R, K) float32, in blocks of channels.

    A row's channel c lies at ``row_offsets + c * row_step``, a key's at ``c * positions + key``. Half precision goes
    into the tensor cores as it is: its products are exact, the sums float32. Float32 takes three TF32 products, whose
    error is that of float32. Every kernel takes its logits from here, so that they are the same bits.
    """
    sums = tl.zeros((BLOCK_R, BLOCK_K), tl.float32)
    for start in range(0, channels, BLOCK_C):
        c = start + tl.arange(0, BLOCK_C)
        exist = c < channels
        left = tl.load(
            rows_ptr + row_offsets[:, None] + c[None, :] * row_step, rows_exist[:, None] & exist[None, :], other=0.0
        )
        right = tl.load(
            keys_ptr + c[:, None] * positions + keys[None, :], exist[:, None] & keys_exist[None, :], other=0.0
        )
        if _INTERPRETED or left.dtype != right.dtype:
            left = left.to(tl.float32)
            right = right.to(tl.float32)
        sums = tl.dot(left, right, sums, input_precision="tf32x3")
    return sums


@triton.jit
def _merge(largest, second, total, spread, largest_b, second_b, total_b, spread_b):
    """Statistics of two disjoint sets of keys, together; either may be empty (NO_KEY, NO_KEY, 0, 0)."""
    loser = tl.minimum(largest, largest_b)
    merged = tl.maximum(tl.maximum(second, second_b), loser)
    d, d_b, d_loser = second - merged, second_b - merged, loser - merged
    weight, weight_b = tl.exp(d), tl.exp(d_b)
    weight_loser = tl.where(loser > _IS_KEY, tl.exp(d_loser), 0.0)
    spread = weight * (spread + total * d) + weight_b * (spread_b + total_b * d_b) + weight_loser * d_loser
    total = weight * total + weight_b * total_b + weight_loser
    return tl.maximum(largest, largest_b), merged, total, spread


@triton.jit
def _statistics(logits):
    """Statistics of the rows of a block, (R, K) -> four (R,). What is no key holds NO_KEY."""
    largest = tl.max(logits, 1)
    top = logits == largest[:, None]
    again = tl.sum(top.to(tl.float32), 1) - 1.0  # how often the largest occurs among the others
    below = tl.where(top, NO_KEY, logits)
    second = tl.where(again > 0.0, largest, tl.max(below, 1))
    u = below - second[:, None]
    weights = tl.where(below > _IS_KEY, tl.exp(u), 0.0)
    return largest, second, tl.sum(weights, 1) + again, tl.sum(weights * u, 1)


@triton.jit
def _log1p(x):
    """log(1 + x) for x >= 0: the rounding of 1 + x is put right by the quotient."""
    y = 1.0 + x
    return tl.where(y == 1.0, x, tl.log(y) * (x / tl.where(y == 1.0, 1.0, y - 1.0)))


@triton.jit
def _log_entropy(largest, second, total, spread):
    """log H from a row's statistics, -inf for a single key; the formula of ``blocked._log_entropy``."""
    several = second > _IS_KEY
    total = tl.where(several, total, 1.0)
    lead = tl.where(several, largest - second, 0.0)
    log_ratio = tl.log(total) - lead
    gap = lead - spread / total
    ratio = tl.exp(log_ratio)
    large = tl.log(_log1p(ratio) + ratio / (1.0 + ratio) * gap)
    # The same, with R taken out of the logarithm; log(1 + R) / R by its series, exact in float32 up to R = 1e-4.
    series = 1.0 - ratio * (0.5 - ratio / 3.0)
    small = log_ratio + tl.log(series + gap / (1.0 + ratio))
    return tl.where(several, tl.where(ratio > 1e-4, large, small), -float("inf"))


@triton.jit
def global_statistics_kernel(
    features_ptr, inverse_norms_ptr, partial_ptr, channels, positions, split_keys, scale,
    ENTROPY: tl.constexpr, COSINE: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Statistics of R rows of A_g over ``split_keys`` keys -> ``partial``, (B, splits, 4, n) float32.

    Grid (row blocks, splits, B). Split over keys as well, because a map has too few row blocks for a GPU.
    """
    split = tl.program_id(1)
    image = tl.program_id(2).to(tl.int64)
    rows = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    rows_exist = rows < positions
    features_ptr += image * channels * positions
    if COSINE:
        inverse_norms_ptr += image * positions
        row_factors = tl.load(inverse_norms_ptr + rows, rows_exist, other=0.0)

    largest = tl.full((BLOCK_R,), NO_KEY, tl.float32)
    second = tl.full((BLOCK_R,), NO_KEY, tl.float32)
    total = tl.zeros((BLOCK_R,), tl.float32)
    spread = tl.zeros((BLOCK_R,), tl.float32)
    for start in range(split * split_keys, tl.minimum(positions, (split + 1) * split_keys), BLOCK_K):
        keys = start + tl.arange(0, BLOCK_K)
        keys_exist = keys < positions
        logits = scale * product_tile(
            features_ptr, rows, positions, rows_exist, features_ptr, keys, keys_exist, channels, positions,
            BLOCK_R, BLOCK_K, BLOCK_C,
        )  # fmt: skip
        if COSINE:
            logits *= row_factors[:, None] * tl.load(inverse_norms_ptr + keys, keys_exist, other=0.0)[None, :]
        if ENTROPY:
            logits = tl.where(keys_exist[None, :], logits, NO_KEY)
            largest_b, second_b, total_b, spread_b = _statistics(logits)
            largest, second, total, spread = _merge(
                largest, second, total, spread, largest_b, second_b, total_b, spread_b
            )
        else:
            total += tl.sum(tl.where(keys_exist[None, :], logits, 0.0), 1)
            largest = tl.maximum(largest, tl.max(tl.where(keys_exist[None, :], logits, NO_KEY), 1))

    partial_ptr += (image * tl.num_programs(1) + split) * PLANES * positions + rows
    tl.store(partial_ptr, largest, rows_exist)
    if ENTROPY:
        tl.store(partial_ptr + positions, second, rows_exist)
        tl.store(partial_ptr + 2 * positions, total, rows_exist)
        tl.store(partial_ptr + 3 * positions, spread, rows_exist)
    else:
        tl.store(partial_ptr + positions, total, rows_exist)


@triton.jit
def global_key_kernel(partial_ptr, key_ptr, positions, splits, ENTROPY: tl.constexpr, BLOCK_R: tl.constexpr):
    """Merge the splits, in their order: (B, splits, 4, n) -> (B, n), log H or largest - mean. Grid (row blocks, B)."""
    image = tl.program_id(1).to(tl.int64)
    rows = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    rows_exist = rows < positions
    partial_ptr += image * splits * PLANES * positions + rows
    largest = tl.full((BLOCK_R,), NO_KEY, tl.float32)
    second = tl.full((BLOCK_R,), NO_KEY, tl.float32)
    total = tl.zeros((BLOCK_R,), tl.float32)
    spread = tl.zeros((BLOCK_R,), tl.float32)
    for _ in range(splits):
        largest_b = tl.load(partial_ptr, rows_exist, other=0.0)
        second_b = tl.load(partial_ptr + positions, rows_exist, other=0.0)
        if ENTROPY:
            total_b = tl.load(partial_ptr + 2 * positions, rows_exist, other=0.0)
            spread_b = tl.load(partial_ptr + 3 * positions, rows_exist, other=0.0)
            largest, second, total, spread = _merge(
                largest, second, total, spread, largest_b, second_b, total_b, spread_b
            )
        else:
            largest = tl.maximum(largest, largest_b)
            total += second_b
        partial_ptr += PLANES * positions
    key = _log_entropy(largest, second, total, spread) if ENTROPY else largest - total / positions
    tl.store(key_ptr + image * positions + rows, key, rows_exist)


@triton.jit
def local_key_kernel(
    features_ptr, inverse_norms_ptr, key_ptr, channels, height, width, radius_y, radius_x, scale,
    ENTROPY: tl.constexpr, COSINE: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """log H or largest - mean of R rows of A_l, shift by shift of the window -> (B, n). Grid (row blocks, B).

    Products are float32 multiply-adds: with one key per row and shift there is no matrix to multiply.
    """
    image = tl.program_id(1).to(tl.int64)
    positions = height * width
    rows = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    rows_exist = rows < positions
    y, x = rows // width, rows % width
    features_ptr += image * channels * positions
    if COSINE:
        inverse_norms_ptr += image * positions
        row_factors = tl.load(inverse_norms_ptr + rows, rows_exist, other=0.0)

    largest = tl.full((BLOCK_R,), NO_KEY, tl.float32)
    second = tl.full((BLOCK_R,), NO_KEY, tl.float32)
    total = tl.zeros((BLOCK_R,), tl.float32)
    spread = tl.zeros((BLOCK_R,), tl.float32)
    side_x = 2 * radius_x + 1
    for shift in range((2 * radius_y + 1) * side_x):
        key_y, key_x = y + shift // side_x - radius_y, x + shift % side_x - radius_x
        exist = rows_exist & (key_y >= 0) & (key_y < height) & (key_x >= 0) & (key_x < width)
        keys = key_y * width + key_x
        products = tl.zeros((BLOCK_C, BLOCK_R), tl.float32)
        for start in range(0, channels, BLOCK_C):
            c = start + tl.arange(0, BLOCK_C)
            offsets = c[:, None] * positions
            mask = (c < channels)[:, None] & exist[None, :]
            here = tl.load(features_ptr + offsets + rows[None, :], mask, other=0.0).to(tl.float32)
            products += here * tl.load(features_ptr + offsets + keys[None, :], mask, other=0.0).to(tl.float32)
        logit = scale * tl.sum(products, 0)
        if COSINE:
            logit *= row_factors * tl.load(inverse_norms_ptr + keys, exist, other=0.0)
        if ENTROPY:
            nothing = tl.zeros((BLOCK_R,), tl.float32)
            logit = tl.where(exist, logit, NO_KEY)
            largest, second, total, spread = _merge(
                largest, second, total, spread, logit, nothing + NO_KEY, nothing, nothing
            )
        else:
            largest = tl.maximum(largest, tl.where(exist, logit, NO_KEY))
            total += tl.where(exist, logit, 0.0)
            spread += exist.to(tl.float32)  # here the number of keys
    key = _log_entropy(largest, second, total, spread) if ENTROPY else largest - total / spread
    tl.store(key_ptr + image * positions + rows, key, rows_exist)
