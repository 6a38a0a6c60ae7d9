"""Selection by A_g in a fused Triton kernel for NVIDIA GPUs, without an n x n matrix in memory.

Running statistics of a row of logits s_j (an online softmax for log H, Eq. 4 and 5)::

    largest   largest logit so far
    second    largest of the others, i.e. of all keys but one instance of the largest
    total     sum over the others of exp(s_j - second)
    spread    sum over the others of exp(s_j - second) (s_j - second)

To merge two sets, the smaller of both largest logits joins the others, and each sum is rescaled to the new second by
d = old second - new second <= 0: total' = e^d total, spread' = e^d (spread + total d). All terms of a sum have the same
sign, so nothing cancels. Eq. 6 needs the largest logit and the plain sum.

Selection by A_l and all routing are plain torch, as in ``blocked.py``. Blocks and splits depend only on the size of the
map, not on the batch or the device, and there is no autotuning: results are bitwise reproducible.

Legend as in ``ops/attention.py``; R rows (queries) and K keys per block. All features are (B, C, n), contiguous.
"""

# Arguments of Triton kernels have no Python types.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
import importlib.util
import os
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from unpaired.ops.attention import Attention, Measure
from unpaired.ops.backends import Backend, blocked
from unpaired.ops.backends.routing import route

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_ROWS, _KEYS = 128, 128
_NO_KEY = -1e37  # masked key: finite, because 0 * (-inf - second) would be NaN; far below every logit
_PLANES = 4  # numbers per row: largest, second, total, spread; for Eq. 6: largest, sum, unused, unused
_EPS = 1e-12  # as in torch.nn.functional.normalize
_PROGRAMS = 256  # minimum for GPUs with about 130 multiprocessors, reached by splitting the keys

# Set by _load_triton together with the compiled kernels: Triton is slow to import and not available everywhere.
tl: Any = None
NO_KEY: Any = None
IS_KEY: Any = None  # logits are above this
PLANES: Any = None
INTERPRETED: Any = None  # the interpreter (3.8) multiplies bfloat16 bit patterns as integers
_kernels: list[str] = []


def _kernel(function: Any) -> Any:
    """Mark a kernel; :func:`_load_triton` compiles it."""
    _kernels.append(function.__name__)
    return function


@functools.cache
def _load_triton() -> None:
    import triton
    import triton.language

    constants = {"NO_KEY": _NO_KEY, "IS_KEY": _NO_KEY / 10, "PLANES": _PLANES, "INTERPRETED": interpreting()}
    names: dict[str, Any] = globals()
    names |= {name: triton.language.constexpr(value) for name, value in constants.items()}
    names |= {"tl": triton.language} | {name: triton.jit(names[name]) for name in _kernels}


