"""TIFF files through tifffile: any number of channels and pages, planar or not, tiled, compressed."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, ClassVar, Literal

import numpy as np

from unpaired.data.kinds.pillow import Picture, open_picture
from unpaired.data.mapping import PixelType
from unpaired.data.profiles import fate_of
from unpaired.data.stored import (
    Attached,
    Description,
    FileKind,
    Pages,
    check_channels,
    check_size,
    file_kind,
    mode_name,
)
from unpaired.data.tiff_limits import check_layout, limit, series_of
from unpaired.errors import DataError

_INVERTED, _RGB, _PALETTE, _YCBCR = 0, 2, 3, 6
_VALUES = (_INVERTED, 1, _RGB, 34892)
"""Photometric interpretations whose pixels are values; palettes, CMYK and the like are colours that Pillow knows."""
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT, _ORIENTATION, _ICC_PROFILE = 282, 283, 296, 274, 34675
_GEOGRAPHY = (33550, 33922, 34264, 34735, 34736, 34737, 50844)
"""GeoTIFF's tags and the RPC of satellite images: where on earth the pixels lie."""
_DESCRIPTION, _GDAL_METADATA, _NO_DATA = 270, 42112, 42113
_DESCRIPTIVE = (269, _DESCRIPTION, 271, 272, 285, 306, 315, 316, 33432, _GDAL_METADATA)
"""Names of the document, camera and page, description, date, artist, computer, copyright; names and scales of bands."""
_STATISTICS = re.compile(r' *<Item name="STATISTICS_[^>]*>[^<]*</Item>\n?')
"""Of the values of bands, which translations do not have."""
_STRUCTURAL = {*range(254, 267), *range(273, 285), 288, 289, 290, 291, 296, 297, 301, 305, *range(317, 348),
               *range(512, 533), 559, 32996, 32997, 32998, 34675, 42113, 50838, 50839}  # fmt: skip
"""How pixels are stored, what is read beside them, and what wrote the file."""
_EXTRA_SAMPLE = {"straight": ["unassalpha"], "premultiplied": ["assocalpha"]}
_STRUCTURE = ("ImageJ=", '{"shape"', "<?xml", "<OME", "SCI")
"""How descriptions begin that say how a file is laid out, which the file that is written is not."""


