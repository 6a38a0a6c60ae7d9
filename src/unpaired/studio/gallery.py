"""The embedded drawings: what a studio shows before there is a run, and what it offers to try a run with."""

from __future__ import annotations

import shutil
from pathlib import Path

from unpaired.data import embedded_dataset, read_image
from unpaired.reports import side_by_side
from unpaired.reports.grid import fit

PAIRS = 24
EXAMPLES = 6
_SIDE = 160


def write_pairs(folder: Path, count: int = PAIRS) -> list[tuple[Path, str]]:
    """Draw held-out drawings beside their true colours, evenly spaced by name.

    Args:
        folder: Made; takes one PNG per pair.
        count: Pairs.

    Returns:
        (picture, name) of each pair.
    """
    pairs = embedded_dataset().test_pairs
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number in range(min(count, len(pairs))):
        source, target = pairs[number * len(pairs) // min(count, len(pairs))]
        sheet = side_by_side([fit(read_image(path), _SIDE, _SIDE) for path in (source, target)], gutter=8)
        path = folder / f"{source.stem}.png"
        sheet.save(path)
        written.append((path, source.stem.replace("-", " ")))
    return written


def copy_examples(folder: Path, count: int = EXAMPLES) -> list[Path]:
    """Copy held-out drawings into the studio's folder, so that they can be translated like uploads."""
    sources = embedded_dataset().test.source
    folder.mkdir(parents=True, exist_ok=True)
    chosen = [sources[(2 * number + 1) * len(sources) // (2 * count)] for number in range(count)]
    return [Path(shutil.copy(path, folder / path.name)) for path in chosen]
