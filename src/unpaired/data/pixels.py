"""The format of a domain's pixels: channels, type, mapping; every file of the domain is brought to it when read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unpaired.config import settings
from unpaired.data.arrays import read_stored
from unpaired.data.images import read_image, to_mode
from unpaired.data.mapping import BYTES, LARGEST, PixelType, ValueMapping
from unpaired.data.stored import Byte, Channels, Pages, StoredArray, from_picture
from unpaired.errors import DataError

_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow weighs colours
_TIFF_SUFFIXES = (".tif", ".tiff")


@settings
class PixelFormat:
    """What the images of one domain are made of; stored with a run, so that translations are written in it."""

    channels: Channels = 3
    """1 to 16."""
    dtype: PixelType = "uint8"
    """Type of a value."""
    mapping: ValueMapping = BYTES
    """Values to [-1, 1] and back."""
    pages: Pages = "first"
    """Whether the first page of a file is the image, or its pages are the channels."""
    background: tuple[Byte, Byte, Byte] = (255, 255, 255)
    """Red, green, blue (0 to 255) behind transparent pixels."""
    fill_value: float | None = None
    """Stands in for values that are not finite; None refuses files that hold any."""

    def __post_init__(self) -> None:
        self.mapping.check(self.dtype, self.channels)

    @property
    def plain(self) -> bool:
        """Whether it is 8-bit gray or colour as everybody has it."""
        return (
            self.dtype == "uint8" and self.channels in (1, 3) and self.mapping.of_bytes and self.pages == "first"
        )  # fmt: skip

    @property
    def words(self) -> str:
        """Channels and type for people: ``5 channels of float32``."""
        return f"{self.channels} channel{'s' * (self.channels != 1)} of {self.dtype}"

    def to_floats(self, values: Tensor, pin_memory: bool = False) -> Tensor:
        """Values (..., C, H, W) as float32 in [-1, 1]."""
        return self.mapping.to_floats(values, pin_memory)

    def to_values(self, floats_CHW: Tensor) -> np.ndarray:
        """One image (C, H, W) in [-1, 1] as values (H, W, C) of this type; what lies outside is clamped.

        Raises:
            ValueError: A value is NaN.
        """
        return np.ascontiguousarray(self.mapping.to_values(floats_CHW, self.dtype).numpy().transpose(1, 2, 0))


def read_values(path: str | Path, pixels: PixelFormat) -> np.ndarray:
    """Read an image file as (H, W, C) of the format's type and channels, upright and opaque.

    8-bit gray or colour goes through :func:`~unpaired.data.images.read_image`. Otherwise integers are scaled from one
    type's range to the other's, integers in a float32 domain stay the numbers they are, gray becomes colour by
    repetition, colour gray as luma, and opacity that the format does not count as a channel is composited.

    Raises:
        DataError: The file cannot be used, has other channels, or holds values that are not finite.
    """
    path = Path(path)
    if pixels.plain and path.suffix.lower() != ".npy":
        try:
            image = read_image(path, pixels.channels, pixels.background)
            return _with_channels(np.asarray(image))
        except DataError:
            if path.suffix.lower() not in _TIFF_SUFFIXES:  # kinds of TIFF that Pillow does not know
                raise
    return fitted(read_stored(path, pixels.pages, pixels.channels), pixels, path)


def picture_values(image: Image.Image, pixels: PixelFormat) -> np.ndarray:
    """A Pillow image as :func:`read_values` would read it from a file, not turned.

    Raises:
        DataError: Its mode does not fit the format.
    """
    if pixels.plain:
        try:
            return _with_channels(np.asarray(to_mode(image, "L" if pixels.channels == 1 else "RGB", pixels.background)))
        except ValueError as error:
            raise DataError(f"a PIL image of mode {image.mode}: {error}; convert it to 8 bits") from error
    return fitted(from_picture(image), pixels, f"a PIL image of mode {image.mode}")


def array_values(array_HWC: np.ndarray, pixels: PixelFormat) -> np.ndarray:
    """An array (H, W, C) of file values in the format's type. Raises ``DataError`` if it does not fit."""
    return fitted(StoredArray(array_HWC), pixels, f"an array of {array_HWC.dtype} {array_HWC.shape}")


