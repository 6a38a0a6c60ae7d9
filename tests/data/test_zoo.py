"""Awkward files of every kind, in runs of every kind, read from the file and given in Python: always one picture."""

from __future__ import annotations

import dataclasses
import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

import profiles
from unpaired.data import Attached, PixelFormat, ValueMapping, encode, read_picture
from unpaired.data.profiles import srgb
from unpaired.data.reading import describe
from unpaired.data.remarks import Remarks
from unpaired.data.writing import left_behind
from unpaired.errors import DataError, ValueRangeWarning

BACKGROUND = (255, 255, 0)
COLOUR = np.random.default_rng(1).integers(1, 255, (6, 9, 3), dtype=np.uint8)
GRAY = COLOUR[:, :, 0]
HOLE = np.zeros((6, 9), bool)
HOLE[1:3, 2:5] = True
SWAPPED = {1: lambda x: x, 2: lambda x: x[:, ::-1], 3: lambda x: x[::-1, ::-1], 4: lambda x: x[::-1],
           5: lambda x: x.swapaxes(0, 1), 6: lambda x: x.swapaxes(0, 1)[::-1],
           7: lambda x: x.swapaxes(0, 1)[::-1, ::-1], 8: lambda x: x.swapaxes(0, 1)[:, ::-1]}  # fmt: skip
"""Orientation -> how a camera stores an upright picture under it."""


def png(values: np.ndarray, **options: Any) -> bytes:
    held = io.BytesIO()
    Image.fromarray(values).save(held, "PNG", **options)
    return held.getvalue()


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    held = io.BytesIO()
    image.save(held, kind, **options)
    return held.getvalue()


def tiff(values: np.ndarray, **options: Any) -> bytes:
    held = io.BytesIO()
    tifffile.imwrite(held, values, **{"photometric": "minisblack", **options})
    return held.getvalue()


def npy(values: np.ndarray) -> bytes:
    held = io.BytesIO()
    np.save(held, values)
    return held.getvalue()


def with_chunk(content: bytes, name: bytes, data: bytes) -> bytes:
    """A PNG with one more chunk behind its header."""
    chunk = struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return content[:33] + chunk + content[33:]


