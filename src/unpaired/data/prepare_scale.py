"""Making images smaller as they are stored: of any type, channels and pages, with what belongs to them.

What is changed is stored without loss: TIFF as TIFF, NPY as NPY, all else as PNG, or as TIFF where PNG cannot hold it.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from unpaired.data.pixels import PixelFormat, as_floats, fitted
from unpaired.data.reading import Stored, described, load, one_large_image
from unpaired.data.resizing import Resample, resize_values, resize_weighted, rounded_to
from unpaired.data.stored import Attached, Description
from unpaired.data.writing import can_hold, encode, left_behind
from unpaired.errors import DataError

SUFFIXES = (".png", ".tif", ".npy")
"""Of what is written."""
_FAINT = 1e-3
"""Weight of the colour of a pixel without opacity: it shows only where there is no other around it."""
_HALF = 0.5
"""Share of data below which a pixel is no data."""
_SCALE, _TIE_POINTS, _MATRIX, _KEYS, _RPC = 33550, 33922, 34264, 34735, 50844
"""GeoTIFF's tags that say where pixels lie."""
_RASTER_TYPE, _POINTS = 1025, 2
"""GeoTIFF's key of what a raster's coordinates are of, and its value for the middles of pixels, not their corners."""


@dataclass(frozen=True)
class Change:
    """How images are made smaller.

    Attributes:
        side: Pixels of the shorter side, or of both sides of a square.
        square: What the images of a square are made of; unset keeps the shape, and what they are made of.
        resample: The filter.
    """

    side: int
    square: PixelFormat | None = None
    resample: Resample = "bicubic"


@dataclass(frozen=True)
class Scaled:
    """A file to write.

    Attributes:
        content: The whole file.
        suffix: Of its name.
        lost: What the original has besides, which has no place in it, in words.
    """

    content: bytes
    suffix: str
    lost: tuple[str, ...] = ()


def shorter_side(side: int) -> Change:
    """Scale the shorter side down to ``side`` pixels, antialiased (bicubic, the filter of training); never up.

    Types, channels, pages, opacity and no data stay what they are; palettes and CMYK become colours.
    """
    return Change(side)


def photo_square(side: int) -> Change:
    """Scale to a square, antialiased (bicubic), as 8-bit sRGB; the shape is not kept."""
    return Change(side, PixelFormat(colour_profiles="convert"))


def label_square(side: int) -> Change:
    """Take every so many pixels of a colour label map, as 8-bit RGB: no colour arises that was not there."""
    return Change(side, PixelFormat(), "nearest")


def scaled(content: bytes, where: str, change: Change) -> Scaled | None:
    """Make an image smaller; None where it is small enough.

    Args:
        content: The whole file.
        where: What to call it in messages.
        change: How.

    Raises:
        DataError: It cannot be read, or such values cannot be scaled.
    """
    with described(io.BytesIO(content), where) as facts, one_large_image(facts):
        if change.square is not None:
            stored = load(io.BytesIO(content), where, profiles=change.square.colour_profiles)
            values = resize_values(fitted(stored, change.square, where), (change.side, change.side), change.resample)
            return Scaled(bytes(encode(values, ".png")), ".png")
        if min(facts.width, facts.height) <= change.side:
            return None
        profiles: Any = "convert" if facts.inks else "ignore"  # a profile of inks says nothing about colours
        images, holes, durations = [], [], []
        for page in range(facts.pages):
            stored = load(io.BytesIO(content), where, page=page, profiles=profiles)
            values, invalid = _smaller(stored, where, change)
            images.append(values)
            holes.append(invalid)
            durations.append(stored.duration)
    height, width, channels = images[0].shape
    attached = _moved(stored.description.attached, width / facts.width, height / facts.height)
    suffix = _suffix(facts, images, void := any(hole is not None for hole in holes))
    try:
        made = encode(images, suffix, replace(attached, alpha=facts.alpha), holes, durations)
    except DataError as error:
        raise DataError(f"{where}: cannot be stored at another size: {error}") from error
    return Scaled(bytes(made), suffix, tuple(left_behind(attached, suffix, channels, holes=void)))


