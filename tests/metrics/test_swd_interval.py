"""The bootstrap of the sliced Wasserstein distance, and of means: exactness, width, and what it must not change."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from unpaired.metrics.descriptors import DescriptorStore
from unpaired.metrics.resampling import (
    ResampledSet,
    bootstrap_mean,
    centred_interval,
    drawn_counts,
    percentile_interval,
    resampled_wasserstein,
)
from unpaired.metrics.swd import swd_progan, swd_progan_interval

from unpaired.errors import DataError

PER_IMAGE = 16


def pictures(count: int, seed: int, contrast: float = 1.0) -> torch.Tensor:
    """Squares of several sizes and greys, in images of several contrasts."""
    rng = np.random.default_rng(seed)
    images = np.zeros((count, 3, 32, 32))
    for image in images:
        for _ in range(5):
            top, left = rng.integers(0, 24, 2)
            side = rng.integers(4, 16)
            image[:, top : top + side, left : left + side] = rng.uniform(-1, 1, (3, 1, 1))
        image *= rng.uniform(0.3, 1.0) * contrast
        image += 0.3 * (contrast - 1.0) * rng.standard_normal((1, 32, 32))
    return torch.from_numpy(images)


# --- one direction ---


def plain(numbers: np.ndarray, counts: np.ndarray, gain: float, offset: float) -> np.ndarray:
    drawn = np.repeat(numbers.reshape(len(counts), -1), counts, axis=0)
    return np.sort((drawn.ravel() - offset) / gain)


@pytest.mark.parametrize(("n", "m"), [(12, 12), (7, 19)])
def test_replicates_equal_those_of_resampled_and_sorted_numbers(n: int, m: int) -> None:
    rng = np.random.default_rng(n)
    numbers = [rng.standard_normal(count * 200) * rng.standard_normal(count * 200) for count in (n, m)]
    numbers[1] = numbers[1] + 0.2
    counts = [drawn_counts(count, 12, rng) for count in (n, m)]
    gains, offsets = rng.uniform(0.8, 1.2, (2, 12)), rng.uniform(-0.1, 0.1, (2, 12))
    sets = [ResampledSet(c.astype(float), o[:, None], g) for c, g, o in zip(counts, gains, offsets, strict=True)]
    ours = resampled_wasserstein((sets[0], sets[1]), (numbers[0], numbers[1]), np.ones(1))
    for index in range(12):
        a, b = (plain(numbers[k], counts[k][index], gains[k, index], offsets[k, index]) for k in (0, 1))
        expected = np.abs(np.repeat(a, m) - np.repeat(b, n)).mean()
        assert ours[index] == pytest.approx(expected, abs=0.004)  # of numbers with a deviation of 1


def test_atoms_and_constants_are_no_trouble() -> None:
    counts = drawn_counts(5, 3, np.random.default_rng(0)).astype(float)
    still = ResampledSet(counts, np.zeros((3, 1)), np.ones(3))
    zeros, ones = np.zeros(50), np.ones(50)
    assert resampled_wasserstein((still, still), (zeros, zeros), np.ones(1)).tolist() == [0.0, 0.0, 0.0]
    assert resampled_wasserstein((still, still), (zeros, ones), np.ones(1)) == pytest.approx(np.ones(3), abs=0.01)


def test_a_resample_is_normalised_as_if_it_were_the_set() -> None:
    """Gains and means from the images' moments equal the statistics of the repeated descriptors."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(6 * PER_IMAGE, 2 * 9, generator=generator) * torch.rand(6, 1, 1, generator=generator).expand(
        -1, PER_IMAGE, 1
    ).reshape(-1, 1)
    store = DescriptorStore(2, 9)
    store.append(rows[: 4 * PER_IMAGE])
    store.append(rows[4 * PER_IMAGE :])
    counts = drawn_counts(6, 5, np.random.default_rng(1))
    resampled = ResampledSet.from_moments(counts, *(moment.numpy() for moment in store.moments(PER_IMAGE)))
    mean, deviation = store.statistics()
    normalised = (rows.double().view(-1, 2, 9) - mean[:, None]) / deviation[:, None]
    for index, count in enumerate(counts):
        again = normalised.view(6, -1, 2, 9)[np.repeat(np.arange(6), count)].transpose(0, 2).reshape(2, -1)
        assert resampled.means[index] == pytest.approx(again.mean(1).numpy())
        assert resampled.gains[index] ** 2 == pytest.approx(float(again.var(1, correction=0).mean()))


