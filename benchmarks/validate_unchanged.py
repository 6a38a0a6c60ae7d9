"""Does the score for what must not change see what it should? Ladders outside boxes, on paper, in shared regions.

    python benchmarks/validate_unchanged.py --horses ../shared/data/horse2zebra \\
        --out benchmarks/results/unchanged_202611

On 60 photos of horses with boxes around the animals (``horse2zebra_boxes.json``) and on the embedded drawings, the
inputs are degraded step by step where they must stay as they are, and scored against themselves; a score that means
something rises with every step, and stays at 0 where only that is degraded which may change. Then: how well the regions
that both domains share agree with the outside of the boxes (area under the ROC curve over pixels), what the true
partners of the drawings change on blank paper (the floor), and what trained runs change there (``--runs``). Writes
OUT.md and OUT.json.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from torch import Tensor

from unpaired.data import DataConfig, UnpairedFiles, embedded_dataset, list_images, load_for_protocol, pair_by_name
from unpaired.environment import environment
from unpaired.evaluation import LABELS, ImageSets, Score, ScoringNetworks, evaluate_images, evaluate_run, evenly_spaced
from unpaired.evaluation.masks import read_kept
from unpaired.evaluation.metrics.shared_regions import at_pixels, shared_weights
from unpaired.evaluation.metrics.unchanged import blank_paper
from validate_metrics import blur, checkerboard, eight_bits, jpeg, noise

BOXES = Path(__file__).parent / "horse2zebra_boxes.json"


@dataclass(frozen=True)
class Options:
    """What to validate on."""

    horses: Path
    """Folder of horse2zebra, with testA and testB."""
    out: Path
    """Prefix of the files written."""
    runs: tuple[Path, ...] = ()
    """Run folders on the embedded drawings, whose translations are scored on blank paper."""
    horse_size: int = 128
    """Side of the photos in pixels."""
    drawing_size: int = 64
    """Side of the drawings in pixels."""
    photos: int = 30
    """Photos on which the ladders are climbed, evenly spaced; the probe of shared regions sees all of them."""
    parts: tuple[Literal["boxes", "shared", "paper"], ...] = ("boxes", "shared", "paper")
    """What to do; the other parts are taken from OUT.json as they are."""
    drawings: int = 60
    """Drawings used, evenly spaced."""
    threads: int = 1
    """CPU threads."""


def ripples(image: Tensor, levels: float) -> Tensor:
    """A wave of 6 px across the image, as random locations left them on sky and hills."""
    place = torch.arange(image.shape[2], dtype=torch.float32)
    return image + levels / 127.5 * torch.sin(2 * torch.pi * place / 6)


def cast(image: Tensor, levels: float) -> Tensor:
    """A colour cast: more red, less blue."""
    return image + levels / 127.5 * torch.tensor([1.0, 0.0, -1.0])[:, None, None]


def stain(image: Tensor, levels: float) -> Tensor:
    """Darker towards one side: a wash of colour without detail."""
    ramp = torch.linspace(0.0, 1.0, image.shape[1])[:, None]
    return image - 2 * levels / 127.5 * ramp * torch.tensor([0.0, 0.5, 1.0])[:, None, None]


LADDERS: dict[str, tuple[Callable[..., Tensor], tuple[float, ...], str]] = {
    "ripples of 6 px": (ripples, (2.0, 4.0, 8.0, 16.0), "levels of 255"),
    "checkerboard": (checkerboard, (2.0, 4.0, 8.0, 16.0), "levels of 255"),
    "noise": (noise, (2.0, 5.0, 10.0, 20.0), "standard deviation in levels of 255"),
    "blur": (blur, (0.5, 1.0, 2.0, 4.0), "sigma in pixels"),
    "JPEG": (jpeg, (95.0, 80.0, 50.0, 20.0), "quality"),
    "colour cast": (cast, (2.0, 5.0, 10.0, 20.0), "levels of 255"),
    "wash": (stain, (2.0, 5.0, 10.0, 20.0), "levels of 255, in the mean"),
}


def degraded(images: Sequence[Tensor], name: str, step: float, where: Sequence[Tensor]) -> list[Tensor]:
    """Images degraded in proportion to ``where`` (H, W) and rounded to 8 bits."""
    change = LADDERS[name][0]
    generator = torch.Generator().manual_seed(0)
    extra = (generator,) if name == "noise" else ()
    made = [change(image, step, *extra) for image in images]
    return eight_bits([x + (y.clamp(-1, 1) - x) * w for x, y, w in zip(images, made, where, strict=True)])


def ladders(sets: ImageSets, kept: str, inside: Sequence[Tensor]) -> dict[str, Any]:
    """Scores of every step: outside degraded; and of the last step of each ladder: inside alone degraded."""
    names = [f"unchanged_colour_{kept}_de", f"unchanged_detail_{kept}_de"]
    found: dict[str, Any] = {}
    assert sets.source is not None
    for ladder, (_, steps, unit) in LADDERS.items():
        rows = {}
        print(kept, ladder, flush=True)
        for step in steps:
            made = degraded(sets.source, ladder, step, [1.0 - mask for mask in inside])
            rows[f"{step:g}"] = values(evaluate_images(dataclasses.replace(sets, fake=made, _of_this={}), names))
        made = degraded(sets.source, ladder, steps[-1], inside)
        only = values(evaluate_images(dataclasses.replace(sets, fake=made, _of_this={}), names))
        found[ladder] = {"unit": unit, "outside": rows, "inside only": only}
    return found


def values(scores: dict[str, Score]) -> dict[str, float]:
    """Colour, detail and the two parts of detail of one set."""
    colour, detail = scores.values()
    return {"colour": colour.value, "detail": detail.value, **detail.per_level}


def area_under_curve(scores: np.ndarray, positive: np.ndarray) -> float:
    """Probability that a positive has the larger score, ties counting half."""
    order = np.unique(scores, return_inverse=True)[1]
    counts = np.bincount(order, positive), np.bincount(order, ~positive)
    below = np.cumsum(counts[1]) - counts[1]
    return float((counts[0] * (below + counts[1] / 2)).sum() / (counts[0].sum() * counts[1].sum()))


def main() -> None:
    """Degrade, score, write."""
    options = tyro.cli(Options)
    torch.set_num_threads(options.threads)
    load = os.getloadavg()
    result: dict[str, Any] = {"ladders": {}, "shared": {}, "paper": {}}
    written = options.out.with_suffix(".json")
    if written.exists():
        result |= json.loads(written.read_text(encoding="utf-8"))
    result |= {"load": load[:1], "environment": environment()}
    if "paper" in options.parts:
        validate_paper(options, result)
    if {"boxes", "shared"} & set(options.parts):
        validate_photos(options, result)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    written.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    options.out.with_suffix(".md").write_text(report(result, options), encoding="utf-8")


def validate_photos(options: Options, result: dict[str, Any]) -> None:
    """Ladders outside the boxes and in shared regions, and how far the two agree."""
    side = options.horse_size
    data = DataConfig(image_size=side, load_size=side)
    paths = list_images(options.horses / "testA")
    masks = read_kept(BOXES, paths, (side, side))
    every = [load_for_protocol(path, data) for path in paths]
    boxed = [index for index in range(len(paths)) if masks[index] is not None]
    some = evenly_spaced(boxed, options.photos)
    kept = [masks[index].float() for index in some]
    photos = [every[index] for index in some]
    may_change = [1.0 - mask for mask in kept]
    if "boxes" in options.parts:
        sets = ImageSets([], source=photos, kept=kept, intervals=False)
        result["ladders"]["photos"] = ladders(sets, "masks", may_change)
    if "shared" not in options.parts:
        return
    maps = ScoringNetworks().callables(["unchanged_colour_shared_de"])
    real = [load_for_protocol(path, data) for path in list_images(options.horses / "testB")]
    weights = shared_weights(every, real, maps["lite0.last_maps"])
    at = torch.stack([at_pixels(weights[index], side, side) for index in boxed]).numpy()
    outside = torch.stack([masks[index] for index in boxed]).numpy() > 0.5
    within = [area_under_curve(a.ravel(), o.ravel()) for a, o in zip(at, outside, strict=True)]
    result["shared"] = {
        "auc": area_under_curve(at.ravel(), outside.ravel()),
        "auc_in_photo": float(np.mean(within)),
        "mean_weight_outside": float(at[outside].mean()),
        "mean_weight_inside": float(at[~outside].mean()),
    }
    sets = ImageSets([], real, source=photos, networks=maps, intervals=False)
    sets.of_inputs["shared"] = [weights[index] for index in some]
    result["ladders"]["shared regions"] = ladders(sets, "shared", may_change)


def validate_paper(options: Options, result: dict[str, Any]) -> None:
    """Ladders on blank paper of the embedded drawings, their true partners, and what trained runs make of them."""
    found = embedded_dataset()
    drawings = load_drawings(found.test.source, options)
    on_paper = [mask.float() for mask in blank_paper(torch.stack(drawings))]
    sets = ImageSets([], source=drawings, on_paper=True, intervals=False)
    pairs = dict(pair_by_name(found.test.source, found.test.target))
    names = ["unchanged_colour_paper_de", "unchanged_detail_paper_de"]
    truths = load_drawings([pairs[path] for path in evenly_spaced(found.test.source, options.drawings)], options)
    result["paper share"] = float(torch.stack(on_paper).mean())
    result["paper"] = {"true partners": values(evaluate_images(dataclasses.replace(sets, fake=truths), names))}
    for run in options.runs:
        files = UnpairedFiles(found.test.source, found.test.target)
        networks = ScoringNetworks()
        scores = evaluate_run(run, files, device="cpu", networks=networks, names=names, intervals=False).scores
        for row in ("ema", "last"):
            result["paper"][f"{run.name}, {LABELS[row]}"] = values(scores[row])
    result["ladders"]["drawings"] = ladders(sets, "paper", [1.0 - mask for mask in on_paper])


def load_drawings(paths: Sequence[Path], options: Options) -> list[Tensor]:
    """Some drawings, evenly spaced."""
    data = DataConfig(image_size=options.drawing_size, load_size=options.drawing_size)
    return [load_for_protocol(path, data) for path in evenly_spaced(paths, options.drawings)]


def report(result: dict[str, Any], options: Options) -> str:
    """The record for people."""
    lines = [
        "# What must not change: does the score see it?",
        "",
        f"`benchmarks/validate_unchanged.py`: {options.photos} photos of horses ({options.horse_size} px) with boxes,",
        f"{options.drawings} drawings ({options.drawing_size} px). Values in delta E, colour / detail (detail",
        "added / lost). Degraded is what lies outside the boxes, or the blank paper. *inside only*: the last step, on",
        "what may change alone.",
    ]
    titles = {
        "photos": "Outside the boxes",
        "drawings": "Blank paper",
        "shared regions": "Shared regions, degraded outside the boxes",
    }
    for key, title in titles.items():
        if key not in result["ladders"]:
            continue
        lines += ["", f"## {title}", "", "| | | | | | inside only |", "|---|---|---|---|---|---|"]
        for ladder, found in result["ladders"][key].items():
            cells = [f"{step}: {cell(v)}" for step, v in found["outside"].items()]
            lines.append(f"| {ladder}, {found['unit']} | {' | '.join(cells)} | {cell(found['inside only'])} |")
        for part in ("colour", "detail"):
            rising = [
                ladder
                for ladder, found in result["ladders"][key].items()
                if all(a < b for a, b in pairwise([v[part] for v in found["outside"].values()]))
            ]
            lines += ["", f"{part} rises with every step: {', '.join(rising) or 'none'}."]
    if shared := result["shared"]:
        lines += [
            "",
            "## Shared regions against the boxes",
            "",
            f"Area under the curve, pixels outside against inside the boxes: {shared['auc']:.3f} over all pixels, "
            f"{shared['auc_in_photo']:.3f} within a photo (mean of 60). Mean weight outside "
            f"{shared['mean_weight_outside']:.3f}, inside {shared['mean_weight_inside']:.3f}.",
        ]
    if result["paper"]:
        lines += [
            "",
            "## Blank paper of the drawings",
            "",
            f"Paper is {result['paper share']:.0%} of the drawings.",
            "",
            "| | colour | detail | added | lost |",
            "|---|---|---|---|---|",
        ]
    for name, found in result["paper"].items():
        cells = " | ".join(f"{found[key]:.2f}" for key in ("colour", "detail", "added", "lost"))
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines) + "\n"


def cell(found: dict[str, float]) -> str:
    """One cell of a table."""
    return f"{found['colour']:.2f} / {found['detail']:.2f} ({found['added']:.2f} / {found['lost']:.2f})"


if __name__ == "__main__":
    main()
