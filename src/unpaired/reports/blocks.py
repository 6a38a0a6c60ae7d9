"""The building blocks of a report: each function takes plain values and returns a piece of HTML, text escaped.

A page is a list of blocks in order; ``html.write_html_report`` wraps them. Nothing here reads or writes a file.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NewType

from PIL import Image

from unpaired.errors import ConfigError
from unpaired.reports.grid import PIXEL_ART_SIDE, to_rgb

Block = NewType("Block", str)
"""A piece of valid HTML; make one only with the functions here, which escape what people typed."""


def data_uri(image: Image.Image) -> str:
    """Encode as a PNG data URI: what is shown is what was made, without loss."""
    held = io.BytesIO()
    to_rgb(image).save(held, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(held.getvalue()).decode("ascii")


def image_tag(image: Image.Image, words: str) -> str:
    """Build an ``<img>`` with its alternative text and its size, so that the page does not jump while it loads."""
    pixels = ' class="pixels"' if max(image.size) <= PIXEL_ART_SIDE else ""
    return f'<img{pixels} src="{data_uri(image)}" alt="{escape(words)}" width="{image.width}" height="{image.height}">'


def section(title: str, inside: str, note: str = "") -> Block:
    """Put a heading above ``inside`` (HTML) and small words under it."""
    small = f'<p class="note">{escape(note)}</p>' if note else ""
    return Block(f"<section><h2>{escape(title)}</h2>{inside}{small}</section>")


def heading(title: str, subtitle: str = "") -> Block:
    """Open the page: its one main heading and a sentence under it."""
    small = f'<p class="subtitle">{escape(subtitle)}</p>' if subtitle else ""
    return Block(f"<header><h1>{escape(title)}</h1>{small}</header>")


def facts(values: Mapping[str, object], title: str = "Facts") -> Block:
    """List short facts: data set, method, images seen, hours, device, seed, version."""
    cells = ""
    for key, value in values.items():
        words = escape(str(value)).replace("/", "/<wbr>").replace("_", "_<wbr>")  # paths break where paths divide
        cells += f"<div><dt>{escape(key)}</dt><dd>{words}</dd></div>"
    return section(title, f'<div class="card"><dl class="facts">{cells}</dl></div>')


def gallery(
    columns: Sequence[str],
    rows: Iterable[tuple[str, Sequence[Image.Image | None]]],
    *,
    title: str = "Examples",
    note: str = "",
) -> Block:
    """Show examples, one per row: input, translation, truth, selected queries, ...

    Raises:
        ConfigError: a row has more or fewer pictures than there are columns.
    """
    head = '<th class="name" scope="col"></th>' + "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    body = ""
    for name, images in rows:
        if len(images) != len(columns):
            raise ConfigError(f"gallery row '{name}' has {len(images)} pictures for {len(columns)} columns")
        cells = "".join(
            f"<td>{image_tag(image, f'{name}: {column}') if image is not None else ''}</td>"
            for column, image in zip(columns, images, strict=True)
        )
        body += f'<tr><td class="name">{escape(name)}</td>{cells}</tr>'
    many = " many" if len(columns) > 5 else ""
    table = f'<table class="gallery{many}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return section(title, f'<div class="card scroll">{table}</div>', note)


def figure(image: Image.Image, caption: str, *, title: str = "Picture") -> Block:
    """Show one large picture, such as an image grid, with its caption (also its alternative text)."""
    inside = f'<figure class="card">{image_tag(image, caption)}<figcaption>{escape(caption)}</figcaption></figure>'
    return section(title, inside)


def charts(svgs: Sequence[str], *, title: str = "Training", note: str = "") -> Block:
    """Show charts made by ``curves.curve_svg`` side by side where there is room."""
    return section(
        title, '<div class="charts">' + "".join(f'<div class="card">{svg}</div>' for svg in svgs) + "</div>", note
    )


def notes(paragraphs: Sequence[str], *, title: str = "Notes") -> Block:
    """Print plain paragraphs."""
    return section(title, "".join(f"<p>{escape(words)}</p>" for words in paragraphs))


def command(line: str, *, title: str = "Reproduce", note: str = "") -> Block:
    """Print the exact command that makes this again."""
    return section(title, f"<pre><code>{escape(line)}</code></pre>", note)
