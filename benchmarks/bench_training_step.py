"""Time, memory and share of the GEMM peak of one training step on the CPU, beside a matrix product in the same run.

    python benchmarks/bench_training_step.py --image-size 256 --steps 7 --threads 2 --out benchmarks/results/NAME

Writes NAME.json and NAME.md. The published schedule's side-by-side re-implementation is a matter of a later issue.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import resource
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from torch.utils.flop_counter import FlopCounterMode

from unpaired.engine.step import make_optimizers, training_step
from unpaired.methods import METHODS, ImageBatch, image_seeds


@dataclass(frozen=True)
class Options:
    """What to measure."""

    method: str = "qs_attn"
    """A key of METHODS, at its default settings."""
    image_size: int = 256
    """Side of the images, pixels."""
    steps: int = 7
    """Timed steps; the median is reported."""
    threads: int = 2
    """CPU threads."""
    out: Path | None = None
    """Write <out>.json and <out>.md."""


def gemm_peak_gflops(size: int = 2048, repeats: int = 9) -> float:
    """Best float32 matrix product of this machine at the current thread count, GFLOP/s."""
    a, b = torch.randn(2, size, size)
    out = torch.empty(size, size)
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        torch.mm(a, b, out=out)
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best / 1e9


def main() -> None:
    """Measure and report."""
    options = tyro.cli(Options)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    method = METHODS[options.method](METHODS[options.method].Config())
    optimizers = make_optimizers(method, method.config.optimiser)
    source, target = torch.rand(2, 1, 3, options.image_size, options.image_size) * 2 - 1
    batch = ImageBatch(source, target, image_seeds(0, [0]))
    with FlopCounterMode(display=False) as counter:
        training_step(method, optimizers, batch)
    gflop = counter.get_total_flops() / 1e9
    seconds, peaks = [], [gemm_peak_gflops()]
    for _ in range(options.steps):
        started = time.perf_counter()
        training_step(method, optimizers, batch)
        seconds.append(time.perf_counter() - started)
        peaks.append(gemm_peak_gflops(repeats=3))
    median, peak = statistics.median(seconds), max(peaks)
    result: dict[str, Any] = {
        "method": options.method,
        "image_size": options.image_size,
        "threads": options.threads,
        "gflop_per_step": round(gflop, 1),
        "step_seconds_median": round(median, 3),
        "step_seconds": [round(s, 3) for s in seconds],
        "gemm_peak_gflops": round(peak, 1),
        "share_of_gemm_peak": round(gflop / median / peak, 3),
        "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "load_average": [round(x, 2) for x in os.getloadavg()],
        "cpu": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "date": datetime.date.today().isoformat(),
    }
    print(json.dumps(result, indent=2))
    if options.out is not None:
        options.out.with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")
        rows = "\n".join(f"| {key} | {value} |" for key, value in result.items())
        options.out.with_suffix(".md").write_text(
            f"# One training step of {options.method} at {options.image_size} px\n\n| | |\n|---|---|\n{rows}\n"
        )


if __name__ == "__main__":
    main()
