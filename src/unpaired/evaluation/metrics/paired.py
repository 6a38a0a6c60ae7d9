"""Scores of a translation against its true partner: images (B, C, H, W), float in [-1, 1], in; one float per image out.

All arithmetic is float64. The absolute error stays on the [-1, 1] scale (127.5 times smaller than on 0..255). PSNR and
SSIM equal those of the same images on 0..255 with data range 255; for SSIM that means mapping to [0, 1] first, because
its luminance term compares mean intensities and has no meaning where those change sign. torchmetrics' SSIM differs by
3e-4 at 256 px and takes seven times as long in float64, so it is not used.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from unpaired.errors import DataError
from unpaired.evaluation.intervals import Interval, mean_interval
from unpaired.evaluation.registry import ImageSets, Score, Which, checked, metric

DATA_RANGE = 2.0
SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
PER_IMAGE = "mean over images"
NOT_NEGATIVE = (0.0, math.inf)


def mean_score(values: list[float], sets: ImageSets, bounds: Interval = NOT_NEGATIVE) -> Score:
    """The mean of one value per image, with its interval, cut to ``bounds``, which such values cannot leave."""
    interval = None
    if sets.intervals and len(values) > 1:
        low, high = mean_interval(values)
        interval = max(low, bounds[0]), min(high, bounds[1])
    return Score(sum(values) / len(values), interval=interval, per_image=values)


def pairwise(
    function: Callable[[Tensor, Tensor], list[float]], against: Which, sets: ImageSets, bounds: Interval = NOT_NEGATIVE
) -> Score:
    """The mean over pairs of a made image and its partner."""
    return mean_score([value for pair in sets.pairs("fake", against) for value in function(*pair)], sets, bounds)


def paired_l1(fake_BCHW: Tensor, truth_BCHW: Tensor) -> list[float]:
    """Mean absolute error of each image, on the [-1, 1] scale: 0 is best, 2 (black for white) is worst.

    >>> paired_l1(torch.ones(1, 3, 2, 2), -torch.ones(1, 3, 2, 2))
    [2.0]

    Raises:
        DataError: shapes differ, or values are not finite (as for all three scores).
    """
    fake, truth = checked("paired scores", fake=fake_BCHW, truth=truth_BCHW)
    return (fake - truth).abs().flatten(1).mean(1).tolist()


def paired_psnr(fake_BCHW: Tensor, truth_BCHW: Tensor) -> list[float]:
    """Peak signal-to-noise ratio of each image in dB, peak = data range 2; infinite for identical images."""
    fake, truth = checked("paired scores", fake=fake_BCHW, truth=truth_BCHW)
    squared_error = (fake - truth).square().flatten(1).mean(1)
    return [10.0 * math.log10(DATA_RANGE**2 / error) if error > 0 else math.inf for error in squared_error.tolist()]


def paired_ssim(fake_BCHW: Tensor, truth_BCHW: Tensor) -> list[float]:
    """Structural similarity of each image: Wang et al. 2004, 11 x 11 Gaussian window of sigma 1.5, K = 0.01 and 0.03.

    Images are mapped from [-1, 1] to [0, 1] first (data range 1), the intensities that the formula is made for. Windows
    lie wholly inside the image (no padding), moments are weighted by the window, and the map is averaged over pixels
    and channels; scikit-image gives the same with ``gaussian_weights=True, use_sample_covariance=False``.

    Raises:
        DataError: also if an image side is under 11 px.
    """
    fake, truth = checked("paired scores", fake=fake_BCHW, truth=truth_BCHW)
    fake, truth = (fake + 1.0) / DATA_RANGE, (truth + 1.0) / DATA_RANGE
    batch, channels, height, width = fake.shape
    if min(height, width) < SSIM_WINDOW:
        raise DataError(f"SSIM needs images of at least {SSIM_WINDOW} px a side, not {width} x {height}")
    offset = torch.arange(SSIM_WINDOW, dtype=torch.float64, device=fake.device) - SSIM_WINDOW // 2
    taps = torch.exp(-(offset**2) / (2 * SSIM_SIGMA**2))
    taps = taps / taps.sum()

    def windowed(image: Tensor) -> Tensor:
        planes = image.reshape(batch * channels, 1, height, width)
        return F.conv2d(F.conv2d(planes, taps.view(1, 1, -1, 1)), taps.view(1, 1, 1, -1))

    mean_f, mean_t = windowed(fake), windowed(truth)
    variance_f = windowed(fake * fake) - mean_f**2
    variance_t = windowed(truth * truth) - mean_t**2
    covariance = windowed(fake * truth) - mean_f * mean_t
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_f * mean_t + c1) / (mean_f**2 + mean_t**2 + c1)
    structure = (2 * covariance + c2) / (variance_f + variance_t + c2)
    return (luminance * structure).unflatten(0, (batch, channels)).flatten(1).mean(1).tolist()


@metric(
    "paired_l1_pm1", "L1 to truth", "", "lower",
    f"mean absolute error to the paired truth on the [-1, 1] scale (0 to 2), {PER_IMAGE}", against="truth",
)  # fmt: skip
def _l1(sets: ImageSets, seed: int) -> Score:
    return pairwise(paired_l1, "truth", sets)


@metric(
    "paired_psnr_db", "PSNR to truth", "dB", "higher",
    f"peak signal-to-noise ratio to the paired truth, data range 2 ([-1, 1]), {PER_IMAGE}", against="truth",
)  # fmt: skip
def _psnr(sets: ImageSets, seed: int) -> Score:
    return pairwise(paired_psnr, "truth", sets, (-math.inf, math.inf))


@metric(
    "paired_ssim_gauss11", "SSIM to truth", "", "higher",
    "structural similarity to the paired truth (Wang et al. 2004): Gaussian 11 x 11 window, sigma 1.5, inside "
    f"the image only, intensities mapped to [0, 1], data range 1, per channel, {PER_IMAGE}", against="truth",
)  # fmt: skip
def _ssim(sets: ImageSets, seed: int) -> Score:
    return pairwise(paired_ssim, "truth", sets, (-1.0, 1.0))


@metric(
    "paired_st_lpips_alex", "ST-LPIPS to truth", "", "lower",
    f"shift-tolerant LPIPS (Ghildyal and Liu 2022, AlexNet, weights vST0.0) to the paired truth, {PER_IMAGE}",
    against="truth", networks=("st_lpips",),
)  # fmt: skip
def _st_lpips(sets: ImageSets, seed: int) -> Score:
    return pairwise(lambda a, b: sets.networks["st_lpips"](a, b).double().tolist(), "truth", sets)