def interpreting() -> bool:
    """Whether Triton interprets its kernels in Python (TRITON_INTERPRET, set before Triton is imported)."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")


def missing() -> list[str]:
    """Reasons why it cannot run on this machine."""
    installed = importlib.util.find_spec("triton") is not None
    reasons = [] if installed else ["Triton is missing: pip install triton (Linux, NVIDIA)"]
    if interpreting():
        return reasons
    if torch.version.cuda is None or not torch.cuda.is_available():
        return [*reasons, "there is no CUDA device"]
    if torch.cuda.get_device_capability() < (8, 0):
        reasons.append(f"{torch.cuda.get_device_name()} is too old: compute capability 8.0 is needed")
    return reasons


def refusals(source: Tensor) -> list[str]:
    """Reasons why it cannot run on these features."""
    reasons = []
    if source.dtype not in _DTYPES:
        reasons.append(f"source must be float32, bfloat16 or float16, not {source.dtype}")
    if source.device.type != "cuda" and not interpreting():
        reasons.append(f"source must be on a CUDA device, not on {source.device}")
    return reasons


def only_by_name() -> list[str]:
    """Reasons why it is used only when requested by name."""
    if interpreting():
        return ["TRITON_INTERPRET is set, and the interpreter is for tests"]
    # Compiled for sm_90 and interpreted, but we had no GPU so far: benchmarks/gpu_session.py has to pass there first.
    return ["its kernels have not been run on a GPU by us yet; ask for it by name"]


def significance(features_BCn: Tensor, attention: Attention, measure: Measure) -> tuple[Tensor, Tensor]:
    """Significance of each query; see :func:`unpaired.ops.backends.reference.significance`."""
    if attention.local:
        return blocked.significance(features_BCn, attention, measure)
    with torch.no_grad():
        inverse_norms_Bn = None
        if attention.similarity == "cosine":
            norms_Bn = torch.linalg.vector_norm(features_BCn, dim=1, dtype=torch.float32)
            inverse_norms_Bn = norms_Bn.clamp_(min=_EPS).reciprocal_()
        channels = features_BCn.shape[1]
        key_Bn = global_key(features_BCn, inverse_norms_Bn, attention.logit_scale(channels), measure == "entropy")
        if measure == "entropy":
            return key_Bn, key_Bn.exp()
        value_Bn = key_Bn * attention.max_mean_scale(channels)
        return -value_Bn, value_Bn


# A custom_op with a fake implementation, for torch.compile and CUDA graphs. Not differentiable: ranks have no gradient.
@custom_op("unpaired::global_key", mutates_args=())
def global_key(features_BCn: Tensor, inverse_norms_Bn: Tensor | None, scale: float, entropy: bool) -> Tensor:
    """Ranking key of every row of A_g: log H of Eq. 4, or the largest logit minus the mean.

    Args:
        features_BCn: (B, C, n) float32 or half precision.
        inverse_norms_Bn: (B, n) float32 factors of the features for cosine, or None.
        scale: Factor of the products.
        entropy: Log H if true, else max - mean.

    Returns:
        (B, n) float32.
    """
    _load_triton()
    features_BCn = features_BCn.contiguous()
    batch, channels, positions = features_BCn.shape
    # The largest blocks of channels that fit into shared memory and registers (sm_90).
    deepest, stages = (32, 3) if features_BCn.dtype == torch.float32 else (64, 2)
    block_c = min(deepest, max(16, 1 << (channels - 1).bit_length()))
    row_blocks, key_blocks = _ceil_div(positions, _ROWS), _ceil_div(positions, _KEYS)
    blocks_per_split = _ceil_div(key_blocks, max(1, min(key_blocks, _PROGRAMS // row_blocks)))
    splits = _ceil_div(key_blocks, blocks_per_split)
    partial = features_BCn.new_empty((batch, splits, _PLANES, positions), dtype=torch.float32)
    launch(
        statistics_kernel, (row_blocks, splits, batch),
        features_BCn, inverse_norms_Bn, partial, channels, positions, blocks_per_split * _KEYS, scale,
        ENTROPY=entropy, COSINE=inverse_norms_Bn is not None,
        BLOCK_R=_ROWS, BLOCK_K=_KEYS, BLOCK_C=block_c, num_warps=8, num_stages=stages,
    )  # fmt: skip
    return _merge_splits(partial, entropy)


def _merge_splits(partial_BSPn: Tensor, entropy: bool) -> Tensor:
    """Merge the statistics of the splits: (B, splits, planes, n) -> (B, n), log H or largest - mean."""
    largest, second, total, spread = partial_BSPn.unbind(2)
    if not entropy:  # the second plane is the sum
        return largest.amax(1) - second.sum(1) / partial_BSPn.shape[3]
    best, where = largest.max(1, keepdim=True)
    losers = largest.scatter(1, where, _NO_KEY)  # join the others
    among_others = torch.maximum(second.amax(1, keepdim=True), losers.amax(1, keepdim=True))
    lag, own_lag = second - among_others, losers - among_others
    weight, own_weight = lag.exp(), own_lag.exp().masked_fill_(losers < _NO_KEY / 2, 0.0)
    total, spread = (
        (weight * total + own_weight).sum(1),
        (weight * (spread + total * lag) + own_weight * own_lag).sum(1),
    )
    return blocked.log_entropy(best.squeeze(1), among_others.squeeze(1), total, spread)


@global_key.register_fake
def _(features_BCn: Tensor, inverse_norms_Bn: Tensor | None, scale: float, entropy: bool) -> Tensor:
    return features_BCn.new_empty((features_BCn.shape[0], features_BCn.shape[2]), dtype=torch.float32)


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Run a kernel on the device of its first argument."""
    with torch.cuda.device_of(arguments[0]):
        kernel[grid](*arguments, **constants)


