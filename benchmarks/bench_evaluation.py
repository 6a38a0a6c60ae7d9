"""Time and memory of scoring: KID (Lite0) and SWD of so many made images against as many real ones, on the CPU.

    python benchmarks/bench_evaluation.py --images ../shared/data/cityscapes/trainB \
        --real ../shared/data/cityscapes/testB --counts 500 --out benchmarks/results/evaluation_cpu2_202611

Real photos stand for the made ones: what is timed does not depend on what they show. Each count runs in a process of
its own, twice with one cache of features: the second time only the made images pass through the network. Reading,
features, values and 95 % intervals are all in. Writes OUT.md and OUT.json.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from unpaired.data import DataConfig, UnpairedFiles, list_images
from unpaired.environment import environment
from unpaired.evaluation import Evaluator, FeatureCache, ScoringNetworks

NAMES = ("kid_lite0_x1e3", "swd_progan_x1e3")


@dataclass(frozen=True)
class Options:
    """What to measure."""

    images: Path
    """Folder of images in the place of made ones; where it holds too few they are taken again."""
    real: Path
    """Folder of real images."""
    out: Path
    """Prefix of the files written."""
    counts: tuple[int, ...] = (500,)
    """Images in each set."""
    image_size: int = 256
    """Side in pixels."""
    threads: int = 2
    """CPU threads."""
    one: int = 0
    """Only this count, in this process."""


def repeated(paths: list[Path], count: int) -> tuple[Path, ...]:
    return tuple(paths[i % len(paths)] for i in range(count))


def measure(options: Options) -> dict[str, Any]:
    """Time one count, first with an empty cache, then with the one that the first time left."""
    data = DataConfig(image_size=options.image_size, load_size=options.image_size)
    made = repeated(list_images(options.images), options.one)
    real = repeated(list_images(options.real), options.one)
    found: dict[str, Any] = {"images": options.one}
    with tempfile.TemporaryDirectory() as folder:
        for time_of in ("first", "again"):
            cache = FeatureCache(Path(folder) / "features")
            started, stages = time.perf_counter(), dict[str, float]()
            before = ["", started]

            def progress(stage: str, done: int, total: int, stages: Any = stages, before: Any = before) -> None:
                if stage != before[0]:
                    stages[before[0]] = stages.get(before[0], 0.0) + time.perf_counter() - before[1]
                    before[:] = [stage, time.perf_counter()]

            networks, files = ScoringNetworks(cache=cache), UnpairedFiles(made, real)
            evaluator = Evaluator(files, data, networks, names=NAMES, paired="no", progress=progress)
            scores = evaluator.score(evaluator.sources.images, "made images")
            progress("end", 0, 0)
            found[time_of] = {
                "seconds": time.perf_counter() - started,
                "stages": {stage: seconds for stage, seconds in stages.items() if stage},
                "scores": {name: (score.value, score.interval) for name, score in scores.items()},
            }
    found["peak_memory_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return found


def main() -> None:
    """Measure each count in a process of its own; write and print."""
    options = tyro.cli(Options)
    torch.set_num_threads(options.threads)
    if options.one:
        print(json.dumps(measure(options)))
        return
    load, rows = os.getloadavg(), []
    for count in options.counts:
        command = [sys.executable, __file__, *sys.argv[1:], "--one", str(count)]
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append(json.loads(answer.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    lines = [
        f"# Scoring at {options.image_size} px: KID (Lite0) and SWD with intervals, {options.threads} threads",
        "",
        f"Load average at the start {load[0]:.1f}.",
        "",
        "| images | first | again, real features cached | peak memory |",
        "|---|---|---|---|",
    ]
    for row in rows:
        first, again = (row[key]["seconds"] for key in ("first", "again"))
        memory = f"{row['peak_memory_gib']:.2f} GiB"
        lines.append(f"| {row['images']} + {row['images']} | {first:.0f} s | {again:.0f} s | {memory} |")
    text = "\n".join(lines) + "\n"
    print(text)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".md").write_text(text)
    facts = {"rows": rows, "threads": options.threads, "load_average": load, "environment": environment()}
    options.out.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
