"""Does bf16 learn what float32 learns? Loss curves and scores of both on the embedded drawings, seed by seed.

    python benchmarks/precision_curves.py --runs RUNS --out benchmarks/results/precision_curves_202611

The demo's settings, shortened to ``images``, the same seeds in both precisions. Per pair and loss term: the difference
of the means over the last half of training, beside the spread of float32's own means over the seeds; the same for
scores of the averaged weights on held-out drawings. RUNS keeps the runs: the same command goes on where it was stopped.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
import tyro

import mobilenet_judge
from unpaired.data import embedded_dataset
from unpaired.environment import environment
from unpaired.evaluation import evaluate_run
from unpaired.recipes import demo
from unpaired.training import train

METRICS = ("kid_mobilenet_x1e3", "kid_lite0_x1e3", "swd_progan_x1e3", "paired_l1_pm1")


def main(runs: Path, out: Path, images: int = 400, seeds: tuple[int, ...] = (0, 1, 2), threads: int = 1) -> None:
    """Train, score and write OUT.json.

    Args:
        runs: Folder of the runs.
        out: Name of the result file, without suffix.
        images: Length of each run.
        seeds: At least two.
        threads: CPU threads.
    """
    torch.set_num_threads(threads)
    mobilenet_judge.register()
    found: dict[str, list[dict[str, Any]]] = {"32": [], "bf16-mixed": []}
    for seed in seeds:
        for precision in found:
            run = runs / f"{precision}-seed{seed}"
            config = demo(images, seed).in_precision(precision)  # type: ignore[arg-type]
            config = replace(config, training=replace(config.training, score_every=0, threads=threads))
            train(config, run, quiet=True)
            found[precision].append({"seed": seed, "losses": _losses(run, images), "scores": _scores(run)})
            print(precision, seed, found[precision][-1], flush=True)
    result = {
        "images": images,
        "runs": found,
        "losses": _compared(found, "losses"),
        "scores": _compared(found, "scores"),
        "environment": environment(),
    }
    out.with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")


def _losses(run: Path, images: int) -> dict[str, float]:
    """Mean of each term over the last half of training."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    late = [line["terms"] for line in lines if line["images_seen"] > images / 2]
    return {term: mean(each[term] for each in late) for term in late[0]}


def _scores(run: Path) -> dict[str, float]:
    files = embedded_dataset("fluent").test
    scores = evaluate_run(run, files, device="cpu", names=METRICS, intervals=False, real=()).scores["ema"]
    return {name: float(score.value) for name, score in scores.items()}


def _compared(found: dict[str, list[dict[str, Any]]], kind: str) -> dict[str, dict[str, float]]:
    """Per quantity: mean in both, mean difference over the pairs, and the seeds' own spread in float32."""
    rows = {}
    for name in found["32"][0][kind]:
        single, half = ([entry[kind][name] for entry in found[precision]] for precision in ("32", "bf16-mixed"))
        rows[name] = {
            "float32": mean(single),
            "bf16": mean(half),
            "mean_difference": mean(b - a for a, b in zip(single, half, strict=True)),
            "spread_of_float32_over_seeds": stdev(single),
        }
    return rows


if __name__ == "__main__":
    tyro.cli(main)
