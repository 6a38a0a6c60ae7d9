"""TIFF files through tifffile: any number of channels and pages, planar or not, tiled, compressed."""

from __future__ import annotations

import contextlib
import logging
import math
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from unpaired.data.images import check_size, decoding, load_stored
from unpaired.data.stored import Pages, StoredArray, StoredFacts, check_channels, from_picture, turned
from unpaired.errors import DataError

_INVERTED, _BLACK_IS_ZERO, _RGB, _YCBCR, _LINEAR_RAW, _CFA = 0, 1, 2, 6, 34892, 32803
_HERE = (_INVERTED, _BLACK_IS_ZERO, _RGB, _LINEAR_RAW)
"""Kinds of pixels that are values; palettes, CMYK and the like are colours in disguise, which Pillow knows."""
_ORIENTATION = 274


def tiff_facts(file: IO[bytes], where: Path | str, pages: Pages) -> StoredFacts | None:
    """What the header says; None where Pillow has to read the file."""
    with _opened(file, where) as tif:
        series = _series(tif, where)
        if series is None:
            return None
        leading, own = _shape(series)
        count = own * (_kept(leading, pages) if leading else 1)
        return StoredFacts(np.dtype(series.dtype).name, count, _pages(leading))


def read_tiff(file: IO[bytes], where: Path | str, pages: Pages) -> StoredArray | None:
    """Read the first image of a TIFF, or all of its pages as channels; None where Pillow has to do it.

    Axes that the file itself calls channels (OME, ImageJ, samples per pixel) are channels in any case.

    Raises:
        DataError: It is damaged, too large, three-dimensional, holds pages of several sizes that were to be channels,
            or its compression needs the optional package.
    """
    with _opened(file, where) as tif:
        series = _series(tif, where)
        if series is None:
            return None
        page = series.keyframe
        if pages == "channels" and len(tif.series) > 1 and not all(s.keyframe.is_reduced for s in tif.series[1:]):
            raise DataError(f"{where}: its pages differ in size or type, so they cannot be channels; use pages = first")
        leading, own = _shape(series)
        check_size(page.imagewidth, page.imagelength, where)
        check_channels(own * _kept(leading, pages), where)
        try:
            values = _decoded(tif, series, leading, pages)
        except Exception as error:
            if "imagecodecs" not in str(error) and not isinstance(error, ImportError):
                with decoding(where):
                    raise
            with contextlib.suppress(DataError):  # Pillow's own library knows most compressions of plain images
                if own * _kept(leading, pages) == 1:
                    return from_picture(load_stored(file, where))
            name = getattr(page.compression, "name", page.compression)
            raise DataError(
                f"{where}: reading such TIFF files compressed with {name} needs another package: "
                "pip install 'unpaired[tiff]'"
            ) from error
        if page.photometric == _INVERTED and values.dtype.kind == "u":
            values = np.iinfo(values.dtype).max - values
        orientation = page.tags.valueof(_ORIENTATION, 1)
        colour = page.photometric in (_RGB, _YCBCR) and own >= 3
        alpha = _alpha(page, own, colour) if values.shape[2] == own else ""
        return StoredArray(turned(values, int(orientation)), colour, alpha, _pages(leading))


def _opened(file: IO[bytes], where: Path | str) -> Any:
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is wrong with a file is said by our own message
    with decoding(where):
        return tifffile.TiffFile(file)


def _series(tif: Any, where: Path | str) -> Any:
    """The first series of equal pages, if its pixels are values."""
    with decoding(where):
        series = tif.series[0]
        page = series.keyframe
        if page.photometric not in _HERE and not (page.photometric == _YCBCR and page.samplesperpixel != 3):
            return None
        if page.bitspersample not in (8, 16, 32, 64) or not series.dtype:
            return None
    if "Z" in page.axes or page.imagedepth > 1:
        raise DataError(f"{where}: holds a volume; save its slices as pages or as files")
    return series


def _shape(series: Any) -> tuple[dict[str, int], int]:
    """Axes in front of a page (name -> length, in order), and samples per pixel."""
    own = series.keyframe.axes
    leading = series.axes[: len(series.axes) - len(own)]
    lengths = series.shape[: len(leading)]
    names = {f"{axis}{number}": length for number, (axis, length) in enumerate(zip(leading, lengths, strict=True))}
    return names, series.keyframe.samplesperpixel if "S" in own else 1


def _kept(leading: dict[str, int], pages: Pages) -> int:
    """How many pages become channels."""
    return math.prod(length for axis, length in leading.items() if pages == "channels" or axis[0] in "CS")


def _pages(leading: dict[str, int]) -> int:
    return math.prod(leading.values())


def _decoded(tif: Any, series: Any, leading: dict[str, int], pages: Pages) -> np.ndarray:
    """The wanted pages as (H, W, C)."""
    numbers = np.arange(_pages(leading)).reshape(tuple(leading.values()) or (1,))
    if pages == "first":
        numbers = numbers[tuple(slice(None) if axis[0] in "CS" else slice(1) for axis in leading) or ...]
    wanted = [int(number) for number in numbers.flat]
    page = series.keyframe
    if len(series.pages) == _pages(leading):
        values = tif.asarray(key=wanted, series=0)
    else:  # a stack behind a single header
        values = series.asarray().reshape(-1, *page.shape)[wanted]
    values = np.asarray(values).reshape(len(wanted), *page.shape)
    if "S" not in page.axes:
        values = values.reshape(len(wanted), page.imagelength, page.imagewidth, 1)
    elif page.axes.index("S") == 0:
        values = np.moveaxis(values, 1, 3)
    height, width = page.imagelength, page.imagewidth
    return np.ascontiguousarray(values.transpose(1, 2, 0, 3)).reshape(height, width, -1)


def _alpha(page: Any, channels: int, colour: bool) -> Literal["", "straight", "premultiplied"]:
    """What the extra sample of gray or colour is."""
    last = int(page.extrasamples[-1]) if page.extrasamples else 0
    if channels != (4 if colour else 2) or last not in (1, 2):
        return ""
    return "premultiplied" if last == 1 else "straight"