@file_kind
class Tiff(FileKind):
    """TIFF and BigTIFF, in either byte order."""

    suffixes: ClassVar[dict[str, str]] = {".tif": "TIFF", ".tiff": "TIFF"}
    begins = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

    def describe(self, file: IO[bytes], where: Path | str, pages: Pages, channels: int | None) -> Description:
        """Axes that the file itself calls channels (OME, ImageJ, samples per pixel) are channels in any case."""
        import tifffile

        logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is wrong is said by our own message
        tif = tifffile.TiffFile(file)
        all_series = series_of(tif, where)
        series: Any = all_series[0]
        page = series.keyframe
        check_layout(page, where)
        values = page.photometric in _VALUES or (page.photometric == _YCBCR and page.samplesperpixel != 3)
        if not values or page.bitspersample not in (8, 16, 32, 64) or not series.dtype:
            return _beside(Picture().describe(file, where, pages, channels), tif, file, where)
        if "Z" in page.axes or page.imagedepth > 1:
            raise DataError(f"{where}: holds a volume; save its slices as pages or as files")
        others = [s for s in all_series[1:] if not s.keyframe.is_reduced and not s.keyframe.is_mask]
        if pages == "channels" and others:
            raise DataError(f"{where}: its pages differ in size or type, so they cannot be channels; use pages = first")
        alike = [s for s in others if (s.dtype, s.keyframe.axes) == (series.dtype, page.axes)]
        stacks = [(one, _numbers(one, pages)) for one in (series, *alike)]
        own = page.samplesperpixel if "S" in page.axes else 1
        count = own * stacks[0][1].shape[1]
        for one, _ in stacks:
            check_size(one.keyframe.imagewidth, one.keyframe.imagelength, where)
            check_layout(one.keyframe, where)
        check_channels(count, where)
        dtype = np.dtype(series.dtype).newbyteorder("=")
        colour = page.photometric in (_RGB, _YCBCR) and own >= 3
        alpha = _alpha(page, own, colour) if count == own else ""
        orientation = int(page.tags.valueof(_ORIENTATION, 1))
        inverted = page.photometric == _INVERTED and dtype.kind == "u"

        def samples(number: int) -> np.ndarray:
            try:
                values = _decoded(stacks, number, where)
            except DataError:
                raise
            except Exception as error:
                if "imagecodecs" not in str(error) and not isinstance(error, ImportError):
                    raise
                with contextlib.suppress(DataError):  # Pillow's own library knows most compressions of plain images
                    other = Picture().describe(file, where, pages, channels)
                    if (other.dtype, other.channels) == (dtype.name, count):
                        return other.samples(number)
                name = getattr(page.compression, "name", page.compression)
                raise DataError(
                    f"{where}: reading such TIFF files compressed with {name} needs another package: "
                    "pip install 'unpaired[tiff]'"
                ) from error
            return np.iinfo(dtype).max - values if inverted else values.astype(dtype, copy=False)

        attached = _attached(page, count)
        key = np.iinfo(dtype).max - np.array(attached.no_data) if inverted else attached.no_data
        speaks = 0 if count != own else 3 if colour else int(own - bool(alpha) == 1)
        fate = fate_of(attached.profile, speaks, dtype.name)
        return Description(
            "TIFF", mode_name(dtype.name, count, colour=colour, alpha=bool(alpha)),
            *((page.imagelength, page.imagewidth) if orientation >= 5 else (page.imagewidth, page.imagelength)),
            dtype.name, count, samples, colour=colour, alpha=alpha, orientation=orientation,
            pages=sum(len(numbers) for _, numbers in stacks), profile=attached.profile if fate else b"",
            convertible=fate == "convert", no_data=tuple(map(float, key)),
            valid=_mask(all_series, where), attached=attached,
        )  # fmt: skip

    def can_hold(self, suffix: str, dtype: PixelType, channels: int, pages: int) -> bool:
        return True

    def encode(self, images: Sequence[np.ndarray], suffix: str, attached: Attached, durations: Sequence[float]) -> Any:
        """Compressed without loss, samples side by side; three channels beside opacity are colour, others values."""
        import tifffile

        channels = images[0].shape[2]
        across, down, unit = attached.resolution or (1, 1, 1)
        tags = [(*tag, True) for tag in attached.tags if tag[0] != _GDAL_METADATA or channels == attached.channels]
        if attached.no_data:
            words = f"{attached.no_data[0]:.17g}"
            tags.append((_NO_DATA, 2, len(words) + 1, words, True))
        held = io.BytesIO()
        with tifffile.TiffWriter(held) as file:
            for values in images:
                file.write(
                    values[:, :, 0] if channels == 1 else values,
                    photometric="rgb" if channels - bool(attached.alpha) == 3 else "minisblack",
                    extrasamples=_EXTRA_SAMPLE.get(attached.alpha),
                    planarconfig="contig" if channels > 1 else None,
                    compression="zlib",
                    predictor=values.dtype.kind == "u",
                    iccprofile=attached.profile_for(channels) or None,
                    extratags=tags,
                    metadata=None,
                    software="unpaired",
                    resolution=(across, down),
                    resolutionunit=unit,
                )
        return held.getbuffer()


def _numbers(series: Any, pages: Pages) -> np.ndarray:
    """Of a series of equal pages, the numbers of those that are one image together, (images, pages per image)."""
    own = series.keyframe.axes
    leading = series.axes[: len(series.axes) - len(own)]
    numbers = np.arange(math.prod(series.shape[: len(leading)])).reshape(series.shape[: len(leading)])
    if pages == "channels":
        return numbers.reshape(1, -1)
    inside = [place for place, axis in enumerate(leading) if axis in "CS"]
    numbers = np.moveaxis(numbers, inside, range(len(leading) - len(inside), len(leading)))
    return numbers.reshape(-1, math.prod(series.shape[place] for place in inside))


def _decoded(stacks: Sequence[tuple[Any, np.ndarray]], number: int, where: Path | str) -> np.ndarray:
    """The pages of an image of some series, counted through all of them, as (H, W, C)."""
    before = 0
    while number - before >= len(stacks[0][1]):
        before, stacks = before + len(stacks[0][1]), stacks[1:]
    series, numbers = stacks[0]
    page, wanted = series.keyframe, [int(each) for each in numbers[number - before]]
    if len(series.pages) * math.prod(page.shape) == math.prod(series.shape):
        values = np.stack([limit(series.pages[each], where).asarray() for each in wanted])
    else:  # a stack behind a single header
        limit(page, where)
        values = series.asarray().reshape(-1, *page.shape)[wanted]
    values = np.asarray(values).reshape(len(wanted), *page.shape)
    height, width = page.imagelength, page.imagewidth
    if "S" not in page.axes:
        values = values.reshape(len(wanted), height, width, 1)
    elif page.axes.index("S") == 0:
        values = np.moveaxis(values, 1, 3)
    return np.ascontiguousarray(values.transpose(1, 2, 0, 3)).reshape(height, width, -1)


