"""Time and memory of query-selected attention beside the published formulation, in one run on one machine.

    python benchmarks/bench_selection.py --out benchmarks/results/selection_cpu_202611

Takes about eight minutes on two quiet cores and writes OUT.json, OUT.md and OUT.png (memory against the size of the
map). ``--quick`` leaves out everything above 64 x 64 and takes less than a minute.

Time: forward + backward of source and target, N = 256. Ours and the published formulation
(``published_attention.py``) take turns after one warm-up each; the speed-up is the median of the ratios of neighbours
in time, so that a machine that drifts does not decide. Features: noise, smoothed and convolved to C channels at random,
then instance-normalised, as the taps of a generator are.

Memory: a fresh process for each number. It makes the features, warms up threads, matrix product and allocator with the
same call on a 16 x 16 map, gives freed pages back (``malloc_trim``; else the run would reuse them unseen), resets the
peak of its resident set (/proc/self/clear_refs), runs once, and reports peak minus what was resident before the run:
everything over the features, the gradients of source and target included. Linux with glibc only.
"""

from __future__ import annotations

import ctypes
import datetime
import functools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch import Tensor

from bench_training_step import gemm_peak_gflops
from published_attention import published_qs_attention
from selection_report import growth_png, machine, markdown
from unpaired.ops import query_selected_attention
from unpaired.ops.attention import Attention, prepare
from unpaired.ops.backends import blocked

NUM_QUERIES = 256
FIVE_TAPS = ((3, 262), (128, 256), (256, 128), (256, 64), (256, 64))
"""(C, side) of the five taps for an input of 256 px."""
GROWTH_SIDES = (64, 96, 128, 192, 256)


@dataclass(frozen=True)
class Work:
    """One line of the table.

    Attributes:
        mode: The paper's attention mode.
        maps: (C, side) of each tap.
        pairs: Timed repeats of ours, each followed by one of the published formulation.
        with_published: Whether that runs at all; its matrix must fit the memory.
    """

    mode: Literal["global", "local", "local_global"]
    maps: tuple[tuple[int, int], ...]
    pairs: int
    with_published: bool = True


WORKS = {
    "global 64x64": Work("global", ((256, 64),), 15),
    "local 7x7 64x64": Work("local", ((256, 64),), 9),
    "local+global 64x64": Work("local_global", ((256, 64),), 15),
    "global 128x128": Work("global", ((256, 128),), 2),
    "global, five taps of a 256 px input": Work("global", FIVE_TAPS, 1, with_published=False),
}
QUICK = ("global 64x64", "local 7x7 64x64", "local+global 64x64")


@dataclass(frozen=True)
class Options:
    """What to measure."""

    out: Path | None = None
    """Write <out>.json, <out>.md and <out>.png."""
    threads: tuple[int, ...] = (1, 2)
    """CPU threads; everything is timed at each count. Memory is measured at the last."""
    quick: bool = False
    """Only the 64 x 64 maps."""
    child: str = ""
    """Used by the script itself: measure the memory of one run in this process."""


def features(channels: int, side: int, seed: int) -> Tensor:
    """(1, C, side, side) leaf. Three channels are an image in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, 3, side + 10, side + 10, generator=generator)
    smooth = torch.nn.functional.avg_pool2d(noise, 5, 1)
    if channels == 3:
        return torch.tanh(3 * smooth[:, :, 3:-3, 3:-3]).contiguous().requires_grad_()
    kernels = torch.randn(channels, 3, 7, 7, generator=generator)
    convolved = torch.nn.functional.conv2d(smooth, kernels)
    return torch.nn.functional.group_norm(convolved, channels).requires_grad_()


def ours(source: Tensor, target: Tensor, mode: Any) -> None:
    """One forward and backward of the default backend on this device."""
    selected = query_selected_attention(source, [target], NUM_QUERIES, attention=mode)
    torch.autograd.grad(selected.source.square().sum() + selected.targets[0].square().sum(), (source, target))


def published(source: Tensor, target: Tensor, mode: Any) -> None:
    """One forward and backward of the published formulation."""
    _, routed_source, routed_target = published_qs_attention(source, target, NUM_QUERIES, mode)
    torch.autograd.grad(routed_source.square().sum() + routed_target.square().sum(), (source, target))


CONTENDERS: dict[str, Callable[[Tensor, Tensor, Any], None]] = {"ours": ours, "published": published}


def seconds_of(run: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def timed(name: str, work: Work, threads: int) -> dict[str, Any]:
    """Interleaved repeats of one line at one thread count."""
    taps = [(features(*shape, seed=0), features(*shape, seed=1)) for shape in work.maps]
    contenders = [each for each in CONTENDERS if each == "ours" or work.with_published]

    def once(contender: str) -> float:
        return sum(seconds_of(functools.partial(CONTENDERS[contender], *tap, work.mode)) for tap in taps)

    if work.pairs > 2:  # the long ones warm themselves
        for contender in contenders:
            once(contender)
    seconds: dict[str, list[float]] = {contender: [] for contender in contenders}
    for _ in range(work.pairs):
        for contender in contenders:
            seconds[contender].append(once(contender))
    result: dict[str, Any] = {"work": name, "threads": threads, "load_average": os.getloadavg()[0]}
    for contender, values in seconds.items():
        result[f"{contender}_seconds"] = values
        result[f"{contender}_seconds_median"] = statistics.median(values)
    if work.with_published:
        ratios = [slow / fast for fast, slow in zip(seconds["ours"], seconds["published"], strict=True)]
        result["speed_up"] = statistics.median(ratios)
        result["speed_up_range"] = (min(ratios), max(ratios))
    return result


def anatomy(side: int, threads: int, channels: int = 256, repeats: int = 7) -> dict[str, Any]:
    """Where the time of the global selection goes: matrix products against everything else, and the machine's peak."""
    source = features(channels, side, seed=0).detach()
    attention = Attention(side, side, False, 7, "dot", 1.0)
    tokens = prepare(source.flatten(2), attention)
    positions = side * side
    tile_side = blocked._tile_side(tokens)
    tile = tokens.new_empty(1, tile_side, tile_side)
    corners = range(0, positions, tile_side)

    def products() -> None:
        for row in corners:
            for column in range(row, positions, tile_side):
                blocked._fill_tile(tile, tokens, row, column, attention)

    runs = {"products": products, "selection": lambda: blocked.significance(tokens, attention, "entropy")}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    peaks = []
    for _ in range(repeats):
        peaks.append(gemm_peak_gflops(repeats=2))
        for name, run in runs.items():
            seconds[name].append(seconds_of(run))
    tiles = len(corners) * (len(corners) + 1) // 2
    gflop = 2 * tiles * tile_side**2 * channels / 1e9
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "side": side,
        "threads": threads,
        "gemm_peak_gflops": max(peaks),
        "selection_gflop": gflop,
        "selection_gflop_without_symmetry": 2 * positions**2 * channels / 1e9,
        "selection_seconds": medians["selection"],
        "products_seconds": medians["products"],
        "selection_gflops": gflop / medians["selection"],
        "products_gflops": gflop / medians["products"],
        "nanoseconds_per_logit_outside_products": (medians["selection"] - medians["products"]) / positions**2 * 1e9,
    }


