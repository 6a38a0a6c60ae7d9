"""Floors and ceilings of the scores on whole test sets: untranslated inputs, real against real, true photos.

    python benchmarks/score_test_sets.py --data ../shared/data --out benchmarks/results/test_sets_202611 \
        --network espnet=../shared/weights/espnet_p_2_q_8.pth

For each set: the untranslated source images against the target images (what a translator has to beat), as many real
training images against the same targets (what it can hope for), and, where sources are Cityscapes label maps, what the
segmenter makes of the true photos. Writes OUT.md and OUT.json.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

import mobilenet_judge
from unpaired.cli.evaluate import number
from unpaired.data import DataConfig, embedded_dataset, find_test_images, list_images
from unpaired.environment import environment
from unpaired.errors import DataError
from unpaired.evaluation import METRICS, Evaluator, FeatureCache, Score, ScoringNetworks, evenly_spaced


@dataclass(frozen=True)
class TestSet:
    """One set and how it is read."""

    folder: Path
    swapped: bool
    image_size: int


@dataclass(frozen=True)
class Options:
    """What to score."""

    data: Path
    """Folder that holds emoji, horse2zebra and cityscapes."""
    out: Path
    """Prefix of the files written."""
    sets: tuple[str, ...] = ("drawings", "emoji", "horse2zebra", "cityscapes")
    """Which of the four."""
    network: tuple[str, ...] = ()
    """Files of further networks as NAME=PATH."""
    threads: int = 2
    """CPU threads."""


def main() -> None:
    """Score, write, print."""
    options = tyro.cli(Options)
    mobilenet_judge.register()
    torch.set_num_threads(options.threads)
    load = os.getloadavg()
    sets = {
        "drawings": TestSet(embedded_dataset("fluent").root, True, 64),
        "emoji": TestSet(options.data / "emoji", False, 64),
        "horse2zebra": TestSet(options.data / "horse2zebra", False, 256),
        "cityscapes": TestSet(options.data / "cityscapes", False, 256),
    }
    weights = {name: Path(path) for name, _, path in (entry.partition("=") for entry in options.network)}
    record: dict[str, Any] = {"threads": options.threads, "load_average": load, "environment": environment()}
    lines: list[str] = []
    for name in options.sets:
        test_set, started = sets[name], time.perf_counter()
        files = find_test_images(test_set.folder)
        if files is None:
            raise DataError(f"{test_set.folder} has no testA and testB")
        files = files.swapped() if test_set.swapped else files
        data = DataConfig(image_size=test_set.image_size, load_size=test_set.image_size)
        evaluator = Evaluator(files, data, ScoringNetworks(weights, cache=FeatureCache(None)))
        further = list_images(test_set.folder / ("trainA" if test_set.swapped else "trainB"))
        rows: dict[str, dict[str, Score]] = {"input (untranslated)": evaluator.score_inputs()}
        real = evaluator.read(evenly_spaced(further, len(files.source)), "further real images")
        rows["real against real"] = evaluator.score_set(real, "real against real")
        if truth := evaluator.score_truths():
            rows["true photos"] = truth
        minutes = (time.perf_counter() - started) / 60
        record[name] = {
            row: {score.full_name: score.plain() for score in scores.values()} for row, scores in rows.items()
        }
        record[name]["minutes"] = minutes
        record[name]["networks"] = evaluator.networks.used()
        lines += [
            "",
            f"## {name}, {test_set.image_size} px",
            "",
            f"| score | {' | '.join(rows)} |",
            "|---" * (len(rows) + 1) + "|",
        ]
        for metric in METRICS:
            found = [scores.get(metric) for scores in rows.values()]
            if any(found):
                full = next(score.full_name for score in found if score)
                cells = ["" if score is None else _cell(score) for score in found]
                lines.append(f"| `{full}` | {' | '.join(cells)} |")
        print("\n".join(lines[-25:]), f"\n{name}: {minutes:.1f} minutes", flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".md").write_text("# Floors and ceilings of the test sets\n" + "\n".join(lines) + "\n")
    options.out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")


def _cell(score: Score) -> str:
    interval = "" if score.interval is None else f" ({number(score.interval[0])} to {number(score.interval[1])})"
    return number(score.value) + interval


if __name__ == "__main__":
    main()
