"""Everything that Pillow reads and writes, and Pillow's own images; 16-bit PNG in full depth."""

from __future__ import annotations

import io
import os
import struct
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from unpaired.data.foreign import HEAD, foreign
from unpaired.data.mapping import PixelType
from unpaired.data.profiles import fate_of
from unpaired.data.stored import (
    Attached,
    Description,
    FileKind,
    Pages,
    check_size,
    check_tiles,
    decoding,
    file_kind,
    mode_name,
)
from unpaired.errors import DataError

# The list keeps PIL away from formats that run programs.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "AVIF")
_JPEG = {"quality": 95, "subsampling": 0}
_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": _JPEG, "WEBP": {"lossless": True}, "AVIF": {"quality": 95, "subsampling": "4:4:4"},
}  # fmt: skip
_PNG_COLOUR = {1: 0, 2: 4, 3: 2, 4: 6}
"""Channels -> colour type of a PNG."""
_ORIENTATION = 0x0112
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_SIXTEEN_BITS = {"RGB;16B": 3, "RGBA;16B": 4, "LA;16B": 2}
"""Raw modes of PNG whose samples Pillow would cut down to 8 bits -> channels."""
_INSTEAD = {
    b"version https://git-lfs": "this is a Git LFS pointer, not the image; run 'git lfs pull'",
}

# PIL has one global pixel limit for the whole program; it is lifted only while a header is read, under this lock.
_limit_lock = threading.Lock()


def _new_lock_after_fork() -> None:
    global _limit_lock
    _limit_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock_after_fork)


@file_kind
class Picture(FileKind):
    """8-bit formats, and PNG; the content counts, not the suffix."""

    suffixes: ClassVar[dict[str, str]] = {
        ".jpg": "JPEG", ".jpeg": "JPEG", ".jfif": "JPEG", ".png": "PNG", ".webp": "WEBP", ".bmp": "BMP", ".gif": "GIF",
        ".avif": "AVIF",
    }  # fmt: skip
    begins = ()

    def describe(self, file: IO[bytes], where: Path | str, pages: Pages, channels: int | None) -> Description:
        return describe_picture(open_picture(file, where), where, file)

    def can_hold(self, suffix: str, dtype: PixelType, channels: int, pages: int) -> bool:
        if suffix == ".png" and channels <= 4 and (dtype == "uint8" or (dtype == "uint16" and pages == 1)):
            return True
        moves = pages == 1 or suffix in (".webp", ".gif", ".avif")
        return dtype == "uint8" and channels in (1, 3) and moves

    def encode(self, images: Sequence[np.ndarray], suffix: str, attached: Attached, durations: Sequence[float]) -> Any:
        held, channels = io.BytesIO(), images[0].shape[2]
        if images[0].dtype == np.uint16 and channels > 1:
            _write_png(held, images[0], attached)
            return held.getbuffer()
        kind = self.suffixes[suffix]
        first, *others = (Image.fromarray(np.squeeze(image, 2) if channels == 1 else image) for image in images)
        options = dict(_SAVE_OPTIONS.get(kind, {}))
        if profile := attached.profile_for(channels):
            options["icc_profile"] = profile
        if attached.pixels_per_inch is not None and kind in ("PNG", "JPEG"):
            options["dpi"] = attached.pixels_per_inch
        if attached.no_data and kind == "PNG" and channels in (1, 3):
            value = int(attached.no_data[0])
            options["transparency"] = value if channels == 1 else (value,) * 3
        if others:
            options |= {"save_all": True, "append_images": others, "loop": 0}
            if all(durations):
                options["duration"] = [round(duration) for duration in durations]
        first.save(held, kind, **options)
        return held.getbuffer()


def open_picture(file: IO[bytes], where: Path | str) -> Image.Image:
    """Open an image without decoding its pixels. Raises ``DataError`` if it is none, damaged or too large."""
    file.seek(0)
    try:
        with _limit_lock:
            before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                image: Image.Image = Image.open(file, formats=_FORMATS)  # reads the header only
            finally:
                Image.MAX_IMAGE_PIXELS = before
    except UnidentifiedImageError:
        raise DataError(f"{where}: {_what_it_is_instead(file)}") from None
    except Exception as error:  # PIL's readers let struct.error, SyntaxError, ValueError and more escape
        raise DataError(f"{where}: the image header is damaged ({error}); replace it, or move it elsewhere") from error
    _check_page(image, where)
    return image


