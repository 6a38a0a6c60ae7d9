"""Shares of votes, their intervals, and tests of significance, when the same raters judge the same images.

Votes of one rater resemble each other, and so do votes on one image, so the number of votes overstates what is known.
Everything here comes three ways: for the votes as if each stood alone, for raters or images as the units, and for
raters and images at once. docs/study.md says which to trust and shows the simulations behind it.

Shapes: V votes, K methods, G clusters (raters or images).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from unpaired.errors import BackendError

try:
    from scipy import stats
except ImportError as error:
    raise BackendError(
        "results of a study need the package 'scipy', which is not installed: pip install \"unpaired[study]\""
    ) from error

_ENUMERATED = 50_000  # tables of votes that the exact multinomial test goes through at most
_STATES = 5_000  # totals that the exact permutation test keeps at most
_DRAWS = 20_000
_RESAMPLES = 5_000
_CHUNK = 500

Interval = tuple[float, float]


@dataclass(frozen=True)
class Votes:
    """The votes on one question.

    Attributes:
        raters: (V,) int, who voted.
        images: (V,) int, on which image.
        choices: (V,) int in [0, methods), for which method. No two votes share rater and image.
        methods: K.
    """

    raters: np.ndarray
    images: np.ndarray
    choices: np.ndarray
    methods: int

    def __len__(self) -> int:
        return len(self.choices)

    @property
    def chosen_VK(self) -> np.ndarray:  # noqa: N802 - the suffix states the shape
        """(V, K) float64: 1 where the vote went to the method."""
        return np.eye(self.methods)[self.choices]

    def restricted(self, first: int, second: int) -> Votes:
        """Only the votes for two methods, which become 0 and 1."""
        kept = np.isin(self.choices, (first, second))
        return Votes(self.raters[kept], self.images[kept], (self.choices[kept] == second).astype(int), 2)


@dataclass(frozen=True)
class Share:
    """One method's share of the votes on one question, with 95 % intervals.

    Attributes:
        votes: For this method.
        share: In [0, 1].
        clustered: For other raters and other images; ``None`` with a single rater and a single image.
        wilson: As if every vote stood alone: too narrow as soon as raters or images differ.
        bootstrap: Raters drawn anew; ``None`` with a single rater. Far too narrow with few raters.
    """

    votes: int
    share: float
    clustered: Interval | None
    wilson: Interval
    bootstrap: Interval | None


@dataclass(frozen=True)
class Significance:
    """p-values of one hypothesis, two-sided; ``None`` where the votes cannot say.

    Attributes:
        clustered: Allows for raters and images that differ, and is never below ``raters`` or ``images``: the one to
            report. Few raters cannot make it small, however many their votes are.
        raters: The methods' names are dealt anew to each rater; holds for these images and no others.
        images: The methods' names are dealt anew to each image; holds for these raters and no others.
        votes: As if every vote stood alone.
    """

    clustered: float | None
    raters: float | None
    images: float | None
    votes: float


@dataclass(frozen=True)
class Comparison:
    """The method with the most votes against another one."""

    best: int
    other: int
    best_votes: int
    other_votes: int
    significance: Significance
    """After Holm's correction over all pairs of methods: the votes themselves chose which is best."""


def shares(votes: Votes, seed: int = 0) -> list[Share]:
    """Share and intervals of each method.

    >>> paper = Votes(np.arange(60), np.zeros(60, int), np.repeat([0, 1, 2, 3], [27, 17, 8, 8]), 4)
    >>> [f"{100 * found.share:.1f}" for found in shares(paper)]
    ['45.0', '28.3', '13.3', '13.3']
    """
    chosen_VK = votes.chosen_VK
    share_K = chosen_VK.mean(axis=0) if len(votes) else np.full(votes.methods, math.nan)
    clustered = _clustered_intervals(votes, share_K)
    bootstrap = _bootstrap_over_raters(votes, seed)
    return [
        Share(
            votes=int(chosen_VK[:, k].sum()),
            share=float(share_K[k]),
            clustered=clustered[k] if clustered else None,
            wilson=wilson(float(share_K[k]), len(votes)),
            bootstrap=bootstrap[k] if bootstrap else None,
        )
        for k in range(votes.methods)
    ]


def equal_shares(votes: Votes, seed: int = 0) -> Significance:
    """Test that every method has the same share.

    ``clustered`` is Pearson's statistic over the design effect (Rao and Scott), against an F distribution; ``votes`` is
    its exact multinomial probability where that can be enumerated, else chi-squared.
    """
    counts_K = votes.chosen_VK.sum(axis=0)
    return _significance(votes, _rao_scott(votes, pearson(counts_K)), multinomial(counts_K), seed)


def compare_best(votes: Votes, seed: int = 0) -> list[Comparison]:
    """Compare the method with the most votes (the first of them at a tie) with each other one.

    ``votes`` is the sign test, ``raters`` and ``images`` flip signs per rater or image, and ``clustered`` is a t test
    of the difference of shares.
    """
    if not len(votes):
        return []
    pairs = list(itertools.combinations(range(votes.methods), 2))
    found = [_compare(votes, first, second, seed) for first, second in pairs]
    corrected = dict(zip(pairs, _holm_each(found), strict=True))
    counts = np.bincount(votes.choices, minlength=votes.methods)
    best = int(counts.argmax())
    return [
        Comparison(best, k, int(counts[best]), int(counts[k]), corrected[min(best, k), max(best, k)])
        for k in range(votes.methods)
        if k != best
    ]


