"""The kernel distance against loops from its definition, against the libraries of the field, and against sense."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from unpaired.metrics import kernel_distance as module
from unpaired.metrics.kernel_distance import kernel_distance, kid_over_subsets
from unpaired.metrics.resampling import drawn_counts

from unpaired.errors import ConfigError, DataError


def features(count: int, seed: int, shift: float = 0.0, width: int = 24) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    hidden = rng.standard_normal((count, 5))
    hidden[:, 0] += shift
    mixing = np.random.default_rng(99).standard_normal((5, width))
    return torch.from_numpy(np.maximum(hidden @ mixing + 0.5, 0.0))


def kernel(x: np.ndarray, y: np.ndarray) -> float:
    return float((x @ y / len(x) + 1.0) ** 3)


def loop_mmd(fake: np.ndarray, real: np.ndarray, drawn_f: list[int], drawn_r: list[int]) -> float:
    """Unbiased squared MMD of drawn images, number by number; a pair of one image with itself never counts."""

    def within(x: np.ndarray, drawn: list[int]) -> float:
        return float(np.mean([kernel(x[i], x[j]) for i in drawn for j in drawn if i != j]))

    across = float(np.mean([kernel(fake[i], real[j]) for i in drawn_f for j in drawn_r]))
    return within(fake, drawn_f) + within(real, drawn_r) - 2.0 * across


def test_value_equals_the_loop_reference() -> None:
    fake, real = features(7, 0, 1.0), features(5, 1)
    expected = loop_mmd(fake.numpy(), real.numpy(), list(range(7)), list(range(5)))
    assert kernel_distance(fake, real, resamples=0).value == pytest.approx(expected, rel=1e-12)


def test_resamples_equal_the_loop_reference() -> None:
    """The interval's replicates, image by image as they were drawn."""
    fake, real = features(6, 0, 1.0), features(8, 1)
    rng = np.random.default_rng(3)
    counts_f, counts_r = drawn_counts(6, 4, rng), drawn_counts(8, 4, rng)
    ours = module._squared_mmd(fake, real, counts_f, counts_r)
    for index in range(4):
        drawn_f, drawn_r = (np.repeat(np.arange(c.shape[1]), c[index]).tolist() for c in (counts_f, counts_r))
        assert float(ours[index]) == pytest.approx(loop_mmd(fake.numpy(), real.numpy(), drawn_f, drawn_r), rel=1e-12)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fake, real = features(23, 0, 0.4), features(31, 1)
    whole = kernel_distance(fake, real, subsets=5, resamples=20)
    monkeypatch.setattr(module, "_BLOCK_ROWS", 7)
    pieces = kernel_distance(fake, real, subsets=5, resamples=20)
    assert pieces.value == pytest.approx(whole.value, rel=1e-11)
    assert pieces.interval == pytest.approx(whole.interval, rel=1e-11)
    assert pieces.spread == pytest.approx(whole.spread, rel=1e-11)


def test_agrees_with_torchmetrics() -> None:
    kid = pytest.importorskip("torchmetrics.image.kid", reason="torchmetrics is not installed")
    fake, real = features(40, 0, 0.7), features(40, 1)
    expected = float(kid.poly_mmd(real, fake))
    assert kernel_distance(fake, real, resamples=0).value == pytest.approx(expected, rel=1e-9)
    mean, spread = kid_over_subsets(fake, real, subsets=3, subset_size=40)
    assert mean == pytest.approx(expected, rel=1e-9)
    assert spread == pytest.approx(0.0, abs=1e-12)  # every subset is the whole set
    rng = np.random.default_rng([5, 0])
    values = []
    for _ in range(8):
        chosen = [x[rng.choice(40, 15, replace=False)] for x in (fake, real)]
        values.append(float(kid.poly_mmd(chosen[1], chosen[0])))
    ours = kid_over_subsets(fake, real, subsets=8, subset_size=15, seed=5)
    assert ours == pytest.approx((np.mean(values), np.std(values)), rel=1e-9)