def _check_page(image: Image.Image, where: Path | str) -> None:
    """Refuse, before it is decoded, what takes too much memory: each page and frame has a size, and tiles, of its own.

    Raises:
        DataError: It does.
    """
    check_size(*image.size, where)
    tags: Any = getattr(image, "tag_v2", {})
    if _TILE_WIDTH in tags and _TILE_LENGTH in tags:
        check_tiles((tags[_TILE_WIDTH], tags[_TILE_LENGTH]), image.size, 4, where)


def load_picture(file: IO[bytes], where: Path | str) -> Image.Image:
    """Decode the first frame of an image as it is stored: not upright, in its own mode."""
    image = open_picture(file, where)
    with decoding(where):
        image.load()
    return image


def _what_it_is_instead(file: IO[bytes]) -> str:
    """Describe a file that PIL does not know, from its first bytes."""
    file.seek(0)
    head = file.read(HEAD)
    if not head:
        return "the file is empty (0 bytes); copy or download it again, or move it elsewhere"
    if kind := foreign(head):
        return f"this is {kind}"
    for start, words in _INSTEAD.items():
        if head.startswith(start):
            return words
    if all(byte >= 32 or byte in b"\t\n\r\f" for byte in head):
        begins = head[:40].decode(errors="replace")
        return f"the content is text, not an image (it begins with {begins!r}); move it elsewhere"
    return "the content is not an image of a known kind, or is damaged; convert it, or move it elsewhere"


