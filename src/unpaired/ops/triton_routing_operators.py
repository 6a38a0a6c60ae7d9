"""The kernels that route by rows of A_g as operators; conventions as in ``ops/triton_selection_operators.py``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from unpaired.ops import triton_routing
from unpaired.ops.triton_launch import ceil_div, channel_block, launch, split_keys

# The same tiles in all four kernels, so that they see the same bits of the logits. More rows spill registers (sm_90).
_ROWS, _KEYS = 32, 64


def _routing_blocks(channels: int) -> dict[str, int]:
    block = channel_block(channels, 32)
    return {"BLOCK_R": _ROWS, "BLOCK_K": _KEYS, "BLOCK_C": block, "num_warps": 8, "num_stages": 3}


@custom_op("unpaired::route_rows", mutates_args=())
def route_rows(queries_BNC: Tensor, keys_BCn: Tensor, values_BCn: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Route one value by the rows softmax(scale * q . k) of A_g (section 3.2.2); differentiable in all three tensors.

    Args:
        queries_BNC: (B, N, C) features of the selected positions, in the dtype of the keys.
        keys_BCn: (B, C, n).
        values_BCn: (B, C, n), its dtype may be another one.
        scale: Factor of the products.

    Returns:
        (B, N, C) routed features; (B, 2, N) largest logit and sum of exp(logit - largest), without gradient.
    """
    queries_BNC, keys_BCn, values_BCn = queries_BNC.contiguous(), keys_BCn.contiguous(), values_BCn.contiguous()
    batch, num_queries, channels = queries_BNC.shape
    positions = keys_BCn.shape[2]
    block_d = channel_block(channels, 64)
    blocks = ceil_div(num_queries, _ROWS) * ceil_div(channels, block_d)
    splits, keys_per_split = split_keys(positions, _KEYS, blocks)
    partial = queries_BNC.new_empty((batch, splits, num_queries, channels), dtype=torch.float32)
    partial_statistics = queries_BNC.new_empty((batch, splits, 2, num_queries), dtype=torch.float32)
    launch(
        triton_routing.route_kernel, (blocks, splits, batch),
        queries_BNC, keys_BCn, values_BCn, partial, partial_statistics,
        num_queries, channels, positions, keys_per_split, scale, BLOCK_D=block_d, **_routing_blocks(channels),
    )  # fmt: skip
    routed_BNC = torch.empty_like(queries_BNC, dtype=torch.float32)
    statistics_B2N = queries_BNC.new_empty((batch, 2, num_queries), dtype=torch.float32)
    launch(
        triton_routing.combine_kernel, (ceil_div(num_queries, 16) * ceil_div(channels, block_d), batch),
        partial, partial_statistics, routed_BNC, statistics_B2N, num_queries, channels, splits,
        BLOCK_R=16, BLOCK_D=block_d, num_warps=4,
    )  # fmt: skip
    return routed_BNC, statistics_B2N


@custom_op("unpaired::route_rows_delta", mutates_args=())
def route_rows_delta(
    queries_BNC: Tensor,
    keys_BCn: Tensor,
    values_BCn: Tensor,
    gradient_BNC: Tensor,
    statistics_B2N: Tensor,
    scale: float,
) -> Tensor:
    """sum_j p_ij (w_i . v_j) of every row, w the gradient of the routed features: (B, N)."""
    gradient_BNC = gradient_BNC.contiguous()
    batch, num_queries, channels = queries_BNC.shape
    positions = keys_BCn.shape[2]
    blocks = ceil_div(num_queries, _ROWS)
    splits, keys_per_split = split_keys(positions, _KEYS, blocks)
    partial = gradient_BNC.new_empty((batch, splits, 2, num_queries))
    launch(
        triton_routing.delta_kernel, (blocks, splits, batch),
        queries_BNC.contiguous(), keys_BCn.contiguous(), values_BCn.contiguous(), gradient_BNC, statistics_B2N, partial,
        num_queries, channels, positions, keys_per_split, scale, **_routing_blocks(channels),
    )  # fmt: skip
    weighted_BN, total_BN = partial.sum(dim=1).unbind(1)
    return weighted_BN / total_BN


