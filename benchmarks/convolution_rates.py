"""How fast this processor convolves at the sizes of the paper's networks: bf16, float32, and Winograd's algorithm.

    python benchmarks/convolution_rates.py --out benchmarks/results/convolution_rates_202611

Least CPU seconds of five, one thread; rates count the operations of the direct algorithm, 2 B O I r^2 H W, once for
each of output, gradient of the input and gradient of the filters.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import tyro

from measure import Record
from unpaired.ops.winograd import conv2d

SHAPES = ((256, 256, 66, 3), (64, 128, 258, 3), (128, 256, 130, 3), (256, 128, 130, 3), (128, 64, 258, 3),
          (3, 64, 262, 7), (64, 3, 262, 7))  # fmt: skip
"""Channels of input and output, side of the padded input in pixels, taps."""


def main(out: Path, repeats: int = 5) -> None:
    """Measure and write OUT.json and OUT.md."""
    torch.set_num_threads(1)
    record = Record(out, "Rates of convolutions, GFLOP/s")
    for channels, made, side, taps in SHAPES:
        x, filters = torch.randn(1, channels, side, side), torch.randn(made, channels, taps, taps)
        operations = 2 * made * channels * taps**2 * (side - taps + 1) ** 2 / 1e9
        half, few = (each.bfloat16().contiguous(memory_format=torch.channels_last) for each in (x, filters))
        gradient = torch.randn_like(F.conv2d(half, few))

        def backward(*wanted: bool, with_: Any = (gradient, half, few)) -> Any:
            options = (None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [*wanted, False])
            return torch.ops.aten.convolution_backward(*with_, *options)

        kinds: dict[str, tuple[int, Callable[[], Any]]] = {
            "bf16 forward": (1, lambda half=half, few=few: F.conv2d(half, few)),
            "bf16 backward": (2, lambda backward=backward: backward(True, True)),
            "float32 direct": (1, lambda x=x, filters=filters: F.conv2d(x, filters)),
            "float32 as trained": (1, lambda x=x, filters=filters: conv2d(x, filters, None, 0, "zeros")),
        }
        rates = {name: round(count * operations / _least(run, repeats)) for name, (count, run) in kinds.items()}
        record.add("one image", shape=f"{channels} -> {made}, {side} px, {taps} x {taps}", **rates)


def _least(run: Callable[[], Any], repeats: int) -> float:
    run()
    taken = []
    for _ in range(repeats):
        started = time.process_time()
        run()
        taken.append(time.process_time() - started)
    return min(taken)


if __name__ == "__main__":
    tyro.cli(main)
