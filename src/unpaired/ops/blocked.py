"""Query selection without the n x n matrix: the CPU's fast path, and the fallback on every device.

Selection needs no gradient, so significance is taken block of rows by block of rows under ``no_grad`` in one reused
buffer. Routing needs N rows, so only those are recomputed with autograd. Local attention on large maps runs over the
shifts of the window (no ``unfold``: that would be S copies of the map) and gathers the N selected windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from unpaired.ops.attention import Attention, Measure, outside_window, prepare, take_positions

# Logits in one block. On the CPU a block and its exponentials should stay in the cache between the passes; on a GPU
# launches cost more than memory traffic, so blocks are larger (256 MiB of float32).
_BLOCK_LOGITS_CPU = 1 << 20
_BLOCK_LOGITS_GPU = 1 << 26

# Maps of up to this many positions take masked rows of A_g for A_l: one matrix product is cheaper than 49 small steps.
_SMALL_MAP = 1024

# Differences of logits below which exp counts as exp of this (entropies) or as 0 (rows). Further down the numbers are
# subnormal; arithmetic with those runs in microcode and made the whole call 3.4 times slower (measured, CPU). What is
# lost is below half a unit in the last place of anything it is added to.
_FLOOR = {torch.float32: -40.0, torch.float64: -300.0}

# "No key". Finite, so that 0 * (s - max) is 0 where -inf would give NaN; far below every logit, far from overflow.
_NO_KEY = {torch.float32: -1e37, torch.float64: -1e300}


def significance(features_BCn: Tensor, attention: Attention, measure: Measure) -> tuple[Tensor, Tensor]:
    """How significant each query is; arguments and results as :func:`unpaired.ops.reference.significance`."""
    with torch.no_grad():
        prepared_BCn = prepare(features_BCn, attention)
        measured = _log_entropy if measure == "entropy" else _max_mean
        if attention.local and not _as_masked_rows(attention):
            key_Bn = measured(_shifted_logits(prepared_BCn, attention), 1)
        else:
            key_Bn = torch.cat([measured(block, 2) for block in _row_blocks(prepared_BCn, attention)], dim=1)
        if measure == "entropy":
            return key_Bn, key_Bn.exp()
        value_Bn = key_Bn * attention.max_mean_scale(features_BCn.shape[1])
        return -value_Bn, value_Bn


def route(queries_BCn: Tensor, values: Sequence[Tensor], indices_BN: Tensor, attention: Attention) -> list[Tensor]:
    """Route features by the selected rows; arguments and results as :func:`unpaired.ops.reference.route`."""
    if attention.local and not _as_masked_rows(attention):
        return _route_windows(queries_BCn, values, indices_BN, attention)
    prepared_BCn = prepare(queries_BCn, attention)
    selected_BNC = take_positions(prepared_BCn, indices_BN).transpose(1, 2)
    logits_BNn = torch.bmm(selected_BNC * attention.logit_scale(queries_BCn.shape[1]), prepared_BCn)
    rows_BnN = _softmax(logits_BNn, outside_window(indices_BN, attention) if attention.local else None).transpose(1, 2)
    return [torch.bmm(value_BCn.to(rows_BnN.dtype), rows_BnN).transpose(1, 2) for value_BCn in values]


def _softmax(logits: Tensor, no_key: Tensor | None) -> Tensor:
    """Softmax of rows, with exact zeros for what is no key and for what is too small to count; ``logits`` is spent."""
    with torch.no_grad():  # autograd need not see it: the gradient of softmax is 0 wherever its result is
        if no_key is not None:
            logits.masked_fill_(no_key, -torch.inf)
        floor = logits.amax(dim=-1, keepdim=True).add_(_FLOOR[logits.dtype])
        logits.masked_fill_(logits < floor, -torch.inf)
    return logits.softmax(dim=-1)


def _as_masked_rows(attention: Attention) -> bool:
    """Whether A_l is taken as masked rows of A_g: on small maps, and where the window covers much of the map."""
    radius_y, radius_x = attention.radii
    positions = attention.height * attention.width
    return positions <= _SMALL_MAP or 4 * (2 * radius_y + 1) * (2 * radius_x + 1) > positions


def _row_blocks(prepared_BCn: Tensor, attention: Attention) -> Iterator[Tensor]:
    """Logits of consecutive queries, (B, rows, n), all in one buffer: each block is overwritten by the next."""
    batch, channels, positions = prepared_BCn.shape
    budget = _BLOCK_LOGITS_CPU if prepared_BCn.device.type == "cpu" else _BLOCK_LOGITS_GPU
    rows = min(positions, max(1, budget // (batch * positions)))
    buffer = prepared_BCn.new_empty(batch * rows * positions)
    for start in range(0, positions, rows):
        queries_BRC = prepared_BCn[:, :, start : start + rows].transpose(1, 2)
        block_BRn = buffer[: batch * queries_BRC.shape[1] * positions].view(batch, -1, positions)
        torch.baddbmm(
            block_BRn, queries_BRC, prepared_BCn, beta=0, alpha=attention.logit_scale(channels), out=block_BRn
        )
        if attention.local:
            queries_R = torch.arange(start, start + queries_BRC.shape[1], device=buffer.device)
            block_BRn.masked_fill_(outside_window(queries_R, attention), _NO_KEY[buffer.dtype])
        yield block_BRn


def _shifted_logits(prepared_BCn: Tensor, attention: Attention) -> Tensor:
    """Logits of every query with the keys of its window, shift by shift: (B, C, n) -> (B, S, n).

    s(i, i + shift) is also s of the query i + shift with the key i, so half of the shifts give all of the logits.
    """
    batch, channels, _ = prepared_BCn.shape
    height, width = attention.height, attention.width
    radius_y, radius_x = attention.radii
    map_BCHW = prepared_BCn.unflatten(2, (height, width))
    buffer = prepared_BCn.new_empty(prepared_BCn.numel())
    logits = prepared_BCn.new_full((batch, 2 * radius_y + 1, 2 * radius_x + 1, height, width), _NO_KEY[buffer.dtype])
    for dy in range(radius_y + 1):
        for dx in range(-radius_x if dy else 0, radius_x + 1):
            left, right = max(0, -dx), width - max(0, dx)
            here = map_BCHW[:, :, : height - dy, left:right]
            there = map_BCHW[:, :, dy:, left + dx : right + dx]
            product = torch.mul(here, there, out=buffer[: here.numel()].view(here.shape))
            dot = product.sum(dim=1).mul_(attention.logit_scale(channels))
            logits[:, radius_y + dy, radius_x + dx, : height - dy, left:right] = dot
            logits[:, radius_y - dy, radius_x - dx, dy:, left + dx : right + dx] = dot
    return logits.view(batch, -1, height * width)


def _log_entropy(logits: Tensor, dim: int) -> Tensor:
    """log H of Eq. 4 and 5 along ``dim``, destroying ``logits``; -inf where a row has a single key.

    With t_j = s_j - s_best over the keys but the best one, R = sum exp(t_j) and g = -sum softmax(t)_j t_j:
    H = log(1 + R) + R / (1 + R) g. Every term is positive, so nothing cancels, and log H stays finite where R
    underflows. The sums are taken relative to the second best key, which keeps them in range, and the lead of the
    best over it is put back in the end.
    """
    no_key = _NO_KEY[logits.dtype]
    largest, best = logits.max(dim=dim, keepdim=True)
    logits.scatter_(dim, best, no_key)
    second = logits.amax(dim=dim, keepdim=True)
    logits.sub_(second).clamp_(min=_FLOOR[logits.dtype])
    weights = logits.exp()
    total = weights.sum(dim=dim)
    spread = weights.mul_(logits).sum(dim=dim).div_(total)  # <= 0
    lead = (largest - second).squeeze(dim)
    log_ratio = total.log() - lead
    gap = lead - spread
    ratio = log_ratio.exp()
    large = (ratio.log1p() + ratio / (1 + ratio) * gap).log()
    # The same, with R taken out of the logarithm. R is kept off 0 so that log(1 + R) / R is 1 there.
    ratio.clamp_(min=torch.finfo(ratio.dtype).tiny)
    small = log_ratio + (ratio.log1p() / ratio + gap / (1 + ratio)).log()
    key = torch.where(ratio > 1e-4, large, small)
    return torch.where(second.squeeze(dim) > no_key / 2, key, -torch.inf)


def _max_mean(logits: Tensor, dim: int) -> Tensor:
    """Eq. 6 along ``dim``: the largest logit minus the mean over the row's keys."""
    is_key = logits > _NO_KEY[logits.dtype] / 2
    mean = torch.where(is_key, logits, 0.0).sum(dim=dim) / is_key.sum(dim=dim)
    return logits.amax(dim=dim) - mean


