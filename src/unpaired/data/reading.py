"""Reading images: files, Pillow images and arrays, all by way of one description; every bad one is one message."""

from __future__ import annotations

import ctypes
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from unpaired.data.cache import SHARED_BY_FORK
from unpaired.data.kinds.npy import describe_array
from unpaired.data.kinds.pillow import describe_picture
from unpaired.data.profiles import CHANNELS, srgb, to_srgb
from unpaired.data.stored import KINDS, Description, Pages, Profiles, decoding
from unpaired.errors import DataError
from unpaired.files import open_file

with suppress(ModuleNotFoundError):  # on Windows
    import fcntl


class Item(ABC):
    """An image that is fetched when it is read; ``str`` of it is its name in messages."""

    @abstractmethod
    def get(self) -> Given:
        """What it is read from. Raises ``DataError``."""


Given = str | Path | IO[bytes] | Image.Image | np.ndarray | Item
"""What an image can be read from: a file, an open one, Pillow's image, an array of the values that files hold, or
something that gives one of these."""

Free = Callable[[], int]
"""Bytes that may still be taken."""
_COPIES = 6
"""Decoding takes at most so many times the bytes of the pixels (measured: 4.8)."""
_SMALL = 2**26


class _Turn:
    """One holder at a time among the threads of this process and the processes forked from it.

    The lock between processes is one of the system on a file without a name: a process that is killed gives it back.
    """

    def __init__(self) -> None:
        self._file = os.memfd_create("unpaired") if SHARED_BY_FORK else None
        self._begin()
        if self._file is not None:
            os.register_at_fork(after_in_child=self._begin)  # whatever a thread of the parent holds

    def _begin(self) -> None:
        self._threads, self._depth = threading.RLock(), 0

    def __enter__(self) -> None:
        self._threads.acquire()
        if self._depth == 0 and self._file is not None:
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX)
            except BaseException:  # Ctrl-C while it waits
                self._threads.release()
                raise
        self._depth += 1

    def __exit__(self, *error: object) -> None:
        self._depth -= 1
        if self._depth == 0 and self._file is not None:
            fcntl.lockf(self._file, fcntl.LOCK_UN)
        self._threads.release()


_one_large_image = _Turn()


@dataclass(frozen=True)
class Stored:
    """One decoded image, upright.

    Attributes:
        values: (H, W, n) in the type that it is stored in; colours converted if asked for.
        invalid: (H, W, n) bool, where values are no data (declared, masked or not finite); None: all are data.
        description: What the header says.
        duration: Milliseconds that a frame of an animation is shown.
    """

    values: np.ndarray
    invalid: np.ndarray | None
    description: Description
    duration: float = 0.0


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """A file, open for reading, for the time of the block.

    Raises:
        DataError: It is absent, a folder, or must not or cannot be read.
    """
    try:
        with open_file(path) as file:
            yield file
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except IsADirectoryError:
        raise DataError(f"{path}: is a folder, not an image file") from None
    except PermissionError:
        raise DataError(f"{path}: permission denied; make the file readable for this user (chmod +r)") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def name_of(given: Given) -> str:
    """What to call an image in messages."""
    if isinstance(given, np.ndarray):
        return f"an array of {given.dtype} {given.shape}"
    return f"a PIL image of mode {given.mode}" if isinstance(given, Image.Image) else str(given)


@contextmanager
def described(
    given: Given, where: Path | str = "", pages: Pages = "first", channels: int | None = None
) -> Iterator[Description]:
    """The description of an image, whose pixels can be decoded for the time of the block.

    A Pillow image that was opened and not yet decoded is read from its file, so that nothing of it is lost.

    Args:
        given: The image.
        where: What to call it in messages, where it has no name of its own.
        pages: What the pages of a TIFF are.
        channels: The number that is expected, which tells (H, W, C) from (C, H, W) in arrays.

    Raises:
        DataError: It is absent, unreadable, damaged, no image or too large.
    """
    where = where or name_of(given)
    if isinstance(given, Item):
        given = given.get()
    if isinstance(given, np.ndarray):
        yield describe_array(given, where, channels)
        return
    file: Any = given
    if isinstance(given, Image.Image):
        file, position = _file_behind(given)
        if file is None:
            yield describe_picture(given, where)
            return
    with opened(Path(file)) if isinstance(file, str | Path) else nullcontext(file) as readable:
        try:
            readable.seek(0)
            head = readable.read(32)
            readable.seek(0)
            kind = next(kind for kind in KINDS if not kind.begins or head.startswith(kind.begins))
            with decoding(where):
                description = kind.describe(readable, where, pages, channels)
            yield description
        finally:
            if isinstance(given, Image.Image):
                readable.seek(position)


