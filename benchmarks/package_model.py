"""Make a trained run into a model of the package: averaged weights in float16, description, card.

python benchmarks/package_model.py ../long_runs/drawings_model drawings --card CARD.md
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated

import torch
import tyro
from safetensors.torch import load_file, save_file

from unpaired.config import load_yaml
from unpaired.inference.packaged import MODELS

KEPT = ("format", "method", "model", "channels", "source", "target", "image_size", "background", "unpaired_version",
        "images_seen")  # fmt: skip


def main(run: Annotated[Path, tyro.conf.Positional], name: Annotated[str, tyro.conf.Positional], card: Path,
         out: Path = MODELS) -> None:  # fmt: skip
    """Write ``OUT/NAME`` (src/unpaired/models) from a run folder and a Markdown file that says what it is."""
    folder = out / name
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
