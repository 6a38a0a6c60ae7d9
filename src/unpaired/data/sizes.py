"""Sizes of images as settings have them: one side of a square, or height and width; channels, and values of bytes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Size = int | tuple[int, int]
"""Pixels: the side of a square, or height and width."""
MAX_IMAGE_PIXELS = 2**28
"""Images whose header claims more pixels are refused before anything is decoded (16,384 x 16,384 passes)."""
MAX_CHANNELS = 16
Channels = Annotated[int, Field(ge=1, le=MAX_CHANNELS)]
Byte = Annotated[int, Field(ge=0, le=255)]


def height_width(size: Size) -> tuple[int, int]:
    """Height and width, pixels.

    >>> height_width(256), height_width((192, 256))
    ((256, 256), (192, 256))
    """
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def shorter_side(size: Size) -> int:
    """The shorter of the two sides, pixels."""
    return min(height_width(size))


def as_size(height: int, width: int) -> Size:
    """Height and width as a setting: one side where they are equal, so that equal sizes compare equal."""
    return height if height == width else (height, width)


def size_words(size: Size) -> str:
    """A size for people, height first; a square is named by its side.

    >>> size_words(256), size_words((192, 256))
    ('256', '192 x 256')
    """
    return str(size) if isinstance(size, int) else f"{size[0]} x {size[1]}"
