"""Writing arrays of any supported type and number of channels as image files, with what belongs to them."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unpaired.data.images import open_stored, opened
from unpaired.data.mapping import PixelType
from unpaired.errors import DataError

_JPEG = {"quality": 95, "subsampling": 0}
_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    ".jpg": _JPEG, ".jpeg": _JPEG, ".webp": {"lossless": True},
}  # fmt: skip
_TIFF = (".tif", ".tiff")
_PNG_COLOUR = {1: 0, 2: 4, 3: 2, 4: 6}
"""Channels -> colour type of a PNG."""
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT, _ICC_PROFILE = 282, 283, 296, 34675
_INCH, _CENTIMETRE = 2, 3
_GEOGRAPHY = (33550, 33922, 34264, 34735, 34736, 34737)
"""GeoTIFF's tags: where on earth the pixels lie."""


@dataclass(frozen=True)
class Attached:
    """What travels with an image beside its pixels.

    Attributes:
        icc_profile: The colour profile, or nothing.
        dpi: Pixels per inch, across and down, of files other than TIFF.
        resolution: XResolution and YResolution of a TIFF as fractions, and its ResolutionUnit.
        geography: GeoTIFF's tags as (code, type, count, value).
    """

    icc_profile: bytes = b""
    dpi: tuple[float, float] | None = None
    resolution: tuple[tuple[int, int], tuple[int, int], int] | None = None
    geography: tuple[tuple[int, int, int, Any], ...] = ()

    @property
    def pixels_per_inch(self) -> tuple[float, float] | None:
        """Across and down, whatever kind of file it came from; None where it did not say or gave no unit."""
        if self.resolution is None:
            return self.dpi
        *fractions, unit = self.resolution
        if unit not in (_INCH, _CENTIMETRE) or not all(bottom for _, bottom in fractions):
            return None
        across, down = (top / bottom * (2.54 if unit == _CENTIMETRE else 1.0) for top, bottom in fractions)
        return across, down

    def for_channels(self, channels: int) -> bytes:
        """The profile, if it speaks of images with so many channels."""
        space = {1: b"GRAY", 2: b"GRAY", 3: b"RGB ", 4: b"RGB "}.get(channels)
        return self.icc_profile if self.icc_profile[16:20] == space else b""


def read_attached(path: str | Path) -> Attached:
    """What is attached to a file that can be read; nothing where there is nothing or it makes no sense."""
    path = Path(path)
    with opened(path) as file:
        head = file.read(4)
        file.seek(0)
        try:
            if head in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
                return _of_tiff(file)
            if head[:2] == b"\x93N":
                return Attached()
            info = open_stored(file, path).info
            profile, dpi = info.get("icc_profile"), info.get("dpi")
            return Attached(profile if isinstance(profile, bytes) else b"", dpi and (float(dpi[0]), float(dpi[1])))
        except Exception:  # damage beside the pixels is no reason not to translate them
            return Attached()


def _of_tiff(file: Any) -> Attached:
    import tifffile

    with tifffile.TiffFile(file) as tif:
        first: Any = tif.pages[0]
        tags = first.tags
        across, down = tags.valueof(_X_RESOLUTION), tags.valueof(_Y_RESOLUTION)
        resolution = (across, down, int(tags.valueof(_RESOLUTION_UNIT, 2))) if across and down else None
        profile = tags.valueof(_ICC_PROFILE, b"")
        geography = tuple((c, int(tags[c].dtype), tags[c].count, tags[c].value) for c in _GEOGRAPHY if c in tags)
        return Attached(bytes(profile or b""), None, resolution, geography)


def can_hold(suffix: str, dtype: PixelType, channels: int) -> bool:
    """Whether a kind of file can hold such images as they are."""
    suffix = suffix.lower()
    if suffix in (*_TIFF, ".npy"):
        return True
    if suffix == ".png":
        return dtype != "float32" and channels <= 4
    return dtype == "uint8" and channels in (1, 3)


def encode(values_HWC: np.ndarray, suffix: str, attached: Attached) -> bytes | memoryview:
    """An image file in memory.

    Args:
        values_HWC: uint8, uint16 or float32 (H, W, C).
        suffix: Kind of file, for example ``.tif``; it must be able to hold them.
        attached: What goes with the pixels, as far as the kind of file has a place for it.

    Raises:
        DataError: The size is beyond what such files allow.
    """
    suffix = suffix.lower()
    height, width, channels = values_HWC.shape
    held = io.BytesIO()
    if suffix == ".npy":
        np.save(held, values_HWC[:, :, 0] if channels == 1 else values_HWC)
    elif suffix in _TIFF:
        _write_tiff(held, values_HWC, attached)
    elif suffix == ".png" and (values_HWC.dtype == np.uint16 and channels > 1):
        _write_png(held, values_HWC, attached)
    else:
        image = Image.fromarray(values_HWC[:, :, 0] if channels == 1 else np.ascontiguousarray(values_HWC))
        options = dict(_SAVE_OPTIONS.get(suffix, {}))
        if profile := attached.for_channels(channels):
            options["icc_profile"] = profile
        if attached.pixels_per_inch is not None and suffix in (".png", ".jpg", ".jpeg"):
            options["dpi"] = attached.pixels_per_inch
        try:
            image.save(held, Image.registered_extensions()[suffix], **options)
        except (OSError, ValueError) as error:  # JPEG and WebP have a largest size
            raise DataError(f"{width} x {height} pixels as {suffix} ({error})") from error
    return held.getbuffer()


def _write_tiff(held: io.BytesIO, values_HWC: np.ndarray, attached: Attached) -> None:
    """Compressed without loss, samples side by side; three channels are colour, others are values."""
    import tifffile

    channels = values_HWC.shape[2]
    profile = attached.for_channels(channels)
    options: dict[str, Any] = {}
    if attached.resolution is not None:
        options = {"resolution": attached.resolution[:2], "resolutionunit": attached.resolution[2]}
    elif attached.dpi is not None:
        options = {"resolution": attached.dpi, "resolutionunit": _INCH}
    tifffile.imwrite(
        held,
        values_HWC[:, :, 0] if channels == 1 else values_HWC,
        photometric="rgb" if channels == 3 else "minisblack",
        planarconfig="contig" if channels > 1 else None,
        compression="zlib",
        predictor=values_HWC.dtype.kind == "u",
        iccprofile=profile or None,
        extratags=[(*tag, True) for tag in attached.geography],
        metadata=None,
        software="unpaired",
        **options,
    )


def _write_png(held: io.BytesIO, values_HWC: np.ndarray, attached: Attached) -> None:
    """16-bit colour, or gray with opacity, which Pillow cannot write."""
    height, width, channels = values_HWC.shape

    def chunk(name: bytes, data: bytes) -> None:
        held.write(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)))

    held.write(b"\x89PNG\r\n\x1a\n")
    chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, _PNG_COLOUR[channels], 0, 0, 0))
    if profile := attached.for_channels(channels):
        chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(profile))
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
