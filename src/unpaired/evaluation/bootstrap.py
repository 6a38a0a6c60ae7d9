"""Bootstrap over images. The image is the unit that is drawn, never a patch or a pixel: those are not independent."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unpaired.errors import DataError

CONFIDENCE = 0.95
FEWEST_IMAGES = 4
"""Fewer images than this say nothing about their spread."""


def drawn_counts(images: int, resamples: int, generator: np.random.Generator) -> np.ndarray:
    """How often each image is drawn in each resample, with replacement: (resamples, images), rows sum to ``images``."""
    counts = np.empty((resamples, images), dtype=np.uint16)
    for row in counts:  # one by one: all draws of 1,000 resamples of 50,000 images would be 400 MB
        row[:] = np.bincount(generator.integers(images, size=images), minlength=images)
    return counts


def percentile_interval(replicates: np.ndarray) -> tuple[float, float]:
    """Interval that holds the middle 95 % of the replicates; both ends are replicates, so infinite ones do no harm."""
    tail = (1.0 - CONFIDENCE) / 2
    low, high = np.quantile(replicates, [tail, 1.0 - tail], method="inverted_cdf")
    return float(low), float(high)


def centred_interval(replicates: np.ndarray, estimate: float) -> tuple[float, float]:
    """Percentile interval of the replicates after their mean is moved to ``estimate``.

    For a distance between two sets: a resample repeats images and leaves others out, which makes the sets differ more
    than they did. The replicates have the right spread around the wrong centre.
    """
    low, high = percentile_interval(replicates - np.mean(replicates))
    return estimate + low, estimate + high


def bootstrap_mean(values: Sequence[float], resamples: int = 1000, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean of one value per image. Values may be infinite (PSNR of equal images).

    >>> bootstrap_mean([2.0, 2.0, 2.0])
    (2.0, 2.0)

    Raises:
        DataError: Fewer than two values, or one is not a number.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if len(numbers) < 2:
        raise DataError(f"an interval over images needs at least 2 values, not {len(numbers)}")
    if np.isnan(numbers).any():
        raise DataError(f"an interval over images: value {int(np.isnan(numbers).argmax())} is not a number")
    generator = np.random.default_rng(seed)
    means = [numbers[generator.integers(len(numbers), size=len(numbers))].mean() for _ in range(resamples)]
    return percentile_interval(np.array(means))


def bootstrap_weighted_mean(
    values: Sequence[float], weights: Sequence[float], resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of the weighted mean of one value per image; an image is drawn with its weight.

    >>> bootstrap_weighted_mean([2.0, 2.0], [0.5, 1.0])
    (2.0, 2.0)

    Raises:
        DataError: Fewer than two values, one is not finite, or a weight is not positive.
    """
    numbers, parts = np.asarray(values, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    if len(numbers) < 2 or not np.isfinite(numbers).all() or not (parts > 0).all():
        raise DataError("a weighted interval over images needs at least 2 finite values and positive weights")
    counts = drawn_counts(len(numbers), resamples, np.random.default_rng(seed)).astype(np.float64)
    return percentile_interval((counts @ (numbers * parts)) / (counts @ parts))
