"""Paired scores: values worked out by hand, a loop reference for SSIM, and refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from unpaired.errors import DataError
from unpaired.evaluation import change_where_kept, paired_l1, paired_psnr, paired_ssim
from unpaired.evaluation.metrics.collapse import mean_change_levels
from unpaired.evaluation.metrics.content import lab_colours, structure_distance
from unpaired.evaluation.metrics.segmentation import label_map_fit, snap_labels
from unpaired.evaluation.metrics.unchanged import blank_paper


def test_l1_is_on_the_minus_one_to_one_scale_and_per_image() -> None:
    truth = torch.zeros(3, 3, 4, 4)
    fake = truth.clone()
    fake[1] += 0.5
    fake[2, 0] -= 0.3
    assert paired_l1(fake, truth) == pytest.approx([0.0, 0.5, 0.1])
    assert paired_l1(torch.ones(1, 1, 2, 2), -torch.ones(1, 1, 2, 2)) == [2.0]


def test_psnr_of_a_known_error_equals_that_of_the_8_bit_images() -> None:
    truth = torch.zeros(2, 3, 8, 8, dtype=torch.float64)
    values = paired_psnr(truth + 0.2, truth)
    assert values == pytest.approx([20.0, 20.0])  # 10 log10(4 / 0.04)
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (2, 1, 3, 12, 12)).astype(np.float64)
    in_bytes = 10 * math.log10(255**2 / ((a - b) ** 2).mean())
    assert paired_psnr(torch.from_numpy(a / 127.5 - 1), torch.from_numpy(b / 127.5 - 1)) == pytest.approx([in_bytes])
    assert paired_psnr(truth, truth) == [math.inf, math.inf]


def loop_ssim(a: np.ndarray, b: np.ndarray, data_range: float) -> float:
    offset = np.arange(11) - 5
    taps = np.exp(-(offset**2) / (2 * 1.5**2))
    window = np.outer(taps, taps)
    window /= window.sum()
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    values = []
    for x, y in zip(a, b, strict=True):
        for top in range(x.shape[0] - 10):
            for left in range(x.shape[1] - 10):
                p, q = x[top : top + 11, left : left + 11], y[top : top + 11, left : left + 11]
                mp, mq = (window * p).sum(), (window * q).sum()
                vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
                cov = (window * (p - mp) * (q - mq)).sum()
                values.append((2 * mp * mq + c1) * (2 * cov + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    return float(np.mean(values))


def test_ssim_equals_the_loop_reference() -> None:
    rng = np.random.default_rng(1)
    a = rng.uniform(-1, 1, (2, 3, 14, 17))
    b = np.clip(a + rng.normal(0, 0.4, a.shape), -1, 1)
    expected = [loop_ssim((x + 1) * 127.5, (y + 1) * 127.5, 255.0) for x, y in zip(a, b, strict=True)]
    assert paired_ssim(torch.from_numpy(a), torch.from_numpy(b)) == pytest.approx(expected, rel=1e-9)


def test_ssim_limits() -> None:
    image = torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    assert paired_ssim(image, image) == pytest.approx([1.0, 1.0], abs=1e-12)
    assert max(paired_ssim(-image, image)) < 0.0
    # constants 0.5 and 0.25 of [0, 1]: only the luminance term is left, (2 m n + c1) / (m^2 + n^2 + c1), c1 = 0.01^2
    flat = paired_ssim(torch.full((1, 1, 11, 11), 0.0), torch.full((1, 1, 11, 11), -0.5))
    assert flat == pytest.approx([(0.25 + 1e-4) / (0.3125 + 1e-4)], rel=1e-9)


NONE = torch.zeros(0, 3, 16, 16)
WITHOUT_IMAGES: list[Callable[[], Any]] = [
    lambda: paired_l1(NONE, NONE),
    lambda: paired_psnr(NONE, NONE),
    lambda: paired_ssim(NONE, NONE),
    lambda: structure_distance(NONE, NONE),
    lambda: mean_change_levels(NONE, NONE),
    lambda: change_where_kept(NONE, NONE, NONE[:, 0]).colour,
    lambda: label_map_fit(NONE),
    lambda: lab_colours(NONE).tolist(),
    lambda: blank_paper(NONE).tolist(),
    lambda: snap_labels(NONE).tolist(),
]


@pytest.mark.parametrize("score", WITHOUT_IMAGES)
def test_no_images_have_no_scores(score: Callable[[], Any]) -> None:
    assert score() == []


@pytest.mark.parametrize("score", [paired_l1, paired_psnr, paired_ssim])
def test_refusals(score) -> None:
    image = torch.zeros(1, 3, 16, 16)
    with pytest.raises(DataError, match="one shape"):
        score(image, image[:, :, :8])
    with pytest.raises(DataError, match="fake image 0 has values that are not finite"):
        score(image * float("nan"), image)
    with pytest.raises(DataError, match="at least 11 px"):
        paired_ssim(image[..., :10], image[..., :10])
