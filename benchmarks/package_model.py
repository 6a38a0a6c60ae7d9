"""Make a trained run into a model of the package: averaged weights in float16, description, card.

python benchmarks/package_model.py ../long_runs/drawings_model drawings
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import torch
import tyro
from safetensors.torch import load_file, save_file

from unpaired.config import load_yaml
from unpaired.inference.packaged import MODELS

KEPT = ("format", "method", "model", "channels", "source", "target", "image_size", "background", "unpaired_version",
        "images_seen")  # fmt: skip


def main(run: Annotated[Path, tyro.conf.Positional], name: Annotated[str, tyro.conf.Positional], card: Path) -> None:
    """Write ``src/unpaired/models/NAME``.

    Args:
        run: The run folder.
        name: Of the model.
        card: A Markdown file that says what the model was trained on and what it scores.
    """
    out = MODELS / name
    out.mkdir(parents=True, exist_ok=True)
    weights = load_file(run / "weights" / "ema.safetensors")
    save_file({key: value.to(torch.float16) for key, value in weights.items()}, out / "ema.safetensors")
    description = json.loads((run / "weights" / "model.json").read_text())
    description = {key: description[key] for key in KEPT if key in description}
    description["training"] = load_yaml(run / "run.yaml")["training"]
    (out / "model.json").write_text(json.dumps(description, indent=2) + "\n")
    (out / "README.md").write_text(card.read_text())
    print(f"{out}: {sum(file.stat().st_size for file in out.iterdir()) / 1e6:.2f} MB")


if __name__ == "__main__":
    tyro.cli(main)
