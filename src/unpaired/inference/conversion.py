"""Pictures of every kind that a translator takes, as tensors, and tensors as pictures again."""

from __future__ import annotations

import http.client
import tempfile
import urllib.request
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unpaired.data import PixelFormat, array_values, picture_values, read_values, tensor_of
from unpaired.errors import DataError

_LARGEST = 2.0  # of a tensor's values: beyond this it is not an overshoot, it is another scale
_LARGEST_FILE = 256 * 2**20
"""Bytes that are fetched from an address."""
_SECONDS = 30
"""How long an address may be silent."""


def values_of_file(place: str | Path, pixels: PixelFormat) -> np.ndarray:
    """An image file on this machine or behind an http(s) address as (H, W, C) of a format's values.

    Raises:
        DataError: It cannot be read, fetched, or does not fit.
    """
    if not str(place).startswith(("http://", "https://")):
        return read_values(Path(place), pixels)
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
            return read_values(file, pixels)
        except DataError as error:
            raise DataError(str(error).replace(str(file), str(place))) from error


def floats_of_picture(image: Image.Image, pixels: PixelFormat) -> Tensor:
    """A PIL image as (1, C, H, W) in [-1, 1]. Raises ``DataError`` if it does not fit the format."""
    return pixels.to_floats(tensor_of(picture_values(image, pixels)))[None]


def floats_of_array(images: np.ndarray, pixels: PixelFormat) -> Tensor:
    """An array (H, W), (H, W, C) or (B, H, W, C) of file values as (B, C, H, W) in [-1, 1].

    Raises:
        DataError: Its shape or its type is another one.
    """
    fits = images.dtype == pixels.dtype or (pixels.dtype == "uint16" and images.dtype == np.uint8)
    if not fits or images.ndim not in (2, 3, 4):
        raise DataError(
            f"an array must be {pixels.dtype} (H, W), (H, W, C) or (B, H, W, C), not {images.dtype} {images.shape}"
        )
    if images.ndim == 2:
        images = images[:, :, None]
    if images.ndim == 3:
        images = images[None]
    if 0 in images.shape or (pixels.plain and images.shape[3] != pixels.channels):
        # What does not fit is refused where every tensor is looked at.
        return torch.zeros(images.shape[0], images.shape[3], *images.shape[1:3])
    values = [array_values(image, pixels) for image in images]
    return pixels.to_floats(torch.stack([tensor_of(image) for image in values]))


def floats_of_one(image: Any, pixels: PixelFormat) -> Tensor:
    """One picture of any kind as (1, C, H, W) in [-1, 1]. Raises ``DataError`` if it is none."""
    if isinstance(image, Image.Image):
        return floats_of_picture(image, pixels)
    if isinstance(image, np.ndarray) and image.ndim in (2, 3):
        return floats_of_array(image, pixels)
    if isinstance(image, Tensor) and image.is_floating_point() and image.ndim == 3:
        return image[None]
    raise DataError(
        f"a style reference is one image: a PIL image, a {pixels.dtype} array (H, W, C) or a float tensor (C, H, W)"
    )


def as_picture(image_CHW: Tensor, pixels: PixelFormat) -> Image.Image:
    """A tensor in [-1, 1] as a PIL image of the format's type.

    Raises:
        DataError: PIL has no mode for so many channels of this type.
    """
    return picture_of_values(pixels.to_values(image_CHW), pixels)


def has_picture(pixels: PixelFormat) -> bool:
    """Whether PIL has a mode for such images."""
    return pixels.channels == 1 or (pixels.dtype == "uint8" and pixels.channels in (3, 4))


def picture_of_values(values_HWC: np.ndarray, pixels: PixelFormat) -> Image.Image:
    """:func:`as_picture` of what files hold."""
    if not has_picture(pixels):
        raise DataError(f"PIL has no images with {pixels.words}, which this model makes; pass an array or a tensor")
    return Image.fromarray(values_HWC[:, :, 0] if pixels.channels == 1 else values_HWC)


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