def wilson(share: float, votes: float, quantile: float | None = None) -> Interval:
    """Wilson's interval for a share of ``votes`` independent votes; everything when there are none."""
    if votes <= 0:
        return 0.0, 1.0
    z2 = (stats.norm.ppf(0.975) if quantile is None else quantile) ** 2
    centre = (share + z2 / (2 * votes)) / (1 + z2 / votes)
    half = math.sqrt(z2 * (share * (1 - share) / votes + z2 / (4 * votes**2))) / (1 + z2 / votes)
    return max(0.0, centre - half), min(1.0, centre + half)


def pearson(counts_K: np.ndarray) -> float:
    """Pearson's chi-squared of votes per method against equal numbers."""
    expected = counts_K.sum() / len(counts_K)
    return float(((counts_K - expected) ** 2).sum() / expected) if expected else 0.0


def multinomial(counts_K: np.ndarray) -> float:
    """p of Pearson's statistic for votes that stand alone: exact where few tables are possible, else chi-squared."""
    total, methods = int(counts_K.sum()), len(counts_K)
    if math.comb(total + methods - 1, methods - 1) > _ENUMERATED:
        return float(stats.chi2.sf(pearson(counts_K), methods - 1))
    tables_TK = np.array(list(_tables(total, methods)))
    squares_T = (tables_TK**2).sum(axis=1)  # rise with Pearson's statistic, and are whole numbers
    extreme_TK = tables_TK[squares_T >= (counts_K**2).sum()]
    return min(1.0, float(stats.multinomial.pmf(extreme_TK, total, np.full(methods, 1 / methods)).sum()))


