"""Floors and ceilings of the scores on whole test sets: untranslated inputs, real against real, true photos.

    python benchmarks/score_test_sets.py --out benchmarks/results/test_sets_202611 \
        --network espnet=../shared/weights/espnet_p_2_q_8.pth

The untranslated source images against the target images are what a translator has to beat, as many real training images
against the same targets what it can hope for; where sources are Cityscapes label maps, what the segmenter makes of the
true photos is the ceiling.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import tyro

import mobilenet_judge
from measure import SHARED, Record
from unpaired.data import DataConfig, UnpairedFiles, embedded_dataset, find_test_images, list_images
from unpaired.evaluation import Evaluator, FeatureCache, Score, ScoringNetworks, evenly_spaced

SETS: dict[str, tuple[bool, int]] = {
    "drawings": (True, 64), "emoji": (False, 64), "horse2zebra": (False, 256), "cityscapes": (False, 256),
}  # fmt: skip
"""Name -> whether it is read from B to A, and the side in pixels."""


def main(out: Path, sets: tuple[str, ...] = tuple(SETS), network: tuple[str, ...] = (), threads: int = 2,
         most: int | None = None) -> None:  # fmt: skip
    """Score and write OUT.json and OUT.md.

    Args:
        out: Name of the result files, without suffix.
        sets: Which of the four.
        network: Files of further networks as NAME=PATH.
        threads: CPU threads.
        most: Test images of the source, and their partners or as many of the target; unset takes all.
    """
    mobilenet_judge.register()
    torch.set_num_threads(threads)
    weights = {name: Path(path) for name, _, path in (entry.partition("=") for entry in network)}
    record = Record(out, "Floors and ceilings of the test sets")
    for name in sets:
        swapped, side = SETS[name]
        folder = embedded_dataset("fluent").root if name == "drawings" else SHARED / name
        files = find_test_images(folder)
        assert files is not None, f"{folder} has no testA and testB"
        files = files.swapped() if swapped else files
        if most is not None:
            stems = {path.stem for path in files.source[:most]}
            partners = tuple(path for path in files.target if path.stem in stems)
            files = UnpairedFiles(files.source[:most], partners or files.target[:most])
        data = DataConfig(image_size=side, load_size=side)
        evaluator = Evaluator(files, data, ScoringNetworks(weights, cache=FeatureCache(None)))
        further = evenly_spaced(list_images(folder / ("trainA" if swapped else "trainB")), len(files.source))
        rows: dict[str, dict[str, Score]] = {
            "input": evaluator.score_inputs(),
            "real": evaluator.score_set(evaluator.read(further, "further real images"), "real against real"),
            "true photos": evaluator.score_truths() or {},
        }
        for metric in dict.fromkeys(metric for scores in rows.values() for metric in scores):
            cells: dict[str, Any] = {}
            for row, scores in rows.items():
                if score := scores.get(metric):
                    cells |= {"score": score.full_name, row: score.value, f"{row}, interval": score.interval}
            record.add(f"{name}, {side} px", **cells)


if __name__ == "__main__":
    tyro.cli(main)
