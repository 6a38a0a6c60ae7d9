"""The arithmetic of a translation: float32, or bf16 with float32 results."""

from __future__ import annotations

import copy
import time
from statistics import median
from typing import get_args

import torch
from torch import Tensor, nn

from unpaired.config import InferencePrecision
from unpaired.environment import has_fast_bf16
from unpaired.errors import ConfigError
from unpaired.inference.large_images import of_image, run_whole
from unpaired.methods import Method, TranslateRequest

_MEASURED = (128, 128)  # pixels on which both are timed
_WORTH_IT = 0.9  # of float32's time
_PAIRS = 3


class Arithmetic:
    """The precision in which networks translate; ``auto`` is decided by the first translation.

    Args:
        precision: ``32``, ``bf16`` or ``auto``.

    Raises:
        ConfigError: It is none of them.

    Attributes:
        name: ``32`` or ``bf16``; ``auto`` until the first translation has chosen.
    """

    def __init__(self, precision: InferencePrecision) -> None:
        if precision not in get_args(InferencePrecision):
            raise ConfigError(
                f"precision is '{precision}': it must be one of {', '.join(get_args(InferencePrecision))}"
            )
        self.name = precision
        self._half: Method | None = None

    def half(self, method: Method, x_BCHW: Tensor, request: TranslateRequest) -> Method | None:
        """What translates these images in bf16, a copy of ``method``; None where ``method`` itself is to."""
        if self.name == "32":
            return None
        half = self._half or with_half_weights(method)
        if self.name == "auto":
            self.name = "bf16" if _half_is_faster(method, half, x_BCHW, request) else "32"
        self._half = half if self.name == "bf16" else None
        return self._half


def with_half_weights(method: Method) -> Method:
    """A copy whose convolutions and linear layers hold bf16 weights, channels last, so that no call casts them."""
    half = copy.deepcopy(method)
    for layer in half.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            layer.to(torch.bfloat16, memory_format=torch.channels_last)  # type: ignore[call-overload]
        elif isinstance(layer, nn.Linear):
            layer.to(torch.bfloat16)
    return half


def _half_is_faster(method: Method, half: Method, x_BCHW: Tensor, request: TranslateRequest) -> bool:
    """Whether bf16 is the faster on this device; measured where the processor has instructions for it."""
    if x_BCHW.device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    if x_BCHW.device.type != "cpu" or not has_fast_bf16():
        return False
    blank, request = x_BCHW.new_zeros(1, x_BCHW.shape[1], *_MEASURED), of_image(request, 0)

    def seconds(networks: Method, *, half: bool) -> float:
        started = time.perf_counter()
        run_whole(networks, blank, request, half=half)
        return time.perf_counter() - started

    ratios = [seconds(half, half=True) / seconds(method, half=False) for _ in range(_PAIRS + 1)]
    return median(ratios[1:]) < _WORTH_IT  # the first one warms up
