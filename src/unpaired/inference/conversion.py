"""Pictures of every kind that a translator takes, as tensors, and tensors as pictures again."""

from __future__ import annotations

import http.client
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unpaired.data import Picture, PixelFormat, no_data_value, read_picture, tensor_of, with_no_data
from unpaired.errors import DataError

_LARGEST = 2.0  # of a tensor's values: beyond this it is not an overshoot, it is another scale
_LARGEST_FILE = 256 * 2**20
"""Bytes that are fetched from an address."""
_SECONDS = 30
"""How long an address may be silent."""


def read_place(place: str | Path, pixels: PixelFormat, free: Callable[[], int] | None = None) -> Picture:
    """An image file here or behind an http(s) address, in a domain's format; ``free`` as of ``read_picture``.

    Raises:
        DataError: It cannot be read, fetched, or does not fit.
    """
    if not str(place).startswith(("http://", "https://")):
        return read_picture(Path(place), pixels, free=free)
    with tempfile.TemporaryDirectory(prefix="unpaired-") as folder:
        file = Path(folder) / "image"
        try:
            file = file.with_suffix(PurePosixPath(urlsplit(str(place)).path).suffix)
            with urllib.request.urlopen(str(place), timeout=_SECONDS) as answer:
                content = answer.read(_LARGEST_FILE + 1)
        except (OSError, ValueError, http.client.HTTPException) as error:  # refusals, time-outs, bad addresses
            raise DataError(f"{place} cannot be fetched ({error}); download it and give the file") from error
        if len(content) > _LARGEST_FILE:
            raise DataError(f"{place} is larger than {_LARGEST_FILE // 2**20} MiB; download it and give the file")
        file.write_bytes(content)
        try:
            return read_picture(file, pixels, free=free)
        except DataError as error:
            raise DataError(str(error).replace(str(file), str(place))) from error


def read_one(image: np.ndarray | Image.Image, pixels: PixelFormat) -> tuple[Tensor, Picture]:
    """A PIL image or an array as (1, C, H, W) in [-1, 1], and what it was. Raises ``DataError`` if it does not fit."""
    picture = read_picture(image, pixels)
    return pixels.to_floats(tensor_of(picture.values))[None], picture


def floats_of_one(image: Any, pixels: PixelFormat) -> Tensor:
    """One picture of any kind as (1, C, H, W) in [-1, 1]. Raises ``DataError`` if it is none."""
    if isinstance(image, Image.Image) or (isinstance(image, np.ndarray) and image.ndim in (2, 3)):
        return read_one(image, pixels)[0]
    if isinstance(image, Tensor) and image.is_floating_point() and image.ndim == 3:
        return image[None]
    raise DataError(
        f"a style reference is one image: a PIL image, a {pixels.dtype} array (H, W, C) or a float tensor (C, H, W)"
    )


def as_array(image_CHW: Tensor, pixels: PixelFormat, given: Picture, *, masked: bool = False) -> np.ndarray:
    """A tensor in [-1, 1] as values (H, W, C), with no data where the input had none: NaN, 0, or masked."""
    values, hidden = pixels.to_values(image_CHW), given.invalid_for(pixels.channels)
    if hidden is not None:
        values = with_no_data(values, hidden, no_data_value(values.dtype)) if values.dtype.kind == "f" else np.where(
            hidden, values.dtype.type(0), values
        )  # fmt: skip
    return np.ma.masked_array(values, False if hidden is None else np.broadcast_to(hidden, values.shape)) if (
        masked
    ) else values  # fmt: skip


def as_picture(image_CHW: Tensor, pixels: PixelFormat, given: Picture) -> Image.Image:
    """A tensor in [-1, 1] as a PIL image of the format's type, with the colour profile and resolution of the input.

    Raises:
        DataError: PIL has no mode for so many channels of this type.
    """
    values = as_array(image_CHW, pixels, given)
    if not has_picture(pixels):
        raise DataError(f"PIL has no images with {pixels.words}, which this model makes; pass an array or a tensor")
    made = Image.fromarray(values[:, :, 0] if pixels.channels == 1 else values)
    attached = given.description.attached
    found = {"icc_profile": attached.profile_for(pixels.channels), "dpi": attached.pixels_per_inch}
    made.info.update({name: value for name, value in found.items() if value})
    return made


def has_picture(pixels: PixelFormat) -> bool:
    """Whether PIL has a mode for such images."""
    return pixels.channels == 1 or (pixels.dtype == "uint8" and pixels.channels in (3, 4))


def checked(x_BCHW: Tensor, pixels: PixelFormat, device: torch.device) -> Tensor:
    """Images of one domain in float32 on a device.

    Raises:
        DataError: Channels, shape or range do not fit.
    """
    channels = x_BCHW.shape[1]
    if channels != pixels.channels:
        raise DataError(
            f"this model takes images with {pixels.channels} channel(s), but the input has {channels}: "
            f"{tuple(x_BCHW.shape)}"
        )
    if 0 in x_BCHW.shape:
        raise DataError(f"there is nothing to translate in a tensor of shape {tuple(x_BCHW.shape)}")
    x_BCHW = x_BCHW.to(device).float()
    largest = max(float(-x_BCHW.amin()), float(x_BCHW.amax()))  # without a copy: images may be large
    if not largest <= _LARGEST:  # NaN as well
        raise DataError(f"a tensor must lie in [-1, 1], but this one holds {largest:g}; scale it, or pass uint8")
    return x_BCHW
