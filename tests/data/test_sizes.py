"""Ways to bring images to size: squares and rectangles, filters, flips and zooms, for every type of pixel."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image

from tiny import write_images
from unpaired.config import from_dict, to_dict
from unpaired.data import (
    DataConfig,
    PixelFormat,
    UnpairedFiles,
    UnpairedStream,
    ValueMapping,
    batches,
    load_for_protocol,
    load_resized,
    resize_values,
)
from unpaired.data.pixels import tensor_of
from unpaired.data.resizing import Resample
from unpaired.data.settings import Resize
from unpaired.data.transforms import load_examples, random_crop
from unpaired.errors import ConfigError, DataError

HALF, TOP = 2**63, 2**64 - 1
FORMATS = {
    "uint8 colour": PixelFormat(),
    "uint8 gray": PixelFormat(1),
    "uint16": PixelFormat(1, "uint16", ValueMapping("range", (0.0,), (65535.0,))),
    "uint16, 5 channels": PixelFormat(5, "uint16", ValueMapping("range", (0.0,), (65535.0,))),
    "float32": PixelFormat(2, "float32", ValueMapping("range", (-3.0,), (7.0,))),
}
SHAPES = [(16, 24), (24, 16), (17, 23), (23, 17), (16, 16), (3, 90), (90, 3), (1, 1), (5, 7)]
"""Height and width of files; the crop is 16 x 24 or 24 x 16."""


def save(path: Path, height: int, width: int, pixels: PixelFormat, seed: int = 0) -> Path:
    """Random values as an NPY file, or a PNG where people have those."""
    rng = np.random.default_rng(seed)
    if pixels.plain:
        values = rng.integers(0, 256, (height, width, pixels.channels), dtype=np.uint8)
        Image.fromarray(values if pixels.channels == 3 else values[:, :, 0]).save(path.with_suffix(".png"))
        return path.with_suffix(".png")
    values = rng.uniform(-3, 7, (height, width, pixels.channels)).astype(np.float32)
    if pixels.dtype == "uint16":
        values = rng.integers(0, 65536, values.shape, dtype=np.uint16)
    np.save(path.with_suffix(".npy"), values)
    return path.with_suffix(".npy")


def config_of(pixels: PixelFormat, **changes: Any) -> DataConfig:
    return DataConfig(**{"channels": pixels.channels, "num_workers": 0, **changes})


# ---------------------------------------------------------------------------------------------------------------------
# every way, every shape, every type
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("image_size", [16, (16, 24), (24, 16)])
@pytest.mark.parametrize("resize", get_args(Resize))
def test_every_crop_has_the_size_that_was_asked_for(kind: str, image_size: Any, resize: Resize, tmp_path: Path) -> None:
    pixels = FORMATS[kind]
    config = config_of(pixels, image_size=image_size, resize=resize, flip="both")
    crop_height, crop_width = config.crop_size
    for number, (height, width) in enumerate(SHAPES):
        path = save(tmp_path / f"x{number}", height, width, pixels)
        too_small = resize == "crop_only" and (height < crop_height or width < crop_width)
        if too_small or (resize == "none" and (height, width) != config.crop_size):
            with pytest.raises(DataError, match=f"{width} x {height} pixels"):
                load_resized(path, config, pixels)
            continue
        values = load_resized(path, config, pixels)
        assert values.dtype == np.dtype(pixels.dtype)
        if resize != "zoom_and_crop":
            assert values.shape[0] >= crop_height
            assert values.shape[1] >= crop_width
        for draws in ((0,) * 6, (TOP,) * 6, (3, 5, 0, TOP, HALF, 1)):
            crop = random_crop(values, config, draws)
            assert crop.shape == (pixels.channels, crop_height, crop_width)
            assert crop.dtype == values.dtype
            assert crop.flags.c_contiguous
            floats = pixels.to_floats(torch.from_numpy(crop))
            assert floats.isfinite().all()
            assert floats.abs().max() <= 1


@pytest.mark.parametrize(
    ("resize", "load_size", "image_size", "expected"),
    [  # of a file of 40 x 100 (height x width)
        ("resize", None, (16, 24), (16, 24)),
        ("resize_and_crop", None, (16, 24), (18, 27)),
        ("resize_and_crop", (30, 50), (16, 24), (30, 50)),
        ("resize_and_crop", 32, (16, 24), (32, 32)),
        ("resize_and_crop", "image_size", (16, 24), (16, 24)),
        ("scale_shorter_side", 20, 16, (20, 50)),
        ("scale_shorter_side", "image_size", 16, (16, 40)),
        ("scale_shorter_side", "image_size", (16, 24), (16, 40)),
        ("scale_shorter_side", "image_size", (24, 16), (24, 60)),
        ("scale_shorter_side", (16, 48), (16, 24), (19, 48)),
        ("crop_only", None, (16, 24), (40, 100)),
        ("zoom_and_crop", 50, (16, 24), (20, 50)),
        ("zoom_and_crop", None, (16, 24), (40, 100)),
        ("zoom_and_crop", "image_size", (16, 24), (10, 24)),
    ],
)
def test_sizes_after_loading(
    resize: Resize, load_size: Any, image_size: Any, expected: tuple[int, int], tmp_path: Path
) -> None:
    path = save(tmp_path / "a", 40, 100, PixelFormat())
    config = DataConfig(image_size=image_size, load_size=load_size, resize=resize)
    assert load_resized(path, config).shape[:2] == expected


def test_a_rectangle_says_which_side_is_which(tmp_path: Path) -> None:
    path = save(tmp_path / "a", 20, 30, PixelFormat())
    with pytest.raises(DataError) as caught:
        load_resized(path, DataConfig(image_size=(24, 16), resize="crop_only"))
    assert "30 x 20 pixels (width x height) are smaller than image_size 24 x 16 (height x width)" in str(caught.value)
    with pytest.raises(DataError, match=r"needs exactly image_size 24 x 16 \(height x width\)"):
        load_resized(path, DataConfig(image_size=(24, 16), resize="none"))


def test_the_protocol_takes_the_rectangle_and_bicubic(tmp_path: Path) -> None:
    path = save(tmp_path / "a", 40, 100, PixelFormat())
    config = DataConfig(image_size=(16, 24), resample="nearest", flip="both")
    found = load_for_protocol(path, config)
    with Image.open(path) as image:
        expected = np.asarray(image.resize((24, 16), Image.Resampling.BICUBIC))
    assert torch.allclose(found, torch.from_numpy(expected.transpose(2, 0, 1) / 127.5 - 1).float(), atol=1e-6)


# ---------------------------------------------------------------------------------------------------------------------
# settings
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("given", "stored"),
    [(64, 64), ((64, 64), 64), ((64, 128), [64, 128]), ((128, 64), [128, 64])],
)
def test_sizes_go_to_yaml_and_back(given: Any, stored: Any) -> None:
    config = DataConfig(image_size=given, load_size=(200, 300))
    assert to_dict(config)["image_size"] == stored
    assert from_dict(DataConfig, to_dict(config)) == config
    assert from_dict(DataConfig, {"image_size": list(config.crop_size), "load_size": [200, 300]}) == config


@pytest.mark.parametrize("wrong", ["64", [64], [64, 64, 64], 64.0, [64, "a"], True, None])
def test_sizes_that_are_none(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="image_size"):
        from_dict(DataConfig, {"image_size": wrong})


# ---------------------------------------------------------------------------------------------------------------------
# filters and flips
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("resample", get_args(Resample))
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_filters_are_pillows_for_every_type(resample: Resample, dtype: str, channels: int) -> None:
    filters = {"area": Image.Resampling.BOX}
    pillow = filters.get(resample, getattr(Image.Resampling, resample.upper(), None))
    values = (np.random.default_rng(0).random((20, 30, channels)) * (65535 if dtype == "uint16" else 255)).astype(dtype)
    found = resize_values(values, (12, 9), resample)
    for channel in range(channels):
        plane = values[:, :, channel] if dtype == "uint8" else values[:, :, channel].astype(np.float32)
        expected = np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize((12, 9), pillow))
        if dtype == "uint16":
            expected = np.clip(np.rint(expected), 0, 65535)
        assert np.array_equal(found[:, :, channel], expected)


def test_filters_differ_and_lanczos_stays_in_range(tmp_path: Path) -> None:
    edge = np.zeros((24, 24, 1), np.uint16)
    edge[:, 12:] = 65535
    rung = resize_values(edge, (31, 31), "lanczos")[:, :, 0]
    assert rung[:, :12].max() < 5000  # ringing below 0 did not wrap around
    assert rung[:, -12:].min() > 60000
    path = save(tmp_path / "a", 40, 40, PixelFormat())
    crops = {name: load_resized(path, DataConfig(image_size=16, resample=name)) for name in get_args(Resample)}
    assert len({x.tobytes() for x in crops.values()}) == len(crops)


@pytest.mark.parametrize(
    ("flip", "mirrored"),
    [("none", []), ("horizontal", [2]), ("vertical", [1]), ("both", [1, 2])],
)
def test_flips(flip: Any, mirrored: list[int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    config = DataConfig(image_size=(16, 24), resize="none", flip=flip)
    plain = pixels.transpose(2, 0, 1)
    assert np.array_equal(random_crop(pixels, config, (0, 0, HALF - 1, HALF - 1, 0, 0)), plain)
    assert np.array_equal(random_crop(pixels, config, (0, 0, HALF, HALF, 0, 0)), np.flip(plain, mirrored))


def test_the_two_flips_are_independent(tmp_path: Path) -> None:
    path = save(tmp_path / "a", 8, 8, PixelFormat())
    config = DataConfig(image_size=8, resize="none", flip="both", num_workers=0)
    stream = UnpairedStream(UnpairedFiles((path,), (path,)), config, 0)
    seen = [stream[k][role].numpy().tobytes() for k in range(200) for role in ("source", "target")]
    counts = [seen.count(one) for one in set(seen)]
    assert len(counts) == 4
    assert min(counts) > 60


def test_horizontal_flips_and_crops_are_those_of_earlier_versions(tmp_path: Path) -> None:
    """Golden: a run that is resumed must see the crops that it would have seen."""
    ramp = np.arange(20 * 20, dtype=np.uint16).reshape(20, 20, 1) * 50
    np.save(tmp_path / "a.npy", ramp)
    config = DataConfig(image_size=8, resize="crop_only", channels=1, num_workers=0)
    pixels = FORMATS["uint16"]
    stream = UnpairedStream(UnpairedFiles((tmp_path / "a.npy",), (tmp_path / "a.npy",)), config, 5, (pixels, pixels))
    corners = []
    for k in range(4):
        for role in ("source", "target"):
            crop = torch.round((stream[k][role][0] + 1) * 65535 / 2 / 50)
            corners.append((int(crop.min()), bool(crop[0, 0] > crop[0, 1])))
    assert corners == EARLIER


EARLIER = [(165, True), (146, False), (168, False), (132, False), (90, False), (30, False), (203, False), (232, False)]


# ---------------------------------------------------------------------------------------------------------------------
# zooms
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("resample", get_args(Resample))
def test_a_zoomed_crop_is_that_of_the_whole_zoomed_image(kind: str, resample: Resample) -> None:
    """Only the pixels that a crop shows are computed; the result is that of resizing everything and cutting it out."""
    pixels = FORMATS[kind]
    rng = np.random.default_rng(0)
    sharp = resample in ("nearest", "area")  # a position may fall on the other side of an edge, one pixel further
    step = 1 if pixels.dtype == "uint8" else 100
    y, x, channel = np.mgrid[:60, :90, : pixels.channels]
    values = ((y + x + channel) * step if sharp else rng.random(y.shape) * 250 * step).astype(pixels.dtype)
    tolerance = 2 * step if sharp else 0.1 if pixels.dtype == "float32" else 1
    config = config_of(pixels, image_size=(16, 24), resize="zoom_and_crop", flip="none", resample=resample)
    for draws in rng.integers(0, 2**63, (12, 6)).tolist():
        draws = [2 * draw for draw in draws]
        zooms = [1 / 3 + 2 / 3 * draw / 2**64 for draw in draws[4:]]
        height, width = max(16, round(60 * zooms[0])), max(24, round(90 * zooms[1]))
        whole = resize_values(values, (width, height), resample)
        top, left = draws[0] % (height - 15), draws[1] % (width - 23)
        expected = whole[top : top + 16, left : left + 24].transpose(2, 0, 1).astype(np.float64)
        found = random_crop(values, config, draws).astype(np.float64)
        assert np.abs(found - expected).max() <= tolerance


def test_zooms_reach_every_scale_and_both_ends() -> None:
    """A ramp from left to right shows the zoom of a crop as its steepness."""
    ramp = np.tile(np.linspace(0, 1, 300, dtype=np.float32)[None, :, None], (200, 1, 1))
    config = DataConfig(
        image_size=(16, 24), resize="zoom_and_crop", flip="none", smallest_zoom=0.25, resample="bilinear"
    )
    rng = np.random.default_rng(0)
    steps = []
    for draws in (rng.integers(0, 2**63, (300, 6)) * 2).astype(object).tolist():
        crop = random_crop(ramp, config, [int(x) % 2**64 for x in draws])
        steps.append(float(np.median(np.diff(crop[0], axis=1))) * 299)
    scales = 1 / np.array(steps)
    assert 0.2499 < scales.min() < 0.3
    assert 0.95 < scales.max() <= 1.001
    assert abs(scales.mean() - 0.625) < 0.04
    small = random_crop(ramp[:10, :10], config, (TOP,) * 6)  # smaller than the crop: enlarged until it fits
    assert small.shape == (1, 16, 24)


def test_height_and_width_are_zoomed_independently() -> None:
    y, x = np.mgrid[:200, :300].astype(np.float32)
    both = np.stack([y, x], axis=-1)
    config = DataConfig(image_size=16, resize="zoom_and_crop", flip="none", resample="bilinear")
    tall = random_crop(both, config, (0, 0, 0, 0, 0, TOP))
    assert np.median(np.diff(tall[0], axis=0)) == pytest.approx(3, rel=0.02)
    assert np.median(np.diff(tall[1], axis=1)) == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("kind", FORMATS)
def test_one_picture_of_each_domain_is_a_stream(kind: str, tmp_path: Path) -> None:
    pixels = FORMATS[kind]
    paths = [save(tmp_path / name, 50, 70, pixels, seed) for seed, name in enumerate("ab")]
    config = config_of(pixels, image_size=16, resize="zoom_and_crop", load_size=64, images_per_epoch=1000)
    stream = UnpairedStream(UnpairedFiles((paths[0],), (paths[1],)), config, 0, (pixels, pixels))
    assert (stream.images_per_epoch, stream.samples_per_pass) == (1000, 1)
    crops = [stream[k]["source"].numpy().tobytes() for k in range(30)]
    assert len(set(crops)) == 30
    assert stream.cached_bytes == 2 * 46 * 64 * pixels.channels * np.dtype(pixels.dtype).itemsize
    workers = UnpairedStream(stream.files, dataclasses.replace(config, num_workers=2), 0, (pixels, pixels))
    for batch in batches(workers, 3, 19, 4):
        for k, source in zip(batch.index.tolist(), batch.source, strict=True):
            assert torch.equal(source, stream[k]["source"])


def test_examples_are_crops_in_size_or_the_first_picture_whole(tmp_path: Path) -> None:
    """Of the domain's own format, and cut to multiples of 4."""
    folder = write_images(tmp_path / "images", 3, size=(90, 62))
    paths, gray = sorted(folder.iterdir()), PixelFormat(1)
    assert load_examples(paths, DataConfig(image_size=(16, 32)), gray).shape == (3, 1, 16, 32)
    zoomed = DataConfig(image_size=16, load_size=45, resize="zoom_and_crop")
    found = load_examples(paths, zoomed, gray)
    assert found.shape == (1, 1, 28, 44)  # 31 x 45
    assert found.abs().max() <= 1
    whole = gray.to_floats(tensor_of(load_resized(paths[0], zoomed, gray)))
    assert torch.equal(found[0], whole[:, :28, :44])
