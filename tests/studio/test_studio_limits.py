"""Uploads that are refused, and in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from served_studio import png_claiming

from profiles import EXCHANGED
from tiny import write_images
from unpaired.data import IMAGE_SUFFIXES, Attached, PixelFormat, encode, read_values
from unpaired.errors import ConfigError, DataError
from unpaired.studio.limits import Limits
from unpaired.studio.uploads import check_upload, open_upload, shown_name

LIMITS = Limits(megapixels=0.01, megabytes=0.05)


def test_a_picture_within_the_limits_is_read(tmp_path: Path) -> None:
    path = write_images(tmp_path, 1, size=(40, 36)) / "image0.png"
    assert check_upload(path, tmp_path, LIMITS) == (path, (40, 36))
    with Image.open(path) as file:
        assert open_upload(path, tmp_path, LIMITS).tobytes() == file.convert("RGB").tobytes()
    assert open_upload(path, tmp_path, LIMITS, PixelFormat(1)).mode == "L"


@pytest.mark.parametrize("profiles", ["convert", "ignore"])
@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
def test_an_upload_is_read_as_translate_reads_the_file(suffix: str, profiles: Any, tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 256, (36, 40, 3), dtype=np.uint8)
    path = tmp_path / f"x{suffix}"
    wide = suffix in (".tif", ".npy")
    path.write_bytes(encode(values.astype(np.uint16) * 257 if wide else values, suffix, Attached(EXCHANGED)))
    pixels = PixelFormat(3, colour_profiles=profiles)
    assert np.array_equal(np.asarray(open_upload(path, tmp_path, LIMITS, pixels)), read_values(path, pixels))


def test_the_limit_of_pixels_is_a_limit_and_no_more(tmp_path: Path) -> None:
    for side in (100, 101):
        Image.new("RGB", (side, 100)).save(tmp_path / f"{side}.png")
    check_upload(tmp_path / "100.png", tmp_path, LIMITS)
    with pytest.raises(DataError, match=r"^101\.png: 101 x 100 pixels are more than the limit of 0\.01 megapixels"):
        check_upload(tmp_path / "101.png", tmp_path, LIMITS)


@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [12_000, 60_000])  # PIL itself warns at the first and refuses the second
def test_a_bomb_is_refused_by_its_header(side: int, tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png_claiming(side, side))
    with pytest.raises(DataError, match=r"^bomb\.png: .*more than the limit of (0\.01 megapixels|268,435,456)"):
        check_upload(tmp_path / "bomb.png", tmp_path, LIMITS)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.png", b"", "the file is empty"),
        ("words.png", b"these are words", "the content is text, not an image"),
        ("page.svg", b"<svg/>", "suffix is not that of a picture"),
        ("program.eps.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "the content is text, not an image"),
        ("large.png", b"x" * 50_001, "0.1 MB are more than the limit of 0.05 MB"),
    ],
)
def test_wrong_files_are_refused_by_name(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words) as refused:
        check_upload(tmp_path / name, tmp_path, LIMITS)
    assert str(refused.value).startswith(f"{name}: ")
    assert str(tmp_path) not in str(refused.value)


def test_a_damaged_picture_is_refused_without_its_folder(tmp_path: Path) -> None:
    path = write_images(tmp_path, 1) / "image0.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"^image0\.png: the image is truncated or damaged") as refused:
        open_upload(path, tmp_path, LIMITS)
    assert str(tmp_path) not in str(refused.value)


def test_only_files_of_the_upload_folder_are_read(tmp_path: Path) -> None:
    outside = write_images(tmp_path / "outside", 1) / "image0.png"
    root = tmp_path / "root"
    root.mkdir()
    (root / "link.png").symlink_to(outside)
    for path in (outside, root / ".." / "outside" / "image0.png", root / "link.png", "http://a/b.png", "a\0b.png",
                 root):  # fmt: skip
        with pytest.raises(DataError, match="only files that were uploaded"):
            open_upload(path, root, LIMITS)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a.png", "a.png"), ("/tmp/x/ü b.png", "ü b.png"), ("C:\\u\\a.png", "a.png"), ("../../x.png", "x.png"),
        ("...", "picture"), ("", "picture"), ("<i>.png", "_i_.png"), ("n" * 200 + ".png", "n" * 76 + ".png"),
    ],
)  # fmt: skip
def test_names_are_shown_without_folders_or_markup(name: str, shown: str) -> None:
    assert shown_name(name) == shown


@pytest.mark.parametrize("wrong", [{"megapixels": 0}, {"megabytes": float("inf")}, {"batch": 0}, {"queue": -1}])
def test_limits_that_cannot_work_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Limits(**wrong)  # type: ignore[arg-type]
