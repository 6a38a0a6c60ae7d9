"""Features of a trained generator, and of the same at initialisation, for the exactness tests of query selection.

    python benchmarks/make_trained_features.py --run runs/similarities/dot_seed1

Writes tests/ops/trained_features.safetensors: four maps of 24 x 24, two embedded drawings at 96 px. The numbers are
rounded to bfloat16, so that float32 and float64 see the same features. Training is by
``benchmarks/train_similarities.py``: the demo's recipe, 3,300 images, raw dot products.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
import tyro
from PIL import Image
from safetensors.torch import save_file

import unpaired
from unpaired.data import embedded_dataset, image_to_tensor, read_image
from unpaired.methods import METHODS

MAPS = (
    ("trained", "block1", "abacus"),
    ("trained", "block5", "test-tube"),
    ("trained", "block5", "performing-arts"),
    ("initial", "block5", "abacus"),
)
"""Whose encoder, which tap, which drawing."""


def main(run: Path, out: Path = Path("tests/ops/trained_features.safetensors"), side: int = 96) -> None:
    """Encode and write.

    Args:
        run: Folder of a trained run.
        out: File to write.
        side: Pixels that the drawings are enlarged to.
    """
    trained = unpaired.Translator.from_pretrained(run, device="cpu").method
    torch.manual_seed(0)
    initial = METHODS["qs_attn"](trained.config).eval()
    encoders = {"trained": trained, "initial": initial}
    drawings = {path.stem: path for path in embedded_dataset("fluent").validation.source}
    features = {}
    for whose, tap, drawing in MAPS:
        picture = read_image(drawings[drawing])
        picture = picture.resize((side, side), Image.Resampling.BICUBIC)
        with torch.no_grad():
            (encoded,) = encoders[whose].encode(image_to_tensor(picture)[None], [tap])
        features[f"{whose} {tap} {drawing}"] = encoded.bfloat16().contiguous()
    record = (run / "run.yaml").read_text()
    save_file(features, out, {"run.yaml": record, "pixels": json.dumps(side)})
    for name, each in features.items():
        norms = each.double().square().sum(1)
        print(f"{name}: {tuple(each.shape)}, squared norms {norms.min():.1f} to {norms.max():.1f}")
    print(f"{out}: {out.stat().st_size} bytes")


if __name__ == "__main__":
    tyro.cli(main)
