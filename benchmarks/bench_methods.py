"""Cost of a training step of every method at its published size: images/s, FLOPs, peak memory, parameters.

    python benchmarks/bench_methods.py --out benchmarks/results/methods_cpu_202611

Each measurement is a process of its own, so that peak memory is that method's; rounds go through all methods in turn,
so that load on the machine meets all of them alike, and times are medians over the rounds' steps. Ratios are to CUT.
FLOPs are counted by torch's ``FlopCounterMode`` with direct convolutions; batch 1 (SinCUT: crops of 64 pixels, batch
2), random images, two domains (three where a method knows several). FSeSim and LSeSim look through VGG16 with random
weights where its file is not at hand: the arithmetic is the same.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import tyro

REFERENCE = "cut"


def measure(name: str, image_size: int, steps: int, threads: int, device: str) -> dict[str, Any]:
    """Costs of one method, in this process."""
    import time

    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from unpaired.engine.step import make_optimizers, random_batch, training_step
    from unpaired.methods import METHODS
    from unpaired.ops.winograd import direct_convolutions

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    config = METHODS[name].Config
    settings: dict[str, Any] = {}
    if "domains" in config.__dataclass_fields__:
        settings["domains"] = ("a", "b", "c")
    if "feature_network" in config.__dataclass_fields__:
        settings["feature_network"] = "vgg16_untrained"
    method = METHODS[name](config(**settings)).to(device)
    method.prepare()
    optimizers = make_optimizers(method, method.config.optimiser)  # type: ignore[attr-defined]
    count, side = method.smallest_batch, METHODS[name].data_defaults.get("image_size", image_size)
    source, target = torch.rand(2, count, 3, side, side, device=device) * 2 - 1
    images = random_batch(method, source, target)
    seconds = []
    for number in range(steps + 1):  # the first one warms up
        started = time.perf_counter()
        training_step(method, optimizers, images, number=number)
        if device != "cpu":
            torch.cuda.synchronize()
        seconds.append((time.perf_counter() - started) / count)
    peak = _peak_gib(device)
    with FlopCounterMode(display=False) as counter, direct_convolutions():
        training_step(method, optimizers, images)
    served = sum(p.numel() for network in method.served_networks().values() for p in network.parameters())
    return {
        "method": name,
        "title": method.title,
        "seconds": seconds[1:],
        "gflop": counter.get_total_flops() / count / 1e9,
        "peak_memory_gib": peak,
        "parameters": sum(p.numel() for p in method.parameters()),
        "served_parameters": served,
    }


def _peak_gib(device: str) -> float:
    import resource

    import torch

    if device != "cpu":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main(
    out: Path,
    image_size: int = 256,
    steps: int = 2,
    rounds: int = 3,
    threads: int = 2,
    device: str = "cpu",
    methods: tuple[str, ...] = (),
    one: str = "",
) -> None:
    """Measure every method and write OUT.json and OUT.md.

    Args:
        out: Name of the result files, without suffix.
        image_size: Side of the images, in pixels.
        steps: Measured steps of each process.
        rounds: Processes of each method.
        threads: CPU threads.
        device: cpu or cuda.
        methods: Only these; unset means all.
        one: Only this method, in this process; prints JSON.
    """
    if one:
        print(json.dumps(measure(one, image_size, steps, threads, device)))
        return
    from unpaired.environment import environment
    from unpaired.methods import METHODS

    names = methods or tuple(METHODS)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    load = [os.getloadavg()[0]]
    for _ in range(rounds):
        for name in names:  # all methods in turn
            command = [sys.executable, __file__, "--out", str(out), "--one", name, "--image-size", str(image_size)]
            command += ["--steps", str(steps), "--threads", str(threads), "--device", device]
            result = subprocess.run(command, check=True, capture_output=True, text=True)
            found[name].append(json.loads(result.stdout.splitlines()[-1]))
            print(name, [round(x, 2) for x in found[name][-1]["seconds"]], flush=True)
        load.append(os.getloadavg()[0])
    rows = []
    for each in found.values():
        seconds = median(x for one_round in each for x in one_round["seconds"])
        peak = max(one_round["peak_memory_gib"] for one_round in each)
        rows.append({**each[0], "seconds": seconds, "images_per_second": 1 / seconds, "peak_memory_gib": peak})
    facts = {
        "image_size": image_size, "threads": threads, "device": device, "rounds": rounds, "steps": steps,
        "load_average": load, "environment": environment(),
    }  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n")
    out.with_suffix(".md").write_text(_markdown(rows, facts))


def _markdown(rows: list[dict[str, Any]], facts: dict[str, Any]) -> str:
    by_name = {row["method"]: row for row in rows}
    base = by_name.get(REFERENCE, rows[0])
    lines = [
        f"Training step at {facts['image_size']} px, batch 1, {facts['device']}, {facts['threads']} threads, medians "
        f"of {facts['rounds']} processes x {facts['steps']} steps; load average {facts['load_average'][0]:.1f} to "
        f"{max(facts['load_average']):.1f}; torch {facts['environment']['versions']['torch']}.",
        f"Ratios in brackets are to {base['title']}.",
        "",
        "| method | seconds per image | images/s | GFLOP per image | peak memory, GiB | parameters, M | served, M |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        times = {key: row[key] / base[key] for key in ("seconds", "gflop", "peak_memory_gib", "parameters")}
        lines.append(
            f"| {row['title']} (`{row['method']}`) | {row['seconds']:.2f} ({times['seconds']:.2f}x) "
            f"| {row['images_per_second']:.3f} | {row['gflop']:,.0f} ({times['gflop']:.2f}x) "
            f"| {row['peak_memory_gib']:.2f} ({times['peak_memory_gib']:.2f}x) "
            f"| {row['parameters'] / 1e6:.1f} ({times['parameters']:.2f}x) | {row['served_parameters'] / 1e6:.1f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    tyro.cli(main)
