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


def bootstrap_mean(
    values: Sequence[float], weights: Sequence[float] | None = None, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of the (weighted) mean of one value per image; images are drawn uniformly and keep their weights.

    Values may be infinite (PSNR of equal images).

    >>> bootstrap_mean([2.0, 2.0, 2.0])
    (2.0, 2.0)

    Raises:
        DataError: Fewer than two values, one is not a number, or a weight is not positive.
    """
    numbers = np.asarray(values, dtype=np.float64)
    parts = np.ones_like(numbers) if weights is None else np.asarray(weights, dtype=np.float64)
    if len(numbers) < 2 or np.isnan(numbers).any() or not (parts > 0).all():
        raise DataError("an interval over images needs at least 2 values that are numbers, and positive weights")
    generator = np.random.default_rng(seed)
    drawn = (generator.integers(len(numbers), size=len(numbers)) for _ in range(resamples))
    return percentile_interval(np.array([np.average(numbers[each], weights=parts[each]) for each in drawn]))
