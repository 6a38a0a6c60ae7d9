"""The building blocks of a report: each function takes plain values and returns a piece of HTML, text escaped.

A page is a list of blocks in order; ``html.write_html_report`` wraps them. Nothing here reads or writes a file.
"""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NewType

from PIL import Image

from unpaired.errors import ConfigError
from unpaired.reports.grid import PIXEL_ART_SIDE, fit, to_rgb

Block = NewType("Block", str)
"""A piece of valid HTML; make one only with the functions here, which escape what people typed."""


@dataclasses.dataclass(frozen=True)
class Encoding:
    """How pictures are stored in a page."""

    quality: int | None = None
    """Of WebP, 1 to 100, for photos; unset stores every picture without loss. Drawings never lose anything."""
    largest_side: int | None = None
    """Larger pictures are scaled down to this side."""


LOSSLESS = Encoding()
_ICON_SIDE = 64
"""Up to this side a picture is stored without loss: it is small anyway, and is shown enlarged."""


def data_uri(image: Image.Image, encoding: Encoding = LOSSLESS) -> str:
    """Encode as a data URI: PNG without loss, or WebP where ``encoding`` has a quality for photos."""
    picture = to_rgb(image)
    if encoding.largest_side is not None and max(picture.size) > encoding.largest_side:
        picture = fit(picture, encoding.largest_side, encoding.largest_side)
    held = io.BytesIO()
    few_colours = encoding.quality is None or max(picture.size) <= _ICON_SIDE or picture.getcolors(256) is not None
    if few_colours:
        picture.save(held, "PNG", optimize=True)
    else:
        picture.save(held, "WEBP", quality=encoding.quality, method=4)
    kind = "png" if few_colours else "webp"
    return f"data:image/{kind};base64," + base64.b64encode(held.getvalue()).decode("ascii")


def image_tag(image: Image.Image, words: str, encoding: Encoding = LOSSLESS) -> str:
    """Build an ``<img>`` with its alternative text and its size, so that the page does not jump while it loads."""
    pixels = ' class="pixels"' if max(image.size) <= PIXEL_ART_SIDE else ""
    source = data_uri(image, encoding)
    return f'<img{pixels} src="{source}" alt="{escape(words)}" width="{image.width}" height="{image.height}">'


def section(title: str, inside: str, note: str = "") -> Block:
    """Put a heading above ``inside`` (HTML) and small words under it."""
    small = f'<p class="note">{escape(note)}</p>' if note else ""
    return Block(f"<section><h2>{escape(title)}</h2>{inside}{small}</section>")


def heading(title: str, subtitle: str = "") -> Block:
    """Open the page: its one main heading and a sentence under it."""
    small = f'<p class="subtitle">{escape(subtitle)}</p>' if subtitle else ""
    return Block(f"<header><h1>{escape(title)}</h1>{small}</header>")


def _breakable(words: str) -> str:
    """Escape, and let paths break where paths divide."""
    return escape(words).replace("/", "/<wbr>").replace("_", "_<wbr>")


def facts(values: Mapping[str, object], title: str = "Facts") -> Block:
    """List short facts: data set, method, images seen, hours, device, seed, version."""
    cells = ""
    for key, value in values.items():
        cells += f"<div><dt>{escape(key)}</dt><dd>{_breakable(str(value))}</dd></div>"
    return section(title, f'<div class="card"><dl class="facts">{cells}</dl></div>')


def gallery(
    columns: Sequence[str],
    rows: Iterable[tuple[str, Sequence[Image.Image | None]]],
    *,
    title: str = "Examples",
    note: str = "",
    encoding: Encoding = LOSSLESS,
) -> Block:
    """Show examples, one per row: input, translation, truth, selected queries, ...

    Raises:
        ConfigError: a row has more or fewer pictures than there are columns.
    """
    return section(title, f'<div class="card scroll">{_picture_table(columns, rows, encoding)}</div>', note)


def filmstrips(
    strips: Sequence[tuple[str, Sequence[str], Sequence[Sequence[Image.Image | None]]]],
    *,
    title: str = "Samples over training",
    note: str = "",
    encoding: Encoding = LOSSLESS,
) -> Block:
    """Show pictures over time, one strip per run: its name, the words over its columns, its rows of pictures.

    Raises:
        ConfigError: a row has more or fewer pictures than its strip has columns.
    """
    inside = ""
    for name, columns, rows in strips:
        table = _picture_table(columns, [("", row) for row in rows], encoding)
        inside += f'<div class="card strip"><h3>{escape(name)}</h3><div class="scroll">{table}</div></div>'
    return section(title, inside, note)


def _picture_table(
    columns: Sequence[str], rows: Iterable[tuple[str, Sequence[Image.Image | None]]], encoding: Encoding
) -> str:
    """Build a table of pictures; rows without names have no column for them."""
    rows = list(rows)
    named = any(name for name, _ in rows)
    head = '<th class="name" scope="col"></th>' * named
    head += "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    body = ""
    for number, (name, images) in enumerate(rows):
        if len(images) != len(columns):
            raise ConfigError(f"gallery row '{name}' has {len(images)} pictures for {len(columns)} columns")
        cells = "".join(
            f"<td>{image_tag(image, f'{name or number + 1}: {column}', encoding) if image is not None else ''}</td>"
            for column, image in zip(columns, images, strict=True)
        )
        label = f'<td class="name">{escape(name)}</td>' if named else ""
        body += f"<tr>{label}{cells}</tr>"
    many = f' many" style="--columns: {len(columns)}' if len(columns) > 5 else ""
    return f'<table class="gallery{many}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def table(head: Sequence[str], rows: Sequence[Sequence[object]], *, title: str, note: str = "") -> Block:
    """Print words in rows and columns; the first column names the rows.

    Raises:
        ConfigError: a row has more or fewer cells than ``head``.
    """
    body = ""
    for row in rows:
        if len(row) != len(head):
            raise ConfigError(f"table row '{row[0] if row else ''}' has {len(row)} cells for {len(head)} columns")
        first, *others = (_breakable(str(value)) for value in row)
        body += f'<tr><th scope="row">{first}</th>{"".join(f"<td>{words}</td>" for words in others)}</tr>'
    top = "".join(f'<th scope="col">{escape(words)}</th>' for words in head)
    many = " many" if len(head) > 6 else ""
    inside = f'<table class="words{many}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'
    return section(title, f'<div class="card scroll">{inside}</div>', note)


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