@custom_op("unpaired::route_rows_queries_gradient", mutates_args=())
def route_rows_queries_gradient(
    queries_BNC: Tensor,
    keys_BCn: Tensor,
    values_BCn: Tensor,
    gradient_BNC: Tensor,
    statistics_B2N: Tensor,
    delta_BN: Tensor,
    scale: float,
) -> Tensor:
    """Gradient of the selected features: (B, N, C), in their dtype."""
    gradient_BNC = gradient_BNC.contiguous()
    batch, num_queries, channels = queries_BNC.shape
    positions = keys_BCn.shape[2]
    block_d = channel_block(channels, 64)
    blocks = ceil_div(num_queries, _ROWS) * ceil_div(channels, block_d)
    splits, keys_per_split = split_keys(positions, _KEYS, blocks)
    partial = gradient_BNC.new_empty((batch, splits, num_queries, channels))
    launch(
        triton_routing.queries_gradient_kernel, (blocks, splits, batch),
        queries_BNC.contiguous(), keys_BCn.contiguous(), values_BCn.contiguous(), gradient_BNC, statistics_B2N,
        delta_BN, partial, num_queries, channels, positions, keys_per_split, scale,
        BLOCK_D=block_d, **_routing_blocks(channels),
    )  # fmt: skip
    return partial.sum(dim=1).to(queries_BNC.dtype)


@custom_op("unpaired::route_rows_maps_gradient", mutates_args=())
def route_rows_maps_gradient(
    queries_BNC: Tensor,
    keys_BCn: Tensor,
    values_BCn: Tensor,
    gradient_BNC: Tensor,
    statistics_B2N: Tensor,
    delta_BN: Tensor,
    scale: float,
    need_keys: bool,
    need_values: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of keys and values, (B, C, n) in their dtypes; what is not needed is empty, (0,).

    ``delta_BN`` is not read unless the keys need theirs.
    """
    gradient_BNC = gradient_BNC.contiguous()
    batch, num_queries, channels = queries_BNC.shape
    positions = keys_BCn.shape[2]
    block_d = channel_block(channels, 64)
    gradients = _maps_gradients(keys_BCn, values_BCn, need_keys, need_values)
    launch(
        triton_routing.maps_gradient_kernel, (ceil_div(positions, _KEYS), ceil_div(channels, block_d), batch),
        queries_BNC.contiguous(), keys_BCn.contiguous(), values_BCn.contiguous(), gradient_BNC, statistics_B2N,
        delta_BN, *gradients, num_queries, channels, positions, scale,
        KEYS=need_keys, VALUES=need_values, BLOCK_D=block_d, **_routing_blocks(channels),
    )  # fmt: skip
    return gradients


def _maps_gradients(keys_BCn: Tensor, values_BCn: Tensor, need_keys: bool, need_values: bool) -> tuple[Tensor, Tensor]:
    keys_gradient = keys_BCn.new_empty(keys_BCn.shape if need_keys else 0)
    return keys_gradient, values_BCn.new_empty(values_BCn.shape if need_values else 0)


@route_rows.register_fake
def _(queries_BNC: Tensor, keys_BCn: Tensor, values_BCn: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    batch, num_queries, _ = queries_BNC.shape
    statistics_B2N = queries_BNC.new_empty((batch, 2, num_queries), dtype=torch.float32)
    return queries_BNC.new_empty(queries_BNC.shape, dtype=torch.float32), statistics_B2N


@route_rows_delta.register_fake
def _(queries_BNC: Tensor, *_rest: Any) -> Tensor:
    return queries_BNC.new_empty(queries_BNC.shape[:2], dtype=torch.float32)


@route_rows_queries_gradient.register_fake
def _(queries_BNC: Tensor, *_rest: Any) -> Tensor:
    return queries_BNC.new_empty(queries_BNC.shape)


@route_rows_maps_gradient.register_fake
def _(
    queries_BNC: Tensor,
    keys_BCn: Tensor,
    values_BCn: Tensor,
    gradient_BNC: Tensor,
    statistics_B2N: Tensor,
    delta_BN: Tensor,
    scale: float,
    need_keys: bool,
    need_values: bool,
) -> tuple[Tensor, Tensor]:
    return _maps_gradients(keys_BCn, values_BCn, need_keys, need_values)


def _save_rows(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors, output[1])


def _route_rows_backward(ctx: Any, gradient_BNC: Tensor, _statistics: Tensor) -> tuple[Tensor | None, ...]:
    queries, keys, values, statistics = ctx.saved_tensors
    need_queries, need_keys, need_values, _ = ctx.needs_input_grad
    queries_gradient = keys_gradient = values_gradient = None
    common = (queries, keys, values, gradient_BNC, statistics)
    delta = route_rows_delta(*common, ctx.scale) if need_queries or need_keys else statistics[:, 0]
    if need_queries:
        queries_gradient = route_rows_queries_gradient(*common, delta, ctx.scale)
    if need_keys or need_values:
        keys_gradient, values_gradient = route_rows_maps_gradient(*common, delta, ctx.scale, need_keys, need_values)
    return queries_gradient, keys_gradient if need_keys else None, values_gradient if need_values else None, None


route_rows.register_autograd(_route_rows_backward, setup_context=_save_rows)
