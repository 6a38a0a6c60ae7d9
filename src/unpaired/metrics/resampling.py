"""Bootstrap over images: counts of draws, intervals of the replicates, and replicates of a 1-D Wasserstein distance.

The image is the unit that is drawn, never a patch or a pixel: those of one image are not independent.
Shapes: R resamples, I images of a set, N numbers of a set (the same number for every image, images in order).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from unpaired.errors import DataError

CONFIDENCE = 0.95
FEWEST_IMAGES = 4
"""Fewer images than this say nothing about their spread."""
_FINE_BINS = 1 << 14
_CELLS = 512


def drawn_counts(images: int, resamples: int, generator: np.random.Generator) -> np.ndarray:
    """How often each image is drawn in each resample, with replacement: (R, I), every row sums to ``images``."""
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


@dataclasses.dataclass(frozen=True)
class ResampledSet:
    """Resamples of a set of descriptors that is normalised per channel: what they change in a projection of it.

    A resample repeats the descriptors of some images, leaves out others, and is then normalised anew, as another set
    of images would be. Its gain is common to the channels, so that one projection per direction serves all resamples.
    """

    counts: np.ndarray
    """(R, I), see ``drawn_counts``; float64."""
    means: np.ndarray
    """Mean of each channel in each resample, (R, C)."""
    gains: np.ndarray
    """Root of the mean variance of the channels in each resample, (R,)."""

    @classmethod
    def from_moments(cls, counts: np.ndarray, means_IC: np.ndarray, squares_IC: np.ndarray) -> ResampledSet:
        """From each image's mean and mean square per channel, after the set's own normalisation."""
        weights = counts.astype(np.float64)
        means = weights @ means_IC / len(means_IC)
        variances = weights @ squares_IC / len(means_IC) - means**2
        gains = np.sqrt(np.maximum(variances, 0.0).mean(1))
        return cls(weights, means, np.where(gains > 0.0, gains, 1.0))

    def distribution_at(
        self, points: np.ndarray, edges: np.ndarray, cells_N: np.ndarray, direction_sums_C: np.ndarray
    ) -> np.ndarray:
        """Distribution function of a projection in each resample: (R, number of points).

        Args:
            points: Where it is wanted, ascending.
            edges: Ascending edges of cells; between them the function is taken to rise evenly.
            cells_N: Cell of each projected descriptor of the set, before the resample's normalisation.
            direction_sums_C: The direction's components, added up per channel.
        """
        images, cells = self.counts.shape[1], len(edges) - 1
        place = np.arange(images)[:, None] * cells + cells_N.reshape(images, -1)
        histogram = np.bincount(place.ravel(), minlength=images * cells).reshape(images, cells)
        # By torch, which keeps to the number of threads that it was given.
        per_cell = torch.from_numpy(self.counts).double() @ torch.from_numpy(histogram).double()
        below = np.zeros((len(per_cell), cells + 1))
        np.cumsum(per_cell.numpy() / len(cells_N), axis=1, out=below[:, 1:])
        moved = points * self.gains[:, None] + (self.means @ direction_sums_C)[:, None]
        return np.stack([np.interp(at, edges, row, left=0.0, right=1.0) for at, row in zip(moved, below, strict=True)])


def resampled_wasserstein(
    sets: tuple[ResampledSet, ResampledSet], numbers: tuple[np.ndarray, np.ndarray], direction_sums_C: np.ndarray
) -> np.ndarray:
    """Wasserstein-1 distance of two resampled sets along one direction: the integral of |F_r - G_r|, (R,).

    The integral is a sum over some 512 cells, narrow where the numbers are many. All resamples then cost one matrix
    product, and nothing is sorted. The replicates differ from those of the exact sum by about 0.3 % of their spread.

    Args:
        sets: The two sets.
        numbers: Their projected descriptors, images in order; the sets need not be of one size.
        direction_sums_C: See ``ResampledSet.distribution_at``.
    """
    lowest = min(part.min() for part in numbers)
    extent = max(part.max() for part in numbers) - lowest
    if extent == 0.0:
        return np.zeros(len(sets[0].counts))
    bins = [np.minimum((part - lowest) * (_FINE_BINS / extent), _FINE_BINS - 1).astype(np.int64) for part in numbers]
    # Half of the cells share the numbers out evenly, half the extent: cells end where this rises by a whole number.
    per_bin = sum(np.bincount(part, minlength=_FINE_BINS) for part in bins)
    rank = np.cumsum(per_bin / np.sum(per_bin) + 1.0 / _FINE_BINS) * (_CELLS / 2)
    last = np.append(np.diff(np.floor(rank)) > 0, True)
    cell_of_bin = np.cumsum(last) - last
    edges = lowest + extent / _FINE_BINS * np.append(0, np.flatnonzero(last) + 1)
    tail = np.linspace(0.0, 0.1 * extent, 17)[1:]  # gains under 1 carry numbers beyond the ends
    points = np.concatenate([edges[0] - tail[::-1], edges, edges[-1] + tail])
    first, second = (
        one.distribution_at(points, edges, cell_of_bin[part], direction_sums_C)
        for one, part in zip(sets, bins, strict=True)
    )
    gap = np.abs(first - second)
    return (gap[:, 1:] + gap[:, :-1]) @ np.diff(points) / 2
