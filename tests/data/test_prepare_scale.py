"""Images of every kind made smaller: stored values, channels, pages and what belongs to them stay what they were."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from official_archives import write_folder
from PIL import Image
from test_zoo import PROFILED, ZOO, npy, saved, tiff

from unpaired import cli
from unpaired.data import encode
from unpaired.data.prepare_scale import Scaled, scaled, shorter_side
from unpaired.data.reading import Stored, describe, load
from unpaired.data.resizing import resize_values, resize_weighted, rounded_to
from unpaired.data.stored import Attached
from unpaired.errors import DataError

RANDOM = np.random.default_rng(4)
FILES = {name: row[:2] for table in (PROFILED, ZOO) for name, row in table.items() if name != "npy CHW"}
"""Suffix and content; 6 x 9 pixels in (C, H, W) could be (H, W, C) as well."""


def smaller(content: bytes, side: int = 4) -> Scaled:
    made = scaled(content, "x", shorter_side(side))
    assert made is not None
    return made


def pages(content: bytes) -> list[Stored]:
    return [load(io.BytesIO(content), "x", page=page) for page in range(describe(io.BytesIO(content)).pages)]


def by_pillow(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Each channel, as bytes or floats, through Pillow's own bicubic filter."""
    held = values if values.dtype == np.uint8 else values.astype(np.float32)
    planes = [Image.fromarray(np.ascontiguousarray(plane)) for plane in np.moveaxis(held, 2, 0)]
    return np.stack([np.asarray(plane.resize(size, Image.Resampling.BICUBIC)) for plane in planes], -1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FILES)
def test_a_smaller_image_is_of_the_same_kind(name: str) -> None:
    suffix, content = FILES[name]
    made = smaller(content)
    before, after = pages(content), pages(made.content)
    assert made.suffix == (suffix if suffix in (".tif", ".npy") else ".png")
    assert len(after) == len(before)
    for one, other in zip(before, after, strict=True):
        facts, found = one.description, other.description
        assert (found.dtype, found.channels, found.alpha) == (facts.dtype, facts.channels, facts.alpha)
        assert found.colour == facts.colour or "CYX" in name  # three channels are written as colours
        assert (found.orientation, min(found.width, found.height)) == (1, 4)
        assert found.attached.profile == facts.attached.profile_for(facts.channels) or facts.mode == "CMYK"
        assert (one.invalid is None) == (other.invalid is None)
        if one.invalid is None and facts.alpha != "straight" and facts.mode != "CMYK":
            expected = rounded_to(by_pillow(one.values, other.values.shape[1::-1]), other.values.dtype)
            assert np.array_equal(other.values, expected)
        else:
            low, high = one.values[~no_data_of(one)].min(), one.values[~no_data_of(one)].max()
            shown = other.values[~no_data_of(other)]
            assert low <= shown.min() <= shown.max() <= high
    profile_lost = bool(before[0].description.attached.profile) and not after[0].description.attached.profile
    assert ("colour profile" in made.lost) == (profile_lost and before[0].description.mode != "CMYK")


def no_data_of(image: Stored) -> np.ndarray:
    """Which values say nothing."""
    nothing = np.zeros(image.values.shape, bool)
    return nothing if image.invalid is None else image.invalid


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int8", "int16", "int32", "uint32", "float16", "float32",
                                   "float64"])  # fmt: skip
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("kind", ["tiff", "planes", "ome", "npy"])
def test_every_type_and_number_of_channels(kind: str, channels: int, dtype: str) -> None:
    if (kind, dtype) == ("ome", "float16"):
        pytest.skip("OME has no such type")
    top = 100 if "8" in dtype else 1000
    values = (RANDOM.random((40, 60, channels)) * top).astype(dtype)
    planes = np.moveaxis(values, 2, 0)
    content = {
        "tiff": lambda: tiff(values, planarconfig="contig") if channels > 1 else tiff(values[:, :, 0]),
        "planes": lambda: tiff(planes, planarconfig="separate") if channels > 1 else tiff(values[:, :, 0]),
        "ome": lambda: tiff(planes, ome=True, metadata={"axes": "CYX"}),
        "npy": lambda: npy(planes),
    }[kind]()
    made = smaller(content, 20)
    stored = load(io.BytesIO(made.content), "x")
    assert (stored.description.dtype, stored.values.shape) == (dtype, (20, 30, channels))
    assert np.array_equal(stored.values, rounded_to(by_pillow(values, (30, 20)), np.dtype(dtype)))


def hole_in(value: float, dtype: str, channels: int, hidden: float) -> np.ndarray:
    values = np.full((40, 60, channels), value, dtype)
    values[8:21, 10:33] = hidden
    return values