def describe_picture(image: Image.Image, where: Path | str, file: IO[bytes] | None = None) -> Description:
    """A Pillow image of any mode; ``file`` is what it was opened from and is not decoded from yet."""
    info, mode, kind = image.info, image.mode, image.format or "PIL"
    kind = {"MPO": "JPEG", "DIB": "BMP"}.get(kind, kind)  # MPO: a JPEG with a preview or a second eye
    raw = _raw_mode(image) if file is not None and kind == "PNG" else ""
    wide = {"F": "float32", "I": "int32"}.get(mode, "uint16" if mode.startswith("I;16") or raw in _SIXTEEN_BITS else "")
    key = info.get("transparency")
    no_data = tuple(float(value) for value in np.ravel(key)) if wide and isinstance(key, int | tuple) else ()
    alpha = mode in ("LA", "RGBA", "PA", "La", "RGBa") or (not wide and image.has_transparency_data)
    pages = _frames(image) if kind not in ("JPEG", "BMP") else 1
    gray = mode in ("1", "L", "LA", "La") and not (kind == "GIF" and pages > 1)
    channels = _SIXTEEN_BITS.get(raw) or (1 if wide else (1 if gray else 3) + alpha)
    orientation = _orientation(image, file)
    width, height = image.size[::-1] if orientation >= 5 else image.size
    profile = info.get("icc_profile") or b""
    profile = profile if isinstance(profile, bytes) else b""
    fate = fate_of(profile, 4 if mode == "CMYK" else 3 if channels >= 3 else 1, wide or "uint8")
    if raw in _SIXTEEN_BITS:
        mode = mode_name(wide, channels, colour=channels >= 3, alpha=alpha)

    def samples(page: int) -> np.ndarray:
        if page:
            image.seek(page)
            _check_page(image, where)
        if raw in _SIXTEEN_BITS:
            assert file is not None
            return _sixteen_bit_samples(image, file, raw)
        image.load()
        if wide:
            values = np.asarray(image)
            return values.astype(values.dtype.newbyteorder("="))[:, :, None]
        wanted = ("LA" if gray else "RGBA") if alpha else ("L" if gray else "RGB")
        decoded = image.convert({"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode))
        if decoded.mode not in ("1", "L", "RGB", "LA", "RGBA") and not alpha:
            decoded = decoded.convert("RGB")
        values = np.asarray(decoded if decoded.mode == wanted else decoded.convert(wanted))
        return values if values.ndim == 3 else values[:, :, None]

    def inks(page: int) -> np.ndarray:
        image.seek(page)
        _check_page(image, where)
        return np.asarray(image)

    dropped = tuple(words for name, words in (("exif", "EXIF"), ("xmp", "XMP")) if info.get(name))
    attached = Attached(profile, _resolution(info.get("dpi")), no_data=no_data, channels=channels, dropped=dropped)
    return Description(
        kind, mode, width, height, wide or "uint8", channels, samples, colour=channels >= 3,
        alpha="straight" if channels in (2, 4) else "", orientation=orientation, pages=pages,
        profile=profile if fate else b"", convertible=fate == "convert", no_data=no_data, attached=attached,
        inks=inks if mode == "CMYK" else None,
        duration=lambda: float(image.info.get("duration") or 0),
    )  # fmt: skip


def _raw_mode(image: Image.Image) -> str:
    tiles: Any = getattr(image, "tile", None)
    raw = tiles[0].args if tiles else ""
    return raw if isinstance(raw, str) else ""


def _resolution(dpi: Any) -> tuple[float, float, int] | None:
    try:
        return float(dpi[0]), float(dpi[1]), 2
    except (TypeError, ValueError, IndexError, ZeroDivisionError):
        return None


def _orientation(image: Image.Image, file: IO[bytes] | None) -> int:
    try:
        if image.format != "PNG" or "exif" in image.info or file is None:
            exif = image.getexif()
        else:  # Pillow would decode the whole image to see what comes behind the pixels
            image.info["exif"] = _exif_of_png(file)
            exif = Image.Image.getexif(image)
        found = int(exif.get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF data turns nothing
        return 1
    return found if 1 <= found <= 8 else 1


def _exif_of_png(file: IO[bytes]) -> bytes:
    position = file.tell()
    file.seek(8)
    found = b""
    while not found and len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        if name == b"eXIf":
            found = file.read(length)
        file.seek(length + 4, io.SEEK_CUR)
    file.seek(position)
    return found


def _frames(image: Image.Image) -> int:
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # later frames may be damaged
        return 2


def _sixteen_bit_samples(image: Image.Image, file: IO[bytes], raw: str) -> np.ndarray:
    """Decode 16-bit colour, or gray with opacity, from an open PNG.

    Pillow's decoder knows the raw modes of 16-bit samples in either byte order and keeps the first or the second byte
    of each. Decoded in both ways, they are the two halves.
    """
    tile = image.tile[0]  # type: ignore[attr-defined]

    def again(arguments: str, mode: str = "") -> np.ndarray:
        file.seek(0)
        opened: Any = Image.open(file, formats=("PNG",))
        opened._mode, opened.tile = mode or opened.mode, [tile._replace(args=arguments)]
        return np.array(opened)

    if raw == "LA;16B":  # as many bytes per pixel as 8-bit RGBA, so that is how they come
        return again("RGBA", "RGBA").view(">u2").astype(np.uint16)
    return (again(raw).astype(np.uint16) << 8) | again(raw.replace("16B", "16L"))


def _write_png(held: io.BytesIO, values_HWC: np.ndarray, attached: Attached) -> None:
    """16-bit colour, or gray with opacity, which Pillow cannot write."""
    height, width, channels = values_HWC.shape

    def chunk(name: bytes, data: bytes) -> None:
        held.write(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)))

    held.write(b"\x89PNG\r\n\x1a\n")
    chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, _PNG_COLOUR[channels], 0, 0, 0))
    if profile := attached.profile_for(channels):
        chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(profile))
    if attached.no_data and channels == 3:
        chunk(b"tRNS", struct.pack(">HHH", *[int(attached.no_data[0])] * 3))
    if attached.pixels_per_inch is not None:
        per_metre = [round(value / 0.0254) for value in attached.pixels_per_inch]
        if all(0 < value < 2**31 for value in per_metre):
            chunk(b"pHYs", struct.pack(">IIB", *per_metre, 1))
    rows = values_HWC.astype(">u2").view(np.uint8).reshape(height, -1)
    filtered = np.empty((height, 1 + rows.shape[1]), np.uint8)
    filtered[:, 0] = 2  # each row as its difference from the one above ("Up")
    filtered[0, 1:], filtered[1:, 1:] = rows[0], rows[1:] - rows[:-1]
    chunk(b"IDAT", zlib.compress(filtered.tobytes()))
    chunk(b"IEND", b"")
