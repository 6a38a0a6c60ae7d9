"""What a check wants to know of image files, each decoded once, and which of them show the same."""

from __future__ import annotations

import hashlib
import io
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from unpaired.data.pixels import PixelFormat, fitted
from unpaired.data.reading import Stored, described, load, one_large_image
from unpaired.data.resizing import resize_weighted
from unpaired.data.spread import Spread, spread_of
from unpaired.data.stored import Attached, Description
from unpaired.errors import DataError

Given = TypeVar("Given")
Made = TypeVar("Made")
Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is, and of how much."""

_WHITE = PixelFormat()
_COLOUR_LEVELS = 12.0
"""Mean difference of two pictures at 8 x 8 pixels, in levels of 255, above which they are not called similar."""
_ROWS = 1024
"""Of the matrix of distances that are computed at a time."""


@dataclass(frozen=True)
class ImageInfo:
    """One image, as training would see it, and as it is stored."""

    facts: Description
    """What its header says; the pixels can no longer be decoded."""
    no_data: int
    """Values that are no data."""
    digest: bytes
    """Of the size and the 8-bit colour pixels, upright and over white, or of the values as they are where the file
    holds other ones than 8-bit gray or colour: equal for equal pictures."""
    look: bytes
    """8 bytes: whether each of 8 x 8 places of the picture is darker than its right neighbour (dHash)."""
    colours: bytes
    """192 bytes: the picture at 8 x 8 pixels, RGB."""
    spread: Spread | None = None
    """Of its values, opacity excepted."""


def inspect(content: bytes, name: Path | str) -> ImageInfo:
    """Decode one image file.

    Args:
        content: The whole file.
        name: What to call it in messages.

    Raises:
        DataError: It cannot be used for training; the message begins with ``name``.
    """
    with described(io.BytesIO(content), name) as header, one_large_image(header):
        return _inspected(load(io.BytesIO(content), name), name)


def _inspected(stored: Stored, name: Path | str) -> ImageInfo:
    values, invalid, facts = stored.values, stored.invalid, stored.description
    pixels = b""
    if values.dtype == np.uint8:
        with suppress(DataError):
            colour = Image.fromarray(fitted(stored, _WHITE, name))
            pixels = colour.tobytes()
            gray = np.asarray(colour.convert("L").resize((9, 8), Image.Resampling.BOX)).astype(np.int16)
            colours = np.asarray(colour.resize((8, 8), Image.Resampling.BOX))
    if not pixels:
        pixels = np.ascontiguousarray(values).tobytes()
        gray, colours = _stretched(stored, (9, 8)).mean(-1), (_stretched(stored, (8, 8)) * 255).astype(np.uint8)
    digest = hashlib.blake2b(f"{values.shape[1::-1]}".encode() + pixels, digest_size=16).digest()
    look = np.packbits(gray[:, :-1] < gray[:, 1:]).tobytes()
    holes = 0 if invalid is None else int(invalid.sum())
    return ImageInfo(facts_of(facts), holes, digest, look, colours.tobytes(), spread_of(stored))


def facts_of(description: Description) -> Description:
    """A description without what decodes the pixels, which would hold on to them."""
    inks = description.inks and np.empty
    return replace(description, samples=np.empty, inks=inks, valid=None, duration=float, attached=Attached())


def _stretched(stored: Stored, size: tuple[int, int]) -> np.ndarray:
    """The first three channels, or three times the first, at a small size (width, height), each from 0 to 1.

    Values of more than 8 bits mostly fill a part of their range, so each channel is stretched over its own, no data
    excepted, and after it has become small: one bright pixel does not matter then.
    """
    shown = slice(3 if stored.values.shape[2] >= 3 else 1)
    with np.errstate(over="ignore"):
        values = np.nan_to_num(stored.values[:, :, shown].astype(np.float32))
    data = np.ones(values.shape, bool) if stored.invalid is None else ~stored.invalid[:, :, shown]
    small, share = resize_weighted(values, data, size, "area")
    known = share > 0
    small = np.where(known, small, small.sum((0, 1), where=known) / np.maximum(known.sum((0, 1)), 1))
    low, high = small.min((0, 1)), small.max((0, 1))
    small = (small - low) / np.where(high > low, high - low, 1)
    return np.repeat(small, 3, axis=2) if small.shape[2] == 1 else small


def equal_pictures(info: Mapping[str, ImageInfo]) -> list[list[str]]:
    """Groups of paths whose pixels are all equal, each sorted, in the order of their first."""
    groups: dict[bytes, list[str]] = {}
    for path in sorted(info):
        groups.setdefault(info[path].digest, []).append(path)
    return [group for group in groups.values() if len(group) > 1]


def similar_pictures(info: Mapping[str, ImageInfo], threshold: int) -> list[tuple[str, str]]:
    """Pairs of paths whose pictures look alike and are not equal.

    Alike: at most ``threshold`` of the 64 bits of the two hashes differ, and the colours at 8 x 8 pixels are near.
    Scaled, recompressed and slightly changed copies are; so may be pictures that are merely simple. Every pair is
    compared: with bits as -1 and 1, a matrix product counts those that differ.
    """
    paths = sorted(info)
    if threshold < 0 or len(paths) < 2:
        return []
    looks = np.unpackbits(np.frombuffer(b"".join(info[path].look for path in paths), np.uint8)).reshape(-1, 64)
    signs = looks.astype(np.float32) * 2 - 1
    colours = np.stack([np.frombuffer(info[path].colours, np.uint8) for path in paths]).astype(np.int16)
    found = []
    for begin in range(0, len(paths), _ROWS):
        near = signs[begin : begin + _ROWS] @ signs[begin:].T >= 64 - 2 * threshold
        for i, j in np.argwhere(np.triu(near, 1)) + begin:
            different = info[paths[i]].digest != info[paths[j]].digest
            if different and np.abs(colours[i] - colours[j]).mean() <= _COLOUR_LEVELS:
                found.append((paths[i], paths[j]))
    return found


def in_threads(work: Callable[[Given], Made], items: Iterable[Given], threads: int | None = None) -> Iterator[Made]:
    """``map(work, items)`` in threads, in order, with few results waiting; decoding releases Python's lock.

    Whoever stops listening, or is interrupted, waits only for what has begun.
    """
    count = threads or min(8, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(count)
    waiting: deque = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= 4 * count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
