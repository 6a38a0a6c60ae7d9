"""Exported generators on the CPU: ONNX Runtime against eager PyTorch, side by side in one process.

    python benchmarks/bench_export.py --out benchmarks/results/export_cpu1_202611 --threads 1

Per size, medians over rounds that take every contender in turn:

- ``eager, plain``: PyTorch with its own convolutions, what any PyTorch network of this kind takes;
- ``eager, ours``: what ``Translator`` runs, with the package's Winograd convolutions (unpaired.ops.winograd);
- ``onnx, cpu`` and ``onnx, any``: the two targets of ``unpaired export``;
- ``torch program``: the .pt2 file, loaded.

``share of peak`` is the multiplications of the plain convolutions (two operations each) per second over those of a
1024 x 1024 matrix product of PyTorch, in the same rounds; Winograd needs fewer, so it may exceed 1.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
import tyro
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from unpaired.config import to_dict
from unpaired.data import PixelFormat
from unpaired.environment import environment
from unpaired.inference.export import OnnxGenerator, write_generator
from unpaired.methods import METHODS, Method
from unpaired.ops.winograd import direct_convolutions

PRODUCT = 1024


def method_of(name: str, base_channels: int, blocks: int) -> Method:
    """Networks with random weights: time does not depend on them."""
    torch.manual_seed(0)
    known = METHODS[name].Config.__dataclass_fields__
    wanted = {"base_channels": base_channels, "blocks": blocks, "domains": ("a", "b", "c")}
    config = METHODS[name].Config(**{key: value for key, value in wanted.items() if key in known})
    return METHODS[name](config, channels=3).eval().requires_grad_(False)


def contenders(method: Method, folder: Path, name: str) -> tuple[dict[str, Callable[[Tensor], Tensor]], dict[str, Any]]:
    """What translates (B, C, H, W), by name, and what was written."""
    description = {"method": name, "channels": 3, "image_size": 256, "background": [255] * 3, "model": {}}
    formats = PixelFormat(3), PixelFormat(3)
    description |= {"source": to_dict(formats[0]), "target": to_dict(formats[1])}
    written, runs = dict[str, Any](), dict[str, Callable[[Tensor], Tensor]]()
    for label, options in {
        "onnx, cpu": {"target": "cpu"}, "onnx, any": {"target": "any"},
        "onnx, cpu, float16": {"precision": "float16"}, "torch program": {"format": "torch"},
    }.items():  # fmt: skip
        path = folder / f"{label}{'.pt2' if 'torch' in label else '.onnx'}"
        started = time.perf_counter()
        done = write_generator(method, description, formats, path, **options)  # type: ignore[arg-type]
        written[label] = {
            "seconds": time.perf_counter() - started, "megabytes": path.stat().st_size / 1e6,
            "difference": done.difference, "rounding": done.rounding,
        }  # fmt: skip
        if "float16" not in label:
            runs[label] = torch.export.load(path).module() if "torch" in label else OnnxGenerator(path).translate

    def plain(x_BCHW: Tensor) -> Tensor:
        with direct_convolutions():
            return method.translate(x_BCHW)

    return {"eager, plain": plain, "eager, ours": method.translate, **runs}, written


def operations(method: Method, x_BCHW: Tensor) -> int:
    """Multiplications and additions of the plain convolutions."""
    with FlopCounterMode(display=False) as counter, direct_convolutions():
        method.translate(x_BCHW)
    return counter.get_total_flops()


def timed(functions: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each, taken in turn after one call to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    for _ in range(rounds):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - started)
    return {name: median(each) for name, each in seconds.items()}


def peak_gib() -> float:
    """Most memory that this process has had."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**20


def memory_of(path: Path, side: int) -> float:
    """Peak memory of one translation in this process beyond what was taken before, GiB."""
    generator = OnnxGenerator(path)
    x = torch.rand(1, 3, side, side) * 2 - 1
    before = peak_gib()
    generator.translate(x)
    return peak_gib() - before


