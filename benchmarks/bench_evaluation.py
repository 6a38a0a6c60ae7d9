"""Time and memory of scoring: KID (Lite0) and SWD with intervals of so many made images against as many real ones.

    python benchmarks/bench_evaluation.py --images ../shared/data/cityscapes/trainB \
        --real ../shared/data/cityscapes/testB --counts 500 --out benchmarks/results/evaluation_cpu2_202611

Real photos stand for the made ones: what is timed does not depend on what they show. Each count runs in a process of
its own, twice with one cache of features: the second time only the made images pass through the network.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
import tyro

from measure import Record, alone, in_turns, peak_gib
from unpaired.data import DataConfig, UnpairedFiles, list_images
from unpaired.evaluation import Evaluator, FeatureCache, ScoringNetworks

NAMES = ("kid_lite0_x1e3", "swd_progan_x1e3")


def measure(images: Path, real: Path, count: int, side: int) -> dict[str, Any]:
    """Score ``count`` images with an empty cache, then with the one that the first time left; fewer are repeated."""
    data = DataConfig(image_size=side, load_size=side)
    made, others = (tuple((count // len(paths) + 1) * paths)[:count] for paths in map(list_images, (images, real)))
    scores: dict[str, Any] = {}

    def score() -> None:
        networks = ScoringNetworks(cache=FeatureCache(Path(folder) / "features"))
        evaluator = Evaluator(UnpairedFiles(made, others), data, networks, names=NAMES, paired="no")
        found = evaluator.score(evaluator.sources.images, "made images")
        scores.update({name: (each.value, each.interval) for name, each in found.items()})

    with tempfile.TemporaryDirectory() as folder:
        times: list[dict[str, Any]] = []

        def both() -> None:
            times.extend(in_turns({"": score}, 1, warm_up=0)[""].row() for _ in range(2))

        peak = peak_gib(both)
    return {"images": f"{count} + {count}", "seconds": times[0]["seconds"], "cpu_seconds": times[0]["cpu_seconds"],
            "seconds_real_cached": times[1]["seconds"], "peak_gib": peak, **scores}  # fmt: skip


def main(images: Path, real: Path, out: Path, counts: tuple[int, ...] = (500,), image_size: int = 256,
         threads: int = 2) -> None:  # fmt: skip
    """Measure and write OUT.json and OUT.md.

    Args:
        images: Folder of images in the place of made ones.
        real: Folder of real images.
        out: Name of the result files, without suffix.
        counts: Images in each set.
        image_size: Side in pixels.
        threads: CPU threads.
    """
    torch.set_num_threads(threads)
    record = Record(out, f"Scoring at {image_size} px: KID (Lite0) and SWD with intervals")
    for count in counts:
        record.add("scoring", **alone(measure, images, real, count, image_size))


if __name__ == "__main__":
    tyro.cli(main)
