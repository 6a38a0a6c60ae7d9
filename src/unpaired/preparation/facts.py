"""What a check wants to know of one image file, found while it is decoded once."""

from __future__ import annotations

import hashlib
import io
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
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

_ORIENTATION = 0x0112
"""The EXIF tag that says how an image has to be turned."""
_WHITE = (255, 255, 255)


@dataclass(frozen=True)
class ImageFacts:
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


def inspect(content: bytes, name: Path | str) -> ImageFacts:
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
            return _of_values(content, name)
    except DataError as error:
        try:
            return _of_values(content, name)
        except DataError:
            raise error from None
    mode, kind = image.mode, image.format or "?"
    frames = 1
    if kind == "MPO":  # a JPEG with a preview or a second eye; every reader takes it for a JPEG
        kind = "JPEG"
    else:
        try:
            frames = int(getattr(image, "n_frames", 1))
        except Exception:  # what follows the first frame is damaged; nobody reads it
            frames = 2
    turned = _orientation(image) not in (0, 1)
    try:
        colour = to_mode(upright(image), "RGB", _WHITE)
    except ValueError as error:
        raise DataError(f"{name}: {error}; save it as 8-bit RGB or 8- or 16-bit gray") from error
    return _facts(colour, colour.tobytes(), mode, kind, frames, turned)


def _of_values(content: bytes, name: Path | str) -> ImageFacts:
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
    return _facts(colour, np.ascontiguousarray(stored.values).tobytes(), mode, kind, stored.pages, turned=False)


def _facts(colour: Image.Image, pixels: bytes, mode: str, kind: str, frames: int, turned: bool) -> ImageFacts:
    size = colour.size
    digest = hashlib.blake2b(f"{size}".encode() + pixels, digest_size=16).digest()
    small = np.asarray(colour.convert("L").resize((9, 8), Image.Resampling.BOX)).astype(np.int16)
    look = np.packbits(small[:, :-1] < small[:, 1:]).tobytes()
    colours = colour.resize((8, 8), Image.Resampling.BOX).tobytes()
    return ImageFacts(*size, mode, kind, frames, turned, digest, look, colours)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF data turns nothing
        return 1


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
