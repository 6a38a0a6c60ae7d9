"""How an image becomes a training crop: the settings, the fixed resize (cached) and the random crop and flip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image

from unpaired.data.images import MAX_IMAGE_PIXELS, image_to_tensor, read_image
from unpaired.errors import ConfigError, DataError

Resize = Literal["resize_and_crop", "shortest_side_and_crop", "crop", "none"]
_RESIZES = ("resize_and_crop", "shortest_side_and_crop", "crop", "none")


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
    """3 for colour, 1 for gray."""
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
        if self.channels not in (1, 3):
            raise ConfigError(f"channels is {self.channels}: it must be 1 (gray) or 3 (colour)")
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


def load_resized(path: Path, config: DataConfig) -> np.ndarray:
    """Read an image and apply everything that is the same each time.

    Returns:
        uint8 (H, W, C) in 0..255; H and W are at least ``config.image_size``.

    Raises:
        DataError: The file cannot be used (see :func:`~unpaired.data.images.read_image`) or is too small or large.
    """
    image = read_image(path, config.channels, config.background)
    resized = image.resize(_resized_size(image, path, config), Image.Resampling.BICUBIC)  # PIL's filter is antialiased
    pixels = np.asarray(resized)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _resized_size(image: Image.Image, path: Path, config: DataConfig) -> tuple[int, int]:
    width, height = image.size
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
        pixels_HWC: uint8 (H, W, C), from :func:`load_resized`.
        config: ``image_size`` and ``flip`` are used.
        draws: Three random integers in [0, 2**64) for the row, the column and the flip.

    Returns:
        uint8 (C, image_size, image_size), a new contiguous array.
    """
    side = config.image_size
    height, width = pixels_HWC.shape[:2]
    top, left = draws[0] % (height - side + 1), draws[1] % (width - side + 1)
    crop = pixels_HWC[top : top + side, left : left + side]
    if config.flip and draws[2] >= 2**63:
        crop = crop[:, ::-1]
    return crop.transpose(2, 0, 1).copy()


def read_for_protocol(path: Path, config: DataConfig) -> Image.Image:
    """Read one test image as the field's protocol does: resized (bicubic) to the square that training crops had.

    Raises:
        DataError: The file cannot be read; the message names it.
    """
    image = read_image(path, config.channels, config.background)
    size = (config.image_size, config.image_size)
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)


def load_for_protocol(path: Path, config: DataConfig) -> torch.Tensor:
    """:func:`read_for_protocol` as a tensor (C, image_size, image_size), float32 in [-1, 1]."""
    return image_to_tensor(read_for_protocol(path, config))
