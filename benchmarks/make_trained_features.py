"""Features of a trained generator, and of the same at initialisation, for the exactness tests of query selection.

    python benchmarks/make_trained_features.py --run runs/similarities/runs/dot-drawings-seed1

Writes tests/ops/trained_features.safetensors: four maps of 24 x 24, two embedded drawings at 96 px. The numbers are
rounded to bfloat16, so that float32 and float64 see the same features. The run is that of the matrix
``similarities_64px.yaml``: the former demo's recipe, 3,300 images, raw dot products.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
import tyro
from PIL import Image
from safetensors.torch import save_file

from unpaired import Translator
from unpaired.data import embedded_dataset, image_to_tensor, read_image
from unpaired.methods import METHODS

MAPS = (("trained", "block1", "abacus"), ("trained", "block5", "test-tube"), ("trained", "block5", "performing-arts"),
        ("initial", "block5", "abacus"))  # fmt: skip
"""Whose encoder, which tap, which drawing."""


@torch.no_grad()
def main(run: Path, out: Path = Path("tests/ops/trained_features.safetensors"), side: int = 96) -> None:
    """Encode the drawings, enlarged to ``side`` pixels, with the encoder of ``run`` and write ``out``."""
    trained = Translator.from_pretrained(run, device="cpu").method
    torch.manual_seed(0)
    encoders = {"trained": trained, "initial": METHODS["qs_attn"](trained.config).eval()}
    drawings = {path.stem: path for path in embedded_dataset("fluent").validation.source}
    features = {}
    for whose, tap, drawing in MAPS:
        picture = read_image(drawings[drawing])
        enlarged = image_to_tensor(picture.resize((side, side), Image.Resampling.BICUBIC))[None]
        features[f"{whose} {tap} {drawing}"] = encoders[whose].encode(enlarged, [tap])[0].bfloat16().contiguous()
    save_file(features, out, {"run.yaml": (run / "run.yaml").read_text(), "pixels": json.dumps(side)})
    for name, each in features.items():
        print(f"{name}: {tuple(each.shape)}, largest squared norm {each.double().square().sum(1).max():.1f}")


if __name__ == "__main__":
    tyro.cli(main)
