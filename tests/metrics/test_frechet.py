"""The Frechet distance against scipy's matrix square root, torchmetrics, and known cases."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from unpaired.metrics import frechet as module
from unpaired.metrics.frechet import frechet_distance

from unpaired.errors import DataError


def features(count: int, width: int, seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(
        rng.standard_normal((count, width)) @ rng.standard_normal((width, width)) + rng.random(width)
    )


@pytest.mark.parametrize(("n", "m"), [(60, 80), (60, 60), (9, 70)])
def test_equals_the_definition_with_a_matrix_square_root(n: int, m: int) -> None:
    linalg = pytest.importorskip("scipy.linalg", reason="scipy is not installed")
    fake, real = features(n, 16, 0), features(m, 16, 1)
    a, b = fake.numpy(), real.numpy()
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = linalg.sqrtm(cov_a)
    inner = linalg.sqrtm(root @ cov_b @ root)
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(cov_a + cov_b - 2.0 * np.real(inner))
    # sqrtm loses half of the digits where a covariance has no full rank (9 images).
    assert frechet_distance(fake, real).value == pytest.approx(expected, rel=1e-9 if n > 16 else 1e-5)


def test_agrees_with_torchmetrics() -> None:
    fid = pytest.importorskip("torchmetrics.image.fid", reason="torchmetrics is not installed")
    fake, real = features(90, 12, 0), features(70, 12, 1)
    expected = float(fid._compute_fid(fake.mean(0), torch.cov(fake.T), real.mean(0), torch.cov(real.T)))
    assert frechet_distance(fake, real).value == pytest.approx(expected, rel=1e-8)


def test_known_gaussians() -> None:
    """Axis-aligned: |shift|^2 + sum (sigma_f - sigma_r)^2."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 3))
    x = (x - x.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T  # covariance: identity
    fake, real = torch.from_numpy(2.0 * x + np.array([1.0, 0.0, 0.0])), torch.from_numpy(x)
    found = frechet_distance(fake, real)
    assert found.means == pytest.approx(1.0)
    assert found.covariances == pytest.approx(3.0)
    assert found.value == found.means + found.covariances


@pytest.mark.parametrize(("n", "m", "width"), [(12, 20, 40), (50, 50, 8), (30, 12, 20)])
def test_symmetric_zero_for_itself_and_blind_to_order_and_rotation(n: int, m: int, width: int) -> None:
    fake, real = features(n, width, 0), features(m, width, 1)
    value = frechet_distance(fake, real).value
    assert value > 0.0
    assert frechet_distance(real, fake).value == pytest.approx(value, rel=1e-9)
    assert frechet_distance(fake, fake.flip(0)).value == pytest.approx(0.0, abs=1e-9 * float(fake.square().sum()))
    rotation = torch.linalg.qr(torch.from_numpy(np.random.default_rng(2).standard_normal((width, width)))).Q
    assert frechet_distance(fake @ rotation, real @ rotation).value == pytest.approx(value, rel=1e-9)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fake, real = features(70, 9, 0), features(33, 9, 1)
    whole = frechet_distance(fake, real)
    monkeypatch.setattr(module, "_BLOCK_ROWS", 5)
    pieces = frechet_distance(fake, real)
    assert (pieces.value, pieces.means) == pytest.approx((whole.value, whole.means), rel=1e-10)


def test_few_images_with_many_features_are_quick_and_need_no_covariance() -> None:
    fake, real = (torch.randn(120, 2048, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    start = time.process_time()
    assert frechet_distance(fake, real).value > 0.0
    assert time.process_time() - start < 2.0  # 2048 x 2048 matrices would take longer


def test_refusals() -> None:
    good = features(6, 5, 0)
    with pytest.raises(DataError, match=r"at least 2 images in each set .* there is 1 fake"):
        frechet_distance(good[:1], good)
    with pytest.raises(DataError, match="5 features of a fake image, 3 of a real one"):
        frechet_distance(good, good[:, :3])
    broken = good.clone()
    broken[2, 0] = float("nan")
    with pytest.raises(DataError, match="fake image 2 has features that are not finite"):
        frechet_distance(broken, good)
    with pytest.raises(DataError, match=r"\(images, features\)"):
        frechet_distance(good, good[0])
