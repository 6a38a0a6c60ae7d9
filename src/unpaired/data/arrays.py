"""Files of any supported kind as arrays in the type they are stored in: through Pillow, tifffile or numpy."""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from unpaired.data.images import check_size, decoding, open_stored, opened
from unpaired.data.stored import MAX_CHANNELS, Pages, StoredArray, StoredFacts, check_channels, from_picture
from unpaired.data.tiff import read_tiff, tiff_facts
from unpaired.errors import DataError

_TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


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
            f"{where}: the NPY file cannot be read ({why}); write it again with numpy.save, or move it elsewhere"
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
