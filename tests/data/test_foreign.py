"""Files that are no images are named for what they are, with what to do, wherever somebody meets them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from PIL import Image

from unpaired import cli
from unpaired.data.reading import load
from unpaired.errors import DataError

FOREIGN: dict[str, tuple[bytes, str]] = {
    ".dcm": (b"\0" * 128 + b"DICM" + b"\0" * 40, "DICOM, a medical image; save its slices"),
    ".nii": (b"\0" * 344 + b"n+1\0", "NIfTI, a medical image; save its slices"),
    ".gz": (gzip.compress(b"\0" * 400), "compressed by gzip (.nii.gz?); unpack it"),
    ".nrrd": (b"NRRD0004\n", "NRRD, a medical image"),
    ".mha": (b"ObjectType = Image\n", "MetaImage, a medical image"),
    ".mp4": (b"\0\0\0\x18ftypisom" + b"\0" * 40, "a video; extract its frames"),
    ".mov": (b"\0\0\0\x14ftypqt  " + b"\0" * 40, "a video; extract its frames"),
    ".avi": (b"RIFF\0\0\0\0AVI LIST" + b"\0" * 40, "a video; extract its frames"),
    ".mkv": (b"\x1aE\xdf\xa3" + b"\0" * 40, "a video; extract its frames"),
    ".wmv": (b"0&\xb2u\x8ef\xcf\x11\xa6\xd9", "a video; extract its frames"),
    ".heic": (b"\0\0\0\x18ftypheic" + b"\0" * 40, "a HEIC photo; save it as PNG or TIFF"),
    ".jxl": (b"\xff\n" + b"\0" * 40, "a JPEG XL image; save it as PNG or TIFF"),
    ".jp2": (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image; save it as PNG or TIFF"),
    ".cr2": (b"II*\0\x10\0\0\0CR\2\0" + b"\0" * 40, "a camera's raw file; develop it"),
    ".svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing; save it as PNG or TIFF"),
    ".psd": (b"8BPS\0\1", "a Photoshop file; save it as PNG or TIFF"),
    ".pdf": (b"%PDF-1.7\n", "a PDF; save it as PNG or TIFF"),
    ".exr": (b"v/1\1\0\0", "an OpenEXR image; save it as TIFF in float32"),
    ".zip": (b"PK\3\4\0\0", "a zip archive; unpack it"),
}
"""Suffix -> how such a file begins, and what is said of it."""


@pytest.mark.parametrize("suffix", FOREIGN)
def test_it_is_named_with_what_to_do_by_every_command(
    suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, words = FOREIGN[suffix]
    for folder in ("trainA", "trainB"):
        (tmp_path / "data" / folder).mkdir(parents=True)
        (tmp_path / "data" / folder / f"x{suffix}").write_bytes(content)
    assert cli.main(["train", str(tmp_path / "data"), "--out", str(tmp_path / "run")]) == 2
    assert words in capsys.readouterr().err
    for place in (tmp_path / "data" / "trainA", tmp_path / "data" / "trainA" / f"x{suffix}"):
        if suffix in (".mp4", ".mov", ".avi", ".mkv", ".wmv") and place.is_file():
            continue  # translated, or named as a damaged video
        assert cli.main(["translate", "drawings", str(place), "--out", str(tmp_path / "out")]) == 2
        assert words in capsys.readouterr().err
    assert cli.main(["data", "check", str(tmp_path / "data")]) == 1
    said = capsys.readouterr().out
    assert f"1 file of trainA is not an image but {words}" in said
    assert words.split(";")[0] in next(line for line in said.splitlines() if line.startswith("left out"))
    Image.new("RGB", (40, 40)).save(tmp_path / "data" / "trainA" / "ok.png")
    (tmp_path / "data" / "trainA" / "x.png").write_bytes(content)
    assert cli.main(["translate", "drawings", str(tmp_path / "data" / "trainA"), "--out", str(tmp_path / "o")]) == 1
    said = capsys.readouterr().err
    assert f"x.png: this is {words}" in said
    assert words in next(line for line in said.splitlines() if line.startswith("left out"))
    with pytest.raises(DataError, match=r"x\.png: this is "):
        load(tmp_path / "data" / "trainA" / "x.png")
