"""A table for a page out of a benchmark's ``table.json``: a row per contender and kind of weights, mean ± deviation.

    python benchmarks/compact_table.py OUT/results/drawings/table.json [--contenders cut cyclegan] [--weights ema]

``unpaired benchmark`` writes the full tables with protocols; this one keeps the numbers short enough for docs/.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional

COLUMNS = {
    "kid_lite0_x1e3": ("KID", 1),
    "fd_lite0": ("FD", 1),
    "swd_progan_x1e3": ("SWD ↓", 0),
    "paired_l1_pm1": ("L1 ↓", 3),
    "paired_psnr_db": ("PSNR ↑", 2),
    "paired_ssim_gauss11": ("SSIM ↑", 4),
    "structure_lite0": ("structure lost ↓", 4),
    "identity_percent": ("returned ↓", 0),
    "diversity_lite0": ("diversity ↑", 3),
    "colour_shift_lab": ("colour shift ↓", 1),
}
"""Metric -> heading and decimals."""
WEIGHTS = {"ema": "EMA", "last": "last", "": ""}


@dataclass(frozen=True)
class Options:
    """What to print."""

    table: Positional[Annotated[Path, tyro.conf.arg(help="The table.json of a benchmark.")]]
    contenders: tuple[str, ...] = ()
    """Which rows, in this order; unset takes all in theirs. References are always shown."""
    weights: tuple[str, ...] = ("ema", "last")
    """Which weights of each."""


def main(options: Options) -> None:
    """Print the table."""
    table = json.loads(options.table.read_text(encoding="utf-8"))
    names = {column["metric"]: column["name"] for column in table["columns"]}
    known = {metric: row for metric, row in COLUMNS.items() if metric in names}
    print("| contender, weights | seeds | " + " | ".join(heading for heading, _ in known.values()) + " |")
    print("|---" * (len(known) + 2) + "|")
    for row in _chosen(table["rows"], options):
        cells = [_cell(row["values"].get(names[metric]), decimals) for metric, (_, decimals) in known.items()]
        label = row["label"] if row["reference"] else f"`{row['label']}`, {WEIGHTS.get(row['weights'], row['weights'])}"
        seeds = "" if row["reference"] else str(len(row["runs"]))
        print(f"| {label} | {seeds} | " + " | ".join(cells) + " |")


def _chosen(rows: list[dict[str, Any]], options: Options) -> list[dict[str, Any]]:
    above = [row for row in rows if row["reference"] and row["label"].startswith("input")]
    below = [row for row in rows if row["reference"] and row not in above]
    order = options.contenders or tuple(dict.fromkeys(row["label"] for row in rows if not row["reference"]))
    missing = set(order) - {row["label"] for row in rows}
    if missing:
        raise SystemExit(f"there is no contender {', '.join(sorted(missing))} in {options.table}")
    own = [row for label in order for row in rows if row["label"] == label and row["weights"] in options.weights]
    return [*above, *own, *below]


def _cell(value: dict[str, Any] | None, decimals: int) -> str:
    if value is None or value["mean"] is None:
        return ""
    mean = f"{value['mean']:.{decimals}f}"
    return mean if value["sd"] is None else f"{mean} ± {value['sd']:.{decimals}f}"


if __name__ == "__main__":
    main(tyro.cli(Options))
