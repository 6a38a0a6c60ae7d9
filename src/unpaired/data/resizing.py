"""Resizing arrays of any type and number of channels, with Pillow's antialiased filter."""

from __future__ import annotations

import numpy as np
from PIL import Image


def resize_values(values_HWC: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize with the bicubic filter, widened when shrinking so that nothing aliases; channels do not mix.

    8-bit images go through Pillow's 8-bit arithmetic, others through its float32; integers are rounded and kept in
    the range of their type.

    Args:
        values_HWC: uint8, uint16 or float32 (H, W, C).
        size: Width and height, pixels.

    Returns:
        The same type, (height, width, C); the array itself when it has this size.
    """
    height, width, channels = values_HWC.shape
    if (width, height) == size:
        return values_HWC
    if values_HWC.dtype == np.uint8 and channels == 3:
        return np.asarray(Image.fromarray(np.ascontiguousarray(values_HWC)).resize(size, Image.Resampling.BICUBIC))
    planes = [_plane(values_HWC[:, :, channel], size) for channel in range(channels)]
    return np.stack(planes, axis=-1)


def _plane(values_HW: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    dtype = values_HW.dtype
    held = np.ascontiguousarray(values_HW, dtype=dtype if dtype == np.uint8 else np.float32)
    resized = np.asarray(Image.fromarray(held).resize(size, Image.Resampling.BICUBIC))
    if dtype == np.uint16:
        return np.clip(np.rint(resized), 0, 65535).astype(np.uint16)
    return resized