def _route_windows(
    queries_BCn: Tensor, values: Sequence[Tensor], indices_BN: Tensor, attention: Attention
) -> list[Tensor]:
    """Route by A_l with the N selected windows only, gathered by index arithmetic."""
    neighbours_BNS, is_key_BNS = _neighbours(indices_BN, attention)
    prepared_BCn = prepare(queries_BCn, attention)
    keys_MSC = _gather_windows(prepared_BCn, neighbours_BNS)
    selected_MC1 = take_positions(prepared_BCn, indices_BN).transpose(1, 2).flatten(0, 1).unsqueeze(2)
    logits_MS = torch.bmm(keys_MSC, selected_MC1 * attention.logit_scale(queries_BCn.shape[1])).squeeze(2)
    rows_M1S = _softmax(logits_MS, ~is_key_BNS.flatten(0, 1)).unsqueeze(1)
    routed = []
    for value_BCn in values:
        shared = value_BCn is queries_BCn and attention.similarity != "cosine"  # then the keys are the values
        values_MSC = keys_MSC if shared else _gather_windows(value_BCn.to(rows_M1S.dtype), neighbours_BNS)
        routed.append(torch.bmm(rows_M1S, values_MSC).view(*indices_BN.shape, -1))
    return routed


def _neighbours(indices_BN: Tensor, attention: Attention) -> tuple[Tensor, Tensor]:
    """Positions of the window of each selected query, (B, N, S), and which of them lie inside the map."""
    radius_y, radius_x = attention.radii
    device = indices_BN.device
    y = indices_BN.div(attention.width, rounding_mode="floor")[..., None, None]
    x = indices_BN.remainder(attention.width)[..., None, None]
    ys = y + torch.arange(-radius_y, radius_y + 1, device=device).unsqueeze(1)
    xs = x + torch.arange(-radius_x, radius_x + 1, device=device)
    inside = (ys >= 0) & (ys < attention.height) & (xs >= 0) & (xs < attention.width)
    positions = ys.clamp(0, attention.height - 1) * attention.width + xs.clamp(0, attention.width - 1)
    return positions.flatten(2), inside.flatten(2)


def _gather_windows(features_BCn: Tensor, neighbours_BNS: Tensor) -> Tensor:
    """Features of all keys: (B, C, n), (B, N, S) -> (B * N, S, C). Whole tokens are copied, C numbers in a row."""
    batch, channels, positions = features_BCn.shape
    tokens = features_BCn.transpose(1, 2).reshape(-1, channels)
    offsets = torch.arange(batch, device=features_BCn.device).view(-1, 1, 1) * positions
    flat = (neighbours_BNS + offsets).flatten()
    return tokens.index_select(0, flat).view(-1, neighbours_BNS.shape[2], channels)