def declared(value: str) -> dict[str, Any]:
    return {"extratags": [(42113, 2, len(value) + 1, value, True)], "metadata": None}


MASKED: dict[str, Callable[[], bytes]] = {
    "uint8": lambda: tiff(hole_in(50, "uint8", 1, 255)[:, :, 0], **declared("255")),
    "uint16": lambda: tiff(hole_in(1234, "uint16", 1, 0)[:, :, 0], **declared("0")),
    "uint16, MINISWHITE": lambda: tiff(hole_in(1234, "uint16", 1, 0)[:, :, 0], photometric="miniswhite",
                                       **declared("0")),
    "int16, 3 channels": lambda: tiff(hole_in(-7, "int16", 3, -9999), planarconfig="contig", **declared("-9999")),
    "float32, 5 channels": lambda: tiff(hole_in(0.3, "float32", 5, -9999), planarconfig="contig",
                                        **declared("-9999")),
    "float32, largest": lambda: tiff(hole_in(0.3, "float32", 1, -3.4028234663852886e38)[:, :, 0],
                                     **declared("-3.4028234663852886e+38")),
    "float64, NaN": lambda: npy(hole_in(0.25, "float64", 2, np.nan)),
    "float32, infinite": lambda: npy(hole_in(0.25, "float32", 1, -np.inf)[:, :, 0]),
    "16-bit png": lambda: encode(hole_in(900, "uint16", 3, 7), ".png", Attached(no_data=(7,)), [
        hole_in(0, "uint16", 1, 1) == 1]),
}  # fmt: skip


@pytest.mark.parametrize("name", MASKED)
def test_no_data_stays_out_of_its_neighbours_and_stays(name: str) -> None:
    content = MASKED[name]()
    (before,), (after,) = pages(content), pages(smaller(content, 20).content)
    assert before.invalid is not None
    assert after.invalid is not None
    assert np.unique(after.values[~after.invalid]).tolist() == np.unique(before.values[~before.invalid]).tolist()
    half = before.invalid.reshape(20, 2, 30, 2, -1).mean((1, 3))
    assert after.invalid[half == 1].all()
    assert not after.invalid[half == 0].any()
    wanted = before.description.attached.no_data
    assert after.description.attached.no_data == wanted or (name.startswith("float") and not wanted)


def test_no_data_of_one_channel_is_that_of_one_channel() -> None:
    values = RANDOM.random((40, 60, 3)).astype(np.float32)
    values[10:20, 10:20, 1] = np.nan
    (after,) = pages(smaller(npy(values), 20).content)
    assert after.invalid is not None
    assert after.invalid.any((0, 1)).tolist() == [False, True, False]
    whole = np.clip(by_pillow(values, (30, 20))[:, :, 0], values[:, :, 0].min(), values[:, :, 0].max())
    assert np.allclose(after.values[:, :, 0], whole, atol=1e-6)


def test_a_value_that_is_declared_and_that_no_pixel_has_stays_declared() -> None:
    values = (RANDOM.random((40, 60)) * 1000 + 9).astype(np.uint16)
    (after,) = pages(smaller(tiff(values, **declared("0")), 20).content)
    assert (after.invalid, after.description.no_data) == (None, (0.0,))
    dark = np.zeros((40, 60), np.uint8)  # such a file has no pixel of -9999, and black is black
    (after,) = pages(smaller(tiff(dark, **declared("-9999")), 20).content)
    assert (after.invalid, after.description.no_data, after.values.max()) == (None, (), 0)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_what_is_transparent_has_no_part_in_its_neighbours(suffix: str, dtype: str) -> None:
    top = np.iinfo(dtype).max
    values = np.zeros((40, 60, 4), dtype)
    values[:, :, 1], values[:, :, 3] = top, 0  # green, but not to be seen
    values[8:21, 10:33] = (top, 0, 0, top)
    (after,) = pages(smaller(bytes(encode(values, suffix, Attached(alpha="straight"))), 20).content)
    seen = after.values[:, :, 3] > top // 10
    assert seen.sum() > 50
    assert after.values[seen][:, 0].min() >= 0.95 * top
    assert after.values[seen][:, 1].max() <= 0.05 * top
    assert (after.values[0, 0] == (0, top, 0, 0)).all()  # and stays what it is where there is nothing else


