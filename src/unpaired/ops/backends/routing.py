"""Routing without the n x n matrix: the N selected rows of A_g, or the N selected windows of A_l, in plain torch.

N rows of n logits take 4 MiB for 256 queries on a 64 x 64 map. ``scaled_dot_product_attention`` computes the same, but
its CPU kernel takes twice as long here, forward and backward (measured).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unpaired.ops.attention import Attention, outside_window, prepare, take_positions

# Logit differences are clamped here (entropies), or exp is 0 below (rows). exp of lower values would be subnormal, and
# subnormal arithmetic made the whole call 3.4 times slower (measured, CPU). The error is below half a unit in the last
# place of the sums.
LEAST_LEAD = {torch.float32: -40.0, torch.float64: -300.0}

# Up to this many positions, A_l is computed as masked rows of A_g: one matrix product is cheaper than 49 small ones.
SMALL_MAP = 1024


def route(queries_BCn: Tensor, values: Sequence[Tensor], indices_BN: Tensor, attention: Attention) -> list[Tensor]:
    """Route features by the selected rows; see :func:`unpaired.ops.backends.reference.route`."""
    keys_BCn = prepare(queries_BCn, attention)
    wide = [value_BCn.to(keys_BCn.dtype) for value_BCn in values]
    scale = attention.logit_scale(queries_BCn.shape[1])
    if attention.local and not as_masked_rows(attention):
        return _route_windows(keys_BCn, wide, indices_BN, attention, scale)
    no_key_BNn = outside_window(indices_BN, attention) if attention.local else None
    return list(_RouteByRows.apply(scale, no_key_BNn, indices_BN, keys_BCn, *wide))


def as_masked_rows(attention: Attention) -> bool:
    """Whether to compute A_l as masked rows of A_g: on small maps, and if the window covers much of the map."""
    radius_y, radius_x = attention.radii
    positions = attention.height * attention.width
    return positions <= SMALL_MAP or 4 * (2 * radius_y + 1) * (2 * radius_x + 1) > positions


class _RouteByRows(torch.autograd.Function):
    """softmax(q kT) v for several v, sharing the attention; differentiable once.

    Autograd's own backward pass takes 22 MiB more on a 64 x 64 map (29 MiB) and 20 % more time. sum_j P_ij dP_ij is
    summed over j and not replaced by sum_c z_ic dz_ic as in flash attention: for one-hot rows the two differ by
    rounding, and P_ii dP_ii would no longer cancel.
    """

    @staticmethod
    def forward(
        ctx: Any, scale: float, no_key_BNn: Tensor | None, indices_BN: Tensor, keys_BCn: Tensor, *values: Tensor
    ) -> tuple[Tensor, ...]:
        queries_BNC = take_positions(keys_BCn, indices_BN).transpose(1, 2) * scale
        rows_BNn = torch.bmm(queries_BNC, keys_BCn)
        if no_key_BNn is not None:
            rows_BNn.masked_fill_(no_key_BNn, -torch.inf)
        rows_BNn.sub_(rows_BNn.amax(dim=2, keepdim=True))
        torch.threshold_(rows_BNn, LEAST_LEAD[rows_BNn.dtype], -torch.inf).exp_()  # exact zeros
        rows_BNn.div_(rows_BNn.sum(dim=2, keepdim=True))
        routed = tuple(torch.bmm(rows_BNn, value_BCn.transpose(1, 2)) for value_BCn in values)
        ctx.scale = scale
        ctx.values_are_keys = [value_BCn is keys_BCn for value_BCn in values]
        ctx.set_materialize_grads(False)  # the positives are detached: no product for them
        ctx.save_for_backward(indices_BN, keys_BCn, queries_BNC, rows_BNn, *values)
        return routed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        indices_BN, keys_BCn, queries_BNC, rows_BNn, *values = ctx.saved_tensors
        of_values: list[Tensor | None] = [None] * len(values)
        of_keys = None
        if ctx.needs_input_grad[3]:
            logits_BNn = torch.zeros_like(rows_BNn)
            for value_BCn, gradient_BNC in zip(values, gradients, strict=True):
                if gradient_BNC is not None:
                    logits_BNn.baddbmm_(gradient_BNC, value_BCn)
            logits_BNn.sub_(torch.linalg.vecdot(rows_BNn, logits_BNn).unsqueeze(2)).mul_(rows_BNn)
            of_keys = torch.bmm(queries_BNC.transpose(1, 2), logits_BNn)
            of_queries_BCN = torch.bmm(keys_BCn, logits_BNn.transpose(1, 2)).mul_(ctx.scale)
            of_keys.scatter_add_(2, indices_BN.unsqueeze(1).expand(-1, keys_BCn.shape[1], -1), of_queries_BCN)
        for i, gradient_BNC in enumerate(gradients):
            if gradient_BNC is None or not ctx.needs_input_grad[4 + i]:
                continue
            if of_keys is not None and ctx.values_are_keys[i]:
                of_keys.baddbmm_(gradient_BNC.transpose(1, 2), rows_BNn)
            else:
                of_values[i] = torch.bmm(gradient_BNC.transpose(1, 2), rows_BNn)
        return None, None, None, of_keys, *of_values


def _route_windows(
    keys_BCn: Tensor, values: Sequence[Tensor], indices_BN: Tensor, attention: Attention, scale: float
) -> list[Tensor]:
    """Route by the selected windows, gathered by index."""
    neighbours_BNS, is_key_BNS = _neighbours(indices_BN, attention)
    keys_MSC = _gather_windows(keys_BCn, neighbours_BNS)  # M = B * N
    selected_MC1 = take_positions(keys_BCn, indices_BN).transpose(1, 2).flatten(0, 1).unsqueeze(2)
    logits_MS = torch.bmm(keys_MSC, selected_MC1 * scale).squeeze(2)
    with torch.no_grad():  # safe: the gradient of softmax is 0 where its result is 0
        logits_MS.masked_fill_(~is_key_BNS.flatten(0, 1), -torch.inf)
        floor = logits_MS.amax(dim=-1, keepdim=True).add_(LEAST_LEAD[logits_MS.dtype])
        logits_MS.masked_fill_(logits_MS < floor, -torch.inf)
    rows_M1S = logits_MS.softmax(dim=-1).unsqueeze(1)
    windows = [keys_MSC if each is keys_BCn else _gather_windows(each, neighbours_BNS) for each in values]
    return [torch.bmm(rows_M1S, values_MSC).view(*indices_BN.shape, -1) for values_MSC in windows]


def _neighbours(indices_BN: Tensor, attention: Attention) -> tuple[Tensor, Tensor]:
    """Positions of the window of each selected query, (B, N, S), and whether they are inside the map."""
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
    """Features of all keys: (B, C, n), (B, N, S) -> (B * N, S, C), copied as contiguous tokens."""
    batch, channels, positions = features_BCn.shape
    tokens = features_BCn.transpose(1, 2).reshape(-1, channels)
    offsets = torch.arange(batch, device=features_BCn.device).view(-1, 1, 1) * positions
    flat = (neighbours_BNS + offsets).flatten()
    return tokens.index_select(0, flat).view(-1, neighbours_BNS.shape[2], channels)
