"""Time and memory of query-selected attention beside the published formulation, on a CPU or a GPU.

    python benchmarks/bench_selection.py --out benchmarks/results/selection_cpu_202611
    python benchmarks/bench_selection.py --out benchmarks/results/selection_h200_202612 --device cuda

Forward + backward of source and target, N = 256. All take turns; ``faster`` is the median of the ratios of neighbours
in time to the first. Features: noise, smoothed and convolved to C channels at random, then instance-normalised, as the
taps of a generator are. Memory is the peak over the features, gradients included; on the CPU in a process of its own.
``--quick`` leaves out everything above 64 x 64.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import matplotlib.pyplot as plt
import torch
import tyro
from torch import Tensor

from measure import Record, alone, gemm_tflops, in_turns, peak_gib, products
from published_attention import published_qs_attention
from unpaired.ops import query_selected_attention
from unpaired.ops.attention import Attention, prepare
from unpaired.ops.backends import blocked

NUM_QUERIES = 256
Maps = tuple[tuple[int, int], ...]
FIVE_TAPS: Maps = ((3, 262), (128, 256), (256, 128), (256, 64), (256, 64))
"""(C, side) of the five taps for an input of 256 px."""
WORKS: dict[str, tuple[str, Maps, int]] = {
    "global 64x64": ("global", ((256, 64),), 15),
    "local 7x7 64x64": ("local", ((256, 64),), 9),
    "local+global 64x64": ("local_global", ((256, 64),), 15),
    "global 128x128": ("global", ((256, 128),), 2),
    "global, five taps of a 256 px input": ("global", FIVE_TAPS, 1),
}
"""Name -> mode, maps, timed rounds on the CPU. The published matrix of the last does not fit."""
CPU_WAYS = ("published float32", "ours float32")
GPU_WAYS = ("published float32", "published TF32", "published TF32 compiled", "blocked float32", "blocked bfloat16",
            "triton float32", "triton bfloat16")  # fmt: skip


def features(channels: int, side: int, seed: int, device: str, dtype: torch.dtype) -> Tensor:
    """(1, C, side, side) leaf. Three channels are an image in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    smooth = torch.nn.functional.avg_pool2d(torch.randn(1, 3, side + 10, side + 10, generator=generator), 5, 1)
    if channels == 3:
        made = torch.tanh(3 * smooth[:, :, 3:-3, 3:-3]).contiguous()
    else:
        convolved = torch.nn.functional.conv2d(smooth, torch.randn(channels, 3, 7, 7, generator=generator))
        made = torch.nn.functional.group_norm(convolved, channels)
    return made.to(device, dtype).requires_grad_()


