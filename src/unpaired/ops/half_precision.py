"""Workarounds for autocast in half precision on the CPU."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor


def own_type(x: Tensor) -> AbstractContextManager[object]:
    """Context in which operations on ``x`` keep its dtype.

    Autocast on the CPU casts the inputs of padding and interpolation to float32, and with them all that follows.
    """
    if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        return torch.autocast("cpu", enabled=False)
    return nullcontext()


def reflect(x_BCHW: Tensor, padding: int) -> Tensor:
    """Reflection padding by ``padding`` pixels on every side: (B, C, H, W) -> (B, C, H + 2 padding, W + 2 padding)."""
    with own_type(x_BCHW):
        return F.pad(x_BCHW, (padding,) * 4, mode="reflect")
