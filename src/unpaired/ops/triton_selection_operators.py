"""The kernels of selection as operators of the namespace ``unpaired``; none is differentiable, ranks have no gradient.

Operators are ``torch.library.custom_op``s with a fake, so that torch.compile and CUDA graphs take them: nothing waits
for the device, and every size follows from sizes. Legend as in ``ops/attention.py``. Maps are (B, C, n) in float32 or
half precision, results float32 unless said otherwise.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.library import custom_op

from unpaired.ops import triton_selection
from unpaired.ops.triton_launch import ceil_div, channel_block, launch, split_keys

_ROWS, _KEYS = 128, 128


@custom_op("unpaired::global_key", mutates_args=())
def global_key(features_BCn: Tensor, inverse_norms_Bn: Tensor | None, scale: float, entropy: bool) -> Tensor:
    """Ranking key of every row of A_g: log H of Eq. 4, or the largest logit minus the mean.

    Args:
        features_BCn: (B, C, n).
        inverse_norms_Bn: (B, n) float32 factors of the features for cosine, or None.
        scale: Factor of the products.
        entropy: Which of the two.

    Returns:
        (B, n).
    """
    features_BCn = features_BCn.contiguous()
    batch, channels, positions = features_BCn.shape
    # Blocks of channels as deep as the multiprocessor's memory and registers hold (sm_90).
    block_c, stages = (32, 3) if features_BCn.dtype == torch.float32 else (64, 2)
    row_blocks = ceil_div(positions, _ROWS)
    splits, keys_per_split = split_keys(positions, _KEYS, row_blocks)
    partial = features_BCn.new_empty((batch, splits, triton_selection.PLANES.value, positions), dtype=torch.float32)
    launch(
        triton_selection.global_statistics_kernel, (row_blocks, splits, batch),
        features_BCn, inverse_norms_Bn, partial, channels, positions, keys_per_split, scale,
        ENTROPY=entropy, COSINE=inverse_norms_Bn is not None,
        BLOCK_R=_ROWS, BLOCK_K=_KEYS, BLOCK_C=channel_block(channels, block_c), num_warps=8, num_stages=stages,
    )  # fmt: skip
    key_Bn = features_BCn.new_empty((batch, positions), dtype=torch.float32)
    launch(
        triton_selection.global_key_kernel, (row_blocks, batch),
        partial, key_Bn, positions, splits, ENTROPY=entropy, BLOCK_R=_ROWS, num_warps=4,
    )  # fmt: skip
    return key_Bn


@custom_op("unpaired::local_key", mutates_args=())
def local_key(
    features_BCn: Tensor,
    inverse_norms_Bn: Tensor | None,
    height: int,
    width: int,
    radius_y: int,
    radius_x: int,
    scale: float,
    entropy: bool,
) -> Tensor:
    """Ranking key of every row of A_l, windows cut at the border of the map; otherwise as :func:`global_key`."""
    features_BCn = features_BCn.contiguous()
    batch, channels, positions = features_BCn.shape
    key_Bn = features_BCn.new_empty((batch, positions), dtype=torch.float32)
    launch(
        triton_selection.local_key_kernel, (ceil_div(positions, 32), batch),
        features_BCn, inverse_norms_Bn, key_Bn, channels, height, width, radius_y, radius_x, scale,
        ENTROPY=entropy, COSINE=inverse_norms_Bn is not None,
        BLOCK_R=32, BLOCK_C=channel_block(channels, 32), num_warps=4, num_stages=2,
    )  # fmt: skip
    return key_Bn


@global_key.register_fake
def _(features_BCn: Tensor, inverse_norms_Bn: Tensor | None, scale: float, entropy: bool) -> Tensor:
    return features_BCn.new_empty((features_BCn.shape[0], features_BCn.shape[2]), dtype=torch.float32)


@local_key.register_fake
def _(
    features_BCn: Tensor,
    inverse_norms_Bn: Tensor | None,
    height: int,
    width: int,
    radius_y: int,
    radius_x: int,
    scale: float,
    entropy: bool,
) -> Tensor:
    return features_BCn.new_empty((features_BCn.shape[0], features_BCn.shape[2]), dtype=torch.float32)
