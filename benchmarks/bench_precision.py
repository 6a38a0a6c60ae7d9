"""Training steps and translations on the CPU in float32 and in bf16, side by side, and the published step beside them.

    python benchmarks/bench_precision.py --out benchmarks/results/precision_cpu_202611

QS-Attn Global at its published size, batch 1, equal weights and images, all kinds in turns. Times are CPU seconds of
the process (one thread: what other work takes is not in them, what it costs the caches is); a ratio is the median over
neighbours in time. The processor's features say what bf16 can be here (AMX, AVX512-BF16, neither).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
import tyro

from published_step import published_optimizers, published_step
from unpaired.engine.step import make_optimizers, training_step
from unpaired.environment import environment, freed_memory_kept
from unpaired.inference import Translator
from unpaired.methods import ImageBatch, image_seeds
from unpaired.methods.qs_attn import QSAttn, QSAttnConfig

FEATURES = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")


def main(
    out: Path,
    image_size: int = 256,
    repeats: int = 5,
    threads: int = 1,
    published: bool = True,
    translated: tuple[int, ...] = (256, 512),
) -> None:
    """Measure and write OUT.json.

    Args:
        out: Name of the result file, without suffix.
        image_size: Side of the training images, in pixels.
        repeats: Measured steps of each kind, after one that warms up.
        threads: CPU threads.
        published: Measure the published formulation of the step, too.
        translated: Sides of images that are translated, in pixels; none leaves that out.
    """
    torch.set_num_threads(threads)
    source, target = torch.rand(2, 1, 3, image_size, image_size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    steps: dict[str, Callable[[], object]] = {each: _steps(each, source, target) for each in ("32", "bf16-mixed")}
    if published:
        steps["published"] = _published(source, target)
    with freed_memory_kept():  # as in `unpaired train`
        measured = _in_turns(steps, repeats)
    result: dict[str, Any] = {"threads": threads, "step": {"image_size": image_size, **measured}}
    for side in translated:
        image = source.new_empty(3, side, side).uniform_(-1, 1, generator=torch.Generator().manual_seed(2))
        runs = {each: _translation(each, image) for each in ("32", "bf16-mixed")}
        result[f"translation_{side}"] = _in_turns(runs, repeats)
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    result |= {
        "processor_features": [feature for feature in FEATURES if f" {feature}" in flags],
        "load_average": os.getloadavg(),
        "environment": environment(),
    }
    out.with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")
    shown = {
        key: value["bf16_ratio_to"]
        for key, value in result.items()
        if isinstance(value, dict) and "cpu_seconds" in value
    }
    print(json.dumps(shown | {"load_average": result["load_average"]}))


def _in_turns(kinds: dict[str, Callable[[], object]], repeats: int) -> dict[str, Any]:
    """CPU seconds of each kind, and of bf16 as shares of the others'."""
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(repeats + 1):
        for kind, run in kinds.items():
            started = time.process_time()
            run()
            seconds[kind].append(time.process_time() - started)
    measured = {kind: times[1:] for kind, times in seconds.items()}
    shares = {
        kind: median(half / other for half, other in zip(measured["bf16-mixed"], times, strict=True))
        for kind, times in measured.items()
        if kind != "bf16-mixed"
    }
    return {
        "cpu_seconds": measured,
        "median_cpu_seconds": {kind: median(times) for kind, times in measured.items()},
        "bf16_ratio_to": shares,
    }


def _translation(precision: Literal["32", "bf16-mixed"], image: torch.Tensor) -> Callable[[], object]:
    torch.manual_seed(0)
    config = QSAttnConfig()
    plain = {"channels": 3, "dtype": "uint8"}
    description = {"model": {}, "channels": 3, "source": plain, "target": plain, "image_size": 256}
    translator = Translator(QSAttn(config), description, precision="32" if precision == "32" else "bf16")
    return lambda: translator.translate(image)


def _published(source: torch.Tensor, target: torch.Tensor) -> Callable[[], object]:
    torch.manual_seed(0)
    method = QSAttn(QSAttnConfig())
    optimizers = published_optimizers(method)
    batch = ImageBatch(source, target, image_seeds(0, [0]))
    return lambda: published_step(method, optimizers, batch)


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