@torch.no_grad()
def main(
    out: Path,
    sizes: tuple[int, ...] = (256, 512),
    method: str = "qs_attn",
    base_channels: int = 64,
    blocks: int = 9,
    threads: int = 1,
    rounds: int = 7,
    memory_side: int = 1024,
    memory_file: Path | None = None,
) -> None:
    """Measure and write OUT.json and OUT.md.

    Args:
        out: Name of the result files, without suffix.
        sizes: Sides of the square images, in pixels.
        method: Which networks.
        base_channels: Their width.
        blocks: Their residual blocks.
        threads: CPU threads of PyTorch and of ONNX Runtime.
        rounds: Of all contenders.
        memory_side: Side of the image whose peak memory is measured, each file in a process of its own.
        memory_file: Only this file's memory, in this process; prints a number.
    """
    torch.set_num_threads(threads)
    if memory_file is not None:
        print(memory_of(memory_file, memory_side))
        return
    networks, load = method_of(method, base_channels, blocks), [os.getloadavg()[0]]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        runs, written = contenders(networks, Path(folder), method)
        for label in ("onnx, cpu", "onnx, any"):
            command = [sys.executable, __file__, f"--out={out}", f"--memory-file={folder}/{label}.onnx"]
            command += [f"--threads={threads}", f"--memory-side={memory_side}"]
            answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            written[label]["memory_gib"] = float(answer.stdout.splitlines()[-1])
        matrix = torch.rand(PRODUCT, PRODUCT)
        for side in sizes:
            x = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(side)) * 2 - 1
            functions: dict[str, Callable[[], Any]] = {"product": lambda: matrix @ matrix}
            functions |= {name: lambda run=run, x=x: run(x) for name, run in runs.items()}
            seconds = timed(functions, rounds)
            peak = 2 * PRODUCT**3 / seconds.pop("product")
            wanted, count = runs["eager, plain"](x), operations(networks, x)
            for name, each in seconds.items():
                rows.append({
                    "side": side, "contender": name, "seconds": each, "over_plain": seconds["eager, plain"] / each,
                    "over_ours": seconds["eager, ours"] / each, "share_of_peak": count / each / peak,
                    "difference": float((runs[name](x) - wanted).abs().max()),
                })  # fmt: skip
                print(rows[-1], flush=True)
            load.append(os.getloadavg()[0])
    facts = {
        "method": method, "base_channels": base_channels, "blocks": blocks, "threads": threads, "rounds": rounds,
        "memory_side": memory_side, "load_average": load, "written": written, "environment": environment(),
    }  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n")
    out.with_suffix(".md").write_text(report(facts, rows))


def report(facts: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """The results as a page."""
    lines = [
        f"# Export: {facts['method']}, base {facts['base_channels']}, {facts['blocks']} blocks",
        "",
        f"{facts['threads']} thread(s), medians of {facts['rounds']} rounds, load average at most "
        f"{max(facts['load_average']):.1f}.",
        "",
        "| side | | milliseconds | over eager plain | over eager ours | share of peak | difference |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {row['side']} | {row['contender']} | {1000 * row['seconds']:.0f} | {row['over_plain']:.2f} | "
            f"{row['over_ours']:.2f} | {row['share_of_peak']:.2f} | {row['difference']:.1e} |"
            for row in rows
        ),
        "",
        f"| file | seconds to write | MB | largest difference | by rounding | peak at {facts['memory_side']} px, GiB |",
        "|---|---|---|---|---|---|",
        *(
            f"| {name} | {each['seconds']:.0f} | {each['megabytes']:.1f} | {each['difference']:.1e} | "
            f"{each['rounding']:.1e} | {each.get('memory_gib', float('nan')):.2f} |"
            for name, each in facts["written"].items()
        ),
        "",
    ]
    return "\n".join(lines).replace("nan", "-")


if __name__ == "__main__":
    tyro.cli(main)