def permutation(counts_GK: np.ndarray, seed: int = 0) -> float | None:
    """p of Pearson's statistic when each cluster's votes keep together but the methods' names are dealt anew to each.

    Exact where few totals are possible, else by drawing. ``None`` with fewer than two clusters.

    >>> permutation(np.array([[9, 1], [8, 2], [10, 0]]))  # three clusters that agree: 2 of 2 ** 3 ways
    0.25
    """
    clusters, methods = counts_GK.shape
    if clusters < 2:
        return None
    observed = int((counts_GK.sum(axis=0) ** 2).sum())  # as in ``multinomial``
    if math.comb(int(counts_GK.sum()) + methods - 1, methods - 1) <= _STATES:
        return _exact_permutation(counts_GK, observed)
    rng = np.random.default_rng(seed)
    extreme = 0
    for _ in range(_DRAWS // _CHUNK):
        dealt = rng.permuted(np.broadcast_to(counts_GK, (_CHUNK, clusters, methods)).copy(), axis=2)
        extreme += int(((dealt.sum(axis=1) ** 2).sum(axis=1) >= observed).sum())
    return (1 + extreme) / (1 + _DRAWS)


def holm(p: list[float]) -> list[float]:
    """Holm's correction of p-values that are tested together.

    >>> [round(x, 3) for x in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p)), key=p.__getitem__)
    corrected, largest = [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        corrected[i] = largest
    return corrected


def _tables(total: int, methods: int) -> Iterator[tuple[int, ...]]:
    """Every way to give ``total`` votes to so many methods."""
    if methods == 1:
        yield (total,)
        return
    for first in range(total + 1):
        for rest in _tables(total - first, methods - 1):
            yield (first, *rest)


def _exact_permutation(counts_GK: np.ndarray, observed: int) -> float:
    """Go through all totals, cluster by cluster; the first cluster may stay as it is, for names are arbitrary."""
    chance = {tuple(int(n) for n in counts_GK[0]): 1.0}
    for row in counts_GK[1:]:
        ways = list(itertools.permutations(int(n) for n in row))
        after: dict[tuple[int, ...], float] = {}
        for totals, weight in chance.items():
            for way in ways:
                reached = tuple(map(int.__add__, totals, way))
                after[reached] = after.get(reached, 0.0) + weight / len(ways)
        chance = after
    return min(1.0, sum(weight for totals, weight in chance.items() if sum(n * n for n in totals) >= observed))


def _by_cluster(votes: Votes, clusters_V: np.ndarray) -> np.ndarray:
    """(G, K) int: votes per cluster and method."""
    known, position_V = np.unique(clusters_V, return_inverse=True)
    counts_GK = np.zeros((len(known), votes.methods), dtype=np.int64)
    np.add.at(counts_GK, (position_V, votes.choices), 1)
    return counts_GK


def _clustered_variance(votes: Votes, values_VK: np.ndarray) -> tuple[np.ndarray, int] | None:
    """Variance of the mean of each column when raters and images both differ, and its degrees of freedom.

    Two-way cluster-robust (Cameron, Gelbach and Miller 2011): over raters, plus over images, minus over votes; never
    below any of the three. ``None`` without votes, and with a single rater and a single image.
    """
    if not len(votes):
        return None
    residual_VK = values_VK - values_VK.mean(axis=0)
    alone_K = (residual_VK**2).sum(axis=0) / len(votes) ** 2
    found, degrees = [], []
    for clusters_V in (votes.raters, votes.images):
        known, position_V = np.unique(clusters_V, return_inverse=True)
        if len(known) < 2:
            continue
        sums_GK = np.zeros((len(known), values_VK.shape[1]))
        np.add.at(sums_GK, position_V, residual_VK)
        found.append((sums_GK**2).sum(axis=0) * len(known) / (len(known) - 1) / len(votes) ** 2)
        degrees.append(len(known) - 1)
    if not found:
        return None
    both = [found[0] + found[1] - alone_K] if len(found) == 2 else []
    return np.maximum.reduce([alone_K, *found, *both]), min(degrees)


def _clustered_intervals(votes: Votes, share_K: np.ndarray) -> list[Interval] | None:
    """Wilson's interval at the number of independent votes that would have this variance, with Student's quantile."""
    found = _clustered_variance(votes, votes.chosen_VK)
    if found is None:
        return None
    variance_K, degrees = found
    quantile = stats.t.ppf(0.975, degrees)
    alone_K = share_K * (1 - share_K)
    pooled = float(alone_K.sum() / variance_K.sum()) if variance_K.sum() else degrees + 1.0
    with np.errstate(invalid="ignore"):  # a share of 0 or 1 has no variance of its own: the one of all methods serves
        effective_K = np.where(alone_K > 0, alone_K / variance_K, pooled)
    return [wilson(float(share), float(n), quantile) for share, n in zip(share_K, effective_K, strict=True)]


def _bootstrap_over_raters(votes: Votes, seed: int) -> list[Interval] | None:
    """Percentiles of the shares when raters are drawn with replacement."""
    counts_GK = _by_cluster(votes, votes.raters)
    if len(counts_GK) < 2:
        return None
    rng = np.random.default_rng(seed)
    times = rng.multinomial(len(counts_GK), np.full(len(counts_GK), 1 / len(counts_GK)), size=_RESAMPLES)
    drawn = times @ counts_GK
    low_K, high_K = np.percentile(drawn / drawn.sum(axis=1, keepdims=True), [2.5, 97.5], axis=0)
    return [(float(low), float(high)) for low, high in zip(low_K, high_K, strict=True)]


def _significance(votes: Votes, clustered: float | None, alone: float, seed: int) -> Significance:
    raters = permutation(_by_cluster(votes, votes.raters), seed) if len(votes) else None
    images = permutation(_by_cluster(votes, votes.images), seed) if len(votes) else None
    known = [p for p in (clustered, raters, images) if p is not None]
    return Significance(max(known, default=None), raters, images, alone)


def _rao_scott(votes: Votes, statistic: float) -> float | None:
    found = _clustered_variance(votes, votes.chosen_VK)
    if found is None:
        return None
    variance_K, degrees = found
    share_K = votes.chosen_VK.mean(axis=0)
    alone = float((share_K * (1 - share_K)).sum()) / len(votes)
    if not alone:  # all votes agree: no variance is seen, and the permutation tests say how much that means
        return 0.0
    free = votes.methods - 1
    return float(stats.f.sf(statistic * alone / float(variance_K.sum()) / free, free, free * degrees))


def _compare(votes: Votes, first: int, second: int, seed: int) -> Significance:
    pair = votes.restricted(first, second)
    a, b = (int((pair.choices == k).sum()) for k in (0, 1))
    return _significance(pair, _t_test(votes, first, second), _sign_test(a, b), seed)


def _sign_test(a: int, b: int) -> float:
    """Exact two-sided p that the votes come from even odds."""
    return float(stats.binomtest(a, a + b).pvalue) if a + b else 1.0


def _t_test(votes: Votes, first: int, second: int) -> float | None:
    """Student's t of the difference of two shares; votes for other methods count as 0."""
    difference_V1 = votes.chosen_VK[:, [first]] - votes.chosen_VK[:, [second]]
    found = _clustered_variance(votes, difference_V1)
    mean = float(difference_V1.mean()) if len(votes) else 0.0
    if found is None:
        return None
    variance, degrees = float(found[0][0]), found[1]
    if mean == 0 or variance == 0:  # where all votes agree the permutation tests say how much that means
        return float(mean == 0)
    return float(2 * stats.t.sf(abs(mean) / math.sqrt(variance), degrees))


def _holm_each(found: list[Significance]) -> list[Significance]:
    """Holm's correction of each kind of p-value over all pairs."""
    columns = []
    for name in ("clustered", "raters", "images", "votes"):
        known = [i for i, row in enumerate(found) if getattr(row, name) is not None]
        corrected = dict(zip(known, holm([getattr(found[i], name) for i in known]), strict=True))
        columns.append([corrected.get(i) for i in range(len(found))])
    return [Significance(*row) for row in zip(*columns, strict=True)]
