"""Resizing arrays of any type and number of channels, with Pillow's antialiased filters."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from PIL import Image

Resample = Literal["bicubic", "bilinear", "lanczos", "area", "nearest"]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""

_FILTERS: dict[Resample, Image.Resampling] = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "area": Image.Resampling.BOX,
    "nearest": Image.Resampling.NEAREST,
}

_WIDEST_FILTER = 3
"""Pixels, of the smaller of the two images, that Lanczos' filter reaches to either side."""


def resize_values(
    values_HWC: np.ndarray, size: tuple[int, int], resample: Resample = "bicubic", box: Box | None = None
) -> np.ndarray:
    """Resize, with a filter that is widened when shrinking so that nothing aliases; channels do not mix.

    8-bit images go through Pillow's 8-bit arithmetic, others through its float32; integers are rounded and kept in
    the range of their type.

    Args:
        values_HWC: uint8, uint16 or float32 (H, W, C).
        size: Width and height of the result, pixels.
        resample: The filter; ``area`` is the mean over the area of a pixel when shrinking, ``nearest`` aliases.
        box: The part that is resized; what lies around it still counts at its edges, as if all had been resized and
            the result cut out. Unset: everything.

    Returns:
        The same type, (height, width, C); the array itself when it has this size and there is no box.
    """
    height, width, channels = values_HWC.shape
    if box is None and (width, height) == size:
        return values_HWC
    if box is not None:
        values_HWC, box = _around(values_HWC, box, size)
    if values_HWC.dtype == np.uint8 and channels == 3:
        image = Image.fromarray(np.ascontiguousarray(values_HWC))
        return np.asarray(image.resize(size, _FILTERS[resample], box))
    planes = [_plane(values_HWC[:, :, channel], size, resample, box) for channel in range(channels)]
    return np.stack(planes, axis=-1)


def _around(values_HWC: np.ndarray, box: Box, size: tuple[int, int]) -> tuple[np.ndarray, Box]:
    """The part of an image that a box and the reach of any filter around it cover, and the box within it."""
    starts, stops = [], []
    for low, high, pixels, side in zip(box[:2], box[2:], size, values_HWC.shape[1::-1], strict=True):
        reach = math.ceil(_WIDEST_FILTER * max(1.0, (high - low) / pixels)) + 1
        starts.append(max(0, math.floor(low) - reach))
        stops.append(min(side, math.ceil(high) + reach))
    (left, top), (right, bottom) = starts, stops
    return values_HWC[top:bottom, left:right], (box[0] - left, box[1] - top, box[2] - left, box[3] - top)


def _plane(values_HW: np.ndarray, size: tuple[int, int], resample: Resample, box: Box | None) -> np.ndarray:
    dtype = values_HW.dtype
    held = np.ascontiguousarray(values_HW, dtype=dtype if dtype == np.uint8 else np.float32)
    resized = np.asarray(Image.fromarray(held).resize(size, _FILTERS[resample], box))
    if dtype == np.uint16:
        return np.clip(np.rint(resized), 0, 65535).astype(np.uint16)
    return resized
