"""The settings' checks, the four ways to resize, and crops that stay inside."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tyro
from PIL import Image

from unpaired.data import DataConfig, load_resized
from unpaired.data import transforms as transforms_module
from unpaired.data.transforms import random_crop
from unpaired.errors import ConfigError, DataError

HALF = 2**63  # draws from here on flip


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"image_size": 0}, "image_size must be at least 1, not 0"),
        ({"image_size": -4}, "image_size must be at least 1, not -4"),
        ({"image_size": 255}, "image_size is 255: it must be a positive multiple of 4"),
        ({"image_size": (64, 30)}, "image_size is 64 x 30: it must be positive multiples of 4"),
        ({"image_size": (64, 0)}, "image_size.1 must be at least 1, not 0"),
        ({"load_size": 0}, "load_size must be at least 1, not 0"),
        ({"load_size": (300, -1)}, "load_size.1 must be at least 1, not -1"),
        ({"load_size": "crop"}, "load_size must be a whole number or a list or 'image_size', not 'crop'"),
        ({"load_size": (300, 200)}, "image_size is 256, larger than load_size 300 x 200"),
        ({"image_size": (64, 128), "load_size": 100}, "image_size is 64 x 128, larger than load_size 100"),
        ({"load_size": (300, 200), "resize": "zoom_and_crop"}, "with resize = zoom_and_crop it is one number"),
        ({"load_size_until": "never"}, "load_size_until must be 'end' or 'decay', not 'never'"),
        ({"smallest_zoom": 0.0}, "smallest_zoom must be above 0, not 0.0"),
        ({"smallest_zoom": 1.1}, "smallest_zoom must be at most 1, not 1.1"),
        ({"images_per_epoch": 0}, "images_per_epoch must be at least 1, not 0"),
        ({"flip": False}, "flip must be 'horizontal', 'vertical', 'both' or 'none', not false"),
        ({"resample": "cubic"}, "not 'cubic' (did you mean 'bicubic'?)"),
        ({"load_size": 128}, "image_size is 256, larger than load_size 128"),
        ({"load_size": 128, "resize": "scale_shorter_side"}, "larger than load_size 128"),
        ({"resize": "scale"}, "resize must be 'resize_and_crop'"),
        ({"channels": 17}, "channels must be at most 16, not 17"),
        ({"background": (0, 0, 256)}, "background.2 must be at most 255, not 256"),
        ({"background": (0, 0)}, "background.2' is missing"),
        ({"cache_gib": -1.0}, "cache_gib must be at least 0, not -1.0"),
        ({"cache_gib": float("nan")}, "cache_gib must be a finite number, not nan"),
        ({"cache_gib": float("inf")}, "cache_gib must be a finite number, not inf"),
        ({"num_workers": -1}, "num_workers must be at least 0, not -1"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DataConfig(**settings)
    assert words in str(caught.value)


def test_load_size_default_and_when_it_does_not_matter() -> None:
    assert DataConfig().resized_size == (286, 286)
    assert DataConfig(image_size=64).resized_size == (72, 72)
    assert DataConfig(image_size=(64, 128)).resized_size == (72, 143)
    assert DataConfig(image_size=64, load_size=(70, 80)).resized_size == (70, 80)
    assert DataConfig(image_size=(64, 128), load_size="image_size").resized_size == (64, 128)
    assert DataConfig(image_size=256, load_size=100, resize="crop_only").image_size == 256


def test_command_line_reads_the_meanings(capsys: pytest.CaptureFixture[str]) -> None:
    config = tyro.cli(
        DataConfig,
        args=["--image-size", "64", "--flip", "none", "--background", "0", "1", "2", "--load-size", "70"],
    )
    assert config == DataConfig(image_size=64, flip="none", background=(0, 1, 2), load_size=70)
    rectangle = tyro.cli(DataConfig, args=["--image-size", "192", "256", "--load-size", "image_size"])
    assert rectangle == DataConfig(image_size=(192, 256), load_size="image_size")
    assert tyro.cli(DataConfig, args=["--image-size", "64", "64", "--load-size", "70", "80"]) == DataConfig(
        image_size=64, load_size=(70, 80)
    )
    with pytest.raises(SystemExit):
        tyro.cli(DataConfig, args=["--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for field in dataclasses.fields(DataConfig):
        assert f"--{field.name}".replace("_", "-") in text or f"--{field.name}" in text
    assert "one side of a square, or height and width; multiples of 4" in text
    assert "shared by its loading processes" in text


def save(path: Path, width: int, height: int) -> Path:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    return path


@pytest.mark.parametrize(
    ("resize", "expected"),
    [("resize_and_crop", (10, 10)), ("scale_shorter_side", (10, 25)), ("crop_only", (20, 50))],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_resize_shapes(tmp_path: Path, resize: Any, expected: tuple[int, int], channels: int) -> None:
    path = save(tmp_path / "a.png", 50, 20)
    pixels = load_resized(path, DataConfig(image_size=8, load_size=10, resize=resize, channels=channels))
    assert pixels.shape == (*expected, channels)
    assert pixels.dtype == np.uint8
    tall = load_resized(save(tmp_path / "b.png", 20, 50), DataConfig(image_size=8, load_size=10, resize=resize))
    assert tall.shape == (*expected[::-1], 3)


def test_resize_is_antialiased(tmp_path: Path) -> None:
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(board).save(tmp_path / "a.png")
    pixels = load_resized(tmp_path / "a.png", DataConfig(image_size=8, load_size=8))
    assert np.abs(pixels.astype(int) - 127).max() < 16  # plain interpolation would show black or white dots


def test_none_takes_the_files_as_they_are(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", 16, 16)
    config = DataConfig(image_size=16, resize="none", flip="none")
    with Image.open(path) as image:
        assert np.array_equal(load_resized(path, config), np.asarray(image))
    with pytest.raises(DataError, match=r"a\.png: 16 x 16 pixels, but resize = none needs exactly image_size 8;"):
        load_resized(path, DataConfig(image_size=8, resize="none"))


def test_image_smaller_than_the_crop(tmp_path: Path) -> None:
    for width, height in ((12, 40), (40, 12)):
        path = save(tmp_path / "small.png", width, height)
        with pytest.raises(DataError) as caught:
            load_resized(path, DataConfig(image_size=16, resize="crop_only"))
        for part in ("small.png", f"{width} x {height}", "smaller than image_size 16", "resize = crop_only"):
            assert part in str(caught.value)


def test_extreme_shape_is_refused_before_it_fills_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "line.png", 3000, 1)
    monkeypatch.setattr(transforms_module, "MAX_IMAGE_PIXELS", 2**26)
    with pytest.raises(DataError, match=r"line\.png: 3000 x 1 pixels would become 858,000 x 286"):
        load_resized(path, DataConfig(resize="scale_shorter_side"))


def test_crops_reach_every_corner_and_flip() -> None:
    pixels = np.arange(6 * 7, dtype=np.uint8).reshape(6, 7, 1)
    config = DataConfig(image_size=4, load_size=8)
    seen = {int(random_crop(pixels, config, (top, left, 0))[0, 0, 0]) for top in range(30) for left in range(30)}
    assert seen == {7 * top + left for top in range(3) for left in range(4)}
    plain, mirrored = random_crop(pixels, config, (1, 2, HALF - 1)), random_crop(pixels, config, (1, 2, HALF))
    assert np.array_equal(plain[0], pixels[1:5, 2:6, 0])
    assert np.array_equal(mirrored, plain[:, :, ::-1])
    assert mirrored.flags.c_contiguous
    without = dataclasses.replace(config, flip="none")
    assert np.array_equal(random_crop(pixels, without, (1, 2, HALF)), plain)
