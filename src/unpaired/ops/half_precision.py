"""What half precision on the CPU needs beside autocast."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor


def own_type(x: Tensor) -> AbstractContextManager[object]:
    """Within this block an operation on ``x`` is computed in the type of ``x``.

    Autocast on the CPU turns the inputs of padding and of interpolation into float32, and all that follows with them.
    """
    if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        return torch.autocast("cpu", enabled=False)
    return nullcontext()


def reflect(x_BCHW: Tensor, padding: int) -> Tensor:
    """Mirror ``padding`` pixels at each border, without repeating the last one: (B, C, H, W) -> + 2 padding a side."""
    with own_type(x_BCHW):
        return F.pad(x_BCHW, (padding,) * 4, mode="reflect")