def _ceil_div(count: int, block: int) -> int:
    return -(-count // block)


@_kernel
def _product_tile(
    features_ptr, rows, rows_exist, keys, keys_exist, channels, positions,
    BLOCK_R: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Products of R features with K features of a map, (R, K) float32, in blocks of channels.

    Half precision uses the tensor cores directly: products are exact, sums float32. Float32 uses three TF32 products,
    with the accuracy of float32.
    """
    sums = tl.zeros((BLOCK_R, BLOCK_K), tl.float32)
    for start in range(0, channels, BLOCK_C):
        c = start + tl.arange(0, BLOCK_C)
        exist = c < channels
        left = tl.load(
            features_ptr + rows[:, None] + c[None, :] * positions, rows_exist[:, None] & exist[None, :], other=0.0
        )
        right = tl.load(
            features_ptr + c[:, None] * positions + keys[None, :], exist[:, None] & keys_exist[None, :], other=0.0
        )
        if INTERPRETED:
            left = left.to(tl.float32)
            right = right.to(tl.float32)
        sums = tl.dot(left, right, sums, input_precision="tf32x3")
    return sums


@_kernel
def _merge(largest, second, total, spread, largest_b, second_b, total_b, spread_b):
    """Merge the statistics of two disjoint sets of keys; either may be empty (NO_KEY, NO_KEY, 0, 0)."""
    loser = tl.minimum(largest, largest_b)
    merged = tl.maximum(tl.maximum(second, second_b), loser)
    d, d_b, d_loser = second - merged, second_b - merged, loser - merged
    weight, weight_b = tl.exp(d), tl.exp(d_b)
    weight_loser = tl.where(loser > IS_KEY, tl.exp(d_loser), 0.0)
    spread = weight * (spread + total * d) + weight_b * (spread_b + total_b * d_b) + weight_loser * d_loser
    total = weight * total + weight_b * total_b + weight_loser
    return tl.maximum(largest, largest_b), merged, total, spread


@_kernel
def _statistics(logits):
    """Statistics of the rows of a block, (R, K) -> four (R,). Masked keys hold NO_KEY."""
    largest = tl.max(logits, 1)
    top = logits == largest[:, None]
    again = tl.sum(top.to(tl.float32), 1) - 1.0  # how often the largest occurs among the others
    below = tl.where(top, NO_KEY, logits)
    second = tl.where(again > 0.0, largest, tl.max(below, 1))
    u = below - second[:, None]
    weights = tl.where(below > IS_KEY, tl.exp(u), 0.0)
    return largest, second, tl.sum(weights, 1) + again, tl.sum(weights * u, 1)


@_kernel
def statistics_kernel(
    features_ptr, inverse_norms_ptr, partial_ptr, channels, positions, split_keys, scale,
    ENTROPY: tl.constexpr, COSINE: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Statistics of R rows of A_g over ``split_keys`` keys -> ``partial``, (B, splits, 4, n) float32.

    Grid (row blocks, splits, B). Split over keys as well, because a map has too few row blocks to fill a GPU.
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
        logits = scale * _product_tile(
            features_ptr, rows, rows_exist, keys, keys_exist, channels, positions, BLOCK_R, BLOCK_K, BLOCK_C,
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


BACKEND = Backend(
    name="triton",
    preference=0,
    formulations={"equations": (significance, route)},
    missing=missing,
    refusals=refusals,
    only_by_name=only_by_name,
)
