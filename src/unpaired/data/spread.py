"""Whether the values of images fill the range that becomes [-1, 1]: what is said where they hardly do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from unpaired.data.mapping import PixelType
from unpaired.data.pixels import Picture, PixelFormat
from unpaired.data.reading import Stored

_SHARES = np.array([0.001, *(n / 20 for n in range(1, 20)), 0.999])
_SIDE = 64
"""Rows and columns of an image that are looked at, at most."""
_OUTSIDE = 0.5
"""Of the values of an image, above which share it is said that they lie outside the range."""
_REACHED = 1 / 8
"""Of the range, what the largest value of all images is expected to reach: 12 bits reach 1/16 of 16."""
_NARROW = 0.02
"""Of the range, or of the values of the other images, the least that values are expected to fill."""


@dataclass(frozen=True)
class Spread:
    """The values of one image that are data, as its file holds them.

    Attributes:
        dtype: numpy's name of the type.
        quantiles: float32 (21, C): 0.1 %, 5 %, 10 %, ... 95 %, 99.9 % of the values of a channel.
    """

    dtype: str
    quantiles: np.ndarray

    def read_as(self, dtype: PixelType) -> np.ndarray:
        """The quantiles as the values of a domain of this type."""
        return self.quantiles * _factor(self.dtype, dtype)


class RangeRemark(NamedTuple):
    """One thing to say, and the images that it is about."""

    words: str
    names: list[str]


Named = Sequence[tuple[str, Spread]]
"""Name of each image, and its values."""


def _factor(stored: str, dtype: PixelType) -> float:
    """What integers of a file are multiplied by in a domain of another type."""
    if dtype == "float32" or stored == dtype:
        return 1.0
    return 257.0 if stored == "uint8" else 1.0 if dtype == "uint16" else 1 / 257


def spread_of(image: Stored | Picture) -> Spread | None:
    """The spread of an image's values, opacity excepted, of evenly spaced rows and columns; None without any data."""
    values, invalid, facts = image.values, image.invalid, image.description
    if values.dtype.kind not in "fiu":
        return None
    rows, columns = (slice(None, None, -(-side // _SIDE)) for side in values.shape[:2])
    values = values[rows, columns, : -1 if facts.alpha and values.shape[2] == facts.channels > 1 else None]
    planes = list(values.reshape(-1, values.shape[2]).T)
    if invalid is not None:
        if invalid.shape[2] not in (1, image.values.shape[2]):
            invalid = np.asarray(invalid.any(-1, keepdims=True))
        holes = np.broadcast_to(invalid, image.values.shape)[rows, columns]
        planes = [plane[~holes[:, :, channel].reshape(-1)] for channel, plane in enumerate(planes)]
    if not all(map(len, planes)):
        return None
    ordered = [np.sort(plane, kind="stable") for plane in planes]  # by counting, where there are few values
    found = [plane[np.rint(_SHARES * (len(plane) - 1)).astype(int)] for plane in ordered]
    return Spread(facts.dtype, np.stack(found, axis=-1).astype(np.float32))


def spread_in(picture: Picture, pixels: PixelFormat) -> Spread | None:
    """The spread of an image that was read in a format, in the values of its file; None where it is ordinary."""
    if _ordinary(picture.description.dtype, pixels) or (found := spread_of(picture)) is None:
        return None
    return Spread(found.dtype, found.quantiles / np.float32(_factor(found.dtype, pixels.dtype)))


def range_remarks(images: Named, pixels: PixelFormat, what: str = "images", option: str = "") -> Iterator[RangeRemark]:
    """What there is to say of images in a format; nothing of 8-bit files whose range is 0 to 255.

    Args:
        images: Their values.
        pixels: The format.
        what: What they are called.
        option: Sets its range; without one it cannot be changed any more.
    """
    total, scale = len(images), "give images in the scale of the training images"
    ends = f"the range {min(pixels.mapping.low):g} to {max(pixels.mapping.high):g}"
    inside: list[tuple[str, Spread]] = []
    outside: list[tuple[str, Spread]] = []
    for name, one in images:
        if not _ordinary(one.dtype, pixels):
            (outside if _beyond(_place(one, pixels), 0.0, 1.0) else inside).append((name, one))
    if outside:
        mend = f"use another {option}, or save them in the scale of the others" if option else scale
        yield RangeRemark(
            f"{_number(outside, total, what)} over {_OUTSIDE * 100:.0f} % of the values outside {ends}, and these "
            f"become its ends ({_example(outside, pixels.dtype)}); {mend}",
            [name for name, _ in outside],
        )
    usual, _ = _by_type(inside)
    places = np.clip([edge for _, one in usual for edge in _edges(_place(one, pixels))] or [0], 0, 1)
    filled = float(places.max() - places.min())
    if filled > 0 and (filled < _NARROW or places.max() < _REACHED):
        low, high = _ends(usual)
        mend = f"use {option} {low:.6g} {high:.6g}, or {option} percentiles" if option else scale
        yield RangeRemark(
            f"{_number(usual, total, what)} values that fill only {filled * 100:.2g} % of {ends}, so networks see "
            f"little contrast ({_example(usual, pixels.dtype)}); {mend}",
            [name for name, _ in usual],
        )
    if option:
        yield from odd_types(inside, pixels.dtype, what)


def odd_types(images: Named, dtype: PixelType, what: str) -> Iterator[RangeRemark]:
    """What there is to say of files whose type few others have, where their values are not those of the others, too."""
    usual, others = _by_type(images)
    low, high = _ends(usual, dtype)
    odd = []
    for name, one in others:
        values = one.read_as(dtype)
        width = float(np.ptp(values))
        if _beyond(values, low, high) or 0 < width < _NARROW * (high - low):
            odd.append((name, one))
    if odd:
        yield RangeRemark(
            f"{_number(odd, len(images), what)} the type {odd[0][1].dtype} among {usual[0][1].dtype}, and other values "
            f"than these, which are {low:.6g} to {high:.6g} ({_example(odd, dtype)}); save them in the type and scale "
            "of the others, or leave them out",
            [name for name, _ in odd],
        )


def _ordinary(stored: str, pixels: PixelFormat) -> bool:
    """Whether a file of this type holds bytes whose range is 0 to 255, as pictures do, dark or bright."""
    return stored == "uint8" == pixels.dtype and pixels.mapping.of_bytes


def _place(one: Spread, pixels: PixelFormat) -> np.ndarray:
    """The quantiles between the ends of the range: 0 is the lower one, 1 the upper."""
    low, high = np.array(pixels.mapping.low), np.array(pixels.mapping.high)
    if len(low) not in (1, one.quantiles.shape[1]):  # gray in a domain of colour, say
        low, high = low.min(), high.max()
    return (one.read_as(pixels.dtype) - low) / (high - low)


def _beyond(quantiles: np.ndarray, low: float, high: float) -> bool:
    return float(((quantiles < low) | (quantiles > high))[1:-1].mean()) > _OUTSIDE


def _by_type(images: Named) -> tuple[list[tuple[str, Spread]], list[tuple[str, Spread]]]:
    """The images of the type that most of them have, and the others."""
    counted = Counter(one.dtype for _, one in images).most_common(1)
    main = counted[0][0] if counted else ""
    return [row for row in images if row[1].dtype == main], [row for row in images if row[1].dtype != main]


def _edges(values: np.ndarray) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _ends(images: Named, dtype: PixelType | None = None) -> tuple[float, float]:
    """Lowest and highest value, as files hold them or as a domain of a type does."""
    found = [_edges(one.quantiles if dtype is None else one.read_as(dtype)) for _, one in images] or [(0.0, 0.0)]
    return min(low for low, _ in found), max(high for _, high in found)


def _example(images: Named, dtype: PixelType) -> str:
    """The values of the first."""
    name, one = images[0]
    factor = _factor(one.dtype, dtype)
    scaled = {257.0: ", multiplied by 257 for 16 bits", 1 / 257: ", divided by 257 for 8 bits"}.get(factor, "")
    return f"{name} mostly holds {one.quantiles.min():.6g} to {one.quantiles.max():.6g}{scaled}"


def _number(images: Named, total: int, what: str) -> str:
    if len(images) == total:
        return f"all {total:,} {what} have" if total > 1 else "the image has"
    return f"{len(images):,} of {total:,} {what} {'has' if len(images) == 1 else 'have'}"
