"""Query selection without the n x n matrix: the fast path on the CPU, and the default on every device.

Selection needs no gradient, so significance is computed tile by tile under ``no_grad`` in reused buffers. The logits
are symmetric, so the tiles on and above the diagonal suffice: their transposes are the other half. Local attention on
large maps iterates over the shifts of the window (``unfold`` would copy the map S times). Routing needs N rows only,
which are computed again, with gradient: ``routing.py``.

On the CPU, with global attention in float32, equal features get bitwise equal ranking keys wherever they are in the
map, so flat areas are ties and the smaller position wins. That is why every sum has a fixed order. In float64, and with
local attention by Eq. 6, where windows at the border are smaller, such keys may differ by rounding.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unpaired.ops.attention import Attention, Measure, outside_window, prepare
from unpaired.ops.backends import Backend
from unpaired.ops.backends.routing import LEAST_LEAD, as_masked_rows, route

# Logits per tile. On the CPU a tile and two buffers of its size should fit into the cache; on a GPU launches cost more
# than memory traffic, so tiles are larger (256 MiB of float32).
_TILE_LOGITS_CPU = 1 << 20
_TILE_LOGITS_GPU = 1 << 26

# Tile sides are multiples of this; the two largest logits of a row are found via maxima of groups of this size.
_GROUP = 32

# Logit of a masked key: finite, because 0 * (-inf - max) would be NaN; far below every logit, far from overflow.
_NO_KEY = {torch.float32: -1e37, torch.float64: -1e300}

# Partial statistics of each query over some of its keys. For the entropy: the largest logit, the second largest, and
# over all keys but the best the sums of exp(s - second) and of exp(s - second) * (s - second). For Eq. 6: the largest
# logit and the sum of all.
Statistics = tuple[Tensor, ...]


def significance(features_BCn: Tensor, attention: Attention, measure: Measure) -> tuple[Tensor, Tensor]:
    """Significance of each query; see :func:`unpaired.ops.backends.reference.significance`."""
    measured, merged = (_entropy, _merged_entropy) if measure == "entropy" else (_max_mean, _merged_max_mean)
    with torch.no_grad():
        prepared_BCn = prepare(features_BCn, attention)
        if attention.local and not as_masked_rows(attention):
            logits_BSn = _shifted_logits(prepared_BCn, attention)
            statistics = measured(logits_BSn, 1, [torch.empty_like(logits_BSn) for _ in range(2)])
        else:
            statistics = _over_tiles(prepared_BCn, attention, measured, merged)
        if measure == "entropy":
            key_Bn = log_entropy(*statistics)
            return key_Bn, key_Bn.exp()
        largest_Bn, total_Bn = statistics
        value_Bn = largest_Bn - total_Bn / _number_of_keys(attention, largest_Bn)
        value_Bn *= attention.max_mean_scale(features_BCn.shape[1])
        return -value_Bn, value_Bn


def _over_tiles(prepared_BCn: Tensor, attention: Attention, measured: Any, merged: Any) -> Statistics:
    """Statistics of all queries over all keys; each query visits the tiles of its keys from left to right."""
    batch, channels, positions = prepared_BCn.shape
    scale = attention.logit_scale(channels)
    if scale != 1.0:  # on both factors: scaling one of them would make s_ij and s_ji differ by rounding
        prepared_BCn = prepared_BCn * math.sqrt(scale)
    side = _tile_side(prepared_BCn)
    logits_BTT, *scratch = (prepared_BCn.new_empty(batch, side, side) for _ in range(3))
    known: list[Statistics | None] = [None] * math.ceil(positions / side)
    for row in range(len(known)):
        for column in range(row, len(known)):
            _fill_tile(logits_BTT, prepared_BCn, row * side, column * side, attention)
            for tile, dim in ((row, 2), (column, 1))[: 1 if row == column else 2]:
                found, before = measured(logits_BTT, dim, scratch), known[tile]
                known[tile] = found if before is None else merged(before, found)
    return tuple(torch.cat(parts, dim=1)[:, :positions] for parts in zip(*known, strict=True))


def _tile_side(prepared_BCn: Tensor) -> int:
    """Side of the tiles: a multiple of the group size within the budget, balanced over the map."""
    batch, _, positions = prepared_BCn.shape
    budget = _TILE_LOGITS_CPU if prepared_BCn.device.type == "cpu" else _TILE_LOGITS_GPU
    most = max(1, math.isqrt(budget // batch) // _GROUP) * _GROUP
    tiles = math.ceil(positions / most)
    return math.ceil(positions / (tiles * _GROUP)) * _GROUP


def _fill_tile(tile_BTT: Tensor, prepared_BCn: Tensor, row: int, column: int, attention: Attention) -> None:
    """Logits of the queries from position ``row`` on with the keys from ``column`` on; masked beyond the map."""
    side = tile_BTT.shape[1]
    queries_BCr = prepared_BCn[:, :, row : row + side]
    keys_BCc = prepared_BCn[:, :, column : column + side]
    inside = tile_BTT[:, : queries_BCr.shape[2], : keys_BCc.shape[2]]
    if inside.shape != tile_BTT.shape:
        tile_BTT.fill_(_NO_KEY[tile_BTT.dtype])
    torch.baddbmm(inside, queries_BCr.transpose(1, 2), keys_BCc, beta=0, out=inside)
    if attention.local:
        queries_r = torch.arange(row, row + inside.shape[1], device=tile_BTT.device)
        far = outside_window(queries_r, attention)[:, column : column + side]
        inside.masked_fill_(far, _NO_KEY[tile_BTT.dtype])


def _shifted_logits(prepared_BCn: Tensor, attention: Attention) -> Tensor:
    """Logits of every query with the keys of its window, shift by shift: (B, C, n) -> (B, S, n).

    s(i, i + shift) = s(i + shift, i), so half of the shifts suffice. S is rounded up to whole groups, the rest masked.
    """
    batch, channels, _ = prepared_BCn.shape
    height, width = attention.height, attention.width
    radius_y, radius_x = attention.radii
    columns = 2 * radius_x + 1
    map_BCHW = prepared_BCn.unflatten(2, (height, width))
    buffer = prepared_BCn.new_empty(prepared_BCn.numel())
    groups = math.ceil((2 * radius_y + 1) * columns / _GROUP)
    logits = prepared_BCn.new_full((batch, groups * _GROUP, height, width), _NO_KEY[buffer.dtype])
    for dy in range(radius_y + 1):
        for dx in range(-radius_x if dy else 0, radius_x + 1):
            left, right = max(0, -dx), width - max(0, dx)
            here = map_BCHW[:, :, : height - dy, left:right]
            there = map_BCHW[:, :, dy:, left + dx : right + dx]
            product = torch.mul(here, there, out=buffer[: here.numel()].view(here.shape))
            dot = product.sum(dim=1).mul_(attention.logit_scale(channels))
            forth, back = ((radius_y + y) * columns + radius_x + x for y, x in ((dy, dx), (-dy, -dx)))
            logits[:, forth, : height - dy, left:right] = dot
            logits[:, back, dy:, left + dx : right + dx] = dot
    return logits.flatten(2)


def _two_largest(logits: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """The largest logit along ``dim``, the second largest, and the index of the largest; dimensions are kept.

    ``Tensor.max`` with indices is slower than the exponentials; here it reads one value per group.
    """
    grouped = logits.unflatten(dim, (-1, _GROUP))
    largest = grouped.amax(dim, keepdim=True)
    best, group = largest.max(dim + 1, keepdim=True)
    members = grouped.take_along_dim(group, dim + 1)
    member = members.argmax(dim, keepdim=True)
    no_key = _NO_KEY[logits.dtype]
    rest = torch.maximum(
        largest.scatter(dim + 1, group, no_key).amax(dim + 1, keepdim=True),
        members.scatter(dim, member, no_key).amax(dim, keepdim=True),
    )
    return best.squeeze(dim), rest.squeeze(dim), (member * _GROUP + group).squeeze(dim)


def _sum(values: Tensor, dim: int) -> Tensor:
    """Sum along ``dim`` in an order that does not depend on ``dim``; overwrites ``values``."""
    while values.shape[dim] % 2 == 0:
        lower, upper = values.chunk(2, dim)
        values = lower.add_(upper)
    first, *others = values.unbind(dim)
    return functools.reduce(Tensor.add_, others, first.clone())


def _entropy(logits: Tensor, dim: int, scratch: Sequence[Tensor]) -> Statistics:
    """Statistics of a tile for the entropy, without the best key in the sums: see :func:`log_entropy`."""
    floor = LEAST_LEAD[logits.dtype]
    best, second, where = _two_largest(logits, dim)
    leads = torch.sub(logits, second, out=scratch[0]).scatter_(dim, where, floor).clamp_(min=floor)
    weights = torch.exp(leads, out=scratch[1])
    spread = _sum(leads.mul_(weights), dim)
    return best.squeeze(dim), second.squeeze(dim), _sum(weights, dim), spread


def _merged_entropy(one: Statistics, other: Statistics) -> Statistics:
    """Merge the statistics of two sets of keys; the lesser of the two best keys enters the sums."""
    best, loser = torch.maximum(one[0], other[0]), torch.minimum(one[0], other[0])
    second = torch.maximum(torch.maximum(one[1], other[1]), loser)
    lag = (loser - second).clamp_(min=LEAST_LEAD[best.dtype])
    total = lag.exp()
    spread = total * lag
    for _, own_second, own_total, own_spread in (one, other):
        lag = (own_second - second).clamp_(min=LEAST_LEAD[best.dtype])
        factor = lag.exp()
        total += factor * own_total
        spread += factor * (own_spread + lag * own_total)
    return best, second, total, spread


def log_entropy(best: Tensor, second: Tensor, total: Tensor, spread: Tensor) -> Tensor:
    """log H of Eq. 4 and 5; -inf for a query with a single key.

    With t_j = s_j - s_best over all keys but the best, R = sum exp(t_j) and g = -sum softmax(t)_j t_j:
    H = log(1 + R) + R / (1 + R) g. All terms are positive, so nothing cancels, and log H stays finite where R
    underflows. The sums are relative to the second largest logit, which keeps them in range; the lead of the largest
    is added here.
    """
    lead = best - second
    log_ratio = total.log() - lead
    gap = lead - spread / total
    ratio = log_ratio.exp()
    large = (ratio.log1p() + ratio / (1 + ratio) * gap).log()
    # The same with R factored out of the logarithm; R is clamped so that log(1 + R) / R is 1 at 0.
    ratio.clamp_(min=torch.finfo(ratio.dtype).tiny)
    small = log_ratio + (ratio.log1p() / ratio + gap / (1 + ratio)).log()
    key = torch.where(ratio > 1e-4, large, small)
    return torch.where(second > _NO_KEY[key.dtype] / 2, key, -torch.inf)


def _max_mean(logits: Tensor, dim: int, scratch: Sequence[Tensor]) -> Statistics:
    """Statistics of a tile for Eq. 6."""
    is_key = logits > _NO_KEY[logits.dtype] / 2
    return logits.amax(dim), _sum(torch.mul(logits, is_key, out=scratch[0]), dim)


def _merged_max_mean(one: Statistics, other: Statistics) -> Statistics:
    return torch.maximum(one[0], other[0]), one[1] + other[1]


def _number_of_keys(attention: Attention, like: Tensor) -> Tensor:
    """Number of keys of each query, (n,)."""
    counts = []
    for length in (attention.height, attention.width):
        at = torch.arange(length, device=like.device)
        reach = attention.window // 2 if attention.local else length
        counts.append((at + reach).clamp_(max=length - 1) - (at - reach).clamp_(min=0) + 1)
    return torch.outer(*counts).flatten().to(like.dtype)


BACKEND = Backend(name="blocked", preference=1, formulations={"equations": (significance, route)})
