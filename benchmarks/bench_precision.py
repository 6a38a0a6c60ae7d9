"""A training step on the CPU in float32 and in bf16, side by side.

    python benchmarks/bench_precision.py --out benchmarks/results/precision_cpu_202611

QS-Attn Global at its published size, batch 1, equal weights and images, the steps of both in turns. Times are CPU
seconds of the process (one thread: what other work takes is not in them, what it costs the caches is); the ratio is the
median over neighbours in time. The processor's features say what bf16 can be here (AMX, AVX512-BF16, neither).
"""

from __future__ import annotations

import json
import os
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
import tyro

from unpaired.engine.step import make_optimizers, training_step
from unpaired.environment import environment
from unpaired.methods import ImageBatch, image_seeds
from unpaired.methods.qs_attn import QSAttn, QSAttnConfig

FEATURES = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")


def main(out: Path, image_size: int = 256, repeats: int = 5, threads: int = 1) -> None:
    """Measure and write OUT.json.

    Args:
        out: Name of the result file, without suffix.
        image_size: Side of the images, in pixels.
        repeats: Measured steps of each kind, after one that warms up.
        threads: CPU threads.
    """
    torch.set_num_threads(threads)
    source, target = torch.rand(2, 1, 3, image_size, image_size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    steps = {precision: _steps(precision, source, target) for precision in ("32", "bf16-mixed")}
    seconds: dict[str, list[float]] = {precision: [] for precision in steps}
    for _ in range(repeats + 1):
        for precision, step in steps.items():
            started = time.process_time()
            step()
            seconds[precision].append(time.process_time() - started)
    pairs = list(zip(seconds["bf16-mixed"][1:], seconds["32"][1:], strict=True))
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    result = {
        "image_size": image_size,
        "threads": threads,
        "cpu_seconds": {precision: times[1:] for precision, times in seconds.items()},
        "median_cpu_seconds": {precision: median(times[1:]) for precision, times in seconds.items()},
        "ratio_bf16_to_float32": median(half / single for half, single in pairs),
        "processor_features": [feature for feature in FEATURES if f" {feature}" in flags],
        "load_average": os.getloadavg(),
        "environment": environment(),
    }
    out.with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({key: result[key] for key in ("median_cpu_seconds", "ratio_bf16_to_float32", "load_average")}))


def _steps(precision: Literal["32", "bf16-mixed"], source: torch.Tensor, target: torch.Tensor) -> Any:
    """A function that takes one training step as ``unpaired train`` takes it in this precision on the CPU."""
    torch.manual_seed(0)
    method = QSAttn(QSAttnConfig())
    layout = torch.contiguous_format if precision == "32" else torch.channels_last
    method.to(memory_format=layout)
    batch = ImageBatch(source.to(memory_format=layout), target.to(memory_format=layout), image_seeds(0, [0]))
    optimizers = make_optimizers(method, method.config.optimiser)

    def autocast() -> AbstractContextManager[object]:
        return nullcontext() if precision == "32" else torch.autocast("cpu", torch.bfloat16)

    return lambda: training_step(method, optimizers, batch, autocast=autocast)


if __name__ == "__main__":
    tyro.cli(main)