def gray_png(bits: int, values: np.ndarray) -> bytes:
    """Gray of less than 8 bits, which Pillow does not write."""
    rows = [np.packbits(np.unpackbits(row[:, None], axis=1)[:, -bits:].reshape(-1)).tobytes() for row in values]

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, 0, 0, 0, 0)
    content = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def over(colour: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    share = opacity[:, :, None] / 255
    return colour * share + np.array(BACKGROUND) * (1 - share)


def filled(values: np.ndarray) -> np.ndarray:
    """What stands where there is no data: the mean of the rest of each channel."""
    planes = values.reshape(6, 9, -1).astype(float)
    means = np.array([planes[:, :, channel][~HOLE].mean() for channel in range(planes.shape[2])])
    return np.where(HOLE[:, :, None], means, planes)


ALPHA = np.where(HOLE, 0, np.random.default_rng(2).integers(0, 256, (6, 9))).astype(np.uint8)
KEYED = np.where(HOLE, np.uint8(0), GRAY)
PALETTE = Image.fromarray(np.dstack([GRAY // 64 * 64] * 3)).quantize(4)
CLEAR = np.where(HOLE, 0, 255).astype(np.uint8)
WIDE = GRAY.astype(np.uint16) * 257
WIDE_COLOUR = COLOUR.astype(np.uint16) * 257


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found


def oriented(orientation: int) -> np.ndarray:
    return np.ascontiguousarray(SWAPPED[orientation](COLOUR))


def late_exif() -> bytes:
    content = png(oriented(6), exif=exif(6))
    start = content.index(b"eXIf") - 4
    stop = start + 12 + struct.unpack(">I", content[start : start + 4])[0]
    end = content.index(b"IEND") - 4
    return content[:start] + content[stop:end] + content[start:stop] + content[end:]


def masked_tiff() -> bytes:
    held = io.BytesIO()
    with tifffile.TiffWriter(held) as file:
        file.write(COLOUR, photometric="rgb", metadata=None)
        file.write(~HOLE, photometric="mask", subfiletype=4, metadata=None)
    return held.getvalue()


def no_data(value: str) -> dict[str, Any]:
    return {"extratags": [(42113, 2, len(value) + 1, value, True)], "metadata": None}


Entry = tuple[str, bytes, np.ndarray | None, float]
"""Suffix, content, the picture in 0..255 (None: refused where integers are wanted), and how far it may be off."""
ZOO: dict[str, Entry] = {
    "1-bit png": (".png", saved(Image.fromarray(GRAY > 128), "PNG"), (GRAY > 128) * 255, 0),
    "2-bit png": (".png", gray_png(2, GRAY // 64), GRAY // 64 * 85, 0),
    "4-bit png": (".png", gray_png(4, GRAY // 16), GRAY // 16 * 17, 0),
    "gray png": (".png", png(GRAY), GRAY, 0),
    "gray png, transparent": (".png", png(KEYED, transparency=0), over(np.dstack([GRAY] * 3), CLEAR), 0),
    "gray png, alpha": (".png", png(np.dstack([GRAY, ALPHA])), over(np.dstack([GRAY] * 3), ALPHA), 1),
    "colour png": (".png", png(COLOUR), COLOUR, 0),
    "colour png, gamma": (".png", with_chunk(png(COLOUR), b"gAMA", struct.pack(">I", 100000)), COLOUR, 0),
    "colour png, alpha": (".png", png(np.dstack([COLOUR, ALPHA])), over(COLOUR, ALPHA), 1),
    "palette png": (".png", saved(PALETTE, "PNG"), np.asarray(PALETTE.convert("RGB")), 0),
    "palette png, transparent": (".png", saved(PALETTE, "PNG", transparency=0),
                                 over(np.asarray(PALETTE.convert("RGB")), (np.asarray(PALETTE) != 0) * 255), 0),
    "16-bit gray png": (".png", png(WIDE), GRAY, 0),
    "16-bit gray png, no data": (".png", png(np.where(HOLE, np.uint16(0), WIDE), transparency=0), filled(GRAY), 1),
    "16-bit gray png, alpha": (".png", encode(np.dstack([WIDE, ALPHA.astype(np.uint16) * 257]), ".png"),
                               over(np.dstack([GRAY] * 3), ALPHA), 1),
    "16-bit colour png": (".png", encode(WIDE_COLOUR, ".png"), COLOUR, 0),
    "16-bit colour png, alpha": (".png", encode(np.dstack([WIDE_COLOUR, ALPHA.astype(np.uint16) * 257]), ".png"),
                                 over(COLOUR, ALPHA), 1),
    "16-bit colour png, no data": (".png", encode(np.where(HOLE[:, :, None], np.uint16(7), WIDE_COLOUR), ".png",
                                                  Attached(no_data=(7,)), [HOLE[:, :, None]]), filled(COLOUR), 1),
    "png, EXIF behind the pixels": (".png", late_exif(), COLOUR, 0),
    "gray jpeg": (".jpg", saved(Image.fromarray(np.full((6, 9), 77, np.uint8)), "JPEG"), np.full((6, 9), 77), 0),
    "cmyk jpeg": (".jpg", saved(Image.new("CMYK", (9, 6), (0, 255, 255, 0)), "JPEG", quality=100),
                  np.full((6, 9, 3), (255, 0, 0)), 4),
    "mpo": (".jpg", saved(Image.new("RGB", (9, 6), (9, 99, 199)), "MPO", save_all=True, quality=100,
                          append_images=[Image.new("RGB", (9, 6))]), np.full((6, 9, 3), (9, 99, 199)), 3),
    **{f"png, orientation {n}": (".png", png(oriented(n), exif=exif(n)), COLOUR, 0) for n in range(1, 9)},
    **{f"tiff, orientation {n}": (".tif", tiff(oriented(n), photometric="rgb", extratags=[(274, 3, 1, n, True)]),
                                  COLOUR, 0) for n in range(1, 9)},
    "webp": (".webp", saved(Image.fromarray(COLOUR), "WEBP", lossless=True), COLOUR, 0),
    "webp, alpha": (".webp", saved(Image.fromarray(np.dstack([COLOUR, CLEAR])), "WEBP", lossless=True, exact=True),
                    over(COLOUR, CLEAR), 0),
    "avif": (".avif", saved(Image.new("RGB", (32, 24), (10, 200, 100)), "AVIF", quality=100),
             np.full((24, 32, 3), (10, 200, 100)), 3),
    "gif": (".gif", saved(PALETTE, "GIF"), np.asarray(PALETTE.convert("RGB")), 0),
    "gif, moving": (".gif", saved(PALETTE, "GIF", save_all=True, append_images=[Image.new("L", (9, 6))]),
                    np.asarray(PALETTE.convert("RGB")), 0),
    "bmp": (".bmp", saved(Image.fromarray(COLOUR), "BMP"), COLOUR, 0),
    "jfif": (".jfif", saved(Image.new("RGB", (9, 6), (9, 99, 199)), "JPEG", quality=100),
             np.full((6, 9, 3), (9, 99, 199)), 3),
    "tiff YX": (".tif", tiff(GRAY), GRAY, 0),
    "tiff YXS": (".tif", tiff(COLOUR, photometric="rgb"), COLOUR, 0),
    "tiff SYX": (".tif", tiff(COLOUR.transpose(2, 0, 1).copy(), photometric="rgb", planarconfig="separate"), COLOUR, 0),
    "tiff CYX ImageJ": (".tif", tiff(COLOUR.transpose(2, 0, 1).copy(), imagej=True, metadata={"axes": "CYX"}),
                        COLOUR, 0),
    "tiff CYX OME": (".tif", tiff(COLOUR.transpose(2, 0, 1).copy(), ome=True, metadata={"axes": "CYX"}), COLOUR, 0),
    "tiff TCYX ImageJ": (".tif", tiff(np.stack([COLOUR.transpose(2, 0, 1)] * 2), imagej=True,
                                      metadata={"axes": "TCYX"}), COLOUR, 0),
    "tiff pages": (".tif", tiff(np.stack([GRAY, GRAY // 2]), metadata=None), GRAY, 0),
    "tiff MINISWHITE": (".tif", tiff(255 - GRAY, photometric="miniswhite"), GRAY, 0),
    "tiff MINISWHITE 16": (".tif", tiff(65535 - WIDE, photometric="miniswhite"), GRAY, 0),
    "tiff 1-bit": (".tif", saved(Image.fromarray(GRAY > 128), "TIFF"), (GRAY > 128) * 255, 0),
    "tiff 1-bit, compressed, MINISWHITE": (".tif", saved(Image.fromarray(GRAY > 128), "TIFF", compression="group4"),
                                           (GRAY > 128) * 255, 0),
    "tiff palette": (".tif", saved(PALETTE, "TIFF"), np.asarray(PALETTE.convert("RGB")), 0),
    "tiff CMYK": (".tif", saved(Image.new("CMYK", (9, 6), (0, 255, 255, 0)), "TIFF"),
                  np.full((6, 9, 3), (255, 0, 0)), 1),
    "tiff alpha": (".tif", tiff(np.dstack([COLOUR, ALPHA]), photometric="rgb", extrasamples=["unassalpha"]),
                   over(COLOUR, ALPHA), 1),
    "tiff premultiplied": (".tif", tiff(np.dstack([np.where(HOLE[:, :, None], np.uint8(0), COLOUR), CLEAR]),
                                        photometric="rgb", extrasamples=["assocalpha"]), over(COLOUR, CLEAR), 1),
    "tiff alpha 16": (".tif", tiff(np.dstack([WIDE_COLOUR, ALPHA.astype(np.uint16) * 257]), photometric="rgb",
                                   extrasamples=["unassalpha"]), over(COLOUR, ALPHA), 1),
    "tiff LZW": (".tif", saved(Image.fromarray(COLOUR), "TIFF", compression="tiff_lzw"), COLOUR, 0),
    "tiff uint16": (".tif", tiff(WIDE_COLOUR, photometric="rgb"), COLOUR, 0),
    "tiff big-endian uint16": (".tif", tiff(WIDE, byteorder=">"), GRAY, 0),
    "tiff uint32": (".tif", tiff(WIDE.astype(np.uint32)), GRAY, 0),
    "tiff int32": (".tif", tiff(WIDE.astype(np.int32)), GRAY, 0),
    "tiff int16": (".tif", tiff(WIDE.astype(np.int32).clip(0, 32767).astype(np.int16)),
                   np.minimum(WIDE, 32767) / 257, 0.5),
    "tiff int16, negative": (".tif", tiff(GRAY.astype(np.int16) - 300), None, 0),
    "tiff int16, no data": (".tif", tiff(np.where(HOLE, -9999, GRAY * np.int16(100)).astype(np.int16),
                                         **no_data("-9999")), filled(GRAY.astype(int) * 100) / 257, 0.6),
    "tiff float32": (".tif", tiff(GRAY.astype(np.float32)), None, 0),
    "tiff float32, no data": (".tif", tiff(np.where(HOLE, np.float32(-3.4028234663852886e38), GRAY),
                                           **no_data("-3.4028234663852886e+38")), None, 0),
    "tiff uint8, no data": (".tif", tiff(np.where(HOLE, np.uint8(0), GRAY), **no_data("0")), filled(GRAY), 1),
    "tiff uint8, no data out of range": (".tif", tiff(GRAY, **no_data("-9999")), GRAY, 0),
    "tiff, mask": (".tif", masked_tiff(), filled(COLOUR), 1),
    "npy HW": (".npy", npy(GRAY), GRAY, 0),
    "npy HWC": (".npy", npy(COLOUR), COLOUR, 0),
    "npy CHW": (".npy", npy(COLOUR.transpose(2, 0, 1)), COLOUR, 0),
    "npy bool": (".npy", npy(GRAY > 128), (GRAY > 128) * 255, 0),
    "npy uint16": (".npy", npy(WIDE_COLOUR), COLOUR, 0),
    "npy uint32": (".npy", npy(WIDE.astype(np.uint32)), GRAY, 0),
    "npy int16": (".npy", npy(GRAY.astype(np.int16) - 300), None, 0),
    "npy big-endian": (".npy", npy(WIDE.astype(">u2")), GRAY, 0),
    "npy float64, NaN": (".npy", npy(np.where(HOLE, np.nan, GRAY)), None, 0),
}  # fmt: skip


def formats(path: Path) -> dict[str, PixelFormat]:
    """The three kinds of run; floats range over what the file's integers do."""
    stored = describe(path).dtype
    top = 255.0 if stored == "uint8" else 65535.0
    low = -300.0 if stored == "int16" else 0.0
    return {
        "8-bit": PixelFormat(3, background=BACKGROUND),
        "16-bit": PixelFormat(3, "uint16", ValueMapping("dtype", (0.0,), (65535.0,)), background=BACKGROUND),
        "float": PixelFormat(
            3, "float32", ValueMapping("range", (0.0 if low else low,), (top,)), background=BACKGROUND
        ),
    }


def ways(path: Path) -> dict[str, Callable[[], Any]]:
    if path.suffix == ".npy":
        return {"array": lambda: np.load(path)}
    return {"PIL image": lambda: Image.open(path)}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ZOO)
def test_one_picture_in_every_run_and_way(name: str, tmp_path: Path) -> None:
    suffix, content, expected, tolerance = ZOO[name]
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    for run, pixels in formats(path).items():
        if expected is None and run != "float":
            for given in (path, *(way() for way in ways(path).values())):
                with pytest.raises(DataError, match=r"holds \w+.* images of this domain are"):
                    read_picture(given, pixels)
            continue
        picture = read_picture(path, pixels)
        for way in ways(path).values():
            other = read_picture(way(), pixels)
            assert np.array_equal(picture.values, other.values)
            assert (picture.invalid is None) == (other.invalid is None)
        holes = any(word in name for word in ("no data", "mask", "NaN")) and "out of range" not in name
        assert (picture.invalid is not None) == holes
        if expected is not None:
            low, high = pixels.mapping.low[0], pixels.mapping.high[0]
            seen = (picture.values.astype(float) - low) / (high - low) * 255
            wanted = np.broadcast_to(expected if expected.ndim == 3 else expected[:, :, None], seen.shape)
            assert np.abs(seen - wanted).max() <= tolerance + 0.51, run
        if picture.invalid is not None:
            assert np.array_equal(picture.invalid.any(-1), HOLE)
            assert np.isfinite(picture.values.astype(float)).all()
            assert np.abs(picture.values.astype(float)).max() < 1e6


CUT_SHORT = ("16-bit colour", "16-bit gray png, a")
"""What Pillow decodes to 8 bits."""
KEPT = [
    name
    for name, (suffix, _, expected, _) in ZOO.items()
    if expected is not None and suffix not in (".npy", ".tif") and not name.startswith(CUT_SHORT)
]


@pytest.mark.parametrize("name", KEPT)
def test_a_decoded_pillow_image_shows_what_pillow_keeps(name: str, tmp_path: Path) -> None:
    suffix, content, expected, tolerance = ZOO[name]
    (tmp_path / f"x{suffix}").write_bytes(content)
    with Image.open(tmp_path / f"x{suffix}") as image:
        image.load()
        seen = read_picture(image, PixelFormat(3, background=BACKGROUND)).values.astype(float)
    assert expected is not None
    assert np.abs(seen - (expected if expected.ndim == 3 else expected[:, :, None])).max() <= tolerance + 0.51


VIVID = Image.fromarray(COLOUR // 128 * 200).quantize(8)
SWAP = COLOUR[:, :, [1, 0, 2]]
LIGHT = profiles.encoded(GRAY / 255)
LINEAR = profiles.icc(b"GRAY", kTRC=profiles.gamma(1))
INK = np.dstack([COLOUR, GRAY])
PRESS = profiles.of_lightness(100 * (1 - GRAY / 255))
RGB_TABLE = profiles.table(b"RGB ", 0)
PROFILED: dict[str, tuple[str, bytes, np.ndarray, float, str]] = {
    "png": (".png", png(COLOUR, icc_profile=profiles.EXCHANGED), SWAP, 1, "profile"),
    "png, alpha": (".png", png(np.dstack([COLOUR, ALPHA]), icc_profile=profiles.EXCHANGED), over(SWAP, ALPHA), 2,
                   "profile"),
    "png, curve of a table": (".png", png(COLOUR, icc_profile=profiles.rgb(curve=profiles.CURVE_1_8)),
                              profiles.encoded((COLOUR / 255) ** 1.8), 1, "profile"),
    "png, table": (".png", png(COLOUR, icc_profile=RGB_TABLE),
                   profiles.of_lightness(100 * (1 - COLOUR[:, :, :1] / 255)), 3, "profile"),
    "png, sRGB": (".png", png(COLOUR, icc_profile=profiles.rgb()), COLOUR, 0, ""),
    "png, damaged": (".png", png(COLOUR, icc_profile=profiles.EXCHANGED[:200]), COLOUR, 0, ""),
    "gray png": (".png", png(GRAY, icc_profile=LINEAR), LIGHT, 1, "profile"),
    "gray png, alpha": (".png", png(np.dstack([GRAY, ALPHA]), icc_profile=LINEAR),
                        over(np.dstack([LIGHT] * 3), ALPHA), 2, "profile"),
    "gray png, colours": (".png", png(GRAY, icc_profile=profiles.EXCHANGED), GRAY, 0, ""),
    "16-bit gray png": (".png", png(WIDE, icc_profile=LINEAR), LIGHT, 0.1, "profile"),
    "16-bit colour png": (".png", encode(WIDE_COLOUR, ".png", Attached(profiles.EXCHANGED)), SWAP, 0.5, "profile"),
    "16-bit colour png, alpha": (".png", encode(np.dstack([WIDE_COLOUR, ALPHA.astype(np.uint16) * 257]), ".png",
                                                Attached(profiles.EXCHANGED)), over(SWAP, ALPHA), 1, "profile"),
    "16-bit colour png, table": (".png", encode(WIDE_COLOUR, ".png", Attached(RGB_TABLE)), COLOUR, 0, "kept"),
    "16-bit colour png, no data": (".png", encode(np.where(HOLE[:, :, None], np.uint16(7), WIDE_COLOUR), ".png",
                                                  Attached(profiles.EXCHANGED, no_data=(7,)), [HOLE[:, :, None]]),
                                   SWAP, 0.5, "profile"),
    "jpeg": (".jpg", saved(Image.new("RGB", (9, 6), (200, 50, 90)), "JPEG", quality=100,
                           icc_profile=profiles.EXCHANGED), np.full((6, 9, 3), (50, 200, 90)), 3, "profile"),
    "cmyk jpeg": (".jpg", saved(Image.new("CMYK", (9, 6), (9, 255, 99, 150)), "JPEG", quality=100,
                                icc_profile=profiles.table(b"CMYK", 3)),
                  np.full((6, 9, 3), profiles.of_lightness(np.array(100 * 105 / 255))), 3, "profile"),
    "cmyk tiff": (".tif", saved(Image.fromarray(INK, "CMYK"), "TIFF", icc_profile=profiles.table(b"CMYK", 3)),
                  PRESS, 3, "profile"),
    "webp": (".webp", saved(Image.fromarray(COLOUR), "WEBP", lossless=True, icc_profile=profiles.EXCHANGED), SWAP, 1,
             "profile"),
    "palette png": (".png", saved(VIVID, "PNG", icc_profile=profiles.EXCHANGED),
                    np.asarray(VIVID.convert("RGB"))[:, :, [1, 0, 2]], 1, "profile"),
    "tiff": (".tif", tiff(COLOUR, photometric="rgb", iccprofile=profiles.EXCHANGED), SWAP, 1, "profile"),
    "tiff, premultiplied": (".tif", tiff(np.dstack([np.where(HOLE[:, :, None], np.uint8(0), COLOUR), CLEAR]),
                                         photometric="rgb", extrasamples=["assocalpha"],
                                         iccprofile=profiles.EXCHANGED), over(SWAP, CLEAR), 1, "profile"),
    "gray tiff": (".tif", tiff(GRAY, iccprofile=LINEAR), LIGHT, 1, "profile"),
    "gray tiff, MINISWHITE": (".tif", tiff(255 - GRAY, photometric="miniswhite", iccprofile=LINEAR), LIGHT, 1,
                              "profile"),
    "tiff uint16": (".tif", tiff(WIDE_COLOUR, photometric="rgb", iccprofile=profiles.EXCHANGED), SWAP, 0.5, "profile"),
    "tiff uint16, parametric": (".tif", tiff(WIDE, iccprofile=profiles.icc(b"GRAY", kTRC=profiles.SRGB_CURVE)), GRAY, 0,
                                ""),
    "tiff float32": (".tif", tiff(COLOUR.astype(np.float32), photometric="rgb", iccprofile=profiles.EXCHANGED), COLOUR,
                     0, "kept"),
}  # fmt: skip
"""Suffix, content, the picture in sRGB, how far it may be off, and what is said of it."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PROFILED)
def test_a_profile_is_converted_alike_in_every_run_and_way_or_kept_and_said(name: str, tmp_path: Path) -> None:
    suffix, content, expected, tolerance, said = PROFILED[name]
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    facts = describe(path)
    runs = {"float": formats(path)["float"]} if facts.dtype == "float32" else formats(path)
    for run, one in runs.items():
        pixels = dataclasses.replace(one, colour_profiles="convert")
        picture = read_picture(path, pixels)
        if facts.dtype != "float32":  # Pillow opens no such files
            assert np.array_equal(picture.values, read_picture(Image.open(path), pixels).values)
        top = 255 if (facts.dtype in ("uint8", "float32") and run != "16-bit") or run == "8-bit" else 65535
        seen = picture.values.astype(float) / top * 255
        off = np.abs(seen - (expected if expected.ndim == 3 else expected[:, :, None]))
        assert off[~HOLE if "no data" in name else ...].max() <= tolerance + 0.51, run
        attached = picture.description.attached.profile
        assert attached == (srgb() if said == "profile" else facts.attached.profile)
        for channels in (1, 3) if said == "profile" else ():  # gray without a profile is that of sRGB
            assert "colour profile" not in left_behind(picture.description.attached, ".png", channels)
        ignored = read_picture(path, dataclasses.replace(pixels, colour_profiles="ignore"))
        assert ignored.description.attached.profile == facts.attached.profile
        assert np.array_equal(ignored.values, picture.values) == (said != "profile")
        remarks = Remarks(pixels=pixels)
        remarks.add(facts)
        words = {"profile": "another colour profile of 1 image, converted to sRGB",
                 "kept": "another colour profile of 1 image, kept as it is"}  # fmt: skip
        assert [words[kind] in remarks.line for kind in words] == [said == kind for kind in words]
    if facts.dtype == "uint8":  # what Pillow keeps when it has decoded
        with Image.open(path) as image:
            image.load()
            pixels = dataclasses.replace(runs["8-bit"], colour_profiles="convert")
            assert np.array_equal(read_picture(image, pixels).values, read_picture(path, pixels).values)


WRITTEN = {name: suffix for name, (suffix, *_) in PROFILED.items() if "16" in name}
"""Files of 16 bits with a profile, which is converted, kept, or nothing but sRGB."""


@pytest.mark.parametrize("colour_profiles", ["convert", "ignore"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_with_a_profile_is_read_as_the_same_picture(
    name: str, channels: int, suffix: str, colour_profiles: Any, tmp_path: Path
) -> None:
    (tmp_path / f"x{WRITTEN[name]}").write_bytes(PROFILED[name][1])
    whole = ValueMapping("dtype", (0.0,), (65535.0,))
    pixels = PixelFormat(channels, "uint16", whole, background=BACKGROUND, colour_profiles=colour_profiles)
    picture = read_picture(tmp_path / f"x{WRITTEN[name]}", pixels)
    attached = picture.description.attached
    made = tmp_path / f"made{suffix}"
    made.write_bytes(encode(picture.values, suffix, attached, [picture.invalid_for(channels)]))
    again = read_picture(made, pixels)
    assert np.array_equal(again.values[~HOLE], picture.values[~HOLE])
    assert again.description.attached.profile == attached.profile_for(channels)
    said = left_behind(attached, suffix, channels)
    assert ("colour profile" in said) == (not attached.profile_for(channels) and attached.profile != srgb())
    for opened in (Image.open(made), tifffile.TiffFile(made).pages[0]) if suffix == ".tif" else (Image.open(made),):
        found = opened.info.get("icc_profile") if isinstance(opened, Image.Image) else opened.tags.valueof(34675)
        assert (found or b"") == attached.profile_for(channels)


@pytest.mark.parametrize("dtype", ["int16", "int32", "uint32", ">i4"])
def test_wide_integers_that_look_like_bytes_are_told(dtype: str, tmp_path: Path) -> None:
    own = ValueMapping("dtype", (0.0,), (65535.0,))
    for pixels in (PixelFormat(3), PixelFormat(3, "uint16", own)):
        np.save(tmp_path / "x.npy", COLOUR.astype(dtype))
        for given in (COLOUR.astype(dtype), tmp_path / "x.npy"):
            with pytest.warns(
                ValueRangeWarning, match=r"int\d\d images with no value above 255 .* convert them to uint8"
            ):
                read_picture(given, pixels)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for fine in (COLOUR.astype(dtype) * 100, COLOUR.astype(dtype) * 0, COLOUR, COLOUR.astype("uint16")):
                read_picture(fine, pixels)
