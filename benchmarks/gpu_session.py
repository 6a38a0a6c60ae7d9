"""Everything that waits for a GPU, in one command: parity, selection, the whole step. Writes OUT.json and OUT.md.

    python benchmarks/gpu_session.py --out benchmarks/results/gpu_h100_202612
    python benchmarks/gpu_session.py --device cpu --quick --out /tmp/dry_run      # every line of it, without a GPU

Parts, each of which can be run alone (``--parts tests selection step``); the file is written after each, so that a
session that is cut off keeps what it has:

* ``tests``: the tests marked ``gpu`` (kernels against float64 at real sizes, torch.compile, CUDA graphs).
* ``selection``: query-selected attention, source and target, N = 256, forward + backward: the published formulation in
  float32, TF32 and compiled, and ours by backend and dtype. Time, share of the GEMM peak of its dtype, peak memory.
* ``step``: the training step at 256 px, batch 1: the published schedule in float32 eager, TF32 and bf16, and ours with
  one thing more at a time (TF32, bf16, channels last, compiled, CUDA graph, the Triton backend). Images per second,
  ratio to published float32, share of the bf16 GEMM peak, and whether any step waited for the device.

No tyro here: the machines that lend a GPU have torch and little else.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from published_attention import published_qs_attention
from published_step import published_optimizers, published_step
from unpaired.engine.acceleration import RecordedSteps, compile_networks
from unpaired.engine.step import make_optimizers, settle_optimizers, training_step
from unpaired.methods import ImageBatch, image_seeds
from unpaired.methods.qs_attn import QSAttn, QSAttnConfig
from unpaired.ops import query_selected_attention

ROOT = Path(__file__).parents[1]
RECIPE_IMAGES = 533_600
"""The paper's horse2zebra recipe: 400 epochs of 1,334 images."""
PLAIN_GFLOP_PER_STEP = 1334.3
"""Of our step at 256 px, Global; ``bench_training_step.py`` counts it."""


@dataclass(frozen=True)
class Step:
    """One way to take the training step."""

    published: bool = False
    tf32: bool = False
    bf16: bool = False
    channels_last: bool = False
    compiled: bool = False
    graph: bool = False
    backend: str | None = None


STEPS: dict[str, Step] = {
    "published, float32 eager": Step(published=True),
    "published, TF32": Step(published=True, tf32=True),
    "published, bf16-mixed": Step(published=True, tf32=True, bf16=True),
    "ours, float32 eager": Step(),
    "ours, TF32": Step(tf32=True),
    "ours, bf16-mixed": Step(tf32=True, bf16=True),
    "ours, bf16, triton": Step(tf32=True, bf16=True, backend="triton"),
    "ours, bf16, channels last": Step(tf32=True, bf16=True, channels_last=True),
    "ours, bf16, compiled": Step(tf32=True, bf16=True, compiled=True),
    "ours, bf16, graph": Step(tf32=True, bf16=True, graph=True),
    "ours, bf16, compiled, graph": Step(tf32=True, bf16=True, compiled=True, graph=True),
    "ours, bf16, compiled, graph, triton": Step(tf32=True, bf16=True, compiled=True, graph=True, backend="triton"),
    "ours, bf16, all": Step(
        tf32=True, bf16=True, channels_last=True, compiled=True, graph=True, backend="triton"
    ),
}  # fmt: skip


