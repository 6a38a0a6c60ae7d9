"""Workarounds for autocast in half precision on the CPU."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_FEW_CHANNELS = 4


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


def is_thin(x_BIHW: Tensor, weight_OIrr: Tensor) -> bool:
    """Whether :func:`thin_conv2d` computes the gradients of this convolution, without padding, in less time."""
    if x_BIHW.device.type != "cpu" or min(weight_OIrr.shape[:2]) > _FEW_CHANNELS:
        return False
    autocast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return x_BIHW.dtype == torch.bfloat16 or (autocast and x_BIHW.dtype == torch.float32)


def thin_conv2d(x_BIHW: Tensor, weight_OIrr: Tensor, bias_O: Tensor | None) -> Tensor:
    """Convolve images, or towards images, in bf16 on the CPU, with stride 1 and without padding.

    The library's gradients are slow where either side has few channels: at 256 px, batch 2, 64 channels and 7 x 7 taps
    28 ms for the input of the stem and 34 ms for that of the head, where convolving the padded gradient with the
    mirrored filters takes 14 and 4, and 26 ms for the filters of the head, where 13 suffice if map and gradient change
    places (AMX, one thread).

    (B, I, H, W), (O, I, r, r) -> (B, O, H - r + 1, W - r + 1).
    """
    with own_type(x_BIHW):
        half = [each if each is None else each.bfloat16() for each in (x_BIHW, weight_OIrr, bias_O)]
        result: Tensor = _ThinConvolution.apply(*half)
        return result


class _ThinConvolution(torch.autograd.Function):
    """See :func:`thin_conv2d`."""

    @staticmethod
    def forward(ctx: Any, x_BIHW: Tensor, weight_OIrr: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(x_BIHW, weight_OIrr)
        return F.conv2d(x_BIHW, weight_OIrr, bias_O)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BOHW: Tensor) -> tuple[Tensor | None, ...]:
        x_BIHW, weight_OIrr = ctx.saved_tensors
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        gradient_BOHW = gradient_BOHW.contiguous(memory_format=torch.channels_last)
        to_few = wants_weight and weight_OIrr.shape[0] <= _FEW_CHANNELS
        rows, columns = (taps - 1 for taps in weight_OIrr.shape[2:])
        of_x = of_weight = padded = None
        if wants_x or to_few:
            padded = F.pad(gradient_BOHW, (columns, columns, rows, rows))
        mirrored_IOrr = weight_OIrr.flip(2, 3).transpose(0, 1)
        if wants_x:
            of_x = F.conv2d(padded, mirrored_IOrr)  # type: ignore[arg-type]
        if to_few:
            of_weight = _weight_gradient(x_BIHW, padded, mirrored_IOrr).transpose(0, 1).flip(2, 3)
        elif wants_weight:
            of_weight = _weight_gradient(gradient_BOHW, x_BIHW, weight_OIrr)
        return of_x, of_weight, gradient_BOHW.sum(dim=(0, 2, 3)) if wants_bias else None


def _weight_gradient(gradient: Tensor, x: Tensor | None, weight: Tensor) -> Tensor:
    plain = (None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [False, True, False])
    result: Tensor = torch.ops.aten.convolution_backward(gradient, x, weight, *plain)[1]
    return result
