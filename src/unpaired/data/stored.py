"""The one description of an image, whatever it came from, and the table of the kinds of files."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, ClassVar, Literal

import numpy as np

from unpaired.data.mapping import PixelType
from unpaired.data.sizes import MAX_CHANNELS, MAX_IMAGE_PIXELS
from unpaired.errors import DataError

Pages = Literal["first", "channels"]
"""What pages of a file are: each one is an image, of which the first is taken, or all of them are channels of one."""
Profiles = Literal["convert", "ignore"]
"""Whether values of another colour profile become sRGB, or stay the numbers they are."""
_PADDED = 2**27
"""Bytes that the tiles of any image may take, padding included; those of larger ones may take four times as much."""


@dataclass(frozen=True)
class Attached:
    """What travels with an image beside its pixels.

    Attributes:
        profile: The colour profile of its pixels, as they are read; empty where nothing is said.
        resolution: Pixels across and down per unit, and TIFF's number of the unit: 1 for none, 2 inch, 3 centimetre.
        tags: GeoTIFF's and descriptive tags of a TIFF as (code, type, count, value).
        no_data: Value or values (one per channel) that the file declares to be no data.
        channels: Of the image that it belongs to.
        dropped: What the file has besides, which does not travel, in words.
        alpha: What the last channel that is written is, as of :class:`Description`; only TIFF has to be told.
    """

    profile: bytes = b""
    resolution: tuple[float, float, int] | None = None
    tags: tuple[tuple[int, int, int, Any], ...] = ()
    no_data: tuple[float, ...] = ()
    channels: int = 0
    dropped: tuple[str, ...] = ()
    alpha: Literal["", "straight", "premultiplied"] = ""

    @property
    def pixels_per_inch(self) -> tuple[float, float] | None:
        """Across and down; None where nothing was said or there is no unit."""
        across, down, unit = self.resolution or (0.0, 0.0, 0)
        scale = {2: 1.0, 3: 2.54}.get(unit)
        return (across * scale, down * scale) if scale else None

    def profile_for(self, channels: int) -> bytes:
        """The profile, if it applies to images with this number of channels; else empty."""
        space = {1: b"GRAY", 2: b"GRAY", 3: b"RGB ", 4: b"RGB "}.get(channels)
        return self.profile if self.profile[16:20] == space else b""


@dataclass(frozen=True)
class Description:
    """All that the header says of an image in a file, a Pillow image or an array, and how to get at its samples.

    Attributes:
        kind: JPEG, PNG, WEBP, BMP, TIFF, GIF, NPY, ...
        mode: For people: RGB, L, P, RGBA, CMYK, I;16, ...; ``5 x float32`` where no such name fits.
        width: Pixels, upright.
        height: Pixels, upright.
        dtype: numpy's name of the type: uint8, uint16, float32, int16, ...
        channels: Of one image, opacity included; with pages as channels, of all pages.
        samples: Decodes a page, the first being 0: (H, W, channels) of this type, not yet turned, 0 being black.
        colour: The first three channels are red, green and blue.
        alpha: The last channel is opacity: ``"straight"``, or ``"premultiplied"`` into the others.
        orientation: How the samples have to be turned, 1 to 8 as EXIF and TIFF have it.
        pages: Pages or frames in the file that are images of their own.
        profile: Of the samples, or of the inks, where it is another one than sRGB.
        convertible: They can be converted from it; else they stay as they are, and it travels with them.
        inks: Decodes a page as ``samples`` does, in the cyan, magenta, yellow and black that it is stored in, if it is.
        no_data: Value or values (one per channel, all of which have to agree) of samples that are no data.
        valid: Decodes a mask (H, W) of the pixels that are data, where there is one.
        attached: What travels with the pixels.
        duration: Milliseconds that the page decoded last is shown.
    """

    kind: str
    mode: str
    width: int
    height: int
    dtype: str
    channels: int
    samples: Callable[[int], np.ndarray]
    colour: bool = False
    alpha: Literal["", "straight", "premultiplied"] = ""
    orientation: int = 1
    pages: int = 1
    profile: bytes = b""
    convertible: bool = False
    inks: Callable[[int], np.ndarray] | None = None
    no_data: tuple[float, ...] = ()
    valid: Callable[[], np.ndarray] | None = None
    attached: Attached = field(default_factory=Attached)
    duration: Callable[[], float] = lambda: 0.0


class FileKind(ABC):
    """A family of file formats. A subclass decorated with :func:`file_kind` in a file of ``data/kinds/`` adds one."""

    suffixes: ClassVar[Mapping[str, str]]
    """Suffix, in lower case -> name of the format."""
    begins: ClassVar[tuple[bytes, ...]]
    """First bytes that tell such files from others; none: every file that no other kind knows."""

    @abstractmethod
    def describe(self, file: IO[bytes], where: Path | str, pages: Pages, channels: int | None) -> Description:
        """Read the header of a file; ``channels`` are expected, where a layout could be read in two ways.

        Raises:
            DataError: It is damaged or no image; the message begins with ``where``.
        """

    @abstractmethod
    def can_hold(self, suffix: str, dtype: PixelType, channels: int, pages: int) -> bool:
        """Whether files of this suffix can hold such images as they are."""

    @abstractmethod
    def encode(self, images: Sequence[np.ndarray], suffix: str, attached: Attached, durations: Sequence[float]) -> Any:
        """A file of one or several images (H, W, C) in memory, as bytes.

        Raises:
            OSError, ValueError: The size is beyond what such files allow.
        """


KINDS: list[FileKind] = []
"""All kinds; the one that takes every file is the last."""
IMAGE_SUFFIXES: dict[str, str] = {}
"""Suffix -> name of the format, for everything that is read and written."""


def file_kind(kind: type[FileKind]) -> type[FileKind]:
    """Add a kind of files to the table."""
    KINDS.insert(len(KINDS) if not kind.begins else 0, kind())
    IMAGE_SUFFIXES.update(kind.suffixes)
    return kind


def mode_name(dtype: str, channels: int, *, colour: bool = False, alpha: bool = False) -> str:
    """Pillow's name of such pixels, where it has one, else ``5 x float32``.

    >>> mode_name("uint8", 4, colour=True, alpha=True), mode_name("uint16", 3, colour=True)
    ('RGBA', '3 x uint16')
    """
    names = {("uint8", 1, False, False): "L", ("uint8", 2, False, True): "LA", ("uint8", 3, True, False): "RGB",
             ("uint8", 4, True, True): "RGBA", ("uint16", 1, False, False): "I;16"}  # fmt: skip
    return names.get((dtype, channels, colour, alpha), f"{channels} x {dtype}")


def check_channels(channels: int, where: Path | str) -> None:
    """Refuse what has too many channels. Raises ``DataError``, which names it."""
    if not 1 <= channels <= MAX_CHANNELS:
        raise DataError(f"{where}: has {channels} channels, and 1 to {MAX_CHANNELS} can be read; leave some out")


def check_size(width: int, height: int, where: Path | str, max_pixels: int = MAX_IMAGE_PIXELS) -> None:
    """Refuse, before anything is decoded, what has no pixels or too many. Raises ``DataError``, which names it."""
    if width < 1 or height < 1:
        raise DataError(f"{where}: the image has no pixels ({width} x {height}); move it elsewhere")
    if width * height > max_pixels:
        raise DataError(
            f"{where}: {width:,} x {height:,} pixels are more than the limit of {max_pixels:,}; "
            "cut the image into tiles or scale it down first"
        )


def check_tiles(tile: tuple[int, int], size: tuple[int, int], bytes_per_pixel: int, where: Path | str) -> None:
    """Refuse tiles (width, height) that take far more memory than an image of this size. Raises ``DataError``."""
    count = math.prod(math.ceil(whole / part) for whole, part in zip(size, tile, strict=True) if part > 0)
    needed = count * math.prod(tile) * bytes_per_pixel
    if needed > max(_PADDED, 4 * math.prod(size) * bytes_per_pixel):
        raise DataError(
            f"{where}: tiles of {tile[0]:,} x {tile[1]:,} pixels are far too large for an image of {size[0]:,} x "
            f"{size[1]:,}; write it again in smaller ones"
        )


@contextmanager
def decoding(where: Path | str) -> Iterator[None]:
    """Turn whatever a decoder raises in the block into one message about the file.

    Raises:
        DataError: The pixels could not be decoded.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # readers let struct.error, SyntaxError, ValueError and more escape
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{where}: the image is truncated or damaged ({why}); copy or download it again, or move it elsewhere"
        ) from error
