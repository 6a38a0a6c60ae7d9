"""One training step of QS-Attn beside the published schedule, in one run: time, memory, losses and gradients.

    python benchmarks/bench_training_step.py --image-size 256 --repeats 5 --threads 2 --out benchmarks/results/NAME

Three steps take turns, and the ratios are of steps that ran one after the other: ``ours``; ``ours, direct``, the same
with the library's convolutions; and ``published`` (``published_step.py``). Losses and gradients are compared on one
batch with equal weights and our selection, also with float64. Peak memory is that of a process of its own per step.
Writes NAME.json and NAME.md.
"""

from __future__ import annotations

import copy
import datetime
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from published_step import published_optimizers, published_step
from unpaired.engine.step import make_optimizers, training_step
from unpaired.methods import ImageBatch, image_seeds
from unpaired.methods.base import derive_seeds
from unpaired.methods.contrast import pooled
from unpaired.methods.qs_attn import QSAttn, QSAttnConfig
from unpaired.ops import query_selected_attention
from unpaired.ops.winograd import direct_convolutions

NAMES = ("ours", "ours, direct", "published")


@dataclass(frozen=True)
class Options:
    """What to measure."""

    attention: Literal["global", "local", "local_global"] = "global"
    """The paper's mode; all else is the paper's default."""
    image_size: int = 256
    """Side of the images, pixels."""
    repeats: int = 5
    """Timed rounds of the three steps; medians are reported."""
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


def make_step(name: str, method: QSAttn, batch: ImageBatch) -> Callable[[], dict[str, Tensor]]:
    """The step of that name as a function without arguments."""
    if name == "published":
        networks = published_optimizers(method)
        return lambda: published_step(method, networks, batch)
    optimizers = make_optimizers(method, method.config.optimiser)

    def step() -> dict[str, Tensor]:
        with direct_convolutions() if name == "ours, direct" else nullcontext():
            return training_step(method, optimizers, batch)

    return step


def make_batch(image_size: int) -> ImageBatch:
    """Smooth random images, the same in every process."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, 3, image_size // 16, image_size // 16, generator=generator) * 2 - 1
    source, target = torch.nn.functional.interpolate(coarse, size=(image_size, image_size), mode="bicubic").clamp(-1, 1)
    return ImageBatch(source[None], target[None], image_seeds(0, [0]))


def our_selection(method: QSAttn, batch: ImageBatch) -> list[list[Tensor]]:
    """Per term and tap, the positions that ours takes."""
    with torch.no_grad():
        outputs = method.forward_train(batch)
        taken = []
        for number, tap in enumerate(method.config.taps):
            options = method.selection(tap) | {"random_seeds": derive_seeds(outputs.seeds, number)}
            features = pooled(outputs.source_features[number], options.pop("pool_to", None))
            taken.append(query_selected_attention(features, [], method.config.num_queries, **options).indices)
    return [[indices[i : i + 1] for indices in taken] for i in range(2)]


def gradients(name: str, method: QSAttn, batch: ImageBatch, indices: list[list[Tensor]]) -> dict[str, Tensor]:
    """Losses, and the gradient of each network as one float64 vector, after one step of a copy of ``method``.

    Learning rates are 0, so that both phases see the same weights. ``indices`` are given to the published schedule.
    """
    method = copy.deepcopy(method)
    published = name.startswith("published")
    optimizers = published_optimizers(method) if published else make_optimizers(method, method.config.optimiser)
    for optimizer in optimizers.values():
        optimizer.param_groups[0]["lr"] = 0.0
    if published:
        terms = published_step(method, optimizers, batch, indices=indices)
    else:
        with direct_convolutions() if name == "ours, direct" else nullcontext():
            terms = training_step(method, optimizers, batch)
    found = {"losses": torch.stack([terms[key].detach().double() for key in sorted(terms)])}
    for network in ("generator", "discriminator", "projector"):
        given = [p.grad.flatten().double() for p in getattr(method, network).parameters() if p.grad is not None]
        found[f"{network} gradient"] = torch.cat(given)
    return found


def differences(method: QSAttn, batch: ImageBatch) -> dict[str, dict[str, float]]:
    """Relative differences (in norm) of losses and gradients: each step against float64, and ours against published."""
    indices = our_selection(method, batch)
    found = {name: gradients(name, method, batch, indices) for name in NAMES}
    wide = ImageBatch(batch.source.double(), batch.target.double(), batch.seeds)
    exact = gradients("published in float64", copy.deepcopy(method).double(), wide, indices)
    pairs = {f"{name} - float64": (found[name], exact) for name in NAMES}
    pairs |= {f"{name} - published": (found[name], found["published"]) for name in NAMES[:2]}
    return {
        title: {key: float(f"{float((a[key] - b[key]).norm() / b[key].norm()):.2e}") for key in exact}
        for title, (a, b) in pairs.items()
    }


def peak_memory_gib(name: str, options: Options) -> float:
    """Growth of the peak resident memory over two steps, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_grown, (name, options))