def work(way: str, mode: Any, maps: Maps, device: str) -> Callable[[], None]:
    """Forward and backward of every map, one way; its first word is who, its second the precision."""
    who, precision, *compiled = way.split()
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    taps = [tuple(features(*shape, seed, device, dtype) for seed in (0, 1)) for shape in maps]

    def select(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        if who == "published":
            return published_qs_attention(source, target, NUM_QUERIES, mode)[1:]
        backend: Any = None if who == "ours" else who
        found = query_selected_attention(source, [target], NUM_QUERIES, attention=mode, backend=backend)
        return found.source, found.targets[0]

    chosen = torch.compile(select) if compiled else select

    def run() -> None:
        with products(precision == "TF32"):
            for tap in taps:
                routed = chosen(*tap)
                torch.autograd.grad([x.float().square().sum() for x in routed], tap)

    return run


def memory(way: str, mode: str, maps: Maps, device: str) -> float:
    """Peak MiB over the features of one run."""
    work(way, mode, ((16, 16),), device)()  # warms up threads, matrix product and allocator
    return 1024 * peak_gib(work(way, mode, maps, device), device)


def selection_share(side: int, channels: int, repeats: int) -> dict[str, float]:
    """Selection alone, no gradient: GFLOP/s of the half that symmetry leaves, and its share of the peak."""
    attention = Attention(side, side, False, 7, "dot", 1.0)
    tokens = prepare(features(channels, side, 0, "cpu", torch.float32).detach().flatten(2), attention)
    tile = blocked._tile_side(tokens)
    tiles = -(-side * side // tile)
    count = tiles * (tiles + 1) * tile**2 * channels
    peak = gemm_tflops()
    times = in_turns({"": lambda: blocked.significance(tokens, attention, "entropy")}, repeats)[""].row()
    rate = count / times["seconds"] / 1e9
    return {"side": side, **times, "gflop_per_second": rate, "share_of_gemm": rate / peak / 1e3}


def main(
    out: Path, device: Literal["cpu", "cuda"] = "cpu", threads: tuple[int, ...] = (1, 2), quick: bool = False,
    tiny: bool = False,
) -> None:  # fmt: skip
    """Measure and write OUT.json, OUT.md and, on the CPU, OUT.png (memory against the size of the map).

    Args:
        out: Name of the result files, without suffix.
        device: Where.
        threads: CPU threads; everything is timed at each count, memory at the last.
        quick: Only the 64 x 64 maps.
        tiny: Tiny maps, to see that it runs.
    """
    record, cpu = Record(out, f"Query selection beside the published formulation, {device}"), device == "cpu"
    for count in threads if cpu else threads[-1:]:
        torch.set_num_threads(count)
        for name, (mode, maps, rounds) in WORKS.items():
            fits = maps is not FIVE_TAPS
            if (quick and maps != ((256, 64),)) or (not fits and count != threads[-1]):
                continue
            maps = ((8, 12),) if tiny else maps
            ways, works = [way for way in (CPU_WAYS if cpu else GPU_WAYS) if fits or not way.startswith("pub")], {}
            for way in ways:
                try:  # a way that fails must not cost the others
                    works[way] = work(way, mode, maps, device)
                    works[way]()
                except Exception as error:
                    works.pop(way, None)
                    record.add("failed", work=name, way=way, error=f"{type(error).__name__}: {error}"[:300])
            times = in_turns(works, rounds if cpu else 20, device=device, warm_up=int(rounds > 2))
            for way in works:
                more = {"faster": times[way].ratio(times[ways[0]])} if fits and ways[0] in works else {}
                if count == threads[-1]:
                    measured = (way, mode, maps, device)
                    more["peak_mib"] = alone(memory, *measured) if cpu else 1024 * peak_gib(works[way], device)
                record.add("time", work=name, way=way, threads=count, **times[way].row(), **more)
        for side in () if not cpu else (12,) if tiny else (64,) if quick else (64, 128):
            record.add("selection alone", threads=count, **selection_share(side, 256, 7 if side < 128 else 2))
    if not cpu or quick:
        return
    for side in (8, 12) if tiny else (64, 96, 128, 192, 256):
        for way in CPU_WAYS if side <= 128 else CPU_WAYS[1:]:
            record.add("memory against size", side=side, way=way,
                       peak_mib=alone(memory, way, "global", ((256, side),), device))  # fmt: skip
    draw(record)


def draw(record: Record) -> None:
    """Peak memory against H * W; the published formulation leaves the picture."""
    figure, axes = plt.subplots(figsize=(7.5, 4.5))
    rows = record.tables["memory against size"]
    for way in CPU_WAYS:
        points = [(row["side"] ** 2, row["peak_mib"]) for row in rows if row["way"] == way]
        axes.plot(*zip(*points, strict=True), "o-", label=way.split()[0])
    axes.set_ylim(0, 1.3 * rows[-1]["peak_mib"])
    axes.set(xlabel="positions H x W", ylabel="MiB over the features", title="Global attention, C = 256, one step")
    axes.legend()
    figure.savefig(record.out.with_suffix(".png"), dpi=120)


if __name__ == "__main__":
    tyro.cli(main)
