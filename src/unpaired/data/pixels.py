"""The format of a domain's pixels: channels, type, mapping; every file of the domain is brought to it when read."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unpaired.config import Value, settings
from unpaired.data.mapping import BYTES, LARGEST, PixelType, ValueMapping
from unpaired.data.reading import Free, Given, Stored, load, name_of
from unpaired.data.resizing import rounded_to
from unpaired.data.sizes import Byte, Channels
from unpaired.data.stored import Description, Pages, Profiles
from unpaired.errors import DataError, ValueRangeWarning

_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow weighs colours


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
    fill_value: Value | None = None
    """Stands in for values that are no data; None takes the mean of the others of their channel."""

    colour_profiles: Profiles = "ignore"
    """convert: values of another profile than sRGB are converted to it."""

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


@dataclass(frozen=True)
class Picture:
    """One image in the format of its domain.

    Attributes:
        values: (H, W, C) of the format's type and channels, upright and opaque; what was no data is filled.
        invalid: (H, W, C), or (H, W, n) with the channels of the file: what was no data; None: nothing.
        description: What the file, or what else it came from, says.
        duration: Milliseconds that a frame of an animation is shown.
    """

    values: np.ndarray
    invalid: np.ndarray | None
    description: Description
    duration: float = 0.0

    def invalid_for(self, channels: int) -> np.ndarray | None:
        """The no-data mask for ``channels`` channels; where the file has another number, any of its channels counts."""
        if self.invalid is None or self.invalid.shape[2] in (1, channels):
            return self.invalid
        return np.asarray(self.invalid.any(-1, keepdims=True))


def read_values(given: Given, pixels: PixelFormat) -> np.ndarray:
    """The values of :func:`read_picture`."""
    return read_picture(given, pixels).values


def read_picture(given: Given, pixels: PixelFormat, page: int = 0, free: Free | None = None) -> Picture:
    """Read an image as (H, W, C) of the format's type and channels, upright and opaque.

    Integers are scaled from one type's range to the other's, integers in a float32 domain stay the numbers they are,
    gray becomes colour by repetition, colour gray as luma, and opacity that the format does not count as a channel is
    composited. Values that are no data are filled, with the format's ``fill_value`` or the mean of their channel.

    Args:
        given: A file, an open one, a Pillow image, or an array of the values that files hold.
        pixels: The format.
        page: Which of the pages or frames.
        free: Says how many bytes decoding may take; unset leaves it free.

    Raises:
        DataError: It cannot be used, or has another type or other channels than the format.
    """
    profiles = pixels.colour_profiles
    stored = load(given, pages=pixels.pages, channels=pixels.channels, page=page, profiles=profiles, free=free)
    return Picture(fitted(stored, pixels, name_of(given)), stored.invalid, stored.description, stored.duration)


def fitted(stored: Stored, pixels: PixelFormat, where: Path | str) -> np.ndarray:
    """Bring a decoded image to a format: no data filled, then its type, then its channels.

    Raises:
        DataError: It cannot be; the message names ``where``.
    """
    values, facts = stored.values, stored.description
    if stored.invalid is not None:
        values = _filled(values, stored.invalid, pixels)
    colour = facts.colour
    if facts.alpha and values.shape[2] != pixels.channels:
        if values.dtype.kind == "u":
            values, colour = _composited(values, facts.alpha == "premultiplied", pixels.background), True
        else:  # opacity of other types has no agreed scale
            values = values[:, :, :-1]
    values = _of_type(values, pixels, where)
    channels = values.shape[2]
    if channels == pixels.channels:
        return np.ascontiguousarray(values)
    if channels == 1 and pixels.channels == 3:
        return np.repeat(values, 3, axis=2)
    if colour and channels == 3 and pixels.channels == 1:
        if pixels.dtype == "uint8":
            return np.asarray(Image.fromarray(np.ascontiguousarray(values)).convert("L"))[:, :, None]
        return rounded_to(values.astype(np.float64) @ np.array(_LUMA)[:, None], values.dtype)
    if colour and channels == 3 and pixels.channels == 4 and pixels.dtype != "float32":
        return np.pad(values, ((0, 0), (0, 0), (0, 1)), constant_values=LARGEST[pixels.dtype])
    pages = ""
    if facts.pages > 1 and pixels.pages == "first":
        pages = f" on its first page and {facts.pages} pages (--pages channels takes them as channels)"
    raise DataError(
        f"{where}: has {_count(facts.channels)}{pages}, but the images of this domain have {_count(pixels.channels)}; "
        "leave it out, or say so in training or when a folder is scored: --channels (--target-channels for the target)"
    )


def _count(channels: int) -> str:
    return f"{channels} channel{'s' * (channels != 1)}"


def _filled(values: np.ndarray, invalid: np.ndarray, pixels: PixelFormat) -> np.ndarray:
    """Values with what stands in for no data: a number that somebody gave, or the mean of what there is."""
    if pixels.fill_value is not None:
        fill = np.full(values.shape[2], pixels.fill_value)
    else:
        low, high = (np.resize(ends, values.shape[2]) for ends in (pixels.mapping.low, pixels.mapping.high))
        count = (~invalid).sum((0, 1))
        total = np.where(invalid, 0, values).sum((0, 1), dtype=np.float64)
        fill = np.where(count > 0, total / np.maximum(count, 1), (low + high) / 2)
    if values.dtype.kind in "iu":
        limits = np.iinfo(values.dtype)
        fill = np.clip(np.rint(fill), limits.min, limits.max)
    return np.where(invalid, fill.astype(values.dtype), values)


def as_floats(values: np.ndarray, where: Path | str) -> np.ndarray:
    """Values of any type as float32. Raises ``DataError``, which names ``where``, where it cannot hold them."""
    kind, size = values.dtype.kind, values.dtype.itemsize
    if kind not in "fiu":
        raise DataError(f"{where}: holds {values.dtype}, which is not an image type; convert it to float32")
    with np.errstate(over="ignore"):
        floats = np.ascontiguousarray(values, dtype=np.float32)
    if kind == "f" and size > 4 and not np.isfinite(floats).all():
        raise DataError(f"{where}: holds values beyond the range of float32; scale them, or mark them as no data")
    if kind in "iu" and size > 2 and (floats != values).any():
        raise DataError(
            f"{where}: holds {values.dtype} values that float32 cannot represent exactly; convert it to uint16"
        )
    return floats


def _of_type(values: np.ndarray, pixels: PixelFormat, where: Path | str) -> np.ndarray:
    """Values of any type in the format's type."""
    kind, size = values.dtype.kind, values.dtype.itemsize
    if pixels.dtype == "float32":
        return as_floats(values, where)
    if kind in "iu" and size > 4:  # numpy's default: nobody can tell whether its values are of 8 or of 16 bits
        raise DataError(f"{where}: holds {values.dtype}; convert it to uint8 or uint16, whichever its values are")
    if kind in "iu" and size >= 2:
        if values.dtype != np.uint16:
            low, high = int(values.min()), int(values.max())
            if low < 0 or high > LARGEST["uint16"]:
                raise DataError(
                    f"{where}: holds {values.dtype} from {low} to {high}, and the images of this domain are "
                    f"{pixels.dtype}; convert it, or leave it out"
                )
            if 1 < high <= LARGEST["uint8"] and pixels.mapping.name == "dtype":
                words = (
                    f"{values.dtype} images with no value above 255 are nearly black, because integer types wider than "
                    "uint8 are read as 0 to 65535; convert them to uint8 if their range is 0 to 255"
                )
                warnings.warn(words, ValueRangeWarning, stacklevel=2)
            values = values.astype(np.uint16)
        if pixels.dtype == "uint8":
            return ((values.astype(np.int64) * 255 + 32767) // 65535).astype(np.uint8)
        return values
    if values.dtype != np.uint8:
        raise DataError(
            f"{where}: holds {values.dtype}, but the images of this domain are {pixels.dtype}; convert it, or leave it "
            "out"
        )
    return values if pixels.dtype == "uint8" else values.astype(np.uint16) * 257


def _composited(values: np.ndarray, premultiplied: bool, background: tuple[int, int, int]) -> np.ndarray:
    """Gray or colour with opacity as colour over the background."""
    front, opacity = values[:, :, :-1], values[:, :, -1:]
    front = np.repeat(front, 3, axis=2) if front.shape[2] == 1 else front
    if values.dtype == np.uint8 and not premultiplied:
        image = Image.fromarray(np.concatenate([front, opacity], axis=2))
        below = Image.new("RGBA", image.size, (*background, 255))
        return np.asarray(Image.alpha_composite(below, image).convert("RGB"))
    top = float(np.iinfo(values.dtype).max)
    behind = np.array(background, np.float64) / 255 * top
    share = opacity / top
    return rounded_to(front * (1.0 if premultiplied else share) + (1 - share) * behind, values.dtype)


def tensor_of(values_HWC: np.ndarray) -> Tensor:
    """Values (H, W, C) as a contiguous tensor (C, H, W) of the same type."""
    return torch.from_numpy(np.array(values_HWC.transpose(2, 0, 1), order="C"))
