"""How the Triton kernels are started: on which device, over how many programs.

Blocks and splits depend on the size of one map alone, not on the batch or the device, and nothing is tuned at the first
call: the same bits in every run and batch, and nothing that a CUDA graph could not record.
"""

from __future__ import annotations

from typing import Any

import torch

# Programs that a launch should have at least, for GPUs of about 130 multiprocessors; reached by splitting the keys.
_PROGRAMS = 256


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Run a kernel on the device of its first argument; all launches of this package go through here."""
    with torch.cuda.device_of(arguments[0]):
        kernel[grid](*arguments, **constants)


def ceil_div(count: int, block: int) -> int:
    """Blocks that hold ``count``, the last one perhaps not full."""
    return -(-count // block)


def next_power_of_2(number: int) -> int:
    """The smallest power of two that is not smaller; sizes of blocks are such."""
    return 1 << (number - 1).bit_length()


def split_keys(positions: int, block: int, programs: int) -> tuple[int, int]:
    """Into how many parts the keys are split where there are ``programs`` already, and the keys of a part."""
    blocks = ceil_div(positions, block)
    per_split = ceil_div(blocks, max(1, min(blocks, _PROGRAMS // programs)))
    return ceil_div(blocks, per_split), per_split * block


def channel_block(channels: int, most: int) -> int:
    """Channels in one block: enough for a tensor core, no more than there are."""
    return min(most, max(16, next_power_of_2(channels)))