def _status_kib(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1])


def measure_memory(contender: str, mode: str, maps: list[list[int]], threads: int) -> None:
    """In the child process: print peak growth, seconds, and the size of the features."""
    torch.set_num_threads(threads)
    taps = [(features(c, side, seed=0), features(c, side, seed=1)) for c, side in maps]
    CONTENDERS[contender](features(16, 16, seed=0), features(16, 16, seed=1), mode)
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status_kib("VmRSS:")
    seconds = sum(seconds_of(functools.partial(CONTENDERS[contender], *tap, mode)) for tap in taps)
    held = sum(each.numel() * each.element_size() for tap in taps for each in tap) / 2**20
    print(json.dumps({"peak_mib": (_status_kib("VmHWM:") - before) / 1024, "seconds": seconds, "features_mib": held}))


def memory(contender: str, mode: str, maps: Any, threads: int) -> dict[str, Any]:
    """Peak memory over the features of one run, measured in a fresh process."""
    request = json.dumps([contender, mode, maps, threads])
    command = [sys.executable, __file__, "--child", request]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return {"contender": contender, **json.loads(lines[-1])}


def growth(threads: int) -> Iterator[dict[str, Any]]:
    """Peak memory of the global mode against the size of the map, C = 256."""
    for side in GROWTH_SIDES:
        for contender in ("ours", "published") if side <= 128 else ("ours",):
            yield {"side": side, **memory(contender, "global", [[256, side]], threads)}


def main() -> None:
    """Measure and report."""
    options = tyro.cli(Options)
    if options.child:
        measure_memory(*json.loads(options.child))
        return
    started = time.perf_counter()
    works = {name: work for name, work in WORKS.items() if not options.quick or name in QUICK}
    result: dict[str, Any] = {
        **machine(),
        "date": datetime.date.today().isoformat(),
        "load_average_at_start": os.getloadavg(),
        "num_queries": NUM_QUERIES,
        "works": {name: asdict(work) for name, work in works.items()},
        "times": [],
        "anatomy": [],
        "memory": [],
        "growth": [],
    }

    def note(section: str, entry: dict[str, Any]) -> None:
        result[section].append(entry)
        print(section, json.dumps(entry), flush=True)

    for threads in options.threads:
        torch.set_num_threads(threads)
        for side in (64,) if options.quick else (64, 128):
            note("anatomy", anatomy(side, threads, repeats=7 if side == 64 else 2))
        for name, work in works.items():
            if work.with_published or threads == options.threads[-1]:
                note("times", timed(name, work, threads))
    for name, work in works.items():
        for contender in CONTENDERS if work.with_published else ("ours",):
            note("memory", {"work": name, **memory(contender, work.mode, work.maps, options.threads[-1])})
    for entry in () if options.quick else growth(options.threads[-1]):
        note("growth", entry)
    result["load_average_at_end"] = os.getloadavg()
    result["minutes"] = (time.perf_counter() - started) / 60
    page = markdown(result)
    print(page)
    if options.out is not None:
        options.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
        options.out.with_suffix(".md").write_text(page)
        if result["growth"]:
            options.out.with_suffix(".png").write_bytes(growth_png(result["growth"]))


if __name__ == "__main__":
    main()
