"""What an image file holds, whatever read it: its facts, and one decoded image in the type it is stored in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from unpaired.errors import DataError

Pages = Literal["first", "channels"]
"""What pages of a file are: the first one is the image, or all of them are its channels."""
MAX_CHANNELS = 16
Channels = Annotated[int, Field(ge=1, le=MAX_CHANNELS)]
Byte = Annotated[int, Field(ge=0, le=255)]

_ORIENTATION = 0x0112


@dataclass(frozen=True)
class StoredFacts:
    """What a file holds, known from its header.

    Attributes:
        dtype: numpy's name of the type: uint8, uint16, float32, int16, ...
        channels: Channels of one image, opacity included; with pages as channels, of all pages.
        pages: Pages or frames in the file.
    """

    dtype: str
    channels: int
    pages: int = 1


@dataclass(frozen=True)
class StoredArray:
    """One decoded image, upright.

    Attributes:
        values: (H, W, n) in the type of the file.
        colour: The first three channels are red, green and blue.
        alpha: The last channel is opacity: ``"straight"``, or ``"premultiplied"`` into the others.
        pages: Pages or frames in the file.
    """

    values: np.ndarray
    colour: bool = False
    alpha: Literal["", "straight", "premultiplied"] = ""
    pages: int = 1


def check_channels(channels: int, where: Path | str) -> None:
    """Refuse what has too many channels. Raises ``DataError``, which names it."""
    if not 1 <= channels <= MAX_CHANNELS:
        raise DataError(f"{where}: has {channels} channels, and 1 to {MAX_CHANNELS} can be read; leave some out")


def from_picture(image: Image.Image, samples: np.ndarray | None = None) -> StoredArray:
    """A decoded Pillow image of any mode as an array, upright; ``samples`` stand in for its pixels where given."""
    orientation, frames = _orientation(image), _frames(image)
    if samples is None:
        mode = image.mode
        if image.has_transparency_data:
            image = image.convert({"La": "LA", "RGBa": "RGBA"}.get(mode, mode))
            image = image if image.mode in ("LA", "RGBA") else image.convert("LA" if mode == "L" else "RGBA")
        elif mode in ("1", "L"):
            image = image.convert("L")
        elif mode not in ("F", "I") and not mode.startswith("I;16"):
            image = image.convert("RGB")
        samples = np.asarray(image)
    values = turned(samples[:, :, None] if samples.ndim == 2 else samples, orientation)
    channels = values.shape[2]
    return StoredArray(values, channels >= 3, "straight" if channels in (2, 4) else "", frames)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF data turns nothing
        return 1


def _frames(image: Image.Image) -> int:
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # later frames may be damaged; they are not read
        return 2


def turned(values_HWC: np.ndarray, orientation: int) -> np.ndarray:
    """An array turned and mirrored as the EXIF or TIFF orientation 1 to 8 says."""
    if orientation in (5, 6, 7, 8):
        values_HWC = values_HWC.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        values_HWC = values_HWC[:, ::-1]
    if orientation in (3, 4, 7, 8):
        values_HWC = values_HWC[::-1]
    return values_HWC
