"""Figures with matplotlib: line charts as SVG for light and dark pages, sheets of pictures as PNG and PDF."""

from __future__ import annotations

import io
import json
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from matplotlib.ticker import EngFormatter
from PIL import Image

from unpaired.errors import ConfigError
from unpaired.grids import to_rgb

PALETTE = ("#3d85c6", "#e0791f", "#2f9e6e", "#a86bd1", "#d9485f", "#1fa3b3", "#a3912a", "#8a8f98")
"""Medium tones, distinguishable on white and near-black backgrounds."""
_DASHES: tuple[Any, ...] = ("solid", (0, (5, 3)), (0, (1.5, 2)))
"""Line styles of the first, second and third use of the palette."""
QUERY_COLOUR = "#ff4081"
_INK = "#010203"
"""Placeholder of the text colour, ``currentColor`` in an inline SVG."""
_LARGEST = 1e100
"""Larger numbers count as infinite: their differences overflow."""
_POINTED = 300
"""Points of a line that a page shows under the pointer."""
_SHARPEST = 200
"""Smallest number of pixels per cell in the PNG of a sheet; smaller pictures are enlarged by an integer factor."""
_STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "unpaired", "pdf.fonttype": 42, "font.size": 10.5, "axes.edgecolor": _INK,
    "text.color": _INK, "axes.labelcolor": _INK, "xtick.color": _INK, "ytick.color": _INK, "axes.spines.top": False,
    "axes.spines.right": False, "axes.spines.left": False, "ytick.left": False, "path.simplify_threshold": 0.5,
    "grid.color": _INK, "grid.alpha": 0.13, "axes.grid": True, "axes.grid.axis": "y", "legend.frameon": False,
    "axes.titlesize": 11, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.formatter.useoffset": False,
}  # fmt: skip

Point = tuple[float, float]


