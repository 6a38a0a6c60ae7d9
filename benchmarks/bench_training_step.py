"""One training step of QS-Attn beside the published schedule: time, share of the peak, memory, losses and gradients.

    python benchmarks/bench_training_step.py --image-size 256 --threads 2 --out benchmarks/results/NAME
    python benchmarks/bench_training_step.py --device cuda --out benchmarks/results/NAME

On the CPU the ways take turns, and ``over_published`` is the median of the ratios of neighbours in time; on a GPU each
is compiled, recorded and timed by itself. Losses and gradients are compared on one batch with equal weights and our
selection, also with float64. Peak memory is over the weights; on the CPU in a process of its own. The share is of the
matrix product's peak in the way's dtype, and counts direct convolutions, so that the fast algorithm can exceed 1.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch import Tensor

from measure import Record, alone, gemm_tflops, gflop, in_turns, peak_gib, products
from published_step import published_optimizers, published_step
from unpaired.engine.acceleration import RecordedSteps, compile_networks
from unpaired.engine.step import make_optimizers, settle_optimizers, training_step
from unpaired.methods import ImageBatch, image_seeds
from unpaired.methods.base import derive_seeds
from unpaired.methods.contrast import pooled
from unpaired.methods.qs_attn import QSAttn, QSAttnConfig
from unpaired.ops import query_selected_attention
from unpaired.ops.winograd import direct_convolutions

PAPER_IMAGES = 533_600
"""The paper's horse2zebra recipe: 400 epochs of 1,334 images."""


@dataclass(frozen=True)
class Way:
    """One way to take the step."""

    published: bool = False
    direct: bool = False
    tf32: bool = False
    bf16: bool = False
    channels_last: bool = False
    compiled: bool = False
    graph: bool = False
    backend: str | None = None


BF16 = Way(tf32=True, bf16=True)
FAST = replace(BF16, compiled=True, graph=True)
CPU_WAYS = {"published": Way(published=True), "ours": Way(), "ours, direct": Way(direct=True)}
GPU_WAYS = {
    "published": Way(published=True),
    "published, TF32": Way(published=True, tf32=True),
    "published, bf16": replace(BF16, published=True),
    "ours": Way(),
    "ours, TF32": Way(tf32=True),
    "ours, bf16": BF16,
    "ours, bf16, triton": replace(BF16, backend="triton"),
    "ours, bf16, channels last": replace(BF16, channels_last=True),
    "ours, bf16, compiled": replace(BF16, compiled=True),
    "ours, bf16, graph": replace(BF16, graph=True),
    "ours, bf16, compiled, graph": FAST,
    "ours, bf16, compiled, graph, triton": replace(FAST, backend="triton"),
    "ours, bf16, compiled, graph, triton, channels last": replace(FAST, backend="triton", channels_last=True),
}


