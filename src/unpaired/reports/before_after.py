"""Pairs of pictures, before and after, with a slider that moves the border between them."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from PIL import Image

from unpaired.reports.blocks import LOSSLESS, Block, Encoding, image_tag, section


def before_after(
    pairs: Iterable[tuple[str, Image.Image, Image.Image]],
    *,
    title: str = "Before and after",
    note: str = "",
    encoding: Encoding = LOSSLESS,
) -> Block:
    """Show pairs large: side by side where no script runs, else one over the other with a slider between them.

    Args:
        pairs: Name, the picture before, the picture after; both of one shape.
        title: The heading.
        note: Small words under the pairs.
        encoding: How the pictures are stored.
    """
    inside = ""
    for name, before, after in pairs:
        pictures = image_tag(before, f"{name}: before", encoding) + image_tag(after, f"{name}: after", encoding)
        words = escape(f"{name}: how much of the picture is shown before, in percent")
        slider = f'<input type="range" min="0" max="100" value="50" aria-label="{words}" hidden>'
        inside += f'<figure><div class="pair">{pictures}</div>{slider}<figcaption>{escape(name)}</figcaption></figure>'
    return section(title, f'<div class="pairs" data-script="slider">{inside}</div>', note)
