"""Cost of a training step of every method at its published size: time, FLOPs, peak memory, parameters.

    python benchmarks/bench_methods.py --out benchmarks/results/methods_cpu_202611

Each measurement is a process of its own; rounds go through all methods in turn, so that load meets all of them alike.
Batch 1 (SinCUT: crops of 64 pixels, batch 2), random images, two domains (three where a method knows several). FSeSim
and LSeSim look through VGG16 with random weights: the arithmetic is the same.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import torch
import tyro

from measure import Record, alone, gflop, in_turns, peak_gib, untrained
from unpaired.engine.step import make_optimizers, random_batch, training_step
from unpaired.methods import METHODS


def measure(name: str, side: int, steps: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Costs of one method, in this process."""
    method = untrained(name, **settings)
    method.prepare()
    optimizers = make_optimizers(method, method.config.optimiser)  # type: ignore[attr-defined]
    count, side = method.smallest_batch, METHODS[name].data_defaults.get("image_size", side)
    images = random_batch(method, *(torch.rand(2, count, 3, side, side) * 2 - 1))

    def step() -> None:
        training_step(method, optimizers, images)

    peak = peak_gib(step)
    times = in_turns({name: step}, steps)[name]
    served = sum(p.numel() for network in method.served_networks().values() for p in network.parameters())
    return {
        "method": name,
        "seconds_per_image": times.row()["seconds"] / count,
        "cpu_seconds_per_image": times.row()["cpu_seconds"] / count,
        "gflop_per_image": gflop(step) / count,
        "peak_gib": peak,
        "parameters_M": sum(p.numel() for p in method.parameters()) / 1e6,
        "served_M": served / 1e6,
    }


def main(
    out: Path, image_size: int = 256, steps: int = 2, rounds: int = 3, threads: int = 2, methods: tuple[str, ...] = (),
    tiny: bool = False,
) -> None:  # fmt: skip
    """Measure and write OUT.json and OUT.md.

    Args:
        out: Name of the result files, without suffix.
        image_size: Side of the images, in pixels.
        steps: Timed steps of each process.
        rounds: Processes of each method.
        threads: CPU threads.
        methods: Only these; unset means all.
        tiny: Tiny networks, to see that it runs.
    """
    torch.set_num_threads(threads)
    settings = {"base_channels": 4, "blocks": 5, "num_queries": 16} if tiny else {}
    record = Record(out, f"A training step of every method, {image_size} px", rounds=rounds, steps=steps)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in methods or METHODS}
    for _ in range(rounds):
        for name, rows in found.items():
            own = settings | ({"num_queries": 4} if name == "sincut" and tiny else {})
            rows.append(alone(measure, name, image_size, steps, own))
    medians = [
        {key: value if isinstance(value, str) else statistics.median(row[key] for row in rows)
         for key, value in rows[0].items()} for rows in found.values()
    ]  # fmt: skip
    base = next((row for row in medians if row["method"] == "cut"), medians[0])
    for row in medians:
        record.add("steps", **row, time_over_cut=row["seconds_per_image"] / base["seconds_per_image"])


if __name__ == "__main__":
    tyro.cli(main)