@dataclass(frozen=True)
class Options:
    """What to measure."""

    out: Path
    """Name of the result files, without suffix."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where."""
    attention: Literal["global", "local", "local_global"] = "global"
    """The paper's mode; all else is the paper's default."""
    image_size: int = 256
    """Side of the images, pixels."""
    rounds: int = 5
    """Timed steps of each way."""
    threads: int = 2
    """CPU threads."""
    every: bool = False
    """All ways of a GPU on the CPU, too; those that need a GPU fail."""
    tiny: bool = False
    """Tiny networks, to see that it runs."""

    def method(self, way: Way) -> QSAttn:
        """QS-Attn as in the paper, always with the same weights."""
        small: dict[str, Any] = {"base_channels": 4, "blocks": 5, "num_queries": 16} if self.tiny else {}
        torch.manual_seed(0)
        method = QSAttn(QSAttnConfig(attention=self.attention, similarity="dot", backend=way.backend, **small))
        return method.to(self.device, memory_format=self.layout(way))

    def batch(self, way: Way) -> ImageBatch:
        """Smooth random images, the same in every process."""
        generator, side = torch.Generator().manual_seed(0), self.image_size
        coarse = torch.rand(2, 3, side // 16, side // 16, generator=generator) * 2 - 1
        images = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(-1, 1)
        pair = (x[None].to(self.device).contiguous(memory_format=self.layout(way)) for x in images)
        return ImageBatch(*pair, image_seeds(0, [0]))

    def layout(self, way: Way) -> torch.memory_format:
        return torch.channels_last if way.channels_last else torch.contiguous_format

    def step(self, way: Way) -> Callable[[], dict[str, Tensor]]:
        """The step as a function without arguments."""
        method, batch = self.method(way), self.batch(way)

        def autocast() -> Any:
            return torch.autocast(self.device, torch.bfloat16) if way.bf16 else nullcontext()

        if way.compiled:
            compile_networks(method)
        if way.published:
            networks = published_optimizers(method)
            inner = lambda: published_step(method, networks, batch, autocast=autocast())  # noqa: E731
        else:
            optimizers = make_optimizers(method, method.config.optimiser)
            inner = lambda: training_step(method, optimizers, batch, autocast=autocast)  # noqa: E731
            if way.graph:
                settle_optimizers(optimizers, recorded=True)
                recorded = RecordedSteps(method, optimizers, autocast)
                inner = lambda: recorded(batch, number=0)  # noqa: E731

        def step() -> dict[str, Tensor]:
            with products(way.tf32), direct_convolutions() if way.direct else nullcontext():
                return inner()

        return step


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


def gradients(way: Way, method: QSAttn, batch: ImageBatch, indices: list[list[Tensor]]) -> dict[str, Tensor]:
    """Losses, and the gradient of each network as one float64 vector, after one step of a copy of ``method``.

    Learning rates are 0, so that both phases see the same weights. ``indices`` are given to the published schedule.
    """
    method = copy.deepcopy(method)
    optimizers = published_optimizers(method) if way.published else make_optimizers(method, method.config.optimiser)
    for optimizer in optimizers.values():
        optimizer.param_groups[0]["lr"] = 0.0
    with direct_convolutions() if way.direct else nullcontext():
        terms = (published_step(method, optimizers, batch, indices=indices) if way.published
                 else training_step(method, optimizers, batch))  # fmt: skip
    found = {"losses": torch.stack([terms[key].detach().double() for key in sorted(terms)])}
    for network in ("generator", "discriminator", "projector"):
        given = [p.grad.flatten().double() for p in getattr(method, network).parameters() if p.grad is not None]
        found[f"{network} gradient"] = torch.cat(given)
    return found


def compare(options: Options, record: Record) -> None:
    """Relative differences (in norm) of losses and gradients: each way against float64, and ours against published."""
    method, batch = options.method(Way()), options.batch(Way())
    indices = our_selection(method, batch)
    found = {name: gradients(way, method, batch, indices) for name, way in CPU_WAYS.items()}
    wide = ImageBatch(batch.source.double(), batch.target.double(), batch.seeds)
    exact = gradients(Way(published=True), copy.deepcopy(method).double(), wide, indices)
    pairs = {f"{name} - float64": (each, exact) for name, each in found.items()}
    pairs |= {f"{name} - published": (found[name], found["published"]) for name in list(found)[1:]}
    for title, (a, b) in pairs.items():
        record.add("relative differences", what=title,
                   **{key: float((a[key] - b[key]).norm() / b[key].norm()) for key in exact})  # fmt: skip


def waits(step: Callable[[], object]) -> bool:
    """Whether the host waited for the GPU within one step."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    except RuntimeError as error:
        if "synchroniz" not in str(error).lower():
            raise
        return True
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return False


def memory(options: Options, way: Way) -> float:
    step = options.step(way)
    return peak_gib(lambda: [step() for _ in range(2)], options.device)


def main() -> None:
    """Measure and report."""
    options, cpu = tyro.cli(Options), torch.device("cpu")
    torch.set_num_threads(options.threads)
    on_cpu = options.device == cpu.type
    record = Record(options.out, f"A training step of QS-Attn ({options.attention}), {options.image_size} px, batch 1",
                    device=options.device)  # fmt: skip
    if on_cpu:
        compare(options, record)
    size = 256 if options.tiny else 2048 if on_cpu else 8192
    peaks = {bf16: gemm_tflops(torch.bfloat16 if bf16 else torch.float32, size, options.device)
             for bf16 in (False, True)}  # fmt: skip
    ways = CPU_WAYS if on_cpu and not options.every else GPU_WAYS
    plain = gflop(options.step(Way(backend="blocked")))  # whose products are counted
    published = None
    for group in [list(ways)] if on_cpu else [[name] for name in ways]:
        torch._dynamo.reset()
        steps: dict[str, Callable[[], dict[str, Tensor]]] = {}
        for name in group:
            try:  # a way that fails must not cost the others
                step = options.step(ways[name])
                for _ in range(2 if on_cpu else 6):  # sets up, compiles, records
                    step()
                steps[name] = step
            except Exception as error:
                record.add("failed", way=name, error=f"{type(error).__name__}: {error}"[:300])
        times = in_turns(steps, options.rounds if on_cpu else 4 * options.rounds, device=options.device)
        published = times.get("published", published)
        for name, step in steps.items():
            seconds = times[name].row()["seconds"]
            own = gflop(options.step(ways[name])) if ways[name].published and on_cpu else plain
            record.add(
                "steps", way=name, **times[name].row(), images_per_second=1 / seconds,
                over_published=published and 1 / times[name].ratio(published),
                share_of_peak=own / 1e3 / seconds / peaks[ways[name].bf16],
                peak_gib=alone(memory, options, ways[name]) if on_cpu else peak_gib(step, options.device),
                host_waits=None if on_cpu else waits(step), hours_for_the_paper=PAPER_IMAGES * seconds / 3600,
            )  # fmt: skip
    record.add("machine", float32_tflops=peaks[False], bf16_tflops=peaks[True], plain_gflop=plain)


if __name__ == "__main__":
    main()
