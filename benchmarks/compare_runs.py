"""Score several runs on one held-out set; write a Markdown table, JSON, and a PNG grid with one column per run.

    python benchmarks/compare_runs.py --data DATA --out OUT --runs CUT=RUN1 QS-Attn=RUN2

Writes OUT.md, OUT.json and OUT.png. Averaged and last weights stand side by side; nothing is chosen on the test set.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro

from unpaired.config import load_yaml
from unpaired.data import find_test_images, tensor_to_image
from unpaired.environment import environment
from unpaired.errors import DataError
from unpaired.evaluation import INPUT, evaluate
from unpaired.inference import Translator
from unpaired.reports import image_grid, png_bytes


@dataclass(frozen=True)
class Options:
    """What to compare."""

    data: Path
    """Folder with testA and testB."""
    out: Path
    """Prefix of the files written."""
    runs: tuple[str, ...]
    """NAME=RUN, one column each, in this order."""
    direction: Literal["AtoB", "BtoA"] = "AtoB"
    """Which domain is the source."""
    rows: int = 10
    """Examples in the grid, evenly spaced by name."""


def _record(run: Path) -> dict[str, object]:
    """Settings of a run and where it was trained."""
    sessions = (run / "sessions.jsonl").read_text().splitlines()
    return {
        "settings": load_yaml(run / "run.yaml"),
        "first_session": json.loads(sessions[0]),
        "sessions": len(sessions),
    }


def main() -> None:
    """Evaluate, write, print."""
    options = tyro.cli(Options)
    files = find_test_images(options.data)
    if files is None:
        raise DataError(f"{options.data} has no testA and testB")
    files = files.swapped() if options.direction == "BtoA" else files
    translators = {}
    for entry in options.runs:
        name, _, run = entry.partition("=")
        for weights in ("ema", "last"):
            translators[f"{name}, {weights}"] = Translator.from_pretrained(run, weights=weights, device="cpu")
    found = evaluate(translators, files)

    first = found.scores[INPUT]
    lines = ["| | " + " | ".join(score.full_name for score in first.values()) + " |", "|---" * (len(first) + 1) + "|"]
    for row, scores in found.scores.items():
        lines.append(f"| {row} | " + " | ".join(f"{score.value:.3f}" for score in scores.values()) + " |")
    table = "\n".join(lines) + "\n"
    print(table)
    options.out.with_suffix(".md").write_text(table)
    record = {
        "runs": {entry.partition("=")[0]: _record(Path(entry.partition("=")[2])) for entry in options.runs},
        "scores": {
            row: {s.full_name: {k: v for k, v in asdict(s).items() if k != "per_image"} for s in scores.values()}
            for row, scores in found.scores.items()
        },
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg(),
        "environment": environment(),
    }
    options.out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")

    chosen = [i * len(found.sources) // options.rows for i in range(options.rows)]
    columns = {"input": [tensor_to_image(found.sources[i]) for i in chosen]}
    for name, images in found.translations.items():
        if name.endswith("ema"):
            columns[name.removesuffix(", ema")] = [tensor_to_image(images[i]) for i in chosen]
    if found.truths:
        columns["truth"] = [tensor_to_image(found.truths[i]) for i in chosen]
    options.out.with_suffix(".png").write_bytes(png_bytes(image_grid(columns, cell=96)))


if __name__ == "__main__":
    main()
