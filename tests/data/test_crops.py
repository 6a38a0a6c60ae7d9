"""Sizes, crops and flips by their arithmetic: which pixels of which enlargement a training image shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from unpaired.data import DataConfig, load_resized
from unpaired.data import transforms as transforms_module
from unpaired.data.pixels import PixelFormat, read_values
from unpaired.data.transforms import DRAWS, load_for_protocol, random_crop, resized_for_protocol
from unpaired.errors import DataError

HALF = 2**63
PIXELS = np.arange(6 * 7 * 2, dtype=np.uint8).reshape(6, 7, 2)


def save(path: Path, width: int, height: int) -> Path:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(values).save(path)
    return path


@pytest.mark.parametrize(
    ("settings", "size", "expected"),
    [
        ({"resize": "resize", "image_size": (8, 12)}, (50, 20), (8, 12)),
        ({"resize": "resize_and_crop", "image_size": 8, "load_size": (9, 13)}, (50, 20), (9, 13)),
        ({"resize": "scale_shorter_side", "image_size": 8, "load_size": (10, 30)}, (50, 20), (12, 30)),
        ({"resize": "scale_shorter_side", "image_size": 8, "load_size": (10, 20)}, (50, 20), (10, 25)),
        ({"resize": "scale_shorter_side", "image_size": 8, "load_size": 10}, (33, 31), (10, 11)),
        ({"resize": "zoom_and_crop", "image_size": 8, "load_size": 100}, (50, 20), (40, 100)),
        ({"resize": "zoom_and_crop", "image_size": 8, "load_size": 100}, (20, 50), (100, 40)),
        ({"resize": "zoom_and_crop", "image_size": 8, "load_size": 100}, (900, 2), (1, 100)),
        ({"resize": "zoom_and_crop", "image_size": 8}, (50, 20), (20, 50)),
        ({"resize": "crop_only", "image_size": (20, 48)}, (50, 20), (20, 50)),
        ({"resize": "crop_only", "image_size": (20, 48)}, (48, 20), (20, 48)),
        ({"resize": "none", "image_size": (20, 48)}, (48, 20), (20, 48)),
    ],
)
def test_sizes_after_loading(
    tmp_path: Path, settings: dict[str, Any], size: tuple[int, int], expected: tuple[int, int]
) -> None:
    loaded = load_resized(save(tmp_path / "a.png", *size), DataConfig(**settings))
    assert loaded.shape == (*expected, 3)


@pytest.mark.parametrize(
    ("settings", "size", "words"),
    [
        ({"resize": "crop_only", "image_size": (20, 48)}, (47, 20), r"47 x 20 pixels \(width x height\) are smaller"),
        ({"resize": "crop_only", "image_size": (20, 48)}, (48, 19), r"image_size 20 x 48 \(height x width\);"),
        ({"resize": "none", "image_size": (20, 48)}, (49, 20), r"49 x 20 pixels \(width x height\), but"),
        ({"resize": "none", "image_size": (20, 48)}, (48, 21), r"image_size 20 x 48 \(height x width\);"),
        ({"resize": "none", "image_size": 20}, (20, 21), r"20 x 21 pixels, but .*image_size 20;"),
    ],
)
def test_images_of_the_wrong_size_are_named(
    tmp_path: Path, settings: dict[str, Any], size: tuple[int, int], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        load_resized(save(tmp_path / "a.png", *size), DataConfig(**settings))


def test_the_largest_enlargement_is_allowed_and_one_pixel_more_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "a.png", 50, 20)
    config = DataConfig(image_size=8, load_size=10, resize="scale_shorter_side")
    monkeypatch.setattr(transforms_module, "MAX_IMAGE_PIXELS", 250)
    assert load_resized(path, config).shape == (10, 25, 3)
    monkeypatch.setattr(transforms_module, "MAX_IMAGE_PIXELS", 249)
    with pytest.raises(DataError, match=r"50 x 20 pixels would become 25 x 10 with resize = scale_shorter_side"):
        load_resized(path, config)


def test_the_filter_and_the_format_are_those_asked_for(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", 30, 20)
    settings: dict[str, Any] = {"image_size": 8, "load_size": 9}
    found = {
        name: load_resized(path, DataConfig(resample=name, **settings)) for name in ("bicubic", "nearest", "bilinear")
    }
    for name, loaded in found.items():
        with Image.open(path) as image:
            resized = image.resize((9, 9), getattr(Image.Resampling, name.upper()))
        assert np.array_equal(loaded, np.asarray(resized)), name
    assert np.array_equal(found["bicubic"], load_resized(path, DataConfig(**settings)))
    grey = load_resized(path, DataConfig(**settings), PixelFormat(1))
    assert grey.shape == (9, 9, 1)
    assert load_resized(path, DataConfig(channels=1, target_channels=3, **settings)).shape == (9, 9, 1)


@pytest.mark.parametrize("flip", ["none", "horizontal", "vertical", "both"])
def test_crops_and_flips(flip: Any) -> None:
    """Rows and columns are draws modulo the free places; a flip is a draw in the upper half of its range."""
    config = DataConfig(image_size=4, load_size=8, flip=flip)
    for draws in ((0, 0, 0, 0), (5, 7, HALF - 1, HALF), (1, 2, HALF, HALF - 1), (2**64 - 1, 2**63 + 6, HALF, HALF)):
        top, left = draws[0] % 3, draws[1] % 4
        expected = PIXELS[top : top + 4, left : left + 4]
        if flip in ("horizontal", "both") and draws[2] >= HALF:
            expected = expected[:, ::-1]
        if flip in ("vertical", "both") and draws[3] >= HALF:
            expected = expected[::-1]
        crop = random_crop(PIXELS, config, (*draws, 0, 0))
        assert np.array_equal(crop, expected.transpose(2, 0, 1)), draws
        assert crop.flags.c_contiguous
        assert not np.shares_memory(crop, PIXELS)


def test_a_rectangle_is_cut_height_first() -> None:
    wide = np.tile(PIXELS, (1, 2, 1))
    crop = random_crop(wide, DataConfig(image_size=(4, 8), flip="none"), (2, 3, 0, 0, 0, 0))
    assert np.array_equal(crop, wide[2:6, 3:11].transpose(2, 0, 1))


@pytest.mark.parametrize("fractions", [(0.0, 0.0), (0.5, 0.25), (0.999, 0.75)])
def test_a_zoomed_crop_is_cut_from_the_scaled_image(
    fractions: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each side is scaled by smallest_zoom to 1; the crop's place there, divided by the scale, is read here."""
    asked: list[Any] = []

    def watch(values: np.ndarray, size: tuple[int, int], resample: str, box: tuple[float, ...]) -> np.ndarray:
        asked.append((values is image, size, resample, box))
        return np.zeros((size[1], size[0], 1), dtype=np.uint8)

    monkeypatch.setattr(transforms_module, "resize_values", watch)
    image = np.zeros((40, 60, 1), dtype=np.uint8)
    config = DataConfig(
        image_size=(8, 12), load_size=60, resize="zoom_and_crop", smallest_zoom=0.25, resample="area", flip="none"
    )
    draws = (1000, 77, 0, 0, *(int(fraction * 2**64) for fraction in fractions))
    assert len(draws) == DRAWS
    assert random_crop(image, config, draws).shape == (1, 8, 12)
    height, width = (round(side * (0.25 + 0.75 * fraction)) for side, fraction in zip((40, 60), fractions, strict=True))
    top, left = 1000 % (height - 8 + 1), 77 % (width - 12 + 1)
    ((same, size, resample, box),) = asked
    assert (same, size, resample) == (True, (12, 8), "area")
    assert box == pytest.approx(
        (left * 60 / width, top * 40 / height, (left + 12) * 60 / width, (top + 8) * 40 / height)
    )
    assert 0 <= box[0] < box[2] <= 60
    assert 0 <= box[1] < box[3] <= 40


