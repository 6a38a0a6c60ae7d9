"""The kernel and the Frechet distance against their definitions, the libraries of the field, and sense."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from torch_fidelity import metric_kid
from torchmetrics.image import fid, kid

from unpaired.errors import ConfigError, DataError
from unpaired.evaluation.intervals import drawn_counts
from unpaired.evaluation.metrics import distances as module
from unpaired.evaluation.metrics.distances import frechet_distance, kernel_distance
from unpaired.evaluation.registry import Score


def features(count: int, seed: int, shift: float = 0.0, width: int = 24) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    hidden = rng.standard_normal((count, 5))
    hidden[:, 0] += shift
    mixing = np.random.default_rng(99).standard_normal((5, width))
    return torch.from_numpy(np.maximum(hidden @ mixing + 0.5, 0.0))


def full_rank(count: int, seed: int, width: int = 12) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(
        rng.standard_normal((count, width)) @ rng.standard_normal((width, width)) + rng.random(width)
    )


def kernel_score(fake: torch.Tensor, real: torch.Tensor, **options: int) -> Score:
    return kernel_distance(fake, real, **options)[0]


# --- kernel distance ---


def test_values_of_resamples_equal_a_loop_over_drawn_images() -> None:
    """Number by number as they were drawn; a pair of one image with itself never counts. Row 0: every image once."""
    fake, real = features(6, 0, 1.0), features(8, 1)
    rng = np.random.default_rng(3)
    counts = [np.concatenate([np.ones((1, n), np.uint16), drawn_counts(n, 4, rng)]) for n in (6, 8)]
    found = module._squared_mmd(fake, real, *counts)

    def kernel(x: torch.Tensor, y: torch.Tensor) -> float:
        return float((x @ y / len(x) + 1.0) ** 3)

    for index in range(5):
        drawn_f, drawn_r = (np.repeat(np.arange(c.shape[1]), c[index]).tolist() for c in counts)
        within = [
            np.mean([kernel(x[i], x[j]) for i in drawn for j in drawn if i != j])
            for x, drawn in ((fake, drawn_f), (real, drawn_r))
        ]
        across = np.mean([kernel(fake[i], real[j]) for i in drawn_f for j in drawn_r])
        assert float(found[index]) == pytest.approx(sum(within) - 2 * across, rel=1e-12)
    assert kernel_score(fake, real, resamples=0).value == pytest.approx(float(found[0]), rel=1e-12)


def test_kernel_distance_agrees_with_torchmetrics() -> None:
    fake, real = features(40, 0, 0.7), features(40, 1)
    expected = float(kid.poly_mmd(real, fake))
    score, mean = kernel_distance(fake, real, subsets=3, subset_size=40)
    assert (score.value, mean) == pytest.approx((expected, expected), rel=1e-9)
    assert score.spread == pytest.approx(0.0, abs=1e-12)  # every subset is the whole set
    rng = np.random.default_rng([5, 0])
    values = []
    for _ in range(8):
        chosen = [x[rng.choice(40, 15, replace=False)] for x in (fake, real)]
        values.append(float(kid.poly_mmd(chosen[1], chosen[0])))
    score, mean = kernel_distance(fake, real, subsets=8, subset_size=15, seed=5, resamples=0)
    assert (mean, score.spread) == pytest.approx((np.mean(values), np.std(values)), rel=1e-9)


def test_kernel_distance_agrees_with_torch_fidelity() -> None:
    fake, real = features(60, 0, 0.7).float(), features(60, 1).float()
    known = metric_kid.kid_features_to_metric(fake, real, kid_subsets=60, kid_subset_size=30, verbose=False)
    score, mean = kernel_distance(fake, real, subsets=60, subset_size=30)
    assert score.spread is not None
    # Other subsets were drawn: equal up to the noise of 60 of them.
    assert mean == pytest.approx(known["kernel_inception_distance_mean"], abs=0.5 * score.spread)
    assert score.spread == pytest.approx(known["kernel_inception_distance_std"], rel=0.35)


def test_real_against_real_is_zero_on_average_and_a_shift_is_seen() -> None:
    values = [kernel_score(features(60, i), features(80, 100 + i), subsets=2, resamples=0).value for i in range(30)]
    assert abs(np.mean(values)) < 3 * np.std(values) / 30**0.5
    assert min(values) < 0.0
    shifts = [kernel_score(features(60, 0, s), features(80, 1), resamples=0).value for s in (0.0, 0.5, 1.0, 2.0)]
    assert shifts == sorted(shifts)


def test_kernel_interval_has_the_width_of_the_spread_over_new_sets() -> None:
    found = [
        kernel_score(features(60, i, 2.0), features(60, 500 + i), subsets=2, resamples=200, seed=i) for i in range(40)
    ]
    truth = np.std([one.value for one in found], ddof=1)
    intervals = np.array([one.interval for one in found])
    assert 0.75 < (intervals[:, 1] - intervals[:, 0]).mean() / (2 * 1.96) / truth < 1.4
    centre = np.mean([one.value for one in found])
    assert ((intervals[:, 0] < centre) & (centre < intervals[:, 1])).mean() > 0.85


def test_the_seed_changes_only_what_is_drawn() -> None:
    fake, real = features(30, 0, 1.0), features(44, 1)
    first, again, other = (kernel_distance(fake, real, subsets=9, resamples=9, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first[0].value == other[0].value
    assert first[0].interval != other[0].interval
    assert first == kernel_distance(fake, real, subsets=9, subset_size=15, resamples=9, seed=1)  # half of the smaller
    assert kernel_score(fake, real, resamples=0).interval is None


# --- Frechet distance ---


@pytest.mark.parametrize(("n", "m"), [(60, 80), (60, 60), (9, 70)])
def test_frechet_distance_equals_the_definition_with_a_matrix_square_root(n: int, m: int) -> None:
    fake, real = full_rank(n, 0, 16), full_rank(m, 1, 16)
    a, b = fake.numpy(), real.numpy()
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(cov_a)
    inner = scipy.linalg.sqrtm(root @ cov_b @ root)
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(cov_a + cov_b - 2.0 * np.real(inner))
    # sqrtm loses half of the digits where a covariance has no full rank (9 images).
    assert frechet_distance(fake, real) == pytest.approx(expected, rel=1e-9 if n > 16 else 1e-5)


def test_frechet_distance_agrees_with_torchmetrics() -> None:
    fake, real = full_rank(90, 0), full_rank(70, 1)
    expected = float(fid._compute_fid(fake.mean(0), torch.cov(fake.T), real.mean(0), torch.cov(real.T)))
    assert frechet_distance(fake, real) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(("n", "m", "width"), [(12, 20, 40), (50, 50, 8)])
def test_frechet_distance_is_symmetric_zero_for_itself_and_blind_to_order(n: int, m: int, width: int) -> None:
    fake, real = full_rank(n, 0, width), full_rank(m, 1, width)
    assert frechet_distance(real, fake) == pytest.approx(frechet_distance(fake, real), rel=1e-9)
    assert frechet_distance(fake, fake.flip(0)) == pytest.approx(0.0, abs=1e-9 * float(fake.square().sum()))


# --- both ---


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fake, real = features(23, 0, 0.4), features(31, 1)
    whole = kernel_score(fake, real, subsets=5, resamples=20), frechet_distance(fake, real)
    monkeypatch.setattr(module, "_BLOCK_ROWS", 7)
    pieces = kernel_score(fake, real, subsets=5, resamples=20), frechet_distance(fake, real)
    assert pieces[0].interval == pytest.approx(whole[0].interval, rel=1e-11)
    assert [pieces[0].value, pieces[0].spread, pieces[1]] == pytest.approx(
        [whole[0].value, whole[0].spread, whole[1]], rel=1e-10
    )


def test_refusals() -> None:
    good = features(6, 0)
    broken = good.clone()
    broken[4, 2] = float("inf")
    for fake, real, words in (
        (good, good[:3], "at least 4 images in each set, and there are 3 real"),
        (good[:1], good, "there is 1 fake"),
        (good, good[:, :8], "24 features of a fake image, 8 of a real one"),
        (good[0], good, r"\(images, features\)"),
        (good, broken, "real image 4 has features that are not finite"),
    ):
        with pytest.raises(DataError, match=words):
            kernel_distance(fake, real)
    with pytest.raises(ConfigError, match="100 subsets of 7 images; give at least 1 subset of 2 to 6"):
        kernel_distance(good, good, subset_size=7)
    with pytest.raises(DataError, match=r"at least 2 images in each set .* there is 1 fake"):
        frechet_distance(good[:1], good)
