"""Intervals over images. The image is the unit, never a patch or a pixel: those are not independent."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from unpaired.errors import DataError

Interval = tuple[float, float]
CONFIDENCE = 0.95
FEWEST_IMAGES = 4
"""Distances between sets have no interval with fewer images."""


def jackknife_interval(value: float, without_each: Sequence[float] | np.ndarray) -> Interval:
    """95 % interval of a statistic of n images: Student's t with n - 1 degrees of freedom and the jackknife's error.

    For a mean this is Student's interval. Its ends may be values that the statistic cannot have.

    Args:
        value: The statistic of all images.
        without_each: (n,): the statistic of all images but one, n at least 2.
    """
    from scipy import stats  # slow, and training scores without intervals

    count, others = len(without_each), np.asarray(without_each, dtype=np.float64)
    error = math.sqrt((count - 1) / count * float(np.square(others - others.mean()).sum()))
    reach = float(stats.t.ppf(0.5 + CONFIDENCE / 2, count - 1)) * error
    return value - reach, value + reach


def mean_interval(values: Sequence[float], weights: Sequence[float] | None = None) -> Interval:
    """95 % interval of the (weighted) mean of one value per image.

    An infinite value (PSNR of equal images) makes the mean of any larger set infinite, too: both ends are infinite.

    >>> mean_interval([2.0, 2.0, 2.0])
    (2.0, 2.0)

    Raises:
        DataError: Fewer than two values, one or their mean is not a number, a weight is not positive, or there are more
            or fewer weights than values.
    """
    parts = [1.0] * len(values) if weights is None else weights
    numbers, shares = np.array(values, dtype=np.float64), np.array(parts, dtype=np.float64)
    infinite = set(numbers[np.isinf(numbers)].tolist())
    if (
        len(numbers) < 2
        or numbers.shape != shares.shape
        or np.isnan(numbers).any()
        or len(infinite) > 1
        or not (np.isfinite(shares) & (shares > 0)).all()
    ):
        raise DataError(
            "an interval over images needs at least 2 values that are numbers, and as many positive weights, not "
            f"{len(numbers)} values and {len(shares)} weights"
        )
    if infinite:
        (end,) = infinite
        return end, end
    total, whole = numbers @ shares, shares.sum()
    return jackknife_interval(float(total / whole), (total - numbers * shares) / (whole - shares))


def share_interval(count: int, images: int) -> Interval:
    """95 % interval of a share: Wilson's, which is right at 0 and 1 as well.

    >>> [round(end, 3) for end in share_interval(0, 20)]
    [0.0, 0.161]
    """
    from scipy import stats

    found = stats.binomtest(count, images).proportion_ci(CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)


def drawn_counts(images: int, resamples: int, generator: np.random.Generator) -> np.ndarray:
    """How often each image is drawn in each resample, with replacement: (resamples, images), rows sum to ``images``."""
    counts = np.empty((resamples, images), dtype=np.uint16)
    for row in counts:  # one by one: all draws of 1,000 resamples of 50,000 images would be 400 MB
        row[:] = np.bincount(generator.integers(images, size=images), minlength=images)
    return counts


def percentile_interval(replicates: np.ndarray) -> Interval:
    """Interval that holds the middle 95 % of the replicates; both ends are replicates, so infinite ones do no harm."""
    tail = (1.0 - CONFIDENCE) / 2
    low, high = np.quantile(replicates, [tail, 1.0 - tail], method="inverted_cdf")
    return float(low), float(high)
