"""Intervals over images: how often they hold the truth, and what they refuse."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats

from unpaired.errors import DataError
from unpaired.evaluation import METRICS, ImageSets, Score, evaluate_images
from unpaired.evaluation.intervals import Interval, jackknife_interval, mean_interval, share_interval
from unpaired.evaluation.metrics.segmentation import NUM_CLASSES, segmentation_scores

TRIALS = 1500
Draw = Callable[[np.random.Generator, int], np.ndarray]


def coverage(one: Callable[[np.random.Generator], Interval], truth: float, trials: int = TRIALS) -> float:
    """Share of simulated sets whose interval holds the truth."""
    rng = np.random.default_rng(0)
    return float(np.mean([low <= truth <= high for low, high in (one(rng) for _ in range(trials))]))


@pytest.mark.parametrize("images", [2, 3, 4, 5, 10, 20])
@pytest.mark.parametrize(
    ("draw", "mean", "least"),
    [
        (lambda rng, n: rng.normal(30, 5, n), 30.0, 0.93),
        (lambda rng, n: rng.exponential(size=n), 1.0, 0.86),  # as errors are: never negative, a few large ones
        (lambda rng, n: rng.uniform(size=n), 0.5, 0.91),
    ],
    ids=["normal", "exponential", "uniform"],
)
def test_the_interval_of_a_mean_holds_it_with_few_images_too(
    images: int, draw: Draw, mean: float, least: float
) -> None:
    """A bootstrap by percentiles held the mean of 2, 3, 4, 5, 10, 20 normal ones in 0.49, 0.74, ... 0.92."""
    assert least < coverage(lambda rng: mean_interval(draw(rng, images).tolist()), mean) < 0.98


@pytest.mark.parametrize("images", [4, 5, 10, 20])
def test_the_interval_of_a_weighted_mean_holds_it(images: int) -> None:
    def one(rng: np.random.Generator) -> Interval:
        return mean_interval(rng.normal(30, 5, images).tolist(), rng.uniform(0.02, 1, images).tolist())

    assert 0.91 < coverage(one, 30.0) < 0.97


@pytest.mark.parametrize("images", [4, 5, 10, 20, 120])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.05, 0.2, 0.5, 1.0])
def test_the_interval_of_a_share_holds_it(images: int, share: float) -> None:
    """Exact, over all counts; a bootstrap had 0.62 at 0.05 of 20, where most sets have no such image."""
    held = [low <= share <= high for low, high in (share_interval(k, images) for k in range(images + 1))]
    assert stats.binom.pmf(np.flatnonzero(held), images, share).sum() > 0.83  # Wilson's least; 0.95 in the mean
    assert share_interval(images, images)[1] == 1.0


@pytest.mark.parametrize("images", [4, 10])
@pytest.mark.parametrize("part", ["mean_iou", "pixel_accuracy", "class_accuracy"])
def test_the_interval_of_a_segmenter_holds_its_score(part: str, images: int) -> None:
    """A bootstrap had 0.80 to 0.82 with 4 images."""

    def score(rng: np.random.Generator, count: int) -> Score:
        right = rng.beta(3, 2, (count, 4)) * rng.gamma(2, 500, (count, 4))
        wrong = rng.beta(2, 3, (count, 4)) * rng.gamma(2, 300, (count, 4))
        found = torch.zeros(count, NUM_CLASSES, NUM_CLASSES, dtype=torch.int64)
        for k in range(4):
            found[:, k, k], found[:, k, (k + 1) % 4] = (torch.from_numpy(x[:, k]).long() for x in (right, wrong))
        return segmentation_scores(found)[part]

    truth = score(np.random.default_rng(1), 20_000).value
    assert 0.9 < coverage(lambda rng: score(rng, images).interval or (0, 0), truth, 300) < 0.99


def test_the_interval_of_a_mean_is_students() -> None:
    values = np.random.default_rng(0).normal(30, 5, 7)
    expected = stats.t.interval(0.95, 6, values.mean(), stats.sem(values))
    assert mean_interval(values.tolist()) == pytest.approx(expected, rel=1e-12)
    assert mean_interval(values.tolist(), [0.3] * 7) == pytest.approx(expected, rel=1e-12)
    assert jackknife_interval(1.0, [1.0, 1.0]) == (1.0, 1.0)


def test_weights_count() -> None:
    low, high = mean_interval([1.0, 2.0, 3.0, 50.0], [1.0, 1.0, 1.0, 1e-9])
    assert low < 2 < high
    assert (low, high) == pytest.approx(mean_interval([1.0, 2.0, 3.0, 50.0], [10.0, 10.0, 10.0, 1e-8]))
    assert low > mean_interval([1.0, 2.0, 3.0])[0] - 2
    assert high < 6


def test_infinite_values_make_the_mean_infinite() -> None:
    assert mean_interval([math.inf, 30.0, 31.0]) == (math.inf, math.inf)
    assert mean_interval([math.inf, math.inf]) == (math.inf, math.inf)


@pytest.mark.parametrize(
    ("values", "weights"),
    [
        ([], None),
        ([1.0], None),
        ([1.0], [1.0]),
        ([1.0, math.nan], None),
        ([1.0, math.nan], [1.0, 1.0]),
        ([math.inf, -math.inf, 1.0], None),
        ([1.0, 2.0], [1.0, 0.0]),
        ([1.0, 2.0], [1.0, -1.0]),
        ([1.0, 2.0], [1.0, math.nan]),
        ([1.0, 2.0], [1.0, math.inf]),
        ([1.0, 2.0], [1.0]),
        ([1.0, 2.0], []),
        ([1.0, 2.0], [1.0, 1.0, 1.0]),
    ],
)
def test_what_has_no_interval_is_refused(values: list[float], weights: list[float] | None) -> None:
    with pytest.raises(DataError, match="an interval over images needs at least 2 values"):
        mean_interval(values, weights)


def test_rows_have_intervals_within_what_they_can_be() -> None:
    """Of four images that differ much, an interval of the mean error would begin below 0."""
    truth = [torch.full((3, 16, 16), 0.0)] * 4
    rng = np.random.default_rng(0)
    noise = [torch.from_numpy(rng.normal(size=(3, 16, 16)) * spread).clamp(-1, 1).float() for spread in (0, 0, 0, 0.5)]
    kept = [torch.ones(16, 16)] * 4
    names = ["paired_l1_pm1", "paired_ssim_gauss11", "unchanged_colour_masks_de", "identity_percent"]
    scores = evaluate_images(ImageSets(noise, truth, truth, truth, kept=kept), names)
    for name, (least, most) in zip(names, [(0, 2), (-1, 1), (0, math.inf), (0, 100)], strict=True):
        low, high = scores[name].interval or (math.nan, math.nan)
        assert least <= low < scores[name].value < high <= most, name
    assert scores["identity_percent"].per_image == [100.0, 100.0, 100.0, 0.0]
    one = evaluate_images(ImageSets(noise[:1], truth, truth[:1], truth[:1], kept=kept[:1]), names)
    assert all(score.interval is None for score in one.values())


def test_no_protocol_speaks_of_an_interval_that_is_not_part_of_it() -> None:
    """A protocol says what a value means; records under other words could not be compared."""
    assert not [name for name, row in METRICS.items() if "interval" in row.protocol and not name.startswith("kid_")]
