"""Kernel distance between two sets of features (KID): unbiased squared maximum mean discrepancy, cubic kernel.

Binkowski, Sutherland, Arbel, Gretton, "Demystifying MMD GANs", ICLR 2018: k(x, y) = (x . y / D + 1)^3. Unbiased means
that two sets of one distribution score 0 on average, whatever their sizes; single values may then be negative. It is
a KID in the narrow sense only on the features of the Inception network: name a number after the network that made it.

Shapes: N made images, M real images, D features, R rows of weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from unpaired.errors import ConfigError
from unpaired.metrics.checks import check_features
from unpaired.metrics.resampling import FEWEST_IMAGES, centred_interval, drawn_counts

LARGEST_SUBSET = 1000
_BLOCK_ROWS = 2048  # a block of the kernel matrix is 32 MiB

_SUBSETS, _RESAMPLES = range(2)  # independent random streams of one seed


@dataclasses.dataclass(frozen=True)
class KernelDistance:
    """The distance and how far to trust it. Nothing is scaled; tables usually show 1000 times these numbers."""

    value: float
    """Unbiased squared MMD over all features."""
    interval: tuple[float, float] | None
    """95 % bootstrap interval over the images of both sets; ``None`` if no resamples were asked for."""
    spread: float
    """Standard deviation over random subsets, without replacement."""
    subset_mean: float
    """Mean over the same subsets."""
    subset_size: int
    """Images of each set in a subset."""


def kernel_distance(
    fake_ND: Tensor,
    real_MD: Tensor,
    *,
    subsets: int = 100,
    subset_size: int | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> KernelDistance:
    """Measure the kernel distance over all images, its spread over subsets and its interval over resamples.

    The interval: every resample draws both sets anew with replacement. A pair of an image with itself never counts,
    also where the image was drawn twice, so that repetition adds no bias. What is left is moved to the value (see
    ``centred_interval``). In simulations its width is right where the sets differ clearly (1.0 times the spread over
    new sets) and too wide where they hardly do, up to 1.75 times for two sets of one distribution, because a resample
    takes the noise of the sample for a difference. All resamples are weights on one kernel matrix, visited in blocks:
    1,000 of them cost as much as 1,000 more features, so that sets of any size are resampled in full.

    Args:
        fake_ND: Features of the made images, any float type; computed in float64 on their own device.
        real_MD: Features of the real images; their number may differ.
        subsets: Random subsets for ``spread``.
        subset_size: Images per subset and set; ``None`` takes half of the smaller set, at most 1,000. The whole set
            would make all subsets equal and the spread nothing.
        resamples: Of the interval; 0 leaves it out.
        seed: Chooses subsets and resamples; ``value`` depends on no seed.

    Raises:
        DataError: A set has fewer than 4 images, the widths differ, or a feature is not finite.
        ConfigError: ``subset_size`` is under 2 or over the smaller set, or ``subsets`` is under 1.
    """
    check_features("kernel distance", fake_ND, real_MD, FEWEST_IMAGES)
    if subset_size is None:
        subset_size = min(LARGEST_SUBSET, min(len(fake_ND), len(real_MD)) // 2)
    mean, spread = kid_over_subsets(fake_ND, real_MD, subsets=subsets, subset_size=subset_size, seed=seed)
    generator = np.random.default_rng([seed, _RESAMPLES])
    # Row 0 counts every image once: the value itself.
    fake_RN, real_RM = (
        np.concatenate([np.ones((1, len(x)), np.uint16), drawn_counts(len(x), resamples, generator)])
        for x in (fake_ND, real_MD)
    )
    value, *replicates = _squared_mmd(fake_ND, real_MD, fake_RN, real_RM).tolist()
    interval = centred_interval(np.array(replicates), value) if replicates else None
    return KernelDistance(value, interval, spread, mean, subset_size)


def kid_over_subsets(
    fake_ND: Tensor, real_MD: Tensor, *, subsets: int = 100, subset_size: int = LARGEST_SUBSET, seed: int = 0
) -> tuple[float, float]:
    """Mean and (population) standard deviation over random subsets: what torch-fidelity and torchmetrics report.

    Each subset takes ``subset_size`` images of either set without replacement. The mean estimates the same distance
    as ``kernel_distance(...).value``, from fewer pairs.

    Raises:
        DataError: As for ``kernel_distance``.
        ConfigError: ``subset_size`` is under 2 or over the smaller set, or ``subsets`` is under 1.
    """
    check_features("kernel distance", fake_ND, real_MD, FEWEST_IMAGES)
    smaller = min(len(fake_ND), len(real_MD))
    if not 2 <= subset_size <= smaller or subsets < 1:
        raise ConfigError(
            f"kernel distance: {subsets} subsets of {subset_size} images; give at least 1 subset of 2 to {smaller} "
            f"images (the sets have {len(fake_ND)} and {len(real_MD)})"
        )
    generator = np.random.default_rng([seed, _SUBSETS])
    once = np.ones((1, subset_size), np.uint16)
    values = []
    for _ in range(subsets):
        fake, real = (x[generator.choice(len(x), subset_size, replace=False)] for x in (fake_ND, real_MD))
        values.append(float(_squared_mmd(fake, real, once, once)))
    return float(np.mean(values)), float(np.std(values))


def _squared_mmd(fake_ND: Tensor, real_MD: Tensor, fake_RN: np.ndarray, real_RM: np.ndarray) -> Tensor:
    """Unbiased squared MMD for every row of weights: (R,), float64 on the CPU."""
    within = _mean_within(fake_ND, fake_RN) + _mean_within(real_MD, real_RM)
    return within - 2.0 * _mean_across(fake_ND, fake_RN, real_MD, real_RM)


def _blocks(features_ND: Tensor, weights_RN: np.ndarray) -> Iterator[tuple[int, Tensor, Tensor]]:
    """First image, features and weights of each block of images, in float64."""
    device = "cpu" if features_ND.device.type == "mps" else features_ND.device  # mps has no float64
    for start in range(0, len(features_ND), _BLOCK_ROWS):
        part = slice(start, start + _BLOCK_ROWS)
        weights = torch.from_numpy(weights_RN[:, part].astype(np.float64)).to(device)
        yield start, features_ND[part].detach().to(device).double(), weights


def _cubic_kernel(a_ND: Tensor, b_MD: Tensor) -> Tensor:
    inner = (a_ND @ b_MD.T).div_(a_ND.shape[1]).add_(1.0)
    return inner.square().mul_(inner)


def _mean_within(features_ND: Tensor, weights_RN: np.ndarray) -> Tensor:
    """Weighted mean of the kernel over all pairs of two different images of one set: (R,)."""
    total = torch.zeros(len(weights_RN), dtype=torch.float64)
    for start, a, weights_a in _blocks(features_ND, weights_RN):
        for other, b, weights_b in _blocks(features_ND, weights_RN):
            if other < start:
                continue  # the kernel is symmetric: the block (start, other) counts twice
            kernel = _cubic_kernel(a, b)
            if other == start:
                kernel.fill_diagonal_(0.0)
            total += (1.0 if other == start else 2.0) * ((weights_a @ kernel) * weights_b).sum(1).cpu()
    weights = weights_RN.astype(np.float64)
    return total / torch.from_numpy(weights.sum(1) ** 2 - (weights**2).sum(1))


def _mean_across(fake_ND: Tensor, fake_RN: np.ndarray, real_MD: Tensor, real_RM: np.ndarray) -> Tensor:
    """Weighted mean of the kernel over all pairs of a made and a real image: (R,)."""
    total = torch.zeros(len(fake_RN), dtype=torch.float64)
    for _, a, weights_a in _blocks(fake_ND, fake_RN):
        for _, b, weights_b in _blocks(real_MD, real_RM):
            total += ((weights_a @ _cubic_kernel(a, b)) * weights_b).sum(1).cpu()
    return total / torch.from_numpy(fake_RN.sum(1, dtype=np.float64) * real_RM.sum(1, dtype=np.float64))
