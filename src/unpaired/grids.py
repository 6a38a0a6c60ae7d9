"""Pictures of pictures: grids on white, one column per method and one row per example, and heat maps over images."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from unpaired.errors import ConfigError, DataError

PAPER = (255, 255, 255)
INK = (32, 33, 36)
PIXEL_ART_SIDE = 40
"""Images up to this side are enlarged with nearest-neighbour, larger ones with Lanczos resampling."""


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any PIL image to RGB for display: transparency on white, 16 bit and float scaled to 8 bit."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        values = np.where(np.isfinite(values), values, 0.0)
        if image.mode.startswith("I;16"):
            values = values / 257.0
        elif values.size and (values.max() > 255 or values.min() < 0 or values.max() <= 1):
            span = values.max() - values.min()
            values = (values - values.min()) * (255.0 / span if span > 0 else 0.0)
        return Image.fromarray(np.clip(values + 0.5, 0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, (*PAPER, 255))
        paper.alpha_composite(image)
        return paper.convert("RGB")
    return image.convert("RGB")


def fit(image: Image.Image, width: int, height: int) -> Image.Image:
    """Scale to the largest size inside width x height that keeps the aspect ratio; RGB.

    Very small images keep hard pixels (and grow by a whole factor where one fits); others go through Lanczos.
    """
    image = to_rgb(image)
    if min(image.size) < 1:
        raise DataError(f"cannot draw an image of size {image.width} x {image.height}")
    scale = min(width / image.width, height / image.height)
    if max(image.size) <= PIXEL_ART_SIDE and scale >= 1:
        whole = int(scale) if int(scale) >= 2 else scale
        size = max(1, round(image.width * whole)), max(1, round(image.height * whole))
        return image.resize(size, Image.Resampling.NEAREST)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)


def font(size: float) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """Pillow's built-in font."""
    return ImageFont.load_default(size=size)


def _shortened(words: str, width: int, size: int) -> str:
    if font(size).getlength(words) <= width:
        return words
    while words and font(size).getlength(words + "…") > width:
        words = words[:-1]
    return words.rstrip() + "…"


def wrapped(words: str, width: int, size: int, most_lines: int = 3) -> list[str]:
    """Wrap after spaces, "-", "_" and "/" into at most ``most_lines`` lines, shortened by an ellipsis."""
    lines: list[str] = []
    for part in re.findall(r"[^\s_/-]*[\s_/-]+|[^\s_/-]+", words.strip()):
        if lines and font(size).getlength((lines[-1] + part).rstrip()) <= width:
            lines[-1] += part
        else:
            lines.append(part)
    if len(lines) > most_lines:
        lines = [*lines[: most_lines - 1], "".join(lines[most_lines - 1 :])]
    return [_shortened(line.strip(), width, size) for line in lines]


