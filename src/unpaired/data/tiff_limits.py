"""What a TIFF file may ask for: how many images, tiles of what size, how much of a strip or tile, which other files.

tifffile believes what a header says, and its own codecs know no limits, so that a file of a few kilobytes could take
all memory.
"""

from __future__ import annotations

import functools
import importlib
import math
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from unpaired.data.stored import check_tiles
from unpaired.errors import DataError

_IMAGES = 2**16
"""So many images a header may speak of in any file; in a larger one, as many as it has bytes."""
_JPEG, _JPEG_2000, _DEFLATE, _PACKBITS = {6, 7, 33007, 34892}, {33003, 33004, 33005, 34712}, {8, 32946, 50013}, {32773}
_DECOMPRESSORS = dict.fromkeys(_DEFLATE, "zlib:decompressobj") | {
    34925: "lzma:LZMADecompressor",
    **dict.fromkeys((34926, 50000), "compression.zstd:ZstdDecompressor"),
}
"""Compression -> what Python itself unpacks it with, where imagecodecs is not installed."""
_BYTES = {1, 5, *_PACKBITS, *_DECOMPRESSORS}
"""Compressions of bytes, where imagecodecs is told how many there may be; others hold images of sizes of their own."""
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_SLACK = 2**16


def series_of(tif: Any, where: Path | str) -> Any:
    """The series of a ``tifffile.TiffFile``.

    Raises:
        DataError: Its header speaks of more images than the file can hold.
    """
    most = max(_IMAGES, tif.filehandle.size)
    if tif.is_ome and not _is_sound(tif.pages[0], most):
        tif.is_ome = False  # its images are read as pages
    for series in tif.series:
        images = math.prod(series.shape) // max(1, math.prod(series.keyframe.shape))
        if images > most:
            raise DataError(
                f"{where}: its header speaks of {images:,} images, more than the file can hold; write it again, or "
                "move it elsewhere"
            )
    return tif.series


def _is_sound(page: Any, most: int) -> bool:
    """Whether an OME header speaks of a possible number of images, and of no files but those beside it."""
    if "<!DOCTYPE" in page.description:
        return False
    try:
        for element in ElementTree.fromstring(page.description).iter():
            given = element.attrib
            values = math.prod(int(given[f"Size{axis}"]) for axis in given.get("DimensionOrder", ""))
            planes = max(int(given.get(name, 0)) for name in ("PlaneCount", "NumPlanes"))
            labels = abs(float(given.get("End", 0)) - float(given.get("Start", 0))) / abs(float(given.get("Step", 1)))
            if max(values // max(1, math.prod(page.shape)), planes, labels) > most:
                return False
            if re.search(r"[/\\]|^\.\.$", given.get("FileName", "")):
                return False
    except ElementTree.ParseError:  # which tifffile reads as pages
        return True
    except (LookupError, ValueError, ZeroDivisionError):
        return False
    return True


def check_layout(page: Any, where: Path | str) -> None:
    """Refuse a page in tiles far larger than its image. Raises ``DataError``."""
    if page.is_tiled:
        bytes_per_pixel = page.samplesperpixel * getattr(page.dtype, "itemsize", 1)
        tile = page.tilewidth, page.tilelength * page.tiledepth
        check_tiles(tile, (page.imagewidth, page.imagelength), bytes_per_pixel, where)


def limit(page: Any, where: Path | str) -> Any:
    """The same page, which now refuses (``DataError``) strips and tiles that unpack to more than they can hold."""
    keyframe = page.keyframe
    check_layout(keyframe, where)
    if hasattr(keyframe.decode, "__wrapped__"):
        return page
    file, itemsize = keyframe.parent.filehandle, getattr(keyframe.dtype, "itemsize", 1)
    if keyframe.jpegheader is not None and 273 in keyframe.tags:  # tifffile decodes all of an NDPI at once
        file.seek(keyframe.tags[273].value[0])
        strip = file.read(keyframe.tags[279].value[0])
        _checked(keyframe, strip, 2 * math.prod(keyframe.shape) * itemsize + _SLACK, where)
    pixels = keyframe.rowsperstrip * keyframe.imagewidth
    if keyframe.is_tiled:
        pixels = keyframe.tilewidth * keyframe.tilelength * keyframe.tiledepth
    samples = keyframe.samplesperpixel if keyframe.planarconfig == 1 else 1
    most, decode = 2 * pixels * samples * itemsize + _SLACK, keyframe.decode

    @functools.wraps(decode)
    def limited(data: bytes | None, *place: Any, **named: Any) -> Any:
        if data is not None:
            data = _checked(keyframe, data, most, where, named.get("jpegtables") or b"")
        return decode(data, *place, **named)

    keyframe.decode = limited
    return page


def _checked(page: Any, data: bytes, most: int, where: Path | str, tables: bytes = b"") -> bytes:
    """A strip or tile, if it unpacks to at most ``most`` bytes; deflated data are stored, so as not to be inflated
    twice."""
    import tifffile

    kind = int(page.compression)
    codec = tifffile.TIFF.DECOMPRESSORS.get(kind)
    if kind in _JPEG | _JPEG_2000:
        found = max(_samples(tables + data), default=0) * page.dtype.itemsize
    elif codec is None:  # decoding says which package is missing
        found = 0
    elif kind not in _BYTES:
        found = _claimed(codec, data) * page.dtype.itemsize
    elif kind == 1 or not codec.__module__.startswith("tifffile"):
        found = 0
    else:
        plain = data.translate(_REVERSED) if page.fillorder == 2 else data
        if kind in _PACKBITS:
            found = _packbits_length(plain)
        else:
            module, _, name = _DECOMPRESSORS[kind].partition(":")
            made = getattr(importlib.import_module(module), name)()
            unpacked = made.decompress(plain, most + 1)
            found = len(unpacked)
            if kind in _DEFLATE and made.eof and page.fillorder != 2:
                data = zlib.compress(unpacked, 0)
    if found > most:
        raise DataError(
            f"{where}: a strip or tile unpacks to more than it can hold of the image; write the file again, or move it "
            "elsewhere"
        )
    return data


def _samples(data: bytes) -> Iterator[int]:
    """Of all images that JPEG or JPEG 2000 data hold, the number of their samples."""
    for found in re.finditer(rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf](?=(.{8}))", data, re.DOTALL):
        length, _, height, width, count = struct.unpack(">HBHHB", found[1])
        if length == 8 + 3 * count:
            yield height * width * count
    for found in re.finditer(rb"\xff\x4f\xff\x51(?=.{4}(.{16}).{16}(..))", data, re.DOTALL):
        right, bottom, left, top = struct.unpack(">4I", found[1])
        yield (right - left) * (bottom - top) * int.from_bytes(found[2])


def _claimed(codec: Any, data: bytes) -> int:
    """The number of samples of an image by the header that a codec of imagecodecs reads first, or 0.

    It compares the shape with that of the array it is given, before it decodes anything, and says both.
    """
    try:
        codec(data, out=np.empty(0, np.uint8))
    except ValueError as error:
        shapes = re.findall(r"\((\d+(?:, \d+)*),?\)", str(error))
        return max((math.prod(map(int, shape.split(", "))) for shape in shapes), default=0)
    except Exception:  # decoding says what is wrong
        return 0
    return 0


def _packbits_length(data: bytes) -> int:
    at = length = 0
    while at < len(data):
        count = data[at]
        length += 257 - count if count > 128 else (count + 1) * (count < 128)
        at += 2 if count > 128 else 1 + (count + 1) * (count < 128)
    return length
