"""Pictures with a caption each, as HTML that holds them: they flow into as many columns as fit."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from PIL import Image

from unpaired.reporting.page import Encoding, data_uri

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
