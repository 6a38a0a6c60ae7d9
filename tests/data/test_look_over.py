"""What decoding the training images once finds before training begins: sizes, no data, values and their range."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from tiny import smooth, tiny_run, write_images
from unpaired import cli
from unpaired.data import DataConfig, look_over, sets
from unpaired.data.formats import find_formats
from unpaired.data.inventory import Seen
from unpaired.errors import DataError
from unpaired.training import train


def quiet(done: int, total: int) -> None:
    assert 1 <= done <= total


def gray(folder: Path, low: float, high: float, count: int = 3, dtype: str = "uint16", **options: Any) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(count):
        values = (low + smooth(40, 44, 1, n)[:, :, 0] * (high - low)).astype(dtype)
        tifffile.imwrite(folder / f"{dtype}{n}.tif", values, photometric="minisblack", **options)
    return sorted(folder.iterdir())


def said(domains: list[list[Path]], names: tuple[str, ...] = ("source", "target"), **settings: Any) -> list[str]:
    config = DataConfig(**{"image_size": 32, "channels": 1, **settings})
    seen = look_over(domains, config, quiet)
    assert seen.bad == {}
    formats = find_formats(domains[0], domains[1], config)
    return list(seen.lines(formats, names))


# ---------------------------------------------------------------------------------------------------------------------
# sizes
# ---------------------------------------------------------------------------------------------------------------------
def test_images_smaller_than_the_crop_are_named_before_training(dataset: Path, tmp_path: Path) -> None:
    for folder, count in (("trainA", 3), ("trainB", 2)):
        write_images(dataset / folder / "small", count, (24, 20))
        for path in (dataset / folder / "small").iterdir():
            path.rename(dataset / folder / f"small_{path.name}")
        (dataset / folder / "small").rmdir()
    config = tiny_run(dataset, resize="crop_only")
    words = (
        r"small_image0\.png: 24 x 20 pixels are smaller than image_size 32; .*use resize = scale_shorter_side\. Of 14 "
        r"training images 5 cannot be used \(trainA/small_image0\.png, trainA/small_image1\.png, "
        r"trainA/small_image2\.png and 2 more\): fix or replace them, or leave them out with --skip-bad"
    )
    with pytest.raises(DataError, match=words):
        train(config, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "run.yaml").exists()
    assert train(config, tmp_path / "run", quiet=True, skip_bad=True).finished
    assert train(replace(config, data=replace(config.data, resize="scale_shorter_side")), tmp_path / "other",
                 quiet=True).finished  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"resize": "crop_only", "image_size": 64}, "40 x 36 pixels are smaller than image_size 64"),
        ({"resize": "crop_only", "image_size": (40, 32)}, r"are smaller than image_size 40 x 32 \(height x width\)"),
        ({"resize": "none"}, "resize = none needs exactly image_size 32"),
    ],
)
def test_sizes_that_do_not_suit_any_image_are_said_as_such(
    dataset: Path, tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(DataError, match=rf"image0\.png: .*{words}.*None of 9 training images can be used"):
        train(tiny_run(dataset, **settings), tmp_path / "run", quiet=True)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_sizes_are_those_of_upright_images_of_any_type(orientation: int, dtype: str, tmp_path: Path) -> None:
    files = gray(tmp_path, 0, 100, 2, dtype, extratags=[(274, 3, 1, orientation, True)])
    config = DataConfig(image_size=(44, 40) if orientation == 6 else (40, 44), resize="none", channels=1)
    assert look_over((files, files), config, quiet).bad == {}
    turned = replace(config, image_size=config.crop_size[::-1])
    assert len(look_over((files, files), turned, quiet).bad) == 2
    for resize in ("resize_and_crop", "scale_shorter_side", "resize", "zoom_and_crop"):
        assert look_over((files, files), DataConfig(image_size=64, resize=resize, channels=1), quiet).bad == {}  # type: ignore[arg-type]


def test_pages_that_are_channels_are_decoded_as_such(tmp_path: Path) -> None:
    for n in range(2):
        tifffile.imwrite(tmp_path / f"{n}.tif", np.moveaxis((smooth(40, 44, 5, n) * 255).astype(np.uint8), 2, 0),
                         photometric="minisblack", metadata=None)  # fmt: skip
    files = sorted(tmp_path.iterdir())
    config = DataConfig(image_size=32, channels=5, pages="channels")
    assert look_over((files, files), config, quiet).bad == {}
    assert len(look_over((files, files), replace(config, pages="first"), quiet).bad) == 2


# ---------------------------------------------------------------------------------------------------------------------
# no data, and what is left out
# ---------------------------------------------------------------------------------------------------------------------
def test_declared_no_data_that_no_pixel_has_is_not_told(tmp_path: Path) -> None:
    declared = {"extratags": [(42113, 2, 6, "-9999", True)], "metadata": None}
    files = gray(tmp_path / "a", 0, 1, 3, "float32", **declared)
    assert said([files, files], value_range=(0, 1)) == []
    values = tifffile.imread(files[1])
    values[:9, :9] = -9999
    tifffile.imwrite(files[1], values, photometric="minisblack", **declared)
    assert said([files, gray(tmp_path / "b", 0, 1, 3, "float32")], value_range=(0, 1)) == [
        "left out or converted: no data in 1 image"
    ]


def test_of_large_sets_it_is_told_how_many_were_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sets, "WHOLE", 4)
    monkeypatch.setattr(sets, "SAMPLE", 2)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for n in range(6):
            Image.new("RGBA", (40, 44)).save(tmp_path / folder / f"{n}.png")
    files = [sorted((tmp_path / folder).iterdir()) for folder in ("a", "b")]
    (line,) = said(files, channels=3)
    assert line.endswith("transparency of 4 images, put over the background (of 4 of 12 images)")


# ---------------------------------------------------------------------------------------------------------------------
# ranges
# ---------------------------------------------------------------------------------------------------------------------
def test_dark_deep_images_are_told_with_what_mends_it(tmp_path: Path) -> None:
    dark, bright = gray(tmp_path / "trainA", 90, 250), gray(tmp_path / "trainB", 0, 65000)
    (line,) = said([dark, bright])
    assert line == (
        "Warning: all 3 source images have values that fill only 0.24 % of the range 0 to 65535, so networks see "
        "little contrast (trainA/uint160.tif mostly holds 90 to 249); use --value-range 90 249, or --value-range "
        "percentiles."
    )
    (line,) = said([bright, dark])
    assert "all 3 target images" in line
    assert "--target-value-range 90 249" in line
    for fine in ({"value_range": "percentiles"}, {"value_range": (90, 250), "target_value_range": "dtype"}):
        assert said([dark, bright], **fine) == []
    lines = said([dark, bright, dark], ("day", "dusk", "night"))
    assert [line.split(" images")[0] for line in lines] == ["Warning: all 3 day", "Warning: all 3 night"]


def test_one_file_of_another_depth_is_told(tmp_path: Path) -> None:
    files = gray(tmp_path / "trainA", 300, 9000, 20) and gray(tmp_path / "trainA", 20, 150, 1, "uint8")
    other = gray(tmp_path / "trainB", 0, 9000)
    (line,) = said([files, other], value_range=(0, 9000))
    assert "1 of 21 source images has over 50 % of the values outside the range 0 to 9000" in line
    assert "(trainA/uint80.tif mostly holds 20 to 149, multiplied by 257 for 16 bits)" in line
    for values in ("dtype", "percentiles"):
        (line,) = said([files, other], value_range=values)
        assert "1 of 21 source images has the type uint8 among uint16, and other values" in line


def test_reflectances_as_integers_among_floats_are_told(tmp_path: Path) -> None:
    files = gray(tmp_path / "trainA", 0.02, 0.4, 4, "float32") and gray(tmp_path / "trainA", 200, 4000, 1)
    lines = said([files, gray(tmp_path / "trainB", 0.02, 0.4, 4, "float32")], value_range=(0.02, 0.4))
    (line,) = lines
    assert "1 of 5 source images has over 50 % of the values outside the range 0.02 to 0.4" in line
    assert "trainA/uint160.tif mostly holds 200 to 3999" in line


def test_ordinary_8_bit_images_are_no_cause_for_alarm(tmp_path: Path) -> None:
    for folder, make in {"night": lambda n: smooth(40, 44, 3, n) * 4, "lines": lambda n: np.full((40, 44, 3), 255),
                         "black": lambda n: np.zeros((40, 44, 3))}.items():  # fmt: skip
        (tmp_path / folder).mkdir()
        for n in range(3):
            Image.fromarray(make(n).astype(np.uint8)).save(tmp_path / folder / f"{n}.png")
    night, lines, black = (sorted((tmp_path / folder).iterdir()) for folder in ("night", "lines", "black"))
    for domains in ([night, lines], [black, night]):
        assert said(domains, channels=3) == []
        assert said(domains, channels=1, target_channels=3) == []


def test_training_and_translating_say_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("trainA", "trainB"):
        gray(tmp_path / "data" / folder, 90, 250)
    config = tiny_run(tmp_path / "data", "cut", images=1, channels=1)
    assert train(config, tmp_path / "run").finished
    said = capsys.readouterr().err
    assert said.count("fill only 0.24 % of the range 0 to 65535") == 2
    assert said.index("Warning: all 3 source images") < said.index("on cpu")
    train(config, tmp_path / "run")
    assert "Warning" not in capsys.readouterr().err
    words = ["translate", str(tmp_path / "run"), str(tmp_path / "data" / "trainA"), "--out", str(tmp_path / "made")]
    assert cli.main([*words, "--device", "cpu"]) == 0
    (warning,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("warning"))
    assert "all 3 images have values that fill only 0.24 % of the range 0 to 65535" in warning
    assert "uint160.tif mostly holds 90 to 249); give images in the scale of the training images" in warning
    seen: Seen = look_over([gray(tmp_path / "data" / "trainA", 90, 250)] * 2, config.data, quiet)
    assert (seen.total, seen.decoded) == (6, 6)
