"""Make a trained run into a model of the package: averaged weights in float16, description, card; and score it.

    python benchmarks/package_model.py ../long_runs/drawings drawings --card CARD.md
    python benchmarks/package_model.py ../long_runs/drawings drawings --scores benchmarks/results/drawings_model_202611

The scores are those of the run (float32) on the 120 test drawings of the package.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated

import torch
import tyro
from safetensors.torch import load_file, save_file

import mobilenet_judge
from measure import Record
from unpaired.config import load_yaml
from unpaired.data import embedded_dataset
from unpaired.evaluation import evaluate_run
from unpaired.inference.packaged import MODELS

KEPT = ("format", "method", "model", "channels", "source", "target", "image_size", "background", "unpaired_version",
        "images_seen")  # fmt: skip


SCORES = ("kid_mobilenet_x1e3", "kid_lite0_x1e3", "swd_progan_x1e3", "paired_l1_pm1", "unchanged_colour_paper_de")


def main(run: Annotated[Path, tyro.conf.Positional], name: Annotated[str, tyro.conf.Positional],
         card: Path | None = None, scores: Path | None = None, out: Path = MODELS) -> None:  # fmt: skip
    """Write ``OUT/NAME`` from a run folder.

    Args:
        run: The run folder.
        name: What the model is called.
        card: Markdown file that says what it is; without one nothing is packaged.
        scores: Name of the result files, without suffix; unset: nothing is scored.
        out: Folder of the models.
    """
    if card is not None:
        package(run, out / name, card)
    if scores is not None:
        mobilenet_judge.register()
        found = evaluate_run(run, embedded_dataset("fluent", "drawing_to_colour").test, device="cpu", names=SCORES)
        record = Record(scores, f"The model '{name}' of the package, 120 test drawings")
        for row, values in found.scores.items():
            record.add("scores", weights=row, **{key: score.value for key, score in values.items()})


def package(run: Path, folder: Path, card: Path) -> None:
    """Write weights, description and card into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = load_file(run / "weights" / "ema.safetensors")
    save_file({key: value.to(torch.float16) for key, value in weights.items()}, folder / "ema.safetensors")
    found = json.loads((run / "weights" / "model.json").read_text())
    description = {key: found[key] for key in KEPT if key in found}
    description["training"] = load_yaml(run / "run.yaml")["training"]
    (folder / "model.json").write_text(json.dumps(description, indent=2) + "\n")
    shutil.copyfile(card, folder / "README.md")
    print(f"{folder}: {sum(file.stat().st_size for file in folder.iterdir()) / 1e6:.2f} MB")


if __name__ == "__main__":
    tyro.cli(main)
