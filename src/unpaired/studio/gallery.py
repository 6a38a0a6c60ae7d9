"""The embedded drawings: what a studio shows before there is a run, and what it offers to try a run with."""

from __future__ import annotations

import shutil
from pathlib import Path

from unpaired.data import embedded_dataset, read_image
from unpaired.grids import fit, side_by_side
from unpaired.studio.figures import figures

PAIRS = 24
EXAMPLES = 6
_SIDE = 160


def pairs_html(count: int = PAIRS) -> str:
    """Held-out drawings beside their true colours, evenly spaced by name, as HTML."""
    pairs = embedded_dataset().test_pairs
    count = min(count, len(pairs))
    chosen = [pairs[number * len(pairs) // count] for number in range(count)]
    drawn = [
        (side_by_side([fit(read_image(path), _SIDE, _SIDE) for path in pair], gutter=8), pair[0].stem.replace("-", " "))
        for pair in chosen
    ]
    return figures(drawn, "narrow")


def copy_examples(folder: Path, count: int = EXAMPLES) -> list[Path]:
    """Copy held-out drawings into the studio's folder, so that they can be translated like uploads."""
    sources = embedded_dataset().test.source
    folder.mkdir(parents=True, exist_ok=True)
    chosen = [sources[(2 * number + 1) * len(sources) // (2 * count)] for number in range(count)]
    return [Path(shutil.copy(path, folder / path.name)) for path in chosen]