def test_agrees_with_torch_fidelity() -> None:
    library = pytest.importorskip("torch_fidelity.metric_kid", reason="torch-fidelity is not installed")
    fake, real = features(60, 0, 0.7).float(), features(60, 1).float()
    known = library.kid_features_to_metric(fake, real, kid_subsets=60, kid_subset_size=30, verbose=False)
    mean, spread = kid_over_subsets(fake, real, subsets=60, subset_size=30)
    # Other subsets were drawn: equal up to the noise of 60 of them.
    assert mean == pytest.approx(known["kernel_inception_distance_mean"], abs=0.5 * spread)
    assert spread == pytest.approx(known["kernel_inception_distance_std"], rel=0.35)


def test_real_against_real_is_zero_on_average_and_a_shift_is_seen() -> None:
    values = [kernel_distance(features(60, i), features(80, 100 + i), subsets=2, resamples=0).value for i in range(30)]
    assert abs(np.mean(values)) < 3 * np.std(values) / 30**0.5
    assert min(values) < 0.0
    shifts = [kernel_distance(features(60, 0, s), features(80, 1), resamples=0).value for s in (0.0, 0.5, 1.0, 2.0)]
    assert shifts == sorted(shifts)


def test_interval_has_the_width_of_the_spread_over_new_sets() -> None:
    found = [
        kernel_distance(features(60, i, 2.0), features(60, 500 + i), subsets=2, resamples=200, seed=i)
        for i in range(40)
    ]
    truth = np.std([one.value for one in found], ddof=1)
    width = np.mean([one.interval[1] - one.interval[0] for one in found if one.interval]) / (2 * 1.96)
    assert 0.75 < width / truth < 1.4
    centre = np.mean([one.value for one in found])
    assert np.mean([one.interval[0] < centre < one.interval[1] for one in found if one.interval]) > 0.85


def test_interval_is_around_the_value() -> None:
    found = kernel_distance(features(30, 0), features(30, 1), resamples=100)
    assert found.interval is not None
    assert found.interval[0] < found.value < found.interval[1]
    assert kernel_distance(features(30, 0), features(30, 1), resamples=0).interval is None


def test_subsets_are_half_of_the_smaller_set_and_the_seed_changes_only_what_is_drawn() -> None:
    fake, real = features(30, 0, 1.0), features(44, 1)
    first, again, other = (kernel_distance(fake, real, subsets=9, resamples=9, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.subset_size == 15
    assert first.value == other.value
    assert first.interval != other.interval
    assert (first.subset_mean, first.spread) == kid_over_subsets(fake, real, subsets=9, subset_size=15, seed=1)
    assert first.subset_mean == pytest.approx(first.value, abs=3 * first.spread)


@given(st.integers(0, 10_000), st.integers(4, 12), st.integers(4, 12))
@settings(max_examples=15, deadline=None)
def test_symmetric_and_blind_to_the_order_of_images(seed: int, n: int, m: int) -> None:
    fake, real = features(n, seed, 1.0), features(m, seed + 1)
    value = kernel_distance(fake, real, subsets=1, resamples=0).value
    assert kernel_distance(real, fake, subsets=1, resamples=0).value == pytest.approx(value, rel=1e-9, abs=1e-12)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(n))
    shuffled = kernel_distance(fake[order], real, subsets=1, resamples=0).value
    assert shuffled == pytest.approx(value, rel=1e-9, abs=1e-12)


def test_refusals() -> None:
    good = features(6, 0)
    with pytest.raises(DataError, match="at least 4 images in each set, and there are 3 real"):
        kernel_distance(good, good[:3])
    with pytest.raises(DataError, match="there is 1 fake"):
        kernel_distance(good[:1], good)
    with pytest.raises(DataError, match="24 features of a fake image, 8 of a real one"):
        kernel_distance(good, good[:, :8])
    with pytest.raises(DataError, match=r"\(images, features\)"):
        kernel_distance(good[0], good)
    broken = good.clone()
    broken[4, 2] = float("inf")
    with pytest.raises(DataError, match="real image 4 has features that are not finite"):
        kernel_distance(good, broken)
    with pytest.raises(ConfigError, match="100 subsets of 7 images; give at least 1 subset of 2 to 6"):
        kernel_distance(good, good, subset_size=7)
