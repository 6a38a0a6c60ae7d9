"""The embedded data set: complete, in the right direction, with its licence, and part of the wheel."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unpaired.data import DataConfig, UnpairedStream, batches, embedded_dataset, read_image
from unpaired.data.inspection import equal_pictures, inspect, similar_pictures
from unpaired.errors import DataError

ROOT = Path(__file__).parents[2]


def test_sizes_pairs_and_disjoint_emoji() -> None:
    data = embedded_dataset()
    assert (len(data.train.source), len(data.train.target)) == (614, 619)
    assert (len(data.validation.source), len(data.validation.target)) == (200, 200)
    assert (len(data.test.source), len(data.test.target)) == (120, 120)
    for pairs in (data.validation, data.test):
        assert [a.name for a in pairs.source] == [b.name for b in pairs.target]
    assert data.test_pairs == list(zip(data.test.source, data.test.target, strict=True))
    sides = (data.train.source, data.train.target, data.validation.source, data.test.source)
    sets = [{path.name for path in files} for files in sides]
    assert sum(map(len, sets)) == len(set.union(*sets))


def ink(files: Sequence[Path]) -> np.ndarray:
    """``(n, 32, 32, 3)``: how much darker than white each picture is, at half its size."""
    pixels = np.stack([np.asarray(read_image(path)) for path in files]).astype(np.float64)
    return 255 - pixels.reshape(len(files), 32, 2, 32, 2, 3).mean((2, 4))


def least_difference(these: Sequence[Path], those: Sequence[Path]) -> float:
    """Of any two pictures, mirrored or not: squared difference over the squares of both; 0 equal, 1 no common ink."""
    others = ink(those)
    squares = (others**2).sum((1, 2, 3))
    return min(
        float((((others - picture) ** 2).sum((1, 2, 3)) / (squares + (picture**2).sum())).min())
        for one in ink(these)
        for picture in (one, one[:, ::-1])
    )


def test_no_test_picture_looks_like_one_of_training_or_validation() -> None:
    data = embedded_dataset()
    for side in ("source", "target"):
        train, validation, test = (getattr(files, side) for files in (data.train, data.validation, data.test))
        assert least_difference(test, [*train, *validation]) > 0.25
        assert least_difference(validation, train) > 0.02
        facts = {str(path): inspect(path.read_bytes(), path) for path in (*train, *validation, *test)}
        alike = {path for group in (*equal_pictures(facts), *similar_pictures(facts, 4)) for path in group}
        assert not alike & set(map(str, test))


def test_a_difference_of_looks_sees_what_leaks_looked_like(tmp_path: Path) -> None:
    """The measure above is small for a mirrored and for a retouched copy, and for nothing else."""
    data = embedded_dataset()
    picture = read_image(data.test.target[0])
    mirrored, retouched = tmp_path / "mirrored.png", tmp_path / "retouched.png"
    picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(mirrored)
    retouched_pixels = np.array(picture)
    retouched_pixels[28:32, 28:32] = 0
    Image.fromarray(retouched_pixels).save(retouched)
    assert least_difference([mirrored], data.test.target[:1]) == 0
    assert 0 < least_difference([retouched], data.test.target[:1]) < 0.02
    assert least_difference([mirrored, retouched], data.train.target) > 0.2


def test_drawings_are_black_and_the_target_has_colour() -> None:
    data = embedded_dataset("fluent", "drawing_to_colour")
    for files, coloured in (
        (data.train.source, False),
        (data.test.source, False),
        (data.validation.source, False),
        (data.validation.target, True),
        (data.train.target, True),
        (data.test.target, True),
    ):
        pixels = np.stack([np.asarray(read_image(path)).astype(int) for path in files[:50]])
        assert pixels.shape[1:] == (64, 64, 3)
        chroma = (pixels.max(-1) - pixels.min(-1)).mean()
        assert chroma > 10 if coloured else chroma == 0
    other = embedded_dataset(direction="colour_to_drawing")
    assert other.train == data.train.swapped()
    assert other.validation == data.validation.swapped()
    assert other.test == data.test.swapped()


def test_trains() -> None:
    stream = UnpairedStream(embedded_dataset().train, DataConfig(image_size=64, num_workers=0), seed=0)
    batch = next(batches(stream, 0, 8, 8))
    assert batch.source.shape == (8, 3, 64, 64)
    assert torch_equal_channels(batch.source.numpy())


def torch_equal_channels(images: np.ndarray) -> bool:
    return np.array_equal(images[:, 0], images[:, 1]) and np.array_equal(images[:, 0], images[:, 2])


def test_unknown_names() -> None:
    with pytest.raises(DataError, match=r"no embedded data set 'fluant' \(did you mean 'fluent'\?\); known: fluent"):
        embedded_dataset("fluant")
    with pytest.raises(DataError, match="direction 'up' is unknown"):
        embedded_dataset(direction="up")  # type: ignore[arg-type]


def test_licence_travels_with_the_files() -> None:
    root = embedded_dataset().root
    licence = (root / "LICENSE").read_text()
    assert licence.startswith("MIT License\n\nCopyright (c) Microsoft Corporation")
    assert "WITHOUT WARRANTY OF ANY KIND" in licence
    assert "@iconify-json/fluent-emoji-flat@1.2.6" in (root / "NOTICE").read_text()


def test_the_wheel_takes_the_whole_package_folder() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel == {"packages": ["src/unpaired"]}  # hatchling then includes every file that git does not ignore
    assert embedded_dataset().root.is_relative_to(ROOT / "src" / "unpaired") or "site-packages" in str(
        embedded_dataset().root
    )
