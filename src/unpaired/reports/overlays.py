"""What query selection chose, drawn over the input: points and entropy heat maps (the paper's Figure 2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from unpaired.errors import ConfigError
from unpaired.reports.grid import INK, PAPER, fit, font, to_rgb

QUERY_COLOUR = (255, 64, 129)
GREY = 128
# Matplotlib's "inferno" (CC0) at ninths: even steps of lightness, readable in grey and for colour-blind eyes.
_COLOUR_STOPS = np.array(
    [
        [0, 0, 4],
        [31, 12, 72],
        [85, 15, 109],
        [136, 34, 106],
        [186, 54, 85],
        [227, 89, 51],
        [249, 140, 10],
        [249, 201, 50],
        [252, 255, 164],
    ],
    dtype=np.float64,
)


def _array(values: Any) -> np.ndarray:
    """Accept a tensor on any device, an array or a list, without importing torch."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    return np.asarray(values)


def colour_map(values: np.ndarray) -> np.ndarray:
    """Map values in [0, 1] of any shape to uint8 colours (..., 3), dark violet to pale yellow.

    >>> colour_map(np.array([0.0, 1.0])).tolist()
    [[0, 0, 4], [252, 255, 164]]
    """
    at = np.clip(values, 0.0, 1.0) * (len(_COLOUR_STOPS) - 1)
    stops = np.arange(len(_COLOUR_STOPS))
    channels = [np.interp(at, stops, _COLOUR_STOPS[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def draw_queries(
    image: Image.Image,
    indices: Any,
    height: int,
    width: int,
    *,
    size: int = 384,
    colour: tuple[int, int, int] = QUERY_COLOUR,
) -> Image.Image:
    """Draw selected positions as dots over the enlarged image; a white and a dark ring keep them visible anywhere.

    Args:
        image: What the features were computed from.
        indices: Positions y * width + x on the feature map, shape (N,).
        height: Rows of the feature map.
        width: Columns of the feature map.
        size: Longer side of the result in pixels.
        colour: Fill of the dots.

    Raises:
        ConfigError: a position lies outside the feature map.
    """
    positions = _array(indices).reshape(-1).astype(np.int64)
    if positions.size and (positions.min() < 0 or positions.max() >= height * width):
        raise ConfigError(
            f"query positions run from {positions.min()} to {positions.max()}, "
            f"but a feature map of {height} x {width} has positions 0 to {height * width - 1}"
        )
    picture = fit(image, size, size)
    cell_x, cell_y = picture.width / width, picture.height / height
    at = [((position % width + 0.5) * cell_x, (position // width + 0.5) * cell_y) for position in positions.tolist()]
    return draw_dots(picture, at, max(1.6, min(7.0, 0.26 * min(cell_x, cell_y))), colour)


def draw_dots(
    picture: Image.Image,
    centres: Sequence[tuple[float, float]],
    radius: float,
    colour: tuple[int, int, int] = QUERY_COLOUR,
    rings: bool = True,
) -> Image.Image:
    """Draw dots of ``radius`` pixels at ``centres`` (x, y), by default with a white and a dark ring around each."""
    ring = max(0.7, 0.3 * radius)
    around = ((radius + 2 * ring, (20, 20, 24)), (radius + ring, (255, 255, 255))) if rings else ()
    fine = 4  # draw enlarged, shrink: smooth edges, which ImageDraw alone does not give
    layer = Image.new("RGBA", (picture.width * fine, picture.height * fine), (*colour, 0))
    draw = ImageDraw.Draw(layer)
    for reach, fill in (*around, (radius, colour)):
        for x, y in centres:
            draw.ellipse(
                ((x - reach) * fine, (y - reach) * fine, (x + reach) * fine, (y + reach) * fine), fill=(*fill, 255)
            )
    result = picture.convert("RGBA")
    result.alpha_composite(layer.resize(picture.size, Image.Resampling.BOX))
    return result.convert("RGB")


def heat_map(
    image: Image.Image,
    significance: Any,
    *,
    height: int | None = None,
    width: int | None = None,
    size: int = 384,
    opacity: float = 0.72,
    smooth: bool = False,
    value_range: tuple[float, float] | None = None,
    bar: bool = True,
) -> Image.Image:
    """Lay the entropy of each position over the grey image: warm and bright = small entropy = most significant.

    Args:
        image: What the features were computed from.
        significance: Entropy in nats, (H, W), or (H * W,) with ``height`` and ``width`` given.
        height: Rows of the feature map, for flat ``significance``.
        width: Columns of the feature map, for flat ``significance``.
        size: Longer side of the picture, without the colour bar.
        opacity: 0 shows the image alone, 1 the map alone.
        smooth: Blend between positions instead of showing each as the block that it is.
        value_range: Entropies at the two ends of the colour bar, to share one scale between pictures; by default the
            smallest and largest finite value here.
        bar: Add the colour bar; without it the picture has the size of the map, for several that share one bar.

    Raises:
        ConfigError: ``significance`` is not a map.
    """
    values = _array(significance).astype(np.float64)
    if values.ndim == 1 and height is not None and width is not None and values.size == height * width:
        values = values.reshape(height, width)
    if values.ndim != 2 or values.size == 0:
        raise ConfigError(f"significance must be a map (H, W), or (H * W,) with height and width, not {values.shape}")
    low, high = value_range or finite_range([values])
    span = high - low
    warmth = (high - values) / span if span > 0 else np.full_like(values, 0.5)
    colours = colour_map(np.nan_to_num(warmth, nan=0.0, posinf=1.0, neginf=0.0))
    colours[~np.isfinite(values)] = 128

    # Grey of low contrast: the picture stays recognisable, and its own black and white do not read as entropy.
    grey = fit(image, size, size).convert("L")
    base = to_rgb(grey.point([round(GREY - 75 + level * 150 / 255) for level in range(256)]))
    how = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    blended = Image.blend(base, Image.fromarray(colours).resize(base.size, how), opacity)
    return _with_colour_bar(blended, low, high, opacity) if bar else blended


def finite_range(maps: Sequence[Any]) -> tuple[float, float]:
    """Smallest and largest finite value of several maps; (0, 0) where there is none.

    >>> finite_range([[[1.0, math.inf]], [[3.0]]])
    (1.0, 3.0)
    """
    finite = [values[np.isfinite(values)] for values in (_array(each).astype(np.float64) for each in maps)]
    ends = [end for values in finite if values.size for end in (float(values.min()), float(values.max()))]
    return (min(ends), max(ends)) if ends else (0.0, 0.0)


def nats(low: float, high: float) -> tuple[str, str]:
    """Print both ends of a range of entropies with as many digits as tell them apart.

    >>> nats(0.0, 5.54), nats(2.7180, 2.7183)
    (('0.00', '5.54'), ('2.718000', '2.718300'))
    """
    digits = 2 if not (high > low) or high - low >= 0.1 else min(8, 2 - math.floor(math.log10(high - low)))
    return f"{low:.{digits}f}", f"{high:.{digits}f}"


def bar_colours(opacity: float = 0.72) -> list[tuple[int, int, int]]:
    """The stops of the colour bar as they look over middle grey, from most to least significant."""
    blended = opacity * _COLOUR_STOPS[::-1] + (1.0 - opacity) * GREY
    return [(round(red), round(green), round(blue)) for red, green, blue in blended.tolist()]


def _with_colour_bar(picture: Image.Image, low: float, high: float, opacity: float) -> Image.Image:
    """Add a strip at the right, as it looks over middle grey: small entropy on top, both ends in nats."""
    size = max(10, min(18, picture.height // 24))
    gap, bar_width = max(6, size // 2), size
    captions = [f"{end} nats" for end in nats(low, high)]
    text_width = int(max(font(size).getlength(words) for words in [*captions, "significant"]))
    strip = gap + bar_width + gap + text_width + gap
    result = Image.new("RGB", (picture.width + strip, picture.height), PAPER)
    result.paste(picture, (0, 0))
    ramp = colour_map(np.linspace(1.0, 0.0, picture.height))[:, None, :].repeat(bar_width, axis=1)
    bar = Image.fromarray(ramp)
    left = picture.width + gap
    result.paste(Image.blend(Image.new("RGB", bar.size, (GREY, GREY, GREY)), bar, opacity), (left, 0))
    draw = ImageDraw.Draw(result)
    x = left + bar_width + gap
    draw.text((x, 0), f"{captions[0]}\nmost\nsignificant", fill=INK, font=font(size))
    draw.text((x, picture.height - 1), captions[1], fill=INK, font=font(size), anchor="ld")
    if picture.height > 9 * size:
        draw.text((x, picture.height / 2), "entropy", fill=(110, 112, 118), font=font(size), anchor="lm")
    return result
