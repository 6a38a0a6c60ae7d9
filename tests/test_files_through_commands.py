"""Sets of awkward files through the commands: no data, pages, profiles, what is left out, and a new kind of file."""

from __future__ import annotations

import importlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from doc_pages import DOCS, blocks
from profiles import EXCHANGED
from tiny import smooth
from unpaired import cli
from unpaired.data import IMAGE_SUFFIXES, kinds, read_picture
from unpaired.data.reading import describe
from unpaired.data.stored import KINDS
from unpaired.inference import Translator

TINY = ["--base-channels", "4", "--blocks", "5", "--num-queries", "16", "--projector-width", "8", "--image-size", "32",
        "--num-workers", "0", "--images", "2", "--accelerator", "cpu"]  # fmt: skip
HOLE = np.zeros((40, 44), bool)
HOLE[5:15, 30:] = True
GDAL = '<GDALMetadata><Item name="DESCRIPTION" sample="0" role="description">height</Item></GDALMetadata>'
GEOGRAPHY = [(33550, 12, 3, (10.0, 10.0, 0.0), True), (42112, 2, len(GDAL) + 1, GDAL, True),
             (42113, 2, 6, "-9999", True), (270, 2, 5, "land", True)]  # fmt: skip


def run_of(root: Path, *settings: str) -> Path:
    assert cli.main(["train", str(root / "data"), "--out", str(root / "run"), *TINY, *settings]) == 0
    return root / "run"


def folders(root: Path) -> list[Path]:
    made = [root / "data" / name for name in ("trainA", "trainB", "testA", "testB")]
    for folder in made:
        folder.mkdir(parents=True)
    return made


@pytest.fixture(scope="module")
def heights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of elevations in float32 with GeoTIFF's tags and no data in the corner of each."""
    root = tmp_path_factory.mktemp("heights")
    for folder in folders(root):
        for number in range(2):
            values = np.where(HOLE, np.float32(-9999), smooth(40, 44, 1, number)[:, :, 0].astype(np.float32))
            tifffile.imwrite(folder / f"{number}.tif", values, photometric="minisblack", extratags=GEOGRAPHY,
                             metadata=None)  # fmt: skip
    run_of(root, "--channels", "1", "--value-range", "percentiles", "--percentiles", "0", "100")
    return root


def test_no_data_stays_out_of_the_range_and_comes_back(heights: Path, tmp_path: Path) -> None:
    mapping = json.loads((heights / "run" / "formats.json").read_text())["source"]["mapping"]
    files = sorted((heights / "data" / "trainA").iterdir())
    data = np.concatenate([tifffile.imread(path)[~HOLE] for path in files])
    assert (mapping["low"], mapping["high"]) == ([data.min()], [data.max()])
    source = heights / "data" / "testA"
    assert cli.main(["translate", str(heights / "run"), str(source), "--out", str(tmp_path)]) == 0
    for path in source.iterdir():
        made = tifffile.imread(tmp_path / path.name)
        assert np.array_equal(made == -9999, HOLE)
        assert made[~HOLE].min() >= mapping["low"][0] - 1e-3
        facts, before = describe(tmp_path / path.name), describe(path)
        assert facts.no_data == (-9999,)
        assert facts.attached.tags == before.attached.tags
    translator = Translator.from_pretrained(heights / "run", device="cpu")
    values = tifffile.imread(path)
    given = np.where(HOLE, np.nan, values)
    assert np.array_equal(np.isnan(translator.translate(given)), HOLE)
    masked = translator.translate(np.ma.masked_array(values, HOLE))
    assert isinstance(masked, np.ma.MaskedArray)
    assert np.array_equal(masked.mask, HOLE)
    assert np.array_equal(masked.data[~HOLE], made[~HOLE])


