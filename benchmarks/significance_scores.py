"""Score the similarities trained by ``train_similarities.py`` and apply a rule that was written down before looking.

    python benchmarks/significance_scores.py --runs runs/similarities --out benchmarks/results/significance_scores

The 200 validation pairs of the embedded drawings (when this ran, their test pairs) are split by alternating name order:
positions 0, 2, 4, ... CHOOSE, positions 1, 3, 5, ... REPORT; all 200 are printed beside them. Writes OUT.json and
OUT.md.

The rule (25 November 2026, before any of these runs was scored). The contenders for the default are scaled, cosine_0.1
and cosine_0.03; random is CUT and stands beside them. Differences are contender minus dot, seed by seed, averaged
weights (EMA), choosing half only.

1. A contender qualifies if its mean difference over the seeds is below 0 in paired L1 and in SWD, if at least 2 of 3
   seeds agree with that in L1 and at least 2 of 3 in SWD, and if naive float32 leaves no larger share of its picks to
   the sort than of dot's (``left_to_sort`` of ``significance_study.py``, mean over encoders, taps and photos).
2. Of several, the one with the smallest sum of its relative mean differences (L1 / L1 of dot + SWD / SWD of dot).
3. If none qualifies, the paper's dot stays.

Apart from the rule, a difference is called reliable if all seeds agree in sign and the size of the mean difference
exceeds the standard deviation of the differences over the seeds. With three seeds that is weak: chance alone does it
in 21 of 100 trials, and significance at the 5 % level asks for 2.5 times the standard deviation.
"""

from __future__ import annotations

import json
import os
import statistics
from pathlib import Path
from typing import Any

import torch
import tyro

from train_similarities import CONTENDERS
from unpaired.data import UnpairedFiles, embedded_dataset
from unpaired.environment import environment
from unpaired.evaluation import evaluate
from unpaired.inference import Translator

METRICS = {"paired_l1_pm1": ("L1", 3), "paired_ssim_gauss11": ("SSIM", 3), "paired_psnr_db": ("PSNR", 2),
           "swd_progan_x1e3": ("SWD", 1)}  # fmt: skip
"""Name of a score -> column, decimals."""
RULED = ("paired_l1_pm1", "swd_progan_x1e3")
"""What the rule looks at."""


def halves(files: UnpairedFiles) -> dict[str, UnpairedFiles]:
    """The choosing half, the reporting half and all pairs, by alternating name order."""
    source = sorted(files.source, key=lambda path: path.stem)
    target = sorted(files.target, key=lambda path: path.stem)
    return {
        "choosing": UnpairedFiles(tuple(source[0::2]), tuple(target[0::2])),
        "reporting": UnpairedFiles(tuple(source[1::2]), tuple(target[1::2])),
        "all": UnpairedFiles(tuple(source), tuple(target)),
    }


def difference(ours: list[float], dots: list[float]) -> dict[str, Any]:
    """Paired differences by seed, lower scores being better."""
    each = [a - b for a, b in zip(ours, dots, strict=True)]
    mean, spread = statistics.mean(each), statistics.stdev(each)
    one_sign = all(d < 0 for d in each) or all(d > 0 for d in each)
    return {
        "by_seed": each,
        "mean": mean,
        "standard_deviation": spread,
        "seeds_below_0": sum(d < 0 for d in each),
        "reliable": one_sign and abs(mean) > spread,
        "relative": mean / statistics.mean(dots),
    }


def tie_shares(studies: tuple[Path, ...]) -> dict[str, float]:
    """``left_to_sort`` per similarity, mean over the encoders and taps of studies of photos."""
    encoders = [encoder for study in studies for encoder in json.loads(study.read_text())["encoders"].values()]
    maps = [tap["similarities"] for encoder in encoders for tap in encoder["taps"].values()]
    return {name: statistics.mean(each[name]["left_to_sort"] for each in maps) for name in maps[0]}


def verdict(differences: dict[str, Any], ties: dict[str, float]) -> dict[str, Any]:
    """Apply the rule of the docstring."""
    qualified = {}
    for name, by_metric in differences.items():
        if name == "random":
            continue
        enough = all(by_metric[m]["mean"] < 0 and by_metric[m]["seeds_below_0"] >= 2 for m in RULED)
        if enough and ties[name] <= ties["dot"]:
            qualified[name] = sum(by_metric[m]["relative"] for m in RULED)
    chosen = min(qualified, key=lambda name: qualified[name]) if qualified else "dot"
    return {"qualified": qualified, "default": chosen, "left_to_sort": ties}


