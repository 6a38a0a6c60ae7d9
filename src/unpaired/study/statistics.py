"""Shares of votes, their intervals, and tests of significance, when the same raters judge the same images.

Votes of one rater are correlated, and so are votes on one image, so the number of votes overstates the information.
Everything here is computed three ways: with independent votes, with raters or images as the units, and with raters and
images at once (two-way clustered). docs/study.md says which to report and shows the simulations behind it.

Shapes: V votes, K methods, G clusters (raters or images).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np

from unpaired.errors import BackendError

try:
    from scipy import stats
except ImportError as error:
    raise BackendError(
        "results of a study need the package 'scipy', which is not installed: pip install \"unpaired[study]\""
    ) from error

_ENUMERATED = 50_000  # most count vectors that the exact multinomial test enumerates
_STATES = 5_000  # most totals that the exact permutation test keeps
_DRAWS, _CHUNK, _RESAMPLES = 20_000, 500, 5_000

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
        """Only the votes for two methods, renumbered 0 and 1."""
        kept = np.isin(self.choices, (first, second))
        return Votes(self.raters[kept], self.images[kept], (self.choices[kept] == second).astype(int), 2)


@dataclass(frozen=True)
class Share:
    """One method's share of the votes on one question, with 95 % intervals.

    Attributes:
        votes: For this method.
        share: In [0, 1].
        clustered: Generalises to other raters and images; ``None`` with a single rater and a single image.
        wilson: For independent votes: too narrow as soon as raters or images differ.
        bootstrap: Over raters; ``None`` with a single rater. Far too narrow with few raters.
    """

    votes: int
    share: float
    clustered: Interval | None
    wilson: Interval
    bootstrap: Interval | None


@dataclass(frozen=True)
class Significance:
    """Two-sided p-values of one hypothesis; ``None`` if the votes do not determine one.

    Attributes:
        clustered: Allows for raters and images that differ, and is never below ``raters`` or ``images``: the one to
            report. Few raters cannot make it small, however many votes they give.
        raters: Permutes the methods within each rater; valid for these images only.
        images: Permutes the methods within each image; valid for these raters only.
        votes: For independent votes.
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
    return _significance(votes, _rao_scott(votes), multinomial(votes.chosen_VK.sum(axis=0)), seed)


def compare_best(votes: Votes, seed: int = 0) -> list[Comparison]:
    """Compare the method with the most votes (the first at a tie) with every other.

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
    """Wilson's interval for a share of ``votes`` independent votes, which may be fractional; [0, 1] without votes."""
    if votes <= 0:
        return 0.0, 1.0
    z2 = (stats.norm.ppf(0.975) if quantile is None else quantile) ** 2
    centre = (share + z2 / (2 * votes)) / (1 + z2 / votes)
    half = math.sqrt(z2 * (share * (1 - share) / votes + z2 / (4 * votes**2))) / (1 + z2 / votes)
    return max(0.0, centre - half), min(1.0, centre + half)


def multinomial(counts_K: np.ndarray) -> float:
    """p of Pearson's statistic for independent votes: exact where few count vectors are possible, else chi-squared."""
    total, methods = int(counts_K.sum()), len(counts_K)
    places = total + methods - 1
    if math.comb(places, methods - 1) > _ENUMERATED:
        return float(stats.chisquare(counts_K).pvalue)
    bars = np.array([*itertools.combinations(range(places), methods - 1)])  # stars and bars: every way to vote
    tables_TK = np.diff(bars, axis=1, prepend=-1, append=places) - 1
    squares_T = (tables_TK**2).sum(axis=1)  # integers that increase with Pearson's statistic
    extreme_TK = tables_TK[squares_T >= (counts_K**2).sum()]
    return min(1.0, float(stats.multinomial.pmf(extreme_TK, total, np.full(methods, 1 / methods)).sum()))


