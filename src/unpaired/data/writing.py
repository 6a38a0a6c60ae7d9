"""Writing arrays of any supported type and number of channels as image files, with what belongs to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from unpaired.data.mapping import PixelType
from unpaired.data.profiles import srgb
from unpaired.data.stored import KINDS, Attached, FileKind
from unpaired.errors import DataError

_NOTHING = Attached()
_DECLARING = (".tif", ".tiff", ".png")
"""Kinds of files in which a value can be declared to be no data."""


def _kind(suffix: str) -> FileKind | None:
    return next((kind for kind in KINDS if suffix in kind.suffixes), None)


def can_hold(suffix: str, dtype: PixelType, channels: int, pages: int = 1) -> bool:
    """Whether a kind of file can hold such images as they are."""
    kind = _kind(suffix.lower())
    return kind is not None and kind.can_hold(suffix.lower(), dtype, channels, pages)


def encode(
    images: np.ndarray | Sequence[np.ndarray],
    suffix: str,
    attached: Attached = _NOTHING,
    invalid: Sequence[np.ndarray | None] = (),
    durations: Sequence[float] = (),
) -> Any:
    """An image file in memory.

    Args:
        images: Values (H, W, C) of a type that the kind of file holds, one or several pages or frames.
        suffix: Kind of file, for example ``.tif``; it must be able to hold them.
        attached: What goes with the pixels, as far as the kind of file has a place for it.
        invalid: Per image, where it is no data, (H, W, C) or (H, W, 1) bool, or None.
        durations: Milliseconds that each frame of an animation is shown.

    Returns:
        Its bytes.

    Raises:
        DataError: The size is beyond what such files allow.
    """
    suffix = suffix.lower()
    images = [images] if isinstance(images, np.ndarray) else images
    kind = _kind(suffix)
    assert kind is not None
    declared = attached.no_data if suffix in _DECLARING else ()
    holes = [*invalid, *[None] * (len(images) - len(invalid))]
    value = no_data_value(images[0].dtype, declared)
    held = bool(declared) and (images[0].dtype.kind == "f" or value == declared[0])
    if held or any(hole is not None for hole in holes):
        images = [with_no_data(image, hole, value) for image, hole in zip(images, holes, strict=True)]
        declared = (value,)
    else:  # nothing, or a value that the type cannot hold and no pixel needs
        declared = ()
    height, width = images[0].shape[:2]
    try:
        return kind.encode(
            [np.ascontiguousarray(image) for image in images], suffix, replace(attached, no_data=declared), durations
        )
    except (OSError, ValueError) as error:  # JPEG and WebP have a largest size
        raise DataError(f"{width} x {height} pixels as {suffix} ({error})") from error


def no_data_value(dtype: np.dtype, declared: Sequence[float] = ()) -> float:
    """What stands for no data in values of a type: what the source declared where they can hold it, else NaN or 0."""
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return float(dtype.type(declared[0])) if declared and np.isfinite(dtype.type(declared[0])) else np.nan
    value, limits = declared[0] if declared else 0.0, np.iinfo(dtype)
    return value if limits.min <= value <= limits.max and value == int(value) else 0.0


def with_no_data(values: np.ndarray, invalid: np.ndarray | None, value: float) -> np.ndarray:
    """Values (H, W, C) with ``value`` where they are no data, and the nearest other one where they only seem to be."""
    if np.isnan(value):
        return values if invalid is None else np.where(invalid, values.dtype.type(value), values)
    own = values.dtype.type(value)
    if values.dtype.kind == "f":
        beside = np.nextafter(own, values.dtype.type(np.inf))
    else:
        beside = own - 1 if own == np.iinfo(values.dtype).max else own + 1
    values = np.where(values == own, beside, values)
    return values if invalid is None else np.where(invalid, own, values)


def left_behind(attached: Attached, suffix: str, channels: int, *, holes: bool = False) -> list[str]:
    """What is attached to a source and has no place in a translation, in words."""
    suffix = suffix.lower()
    words = list(attached.dropped)
    if attached.tags and suffix not in (".tif", ".tiff"):
        words.append("GeoTIFF's and descriptive tags")
    elif any(code == 42112 for code, *_ in attached.tags) and channels != attached.channels:
        words.append("names and scales of bands")
    if attached.profile not in (b"", srgb()) and not attached.profile_for(channels):
        words.append("colour profile")
    if (holes or attached.no_data) and suffix not in _DECLARING and suffix != ".npy":
        words.append("the no-data value")
    return words
