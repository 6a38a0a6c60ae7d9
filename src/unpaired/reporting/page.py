"""One self-contained HTML page made of sections, rendered by ``page.html`` with Jinja2; all text is escaped."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup, escape
from PIL import Image

from unpaired.errors import ConfigError, UserError
from unpaired.files import without_folders, write_atomically
from unpaired.grids import PIXEL_ART_SIDE, finite_range, fit, heat_map, to_rgb
from unpaired.reporting.figures import bar_colours
from unpaired.reporting.pictures import Panel, View, nats
from unpaired.reporting.tables import Comparison

PAGE_LIMIT = 20_000_000
"""Largest page in bytes that is easy to mail and to open on a phone."""
_ICON_SIDE = 64
"""Pictures up to this side are stored without loss: they are small, and are shown enlarged."""
_THUMBNAIL = 56
_SMALLEST_MAP = 192
"""Heat maps of smaller pictures are drawn at this side, to keep the edges of their blocks sharp."""


@dataclass(frozen=True)
class Encoding:
    """How pictures are stored in a page."""

    quality: int | None = None
    """Of WebP for photos, 1 to 100; unset stores every picture without loss, as drawings always are."""
    largest_side: int | None = None
    """Larger pictures are scaled down to this side."""


_ENCODINGS = tuple(
    Encoding(quality, side) for quality, side in ((90, 512), (88, 384), (88, 256), (80, 192), (75, 128), (70, 96))
)


@dataclass(frozen=True)
class Page:
    """A page that was written."""

    path: Path
    size: int
    """Bytes."""
    reduction: str
    """What was reduced to stay under the limit, in words; usually empty."""


# ---------------------------------------------------------------------------------------------------------------------
# sections: plain values that the macro of the same name in page.html lays out
# ---------------------------------------------------------------------------------------------------------------------
Section = dict[str, Any]
Rows = Iterable[tuple[str, Sequence[Image.Image | None]]]


def section(kind: str, title: str, note: str = "", **content: Any) -> Section:
    """A section with a heading above and a note below; ``kind`` is a macro of ``page.html``."""
    return {"kind": kind, "title": title, "note": note, **content}


def heading(title: str, subtitle: str = "") -> Section:
    """The main heading of the page and a sentence under it."""
    return section("heading", title, subtitle)


def facts(values: Mapping[str, object], title: str = "Facts") -> Section:
    """Short facts: data set, method, images seen, hours, device, seed, version."""
    return section("facts", title, facts=values)


def notes(paragraphs: Sequence[str], *, title: str = "Notes") -> Section:
    """Plain paragraphs."""
    return section("notes", title, paragraphs=paragraphs)


def command(line: str, *, title: str = "Reproduce") -> Section:
    """The command that reproduces the page."""
    return section("command", title, line=line)


def charts(svgs: Sequence[str], *, title: str = "Training", note: str = "") -> Section:
    """Charts made by :func:`unpaired.reporting.figures.line_chart`, side by side if there is room."""
    return section("charts", title, note, svgs=svgs)


def table(head: Sequence[str], rows: Sequence[Sequence[object]], *, title: str, note: str = "") -> Section:
    """A table of text; the first column names the rows, all of which are as long as ``head`` (else ``ConfigError``)."""
    _check_lengths("table", "cells", head, [(row[0] if row else "", row) for row in rows])
    return section("table", title, note, head=head, rows=rows)


def gallery(columns: Sequence[str], rows: Rows, *, title: str = "Examples", note: str = "") -> Section:
    """Examples, one per row of as many pictures as there are columns (else ``ConfigError``)."""
    rows = list(rows)
    _check_lengths("gallery", "pictures", columns, rows)
    return section("gallery", title, note, columns=columns, rows=rows)


def filmstrips(
    strips: Sequence[tuple[str, Sequence[str], Sequence[Sequence[Image.Image | None]]]],
    *,
    title: str = "Samples over training",
    note: str = "",
) -> Section:
    """Pictures over time, one strip per run: its name, its column headings, its rows of pictures.

    Raises:
        ConfigError: A row has more or fewer pictures than its strip has columns.
    """
    named = [(name, columns, [("", row) for row in rows]) for name, columns, rows in strips]
    for _, columns, rows in named:
        _check_lengths("gallery", "pictures", columns, rows)
    return section("filmstrips", title, note, strips=named)


def _check_lengths(kind: str, things: str, columns: Sequence[str], rows: Iterable[tuple[Any, Sequence[Any]]]) -> None:
    for name, row in rows:
        if len(row) != len(columns):
            raise ConfigError(f"{kind} row '{name}' has {len(row)} {things} for {len(columns)} columns")


def before_after(
    pairs: Iterable[tuple[str, Image.Image, Image.Image]], *, title: str = "Before and after", note: str = ""
) -> Section:
    """Pairs of pictures of one size, with a slider between them (side by side without a script)."""
    return section("before_after", title, note, pairs=list(pairs))


def score_table(comparison: Comparison, *, title: str = "Scores") -> Section:
    """A table that sorts on a click, with protocols and footnotes below; sorting uses unrounded values."""
    rows = list(zip(comparison.rows, comparison.cells(), strict=True))
    note = ". ".join(comparison.footnotes("green")) + "."
    return section("scores", title, note, columns=comparison.columns, rows=rows)


def significance_viewer(panels: Sequence[Panel], *, title: str = "What is significant", note: str = "") -> Section:
    """Selected points and entropies, one panel per image and tap, shown one at a time (all without a script).

    The encoders of a panel share one colour scale, from their smallest to their largest entropy.
    """
    taps = list(dict.fromkeys(panel.tap for panel in panels))
    firsts: dict[str, Image.Image] = {}
    for panel in panels:
        firsts.setdefault(panel.image, panel.views[0].picture)
    shown = []
    for panel in panels:
        ends = finite_range([view.entropy for view in panel.views])
        shown.append({
            "number": list(firsts).index(panel.image), "tap_number": taps.index(panel.tap), "ends": nats(*ends),
            "title": f"{panel.image}, {panel.tap}", "views": [_view(view, panel, ends) for view in panel.views],
        })  # fmt: skip
    return section(
        "viewer",
        title,
        note,
        panels=shown,
        taps=taps,
        thumbnails=[(name, fit(picture, _THUMBNAIL, _THUMBNAIL)) for name, picture in firsts.items()],
        colours=", ".join(f"rgb{colour}" for colour in bar_colours(9)),
    )


def _view(view: View, panel: Panel, value_range: tuple[float, float]) -> dict[str, Any]:
    """A picture with its points (one unit is half a location) and its heat map."""
    entropy, positions = np.asarray(view.entropy), np.asarray(view.indices).reshape(-1)
    height, width = entropy.shape
    side = max(_SMALLEST_MAP, *view.picture.size)
    ends = " to ".join(nats(*finite_range([entropy])))
    return {
        "name": view.name, "alt": f"{panel.image}, {panel.tap}, {view.name}", "picture": view.picture,
        "words": f"{f'{view.note}; ' if view.note else ''}{len(positions)} of {height * width} locations; {ends} nats",
        "heat": heat_map(view.picture, entropy, size=side, value_range=value_range),
        "width": 2 * width, "height": 2 * height, "count": len(positions),
        "dot": 2 * max(0.52, 0.011 * max(entropy.shape)),
        "path": "".join(f"M{2 * (at % width) + 1} {2 * (at // width) + 1}h0" for at in positions.tolist()),
    }  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------------
# the page
# ---------------------------------------------------------------------------------------------------------------------
def data_uri(image: Image.Image, encoding: Encoding | None = None) -> str:
    """Encode as a data URI: PNG without loss, or WebP if ``encoding`` has a quality and the picture is a photo."""
    encoding = encoding or Encoding()
    picture = to_rgb(image)
    if encoding.largest_side is not None and max(picture.size) > encoding.largest_side:
        picture = fit(picture, encoding.largest_side, encoding.largest_side)
    held = io.BytesIO()
    lossless = encoding.quality is None or max(picture.size) <= _ICON_SIDE or picture.getcolors(256) is not None
    if lossless:
        picture.save(held, "PNG", optimize=True)
    else:
        picture.save(held, "WEBP", quality=encoding.quality, method=4)
    return f"data:image/{'png' if lossless else 'webp'};base64,{base64.b64encode(held.getvalue()).decode('ascii')}"


def html_page(
    title: str,
    sections: Iterable[Section],
    *,
    footer: str = "",
    encoding: Encoding | None = None,
    most: int | None = None,
    reduction: str = "",
    places: Iterable[Path] = (),
) -> str:
    """Render a whole HTML document with one script and a policy that allows no other.

    Args:
        title: Title of the document.
        sections: From top to bottom.
        footer: Small text at the end.
        encoding: How pictures are stored.
        most: Examples shown of each gallery and viewer; unset shows all.
        reduction: What was left out, said under the heading.
        places: Files and folders of this machine that the text may name; their parent folders are removed from it.
    """
    template, style, script = _template(_without_folders(places))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return template.render(
        title=title, sections=sections, footer=footer, reduction=reduction, style=Markup(style), script=Markup(script),
        digest=digest, image=_image_writer(encoding), most=most, fragment=False,
    )  # fmt: skip


def html_fragment(*sections: Section) -> str:
    """Sections alone, for another page that has ``page.css`` for an element of class ``report`` around them."""
    template, _, _ = _template(_without_folders(()))
    html = template.render(sections=sections, image=_image_writer(None), most=None, fragment=True)
    return f'<div class="report">{html}</div>'


def _image_writer(encoding: Encoding | None) -> Callable[[Image.Image, str], Markup]:
    def image(picture: Image.Image, words: str) -> Markup:
        """With alternative text and size, so that the page does not jump while it loads."""
        pixels = Markup(' class="pixels"') if max(picture.size) <= PIXEL_ART_SIDE else ""
        tag = Markup('<img{} src="{}" alt="{}" width="{}" height="{}">')
        return tag.format(pixels, data_uri(picture, encoding), words, picture.width, picture.height)

    return image


def write_page(
    path: str | os.PathLike[str],
    title: str,
    sections: Sequence[Section],
    *,
    footer: str = "Made with unpaired.",
    limit: int = PAGE_LIMIT,
    places: Iterable[Path] = (),
) -> Page:
    """Write one HTML page atomically; absolute paths of this machine are removed from its text.

    Args:
        path: The file; missing folders are made.
        title: Title of the document.
        sections: From top to bottom.
        footer: Small text at the end.
        limit: Largest number of bytes: pictures are stored smaller, then examples left out, until the page fits.
        places: As in :func:`html_page`; needed where names of folders hold spaces.

    Raises:
        UserError: The file cannot be written; the message names it.
    """
    target = Path(path)
    shown = {"gallery": "rows", "before_after": "pairs"}
    examples = max((len(s[shown[s["kind"]]]) for s in sections if s["kind"] in shown), default=1)
    for number, (encoding, most) in enumerate(_reductions(examples)):
        reduction = _reduction(encoding, most, examples, limit) if number else ""
        html = html_page(title, sections, footer=footer, encoding=encoding, most=most, reduction=reduction,
                         places=places)  # fmt: skip
        page = html.encode("utf-8", "xmlcharrefreplace")
        if len(page) <= limit:
            break
    try:
        if target.is_dir():
            raise IsADirectoryError("it is a folder; name a file, such as report.html")
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, page)
    except OSError as error:
        raise UserError(f"cannot write the report {target}: {error.strerror or error}") from error
    return Page(target, len(page), reduction)


def _reductions(examples: int) -> Iterator[tuple[Encoding, int]]:
    """Encodings and numbers of examples, in decreasing size of the page."""
    for encoding in _ENCODINGS:
        yield encoding, examples
    while examples > 1:
        examples = (examples + 1) // 2
        yield _ENCODINGS[-1], examples


def _reduction(encoding: Encoding, most: int, examples: int, limit: int) -> str:
    words = f"To keep the page under {limit / 1e6:g} MB, pictures have at most {encoding.largest_side} pixels a side"
    return words + (f", and only {most} of the {examples} images are shown." if most < examples else ".")


def _without_folders(places: Iterable[Path]) -> Callable[[Any], Any]:
    """A function that removes folders of this machine from text, to keep user names and the like private."""
    remove = without_folders(places)

    def tidy(value: Any) -> Any:
        plain = isinstance(value, str | Path) and not hasattr(value, "__html__")
        return remove(str(value)) if plain else value

    return tidy


def _template(tidy: Callable[[Any], Any]) -> tuple[jinja2.Template, str, str]:
    """The page, its style sheet and its script; all text passes through ``tidy``."""
    folder = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), autoescape=True, undefined=jinja2.StrictUndefined, finalize=tidy
    )
    environment.filters |= {"breakable": lambda words: breakable(tidy(words)), "exact": _exact}
    return environment.get_template("page.html"), asset("page.css"), asset("page.js")


def asset(name: str) -> str:
    """The style sheet or the script of our pages, by the name of its file."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def breakable(words: object) -> Markup:
    """Allow line breaks after slashes of either kind and underscores."""
    return Markup(re.sub(r"([/\\_])", r"\1<wbr>", str(escape(str(words)))))


def _exact(value: float) -> str:
    """All digits, in JavaScript's notation."""
    return repr(float(value)) if np.isfinite(value) else "Infinity" if value > 0 else "-Infinity"
