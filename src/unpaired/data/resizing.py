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

_NO_SHARE = 1e-6
"""Of all weights, below which a pixel has no value."""
_WIDEST_FILTER = 3
"""Pixels, of the smaller of the two images, that Lanczos' filter reaches to either side."""


def resize_values(
    values_HWC: np.ndarray, size: tuple[int, int], resample: Resample = "bicubic", box: Box | None = None
) -> np.ndarray:
    """Resize, with a filter that is widened when shrinking so that nothing aliases; channels do not mix.

    8-bit images go through Pillow's 8-bit arithmetic, others through its float32; integers are rounded and kept in
    the range of their type.

    Args:
        values_HWC: Integers or floats (H, W, C).
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


def resize_weighted(
    values_HWC: np.ndarray, weights_HWC: np.ndarray, size: tuple[int, int], resample: Resample = "bicubic"
) -> tuple[np.ndarray, np.ndarray]:
    """Resize values that count by their weights: what has none, such as no data, has no part in its neighbours.

    Args:
        values_HWC: Integers or floats (H, W, C).
        weights_HWC: As many, at least 0.
        size, resample: As of :func:`resize_values`.

    Returns:
        float32 (height, width, C), within the range of the values that count, and the weights, resized: about 0 where
        nothing around counts, whose value is one of this range.
    """
    weights, counted = weights_HWC.astype(np.float32), weights_HWC > 0
    values = np.where(counted, values_HWC, 0).astype(np.float32)
    share = resize_values(weights, size, resample)
    total = resize_values(values * weights, size, resample)
    made = np.divide(total, share, out=np.zeros_like(total), where=np.abs(share) > _NO_SHARE)
    ends = (values.min((0, 1), where=counted, initial=np.inf), values.max((0, 1), where=counted, initial=-np.inf))
    low, high = (np.where(np.isfinite(end), end, 0) for end in ends)
    return np.clip(made, low, high), share


def rounded_to(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Values as a type: integers are rounded, and clipped to the range of the type."""
    if dtype.kind not in "iu" or values.dtype == dtype:
        return values.astype(dtype, copy=False)
    limits = np.iinfo(dtype)
    values = values if dtype.itemsize < 4 else values.astype(np.float64)  # float32 has no room for the largest ones
    return np.clip(np.rint(values), limits.min, limits.max).astype(dtype)


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
    return rounded_to(np.asarray(Image.fromarray(held).resize(size, _FILTERS[resample], box)), dtype)
