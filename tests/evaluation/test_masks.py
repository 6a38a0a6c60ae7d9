"""Masks of what may change, as people write them: boxes in JSON, images in a folder, and all that can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tiny import write_images
from unpaired.data import DataConfig, UnpairedFiles, list_images
from unpaired.errors import DataError
from unpaired.evaluation import Evaluator, ScoringNetworks
from unpaired.evaluation.masks import read_kept

ROOT = Path(__file__).parents[2]


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    return list_images(write_images(tmp_path / "testA", 3))  # 40 wide, 36 high


def boxes(folder: Path, found: Any) -> Path:
    path = folder / "boxes.json"
    path.write_text(json.dumps(found), encoding="utf-8")
    return path


def mask(folder: Path, name: str, array: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    Image.fromarray(array).save(folder / name)
    return folder


def test_boxes_are_scaled_with_their_images(tmp_path: Path, sources: list[Path]) -> None:
    path = boxes(tmp_path, {"note": "x", "boxes": {"image0.png": [[0, 0, 20, 18]], "image2.jpg": []}})
    found = read_kept(path, sources, (18, 20))
    first, second, third = found
    expected = torch.ones(18, 20, dtype=torch.bool)
    expected[:9, :10] = False
    assert first is not None
    assert third is not None
    assert torch.equal(first, expected)
    assert second is None
    assert third.all()  # an empty list: nothing may change


@pytest.mark.parametrize("kind", ["gray", "bits", "labels", "alpha", "palette"])
def test_mask_images_of_any_type(kind: str, tmp_path: Path, sources: list[Path]) -> None:
    marked = np.zeros((36, 40), dtype=np.uint8)
    marked[10:20, 30:40] = 1
    folder = tmp_path / "masks"
    if kind == "gray":
        mask(folder, "image1.png", marked)
    elif kind == "bits":
        mask(folder, "image1.png", marked.astype(bool))
    elif kind == "labels":
        mask(folder, "image1.png", marked.astype(np.uint16) * 3)
    elif kind == "alpha":
        mask(folder, "image1.png", np.stack([np.full_like(marked, 200)] * 3 + [marked * 255], -1))
    else:
        folder.mkdir()
        image = Image.fromarray(marked).convert("P")
        image.putpalette([0, 0, 0, 200, 10, 10] + [0] * 762)
        image.save(folder / "image1.png")
    found = read_kept(folder, sources, (36, 40))
    assert torch.equal(found[1], torch.from_numpy(marked) == 0)  # type: ignore[arg-type]
    assert [each is None for each in found] == [True, False, True]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"boxes": {"image0.png": [], "horse.png": []}}, "no source image 'horse.png' in .*testA"),
        (
            {"boxes": {"image0.png": [[0, 0, 41, 5]]}},
            "'image0.png': .0, 0, 41, 5. is not a box .*40 pixels wide and 36 high",
        ),
        ({"boxes": {"image0.png": [3]}}, "'image0.png': 3 is not a box"),
        ({"boxes": {"image0.png": 3}}, "expected .*boxes"),
        ({"boxes": {}}, "at least one file"),
        ({"image0.png": []}, "expected .*boxes"),
        ([], "expected .*boxes"),
        ({"boxes": {"image0.png": [], "image0.jpg": []}}, "'image0.png' and 'image0.jpg' are of one source"),
    ],
)
def test_boxes_that_cannot_be(found: Any, words: str, tmp_path: Path, sources: list[Path]) -> None:
    with pytest.raises(DataError, match=words) as caught:
        read_kept(boxes(tmp_path, found), sources, (18, 20))
    assert str(tmp_path / "boxes.json") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be(tmp_path: Path, sources: list[Path]) -> None:
    with pytest.raises(DataError, match=r"gone\.json: there is no such file"):
        read_kept(tmp_path / "gone.json", sources, (18, 20))
    (tmp_path / "torn.json").write_text("{")
    with pytest.raises(DataError, match=r"torn\.json: cannot be read as JSON"):
        read_kept(tmp_path / "torn.json", sources, (18, 20))
    with pytest.raises(DataError, match="nowhere"):
        read_kept(tmp_path / "nowhere", sources, (18, 20))
    small = mask(tmp_path / "small", "image0.png", np.zeros((36, 39), dtype=np.uint8))
    with pytest.raises(DataError, match=r"image0\.png: the mask is 39 x 36 pixels, its source image 40 x 36"):
        read_kept(small, sources, (18, 20))
    smeared = mask(tmp_path / "jpeg", "image0.jpg", np.zeros((36, 40), dtype=np.uint8))
    with pytest.raises(DataError, match=r"image0\.jpg: JPEG smears masks .* save masks as PNG"):
        read_kept(smeared, sources, (18, 20))
    strange = mask(tmp_path / "strange", "other.png", np.zeros((36, 40), dtype=np.uint8))
    with pytest.raises(DataError, match=r"no source image 'other\.png'"):
        read_kept(strange, sources, (18, 20))


def test_masks_of_sources_that_could_not_be_read_are_no_mistake(tmp_path: Path, sources: list[Path]) -> None:
    path = boxes(tmp_path, {"boxes": {"image0.png": [], "image1.png": []}})
    assert len(read_kept(path, sources[1:], (18, 20), given=sources)) == 2
    with pytest.raises(DataError, match=r"no source image has a mask"):
        read_kept(path, sources[2:], (18, 20), given=sources)


def test_an_evaluation_scores_outside_masks(tmp_path: Path, sources: list[Path]) -> None:
    targets = list_images(write_images(tmp_path / "testB", 3, seed=5))
    path = boxes(tmp_path, {"boxes": {p.name: [[0, 0, 20, 36]] for p in sources[:2]}})
    told: list[str] = []
    evaluator = Evaluator(
        UnpairedFiles(tuple(sources), tuple(targets)), DataConfig(image_size=32, load_size=32), ScoringNetworks(),
        unchanged_masks=path, report=told.append,
    )  # fmt: skip
    assert told == ["Masks: 2 of 3 source images have one; the others (image2.png) do not count in the scores outside "
                    "masks"]  # fmt: skip
    left, right = [x.clone() for x in evaluator.inputs], [x.clone() for x in evaluator.inputs]
    for a, b in zip(left, right, strict=True):
        a[:, :, :16] *= 0.5
        b[:, :, 16:] *= 0.5
    name = "unchanged_colour_masks_de"
    assert evaluator.score_inputs()[name].value == 0
    assert evaluator.score(left, "left")[name].value == 0
    found = evaluator.score(right, "right")[name]
    assert found.value > 1
    assert found.full_name == f"{name}_2v2"
    assert name not in evaluator.left_out


def test_the_boxes_of_the_repository_are_of_60_photos() -> None:
    found = json.loads((ROOT / "benchmarks" / "horse2zebra_boxes.json").read_text(encoding="utf-8"))["boxes"]
    assert len(found) == 60
    for name, each in found.items():
        assert name.startswith("n02381460_"), name
        assert each, name
        assert all(0 <= a < c <= 256 and 0 <= b < d <= 256 for a, b, c, d in each), name
