"""Image files to PIL images to tensors and back; every way a file can be bad ends in one readable message."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from unpaired.data.foreign import HEAD, foreign
from unpaired.data.mapping import ValueMapping
from unpaired.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".npy")

MAX_IMAGE_PIXELS = 2**28
"""Images whose header claims more pixels are refused before anything is decoded (16,384 x 16,384 passes)."""

# GIF is read because old data sets hold GIF files named .jpg; the list keeps PIL away from formats that run programs.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF")
_READABLE = "JPEG, PNG, WebP, BMP or TIFF"

# PIL has one global pixel limit for the whole program; it is lifted only while a header is read, under this lock.
_limit_lock = threading.Lock()


def _new_lock_after_fork() -> None:
    global _limit_lock
    _limit_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock_after_fork)


def read_image(path: Path | str, channels: int = 3, background: tuple[int, int, int] = (255, 255, 255)) -> Image.Image:
    """Read one image file as 8-bit colour or gray, upright and opaque.

    The EXIF orientation is applied; transparent pixels are composited on ``background``; 16-bit gray is scaled from
    0..65535 to 0..255. Of an animation or a stack of pages the first is taken.

    Args:
        path: A JPEG, PNG, WebP, BMP or TIFF file; the content counts, not the suffix.
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
    path = Path(path)
    with opened(path) as file:
        return _decode(file, path, channels, background)


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """An image file, open for reading, for the time of the block.

    Raises:
        DataError: It is absent, a folder, or must not or cannot be read.
    """
    try:
        with open(path, "rb") as file:
            yield file
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except IsADirectoryError:
        raise DataError(f"{path}: is a folder, not an image file") from None
    except PermissionError:
        raise DataError(f"{path}: permission denied; make the file readable for this user (chmod +r)") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _decode(file: IO[bytes], path: Path, channels: int, background: tuple[int, int, int]) -> Image.Image:
    image = upright(load_stored(file, path))
    try:
        return to_mode(image, "RGB" if channels == 3 else "L", background)
    except ValueError as error:
        raise DataError(f"{path}: {error}; save it as 8-bit RGB or 8- or 16-bit gray") from error


def load_stored(file: IO[bytes], path: Path | str) -> Image.Image:
    """Decode an image as it is stored: not upright, in its own mode, the first of its frames.

    Args:
        file: The content, from its beginning.
        path: What to call it in messages.

    Raises:
        DataError: It is no image, damaged or too large.
    """
    image = open_stored(file, path)
    with decoding(path):
        image.load()
    return image


def open_stored(file: IO[bytes], path: Path | str) -> Image.Image:
    """:func:`load_stored` without decoding the pixels: mode, size and what else the header says."""
    try:
        with _own_pixel_limit():
            image: Image.Image = Image.open(file, formats=_FORMATS)  # reads the header only
    except UnidentifiedImageError:
        raise DataError(f"{path}: {_what_it_is_instead(file)}") from None
    except Exception as error:  # PIL's readers let struct.error, SyntaxError, ValueError and more escape
        raise DataError(f"{path}: the image header is damaged ({error}); replace it, or move it elsewhere") from error
    check_size(*image.size, path)
    return image


def check_size(width: int, height: int, path: Path | str) -> None:
    """Refuse, before anything is decoded, what has no pixels or too many. Raises ``DataError``, which names it."""
    if width < 1 or height < 1:
        raise DataError(f"{path}: the image has no pixels ({width} x {height}); move it elsewhere")
    if width * height > MAX_IMAGE_PIXELS:
        raise DataError(
            f"{path}: {width:,} x {height:,} pixels are more than the limit of {MAX_IMAGE_PIXELS:,}; "
            "cut the image into tiles or scale it down first"
        )


@contextmanager
def decoding(path: Path | str) -> Iterator[None]:
    """Turn whatever a decoder raises in the block into one message about the file.

    Raises:
        DataError: The pixels could not be decoded.
    """
    try:
        yield
    except Exception as error:  # as above; a truncated file is the common case
        raise DataError(
            f"{path}: the image is truncated or damaged ({error}); copy or download it again, or move it elsewhere"
        ) from error


@contextmanager
def _own_pixel_limit() -> Iterator[None]:
    with _limit_lock:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _what_it_is_instead(file: IO[bytes]) -> str:
    """Describe a file that PIL does not know, from its first bytes."""
    file.seek(0)
    head = file.read(HEAD)
    if kind := foreign(head):
        return f"this is {kind}"
    if not head:
        return "the file is empty (0 bytes); copy or download it again, or move it elsewhere"
    if head.startswith(b"version https://git-lfs"):
        return "this is a Git LFS pointer, not the image; run 'git lfs pull'"
    if head[:4] in (b"II*\0", b"MM\0*"):
        return "this kind of TIFF cannot be read (16-bit colour?); save it as 8-bit RGB or 8- or 16-bit gray"
    if all(byte >= 32 or byte in b"\t\n\r\f" for byte in head):
        begins = head[:40].decode(errors="replace")
        return f"the content is text, not an image (it begins with {begins!r}); move it elsewhere"
    return f"the content is not a {_READABLE} image, or is damaged; convert it, or move it elsewhere"


def upright(image: Image.Image) -> Image.Image:
    """Return an image with its EXIF orientation applied."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data says nothing about the pixels, which are already decoded
        return image


def to_mode(image: Image.Image, mode: str, background: tuple[int, int, int]) -> Image.Image:
    """Bring an image of any mode to ``"RGB"`` or ``"L"``, transparency composited on ``background``.

    Raises:
        ValueError: The mode has no 8-bit meaning.
    """
    if image.mode.startswith("I;16") or image.mode == "I":
        return _sixteen_to_eight_bits(image).convert(mode)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    if image.has_transparency_data:
        below = Image.new("RGBA", image.size, (*background, 255))
        straight = image.convert({"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode)).convert("RGBA")
        return Image.alpha_composite(below, straight).convert("RGB").convert(mode)
    if image.mode in ("1", "L", "RGB"):
        return image.convert(mode)
    return image.convert("RGB").convert(mode)  # palette, CMYK, YCbCr, ...: by way of colour


def _sixteen_to_eight_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f"32-bit pixels from {values.min()} to {values.max()} do not fit 0..65535")
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))


def image_to_tensor(image: Image.Image) -> torch.Tensor:
    """Return an ``"RGB"`` or ``"L"`` image as a float32 tensor (C, H, W) in [-1, 1].

    Raises:
        ValueError: The mode is another one; :func:`read_image` returns only these two.
    """
    if image.mode not in ("RGB", "L"):
        raise ValueError(f"expected an image of mode RGB or L, got {image.mode}")
    pixels = np.array(image)
    return ValueMapping().to_floats(torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)))


def tensor_to_image(tensor: torch.Tensor) -> Image.Image:
    """Return a tensor (C, H, W) in [-1, 1], C being 1 or 3, as an 8-bit image; values outside are clamped.

    The exact inverse of :func:`image_to_tensor`: ``tensor_to_image(image_to_tensor(image)) == image``.

    Raises:
        ValueError: The shape is not (1, H, W) or (3, H, W), or a value is NaN.
    """
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 3):
        raise ValueError(f"expected a tensor (1, H, W) or (3, H, W), got {tuple(tensor.shape)}")
    pixels_CHW = ValueMapping().to_values(tensor, "uint8").numpy()
    if pixels_CHW.shape[0] == 1:
        return Image.fromarray(pixels_CHW[0])
    return Image.fromarray(np.ascontiguousarray(pixels_CHW.transpose(1, 2, 0)))
