"""Equal pictures, exactly by their pixels, and similar ones, by a small hash of how they look."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import numpy as np

from unpaired.preparation.facts import ImageFacts

_COLOUR_LEVELS = 12.0
"""Mean difference of two pictures at 8 x 8 pixels, in levels of 255, above which they are not called similar."""
_ROWS = 512
"""Of the matrix of distances that are computed at a time."""


def equal_pictures(facts: Mapping[str, ImageFacts]) -> list[list[str]]:
    """Groups of paths whose pixels are all equal, each sorted, in the order of their first."""
    groups: dict[bytes, list[str]] = {}
    for path in sorted(facts):
        groups.setdefault(facts[path].digest, []).append(path)
    return [group for group in groups.values() if len(group) > 1]


def similar_pictures(facts: Mapping[str, ImageFacts], threshold: int) -> list[tuple[str, str]]:
    """Pairs of paths whose pictures look alike and are not equal.

    Alike: at most ``threshold`` of the 64 bits of the two hashes differ, and the colours at 8 x 8 pixels are near.
    Scaled, recompressed and slightly changed copies are; so may be pictures that are merely simple.

    The search is exact: if at most t bits differ, one of t + 1 parts of the hash is equal, and only such pairs are
    compared.
    """
    paths = sorted(facts)
    if threshold < 0 or len(paths) < 2:
        return []
    looks = np.frombuffer(b"".join(facts[path].look for path in paths), ">u8").astype(np.uint64)
    digests = np.array([hash(facts[path].digest) for path in paths])
    colours = np.frombuffer(b"".join(facts[path].colours for path in paths), np.uint8).reshape(len(paths), -1)
    found: set[tuple[int, int]] = set()
    edges = np.linspace(0, 64, threshold + 2).astype(int)
    for low, high in itertools.pairwise(edges):
        part = (looks >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        for bucket in _buckets(part):
            found.update(_alike(bucket, looks, digests, colours, threshold))
    return [(paths[i], paths[j]) for i, j in sorted(found)]


def _buckets(keys: np.ndarray) -> Iterator[np.ndarray]:
    """Positions of equal keys, where there are at least two."""
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order])) + 1
    yield from (bucket for bucket in np.split(order, starts) if len(bucket) > 1)


def _alike(
    bucket: np.ndarray, looks: np.ndarray, digests: np.ndarray, colours: np.ndarray, threshold: int
) -> Iterator[tuple[int, int]]:
    for begin in range(0, len(bucket), _ROWS):
        rows = bucket[begin : begin + _ROWS]
        near = _bits(looks[rows, None] ^ looks[None, bucket]) <= threshold
        near &= (rows[:, None] < bucket[None]) & (digests[rows, None] != digests[None, bucket])
        a, b = np.nonzero(near)
        first, second = rows[a], bucket[b]
        for i, j in zip(first.tolist(), second.tolist(), strict=True):
            if np.abs(colours[i].astype(np.int16) - colours[j]).mean() <= _COLOUR_LEVELS:
                yield i, j


def _bits(x: np.ndarray) -> np.ndarray:
    """How many bits of each uint64 are set.

    >>> _bits(np.array([0, 1, 255, 2**64 - 1], dtype=np.uint64)).tolist()
    [0, 1, 8, 64]
    """
    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (x * np.uint64(0x0101010101010101)) >> np.uint64(56)