def line_chart(
    series: Mapping[str, Sequence[Point]],
    title: str,
    x_label: str,
    y_label: str,
    *,
    smoothing: float = 0.0,
    places: Mapping[str, int] | None = None,
    marks: Mapping[str, Point] | None = None,
    standalone: bool = False,
) -> str:
    """Draw lines (x, y) as one SVG element in the text colour of the page.

    Args:
        series: Name -> points in order of x; non-finite points interrupt the line and are counted in the legend.
        title: Above the chart, also its description for screen readers.
        x_label: Of the horizontal axis.
        y_label: Of the vertical axis.
        smoothing: Weight of the past in an exponential moving average, [0, 1); the raw line is drawn behind it.
        places: Name -> number of its colour and dashes, to use the same in several charts; by default its position.
        marks: Name -> one point of its series to ring, such as the best.
        standalone: For a file of its own: dark text on white, letters as outlines.

    Raises:
        ConfigError: ``smoothing`` is outside [0, 1).
    """
    if not 0.0 <= smoothing < 1.0:
        raise ConfigError(f"smoothing = {smoothing}: must be at least 0 and under 1")
    with mpl.rc_context(_STYLE | ({"svg.fonttype": "path"} if standalone else {})):
        figure = Figure(figsize=(5.4, 3.4), dpi=72, layout="constrained")
        axes = figure.add_subplot()
        finite = False
        pointed = []
        for number, (name, points) in enumerate(series.items()):
            xs, ys = np.array(points, dtype=float).reshape(-1, 2).T
            ys = np.where(np.abs(ys) < _LARGEST, ys, np.nan)
            finite |= bool(np.isfinite(ys).any())
            missing = int(np.isnan(ys).sum())
            place = (places or {}).get(name, number)
            look: dict[str, Any] = {"color": PALETTE[place % len(PALETTE)],
                                    "linestyle": _DASHES[place // len(PALETTE) % len(_DASHES)]}  # fmt: skip
            known = np.flatnonzero(np.isfinite(xs + ys))[:: max(1, len(xs) // _POINTED)]
            pointed.append([name, look["color"], xs[known].tolist(), [float(f"{y:.5g}") for y in ys[known]]])
            if smoothing:
                axes.plot(xs, ys, linewidth=0.8, alpha=0.25, **look)
            smooth = pd.Series(ys).ewm(alpha=1 - smoothing, ignore_na=True).mean().where(np.isfinite(ys))
            label = _plain(name + (f" ({missing} not finite)" if missing else ""))
            dots = "o" if len(xs) - missing <= 1 else None
            axes.plot(xs, smooth, linewidth=1.5, label=label, marker=dots, markersize=4, **look)
            if (mark := (marks or {}).get(name)) and all(map(math.isfinite, mark)):
                axes.plot(*mark, marker="o", markersize=9, fillstyle="none", markeredgewidth=1.6, color=look["color"])
        if axes.dataLim.ymin >= 0 > axes.get_ylim()[0]:  # such as a share that is 0 throughout
            axes.set_ylim(bottom=0)
        if not finite:
            axes.text(0.5, 0.5, "no values yet", transform=axes.transAxes, ha="center")
        axes.set_title(_plain(title), pad=8)
        axes.set_xlabel(_plain(x_label))
        axes.set_ylabel(_plain(y_label))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        if series:
            figure.legend(loc="outside lower left", ncols=min(2, len(series)), handlelength=1.6)
        held = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(held, format="svg", transparent=not standalone, metadata=nothing)
        (left, bottom), (right, top) = axes.transData.transform([(0, 0), (1, 1)]).tolist()
    places_of = {"x": [right - left, left], "y": [bottom - top, figure.bbox.height - bottom], "lines": pointed}
    return _element(held.getvalue(), title, "" if standalone else json.dumps(places_of))


def _plain(words: str) -> str:
    """Text without matplotlib's math mode."""
    return words.replace("$", r"\$")


def _element(svg: str, title: str, lines: str) -> str:
    """The SVG element with a description and without ids that other charts of the page have too.

    ``lines`` are the values that ``page.js`` shows under the pointer; empty for a file of its own.
    """
    words = f'role="img" aria-label="{escape(title)}"'
    if not lines:
        return svg.replace(_INK, "#202124").replace("<svg ", f"<svg {words} ", 1)
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="[a-z][\w.]*_\d+"', "", svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: system-ui, sans-serif", svg).replace("xlink:href", "href")
    opening, _, rest = svg.partition(">")
    box = re.search(r'viewBox="[^"]*"', opening)
    head = f'<svg class="chart" xmlns="http://www.w3.org/2000/svg" {box[0] if box else ""} width="100%" {words}'
    return f'{head} data-lines="{escape(lines)}">{rest.strip()}'


def bar_colours(steps: int, opacity: float = 0.72) -> list[tuple[int, int, int]]:
    """Colours of a heat map as they look over middle grey, from most to least significant."""
    colours = opacity * mpl.colormaps["inferno_r"](np.linspace(0, 1, steps))[:, :3] + (1 - opacity) * 128 / 255
    return [(red, green, blue) for red, green, blue in np.rint(255 * colours).astype(int).tolist()]


@dataclass(frozen=True)
class Cell:
    """One picture of a sheet."""

    picture: Image.Image
    dots: Sequence[Point] = ()
    """Points on it, (x, y) as shares of its width and height."""
    dot_radius: float = 0.012
    """Of the points, as a share of the width."""


@dataclass(frozen=True)
class Sheet:
    """Pictures for a paper, each one inch wide, with headings above the columns and labels left of the rows.

    Raises:
        ConfigError: There is no picture, or columns differ in length.
    """

    columns: Sequence[tuple[str, Sequence[Cell | None]]]
    """Heading -> cells, the same number in all columns."""
    row_labels: Sequence[str] = ()
    bars: Mapping[str, tuple[str, str]] | None = None
    """Heading -> text at both ends of a colour bar under its column."""

    def __post_init__(self) -> None:
        lengths = {len(cells) for _, cells in self.columns}
        if len(lengths) != 1 or not any(cell for _, cells in self.columns for cell in cells):
            raise ConfigError(f"a sheet needs columns of one length with a picture, not of {sorted(lengths)}")

    def save(self, kind: str, title: str = "") -> bytes:
        """Draw as ``png`` or ``pdf``: pictures keep all their pixels without loss; in a PDF, letters are text."""
        held = io.BytesIO()
        metadata = {"Title": title, "CreationDate": None} if kind == "pdf" else {}
        with mpl.rc_context(_STYLE):
            figure = self._figure()
            figure.savefig(held, format=kind, facecolor="white", metadata=metadata)
        return held.getvalue()

    def _figure(self) -> Figure:
        """One inch has as many pixels as the largest picture, or a whole multiple; all lengths below are pixels."""
        largest = max(max(cell.picture.size) for _, cells in self.columns for cell in cells if cell)
        inch = largest * math.ceil(_SHARPEST / largest)
        gap, line = round(inch / 24), round(inch / 7)
        heads = ["\n".join(textwrap.wrap(head, 17)) for head, _ in self.columns]
        labels = ["\n".join(textwrap.wrap(label, 17)) for label in self.row_labels]
        longest = max((len(part) for label in labels for part in label.split("\n")), default=0)
        left = round(longest * inch / 16) + gap if longest else 0
        top = max(head.count("\n") + bool(head) for head in heads) * line + gap
        rows = len(self.columns[0][1])
        width = left + len(self.columns) * (inch + gap) - gap
        height = top + rows * (inch + gap) - gap + (2 * line if self.bars else 0)
        figure = Figure(figsize=(width / inch, height / inch), dpi=inch)
        text: dict[str, Any] = {"fontsize": 7.5, "color": "#202124"}
        for number, (head, cells) in enumerate(self.columns):
            x = left + number * (inch + gap)
            figure.text((x + inch / 2) / width, 1 - (top - gap / 2) / height, _plain(heads[number]),
                        ha="center", va="bottom", **text)  # fmt: skip
            for row, cell in enumerate(cells):
                if cell is None:
                    continue
                y = top + row * (inch + gap)
                wide, high = (round(inch * side / max(cell.picture.size)) for side in cell.picture.size)
                box = (x + (inch - wide) // 2, height - y - (inch + high) // 2, wide, high)
                axes = figure.add_axes((box[0] / width, box[1] / height, wide / width, high / height))
                axes.set_axis_off()
                axes.imshow(to_rgb(cell.picture), interpolation="none", extent=(0, 1, 1, 0), aspect="auto")
                for scale, colour in ((1.3, "white"), (1.0, QUERY_COLOUR)):
                    size = 2 * scale * cell.dot_radius
                    for centre in cell.dots:
                        axes.add_patch(Ellipse(centre, size, size * wide / high, facecolor=colour, linewidth=0))
            if self.bars and head in self.bars:
                axes = figure.add_axes((x / width, 1.3 * line / height, inch / width, 0.4 * line / height))
                axes.set_axis_off()
                axes.imshow([bar_colours(256)], aspect="auto")
                for at, words, side in ((x, self.bars[head][0], "left"), (x + inch, self.bars[head][1], "right")):
                    figure.text(at / width, 0.25 * line / height, words, ha=side, va="bottom", **text)
        for row, label in enumerate(labels):
            middle = top + row * (inch + gap) + inch / 2
            figure.text((left - gap) / width, 1 - middle / height, _plain(label), ha="right", va="center", **text)
        return figure
