"""Exact percentiles of all values of a set of images, per channel, in little memory: files are read once or twice."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from unpaired.data.pixels import Picture
from unpaired.errors import DataError

_BINS = 1 << 16

Images = Callable[[], Iterable[Picture]]
"""Starts again from the first image: (H, W, C) of uint8, uint16 or float32, C being the same for all."""


def set_percentiles(images: Images, percentiles: Sequence[float]) -> np.ndarray:
    """Percentiles over every pixel of every image that is data, for each channel.

    A percentile p is the smallest value that at least p percent of the values do not exceed (numpy's
    ``inverted_cdf``), so it is a value that occurs. Integers are counted in one pass. Floats are ordered by their bits:
    the first pass counts the upper 16, the second one the lower 16 of those that matter.

    Args:
        images: The set, not empty.
        percentiles: Each from 0 to 100.

    Returns:
        float64 (len(percentiles), C).
    """
    upper: np.ndarray | None = None
    floats = False
    for image in images():
        floats = image.values.dtype == np.float32
        if upper is None:
            upper = np.zeros((image.values.shape[2], _BINS), np.int64)
        for counts, plane in zip(upper, _planes(image, floats=floats), strict=True):
            counts += np.bincount(plane >> 16 if floats else plane, minlength=_BINS)
    if upper is None:
        raise ValueError("there is no image to take percentiles of")
    if not upper.any(1).all():
        raise DataError("every value of a channel is no data, so it has no percentiles; leave the channel out")
    ranks = [[max(1, math.ceil(count * p / 100)) for count in upper.sum(1)] for p in percentiles]
    bins = np.array([[np.searchsorted(c.cumsum(), rank) for c, rank in zip(upper, row, strict=True)] for row in ranks])
    if not floats:
        return bins.astype(np.float64)
    lower = np.zeros((*bins.shape, _BINS), np.int64)
    for image in images():
        planes = _planes(image, floats=True)
        for (which, channel), wanted in np.ndenumerate(bins):
            plane = planes[channel]
            lower[which, channel] += np.bincount(plane[plane >> 16 == wanted] & (_BINS - 1), minlength=_BINS)
    found = np.empty(bins.shape, np.uint32)
    for (which, channel), wanted in np.ndenumerate(bins):
        before = upper[channel, :wanted].sum()
        inside = int(np.searchsorted(lower[which, channel].cumsum(), ranks[which][channel] - before))
        found[which, channel] = (int(wanted) << 16) | inside
    return _floats(found).astype(np.float64)


def _planes(image: Picture, *, floats: bool) -> list[np.ndarray]:
    """The keys of each channel's values that are data, flat."""
    keys = _ordered(image.values) if floats else image.values
    hidden = image.invalid_for(keys.shape[2])
    if hidden is None:
        return [plane.reshape(-1) for plane in np.moveaxis(keys, 2, 0)]
    data = ~np.broadcast_to(hidden, keys.shape)
    return [keys[:, :, channel][data[:, :, channel]] for channel in range(keys.shape[2])]


def _ordered(floats: np.ndarray) -> np.ndarray:
    """Unsigned integers in the order of the floats: negative ones with all bits turned, others with the sign set."""
    bits = np.ascontiguousarray(floats).view(np.uint32)
    return np.where(bits >> 31 == 1, ~bits, bits | np.uint32(1 << 31))


def _floats(keys: np.ndarray) -> np.ndarray:
    """The inverse of ``_ordered``."""
    return np.where(keys >> 31 == 1, keys & np.uint32((1 << 31) - 1), ~keys).astype(np.uint32).view(np.float32)
