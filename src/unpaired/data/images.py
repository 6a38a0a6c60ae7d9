"""8-bit pictures and tensors: one as the other and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from unpaired.data.mapping import BYTES, ValueMapping
from unpaired.data.pixels import PixelFormat, read_values, tensor_of


def read_image(
    given: Path | str | Image.Image, channels: int = 3, background: tuple[int, int, int] = (255, 255, 255)
) -> Image.Image:
    """Read an image as 8-bit colour or gray, upright, opaque, in sRGB.

    The EXIF orientation is applied; transparent pixels are composited on ``background``; 16-bit gray is scaled from
    0..65535 to 0..255. Of an animation or a stack of pages the first is taken.

    Args:
        given: A file, whose content counts, not the suffix, or a Pillow image of any mode.
        channels: 3 returns mode ``"RGB"``, 1 returns mode ``"L"`` (luma).
        background: Red, green, blue in 0..255.

    Returns:
        A PIL image that no longer needs the file.

    Raises:
        DataError: The file is absent, unreadable, damaged, no image, too large, or in a range with no 8-bit meaning.
        ValueError: ``channels`` is neither 1 nor 3.
    """
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3, got {channels}")
    return _picture(read_values(given, PixelFormat(channels, background=background, colour_profiles="convert")))


def read_image_of(pixels: PixelFormat, given: Path | str | Image.Image) -> Image.Image:
    """Read an image of a domain with 1 or 3 channels as 8-bit gray or colour, with the settings of the domain.

    Raises:
        DataError: As of :func:`read_image`, or it has other channels.
    """
    return _picture(read_values(given, replace(pixels, dtype="uint8", mapping=BYTES, fill_value=None)))


def image_to_tensor(image: Image.Image) -> torch.Tensor:
    """Return an ``"RGB"`` or ``"L"`` image as a float32 tensor (C, H, W) in [-1, 1].

    Raises:
        ValueError: The mode is another one; :func:`read_image` returns only these two.
    """
    if image.mode not in ("RGB", "L"):
        raise ValueError(f"expected an image of mode RGB or L, got {image.mode}")
    pixels = np.asarray(image)
    return ValueMapping().to_floats(tensor_of(pixels.reshape(*pixels.shape[:2], -1)))


def tensor_to_image(tensor: torch.Tensor) -> Image.Image:
    """Return a tensor (C, H, W) in [-1, 1], C being 1 or 3, as an 8-bit image; values outside are clamped.

    The exact inverse of :func:`image_to_tensor`: ``tensor_to_image(image_to_tensor(image)) == image``.

    Raises:
        ValueError: The shape is not (1, H, W) or (3, H, W), or a value is NaN.
    """
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 3):
        raise ValueError(f"expected a tensor (1, H, W) or (3, H, W), got {tuple(tensor.shape)}")
    return _picture(PixelFormat(tensor.shape[0]).to_values(tensor))


def _picture(values_HWC: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(values_HWC[:, :, 0] if values_HWC.shape[2] == 1 else values_HWC))
