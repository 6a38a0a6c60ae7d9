"""What ``precision: auto`` resolves to: chosen once for a run; on the CPU by timing training steps of the run."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from statistics import median
from typing import Any, Literal, NamedTuple

import torch

from unpaired.engine.step import make_optimizers, random_batch, training_step
from unpaired.environment import has_fast_bf16
from unpaired.methods.base import Method, OptimiserConfig
from unpaired.ops.winograd import direct_convolutions

Resolved = Literal["32", "bf16-mixed"]

_BUDGET = 10.0  # seconds
_WORTH_IT = 0.9  # of float32's time: a gain below a tenth is no reason to round more coarsely
_MOST_PAIRS = 5


class Choice(NamedTuple):
    """A precision and the line that tells why."""

    precision: Resolved
    line: str


def autocast_for(precision: str, device: torch.device) -> Callable[[], AbstractContextManager[object]]:
    """Opens the context in which networks run in a resolved precision; each call makes a new one."""
    if precision == "32":
        return nullcontext
    return lambda: torch.autocast(device.type, torch.bfloat16)


def half_layout(precision: str, device: torch.device) -> torch.memory_format:
    """How maps lie in memory: channels last for half precision on the CPU, whose convolutions want them so."""
    half_on_cpu = precision != "32" and device.type == "cpu"
    return torch.channels_last if half_on_cpu else torch.contiguous_format


def choose_precision(device: torch.device, ratio: Callable[[], float]) -> Choice:
    """What ``--precision auto`` means on a device.

    Args:
        device: Where the run trains.
        ratio: Measures the time of a bf16 step as a share of that of a float32 step; called only on a CPU with
            instructions for bf16.
    """
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported():
            return Choice("bf16-mixed", "Precision: bf16-mixed (this GPU supports it)")
        return Choice("32", "Precision: 32 (this GPU has no bf16)")
    if device.type != "cpu":
        return Choice("32", f"Precision: 32 (auto does not choose bf16 on '{device.type}')")
    if not has_fast_bf16():
        return Choice("32", "Precision: 32 (this processor has neither AMX nor AVX512-BF16)")
    share = ratio()
    if share < _WORTH_IT:
        return Choice("bf16-mixed", f"Precision: bf16-mixed (a step takes {share:.2f} of the time of float32 here)")
    return Choice("32", f"Precision: 32 (a bf16 step would take {share:.2f} of the time of float32 here)")


def step_time_ratio(
    method: Method,
    optimiser: OptimiserConfig,
    channels: int,
    crop_size: tuple[int, int],
    *,
    batch_size: int = 1,
    fast_convolutions: bool = True,
    budget: float = _BUDGET,
) -> float:
    """Time of a bf16 training step on the CPU as a share of a float32 step's.

    Copies of the method take both steps in turns, on crops that grow by doubling up to the run's own as long as the
    next pair fits into the budget; the median over the pairs of the largest ones counts. The method and the states of
    the generators are left as they are.

    Args:
        method: Prepared, on the CPU.
        optimiser: Its settings.
        channels: Of the images.
        crop_size: Height and width, in pixels.
        batch_size: Images of a step.
        fast_convolutions: Whether float32 takes them.
        budget: Seconds, in all.
    """
    ends = time.perf_counter() + budget
    generator = torch.Generator().manual_seed(0)
    convolutions = nullcontext() if fast_convolutions else direct_convolutions()
    with torch.random.fork_rng(devices=[]), convolutions:
        steps = {"bf16-mixed": _Steps(method, optimiser, "bf16-mixed"), "32": _Steps(method, optimiser, "32")}

        def pair(height: int, width: int) -> dict[str, float]:
            shape = (2, batch_size, channels, height, width)
            source, target = torch.rand(shape, generator=generator) * 2 - 1
            return {name: take(source, target) for name, take in steps.items()}

        size, *larger = _growing(crop_size, method.smallest_image)
        pair(*size)  # warms up
        taken = [pair(*size)]
        for crop in larger:
            growth = crop[0] * crop[1] / (size[0] * size[1])
            if growth * sum(taken[-1].values()) > ends - time.perf_counter():
                break
            size, taken = crop, [pair(*crop)]
        while len(taken) < _MOST_PAIRS and sum(taken[-1].values()) < ends - time.perf_counter():
            taken.append(pair(*size))
    return median(seconds["bf16-mixed"] / seconds["32"] for seconds in taken)


def _growing(crop_size: tuple[int, int], smallest: int) -> list[tuple[int, int]]:
    """The crop and its halves, in multiples of 4, as long as the method takes them; the smallest first."""
    found = [crop_size]
    while True:
        height, width = (-(-side // 8) * 4 for side in found[0])
        if min(height, width) < max(smallest, 32) or (height, width) == found[0]:
            return found
        found.insert(0, (height, width))


class _Steps:
    """Takes training steps of a copy of a method in one precision; returns the seconds of each."""

    def __init__(self, method: Method, optimiser: OptimiserConfig, precision: Resolved) -> None:
        device = torch.device("cpu")
        self._layout = half_layout(precision, device)
        self._method: Any = copy.deepcopy(method).to(memory_format=self._layout)
        self._optimizers = make_optimizers(self._method, optimiser)
        self._autocast = autocast_for(precision, device)
        self._taken = 0

    def __call__(self, source: torch.Tensor, target: torch.Tensor) -> float:
        maps = (images.contiguous(memory_format=self._layout) for images in (source, target))
        images = replace(random_batch(self._method, *maps), number=self._taken)
        started = time.perf_counter()
        training_step(self._method, self._optimizers, images, number=self._taken, autocast=self._autocast)
        self._taken += 1
        return time.perf_counter() - started
