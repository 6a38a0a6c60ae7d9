"""How an image becomes a training crop: the fixed resize (cached), and the random zoom, crop and flip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from unpaired.data.pixels import PixelFormat, read_values, tensor_of
from unpaired.data.resizing import resize_values
from unpaired.data.settings import DataConfig
from unpaired.data.sizes import MAX_IMAGE_PIXELS, Size, height_width, size_words
from unpaired.errors import DataError

DRAWS = 6
"""Random integers that one crop takes."""
_DRAW_RANGE = 2**64


def load_resized(path: str | Path, config: DataConfig, pixels: PixelFormat | None = None) -> np.ndarray:
    """Read an image and apply everything that is the same each time.

    Args:
        path: The file.
        config: ``resize``, the sizes and the filter are used.
        pixels: The format of its domain; unset: 8-bit images of ``config.channels``.

    Returns:
        (H, W, C) of the format's type; at least as large as the crop, except with ``zoom_and_crop``.

    Raises:
        DataError: The file cannot be used (see :func:`~unpaired.data.pixels.read_values`) or is too small or large.
    """
    values = read_values(path, pixels or config.plain_formats[0])
    height, width = values.shape[:2]
    return resize_values(values, loaded_size(width, height, path, config), config.resample)


def loaded_size(width: int, height: int, path: str | Path, config: DataConfig) -> tuple[int, int]:
    """Width and height, in pixels, that an image is brought to. Raises ``DataError`` if it is too small or large."""
    crop_height, crop_width = config.crop_size
    if config.resize == "resize":
        return crop_width, crop_height
    if config.resize == "resize_and_crop":
        return config.resized_size[1], config.resized_size[0]
    if config.resize == "scale_shorter_side":
        return _covering(width, height, path, config)
    if config.resize == "zoom_and_crop":
        if config.load_size is None:
            return width, height
        scale = max(config.resized_size) / max(width, height)
        return max(1, round(width * scale)), max(1, round(height * scale))
    square = crop_height == crop_width
    found = f"{width} x {height} pixels" + " (width x height)" * (not square)
    wanted = size_words(config.image_size) + " (height x width)" * (not square)
    if config.resize == "crop_only" and (width < crop_width or height < crop_height):
        raise DataError(
            f"{path}: {found} are smaller than image_size {wanted}; "
            "with resize = crop_only lower image_size, or use resize = scale_shorter_side"
        )
    if config.resize == "none" and (width, height) != (crop_width, crop_height):
        raise DataError(
            f"{path}: {found}, but resize = none needs exactly image_size {wanted}; "
            "use another resize or set image_size"
        )
    return width, height


def _covering(width: int, height: int, path: str | Path, config: DataConfig) -> tuple[int, int]:
    """The smallest size of the same shape that covers ``load_size``, unless it would fill the memory."""
    covered_height, covered_width = config.resized_size
    scale = max(covered_width / width, covered_height / height)
    size = max(covered_width, round(width * scale)), max(covered_height, round(height * scale))
    if size[0] * size[1] > MAX_IMAGE_PIXELS:
        raise DataError(
            f"{path}: {width} x {height} pixels would become {size[0]:,} x {size[1]:,} with "
            "resize = scale_shorter_side; cut the image or use resize_and_crop"
        )
    return size


def random_crop(pixels_HWC: np.ndarray, config: DataConfig, draws: Sequence[int]) -> np.ndarray:
    """Zoom, where the settings say so, crop and flip.

    Args:
        pixels_HWC: (H, W, C), from :func:`load_resized`.
        config: ``image_size``, ``flip`` and what concerns the zoom are used.
        draws: ``DRAWS`` random integers in [0, 2**64): for the row, the column, the horizontal and the vertical flip,
            the zoom of the height and that of the width.

    Returns:
        (C, height, width) of ``image_size``, of the same type, a new contiguous array.
    """
    crop = _zoomed(pixels_HWC, config, draws) if config.resize == "zoom_and_crop" else _cut(pixels_HWC, config, draws)
    half = _DRAW_RANGE // 2
    if config.flip in ("horizontal", "both") and draws[2] >= half:
        crop = crop[:, ::-1]
    if config.flip in ("vertical", "both") and draws[3] >= half:
        crop = crop[::-1]
    return crop.transpose(2, 0, 1).copy()


def _cut(pixels_HWC: np.ndarray, config: DataConfig, draws: Sequence[int]) -> np.ndarray:
    (height, width), (crop_height, crop_width) = pixels_HWC.shape[:2], config.crop_size
    top, left = draws[0] % (height - crop_height + 1), draws[1] % (width - crop_width + 1)
    return pixels_HWC[top : top + crop_height, left : left + crop_width]


def _zoomed(pixels_HWC: np.ndarray, config: DataConfig, draws: Sequence[int]) -> np.ndarray:
    """A random crop of the image scaled by two random factors; only the pixels that the crop shows are computed."""
    zooms = (config.smallest_zoom + (1 - config.smallest_zoom) * draw / _DRAW_RANGE for draw in draws[4:6])
    shape, crop = pixels_HWC.shape[:2], config.crop_size
    zoomed = [max(least, round(side * zoom)) for side, zoom, least in zip(shape, zooms, crop, strict=True)]
    starts = [draw % (side - least + 1) for draw, side, least in zip(draws[:2], zoomed, crop, strict=True)]
    (top, bottom), (left, right) = (
        (start * side / new, min((start + least) * side / new, side))
        for start, least, side, new in zip(starts, crop, shape, zoomed, strict=True)
    )
    return resize_values(pixels_HWC, (crop[1], crop[0]), config.resample, (left, top, right, bottom))


def resized_for_protocol(values_HWC: np.ndarray, size: Size) -> np.ndarray:
    """A test image by the field's protocol: resized (bicubic) to the size that training crops had."""
    height, width = height_width(size)
    return resize_values(values_HWC, (width, height))


def load_for_protocol(path: str | Path, config: DataConfig, pixels: PixelFormat | None = None) -> torch.Tensor:
    """Read a test image by the field's protocol: (C, height, width) of ``image_size``, float32 in [-1, 1].

    Raises:
        DataError: The file cannot be read; the message names it.
    """
    pixels = pixels or config.plain_formats[0]
    return pixels.to_floats(tensor_of(resized_for_protocol(read_values(path, pixels), config.image_size)))


def load_examples(paths: Sequence[str | Path], config: DataConfig, pixels: PixelFormat) -> torch.Tensor:
    """Images to look at during training, (n, C, H, W), float32 in [-1, 1], n at most ``len(paths)``.

    They have the size of the crops; where crops are zooms of a picture, the first picture is shown whole at its load
    size, cut to multiples of 4.

    Raises:
        DataError: A file cannot be used.
    """
    if config.resize != "zoom_and_crop":
        return torch.stack([load_for_protocol(path, config, pixels) for path in paths])
    values = tensor_of(load_resized(paths[0], config, pixels))
    height, width = (side - side % 4 for side in values.shape[-2:])
    return pixels.to_floats(values[None, :, :height, :width])
