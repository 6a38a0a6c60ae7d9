"""Reading and writing by kind of file, type and channels: what goes out comes in again, and bad files are named."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from unpaired.data import (
    Attached,
    DataConfig,
    PixelFormat,
    ValueMapping,
    can_hold,
    encode,
    pictures,
    preview_note,
    read_image,
    read_values,
    resize_values,
)
from unpaired.data.formats import find_formats
from unpaired.data.reading import describe, load
from unpaired.errors import ConfigError, DataError

RANDOM = np.random.default_rng(0)
UNIT = ValueMapping("range", (0.0,), (1.0,))


def pixels(channels: int, dtype: str, **options: Any) -> PixelFormat:
    mapping = {"uint8": ValueMapping(), "uint16": ValueMapping("dtype", (0.0,), (65535.0,)), "float32": UNIT}[dtype]
    return PixelFormat(channels, dtype, mapping, **options)  # type: ignore[arg-type]


def values(*shape: int, dtype: str = "uint16") -> np.ndarray:
    if dtype == "float32":
        return RANDOM.standard_normal(shape).astype(np.float32)
    return RANDOM.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


# ---------------------------------------------------------------------------------------------------------------------
# there and back
# ---------------------------------------------------------------------------------------------------------------------
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from([".png", ".tif", ".tiff", ".npy", ".bmp", ".webp"]),
    dtype=st.sampled_from(["uint8", "uint16", "float32"]),
    channels=st.integers(1, 16),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
)
def test_what_is_written_is_read_again(
    suffix: str, dtype: str, channels: int, height: int, width: int, tmp_path: Path
) -> None:
    image = values(height, width, channels, dtype=dtype)
    if not can_hold(suffix, dtype, channels):  # type: ignore[arg-type]
        return
    path = tmp_path / f"x{suffix}"
    path.write_bytes(encode(image, suffix, Attached()))
    assert np.array_equal(read_values(path, pixels(channels, dtype)), image)
    facts = describe(path)
    assert facts.dtype == dtype
    if suffix != ".npy" or max(height, width) > 16 or channels not in (height, width):
        assert facts.channels == (3 if (suffix, channels) == (".webp", 1) else channels)


@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("level", [0, 9])
def test_sixteen_bit_png_of_another_writer(channels: int, level: int, tmp_path: Path) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    image = values(23, 31, channels)
    image[5:] = np.arange(31)[None, :, None] * 300  # so that its filters are taken
    (tmp_path / "x.png").write_bytes(imagecodecs.png_encode(image, level=level))
    assert np.array_equal(read_values(tmp_path / "x.png", pixels(channels, "uint16")), image)


LAYOUTS: dict[str, dict[str, Any]] = {
    "contiguous": {"planarconfig": "contig"},
    "planar": {"planarconfig": "separate"},
    "tiled": {"planarconfig": "contig", "tile": (16, 16)},
    "tiled planar": {"planarconfig": "separate", "tile": (16, 32)},
    "big-endian": {"planarconfig": "contig", "byteorder": ">"},
    "BigTIFF": {"planarconfig": "contig", "bigtiff": True},
    **{name: {"planarconfig": "contig", "compression": name} for name in ("zlib", "lzma", "lzw", "zstd", "packbits")},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("channels", "dtype"), [(1, "uint16"), (3, "uint16"), (5, "float32"), (7, "uint8")])
def test_layouts_of_tiff(layout: str, channels: int, dtype: str, tmp_path: Path) -> None:
    image, options = values(33, 40, channels, dtype=dtype), dict(LAYOUTS[layout])
    stored = image.transpose(2, 0, 1) if options["planarconfig"] == "separate" else image
    if channels == 1:
        stored, options["planarconfig"] = image[:, :, 0], None
    tifffile.imwrite(tmp_path / "x.tif", stored, photometric="minisblack", **options)
    assert np.array_equal(read_values(tmp_path / "x.tif", pixels(channels, dtype)), image)


@pytest.mark.parametrize("kind", ["plain", "ImageJ", "OME", "pages of one file"])
def test_pages(kind: str, tmp_path: Path) -> None:
    stack, path = values(5, 20, 24), tmp_path / "x.tif"
    options: dict[str, Any] = {
        "plain": {}, "ImageJ": {"imagej": True, "metadata": {"axes": "CYX"}},
        "OME": {"ome": True, "metadata": {"axes": "CYX"}}, "pages of one file": {"metadata": None},
    }[kind]  # fmt: skip
    tifffile.imwrite(path, stack, photometric="minisblack", **options)
    five = stack.transpose(1, 2, 0)
    assert np.array_equal(read_values(path, pixels(5, "uint16", pages="channels")), five)
    if kind in ("ImageJ", "OME"):  # the file itself calls them channels
        assert np.array_equal(read_values(path, pixels(5, "uint16")), five)
        return
    assert np.array_equal(read_values(path, pixels(1, "uint16")), five[:, :, :1])
    with pytest.raises(DataError, match=r"has 1 channel on its first page and 5 pages \(--pages channels"):
        read_values(path, pixels(5, "uint16"))


def test_pages_of_several_sizes_are_no_channels(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "x.tif") as file:
        for side in (20, 13):
            file.write(values(side, side), photometric="minisblack", metadata=None)
    assert read_values(tmp_path / "x.tif", pixels(1, "uint16")).shape == (20, 20, 1)
    with pytest.raises(DataError, match="pages differ in size"):
        read_values(tmp_path / "x.tif", pixels(2, "uint16", pages="channels"))


@pytest.mark.parametrize("order", ["HWC", "CHW"])
def test_arrays_in_either_order(order: str, tmp_path: Path) -> None:
    image = values(20, 24, 5, dtype="float32")
    np.save(tmp_path / "x.npy", image if order == "HWC" else image.transpose(2, 0, 1))
    assert np.array_equal(read_values(tmp_path / "x.npy", pixels(5, "float32")), image)
    assert describe(tmp_path / "x.npy").channels == 5


# ---------------------------------------------------------------------------------------------------------------------
# types and channels that differ from the domain's
# ---------------------------------------------------------------------------------------------------------------------
def test_types_are_brought_to_the_type_of_the_domain(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1, 255]], np.uint8)).save(tmp_path / "8.png")
    Image.fromarray(np.array([[0, 257, 65535]], np.uint16)).save(tmp_path / "16.png")
    assert read_values(tmp_path / "8.png", pixels(1, "uint16"))[0, :, 0].tolist() == [0, 257, 65535]
    assert read_values(tmp_path / "16.png", pixels(1, "uint8"))[0, :, 0].tolist() == [0, 1, 255]
    assert read_values(tmp_path / "16.png", pixels(1, "float32"))[0, :, 0].tolist() == [0, 257, 65535]
    np.save(tmp_path / "f.npy", np.zeros((2, 2), np.float32))
    with pytest.raises(DataError, match=r"f\.npy: holds float32, but the images of this domain are uint16"):
        read_values(tmp_path / "f.npy", pixels(1, "uint16"))


def test_opacity_and_colour_with_sixteen_bits(tmp_path: Path) -> None:
    rgba = np.array([[[65535, 0, 0, 65535], [65535, 0, 0, 0]]], np.uint16)
    (tmp_path / "x.png").write_bytes(encode(rgba, ".png", Attached()))
    behind = pixels(3, "uint16", background=(0, 0, 255))
    assert read_values(tmp_path / "x.png", behind).tolist() == [[[65535, 0, 0], [0, 0, 65535]]]
    assert read_values(tmp_path / "x.png", pixels(4, "uint16")).tolist() == rgba.tolist()
    gray = read_values(tmp_path / "x.png", pixels(1, "uint16"))
    assert gray[0, :, 0].tolist() == [round(0.299 * 65535), 65535]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_tiff(orientation: int, tmp_path: Path) -> None:
    image = values(6, 9, 2)
    tags = [(274, 3, 1, orientation, True)]
    tifffile.imwrite(tmp_path / "x.tif", image, photometric="minisblack", planarconfig="contig", extratags=tags)
    Image.fromarray(image[:, :, 0].astype(np.uint8)).save(tmp_path / "y.tif", tiffinfo={274: orientation})
    read, seen = read_values(tmp_path / "x.tif", pixels(2, "uint16")), np.asarray(read_image(tmp_path / "y.tif", 1))
    assert np.array_equal(read[:, :, 0].astype(np.uint8), seen)


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    image = values(4, 5, 2, dtype="float32")
    image[0, 0, 0], image[1, 1, 1] = np.nan, np.inf
    np.save(tmp_path / "x.npy", image)
    others = image[..., 0].ravel()[1:]
    assert read_values(tmp_path / "x.npy", pixels(2, "float32"))[0, 0, 0] == pytest.approx(others.mean(), rel=1e-5)
    filled = read_values(tmp_path / "x.npy", pixels(2, "float32", fill_value=-7.0))
    assert (filled[0, 0, 0], filled[1, 1, 1]) == (-7, -7)
    assert np.array_equal(filled[2:], image[2:])


# ---------------------------------------------------------------------------------------------------------------------
# formats of a domain
# ---------------------------------------------------------------------------------------------------------------------
def test_a_constant_set_divides_by_nothing(tmp_path: Path) -> None:
    for dtype in ("uint8", "float32"):
        np.save(tmp_path / "x.npy", np.full((8, 8, 2), 3, dtype))
        found, _ = find_formats([tmp_path / "x.npy"], (), DataConfig(channels=2, value_range="percentiles"))
        image = read_values(tmp_path / "x.npy", found)
        floats = found.to_floats(torch.from_numpy(image.transpose(2, 0, 1).copy()))
        assert floats.unique().tolist() == [-1]
        assert np.array_equal(found.to_values(floats), image)


def test_the_widest_type_of_a_domain_counts(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    assert find_formats([tmp_path / "a.png"], (), DataConfig())[0] == PixelFormat(colour_profiles="convert")
    Image.fromarray(values(4, 4)).save(tmp_path / "b.png")
    both = [tmp_path / "a.png", tmp_path / "b.png"]
    source, target = find_formats(both, both[:1], DataConfig(channels=1, target_channels=3))
    assert (source.dtype, source.channels, source.mapping.high) == ("uint16", 1, (65535,))
    assert (target.dtype, target.channels, target.plain) == ("uint8", 3, True)
    tifffile.imwrite(tmp_path / "c.tif", np.zeros((4, 4), np.int16))
    with pytest.raises(ConfigError, match="no range of their own"):
        find_formats([tmp_path / "c.tif"], (), DataConfig(channels=1))
    found, _ = find_formats([tmp_path / "c.tif"], (), DataConfig(channels=1, value_range=(-1000, 3000)))
    assert (found.dtype, found.mapping.low) == ("float32", (-1000,))


# ---------------------------------------------------------------------------------------------------------------------
# what travels with the pixels
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("dtype", "channels"), [("uint8", 3), ("uint16", 3)])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("source", [".png", ".jpg", ".tif"])
def test_profile_and_resolution_travel(source: str, suffix: str, dtype: str, channels: int, tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.new("RGB", (6, 5)).save(tmp_path / f"a{source}", icc_profile=profile, dpi=(300, 150))
    attached = describe(tmp_path / f"a{source}").attached
    (tmp_path / f"b{suffix}").write_bytes(encode(values(5, 6, channels, dtype=dtype), suffix, attached))
    with Image.open(tmp_path / f"b{suffix}") as image:
        assert image.info["icc_profile"] == profile
        assert [round(float(x)) for x in image.info["dpi"]] == [300, 150]
    assert not attached.profile_for(1)  # a profile of colours says nothing about gray


def test_geography_travels(tmp_path: Path) -> None:
    tags = [(33550, 12, 3, (10.0, 10.0, 0.0), True), (33922, 12, 6, (0.0, 0.0, 0.0, 5e5, 6e6, 0.0), True)]
    tifffile.imwrite(tmp_path / "a.tif", values(4, 5), extratags=tags)
    (tmp_path / "b.tif").write_bytes(encode(values(4, 5, 2), ".tif", describe(tmp_path / "a.tif").attached))
    with tifffile.TiffFile(tmp_path / "b.tif") as tif:
        found: Any = tif.pages[0]
        assert found.tags[33550].value == (10.0, 10.0, 0.0)
        assert found.tags[33922].value[3:5] == (5e5, 6e6)


def test_every_tag_travels_or_is_named(tmp_path: Path) -> None:
    bands = '<Item name="DESCRIPTION" sample="0" role="description">height</Item>'
    statistics = '  <Item name="STATISTICS_MAXIMUM" sample="0">99</Item>\n'
    metadata = f"<GDALMetadata>\n{statistics}{bands}</GDALMetadata>"
    tags = [(50844, 12, 92, tuple(range(92)), True), (42112, 2, len(metadata) + 1, metadata, True),
            (272, 2, 7, "camera", True), (33723, 2, 5, "iptc", True), (65001, 3, 1, 7, True)]  # fmt: skip
    tifffile.imwrite(tmp_path / "a.tif", values(4, 5), extratags=tags, metadata=None)
    attached = describe(tmp_path / "a.tif").attached
    (tmp_path / "b.tif").write_bytes(encode(values(4, 5, 1), ".tif", attached))
    with tifffile.TiffFile(tmp_path / "b.tif") as tif:
        found: Any = tif.pages[0].tags
        assert found[50844].value == tuple(range(92))
        assert found[272].value == "camera"
        assert found[42112].value == f"<GDALMetadata>\n{bands}</GDALMetadata>"
    assert attached.dropped == ("TIFF tag IPTCNAA", "TIFF tag 65001")
    tifffile.imwrite(tmp_path / "c.tif", values(4, 5, 3), photometric="rgb", tile=(16, 16), compression="zlib")
    assert describe(tmp_path / "c.tif").attached.dropped == ()


# ---------------------------------------------------------------------------------------------------------------------
# resizing and looking
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [(11, 17), (90, 70), (40, 31)])
def test_resizing_is_pillows(size: tuple[int, int]) -> None:
    image = values(31, 40, 3, dtype="uint8")
    expected = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    assert np.array_equal(resize_values(image, size), expected)
    bands = np.concatenate([image, image[:, :, :2]], axis=2)
    assert np.array_equal(resize_values(bands, size)[:, :, :3], expected)
    calm = image // 2 + 64  # Pillow cuts 8-bit overshoots off between its two passes
    expected = np.asarray(Image.fromarray(calm).resize(size, Image.Resampling.BICUBIC))
    wide = resize_values(calm.astype(np.uint16) * 257, size)
    assert wide.dtype == np.uint16
    assert np.abs(wide / 257 - expected).max() <= 1.5
    assert np.abs(resize_values(calm.astype(np.float32), size) - expected).max() <= 1.5


def test_pictures_say_what_they_show() -> None:
    assert preview_note(PixelFormat(1)) == preview_note(PixelFormat(3)) == ""
    assert preview_note(PixelFormat(2)) == " (channel 1 of 2)"
    assert preview_note(pixels(5, "float32")) == " (channels 1-3 of 5, stretched)"
    dark = torch.rand(5, 20, 20) * 0.01 - 1
    (shown,) = pictures([dark], pixels(5, "uint16"))
    assert shown.mode == "RGB"
    assert np.asarray(shown).max() == 255
    assert pictures([dark], PixelFormat(5))[0].getextrema()[0][1] <= 2
    assert pictures([dark[:2]], PixelFormat(2))[0].mode == "L"


# ---------------------------------------------------------------------------------------------------------------------
# bad files
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy"])
def test_damage_is_one_message_about_the_file(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"hurt{suffix}"
    whole = bytes(encode(values(24, 24, 3), suffix, Attached()))
    for share in (0.0, 0.02, 0.3, 0.9):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(DataError, match=r"hurt\.[a-z]+: ") as caught:
            read_values(path, pixels(3, "uint16"))
        assert "\n" not in str(caught.value)
    for _ in range(60):
        hurt = bytearray(whole)
        for position in RANDOM.integers(0, 200, 4):
            hurt[position] = RANDOM.integers(256)
        path.write_bytes(hurt)
        try:  # some damage is invisible; any other error fails the test
            read_values(path, pixels(3, "uint16"))
            describe(path)
        except DataError:
            pass


def test_arrays_with_objects_are_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[print]]), allow_pickle=True)
    with pytest.raises(DataError, match=r"x\.npy: the NPY file cannot be read .*Python objects"):
        load(tmp_path / "x.npy")


def test_too_many_pixels_and_channels(tmp_path: Path) -> None:
    held = io.BytesIO()
    np.lib.format.write_array_header_1_0(held, {"descr": "<f4", "fortran_order": False, "shape": (2**15, 2**15)})
    with (tmp_path / "x.npy").open("wb") as file:
        file.write(held.getvalue())
        file.truncate(4 * 2**30 + 1000)
    with pytest.raises(DataError, match="more than the limit"):
        load(tmp_path / "x.npy")
    np.save(tmp_path / "y.npy", np.zeros((20, 20, 17), np.uint8))
    with pytest.raises(DataError, match="channels, and 1 to 16 can be read"):
        load(tmp_path / "y.npy")


def test_a_compression_that_needs_the_extra_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("imagecodecs")
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, values(16, 16, 5), photometric="minisblack", planarconfig="contig", compression="lzw")

    def absent(*arguments: Any, **options: Any) -> Any:
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile.TiffPage, "asarray", absent)
    with pytest.raises(DataError, match=r"x\.tif: .*LZW needs another package: pip install 'unpaired\[tiff\]'"):
        read_values(path, pixels(5, "uint16"))
    assert "tifffile" in sys.modules
