"""How far translations in bf16 lie from those in float32, on trained weights.

    python benchmarks/precision_difference.py RUN [RUN ...] --images FOLDER \\
        --out benchmarks/results/precision_difference_202611

Differences of the 8-bit results, in grey levels of 255: mean, 99th percentile and largest, over all images.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import tyro
from tyro.conf import Positional

from unpaired.data import list_images, read_image
from unpaired.environment import environment
from unpaired.inference import Translator


def main(runs: Positional[tuple[Path, ...]], images: Path, out: Path, count: int = 40, threads: int = 1) -> None:
    """Translate and write OUT.json.

    Args:
        runs: Run folders.
        images: Folder of inputs.
        out: Name of the result file, without suffix.
        count: How many of the inputs, evenly spaced by name.
        threads: CPU threads.
    """
    torch.set_num_threads(threads)
    paths = list_images(images)
    chosen = [paths[i * len(paths) // count] for i in range(min(count, len(paths)))]
    rows = {}
    for run in runs:
        single, half = (Translator.from_pretrained(run, device="cpu", precision=each) for each in ("32", "bf16"))
        apart = np.concatenate([_difference(single, half, path).ravel() for path in chosen])
        rows[run.name] = {
            "method": single.description["method"],
            "images_seen": single.description.get("images_seen"),
            "images": len(chosen),
            "mean": float(apart.mean()),
            "percentile_99": float(np.percentile(apart, 99)),
            "largest": int(apart.max()),
        }
        print(run.name, rows[run.name], flush=True)
    out.with_suffix(".json").write_text(json.dumps({"runs": rows, "environment": environment()}, indent=2) + "\n")


def _difference(single: Translator, half: Translator, path: Path) -> np.ndarray:
    image = read_image(path)
    if single.channels == 1:
        image = image.convert("L")
    made = [np.asarray(each.translate(image)).astype(int) for each in (single, half)]
    return np.abs(made[0] - made[1])


if __name__ == "__main__":
    tyro.cli(main)