def _grown(name: str, options: Options) -> float:
    torch.set_num_threads(options.threads)
    step = make_step(name, make_method(options), make_batch(options.image_size))
    before = _high_water_gib()
    for _ in range(2):
        step()
    return _high_water_gib() - before


def _high_water_gib() -> float:
    """Peak resident memory of this program (``getrusage`` would count what its parent had before it started)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**20


def make_method(options: Options) -> QSAttn:
    """QS-Attn as in the paper, always with the same weights."""
    torch.manual_seed(0)
    return QSAttn(QSAttnConfig(attention=options.attention, similarity="dot"))


def main() -> None:
    """Measure and report."""
    options = tyro.cli(Options)
    torch.set_num_threads(options.threads)
    batch = make_batch(options.image_size)
    difference = differences(make_method(options), batch)
    steps = {name: make_step(name, make_method(options), batch) for name in NAMES}
    gflop = {}
    for name, step in steps.items():  # also the warm-up
        with FlopCounterMode(display=False) as counter:
            step()
        gflop[name] = counter.get_total_flops() / 1e9
    seconds: dict[str, list[float]] = {name: [] for name in NAMES}
    peaks = [gemm_peak_gflops()]
    for _ in range(options.repeats):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - started)
        peaks.append(gemm_peak_gflops(repeats=3))
    steps.clear()
    peak = max(peaks)
    rows: dict[str, dict[str, Any]] = {}
    for name in NAMES:
        pairs = zip(seconds[name], seconds["published"], strict=True)
        median = statistics.median(seconds[name])
        # Shares count the multiplications of the plain convolutions, so that the fast algorithm can exceed 1.
        plain = gflop["ours, direct"] if name == "ours" else gflop[name]
        rows[name] = {
            "step_seconds_median": round(median, 3),
            "step_seconds": [round(s, 3) for s in seconds[name]],
            "time_over_published": round(statistics.median(a / b for a, b in pairs), 3),
            "gflop_executed": round(gflop[name], 1),
            "executed_share_of_gemm_peak": round(gflop[name] / median / peak, 3),
            "gflop_plain": round(plain, 1),
            "plain_share_of_gemm_peak": round(plain / median / peak, 3),
            "peak_memory_gib_growth": round(peak_memory_gib(name, options), 2),
        }
    result = {
        "attention": options.attention, "image_size": options.image_size, "batch": 1, "threads": options.threads,
        "gemm_peak_gflops": round(peak, 1), "steps": rows,
        "relative_differences": difference,
        "load_average": [round(x, 2) for x in os.getloadavg()], "cpu": cpu_name(), "cores": os.cpu_count(),
        "torch": torch.__version__, "date": datetime.date.today().isoformat(),
    }  # fmt: skip
    print(json.dumps(result, indent=2))
    if options.out is not None:
        options.out.with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")
        options.out.with_suffix(".md").write_text(as_markdown(result))


def as_markdown(result: dict[str, Any]) -> str:
    """The result as a page."""
    keys = [key for key in next(iter(result["steps"].values())) if key != "step_seconds"]
    lines = [
        f"# One training step of QS-Attn ({result['attention']}) at {result['image_size']} px, float32, batch 1",
        "",
        "| | " + " | ".join(keys) + " |",
        "|---" * (len(keys) + 1) + "|",
        *(f"| {name} | " + " | ".join(str(row[k]) for k in keys) + " |" for name, row in result["steps"].items()),
        "",
        "Relative differences of one step with equal weights, batch and selection:",
        "",
        "| | " + " | ".join(next(iter(result["relative_differences"].values()))) + " |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | " + " | ".join(f"{v:.1e}" for v in row.values()) + " |"
            for name, row in result["relative_differences"].items()
        ),
        "",
        *(f"- {key}: {value}" for key, value in result.items() if key not in ("steps", "relative_differences")),
    ]
    return "\n".join(lines) + "\n"


def cpu_name() -> str:
    """The processor's name, and its widest vector instructions."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return "unknown"
    name = next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")), "?")
    return f"{name}, {'AVX-512' if 'avx512f' in text else 'AVX2' if 'avx2' in text else 'no AVX2'}"


if __name__ == "__main__":
    main()