def test_no_data_is_told(heights: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["data", "check", str(heights / "data")]) == 0
    said = capsys.readouterr().out
    assert "all 2 images of trainA hold no-data values" in said
    assert "left out or converted: no data in 4 images" in said
    assert cli.main(["translate", str(heights / "run"), str(heights / "data" / "testA"), "--out", str(tmp_path),
                     "--format", "npy"]) == 0  # fmt: skip
    assert "not in the results: GeoTIFF's and descriptive tags of 2 images" in capsys.readouterr().err
    assert np.array_equal(np.isnan(np.load(tmp_path / "0.npy")), HOLE)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of photos in another colour profile, with files and folders that training does not read."""
    root = tmp_path_factory.mktemp("photos")
    for place, folder in enumerate(folders(root)):
        for number in range(2):
            picture = Image.fromarray((smooth(40, 44, 3, 10 * place + number) * 255).astype(np.uint8))
            picture.save(folder / f"{number}.jpg", icc_profile=EXCHANGED if place == 0 else None)
    for name in ("film.heic", "notes.txt"):
        (root / "data" / "trainA" / name).write_bytes(b"x")
    (root / "data" / "trainB" / "more").mkdir()
    Image.new("RGBA", (40, 44)).save(root / "data" / "trainA" / "clear.png")
    frames = [Image.new("RGB", (44, 40), (40 * n, 99, 0)) for n in range(3)]
    frames[0].save(root / "data" / "trainB" / "moving.webp", save_all=True, append_images=frames[1:], duration=80)
    run_of(root)
    return root


def test_what_is_left_out_is_one_line_everywhere(photos: Path, tmp_path: Path, capsys: Any) -> None:
    assert cli.main(["train", str(photos / "data"), "--out", str(tmp_path / "run"), *TINY]) == 0
    said = capsys.readouterr().err
    words = ("left out or converted: 2 files of kinds that are not read (1 .heic, 1 .txt); 1 subfolder; further pages "
             "or frames of 1 image; transparency of 1 image, put over the background; "
             "another colour profile of 2 images, converted to sRGB")  # fmt: skip
    assert words in said
    cli.main(["data", "check", str(photos / "data")])
    assert words in capsys.readouterr().out
    source = photos / "data" / "trainA"
    assert cli.main(["translate", str(photos / "run"), str(source), "--out", str(tmp_path / "a")]) == 0
    assert ("left out or converted: 2 files of kinds that are not read (1 .heic, 1 .txt); transparency of 1 image, put "
            "over the background; another colour profile of 2 images, converted to sRGB") in (
                capsys.readouterr().err)  # fmt: skip


@pytest.mark.parametrize("suffix", [".webp", ".png", ".gif", ".tif", ".avif"])
def test_all_pages_are_translated(suffix: str, photos: Path, tmp_path: Path) -> None:
    frames = [Image.fromarray((smooth(40, 44, 3, n) * 255).astype(np.uint8)) for n in range(3)]
    source = tmp_path / f"moving{suffix}"
    frames[0].save(source, save_all=True, append_images=frames[1:], **({"duration": 80} if suffix != ".tif" else {}))
    arguments = ["translate", str(photos / "run"), str(source), "--out", str(tmp_path / "out"), "--pages", "all"]
    assert cli.main(arguments) == 0
    translator = Translator.from_pretrained(photos / "run", device="cpu")
    made = tmp_path / "out" / source.name
    assert describe(made).pages == 3
    for page in range(3):
        expected = translator.translate(read_picture(source, translator.source, page).values)
        found = read_picture(made, translator.target, page).values
        assert np.abs(found.astype(int) - expected).mean() <= (8 if suffix in (".gif", ".avif") else 0)
    if suffix not in (".tif", ".avif"):
        assert read_picture(made, translator.target, 1).duration == 80


def test_a_photo_given_in_python_is_the_file(photos: Path, tmp_path: Path) -> None:
    """The README's own example: turned as its EXIF says, in its colours, and tagged."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.fromarray((smooth(40, 44, 3, 5) * 255).astype(np.uint8))
    picture.save(tmp_path / "phone.jpg", exif=exif, icc_profile=EXCHANGED, dpi=(300, 300))
    assert cli.main(["translate", str(photos / "run"), str(tmp_path / "phone.jpg"), "--out", str(tmp_path / "out"),
                     "--format", "png"]) == 0  # fmt: skip
    translator = Translator.from_pretrained(photos / "run", device="cpu")
    with Image.open(tmp_path / "out" / "phone.png") as expected:
        for image in (Image.open(tmp_path / "phone.jpg"), decoded(tmp_path / "phone.jpg")):
            made = translator.translate(image)
            assert made.size == expected.size == (40, 44)
            assert made.tobytes() == expected.tobytes()
            assert made.info["icc_profile"] == expected.info["icc_profile"]
        profile = ImageCms.ImageCmsProfile(io.BytesIO(expected.info["icc_profile"]))
        assert "sRGB" in ImageCms.getProfileDescription(profile)
        assert round(expected.info["dpi"][0]) == 300


def decoded(path: Path) -> Image.Image:
    image = Image.open(path)
    image.load()
    return image


(NEW_KIND,) = [text for text in blocks(DOCS / "extending.md", "python") if "@file_kind" in text]


def test_a_new_kind_of_file_is_one_file(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    """Put into ``data/kinds/``, every module of which is imported, it is checked, trained on and translated."""
    for place, folder in enumerate(folders(tmp_path)):
        for number in range(2):
            values = (smooth(40, 44, 3, 10 * place + number) * 255).astype(np.uint8)
            (folder / f"{number}.ppm").write_bytes(b"P6 44 40 255\n" + values.tobytes())
    (tmp_path / "pixmap.py").write_text(NEW_KIND)
    monkeypatch.setattr(kinds, "__path__", [*kinds.__path__, str(tmp_path)])
    importlib.import_module("unpaired.data.kinds.pixmap")
    try:
        data = tmp_path / "data"
        assert cli.main(["data", "check", str(data)]) == 0
        assert "PPM" in capsys.readouterr().out
        run = run_of(tmp_path)
        assert cli.main(["translate", str(run), str(data / "testA"), "--out", str(tmp_path / "out")]) == 0
    finally:
        KINDS[:] = [kind for kind in KINDS if ".ppm" not in kind.suffixes]
        IMAGE_SUFFIXES.pop(".ppm")
    made = (tmp_path / "out" / "0.ppm").read_bytes()
    assert made.startswith(b"P6 44 40 255\n")
    assert len(made) == 13 + 3 * 40 * 44
