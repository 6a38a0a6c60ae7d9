"""Files of any supported kind as arrays in the type they are stored in: through Pillow, tifffile or numpy."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from PIL import Image

from unpaired.data.images import check_size, decoding, open_stored, opened
from unpaired.errors import DataError

Pages = Literal["first", "channels"]
"""What pages of a file are: the first one is the image, or all of them are its channels."""
MAX_CHANNELS = 16

_ORIENTATION = 0x0112
_TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True)
class StoredFacts:
    """What a file holds, known from its header.

    Attributes:
        dtype: numpy's name of the type: uint8, uint16, float32, int16, ...
        channels: Channels of one image, opacity included; with pages as channels, of all pages.
        pages: Pages or frames in the file.
    """

    dtype: str
    channels: int
    pages: int = 1


@dataclass(frozen=True)
class StoredArray:
    """One decoded image, upright.

    Attributes:
        values: (H, W, n) in the type of the file.
        colour: The first three channels are red, green and blue.
        alpha: The last channel is opacity: ``"straight"``, or ``"premultiplied"`` into the others.
        pages: Pages or frames in the file.
    """

    values: np.ndarray
    colour: bool = False
    alpha: Literal["", "straight", "premultiplied"] = ""
    pages: int = 1


def read_stored(path: Path, pages: Pages = "first", channels: int | None = None) -> StoredArray:
    """Read an image file as it is stored, upright.

    Args:
        path: PNG, TIFF, NPY, JPEG, WebP or BMP; the content counts, not the suffix.
        pages: What the pages of a TIFF are.
        channels: The number that is expected, which tells (H, W, C) from (C, H, W) in NPY files.

    Raises:
        DataError: The file is absent, unreadable, damaged, no image or too large.
    """
    with opened(path) as file:
        return decode(file, path, pages, channels)


def stored_facts(path: Path, pages: Pages = "first") -> StoredFacts:
    """What the header of an image file says. Raises ``DataError`` as :func:`read_stored`."""
    with opened(path) as file:
        kind = _kind(file)
        if kind == "npy":
            array = _open_npy(file, path)
            return StoredFacts(array.dtype.name, _npy_layout(array, path, None).shape[2])
        if kind == "tiff":
            from unpaired.data.tiff import tiff_facts

            found = tiff_facts(file, path, pages)
            if found is not None:
                return found
        image = open_stored(file, path)
        if _sixteen_bits(image):
            return StoredFacts("uint16", len(image.getbands()) if "LA" not in _raw_mode(image) else 2)
        dtype = {"F": "float32", "I": "int32"}.get(image.mode, "uint16" if image.mode.startswith("I;16") else "uint8")
        return StoredFacts(dtype, len(image.getbands()))


def decode(file: IO[bytes], where: Path | str, pages: Pages = "first", channels: int | None = None) -> StoredArray:
    """:func:`read_stored` of an open file; ``where`` is what to call it in messages."""
    kind = _kind(file)
    if kind == "npy":
        layout = _npy_layout(_open_npy(file, where), where, channels)
        return StoredArray(np.array(layout))
    if kind == "tiff":
        from unpaired.data.tiff import read_tiff

        found = read_tiff(file, where, pages)
        if found is not None:
            return found
    image = open_stored(file, where)
    with decoding(where):
        samples = _sixteen_bit_samples(image, file)
        image.load()
    return from_picture(image, samples)


def _kind(file: IO[bytes]) -> str:
    file.seek(0)
    head = file.read(8)
    file.seek(0)
    if head[:6] == b"\x93NUMPY":
        return "npy"
    return "tiff" if head[:4] in _TIFF_HEADS else "picture"


def check_channels(channels: int, where: Path | str) -> None:
    """Refuse what has too many channels. Raises ``DataError``, which names it."""
    if not 1 <= channels <= MAX_CHANNELS:
        raise DataError(f"{where}: has {channels} channels, and 1 to {MAX_CHANNELS} can be read; leave some out")


# ---------------------------------------------------------------------------------------------------------------------
# NPY
# ---------------------------------------------------------------------------------------------------------------------
def _open_npy(file: IO[bytes], where: Path | str) -> np.ndarray:
    """The array of a NPY file, mapped and not yet read where it is a file on disk."""
    try:
        if isinstance(file, io.BytesIO):
            return np.lib.format.read_array(file, allow_pickle=False)
        return np.load(file.name, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy's readers let EOFError, SyntaxError and more escape
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{where}: the NPY file cannot be read ({why}); write it again with numpy.save, or delete it"
        ) from error


def _npy_layout(array: np.ndarray, where: Path | str, channels: int | None) -> np.ndarray:
    """An array of an NPY file as (H, W, C)."""
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3:
        raise DataError(f"{where}: an array of an image is (H, W), (H, W, C) or (C, H, W), not {array.shape}")
    first, last = array.shape[0], array.shape[2]
    if last != channels and (first == channels or (last > MAX_CHANNELS >= first)):
        array = np.moveaxis(array, 0, 2)
    check_size(array.shape[1], array.shape[0], where)
    check_channels(array.shape[2], where)
    return array


# ---------------------------------------------------------------------------------------------------------------------
# Pillow
# ---------------------------------------------------------------------------------------------------------------------
def _raw_mode(image: Image.Image) -> str:
    tiles: Any = getattr(image, "tile", None)
    raw = tiles[0].args if tiles else ""
    return raw if isinstance(raw, str) else ""


def _sixteen_bits(image: Image.Image) -> bool:
    """Whether a PNG that is not loaded yet holds 16-bit samples that Pillow would cut down to 8 bits."""
    return image.format == "PNG" and _raw_mode(image) in ("RGB;16B", "RGBA;16B", "LA;16B")


def _sixteen_bit_samples(image: Image.Image, file: IO[bytes]) -> np.ndarray | None:
    """Decode 16-bit colour, or gray with opacity, from an open PNG; None for every other image.

    Pillow's decoder knows the raw modes of 16-bit samples in either byte order and keeps the first or the second byte
    of each. Decoded in both ways, they are the two halves.
    """
    if not _sixteen_bits(image):
        return None
    raw, tile = _raw_mode(image), image.tile[0]  # type: ignore[attr-defined]
    file.seek(0)
    again: Any = Image.open(file, formats=("PNG",))
    if raw == "LA;16B":  # as many bytes per pixel as 8-bit RGBA, so that is how they come
        again._mode, again.tile = "RGBA", [tile._replace(args="RGBA")]
        return np.array(again).view(">u2").astype(np.uint16)
    high = np.array(again).astype(np.uint16)
    file.seek(0)
    again = Image.open(file, formats=("PNG",))
    again.tile = [tile._replace(args=raw.replace("16B", "16L"))]
    return (high << 8) | np.array(again)


def from_picture(image: Image.Image, samples: np.ndarray | None = None) -> StoredArray:
    """A decoded Pillow image of any mode as an array, upright; ``samples`` stand in for its pixels where given."""
    orientation, frames = _orientation(image), _frames(image)
    if samples is None:
        mode = image.mode
        if image.has_transparency_data:
            image = image.convert({"La": "LA", "RGBa": "RGBA"}.get(mode, mode))
            image = image if image.mode in ("LA", "RGBA") else image.convert("LA" if mode == "L" else "RGBA")
        elif mode in ("1", "L"):
            image = image.convert("L")
        elif mode not in ("F", "I") and not mode.startswith("I;16"):
            image = image.convert("RGB")
        samples = np.asarray(image)
    values = turned(samples[:, :, None] if samples.ndim == 2 else samples, orientation)
    channels = values.shape[2]
    return StoredArray(values, channels >= 3, "straight" if channels in (2, 4) else "", frames)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF data turns nothing
        return 1


def _frames(image: Image.Image) -> int:
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # what follows the first frame is damaged; nobody reads it
        return 2


def turned(values_HWC: np.ndarray, orientation: int) -> np.ndarray:
    """An array turned and mirrored as the EXIF or TIFF orientation 1 to 8 says."""
    if orientation in (5, 6, 7, 8):
        values_HWC = values_HWC.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        values_HWC = values_HWC[:, ::-1]
    if orientation in (3, 4, 7, 8):
        values_HWC = values_HWC[::-1]
    return values_HWC
