"""Checks of images of any depth: which are equal or similar, which hold no data, which do not fill their range."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from official_archives import picture, quiet, write_folder
from PIL import Image
from test_zoo import ZOO, npy, png, tiff

from tiny import smooth
from unpaired import cli
from unpaired.data import Remarks, encode, read_picture
from unpaired.data.check import Report, check_set, remarks
from unpaired.data.formats import find_formats
from unpaired.data.inspection import facts_of, inspect
from unpaired.data.mapping import ValueMapping
from unpaired.data.pixels import PixelFormat
from unpaired.data.prepare import PrepareSettings, prepare
from unpaired.data.reading import load
from unpaired.data.settings import DataConfig
from unpaired.data.spread import odd_types, range_remarks, spread_in, spread_of

Make = Callable[[int, int], bytes]
"""An image of a seed, dark or over the whole range, as a file."""


def waves(seed: int, channels: int, dtype: str, top: float) -> np.ndarray:
    return (smooth(40, 48, channels, seed) * top).astype(dtype)


DEEP: dict[str, tuple[str, Make]] = {
    "gray tiff": (".tif", lambda seed, top: tiff(waves(seed, 1, "uint16", top)[:, :, 0])),
    "gray png": (".png", lambda seed, top: png(waves(seed, 1, "uint16", top)[:, :, 0])),
    "colour png": (".png", lambda seed, top: bytes(encode(waves(seed, 3, "uint16", top), ".png"))),
    "colour tiff": (".tif", lambda seed, top: tiff(waves(seed, 3, "uint16", top), photometric="rgb")),
    "white tiff": (".tif", lambda seed, top: tiff(65535 - waves(seed, 1, "uint16", top)[:, :, 0],
                                                  photometric="miniswhite")),
    "int16 tiff": (".tif", lambda seed, top: tiff(waves(seed, 1, "int16", min(top, 32000))[:, :, 0])),
    "int32 npy": (".npy", lambda seed, top: npy(waves(seed, 1, "int32", top)[:, :, 0])),
    "five channels": (".tif", lambda seed, top: tiff(waves(seed, 5, "uint16", top), planarconfig="contig")),
    "two pages": (".tif", lambda seed, top: tiff(np.moveaxis(waves(seed, 2, "uint16", top), 2, 0), metadata=None)),
    "float tiff": (".tif", lambda seed, top: tiff(waves(seed, 1, "float32", top)[:, :, 0])),
}  # fmt: skip


@pytest.mark.parametrize("top", [120, 65535])
@pytest.mark.parametrize("name", DEEP)
def test_different_images_differ_however_dark_they_are(name: str, top: int, tmp_path: Path) -> None:
    """And are held out as others are."""
    suffix, make = DEEP[name]
    raw = write_folder(tmp_path / "raw", {
        f"{letter}/{letter}{n}{suffix}": make(100 * place + n, top) for place, letter in enumerate("ab")
        for n in range(8)
    })  # fmt: skip
    done = prepare(str(raw), [], tmp_path / "out", PrepareSettings(test_count=2, val_count=2), quiet)
    assert [len(part.images) for part in done.report.parts] == [4, 4, 2, 2, 2, 2]
    assert not {"duplicates", "leak", "both_domains"} & {finding.kind for finding in done.report.findings}


@pytest.mark.parametrize("name", DEEP)
def test_equal_deep_images_are_equal_and_smaller_copies_similar(name: str) -> None:
    _, make = DEEP[name]
    one, other, copy = inspect(make(1, 120), "1"), inspect(make(2, 120), "2"), inspect(make(1, 120), "3")
    assert one.digest == copy.digest != other.digest
    assert one.look != other.look
    bright = inspect(make(1, 30000), "4")  # the same picture with longer exposure, say
    assert bright.digest != one.digest
    assert bin(int.from_bytes(one.look) ^ int.from_bytes(bright.look)).count("1") <= 6


def test_the_type_of_file_does_not_matter() -> None:
    values = waves(3, 1, "uint16", 900)[:, :, 0]
    files = (tiff(values), png(values), npy(values), tiff(values, byteorder=">"), npy(values.astype("int16")))
    assert len({inspect(content, "x").digest for content in files}) == 1


def test_one_bright_pixel_does_not_make_dark_images_alike() -> None:
    looks = set()
    for seed in range(6):
        values = waves(seed, 1, "uint16", 100)[:, :, 0] + 90
        values[0, 0] = 65535
        looks.add(inspect(tiff(values), "x").look)
    assert len(looks) == 6


NO_DATA = {"-9999": lambda values, hole: tiff(np.where(hole, np.float32(-9999), values), **declared("-9999")),
           "largest": lambda values, hole: tiff(np.where(hole, np.float32(-3.4028234663852886e38), values),
                                                **declared("-3.4028234663852886e+38")),
           "NaN": lambda values, hole: npy(np.where(hole, np.nan, values)),
           "infinite": lambda values, hole: npy(np.where(hole, np.inf, values)),
           "16 bits": lambda values, hole: tiff(np.where(hole, 65535, values * 100).astype(np.uint16),
                                                **declared("65535"))}  # fmt: skip


def declared(value: str) -> dict[str, Any]:
    return {"extratags": [(42113, 2, len(value) + 1, value, True)], "metadata": None}


@pytest.mark.parametrize("name", NO_DATA)
def test_no_data_has_no_part_in_what_images_look_like(name: str, tmp_path: Path) -> None:
    hole = np.zeros((40, 48), bool)
    hole[:10, :12] = True
    contents = [NO_DATA[name](smooth(40, 48, 1, seed)[:, :, 0].astype(np.float32), hole) for seed in range(10)]
    members = {f"train{'AB'[n % 2]}/{n}.{'tif' if contents[n][:2] == b'II' else 'npy'}": contents[n] for n in range(10)}
    report = check_set(write_folder(tmp_path / "set", members), quiet)
    assert "similar" not in {finding.kind for finding in report.findings}
    whole, some = (inspect(NO_DATA[name](smooth(40, 48, 1, 1)[:, :, 0].astype(np.float32), mask), "x")
                   for mask in (hole & False, hole))  # fmt: skip
    assert bin(int.from_bytes(whole.look) ^ int.from_bytes(some.look)).count("1") <= 6
    all_void = inspect(NO_DATA[name](np.ones((40, 48), np.float32), hole | True), "x")
    assert all_void.no_data == 40 * 48
    assert all_void.spread is None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ZOO)
def test_everything_that_is_read_can_be_looked_at(name: str) -> None:
    info = inspect(ZOO[name][1], name)
    stored = load(io.BytesIO(ZOO[name][1]), name)
    assert (len(info.look), len(info.colours), len(info.digest)) == (8, 192, 16)
    assert info.no_data == (0 if stored.invalid is None else stored.invalid.sum())
    assert info.spread is not None
    channels = stored.values.shape[2] - bool(stored.description.alpha)
    assert info.spread.quantiles.shape == (21, channels)
    hidden = np.zeros(stored.values.shape, bool) if stored.invalid is None else stored.invalid
    data = stored.values[:, :, :channels][~hidden[:, :, :channels]]
    assert data.min() <= info.spread.quantiles.min() <= info.spread.quantiles.max() <= data.max()


def test_facts_hold_on_to_no_pixels() -> None:
    for content in (ZOO["cmyk jpeg"][1], ZOO["tiff, mask"][1]):
        facts = facts_of(load(io.BytesIO(content), "x").description)
        assert facts.samples is np.empty
        assert facts.valid is None
        assert facts.inks in (None, np.empty)


# ---------------------------------------------------------------------------------------------------------------------
# no data
# ---------------------------------------------------------------------------------------------------------------------
def test_images_that_only_declare_no_data_are_not_said_to_hold_any(tmp_path: Path) -> None:
    def scene(seed: int, *, hole: bool) -> bytes:
        values = smooth(40, 48, 1, seed)[:, :, 0].astype(np.float32)
        values[:5, :5] = -9999 if hole else values[:5, :5]
        return tiff(values, **declared("-9999"))

    members = {f"train{letter}/{letter}{n}.tif": scene(10 * place + n, hole=letter == "B" and n == 2)
               for place, letter in enumerate("AB") for n in range(3)}  # fmt: skip
    report = check_set(write_folder(tmp_path / "set", members), quiet)
    (found,) = (finding for finding in report.findings if finding.kind == "no_data")
    assert found.words.startswith("1 of 3 images of trainB holds no-data values")
    assert found.files == ["trainB/B2.tif"]
    assert remarks(report).line == "left out or converted: no data in 1 image"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ZOO)
def test_no_data_is_told_where_pixels_hold_it(name: str, tmp_path: Path) -> None:
    suffix, content = ZOO[name][:2]
    (tmp_path / f"x{suffix}").write_bytes(content)
    pixels = PixelFormat(3, "float32", ValueMapping("range", (0.0,), (65535.0,)))
    found, image = Remarks(pixels=pixels), read_picture(tmp_path / f"x{suffix}", pixels)
    found.add(image.description, image.invalid is not None)
    assert ("no data in 1 image" in found.line) == (image.invalid is not None)


# ---------------------------------------------------------------------------------------------------------------------
# ranges
# ---------------------------------------------------------------------------------------------------------------------
def warned(report: Report) -> list[str]:
    return [finding.words for finding in report.findings if finding.kind == "range"]


def checked(tmp_path: Path, **domains: list[bytes]) -> Report:
    members = {f"{folder}/{folder}{n}.tif": content for folder, contents in domains.items()
               for n, content in enumerate(contents)}  # fmt: skip
    return check_set(write_folder(tmp_path / "set", members), quiet)


def deep(low: float, high: float, count: int, dtype: str = "uint16") -> list[bytes]:
    return [tiff((low + smooth(40, 48, 1, n)[:, :, 0] * (high - low)).astype(dtype)) for n in range(count)]


def test_values_that_hardly_fill_their_range_are_a_warning(tmp_path: Path) -> None:
    report = checked(tmp_path, trainA=deep(90, 250, 4), trainB=deep(0, 60000, 4), testA=deep(90, 250, 2))
    (words,) = warned(report)
    assert words == (
        "all 6 images of trainA, testA have values that fill only 0.24 % of the range 0 to 65535, so networks see "
        "little contrast (trainA/trainA0.tif mostly holds 90 to 249); use --value-range 90 249, or --value-range "
        "percentiles"
    )
    assert not report.passed(strict=True)
    (words,) = warned(checked(tmp_path / "12", trainA=deep(0, 4095, 3), trainB=deep(0, 60000, 3)))
    assert "fill only 6.2 % of the range 0 to 65535" in words
    assert report.passed(strict=True) == (not report.count("warning") and not report.count("error"))
    (words,) = warned(checked(tmp_path / "b", trainA=deep(0, 60000, 4), trainB=deep(90, 250, 4)))
    assert "use --target-value-range 90 249, or --target-value-range percentiles" in words


def test_files_of_another_depth_that_lie_elsewhere_are_a_warning(tmp_path: Path) -> None:
    odd = [tiff((20 + smooth(40, 48, 1, 9)[:, :, 0] * 130).astype(np.uint8))]
    (words,) = warned(checked(tmp_path, trainA=deep(300, 9000, 4) + odd, trainB=deep(0, 60000, 4) + odd))
    assert words == (
        "1 of 5 images of trainA has the type uint8 among uint16, and other values than these, which are 300 to 8999 "
        "(trainA/trainA4.tif mostly holds 20 to 149, multiplied by 257 for 16 bits); save them in the type and scale "
        "of the others, or leave them out"
    )
    reflectances = deep(0.02, 0.4, 4, "float32") + deep(200, 4000, 1)
    (words,) = warned(checked(tmp_path / "f", trainA=reflectances, trainB=deep(0, 1, 4, "float32")))
    assert words.startswith("1 of 5 images of trainA has the type uint16 among float32, and other values")


def test_ordinary_pictures_are_no_cause_for_alarm(tmp_path: Path) -> None:
    dark = [tiff((smooth(40, 48, 3, n) * 4).astype(np.uint8), photometric="rgb") for n in range(3)]
    lines = []
    for n in range(3):
        values = np.full((40, 48), 65535, np.uint16)  # a 16-bit line drawing: hardly anything is not white
        values[10 + n, 4:40] = 0
        lines.append(tiff(values))
    for name, images in {"dark": dark, "lines": lines, "black": [tiff(np.zeros((40, 48), np.uint8))] * 3,
                         "16-bit white": [tiff(np.full((40, 48), 65535, np.uint16))] * 3,
                         "14 bits": deep(0, 16383, 3), "floats": deep(0.001, 0.002, 3, "float32"),
                         "both depths": [*deep(0, 65535, 3), picture(1, mode="L", format="TIFF")]}.items():  # fmt: skip
        assert warned(checked(tmp_path / name, trainA=images, trainB=images)) == [], name


def in_range(low: float, high: float, dtype: Any = "uint16", name: Any = "range") -> PixelFormat:
    return PixelFormat(1, dtype, ValueMapping(name, (low,), (high,)))


@pytest.mark.parametrize(
    ("content", "pixels", "words"),
    [
        (deep(300, 4000, 1)[0], in_range(0, 4095), ""),
        (
            deep(5000, 9000, 1)[0],
            in_range(0, 4095),
            "the image has over 50 % of the values outside the range 0 to",
        ),
        (deep(20, 250, 1, "uint8")[0], in_range(0, 4095), "multiplied by 257 for 16 bits"),
        (
            deep(200, 4000, 1)[0],
            in_range(0.02, 0.4, "float32"),
            "over 50 % of the values outside the range 0.02 to",
        ),
        (deep(0, 1, 1, "float32")[0], in_range(0, 1000, "float32"), "fill only 0.1 % of the range 0 to 1000"),
        (deep(0, 250, 1)[0], PixelFormat(1), "divided by 257 for 8 bits"),
        (deep(0, 3, 1, "uint8")[0], PixelFormat(1), ""),
        (deep(0, 3, 1, "uint8")[0], in_range(0, 255, "uint8", "range"), ""),
        (deep(0, 255, 1, "uint8")[0], in_range(0, 65535, "uint8", "range"), "fill only 0.39 % of the range"),
    ],
)
def test_images_that_are_read_in_a_range(content: bytes, pixels: PixelFormat, words: str, tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    path.write_bytes(content)
    found = Remarks(pixels=pixels)
    found.add_values(path, read_picture(path, pixels))
    other = Remarks(pixels=pixels)
    other.include(found)
    assert other.warnings == found.warnings
    assert len(found.warnings) == bool(words)
    assert not words or (words in found.warnings[0] and str(path) in found.warnings[0])


def test_no_data_and_opacity_are_no_values_of_an_image() -> None:
    values = np.full((40, 48), 500, np.uint16)
    values[:30] = 65535
    seen = spread_of(load(io.BytesIO(tiff(values, **declared("65535"))), "x"))
    assert seen is not None
    assert np.unique(seen.quantiles).tolist() == [500]
    clear = np.full((40, 48, 4), 9, np.uint16)
    clear[:, :, 3] = 65535
    seen = spread_of(load(io.BytesIO(encode(clear, ".png")), "x"))
    assert seen is not None
    assert seen.quantiles.shape == (21, 3)


def test_images_of_several_numbers_of_channels_are_judged_together() -> None:
    """Percentiles are per channel; gray is colour in a domain of colour."""
    colour = PixelFormat(3, "uint16", ValueMapping("percentiles", (10.0, 20.0, 30.0), (2000.0, 3000.0, 4000.0)))
    contents = [tiff((smooth(40, 48, 3, 1) * 3000).astype(np.uint16), photometric="rgb"), *deep(50000, 60000, 1)]
    spreads = [(str(n), spread_of(load(io.BytesIO(content), "x"))) for n, content in enumerate(contents)]
    named = [(name, one) for name, one in spreads if one is not None]
    (found,) = range_remarks(named, colour, "images", "--value-range")
    assert found.names == ["1"]
    assert list(odd_types(named, "uint16", "images")) == []


def test_percentiles_of_training_images_hold_these(tmp_path: Path) -> None:
    for n, content in enumerate(deep(300, 2500, 4)):
        (tmp_path / f"{n}.tif").write_bytes(content)
    files = sorted(tmp_path.iterdir())
    pixels, _ = find_formats(files, (), DataConfig(channels=1, value_range="percentiles"))
    found = Remarks(pixels=pixels)
    for path in files:
        found.add_values(path, read_picture(path, pixels))
    assert len(found.spreads) == 4
    assert found.warnings == []
    assert spread_in(read_picture(Image.new("L", (9, 9)), PixelFormat(1)), PixelFormat(1)) is None


def test_the_command_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checked(tmp_path, trainA=deep(90, 250, 3), trainB=deep(90, 250, 3))
    assert cli.main(["data", "check", str(tmp_path / "set")]) == 0
    assert "warning: all 3 images of trainA have values that fill only 0.24 % of the range" in capsys.readouterr().out
    assert cli.main(["data", "check", str(tmp_path / "set"), "--strict"]) == 1
