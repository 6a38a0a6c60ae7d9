"""Cityscapes: label maps and photos of the same frames, from the two official archives."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from official_archives import (
    CITYSCAPES_COLOURS,
    cityscapes,
    contents,
    frames,
    horse2zebra,
    label_map,
    pixels,
    quiet,
    write_zip,
)
from PIL import Image

from unpaired.data import find_test_images, pair_by_name
from unpaired.data.prepare import Prepared, PrepareSettings, prepare
from unpaired.data.prepare_scale import Change, label_square, photo_square, scaled
from unpaired.errors import ConfigError, DataError

SMALL = PrepareSettings(size=16)


@pytest.fixture
def archives(tmp_path: Path) -> list[Path]:
    labels, photos = cityscapes()
    return [
        write_zip(tmp_path / "gtFine_trainvaltest.zip", labels),
        write_zip(tmp_path / "leftImg8bit_trainvaltest.zip", photos),
    ]


def run(archives: list[Path], out: Path, settings: PrepareSettings = SMALL) -> Prepared:
    return prepare("cityscapes", archives, out, settings, quiet)


def image(path: Path) -> np.ndarray:
    with Image.open(path) as opened:
        assert opened.format == "PNG"
        assert opened.mode == "RGB"
        return np.asarray(opened)


def square(picture: Image.Image, change: Change) -> np.ndarray:
    file = io.BytesIO()
    picture.save(file, "PNG")
    made = scaled(file.getvalue(), "x.png", change)
    assert made is not None
    return np.asarray(Image.open(io.BytesIO(made.content)))


def test_frames_become_pairs_of_squares(archives: list[Path], tmp_path: Path) -> None:
    done = run(archives, tmp_path / "out")
    stems = {split: {name.split("/")[1] for name in names} for split, names in frames().items()}
    for folder, split in (("trainA", "train"), ("trainB", "train"), ("testA", "val"), ("testB", "val")):
        assert {path.stem for path in (tmp_path / "out" / folder).iterdir()} == stems[split]
    files = find_test_images(tmp_path / "out")
    assert files is not None
    assert len(pair_by_name(files.source, files.target)) == 2
    assert done.written.problems == []
    assert done.plan.classes == ("label", "photo")


def test_labels_keep_the_official_colours_where_they_were(archives: list[Path], tmp_path: Path) -> None:
    run(archives, tmp_path / "out")
    official = {tuple(colour) for colour in CITYSCAPES_COLOURS.tolist()}
    for number, name in enumerate(frames()["train"]):
        made = image(tmp_path / "out" / "trainA" / f"{name.split('/')[1]}.png")
        assert made.shape == (16, 16, 3)
        assert {tuple(colour) for colour in made.reshape(-1, 3).tolist()} <= official
        whole = np.asarray(label_map(number))[..., :3]  # 64 x 32: every fourth column, every second row
        assert np.array_equal(made, whole[1::2, 2::4])


def test_photos_are_antialiased(archives: list[Path], tmp_path: Path) -> None:
    run(archives, tmp_path / "out")
    name = frames()["train"][0].split("/")[1]
    expected = pixels(0, (64, 32)).resize((16, 16), Image.Resampling.BICUBIC)
    assert np.array_equal(image(tmp_path / "out" / "trainB" / f"{name}.png"), np.asarray(expected))
    stripes = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (32, 32)))
    inner = square(stripes, photo_square(16))[:, 2:-2]
    assert abs(inner.astype(int) - 127).max() <= 2  # stripes of one pixel melt into gray
    assert set(np.unique(square(stripes, label_square(16)))) <= {0, 255}


def test_a_frame_without_its_partner_is_left_out_and_named(tmp_path: Path) -> None:
    labels, photos = cityscapes()
    gone = frames()["train"][1]
    del photos[f"leftImg8bit/train/{gone}_leftImg8bit.png"]
    done = run([write_zip(tmp_path / "a.zip", labels), write_zip(tmp_path / "b.zip", photos)], tmp_path / "out")
    assert done.written.problems == [f"{gone.split('/')[1]}: has only a label map or only a photo; left out"]
    assert [len(part.images) for part in done.report.parts] == [4, 4, 2, 2]


def test_wrong_archives_are_told_by_what_is_missing(archives: list[Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no photos for training: expected leftImg8bit/.*found .*gtFine"):
        run(archives[:1], tmp_path / "out")
    with pytest.raises(DataError, match=r"no colour label maps for training: expected gtFine/"):
        run(archives[1:], tmp_path / "out")
    coarse = write_zip(tmp_path / "c.zip", {"gtCoarse/train/ulm/ulm_0_0_gtCoarse_color.png": b""})
    with pytest.raises(DataError, match=r"found .*c\.zip: gtCoarse/train/ulm/ \(1\)"):
        run([coarse, archives[1]], tmp_path / "out")
    with pytest.raises(ConfigError, match=r"gtFine_trainvaltest\.zip and leftImg8bit_trainvaltest\.zip, never .*https"):
        prepare("cityscapes", [], tmp_path / "out", SMALL, quiet)
    with pytest.raises(ConfigError, match="test_count does not apply here"):
        run(archives, tmp_path / "out", PrepareSettings(test_count=3))
    other = write_zip(tmp_path / "d.zip", horse2zebra())
    with pytest.raises(DataError, match="holds horse2zebra, not cityscapes"):
        run([other], tmp_path / "out")


def test_the_collections_own_cityscapes_is_taken_as_it_is(tmp_path: Path) -> None:
    members = horse2zebra(root="cityscapes/")
    done = prepare("cityscapes", [write_zip(tmp_path / "c.zip", members)], tmp_path / "out", PrepareSettings(), quiet)
    assert contents(tmp_path / "out") == {name.removeprefix("cityscapes/"): x for name, x in members.items()}
    assert [part.official for part in done.report.parts] == [2975, 2975, 500, 500]


def test_a_damaged_frame_is_left_out_and_the_check_misses_it(tmp_path: Path) -> None:
    labels, photos = cityscapes()
    name = f"leftImg8bit/train/{frames()['train'][0]}_leftImg8bit.png"
    photos[name] = photos[name][:60]
    done = run([write_zip(tmp_path / "a.zip", labels), write_zip(tmp_path / "b.zip", photos)], tmp_path / "out")
    (problem,) = done.written.problems
    assert name in problem
    (pairs,) = (f for f in done.report.findings if f.kind == "pairs" and "trainA" in f.words)
    assert "4 names in both, 1 in one only" in pairs.words


def test_labels_may_be_rgb_or_have_a_palette(tmp_path: Path) -> None:
    for image in (
        label_map(0).convert("RGB"),
        label_map(0).convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE),
    ):
        assert np.array_equal(square(image, label_square(16)), np.asarray(label_map(0))[1::2, 2::4, :3])