def test_a_crop_without_zoom_shows_the_pixels_themselves() -> None:
    image = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    config = DataConfig(image_size=8, load_size=60, resize="zoom_and_crop", smallest_zoom=1.0, flip="none")
    crop = random_crop(image, config, (100, 50, 0, 0, 0, 0))
    assert np.array_equal(crop, image[100 % 33 :][:8, 50 % 53 :][:, :8].transpose(2, 0, 1))
    # A picture smaller than the crop is enlarged to it.
    small = random_crop(image[:4, :6], config, (3, 5, 0, 0, 0, 0))
    assert small.shape == (3, 8, 8)


def test_test_images_are_resized_bicubically_to_the_crops_size(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", 30, 20)
    with Image.open(path) as image:
        expected = np.asarray(image.resize((12, 8), Image.Resampling.BICUBIC))
    values = read_values(path, PixelFormat(3))
    assert np.array_equal(resized_for_protocol(values, (8, 12)), expected)
    assert resized_for_protocol(values, 8).shape == (8, 8, 3)
    found = load_for_protocol(path, DataConfig(image_size=(8, 12), resample="nearest"))
    assert (found.shape, found.dtype) == ((3, 8, 12), torch.float32)
    torch.testing.assert_close(found, torch.from_numpy(expected.copy()).permute(2, 0, 1).float() / 127.5 - 1)
    assert load_for_protocol(path, DataConfig(image_size=8), PixelFormat(1)).shape == (1, 8, 8)
