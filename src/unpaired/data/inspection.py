"""What a check wants to know of image files, each decoded once, and which of them show the same."""

from __future__ import annotations

import hashlib
import io
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from unpaired.data.arrays import decode
from unpaired.data.images import load_stored, to_mode, upright
from unpaired.errors import DataError

Given = TypeVar("Given")
Made = TypeVar("Made")
Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is, and of how much."""

_ORIENTATION = 0x0112
"""The EXIF tag that says how an image has to be turned."""
_WHITE = (255, 255, 255)
_COLOUR_LEVELS = 12.0
"""Mean difference of two pictures at 8 x 8 pixels, in levels of 255, above which they are not called similar."""
_ROWS = 1024
"""Of the matrix of distances that are computed at a time."""


@dataclass(frozen=True)
class ImageInfo:
    """One image, as training would see it, and as it is stored."""

    width: int
    """Pixels, upright."""
    height: int
    """Pixels, upright."""
    mode: str
    """As stored: RGB, L, P, RGBA, CMYK, I;16, ...; ``5 x float32`` where no such name fits."""
    format: str
    """JPEG, PNG, WEBP, BMP, TIFF, GIF, NPY."""
    frames: int
    """More than 1: an animation or pages; only the first is used."""
    turned: bool
    """EXIF says that it has to be turned or mirrored."""
    digest: bytes
    """Of the size and the 8-bit colour pixels, upright and over white, or of the values as they are where the file
    holds no 8-bit picture: equal for equal pictures."""
    look: bytes
    """8 bytes: whether each of 8 x 8 places of the picture is darker than its right neighbour (dHash)."""
    colours: bytes
    """192 bytes: the picture at 8 x 8 pixels, RGB."""


def inspect(content: bytes, name: Path | str) -> ImageInfo:
    """Decode one image file.

    Args:
        content: The whole file.
        name: What to call it in messages.

    Raises:
        DataError: It cannot be used for training; the message begins with ``name``.
    """
    file = io.BytesIO(content)
    try:
        image = load_stored(file, name)
        if image.mode == "F":
            return _inspect_values(content, name)
    except DataError as error:
        try:
            return _inspect_values(content, name)
        except DataError:
            raise error from None
    mode, kind = image.mode, image.format or "?"
    frames = 1
    if kind == "MPO":  # a JPEG with a preview or a second eye; every reader takes it for a JPEG
        kind = "JPEG"
    else:
        try:
            frames = int(getattr(image, "n_frames", 1))
        except Exception:  # later frames may be damaged; they are not read
            frames = 2
    turned = _orientation(image) not in (0, 1)
    try:
        colour = to_mode(upright(image), "RGB", _WHITE)
    except ValueError as error:
        raise DataError(f"{name}: {error}; save it as 8-bit RGB or 8- or 16-bit gray") from error
    return _info_of(colour, colour.tobytes(), mode, kind, frames, turned)


def _inspect_values(content: bytes, name: Path | str) -> ImageInfo:
    """Facts of a file of floats, of many channels, or NPY. Raises ``DataError`` if it is damaged."""
    stored = decode(io.BytesIO(content), name)
    values = np.nan_to_num(stored.values.astype(np.float32), posinf=0.0, neginf=0.0)
    channels = values.shape[2]
    bands = values[:, :, : 3 if channels >= 3 else 1]
    low, high = bands.min((0, 1)), bands.max((0, 1))
    eight_bits = ((bands - low) / np.where(high > low, high - low, 1) * 255).astype(np.uint8)
    colour = Image.fromarray(eight_bits if eight_bits.shape[2] == 3 else eight_bits[:, :, 0]).convert("RGB")
    mode = f"{channels} x {stored.values.dtype.newbyteorder('=').name}"
    kind = "NPY" if content[:6] == b"\x93NUMPY" else "TIFF"
    return _info_of(colour, np.ascontiguousarray(stored.values).tobytes(), mode, kind, stored.pages, turned=False)


def _info_of(colour: Image.Image, pixels: bytes, mode: str, kind: str, frames: int, turned: bool) -> ImageInfo:
    size = colour.size
    digest = hashlib.blake2b(f"{size}".encode() + pixels, digest_size=16).digest()
    small = np.asarray(colour.convert("L").resize((9, 8), Image.Resampling.BOX)).astype(np.int16)
    look = np.packbits(small[:, :-1] < small[:, 1:]).tobytes()
    colours = colour.resize((8, 8), Image.Resampling.BOX).tobytes()
    return ImageInfo(*size, mode, kind, frames, turned, digest, look, colours)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF data turns nothing
        return 1


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
