"""The embedded data set: complete, in the right direction, with its licence, and part of the wheel."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest

from unpaired.data import DataConfig, UnpairedStream, batches, embedded_dataset, read_image
from unpaired.errors import DataError

ROOT = Path(__file__).parents[2]


def test_sizes_pairs_and_disjoint_emoji() -> None:
    data = embedded_dataset()
    assert (len(data.train.source), len(data.train.target)) == (695, 695)
    assert (len(data.test.source), len(data.test.target)) == (200, 200)
    assert [a.name for a in data.test.source] == [b.name for b in data.test.target]
    assert data.test_pairs == list(zip(data.test.source, data.test.target, strict=True))
    sets = [{path.name for path in files} for files in (data.train.source, data.train.target, data.test.source)]
    assert sum(map(len, sets)) == len(set.union(*sets))


def test_drawings_are_black_and_the_target_has_colour() -> None:
    data = embedded_dataset("fluent", "drawing_to_colour")
    for files, coloured in (
        (data.train.source, False),
        (data.test.source, False),
        (data.train.target, True),
        (data.test.target, True),
    ):
        pixels = np.stack([np.asarray(read_image(path)).astype(int) for path in files[:50]])
        assert pixels.shape[1:] == (64, 64, 3)
        chroma = (pixels.max(-1) - pixels.min(-1)).mean()
        assert chroma > 10 if coloured else chroma == 0
    other = embedded_dataset(direction="colour_to_drawing")
    assert other.train == data.train.swapped()
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
