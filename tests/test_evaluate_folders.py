"""``unpaired evaluate FOLDER``: images of any depth, made by any software, are scored as those of the run would be."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from tiny import smooth, tiny_run
from unpaired import cli
from unpaired.data import DataConfig, UnpairedFiles, find_test_images
from unpaired.errors import DataError
from unpaired.evaluation import evaluate_made
from unpaired.training import train

METRICS = ["--metrics", "paired_psnr_db", "paired_l1_pm1", "paired_ssim_gauss11", "swd_progan_x1e3"]
Write = Callable[[Path, np.ndarray], None]


def twelve_bits(path: Path, values: np.ndarray, scale: float = 4000) -> None:
    kind: dict[str, Any] = {"photometric": "minisblack"}
    if values.shape[2] > 1:
        kind = {"photometric": "rgb" if values.shape[2] == 3 else "minisblack", "planarconfig": "contig"}
    tifffile.imwrite(path.with_suffix(".tif"), (values * scale).astype(np.uint16).squeeze(), **kind)


def sixteen_bits(path: Path, values: np.ndarray) -> None:
    twelve_bits(path, values, 65535)


def floats(path: Path, values: np.ndarray) -> None:
    np.save(path.with_suffix(".npy"), (values * 3000 - 1000).astype(np.float32))


def eight_bits(path: Path, values: np.ndarray) -> None:
    Image.fromarray((values * 255).astype(np.uint8).squeeze()).save(path.with_suffix(".png"))


def folder(place: Path, write: Write, channels: int, count: int, seed: int = 0) -> Path:
    place.mkdir(parents=True)
    for number in range(count):
        write(place / f"image{number}", smooth(32, 32, channels, seed + number))
    return place


def data_set(root: Path, write: Write, channels: tuple[int, int]) -> Path:
    for seed, (split, count) in enumerate((("trainA", 3), ("trainB", 3), ("testA", 3), ("testB", 3))):
        folder(root / split, write, channels[seed % 2], count, 10 * seed)
    return root


@pytest.mark.parametrize(
    ("write", "channels", "settings", "options"),
    [
        (eight_bits, (3, 3), {}, []),
        (twelve_bits, (1, 1), {"channels": 1, "value_range": (0.0, 4095.0)}, ["--value-range", "0", "4095"]),
        (twelve_bits, (1, 3), {"channels": 1, "target_channels": 3, "value_range": (0.0, 4095.0)},
         ["--channels", "1", "--target-channels", "3", "--value-range", "0", "4095"]),
        (sixteen_bits, (3, 3), {}, []),
        (floats, (5, 5), {"channels": 5, "value_range": (-1000.0, 2000.0)},
         ["--channels", "5", "--value-range", "-1000", "2000"]),
        (floats, (1, 5), {"channels": 1, "target_channels": 5, "value_range": (-2000.0, 9000.0),
                          "target_value_range": (-1000.0, 2000.0)},
         ["--channels", "1", "--target-channels", "5", "--value-range", "-2000", "9000", "--target-value-range",
          "-1000", "2000"]),
    ],
    ids=["8 bits", "12 bits", "12 bits gray to colour", "16 bits", "5 x float32", "float32 gray to 5"],
)  # fmt: skip
def test_the_translations_of_a_run_have_the_scores_of_the_run(
    tmp_path: Path, write: Write, channels: tuple[int, int], settings: dict[str, Any], options: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    data, run, made = data_set(tmp_path / "data", write, channels), tmp_path / "run", tmp_path / "made"
    train(tiny_run(data, images=2, checkpoint_every=2, sample_every=9, **settings), run, quiet=True)
    assert cli.main(["translate", str(run), str(data / "testA"), "--out", str(made)]) == 0
    of_run, of_folder = tmp_path / "run.json", tmp_path / "made.json"
    assert cli.main(["evaluate", str(run), str(data), *METRICS, "--out", str(of_run)]) == 0
    capsys.readouterr()
    words = [*METRICS, "--out", str(of_folder), *options]
    assert cli.main(["evaluate", str(made), str(data), *words]) == 0
    assert "Warning" not in capsys.readouterr().err
    expected, found = (json.loads(path.read_text())["scores"] for path in (of_run, of_folder))
    assert [*found] == ["input", "made"] if channels[0] in (3, channels[1]) or channels == (1, 3) else ["made"]
    for name, score in expected["ema"].items():
        assert found["made"][name]["value"] == pytest.approx(score["value"], rel=2e-3), name
    record = json.loads(of_folder.read_text())["data"]
    assert ("formats" in record) == (write is not eight_bits)
    if "value_range" in settings:
        assert record["formats"]["source"]["mapping"]["low"] == [settings["value_range"][0]]


@pytest.mark.parametrize(
    ("write", "options", "words"),
    [
        (twelve_bits, [], r"all 3 source images have values that fill only 6.1 % of the range 0 to 65535, .*; use "
                          r"--value-range \d+ \d+, or --value-range percentiles$"),
        (twelve_bits, ["--value-range", "0", "4095", "--target-value-range", "dtype"],
         r"all 3 target images have values that fill only 6.1 % of the range 0 to 65535, .*; use --target-value-range"),
        (twelve_bits, ["--value-range", "0", "255"],
         r"all 3 source images have over \d+ % of the values outside the range 0 to 255"),
        (floats, ["--value-range", "0", "1"], r"all 3 source images have over \d+ % of the values outside the range"),
        (floats, ["--value-range", "0", "1e6"], r"all 3 source images have values that fill only 0.2 % of the range"),
        (twelve_bits, ["--value-range", "0", "4095"], ""),
        (twelve_bits, ["--value-range", "percentiles"], ""),
        (sixteen_bits, [], ""),
        (eight_bits, [], ""),
        (floats, ["--value-range", "percentiles", "--percentiles", "0", "100"], ""),
        (floats, ["--value-range", "-1000", "2000"], ""),
    ],
)  # fmt: skip
def test_values_that_do_not_suit_their_range_are_told(
    tmp_path: Path, write: Write, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, name in enumerate(("testA", "testB", "made")):
        folder(tmp_path / name, write, 1, 3, 10 * seed)
    assert cli.main(["evaluate", str(tmp_path / "made"), str(tmp_path), "--metrics", "paired_l1_pm1", *options]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "Warning" in line]
    assert len(said) == bool(words)
    assert all(re.search(words, line) for line in said), said


def test_test_images_that_do_not_suit_the_range_of_a_run_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deep, run = data_set(tmp_path / "deep", sixteen_bits, (1, 1)), tmp_path / "run"
    train(tiny_run(deep, images=2, checkpoint_every=2, sample_every=9, channels=1), run, quiet=True)
    dark = data_set(tmp_path / "dark", twelve_bits, (1, 1))
    for data, count in ((deep, 0), (dark, 1)):  # once, since both domains have one range
        assert cli.main(["evaluate", str(run), str(data), "--metrics", "paired_l1_pm1"]) == 0
        said = [line for line in capsys.readouterr().err.splitlines() if "Warning" in line]
        assert len(said) == count
        assert all("all 3 source images have values that fill only 6.1 % of the range" in line for line in said)
        assert all("give images in the scale of the training images" in line for line in said)


def test_generated_images_of_another_scale_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder(tmp_path / "testA", sixteen_bits, 1, 3)
    folder(tmp_path / "testB", sixteen_bits, 1, 3, 10)
    folder(tmp_path / "made", twelve_bits, 1, 3, 20)
    assert cli.main(["evaluate", str(tmp_path / "made"), str(tmp_path), "--metrics", "paired_l1_pm1"]) == 0
    assert "Warning: all 3 generated images have values that fill only 6.1 %" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("write", "channels", "options", "words"),
    [
        (floats, 1, [], "say which become -1 and 1: --value-range LOW HIGH, or --value-range percentiles"),
        (floats, 5, ["--value-range", "percentiles"], "has 5 channels, but the images of this domain have 3 channels"),
        (sixteen_bits, 3, ["--channels", "5"], "has 3 channels, but the images of this domain have 5 channels"),
        (sixteen_bits, 3, ["--channels", "17"], "channels must be at most 16, not 17"),
        (sixteen_bits, 3, ["--target-channels", "0"], "target_channels must be at least 1, not 0"),
        (sixteen_bits, 3, ["--value-range", "5", "5"], "value_range is 5.0 5.0: it must go from a smaller to a larger"),
        (sixteen_bits, 3, ["--percentiles", "90", "10"], "percentiles is (90.0, 10.0)"),
        (sixteen_bits, 3, ["--background", "0", "0", "256"], "must be at most 255"),
    ],
)
def test_settings_that_do_not_fit_are_refused_with_options_of_this_command(
    tmp_path: Path, write: Write, channels: int, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, name in enumerate(("testA", "testB", "made")):
        folder(tmp_path / name, write, channels, 2, 10 * seed)
    assert cli.main(["evaluate", str(tmp_path / "made"), str(tmp_path), *options]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert "--skip-bad" not in said  # it would leave out everything
    assert cli.main(["evaluate", str(tmp_path / "made"), str(tmp_path), *options, "--skip-bad"]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--channels 3", "--value-range 0 4095", "--colour-profiles ignore"])
def test_a_run_has_its_own(tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.yaml").write_text("")
    assert cli.main(["evaluate", str(tmp_path), str(tmp_path), *option.split()]) == 2
    name = option.split()[0].removeprefix("--").replace("-", "_")
    assert f"{name}: {tmp_path} is a run, whose images are read as in its training" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["testA", "testB"])
@pytest.mark.parametrize(
    "odd",
    [
        lambda path: path.with_suffix(".png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50)),
        lambda path: path.with_suffix(".tif").write_bytes(b"no image at all"),
        lambda path: floats(path, smooth(32, 32, 3, 9)),
        lambda path: floats(path, smooth(32, 32, 5, 9)),
        lambda path: sixteen_bits(path, smooth(32, 32, 5, 9)),
    ],
    ids=["damaged", "no image", "float32", "5 x float32", "5 channels"],
)
@pytest.mark.parametrize("name", ["a_first", "z_last"])
def test_what_does_not_fit_is_left_out_only_when_asked(
    tmp_path: Path, part: str, odd: Callable[[Path], None], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, each in enumerate(("testA", "testB", "made")):
        folder(tmp_path / each, eight_bits, 3, 3, 10 * seed)
    odd(tmp_path / part / name)
    words = ["evaluate", str(tmp_path / "made"), str(tmp_path), "--metrics", "colour_shift_lab"]
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert str(tmp_path / part) in said
    assert "(--skip-bad leaves such files out)" in said
    assert cli.main([*words, "--skip-bad"]) == 1
    said = capsys.readouterr().err
    assert said.count("left out: ") == 1
    assert name in said


def test_a_generated_image_that_does_not_fit_cannot_be_left_out(tmp_path: Path) -> None:
    for seed, each in enumerate(("testA", "testB", "made")):
        folder(tmp_path / each, eight_bits, 3, 3, 10 * seed)
    sixteen_bits(tmp_path / "made" / "image1", smooth(32, 32, 5, 9))
    (tmp_path / "made" / "image1.png").unlink()
    files = find_test_images(tmp_path)
    assert isinstance(files, UnpairedFiles)
    with pytest.raises(DataError, match=r"image1\.tif: has 5 channels") as found:
        evaluate_made(tmp_path / "made", files, DataConfig(image_size=32), skip_bad=True)
    assert "--skip-bad" not in str(found.value)


def test_the_settings_count_in_python_too(tmp_path: Path) -> None:
    for seed, each in enumerate(("testA", "testB", "made")):
        folder(tmp_path / each, twelve_bits, 1, 3, 10 * seed)
    files = find_test_images(tmp_path)
    assert isinstance(files, UnpairedFiles)
    told: list[str] = []
    wide, narrow = (
        evaluate_made(tmp_path / "made", files, DataConfig(image_size=32, value_range=values), report=told.append)
        for values in ("dtype", (0.0, 4095.0))
    )
    values = [found.scores["made"]["paired_l1_pm1"].value for found in (wide, narrow)]
    assert values[1] / values[0] == pytest.approx(65535 / 4095, rel=1e-3)
    assert [words.partition(":")[0] for words in told] == ["Warning"]


def test_two_translations_of_one_source_are_named(tmp_path: Path) -> None:
    for seed, each in enumerate(("testA", "testB", "made")):
        folder(tmp_path / each, eight_bits, 3, 3, 10 * seed)
    Image.open(tmp_path / "made" / "image1.png").save(tmp_path / "made" / "image1.tif")
    files = find_test_images(tmp_path)
    assert isinstance(files, UnpairedFiles)
    with pytest.raises(DataError, match=r"both image1\.\w+ and image1\.\w+ could be the translation of one source"):
        evaluate_made(tmp_path / "made", files, DataConfig(image_size=32))