def test_moments_do_not_depend_on_blocks_or_the_temporary_file(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.randn(7 * PER_IMAGE, 12, generator=torch.Generator().manual_seed(0))
    plain_store, filed = DescriptorStore(3, 4), DescriptorStore(3, 4, memory_bytes=1)
    plain_store.append(rows)
    for part in rows.split(2 * PER_IMAGE):
        filed.append(part)
    expected = plain_store.moments(PER_IMAGE)
    monkeypatch.setattr("unpaired.metrics.descriptors._ROWS_PER_BLOCK", 10)  # cuts images in two
    for moment, reference in zip(filed.moments(PER_IMAGE), expected, strict=True):
        assert moment.shape == (7, 3)
        torch.testing.assert_close(moment, reference)


# --- the distance ---


def test_the_values_are_those_of_the_plain_call_and_the_interval_is_around_them() -> None:
    fake, real = pictures(12, 0, 1.3), pictures(10, 1)
    values, interval = swd_progan_interval([fake], [real], seed=3, resamples=30)
    assert values == swd_progan([fake], [real], seed=3)
    assert interval is not None
    assert interval[0] < values["mean"] < interval[1]
    assert swd_progan_interval([fake], [real], seed=3, resamples=30) == (values, interval)
    assert swd_progan_interval(fake.split(5), real.split(3), seed=3, resamples=30)[1] == pytest.approx(interval)
    assert swd_progan_interval([fake], [real], seed=3, resamples=0)[1] is None
    assert swd_progan_interval([fake[:3]], [real])[1] is None  # three images say nothing about their spread


def test_values_do_not_depend_on_the_number_of_threads() -> None:
    fake, real = pictures(9, 0, 1.3), pictures(7, 1)
    found = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(swd_progan_interval([fake], [real], resamples=20))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-12)
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-12)


@pytest.fixture
def _fewer_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unpaired.metrics.swd.DIRECTION_REPEATS", 1)
    monkeypatch.setattr("unpaired.metrics.swd.DIRECTIONS_PER_REPEAT", 48)
    monkeypatch.setattr("unpaired.metrics.swd.INTERVAL_DIRECTIONS", 16)


@pytest.mark.usefixtures("_fewer_directions")
def test_width_is_that_of_the_spread_over_new_sets() -> None:
    found = [
        swd_progan_interval([pictures(30, 10 * i, 1.5)], [pictures(30, 10 * i + 5)], seed=i, resamples=60)
        for i in range(14)
    ]
    truth = np.std([values["mean"] for values, _ in found], ddof=1)
    width = np.mean([interval[1] - interval[0] for _, interval in found if interval]) / (2 * 1.96)
    assert 0.6 < width / truth < 2.2  # 14 sets know their spread to a fifth; the interval tends to be too wide


@pytest.mark.usefixtures("_fewer_directions")
def test_interval_narrows_with_more_images() -> None:
    few, many = (swd_progan_interval([pictures(n, 0, 1.3)], [pictures(n, 1)], resamples=60)[1] for n in (10, 90))
    assert few is not None
    assert many is not None
    assert many[1] - many[0] < 0.6 * (few[1] - few[0])


# --- means and intervals ---


def test_bootstrap_mean_has_the_width_of_the_standard_error() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, 200)
    low, high = bootstrap_mean(values.tolist(), seed=1)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 200**0.5, rel=0.15)
    assert bootstrap_mean(values.tolist(), seed=1) == (low, high)
    assert bootstrap_mean(values.tolist(), seed=2) != (low, high)


def test_bootstrap_mean_takes_infinite_values_and_refuses_nonsense() -> None:
    low, high = bootstrap_mean([30.0] * 20 + [math.inf])
    assert (low, high) == (30.0, math.inf)
    assert bootstrap_mean([math.inf, math.inf]) == (math.inf, math.inf)
    with pytest.raises(DataError, match="at least 2 values, not 1"):
        bootstrap_mean([1.0])
    with pytest.raises(DataError, match="value 1 is not a number"):
        bootstrap_mean([1.0, math.nan])


def test_draws_are_as_many_as_there_are_images_and_alike() -> None:
    counts = drawn_counts(30, 400, np.random.default_rng(0))
    assert (counts.sum(1) == 30).all()
    assert counts.mean(0) == pytest.approx(np.ones(30), abs=0.25)
    assert counts.var() == pytest.approx(1.0 - 1.0 / 30, rel=0.1)


def test_intervals() -> None:
    replicates = np.arange(1001.0)
    assert percentile_interval(replicates) == (25.0, 975.0)
    assert centred_interval(replicates, 0.0) == (-475.0, 475.0)
