"""How an image becomes a training crop: the settings, the fixed resize (cached) and the random crop and flip."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from unpaired.data.images import MAX_IMAGE_PIXELS
from unpaired.data.pixels import PixelFormat, read_values, tensor_of
from unpaired.data.resizing import resize_values
from unpaired.data.stored import MAX_CHANNELS
from unpaired.errors import ConfigError, DataError

Resize = Literal["resize_and_crop", "shortest_side_and_crop", "crop", "none"]
_RESIZES = ("resize_and_crop", "shortest_side_and_crop", "crop", "none")
Formats = tuple[PixelFormat, PixelFormat]
"""Of the source and of the target domain."""


@dataclass(frozen=True)
class DataConfig:
    """How training images are read, resized, cropped and kept."""

    image_size: int = 256
    """Side of the square training crop in pixels; a multiple of 4."""
    load_size: int | None = None
    """Side after resizing and before cropping, in pixels; null means image_size * 286 / 256, rounded."""
    resize: Resize = "resize_and_crop"
    """resize_and_crop: to a load_size square (the shape is distorted), then a random crop. shortest_side_and_crop:
    the shorter side to load_size (the shape is kept), then a random crop. crop: a random crop of the original pixels.
    none: the files already measure image_size x image_size."""
    flip: bool = True
    """Mirror half of the images left to right."""
    channels: int = 3
    """Channels of the images, 1 to 16: 3 is colour, 1 gray; of the source domain, where target_channels differs."""
    target_channels: int | None = None
    """Channels of the target images; unset: as many as the source images have."""
    pages: Literal["first", "channels"] = "first"
    """first: the first page of a TIFF file is the image. channels: its pages are the channels of one image."""
    value_range: Literal["dtype", "percentiles"] | tuple[float, float] = "dtype"
    """Values of the files that become -1 and 1; what lies beyond is clipped. dtype: the whole range of 8- or 16-bit
    integers. Two numbers: these. percentiles: taken per channel from the training images, once."""
    target_value_range: Literal["dtype", "percentiles"] | tuple[float, float] | None = None
    """The same for the target images; unset: as value_range."""
    percentiles: tuple[float, float] = (0.1, 99.9)
    """Which percentiles, 0 to 100, where a range is 'percentiles'; 0 100 clips nothing of the training images."""
    fill_value: float | None = None
    """Put in the place of NaN and infinities in floating-point files; unset: such files are refused."""
    background: tuple[int, int, int] = (255, 255, 255)
    """Red, green, blue (0 to 255) put behind transparent pixels."""
    cache_gib: float = 1.0
    """Memory for decoded and resized images, in GiB per training process, shared by its loading processes; 0: none."""
    num_workers: int = 1
    """Processes that prepare images beside the training process; 0: the training process does it itself."""

    def __post_init__(self) -> None:
        if self.image_size <= 0 or self.image_size % 4:
            raise ConfigError(f"image_size is {self.image_size}: it must be a positive multiple of 4")
        if self.resize not in _RESIZES:
            raise ConfigError(f"resize is '{self.resize}': it must be one of {', '.join(_RESIZES)}")
        if self.load_size is not None and self.load_size <= 0:
            raise ConfigError(f"load_size is {self.load_size}: it must be positive")
        if self.resize.endswith("_and_crop") and self.image_size > self.resized_side:
            raise ConfigError(
                f"image_size is {self.image_size}, larger than load_size {self.resized_side}: "
                "the crop cannot be larger than the image; raise load_size or lower image_size"
            )
        for name in ("channels", "target_channels"):
            count = getattr(self, name)
            if count is not None and not 1 <= count <= MAX_CHANNELS:
                raise ConfigError(f"{name} is {count}: it must be from 1 (gray; 3 is colour) to {MAX_CHANNELS}")
        for name in ("value_range", "target_value_range"):
            ends = getattr(self, name)
            if isinstance(ends, tuple) and not -math.inf < ends[0] < ends[1] < math.inf:  # NaN as well
                raise ConfigError(f"{name} is {ends[0]} {ends[1]}: it must go from a smaller to a larger number")
        if not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise ConfigError(f"percentiles is {self.percentiles}: two numbers from 0 to 100, the smaller one first")
        if self.fill_value is not None and not math.isfinite(self.fill_value):
            raise ConfigError(f"fill_value is {self.fill_value}: it must be a finite number")
        if len(self.background) != 3 or not all(0 <= value <= 255 for value in self.background):
            raise ConfigError(f"background is {self.background}: it must be red, green, blue, each from 0 to 255")
        if not 0 <= self.cache_gib < float("inf"):
            raise ConfigError(f"cache_gib is {self.cache_gib}: it must be 0 or a positive number of GiB")
        if self.num_workers < 0:
            raise ConfigError(f"num_workers is {self.num_workers}: it must be 0 or more")

    @property
    def resized_side(self) -> int:
        """``load_size``, or its default in pixels."""
        return round(self.image_size * 286 / 256) if self.load_size is None else self.load_size

    @property
    def domain_channels(self) -> tuple[int, int]:
        """Channels of source and target images."""
        return self.channels, self.channels if self.target_channels is None else self.target_channels

    @property
    def plain_formats(self) -> Formats:
        """Source and target as 8-bit images, whatever the files are."""
        source, target = (PixelFormat(channels, background=self.background) for channels in self.domain_channels)
        return source, target


def load_resized(path: Path, config: DataConfig, pixels: PixelFormat | None = None) -> np.ndarray:
    """Read an image and apply everything that is the same each time.

    Args:
        path: The file.
        config: ``resize`` and the sides are used.
        pixels: The format of its domain; unset: 8-bit images of ``config.channels``.

    Returns:
        (H, W, C) of the format's type; H and W are at least ``config.image_size``.

    Raises:
        DataError: The file cannot be used (see :func:`~unpaired.data.pixels.read_values`) or is too small or large.
    """
    values = read_values(path, pixels or config.plain_formats[0])
    height, width = values.shape[:2]
    return resize_values(values, _resized_size(width, height, path, config))


def _resized_size(width: int, height: int, path: Path, config: DataConfig) -> tuple[int, int]:
    side = config.image_size
    if config.resize == "resize_and_crop":
        return config.resized_side, config.resized_side
    if config.resize == "shortest_side_and_crop":
        scale = config.resized_side / min(width, height)
        size = max(config.resized_side, round(width * scale)), max(config.resized_side, round(height * scale))
        if size[0] * size[1] > MAX_IMAGE_PIXELS:
            raise DataError(
                f"{path}: {width} x {height} pixels would become {size[0]:,} x {size[1]:,} with "
                "resize = shortest_side_and_crop; cut the image or use resize_and_crop"
            )
        return size
    if config.resize == "crop" and (width < side or height < side):
        raise DataError(
            f"{path}: {width} x {height} pixels are smaller than image_size {side}; "
            "with resize = crop lower image_size, or use resize = shortest_side_and_crop"
        )
    if config.resize == "none" and (width, height) != (side, side):
        raise DataError(
            f"{path}: {width} x {height} pixels, but resize = none needs exactly image_size {side} x {side}; "
            "use another resize or set image_size"
        )
    return width, height


def random_crop(pixels_HWC: np.ndarray, config: DataConfig, draws: tuple[int, int, int]) -> np.ndarray:
    """Crop and flip.

    Args:
        pixels_HWC: (H, W, C), from :func:`load_resized`.
        config: ``image_size`` and ``flip`` are used.
        draws: Three random integers in [0, 2**64) for the row, the column and the flip.

    Returns:
        (C, image_size, image_size) of the same type, a new contiguous array.
    """
    side = config.image_size
    height, width = pixels_HWC.shape[:2]
    top, left = draws[0] % (height - side + 1), draws[1] % (width - side + 1)
    crop = pixels_HWC[top : top + side, left : left + side]
    if config.flip and draws[2] >= 2**63:
        crop = crop[:, ::-1]
    return crop.transpose(2, 0, 1).copy()


def read_for_protocol(path: Path, side: int, pixels: PixelFormat) -> np.ndarray:
    """Read one test image as the field's protocol does: resized (bicubic) to the square that training crops had.

    Returns:
        (side, side, C) of the format's type.

    Raises:
        DataError: The file cannot be read; the message names it.
    """
    return resize_values(read_values(path, pixels), (side, side))


def load_for_protocol(path: Path, config: DataConfig, pixels: PixelFormat | None = None) -> torch.Tensor:
    """:func:`read_for_protocol` as a tensor (C, image_size, image_size), float32 in [-1, 1]."""
    pixels = pixels or config.plain_formats[0]
    return pixels.to_floats(tensor_of(read_for_protocol(path, config.image_size, pixels)))