def test_transparent_pictures_are_scaled_as_pillow_does() -> None:
    picture = Image.fromarray(RANDOM.integers(0, 256, (40, 60, 4), dtype=np.uint8))
    expected = np.asarray(picture.resize((30, 20), Image.Resampling.BICUBIC)).astype(int)
    (after,) = pages(smaller(saved(picture, "PNG"), 20).content)
    visible = np.abs(after.values[:, :, :3].astype(int) - expected[:, :, :3]) * (expected[:, :, 3:] / 255)
    assert visible.max() <= 4
    assert np.abs(after.values[:, :, 3] - expected[:, :, 3]).max() <= 4


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_every_frame_of_an_animation_stays(kind: str) -> None:
    frames = [Image.fromarray(RANDOM.integers(0, 256, (40, 60, 3), dtype=np.uint8)) for _ in range(4)]
    times = [100, 200, 50, 70]
    content = saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=times)
    before, after = pages(content), pages(smaller(content, 20).content)
    assert [one.duration for one in after] == times
    for one, other in zip(before, after, strict=True):
        assert np.array_equal(resize_values(one.values, (30, 20)), other.values)


def test_every_page_of_a_tiff_stays() -> None:
    values = RANDOM.integers(1000, 60000, (3, 40, 60, 4), dtype=np.uint16)
    content = tiff(values, photometric="rgb", extrasamples=["unassalpha"], metadata=None)
    made = smaller(content, 20).content
    assert [one.description.alpha for one in pages(made)] == ["straight"] * 3
    gray = smaller(tiff(values[..., 0], metadata=None), 20).content
    assert [one.values.shape for one in pages(gray)] == [(20, 30, 1)] * 3
    as_channels = load(io.BytesIO(gray), "x", pages="channels")
    assert np.array_equal(as_channels.values, np.concatenate([one.values for one in pages(gray)], 2))
    held = io.BytesIO()
    with tifffile.TiffWriter(held) as file:
        for side in (40, 60, 16):
            file.write(np.full((side, side + 8), side, np.uint8), photometric="minisblack", metadata=None)
    found = [(one.values.shape, int(one.values.min())) for one in pages(smaller(held.getvalue(), 20).content)]
    assert found == [((20, 24, 1), 40), ((20, 23, 1), 60), ((16, 24, 1), 16)]


def test_pixels_stay_where_they_lie_on_earth() -> None:
    corners, middles = (1024, 0, 1, 1, 1025, 0, 1, 1), (1024, 0, 1, 1, 1025, 0, 1, 2)
    for keys in (corners, middles):
        shift = 0.5 if keys is middles else 0.0
        head = (1, 1, 0, 2, *keys)
        matrix = (10.0, 0, 0, 500, 0, -10.0, 0, 900, 0, 0, 0, 0, 0, 0, 0, 1)
        rpc = np.arange(92.0)
        tags = [
            (33550, 12, 3, (10.0, 5.0, 0.0), True), (33922, 12, 6, (0.0, 0.0, 0.0, 5e5, 6e6, 0.0), True),
            (34735, 3, len(head), head, True), (34264, 12, 16, matrix, True), (50844, 12, 92, tuple(rpc), True),
            (270, 2, 5, "land", True),
        ]  # fmt: skip
        content = tiff(RANDOM.integers(0, 99, (40, 80), dtype=np.uint8), extratags=tags, metadata=None,
                       resolution=(300, 100), resolutionunit=3)  # fmt: skip
        made = describe(io.BytesIO(smaller(content, 20).content)).attached
        assert made.resolution == (150, 50, 3)
        found = {code: value for code, _, _, value in made.tags}
        assert found[33550] == (20, 10, 0)
        assert found[33922][:2] == (shift * 0.5 - shift,) * 2
        assert found[34735] == head
        assert found[270] == "land"
        old, new = (np.reshape(value, (4, 4)) for value in (matrix, found[34264]))
        for column, row in ((0, 0), (13, 7)):  # in the smaller image; twice as far in the other, in whatever it counts
            place = (2 * (column + shift) - shift, 2 * (row + shift) - shift, 0, 1)
            assert np.allclose(new @ (column, row, 0, 1), old @ place)
        assert found[50844][2:4] == ((2 + 0.5) / 2 - 0.5, (3 + 0.5) / 2 - 0.5)
        assert found[50844][7:9] == (3.5, 4)
        assert found[50844][9:] == tuple(rpc[9:])


def test_damaged_tags_travel_as_they_are() -> None:
    tags = [(33550, 12, 1, (10.0,), True), (33922, 12, 5, (1.0,) * 5, True), (34264, 12, 3, (1.0,) * 3, True)]
    content = tiff(np.zeros((40, 80), np.uint8), extratags=tags, metadata=None)
    assert len(describe(io.BytesIO(smaller(content, 20).content)).attached.tags) == 3


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.full((40, 60), 2**24 + 1, np.int64), "int64 values that float32 cannot represent exactly"),
        (np.full((40, 60), 1e300), "beyond the range of float32"),
        (np.full((40, 60), 1j), "holds complex128, which is not an image type"),
    ],
)
def test_values_that_would_change_are_refused(values: np.ndarray, words: str) -> None:
    with pytest.raises(DataError, match=f"^x: .*{words}"):
        smaller(npy(values), 20)


