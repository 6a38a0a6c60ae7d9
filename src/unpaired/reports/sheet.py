"""Figures for papers: a sheet of pictures with its words, drawn once, written as PNG and as PDF."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from unpaired.errors import ConfigError
from unpaired.reports.grid import INK, PAPER, fit, font, wrapped
from unpaired.reports.overlays import QUERY_COLOUR, bar_colours, draw_dots
from unpaired.reports.pdf import PdfPage

INCH = 72.0
_GUTTER = 3.0
_LETTERS = 8.0
_LINE = 10.0
_BAR = 5.0
_SHARPEST = 200
"""Pixels per cell in the PNG, at least: smaller pictures are enlarged by a whole factor."""


@dataclass(frozen=True)
class Cell:
    """One picture of a sheet."""

    picture: Image.Image
    dots: Sequence[tuple[float, float]] = ()
    """Points on it, (x, y) as shares of its width and height."""
    dot_radius: float = 0.012
    """Of the points, as a share of the width."""
    smooth: bool = True
    """Whether pixels are blended where the picture is enlarged; a heat map keeps its blocks."""


@dataclass(frozen=True)
class Column:
    """One column of a sheet."""

    head: str
    cells: Sequence[Cell | None]
    bar: tuple[str, str] | None = None
    """Words at the two ends of a colour bar under the column."""


@dataclass(frozen=True)
class Sheet:
    """Columns of pictures one inch wide, titled, with words left of the rows.

    Raises:
        ConfigError: There is no picture, or columns differ in length.
    """

    columns: Sequence[Column]
    row_labels: Sequence[str] = ()

    def __post_init__(self) -> None:
        lengths = {len(column.cells) for column in self.columns}
        if len(lengths) != 1 or not any(cell for column in self.columns for cell in column.cells):
            raise ConfigError(f"a sheet needs columns of one length with a picture, not of {sorted(lengths)}")

    @property
    def dpi(self) -> int:
        """Pixels per inch of the PNG: as many as the largest picture has, so that nothing is scaled down."""
        side = max(max(cell.picture.size) for column in self.columns for cell in column.cells if cell)
        return side * math.ceil(_SHARPEST / side)

    def png(self) -> bytes:
        """Draw as PNG; the file says how many pixels make an inch."""
        scale = self.dpi / INCH
        page = _PngPage(*self._size(), scale)
        self._draw(page)
        held = io.BytesIO()
        page.picture.save(held, "PNG", dpi=(self.dpi, self.dpi))
        return held.getvalue()

    def pdf(self, title: str = "") -> bytes:
        """Draw as PDF: pictures with their own pixels, letters and points as vectors."""
        page = PdfPage(*self._size())
        self._draw(page)
        return page.bytes(title)

    def _heads(self) -> list[list[str]]:
        return [wrapped(column.head, int(INCH), round(_LETTERS)) for column in self.columns]

    def _margins(self) -> tuple[float, float]:
        """Left of the pictures and above them."""
        labels = [line for label in self.row_labels for line in wrapped(label, int(INCH), round(_LETTERS))]
        left = max((font(_LETTERS).getlength(line) for line in labels), default=0.0)
        lines = max(len(head) for head in self._heads())
        return (left + 2 * _GUTTER if labels else 0.0), lines * _LINE + _GUTTER if lines else 0.0

    def _size(self) -> tuple[float, float]:
        left, top = self._margins()
        rows = len(self.columns[0].cells)
        foot = _BAR + _LINE + 2 * _GUTTER if any(column.bar for column in self.columns) else 0.0
        step = INCH + _GUTTER
        return left + len(self.columns) * step - _GUTTER, top + rows * step - _GUTTER + foot

    def _draw(self, page: PdfPage | _PngPage) -> None:
        left, top = self._margins()
        for index, (column, head) in enumerate(zip(self.columns, self._heads(), strict=True)):
            x = left + index * (INCH + _GUTTER)
            for number, line in enumerate(reversed(head)):
                middle = x + (INCH - font(_LETTERS).getlength(line)) / 2
                page.text(middle, top - _GUTTER - 1.5 - number * _LINE, line, _LETTERS)
            for row, cell in enumerate(column.cells):
                if cell is not None:
                    _place(page, cell, x, top + row * (INCH + _GUTTER))
            if column.bar is not None:
                below = top + len(column.cells) * (INCH + _GUTTER) + _GUTTER
                ramp = Image.fromarray(_ramp())
                page.image(ramp, x, below, INCH, _BAR)
                first, last = column.bar
                baseline = below + _BAR + _LINE - 1.5
                page.text(x, baseline, first, 0.85 * _LETTERS)
                page.text(x + INCH - font(0.85 * _LETTERS).getlength(last), baseline, last, 0.85 * _LETTERS)
        for row, label in enumerate(self.row_labels):
            lines = wrapped(label, int(INCH), round(_LETTERS))
            middle = top + row * (INCH + _GUTTER) + INCH / 2
            for number, line in enumerate(lines):
                y = middle + (number - (len(lines) - 1) / 2) * _LINE + 0.35 * _LETTERS
                page.text(left - 2 * _GUTTER - font(_LETTERS).getlength(line), y, line, _LETTERS)


def _place(page: PdfPage | _PngPage, cell: Cell, x: float, y: float) -> None:
    """Put a picture into the middle of its square inch, and its points on it."""
    scale = INCH / max(cell.picture.size)
    width, height = scale * cell.picture.width, scale * cell.picture.height
    left, top = x + (INCH - width) / 2, y + (INCH - height) / 2
    page.image(cell.picture, left, top, width, height, cell.smooth)
    centres = [(left + across * width, top + down * height) for across, down in cell.dots]
    radius = cell.dot_radius * width
    page.dots(centres, 1.3 * radius, PAPER)
    page.dots(centres, radius, QUERY_COLOUR)


def _ramp(steps: int = 256) -> np.ndarray:
    """The colour bar as it looks over middle grey: (1, steps, 3) uint8, most significant left."""
    stops = np.array(bar_colours(), dtype=np.float64)
    at = np.linspace(0, len(stops) - 1, steps)
    channels = [np.interp(at, np.arange(len(stops)), stops[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=-1))[None].astype(np.uint8)


class _PngPage:
    """Draws what ``PdfPage`` draws, in pixels."""

    def __init__(self, width: float, height: float, scale: float) -> None:
        self.scale = scale
        self.picture = Image.new("RGB", (math.ceil(width * scale), math.ceil(height * scale)), PAPER)

    def _pixels(self, *lengths: float) -> list[int]:
        return [round(self.scale * length) for length in lengths]

    def image(
        self, picture: Image.Image, left: float, top: float, width: float, height: float, smooth: bool = True
    ) -> None:
        x, y, wide, high = self._pixels(left, top, width, height)
        size = max(1, wide), max(1, high)
        drawn = fit(picture, *size) if smooth else picture.resize(size, Image.Resampling.NEAREST)
        self.picture.paste(drawn if drawn.size == size else picture.resize(size), (x, y))

    def dots(self, centres: Sequence[tuple[float, float]], radius: float, colour: tuple[int, int, int]) -> None:
        if not centres:
            return
        reach = math.ceil(2 + radius * self.scale)
        xs, ys = zip(*((self.scale * x, self.scale * y) for x, y in centres), strict=True)
        box = (
            max(0, int(min(xs)) - reach), max(0, int(min(ys)) - reach),
            min(self.picture.width, int(max(xs)) + reach), min(self.picture.height, int(max(ys)) + reach),
        )  # fmt: skip
        part = self.picture.crop(box)
        moved = [(x - box[0], y - box[1]) for x, y in zip(xs, ys, strict=True)]
        self.picture.paste(draw_dots(part, moved, radius * self.scale, colour, rings=False), box[:2])

    def text(self, x: float, y: float, words: str, size: float) -> None:
        draw = ImageDraw.Draw(self.picture)
        draw.text((self.scale * x, self.scale * y), words, fill=INK, font=font(self.scale * size), anchor="ls")
