"""Pictures on the page: with captions as HTML that holds them, and the embedded drawings to begin with."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from html import escape
from pathlib import Path

from PIL import Image

from unpaired.data import embedded_dataset, read_image
from unpaired.grids import fit, side_by_side
from unpaired.reporting.page import Encoding, data_uri

PAIRS = 24
EXAMPLES = 6
_SIDE = 160
_FOR_LOOKING = Encoding(quality=92, largest_side=720)


def figures(pictures: Sequence[tuple[Image.Image, str]], kind: str, title: str = "") -> str:
    """Lay out pictures.

    Args:
        pictures: (picture, caption); larger ones than 720 pixels are scaled down for looking.
        kind: ``"narrow"``, ``"wide"``: about how wide each is; ``"pairs"``: two in a row.
        title: Words above them.
    """
    items = "".join(
        f'<figure><img src="{data_uri(image, _FOR_LOOKING)}" alt="{escape(words)}">'
        f"<figcaption>{escape(words)}</figcaption></figure>"
        for image, words in pictures
    )
    head = f"<h3>{escape(title)}</h3>" if title else ""
    return f'<section class="studio-card">{head}<div class="studio-figures {kind}">{items}</div></section>'


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