def test_what_is_small_enough_is_not_touched() -> None:
    assert scaled(npy(np.zeros((40, 60))), "x", shorter_side(40)) is None
    assert scaled(npy(np.zeros((40, 60))), "x", shorter_side(39)) is not None


def test_weights_of_nothing_are_no_value() -> None:
    values = RANDOM.random((8, 8, 2))
    made, share = resize_weighted(values, np.zeros(values.shape), (4, 4))
    assert (made == 0).all()
    assert (share == 0).all()
    whole, _ = resize_weighted(values, np.ones(values.shape), (4, 4))
    clipped = np.clip(by_pillow(values, (4, 4)), values.min((0, 1)), values.max((0, 1)))
    assert np.allclose(whole, clipped, atol=1e-6)


def folder_of_awkward_files(place: Path) -> Path:
    def large(*shape: int, dtype: str = "uint16") -> np.ndarray:
        return (RANDOM.random((100, 120, *shape)) * (60000 if dtype == "uint16" else 250)).astype(dtype)

    def members(letter: str) -> dict[str, bytes]:
        made = {
            "rgb16.tif": tiff(large(3), photometric="rgb"),
            "rgb16.png": bytes(encode(large(3), ".png")),
            "rgba16.png": bytes(encode(large(4), ".png")),
            "five.ome.tif": tiff(np.moveaxis(large(5), 2, 0), ome=True, metadata={"axes": "CYX"}),
            "four8.tif": tiff(large(4, dtype="uint8"), planarconfig="contig"),
            "pages.tif": tiff(np.moveaxis(large(2, dtype="uint8"), 2, 0), metadata=None),
            "white.tif": tiff(large(), photometric="miniswhite"),
            "hole.tif": tiff(np.where(np.arange(120) < 30, 0, large() + 1).astype(np.uint16), **declared("0")),
            "float.tif": tiff(large().astype(np.float32)),
            "array.npy": npy(large(3)),
            "photo.jpg": saved(Image.fromarray(large(3, dtype="uint8")), "JPEG"),
            "palette.png": saved(Image.fromarray(large(3, dtype="uint8")).quantize(16), "PNG"),
            "small.jpg": saved(Image.new("RGB", (40, 44)), "JPEG"),
        }
        return {f"{letter}/{letter}-{name}": content for name, content in made.items()}

    return write_folder(place, members("a") | members("b"))


def test_a_folder_of_awkward_files_is_made_smaller_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw, out = folder_of_awkward_files(tmp_path / "raw"), tmp_path / "small"
    words = ["data", "prepare", str(raw), "--out", str(out), "--size", "48", "--test-fraction", "0", "--near", "-1"]
    assert cli.main(words) == 0
    assert "26 images written" in capsys.readouterr().out
    assert json.loads((out / "preparation.json").read_text())["left_out"] == []
    written = {path.stem: path for path in (out / "trainA").iterdir()}
    assert len(written) == 12 + 1  # of the two whose names differ in the suffix only, one gets a number
    for path in (raw / "a").iterdir():
        if path.name == "a-rgb16.png":
            continue
        made, facts = describe(written[path.stem]), describe(path)
        assert (made.dtype, made.channels, made.pages, made.alpha) == (facts.dtype, facts.channels, facts.pages,
                                                                      facts.alpha), path.name  # fmt: skip
        assert min(made.width, made.height) == min(48, facts.height, facts.width)
    assert (out / "trainA" / "a-small.jpg").read_bytes() == (raw / "a" / "a-small.jpg").read_bytes()
    assert cli.main(words) == 0
    assert "0 images written" in capsys.readouterr().out
    (out / "trainA" / "a-five.ome.tif").unlink()
    assert cli.main(words) == 0
    assert "1 images written" in capsys.readouterr().out
    assert (out / "trainA" / "a-five.ome.tif").exists()


def test_what_a_smaller_file_cannot_keep_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    members = {
        f"{letter}/{number}.jpg": saved(Image.fromarray(RANDOM.integers(0, 256, (60, 90, 3), dtype=np.uint8)), "JPEG",
                                        exif=exif)
        for letter in "ab" for number in range(4)
    }  # fmt: skip
    raw = write_folder(tmp_path / "raw", members)
    words = ["data", "prepare", str(raw), "--out", str(tmp_path / "out"), "--size", "32", "--near", "-1"]
    assert cli.main(words) == 0
    assert "not kept in scaled images: EXIF of 8 images" in capsys.readouterr().out
    with Image.open(next((tmp_path / "out" / "trainA").iterdir())) as image:
        assert image.size == (32, 48)  # upright