class Machine:
    """The device and how to time it."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.cuda = self.device.type == "cuda"

    def name(self) -> str:
        return torch.cuda.get_device_name() if self.cuda else "cpu (dry run)"

    def wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], object], repeats: int, warm_up: int = 3) -> float:
        """Median time of ``work``, each run waited for."""
        for _ in range(warm_up):
            work()
        times = []
        for _ in range(repeats):
            self.wait()
            started = time.perf_counter()
            work()
            self.wait()
            times.append(time.perf_counter() - started)
        return statistics.median(times)

    def peak_gib(self, work: Callable[[], object]) -> float | None:
        """Memory that ``work`` takes at its peak over what was there before; None without CUDA."""
        if not self.cuda:
            return None
        self.wait()
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        self.wait()
        return (torch.cuda.max_memory_allocated() - before) / 2**30

    def gemm_tflops(self, dtype: torch.dtype, size: int) -> float:
        """Matrix product of this dtype at the current precision setting."""
        a, b = torch.randn(2, size, size, device=self.device).to(dtype)
        return 2 * size**3 / self.seconds(lambda: a @ b, 20) / 1e12


@contextmanager
def products(tf32: bool) -> Iterator[None]:
    """TF32 in matrix products and convolutions, or full float32."""
    before = torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = before


def run_tests(machine: Machine, quick: bool) -> dict[str, Any]:
    """The tests that need a GPU; everything else runs in CI."""
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-m", "gpu", "tests/ops", "tests/engine"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return {"passed": answer.returncode == 0, "last_lines": answer.stdout.splitlines()[-12:]}


def run_selection(machine: Machine, quick: bool) -> dict[str, Any]:
    """Selection and routing of one tap."""
    sides, channels, repeats = ([16], 32, 2) if quick else ([64, 128], 256, 20)
    rows = {}
    for side in sides:
        for attention in ("global", "local", "local_global"):
            for name, work in _selections(machine, channels, side, attention):
                title = f"{attention}, (1, {channels}, {side}, {side}), {name}"
                rows[title] = _attempt(lambda work=work: _measured_selection(machine, work, repeats))
                print(title, rows[title], flush=True)
    return rows


def _selections(machine: Machine, channels: int, side: int, attention: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    generator = torch.Generator().manual_seed(0)
    plain = torch.randn(2, 1, channels, side, side, generator=generator).to(machine.device)

    def work(select: Callable[[Tensor, Tensor], Any], dtype: torch.dtype, tf32: bool = False) -> Callable[[], Any]:
        source, target = (x.to(dtype).requires_grad_() for x in plain)

        def run() -> None:
            with products(tf32):
                routed = select(source, target)
                torch.autograd.backward([x.float().square().mean() for x in routed])
            source.grad = target.grad = None

        return run

    def published(source: Tensor, target: Tensor) -> list[Tensor]:
        return list(published_qs_attention(source, target, 256, attention)[1:])

    def ours(backend: str) -> Callable[[Tensor, Tensor], list[Tensor]]:
        def select(source: Tensor, target: Tensor) -> list[Tensor]:
            selected = query_selected_attention(source, [target], 256, attention=attention, backend=backend)
            return [selected.source, *selected.targets]

        return select

    yield "published float32", work(published, torch.float32)
    yield "published TF32", work(published, torch.float32, tf32=True)
    yield "published TF32 compiled", work(torch.compile(published), torch.float32, tf32=True)
    for backend in ("blocked", "triton"):
        yield f"{backend} float32", work(ours(backend), torch.float32)
        yield f"{backend} bf16", work(ours(backend), torch.bfloat16)


def _measured_selection(machine: Machine, work: Callable[[], Any], repeats: int) -> dict[str, Any]:
    seconds = machine.seconds(work, repeats)
    return {"milliseconds": round(1e3 * seconds, 3), "peak_gib": _rounded(machine.peak_gib(work))}


def run_step(machine: Machine, quick: bool) -> dict[str, Any]:
    """The whole training step."""
    size, repeats = (32, 2) if quick else (256, 20)
    with products(False):
        peaks = {"float32": machine.gemm_tflops(torch.float32, 256 if quick else 8192)}
    peaks["bf16"] = machine.gemm_tflops(torch.bfloat16, 256 if quick else 8192)
    rows: dict[str, Any] = {"gemm_tflops": {key: round(value, 3) for key, value in peaks.items()}}
    first = None
    for name, step in STEPS.items():
        rows[name] = _attempt(lambda step=step: _measured_step(machine, step, size, repeats, quick))
        if "images_per_second" in rows[name]:
            first = first or rows[name]["images_per_second"]
            rate = rows[name]["images_per_second"]
            rows[name] |= {
                "over_published_float32": round(rate / first, 2),
                "hours_for_the_paper_recipe": round(RECIPE_IMAGES / rate / 3600, 2),
                "plain_share_of_bf16_peak": round(PLAIN_GFLOP_PER_STEP * rate / 1e3 / peaks["bf16"], 3),
            }
        print(name, rows[name], flush=True)
    return rows


def _measured_step(machine: Machine, step: Step, size: int, repeats: int, quick: bool) -> dict[str, Any]:
    torch.manual_seed(0)
    torch._dynamo.reset()
    small: dict[str, Any] = {"base_channels": 4, "blocks": 5, "num_queries": 16} if quick else {}
    layout = torch.channels_last if step.channels_last else torch.contiguous_format
    method = (
        QSAttn(QSAttnConfig(similarity="dot", backend=step.backend, **small))
        .to(machine.device)
        .to(memory_format=layout)
    )
    images = (torch.rand(2, 1, 3, size, size) * 2 - 1).to(machine.device)
    source, target = (x.contiguous(memory_format=layout) for x in images)
    batch = ImageBatch(source, target, image_seeds(0, [0]))

    def autocast() -> Any:
        return torch.autocast(machine.device.type, torch.bfloat16) if step.bf16 else nullcontext()

    if step.compiled:
        compile_networks(method)
    if step.published:
        networks = published_optimizers(method)

        def take(number: int) -> dict[str, Tensor]:
            return published_step(method, networks, batch, autocast=autocast())
    else:
        optimizers = make_optimizers(method, method.config.optimiser)
        if step.graph:
            if not machine.cuda:
                raise RuntimeError("a CUDA graph needs CUDA")
            settle_optimizers(optimizers, recorded=True)
            recorded = RecordedSteps(method, optimizers, autocast)

            def take(number: int) -> dict[str, Tensor]:
                return recorded(batch, number=number)
        else:

            def take(number: int) -> dict[str, Tensor]:
                return training_step(method, optimizers, batch, number=number, autocast=autocast)

    with products(step.tf32):
        for number in range(6):  # warm-up: set-up, compilation, recording
            terms = take(number)
        waits = _waits(machine, lambda: take(6))
        seconds = machine.seconds(lambda: take(7), repeats, warm_up=1)
        peak = machine.peak_gib(lambda: take(8))
    return {
        "step_milliseconds": round(1e3 * seconds, 2),
        "images_per_second": round(1 / seconds, 2),
        "peak_gib_over_weights": _rounded(peak),
        "host_waits": waits,
        "losses_after_six_steps": {name: round(value.item(), 4) for name, value in terms.items()},
    }


def _waits(machine: Machine, work: Callable[[], object]) -> bool | None:
    """Whether the host waited for the device within one step."""
    if not machine.cuda:
        return None
    torch.cuda.set_sync_debug_mode("error")
    try:
        work()
    except RuntimeError as error:
        if "synchroniz" not in str(error).lower():
            raise
        return True
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return False


def _attempt(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result, or why there is none: one variant that fails must not cost the session."""
    try:
        return work()
    except Exception as error:  # whatever it is, it is a finding
        traceback.print_exc()
        return {"failed": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


PARTS: dict[str, Callable[[Machine, bool], dict[str, Any]]] = {
    "tests": run_tests,
    "selection": run_selection,
    "step": run_step,
}


def markdown(result: dict[str, Any]) -> str:
    """The result as a page."""
    lines = [f"# GPU session: {result['device']}", "", f"torch {result['torch']}, {result['date']}", ""]
    for part in PARTS:
        found = result.get(part)
        if found is None:
            continue
        lines += [f"## {part}", ""]
        tables = {name: row for name, row in found.items() if isinstance(row, dict)}
        keys = list(dict.fromkeys(key for row in tables.values() for key in row))
        if keys:
            lines += ["| | " + " | ".join(keys) + " |", "|---" * (len(keys) + 1) + "|"]
            lines += [
                f"| {name} | " + " | ".join(str(row.get(k, "")) for k in keys) + " |" for name, row in tables.items()
            ]
        lines += [f"- {name}: {row}" for name, row in found.items() if name not in tables]
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Run the parts and write after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="prefix of the files written")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="tiny sizes: whether everything runs, not how fast")
    options = parser.parse_args()
    machine = Machine(options.device)
    result: dict[str, Any] = {
        "device": machine.name(), "torch": torch.__version__, "quick": options.quick,
        "date": datetime.date.today().isoformat(), "steps": {name: asdict(step) for name, step in STEPS.items()},
    }  # fmt: skip
    for part in options.parts:
        result[part] = PARTS[part](machine, options.quick)
        options.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
        options.out.with_suffix(".md").write_text(markdown(result))


if __name__ == "__main__":
    main()