def fitted(stored: StoredArray, pixels: PixelFormat, where: Path | str) -> np.ndarray:
    """Bring a decoded image to a format: its type first, then its channels.

    Raises:
        DataError: It cannot be; the message names ``where``.
    """
    values = _of_type(stored.values, pixels, where)
    channels = values.shape[2]
    if channels != pixels.channels and stored.alpha:
        values = _composited(values, stored, pixels)
        channels -= 1
    if channels == pixels.channels:
        return values
    if channels == 1 and pixels.channels == 3:
        return np.repeat(values, 3, axis=2)
    if stored.colour and channels == 3 and pixels.channels == 1:
        return _rounded(values.astype(np.float64) @ np.array(_LUMA)[:, None], values.dtype)
    if stored.colour and channels == 3 and pixels.channels == 4 and pixels.dtype != "float32":
        opaque = np.full((*values.shape[:2], 1), LARGEST[pixels.dtype], values.dtype)
        return np.concatenate([values, opaque], axis=2)
    pages = ""
    if stored.pages > 1 and pixels.pages == "first":
        pages = f" on its first page and {stored.pages} pages (--pages channels takes them as channels)"
    raise DataError(
        f"{where}: has {_count(stored.values.shape[2])}{pages}, "
        f"but the settings say {_count(pixels.channels)}; set --channels for the source domain and --target-channels "
        "for the target, or leave this file out"
    )


def _count(channels: int) -> str:
    return f"{channels} channel{'s' * (channels != 1)}"


def _with_channels(values: np.ndarray) -> np.ndarray:
    return values[:, :, None] if values.ndim == 2 else values


def _of_type(values: np.ndarray, pixels: PixelFormat, where: Path | str) -> np.ndarray:
    """Values of any type in the format's type."""
    if values.dtype == bool:
        values = values.astype(np.uint8) * 255
    name = values.dtype.newbyteorder("=").name
    if pixels.dtype == "float32":
        return _finite(values, pixels, where)
    if name == pixels.dtype:
        return np.ascontiguousarray(values, dtype=name)
    if (name, pixels.dtype) == ("uint8", "uint16"):
        return values.astype(np.uint16) * 257
    if (name, pixels.dtype) == ("uint16", "uint8"):
        return ((values.astype(np.int64) * 255 + 32767) // 65535).astype(np.uint8)
    raise DataError(
        f"{where}: holds {name}, but the images of this domain are {pixels.dtype}; convert it, or leave it out"
    )


def _finite(values: np.ndarray, pixels: PixelFormat, where: Path | str) -> np.ndarray:
    """Values of any real type as float32, without NaN and infinities."""
    if values.dtype.kind not in "fiu":
        raise DataError(f"{where}: holds {values.dtype}, which is no type of an image; convert it to float32")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused below
        floats = np.ascontiguousarray(values, dtype=np.float32)
    if values.dtype.kind in "iu" and values.dtype.itemsize > 2 and (floats != values).any():
        raise DataError(f"{where}: holds {values.dtype} values that float32 cannot tell apart; convert it to uint16")
    wrong = ~np.isfinite(floats)
    if not wrong.any():
        return floats
    if pixels.fill_value is None:
        raise DataError(
            f"{where}: {wrong.sum():,} of its {wrong.size:,} values are not finite (NaN or infinity); mend the file, "
            "or say with --fill-value what stands in their place"
        )
    return np.where(wrong, np.float32(pixels.fill_value), floats)


def _composited(values: np.ndarray, stored: StoredArray, pixels: PixelFormat) -> np.ndarray:
    """Colour or gray over the background, without its opacity."""
    bands = values.shape[2] - 1
    if values.dtype.kind != "u":  # opacity of floating-point images has no agreed scale
        return np.ascontiguousarray(values[:, :, :bands])
    top = float(LARGEST[pixels.dtype])
    behind: Any = np.array(pixels.background, np.float64) / 255 * top
    if bands == 1:
        behind = behind @ np.array(_LUMA)
    opacity = values[:, :, bands:] / top
    front = values[:, :, :bands].astype(np.float64)
    front = front if stored.alpha == "premultiplied" else front * opacity
    return _rounded(front + (1 - opacity) * behind, values.dtype)


def _rounded(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if dtype.kind != "u":
        return np.ascontiguousarray(values, dtype=dtype)
    return np.clip(np.rint(values), 0, np.iinfo(dtype).max).astype(dtype)


def tensor_of(values_HWC: np.ndarray) -> Tensor:
    """Values (H, W, C) as a contiguous tensor (C, H, W) of the same type."""
    return torch.from_numpy(np.array(values_HWC.transpose(2, 0, 1), order="C"))
