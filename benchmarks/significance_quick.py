"""Do significant locations pay in the quick recipe? Tables and a picture out of the records of ``quick_recipe.py``.

python benchmarks/quick_recipe.py run drawings --variants full random dot local local_global --seeds 0 1 2 \\
    --seconds 150 --out ../long_runs/significance
python benchmarks/significance_quick.py ../long_runs/significance --out benchmarks/results/significance_quick_202611

Each variant is compared with random locations (CUT), seed by seed, with a paired t-test over the seeds. The unit is the
training: tests over the images of one training would tell two networks apart, not two methods. P-values are two-sided
and as they are, without a correction for their number, which is stated.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from PIL import Image, ImageDraw
from scipy.stats import ttest_rel

NAMES = {
    "random": "random (CUT)",
    "full": "global, scaled",
    "dot": "global, dot",
    "local": "local, scaled",
    "local_global": "local + global, scaled",
}
"""Variant -> its name in tables, in their order."""
SHORT = {
    "kid_mobilenet_x1e3": "KID MobileNet",
    "kid_lite0_x1e3": "KID Lite0 (flattered)",
    "swd_progan_x1e3": "SWD",
    "paired_l1_pm1": "L1",
    "structure_lite0": "structure lost (flattered)",
    "unchanged_colour_paper_de": "colour changed on paper, dE",
    "unchanged_detail_paper_de": "detail changed on paper, dE",
    "unchanged_colour_masks_de": "colour changed outside boxes, dE",
    "unchanged_detail_masks_de": "detail changed outside boxes, dE",
}


def of_seeds(records: list[dict[str, Any]], row: str, score: str) -> np.ndarray:
    """Values by seed."""
    return np.array([record["scores"][row][score][0] for record in records])


def table(variants: dict[str, list[dict[str, Any]]], row: str) -> tuple[list[str], list[dict[str, Any]]]:
    """Lines of a Markdown table for the averaged (``ema``) or the last weights, and the differences to random."""
    first = next(iter(variants.values()))[0]["scores"]
    scores = [score for score in SHORT if score in first[row]]
    lines = ["| | " + " | ".join(SHORT[score] for score in scores) + " |", "|---" * (len(scores) + 1) + "|"]
    inputs = [f"{first['input'][score][0]:g}" for score in scores]
    lines.append("| untranslated input | " + " | ".join(inputs) + " |")
    differences = []
    for variant, records in variants.items():
        cells = []
        for score in scores:
            values = of_seeds(records, row, score)
            cell = f"{values.mean():.4g} ± {values.std(ddof=1):.2g}" if len(values) > 1 else f"{values[0]:.4g}"
            if variant != "random":
                others = of_seeds(variants["random"], row, score)
                found: dict[str, Any] = {"variant": variant, "score": score, "weights": row}
                found["by_seed"] = [round(float(x), 4) for x in values - others]
                found["p"] = round(float(ttest_rel(values, others).pvalue), 4) if len(values) > 1 else None
                differences.append(found)
            cells.append(cell)
        lines.append(f"| {NAMES[variant]} | " + " | ".join(cells) + " |")
    return lines, differences


def differences_table(differences: list[dict[str, Any]]) -> list[str]:
    """Lines of a Markdown table of what each variant has more than random, by seed."""
    lines = ["| minus random | score | by seed | p |", "|---|---|---|---|"]
    for each in differences:
        seeds = ", ".join(f"{x:+.4g}" for x in each["by_seed"])
        lines.append(f"| {NAMES[each['variant']]} | {SHORT[each['score']]} | {seeds} | {each['p']} |")
    return lines


def side_by_side(folder: Path, variants: dict[str, list[dict[str, Any]]], seed: int, side: int) -> Image.Image:
    """Inputs and their translations by each variant (averaged weights), cut out of the grids of ``quick_recipe.py``."""
    grids = {
        variant: Image.open(folder / f"{next(r['name'] for r in records if r['seed'] == seed)}.png")
        for variant, records in variants.items()
    }
    shown = [(x, y) for y in range(0, 12 * side, side) for x in (0, 3 * side)][::2]
    sheet = Image.new("RGB", ((len(grids) + 1) * side, len(shown) * side + 16), "white")
    for column, name in enumerate(("input", *grids)):
        ImageDraw.Draw(sheet).text((column * side + 2, 2), name, fill="black")
    for line, (x, y) in enumerate(shown):
        for column, image in enumerate((next(iter(grids.values())), *grids.values())):
            left = x + (side if column else 0)
            sheet.paste(image.crop((left, y, left + side, y + side)), (column * side, line * side + 16))
    return sheet


def main(records: Annotated[Path, tyro.conf.Positional], out: Path, pictures: Path | None = None) -> None:
    """Write OUT.md and OUT.json, and OUT-<data>-seed0.png of each set.

    Args:
        records: The --out of quick_recipe.py.
        out: Prefix of the files written.
        pictures: Folder for the pictures; unset puts them beside the records (horses may not be redistributed).
    """
    by_data: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(records.glob("*-seed*-*.json")):
        record = json.loads(path.read_text())
        by_data[record["data"]][record["variant"]].append(record)
    lines, kept = ["# Significant against random locations in the quick recipe", ""], {}
    for data, found in by_data.items():
        variants = {
            variant: sorted(found[variant], key=lambda each: each["seed"]) for variant in NAMES if found[variant]
        }
        whole = set.intersection(*({each["seed"] for each in records} for records in variants.values()))
        variants = {name: [each for each in kept if each["seed"] in whole] for name, kept in variants.items()}
        images = {variant: [each["images"] for each in records] for variant, records in variants.items()}
        seconds = {each["seconds"] for records in variants.values() for each in records}
        lines += [f"## {data}: seeds {sorted(whole)}, {seconds} CPU seconds, images {images}", ""]
        kept[data] = {"images": images, "differences": []}
        for row, title in (("ema", "Averaged weights"), ("last", "Last weights")):
            rows, differences = table(variants, row)
            lines += [f"**{title}** (mean ± standard deviation over seeds)", "", *rows, ""]
            lines += [*differences_table(differences), ""]
            kept[data]["differences"] += differences
        lines += [f"{len(kept[data]['differences'])} comparisons; p-values are not corrected for that.", ""]
        grid = side_by_side(records, variants, min(whole), 64 if data == "drawings" else 128)
        grid.save((pictures or records) / f"{out.name}-{data}-seed{min(whole)}.png")
    out.with_suffix(".md").write_text("\n".join(lines))
    out.with_suffix(".json").write_text(json.dumps(kept, indent=1))
    print("\n".join(lines))


if __name__ == "__main__":
    tyro.cli(main)
