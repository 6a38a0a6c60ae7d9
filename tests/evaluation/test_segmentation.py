"""Label maps and their scores: colours, counts, and the rules for absent classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unpaired.errors import DataError
from unpaired.evaluation.metrics.segmentation import (
    IGNORED,
    LABEL_MAP_FIT,
    cityscapes_classes,
    confusion_matrices,
    label_map_fit,
    segmentation_scores,
    snap_labels,
)

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "cityscapes"


def painted(colours: list[tuple[int, int, int]]) -> torch.Tensor:
    """One row of pixels in [-1, 1]: (1, 3, 1, W)."""
    return torch.tensor(colours, dtype=torch.float32).T.reshape(1, 3, 1, -1) / 127.5 - 1.0


# --- colours ---


def test_every_official_colour_is_read_as_its_class() -> None:
    classes = cityscapes_classes()
    assert [train_id for _, _, train_id in classes] == [*range(19), *[IGNORED] * 16]
    assert [classes[k][0] for k in (0, 5, 13, 18)] == ["road", "pole", "car", "bicycle"]
    meanings: dict[tuple[int, int, int], int] = {}
    for _, colour, train_id in classes:
        meanings.setdefault(colour, train_id)  # of shared colours the first counts: car, not plate
    labels = snap_labels(painted(list(meanings)))
    assert labels.flatten().tolist() == list(meanings.values())
    assert labels.dtype == torch.int64


@given(st.integers(0, 34), st.integers(-2, 2), st.integers(-2, 2), st.integers(-2, 2))
@settings(max_examples=60, deadline=None)
def test_slightly_wrong_colours_snap_back(row: int, red: int, green: int, blue: int) -> None:
    colour = cityscapes_classes()[row][1]
    moved = tuple(min(255, max(0, value + change)) for value, change in zip(colour, (red, green, blue), strict=True))
    assert snap_labels(painted([moved])).item() == snap_labels(painted([colour])).item()  # type: ignore[list-item]


def test_snapping_equals_a_loop_over_pixels_and_colours() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 3))
    colours = np.array([colour for _, colour, _ in cityscapes_classes()])
    first = {colour: train_id for _, colour, train_id in reversed(cityscapes_classes())}
    expected = []
    for pixel in pixels:
        nearest = min(range(len(colours)), key=lambda k: (int(((pixel - colours[k]) ** 2).sum()), k))
        expected.append(first[cityscapes_classes()[nearest][1]])
    images = torch.from_numpy(pixels.T.reshape(3, 1, 20, 15).copy()).transpose(0, 1).float() / 127.5 - 1.0
    assert snap_labels(images).flatten().tolist() == expected


def test_label_map_fit_knows_label_maps_from_other_images() -> None:
    rng = np.random.default_rng(0)
    classes = [cityscapes_classes()[k][1] for k in rng.integers(0, 19, 64)]
    assert label_map_fit(painted(classes)) == [1.0]
    photo = torch.from_numpy(rng.uniform(-1, 1, (2, 3, 32, 32)))
    assert max(label_map_fit(photo)) < 0.5 * LABEL_MAP_FIT
    assert label_map_fit(-torch.ones(1, 3, 8, 8)) == [0.0]  # black is void, and any image may be black
    assert label_map_fit(torch.ones(1, 3, 8, 8)) == [0.0]


def test_label_map_fit_on_the_files_of_the_field() -> None:
    if not SHARED.is_dir():
        pytest.skip(f"no Cityscapes images at {SHARED}")
    fits = {}
    for folder in ("testA", "testB"):
        files = sorted((SHARED / folder).iterdir())[:12]
        images = [torch.from_numpy(np.asarray(Image.open(file).convert("RGB")).copy()) for file in files]
        fits[folder] = float(np.mean(label_map_fit(torch.stack(images).permute(0, 3, 1, 2).float() / 127.5 - 1.0)))
    assert fits["testA"] > 1.5 * LABEL_MAP_FIT
    assert fits["testB"] < 0.5 * LABEL_MAP_FIT


# --- counts and scores ---


def test_confusion_counts_truth_in_rows_and_leaves_void_out() -> None:
    truth = torch.tensor([[[0, 0, 1, IGNORED]], [[18, 18, 18, 2]]])
    predicted = torch.tensor([[[0, 1, 1, 5]], [[18, 0, 18, 2]]])
    counts = confusion_matrices(truth, predicted)
    assert counts.shape == (2, 19, 19)
    assert counts[0].sum() == 3
    assert (counts[0, 0, 0], counts[0, 0, 1], counts[0, 1, 1]) == (1, 1, 1)
    assert (counts[1, 18, 18], counts[1, 18, 0], counts[1, 2, 2]) == (2, 1, 1)


def test_scores_of_a_small_case_by_hand() -> None:
    # class 0: 6 pixels, 4 found; class 1: 4 pixels, 1 found; class 2: never true, predicted 2 times
    counts = torch.zeros(1, 19, 19, dtype=torch.int64)
    counts[0, 0, 0], counts[0, 0, 1], counts[0, 0, 2] = 4, 1, 1
    counts[0, 1, 1], counts[0, 1, 0], counts[0, 1, 2] = 1, 2, 1
    scores = segmentation_scores(counts)
    iou = {"road": 4 / 8, "sidewalk": 1 / 5, "building": 0.0}
    assert scores["mean_iou"].per_level == pytest.approx(iou)
    assert scores["mean_iou"].value == pytest.approx(sum(iou.values()) / 3)  # predicted but never true: counts, as 0
    assert scores["pixel_accuracy"].value == pytest.approx(5 / 10)
    assert scores["class_accuracy"].value == pytest.approx((4 / 6 + 1 / 4) / 2)  # never true: left out
    assert scores["mean_iou"].interval is None  # of one image


def test_absent_classes_follow_the_nanmean_of_the_drn_script() -> None:
    """The script's formulas on random counts with holes: nanmean over 0 / 0, whole-set sums."""
    rng = np.random.default_rng(1)
    counts = rng.integers(0, 30, (5, 19, 19))
    counts[:, 3], counts[:, :, 3] = 0, 0  # nowhere
    counts[:, 7] = 0  # predicted, never true
    total = counts.sum(0).astype(float)
    with np.errstate(invalid="ignore"):
        iou = np.diag(total) / (total.sum(1) + total.sum(0) - np.diag(total))
        recall = np.diag(total) / total.sum(1)
    scores = segmentation_scores(torch.from_numpy(counts))
    assert scores["mean_iou"].value == pytest.approx(np.nanmean(iou))
    assert scores["class_accuracy"].value == pytest.approx(np.nanmean(recall))
    assert scores["pixel_accuracy"].value == pytest.approx(np.diag(total).sum() / total.sum())
    assert len(scores["mean_iou"].per_level) == 18
    assert scores["mean_iou"].per_level["traffic sign"] == 0.0