def _file_behind(image: Image.Image) -> tuple[Any, int]:
    """The open file of a Pillow image whose pixels are still those of its first frame on disk, and where it stands."""
    file: Any = getattr(image, "fp", None)
    untouched = getattr(image, "tile", None) and getattr(image, "tell", int)() == 0 and not getattr(
        image, "decoderconfig", ()
    )  # fmt: skip
    try:
        return (file, file.tell()) if file is not None and untouched else (None, 0)
    except ValueError:  # closed
        return None, 0


def describe(given: Given, pages: Pages = "first") -> Description:
    """What the header of an image says; its pixels can no longer be decoded. Errors as of :func:`described`."""
    with described(given, pages=pages) as description:
        return description


def load(
    given: Given,
    where: Path | str = "",
    pages: Pages = "first",
    channels: int | None = None,
    page: int = 0,
    profiles: Profiles = "ignore",
    free: Free | None = None,
) -> Stored:
    """Read an image as it is stored, upright; arguments and errors as of :func:`described`, ``page`` from 0.

    What would take more than ``free`` bytes raises ``DataError`` too. Only one large image is decoded at a time.
    """
    where = where or name_of(given)
    with described(given, where, pages, channels) as description, _room(description, where, free), decoding(where):
        convert = description.convertible and profiles == "convert"
        values = ((convert and description.inks) or description.samples)(page)
        invalid = None if description.valid is None else ~description.valid()
        duration = description.duration()
    if invalid is not None and invalid.ndim == 2:
        invalid = np.broadcast_to(invalid[:, :, None], values.shape)
    for found in _no_data(values, description):
        invalid = found if invalid is None else invalid | found
    if convert:
        values = _converted(values, description)
        description = replace(description, attached=replace(description.attached, profile=srgb()))
    values = _turned(values, description.orientation)
    if invalid is not None:
        invalid = _turned(invalid, description.orientation) if invalid.any() else None
    return Stored(values, invalid, description, duration)


@contextmanager
def one_large_image(facts: Description) -> Iterator[int]:
    """Wait for other threads and loading processes that have a large image in hand; how many bytes decoding takes."""
    bytes_per_pixel = max(3, facts.channels) * np.dtype(facts.dtype).itemsize  # gray may become colour
    needed = _COPIES * facts.width * facts.height * bytes_per_pixel
    if needed < _SMALL:
        yield needed
        return
    with _one_large_image:
        try:
            yield needed
        finally:
            with suppress(AttributeError, OSError, TypeError):  # glibc keeps for each thread what Pillow has freed
                ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def _room(facts: Description, where: Path | str, free: Free | None) -> Iterator[None]:
    """Wait for other threads that decode a large image, and refuse what takes more than is free."""
    with one_large_image(facts) as needed:
        if free is not None and needed >= _SMALL and needed > (left := free()):
            raise DataError(
                f"{where}: decoding {facts.width:,} x {facts.height:,} pixels takes {needed / 2**30:.1f} GiB, and "
                f"memory_gib leaves {max(left, 0) / 2**30:.1f} GiB; allow more, or cut the image into tiles"
            )
        yield


def _no_data(values: np.ndarray, description: Description) -> Iterator[np.ndarray]:
    """Where values are declared to be no data, not finite, or have no opacity at all where it has no scale."""
    if description.no_data:
        with np.errstate(over="ignore"):
            key = np.array(description.no_data, values.dtype if values.dtype.kind == "f" else np.float64)
        equal = values == key
        yield equal if len(key) == 1 else np.broadcast_to(equal.all(-1, keepdims=True), values.shape)
    if values.dtype.kind == "f":
        yield ~np.isfinite(values)
    if description.alpha and values.dtype.kind != "u":
        yield np.broadcast_to(values[:, :, -1:] == 0, values.shape)


def _converted(values: np.ndarray, description: Description) -> np.ndarray:
    """Values in sRGB; opacity stays as it is."""
    count = CHANNELS[description.profile[16:20]]
    colours, others = values[:, :, :count], values[:, :, count:]
    if description.alpha != "premultiplied":
        return np.concatenate([to_srgb(colours, description.profile), others], axis=2)
    top = np.iinfo(values.dtype).max
    straight = np.minimum(np.rint(colours * (top / np.maximum(others, 1.0))), top).astype(values.dtype)
    colours = np.rint(to_srgb(straight, description.profile) * (others / top)).astype(values.dtype)
    return np.concatenate([colours, others], axis=2)


def _turned(values_HWC: np.ndarray, orientation: int) -> np.ndarray:
    """An array turned and mirrored as the EXIF or TIFF orientation 1 to 8 says."""
    if orientation in (5, 6, 7, 8):
        values_HWC = values_HWC.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        values_HWC = values_HWC[:, ::-1]
    if orientation in (3, 4, 7, 8):
        values_HWC = values_HWC[::-1]
    return values_HWC