def table(scores: dict[str, Any], part: str, weights: str) -> list[str]:
    """Markdown rows, mean (lowest to highest seed)."""
    columns = [word for word, _ in METRICS.values()]
    lines = [f"### {part}, {weights}", "", "| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    cells = [f"{scores[part]['input'][m]:.{digits}f}" for m, (_, digits) in METRICS.items()]
    lines.append("| untranslated input | " + " | ".join(cells) + " |")
    for name, runs in scores[part][weights].items():
        cells = []
        for m, (_, d) in METRICS.items():
            values = [run[m] for run in runs.values()]
            cells.append(f"{statistics.mean(values):.{d}f} ({min(values):.{d}f} to {max(values):.{d}f})")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def difference_table(differences: dict[str, Any]) -> list[str]:
    """Markdown: contender minus dot by seed, choosing and reporting half, averaged weights."""
    lines = ["### contender minus dot, EMA (below 0: the contender is better)", ""]
    lines += ["| | half | score | by seed | mean | standard deviation | reliable |", "|---|---|---|---|---|---|---|"]
    for part, contenders in differences.items():
        for name, by_metric in contenders.items():
            for m in RULED:
                word, d = METRICS[m]
                it = by_metric[m]
                seeds = ", ".join(f"{value:+.{d}f}" for value in it["by_seed"])
                reliable = "yes" if it["reliable"] else "no"
                lines.append(
                    f"| {name} | {part} | {word} | {seeds} | {it['mean']:+.{d}f} ({it['relative']:+.1%}) | "
                    f"{it['standard_deviation']:.{d}f} | {reliable} |"
                )
    return [*lines, ""]


def score(runs: Path, seeds: tuple[int, ...]) -> dict[str, Any]:
    """Every score of every run: half -> ``input``, ``ema``, ``last`` -> contender -> seed -> metric."""
    translators = {
        f"{weights}:{name}:{seed}": Translator.from_pretrained(
            runs / f"{name}_seed{seed}", weights=weights, device="cpu"
        )
        for weights in ("ema", "last")
        for name in CONTENDERS
        for seed in seeds
    }
    scores: dict[str, Any] = {}
    for part, files in halves(embedded_dataset("fluent").validation).items():
        found = {
            row: {m: scores[m].value for m in METRICS}
            for row, scores in evaluate(translators, files, names=list(METRICS), intervals=False).scores.items()
        }
        scores[part] = {"input": found["input"]}
        for weights in ("ema", "last"):
            scores[part][weights] = {
                name: {str(seed): found[f"{weights}:{name}:{seed}"] for seed in seeds} for name in CONTENDERS
            }
        print(part, "is scored", flush=True)
    return scores


def main(
    runs: Path,
    out: Path,
    ties: tuple[Path, ...],
    seeds: tuple[int, ...] = (0, 1, 2),
    threads: int = 1,
    judge_again: bool = False,
) -> None:
    """Score, compare, apply the rule, write.

    Args:
        runs: Folder of the run folders.
        out: Prefix of the files written.
        ties: JSON of ``significance_study.py`` on photos.
        seeds: Seeds that were trained.
        threads: CPU threads.
        judge_again: Take the scores from OUT.json instead of translating and scoring again.
    """
    torch.set_num_threads(threads)
    scores = json.loads(Path(f"{out}.json").read_text())["scores"] if judge_again else score(runs, seeds)
    differences: dict[str, Any] = {}
    for part in ("choosing", "reporting", "all"):
        of = {name: list(by_seed.values()) for name, by_seed in scores[part]["ema"].items()}
        differences[part] = {
            name: {m: difference([run[m] for run in of[name]], [run[m] for run in of["dot"]]) for m in RULED}
            for name in CONTENDERS
            if name != "dot"
        }
    chosen = verdict(differences["choosing"], tie_shares(ties))
    record = {"rule": __doc__, "verdict": chosen, "differences": differences, "scores": scores,
              "load_average": os.getloadavg(), "environment": environment()}  # fmt: skip
    Path(f"{out}.json").write_text(json.dumps(record, indent=1) + "\n")
    lines = [line for part in scores for weights in ("ema", "last") for line in table(scores, part, weights)]
    lines = [f"Default by the rule: {chosen['default']}; qualified: {', '.join(chosen['qualified']) or 'none'}.", "",
             *difference_table(differences), *lines]  # fmt: skip
    Path(f"{out}.md").write_text("\n".join(lines).rstrip() + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    tyro.cli(main)