def test_intervals_hold_the_value_and_narrow_with_more_images() -> None:
    rng = np.random.default_rng(0)
    truth = torch.from_numpy(rng.integers(0, 4, (160, 6, 6)))
    wrong = torch.from_numpy(rng.random((160, 6, 6)) < rng.random((160, 1, 1)))
    predicted = torch.where(wrong, (truth + 1) % 4, truth)
    few, many = (segmentation_scores(confusion_matrices(truth, predicted)[:n]) for n in (20, 160))
    for part in ("mean_iou", "pixel_accuracy", "class_accuracy"):
        for scores in (few, many):
            low, high = scores[part].interval
            assert low < scores[part].value < high
        assert np.diff(many[part].interval) < 0.6 * np.diff(few[part].interval)
    per_image = np.array([float(row.diagonal().sum() / row.sum()) for row in confusion_matrices(truth, predicted)])
    (width,) = np.diff(many["pixel_accuracy"].interval)
    assert width == pytest.approx(2 * 1.96 * per_image.std() / 160**0.5, rel=0.2)  # equal images: a mean


def test_refusals() -> None:
    with pytest.raises(DataError, match=r"\(B, 3, H, W\)"):
        snap_labels(torch.zeros(1, 1, 4, 4))
    with pytest.raises(DataError, match="one shape"):
        confusion_matrices(torch.zeros(1, 4, 4), torch.zeros(1, 4, 5))
    ids = torch.zeros(2, 2, 2, dtype=torch.int64)
    with pytest.raises(DataError, match="image 1 has predicted class ids from 0 to 19"):
        confusion_matrices(ids, ids + torch.tensor([[[0, 0], [0, 0]], [[0, 19], [0, 0]]]))
    with pytest.raises(DataError, match="no pixel"):
        segmentation_scores(confusion_matrices(torch.full((1, 2, 2), IGNORED), torch.zeros(1, 2, 2)))