def _alpha(page: Any, channels: int, colour: bool) -> Literal["", "straight", "premultiplied"]:
    """What the extra sample of gray or colour is."""
    last = int(page.extrasamples[-1]) if page.extrasamples else 0
    if channels != (4 if colour else 2) or last not in (1, 2):
        return ""
    return "premultiplied" if last == 1 else "straight"


def _mask(all_series: Any, where: Path | str) -> Callable[[], np.ndarray] | None:
    """Decodes the mask page of the first image, where there is one."""
    first, *others = (series.keyframe for series in all_series)
    size = first.imagelength, first.imagewidth
    masks = (p for p in others if p.is_mask and not p.is_reduced and (p.imagelength, p.imagewidth) == size)
    mask = next(masks, None)
    return mask and (lambda: limit(mask, where).asarray() != 0)


def _beside(decoded: Description, tif: Any, file: IO[bytes], where: Path | str) -> Description:
    """An image that Pillow decodes, with what the file has beside the pixels: tags, no data, a mask, smaller copies."""
    page = tif.pages[0]
    attached = _attached(page, decoded.channels)
    own = [number for number, one in enumerate(tif.pages) if not one.is_mask and not one.is_reduced] or [0]
    key, valid, bits = attached.no_data, _mask(tif.series, where), page.bitspersample
    if key and page.photometric == _PALETTE:

        def valid(mask: Callable[[], np.ndarray] | None = valid) -> np.ndarray:
            indices = np.asarray(open_picture(file, where).getchannel(0))
            return (indices != key[0]) & (mask() if mask else True)

    elif key and bits < 8:  # Pillow decodes black to 0 and white to 255
        white = 2**bits - 1
        key = (255 / white * (white - key[0] if page.photometric == _INVERTED else key[0]),)

    def numbered(decode: Callable[[int], np.ndarray]) -> Callable[[int], np.ndarray]:
        return lambda number: decode(own[number])

    return replace(
        decoded, samples=numbered(decoded.samples), inks=decoded.inks and numbered(decoded.inks), pages=len(own),
        no_data=() if page.photometric == _PALETTE else key, valid=valid, attached=attached,
    )  # fmt: skip


def _attached(page: Any, channels: int) -> Attached:
    """What belongs to an image; damage there is no reason not to read the pixels."""
    try:
        return _attached_tags(page, channels)
    except Exception:
        return Attached(channels=channels)


def _attached_tags(page: Any, channels: int) -> Attached:
    tags = page.tags
    across, down = (tags.valueof(code, (0, 0)) for code in (_X_RESOLUTION, _Y_RESOLUTION))
    known = all(across) and all(down)
    resolution = (across[0] / across[1], down[0] / down[1], int(tags.valueof(_RESOLUTION_UNIT, 2))) if known else None
    carried = [code for code in (*_GEOGRAPHY, *_DESCRIPTIVE) if code in tags]
    if str(tags.valueof(_DESCRIPTION, "")).startswith(_STRUCTURE):
        carried.remove(_DESCRIPTION)
    kept = [(code, int(tags[code].dtype), tags[code].count, tags[code].value) for code in carried]
    if _GDAL_METADATA in carried:
        words = _STATISTICS.sub("", str(tags.valueof(_GDAL_METADATA)))
        kept[carried.index(_GDAL_METADATA)] = (_GDAL_METADATA, 2, len(words) + 1, words)
    no_data: tuple[float, ...] = ()
    with contextlib.suppress(ValueError):
        no_data = (float(str(tags.valueof(_NO_DATA, "")).strip("\0 ")),)
    names = {34665: "EXIF", 700: "XMP"}
    others = (tag for tag in tags if tag.code not in {*_STRUCTURAL, *_GEOGRAPHY, *_DESCRIPTIVE})
    dropped = tuple(names.get(tag.code, f"TIFF tag {tag.name}") for tag in others)
    profile = bytes(tags.valueof(_ICC_PROFILE, b"") or b"")
    return Attached(profile, resolution, tuple(kept), no_data, channels, dropped)