def _smaller(stored: Stored, where: str, change: Change) -> tuple[np.ndarray, np.ndarray | None]:
    """Values of the same type, and which are no data. No data and what is transparent have no part in neighbours."""
    values, invalid = stored.values, stored.invalid
    height, width = values.shape[:2]
    scale = min(1.0, change.side / min(height, width))
    least = min(change.side, height, width)
    size = max(least, round(width * scale)), max(least, round(height * scale))
    straight = stored.description.alpha == "straight" and values.dtype.kind == "u"
    data = np.ones(values.shape, np.float32) if invalid is None else (~invalid).astype(np.float32)
    if values.dtype.name not in ("uint8", "uint16", "float32"):
        as_floats(np.where(data > 0, values, 0).astype(values.dtype), where)  # refuses what these cannot hold
    if invalid is None and not straight:
        return resize_values(values, size, change.resample), None
    weights = data.copy()
    if straight:
        opacity = values[:, :, -1:].astype(np.float32) / np.iinfo(values.dtype).max
        weights[:, :, :-1] *= np.maximum(opacity, _FAINT)
    made, _ = resize_weighted(values, weights, size, change.resample)
    holes = None if invalid is None else resize_values(data, size, change.resample) < _HALF
    return rounded_to(made, values.dtype), holes


def _suffix(facts: Description, images: list[np.ndarray], void: bool) -> str:
    """Of the kind of file that holds images as they are; what reads them again has to take them for the same."""
    if facts.kind in ("TIFF", "NPY"):
        return ".tif" if facts.kind == "TIFF" else ".npy"
    dtype: Any = images[0].dtype.name
    opaque = facts.channels in (1, 3) and not facts.alpha
    known = (opaque or facts.alpha == "straight") and (not void or facts.kind == "PNG")
    return ".png" if known and can_hold(".png", dtype, facts.channels, len(images)) else ".tif"


def _moved(attached: Attached, across: float, down: float) -> Attached:
    """What says how large pixels are and where on earth they lie, for pixels that are fewer by two factors."""
    resolution = attached.resolution
    if resolution is not None:
        resolution = (resolution[0] * across, resolution[1] * down, resolution[2])
    keys = next((np.reshape(value, -1) for code, _, _, value in attached.tags if code == _KEYS), np.zeros(0))
    points = any(key == _RASTER_TYPE and value == _POINTS for key, value in zip(keys[4::4], keys[7::4], strict=False))
    tags = tuple((*tag[:3], _tag(tag[0], tag[3], (across, down), points)) for tag in attached.tags)
    return replace(attached, resolution=resolution, tags=tags)


def _tag(code: int, value: Any, factors: tuple[float, float], points: bool) -> Any:
    """The value of a tag for fewer pixels; as it is where it does not speak of them, or is damaged."""
    across, down = factors
    if code not in (_SCALE, _TIE_POINTS, _MATRIX, _RPC):
        return value
    numbers, middle = np.array(value, np.float64).reshape(-1), 0.5 if points else 0.0
    if code == _SCALE and len(numbers) >= 2:
        numbers[:2] /= factors
    elif code == _TIE_POINTS and len(numbers) % 6 == 0:
        for place, factor in enumerate(factors):
            numbers[place::6] = (numbers[place::6] + middle) * factor - middle
    elif code == _MATRIX and len(numbers) == 16:
        rows = numbers.reshape(4, 4)
        rows[:, 3] += rows[:, :2] @ [middle / across - middle, middle / down - middle]
        rows[:, :2] /= factors
    elif code == _RPC and len(numbers) >= 9:  # lines and samples are counted from the middle of the first
        for place, factor in ((2, down), (3, across)):
            numbers[place] = (numbers[place] + 0.5) * factor - 0.5
            numbers[place + 5] *= factor
    return tuple(numbers.tolist())