def permutation(counts_GK: np.ndarray, seed: int = 0) -> float | None:
    """p of Pearson's statistic when the methods are permuted within each cluster.

    Exact where few totals are possible, else by random permutations. ``None`` with fewer than two clusters.

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
        dealt = rng.permuted(np.tile(counts_GK, (_CHUNK, 1, 1)), axis=2)
        extreme += int(((dealt.sum(axis=1) ** 2).sum(axis=1) >= observed).sum())
    return (1 + extreme) / (1 + _DRAWS)


def holm(p: list[float | None]) -> list[float | None]:
    """Holm's correction of p-values that are tested together; ``None`` stays and does not count.

    >>> [round(x, 3) for x in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    known = np.array([i for i, x in enumerate(p) if x is not None], dtype=int)
    ordered = known[np.argsort([p[i] for i in known], kind="stable")]
    corrected = np.minimum(1.0, np.maximum.accumulate([(len(known) - rank) * p[i] for rank, i in enumerate(ordered)]))
    found = dict(zip(ordered.tolist(), corrected.tolist(), strict=True))
    return [found.get(i) for i in range(len(p))]


def _exact_permutation(counts_GK: np.ndarray, observed: int) -> float:
    """Propagate the distribution of totals, cluster by cluster; by symmetry the first cluster need not be permuted."""
    chance = {tuple(counts_GK[0].tolist()): 1.0}
    for row in counts_GK[1:].tolist():
        ways = [*_distinct_permutations(row)]
        after: dict[tuple[int, ...], float] = {}
        for totals, weight in chance.items():
            for way in ways:
                reached = tuple(sorted(map(int.__add__, totals, way)))  # the rows to come permute, so order is nothing
                after[reached] = after.get(reached, 0.0) + weight / len(ways)
        chance = after
    return min(1.0, sum(weight for totals, weight in chance.items() if sum(n * n for n in totals) >= observed))


def _distinct_permutations(counts: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Each order of the counts once; all of them are equally likely.

    >>> [*_distinct_permutations([1, 0, 0])]
    [(0, 0, 1), (0, 1, 0), (1, 0, 0)]
    """
    if not counts:
        yield ()
    for first in sorted(set(counts)):
        rest = list(counts)
        rest.remove(first)
        for others in _distinct_permutations(rest):
            yield first, *others


def _sum_by(clusters_V: np.ndarray, values_VK: np.ndarray) -> np.ndarray:
    """(G, K): sums over the votes of each cluster."""
    known, position_V = np.unique(clusters_V, return_inverse=True)
    sums_GK = np.zeros((len(known), values_VK.shape[1]), values_VK.dtype)
    np.add.at(sums_GK, position_V, values_VK)
    return sums_GK


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
        sums_GK = _sum_by(clusters_V, residual_VK)
        if (clusters := len(sums_GK)) > 1:
            found.append((sums_GK**2).sum(axis=0) * clusters / (clusters - 1) / len(votes) ** 2)
            degrees.append(clusters - 1)
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
    with np.errstate(invalid="ignore"):  # a share of 0 or 1 has no variance: use the pooled one
        effective_K = np.where(alone_K > 0, alone_K / variance_K, pooled)
    return [wilson(float(share), float(n), quantile) for share, n in zip(share_K, effective_K, strict=True)]


def _bootstrap_over_raters(votes: Votes, seed: int) -> list[Interval] | None:
    """Percentile bootstrap over raters."""
    counts_GK = _sum_by(votes.raters, votes.chosen_VK)
    if len(counts_GK) < 2:
        return None
    rng = np.random.default_rng(seed)
    times = rng.multinomial(len(counts_GK), np.full(len(counts_GK), 1 / len(counts_GK)), size=_RESAMPLES)
    drawn = times @ counts_GK
    low_K, high_K = np.percentile(drawn / drawn.sum(axis=1, keepdims=True), [2.5, 97.5], axis=0)
    return [(float(low), float(high)) for low, high in zip(low_K, high_K, strict=True)]


def _significance(votes: Votes, clustered: float | None, alone: float, seed: int) -> Significance:
    counts_VK = votes.chosen_VK.astype(int)
    raters, images = (permutation(_sum_by(each, counts_VK), seed) for each in (votes.raters, votes.images))
    known = [p for p in (clustered, raters, images) if p is not None]
    return Significance(max(known, default=None), raters, images, alone)


def _rao_scott(votes: Votes) -> float | None:
    found = _clustered_variance(votes, votes.chosen_VK)
    if found is None:
        return None
    variance_K, degrees = found
    share_K = votes.chosen_VK.mean(axis=0)
    alone = float((share_K * (1 - share_K)).sum()) / len(votes)
    if not alone:  # all votes agree: there is no variance, and the permutation tests decide
        return 0.0
    free, statistic = votes.methods - 1, stats.chisquare(votes.chosen_VK.sum(axis=0)).statistic
    return float(stats.f.sf(statistic * alone / float(variance_K.sum()) / free, free, free * degrees))


def _compare(votes: Votes, first: int, second: int, seed: int) -> Significance:
    pair = votes.restricted(first, second)
    sign_test = float(stats.binomtest(int(pair.choices.sum()), len(pair)).pvalue) if len(pair) else 1.0
    return _significance(pair, _t_test(votes, first, second), sign_test, seed)


def _t_test(votes: Votes, first: int, second: int) -> float | None:
    """Student's t of the difference of two shares; votes for other methods count as 0."""
    difference_V1 = votes.chosen_VK[:, [first]] - votes.chosen_VK[:, [second]]
    found = _clustered_variance(votes, difference_V1)
    if found is None:
        return None
    mean, variance = float(difference_V1.mean()), float(found[0][0])
    if mean == 0 or variance == 0:  # all votes agree: the permutation tests decide
        return float(mean == 0)
    return float(2 * stats.t.sf(abs(mean) / math.sqrt(variance), found[1]))


def _holm_each(found: list[Significance]) -> list[Significance]:
    """Holm's correction of each kind of p-value over all pairs."""
    columns = (holm([getattr(row, field.name) for row in found]) for field in fields(Significance))
    return [Significance(*row) for row in zip(*columns, strict=True)]