def image_grid(
    columns: Mapping[str, Sequence[Image.Image | None]],
    cell: int = 128,
    *,
    row_labels: Sequence[str] | None = None,
    gutter: int = 6,
    font_size: int | None = None,
) -> Image.Image:
    """Lay out images as a table on white: one titled column per mapping entry, one row per example.

    Args:
        columns: Header -> images from top to bottom; ``None`` or a shorter column leaves cells empty.
        cell: Side of a square cell in pixels; images keep their aspect ratio inside it.
        row_labels: Labels left of the rows.
        gutter: White pixels between cells.
        font_size: Font size in pixels; by default derived from ``cell``.

    Raises:
        ConfigError: There is no column or no image, or ``cell`` is below 8.
    """
    rows = max((len(images) for images in columns.values()), default=0)
    if rows == 0:
        raise ConfigError("an image grid needs at least one column with one image")
    if cell < 8:
        raise ConfigError(f"cell = {cell}: grid cells must be at least 8 px a side")
    size = font_size or max(11, min(28, cell // 8))
    line_height = round(size * 1.25)
    headers = [wrapped(name, cell, size) for name in columns]
    header_height = max(len(lines) for lines in headers) * line_height + gutter if any(headers) else 0
    labels = [wrapped(label, max(cell, 96), size) for label in row_labels or []]
    label_width = max((int(font(size).getlength(line)) + 2 * gutter for lines in labels for line in lines), default=0)

    step = cell + gutter
    width = label_width + len(columns) * step + gutter
    picture = Image.new("RGB", (width, header_height + rows * step + gutter), PAPER)
    draw = ImageDraw.Draw(picture)
    for index, (lines, images) in enumerate(zip(headers, columns.values(), strict=True)):
        left = label_width + gutter + index * step
        for number, line in enumerate(reversed(lines)):
            baseline = header_height - gutter // 2 - number * line_height
            draw.text((left + cell / 2, baseline), line, fill=INK, font=font(size), anchor="md")
        for row, image in enumerate(images):
            if image is None:
                continue
            fitted = fit(image, cell, cell)
            top = header_height + gutter + row * step
            picture.paste(fitted, (left + (cell - fitted.width) // 2, top + (cell - fitted.height) // 2))
    for row, lines in enumerate(labels[:rows]):
        middle = header_height + gutter + row * step + cell / 2
        for number, line in enumerate(lines):
            y = middle + (number - (len(lines) - 1) / 2) * line_height
            draw.text((label_width - gutter, y), line, fill=INK, font=font(size), anchor="rm")
    return picture


def side_by_side(pictures: Sequence[Image.Image], gutter: int = 24) -> Image.Image:
    """Place images side by side on white, aligned at the top."""
    width = sum(picture.width for picture in pictures) + gutter * (len(pictures) - 1)
    sheet = Image.new("RGB", (width, max(picture.height for picture in pictures)), PAPER)
    left = 0
    for picture in pictures:
        sheet.paste(to_rgb(picture), (left, 0))
        left += picture.width + gutter
    return sheet


def png_bytes(image: Image.Image) -> bytes:
    """Encode as PNG in memory, for atomic writing."""
    held = io.BytesIO()
    image.save(held, "PNG", optimize=True)
    return held.getvalue()


def grid_cells(picture: Image.Image, cell: int = 128, gutter: int = 6) -> list[list[Image.Image]]:
    """Crop the cells of a grid drawn by ``image_grid`` without row labels: one list per column, top to bottom.

    Returns:
        An empty list if the size of the picture does not fit such a grid.
    """
    step = cell + gutter
    columns, rows = (picture.width - gutter) // step, (picture.height - gutter) // step
    header = picture.height - gutter - rows * step
    if (picture.width - gutter) % step or columns < 1 or rows < 1 or header > 4 * 28 + gutter:
        return []
    return [
        [
            picture.crop((left, top, left + cell, top + cell))
            for top in range(header + gutter, header + gutter + rows * step, step)
        ]
        for left in range(gutter, gutter + columns * step, step)
    ]


def heat_map(
    image: Image.Image,
    significance: Any,
    *,
    size: int = 384,
    opacity: float = 0.72,
    value_range: tuple[float, float] | None = None,
) -> Image.Image:
    """Lay the entropy of each position over the grey image: warm and bright = small entropy = most significant.

    Args:
        image: What the features were computed from.
        significance: Entropy in nats, (H, W).
        size: Longer side of the picture.
        opacity: 0 shows the image alone, 1 the map alone.
        value_range: Entropies at the two ends of the colour bar, to share one scale between pictures; by default the
            smallest and largest finite value here.

    Raises:
        ConfigError: ``significance`` is not a map.
    """
    from matplotlib import colormaps  # its import takes a while

    values = _array(significance).astype(np.float64)
    if values.ndim != 2 or values.size == 0:
        raise ConfigError(f"significance must be a map (H, W), not {values.shape}")
    low, high = value_range or finite_range([values])
    span = high - low
    warmth = (high - values) / span if span > 0 else np.full_like(values, 0.5)
    warmth = np.nan_to_num(warmth, nan=0.0, posinf=1.0, neginf=0.0)
    colours = colormaps["inferno"](warmth, bytes=True)[..., :3].copy()
    colours[~np.isfinite(values)] = 128

    # Grey of low contrast: the picture stays recognisable, and its own black and white do not read as entropy.
    grey = fit(image, size, size).convert("L")
    base = to_rgb(grey.point([round(53 + level * 150 / 255) for level in range(256)]))
    return Image.blend(base, Image.fromarray(colours).resize(base.size, Image.Resampling.NEAREST), opacity)


def finite_range(maps: Sequence[Any]) -> tuple[float, float]:
    """Smallest and largest finite value of several maps; (0, 0) if there is none.

    >>> finite_range([[[1.0, np.inf]], [[3.0]]])
    (1.0, 3.0)
    """
    values = np.concatenate([_array(each).astype(np.float64).reshape(-1) for each in maps] or [np.zeros(0)])
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def _array(values: Any) -> np.ndarray:
    """A tensor on any device, an array or a list, without importing torch."""
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
