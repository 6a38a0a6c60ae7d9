"""Statistics of the user study against SciPy, brute force and simulated studies."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_studies import study, tally

pytest.importorskip("scipy", reason='needs pip install "unpaired[study]"')

from scipy import stats

from unpaired.study import statistics as module
from unpaired.study.statistics import Votes, compare_best, equal_shares, permutation, shares, wilson


def alone(*counts: int) -> Votes:
    """One vote per rater, all on one image: the paper's 60 participants."""
    choices = np.repeat(np.arange(len(counts)), counts)
    return Votes(np.arange(len(choices)), np.zeros(len(choices), int), choices, len(counts))


def of_raters(rows: Sequence[Sequence[int]]) -> Votes:
    """Votes per rater and method, each on an image of its own."""
    raters = np.repeat(np.arange(len(rows)), [sum(row) for row in rows])
    choices = np.concatenate([np.repeat(np.arange(len(row)), row) for row in rows])
    return Votes(raters, np.arange(len(raters)), choices, len(rows[0]))


@st.composite
def some_votes(draw: st.DrawFn, most_methods: int = 3) -> Votes:
    """A few raters and images, some votes missing."""
    methods = draw(st.integers(2, most_methods))
    places = st.tuples(st.integers(0, 4), st.integers(0, 4))
    given_ = draw(st.dictionaries(places, st.integers(0, methods - 1), min_size=1, max_size=20))
    raters, images = np.array(list(given_)).T
    return Votes(raters, images, np.array(list(given_.values())), methods)


def sign_test(a: int, b: int) -> float:
    return float(stats.binomtest(a, a + b).pvalue)


def squares(ways: Sequence[Sequence[Sequence[int]]]) -> np.ndarray:
    """Pearson's statistic up to constants: the sum of squares of the totals of each way."""
    return (np.array(ways).sum(axis=1) ** 2).sum(axis=1)


# ---------------------------------------------------------------------------------------------------------------------
# independent votes, and permutations
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("counts", [(4, 2, 1), (5, 1), (2, 2, 2), (7, 0, 0), (3, 1, 1, 1)])
def test_the_tests_of_independent_votes_enumerate_every_outcome(counts: tuple[int, ...]) -> None:
    """Permuting the methods of single votes is the multinomial test."""
    ways = squares([*itertools.product(np.eye(len(counts), dtype=int), repeat=sum(counts))])
    exact = (ways >= sum(n * n for n in counts)).mean()
    found = equal_shares(alone(*counts))
    assert (found.votes, found.raters) == (pytest.approx(exact, rel=1e-9), pytest.approx(exact, rel=1e-9))
    for share, count in zip(shares(alone(*counts)), counts, strict=True):
        known = stats.binomtest(count, sum(counts)).proportion_ci(method="wilson")
        assert share.wilson == pytest.approx((known.low, known.high), abs=1e-12)


def test_many_independent_votes_are_tested_by_chi_squared() -> None:
    counts = (40, 30, 30, 25, 25)
    assert equal_shares(alone(*counts)).votes == pytest.approx(stats.chisquare(counts).pvalue)


@pytest.mark.parametrize(
    "rows",
    [
        [[3, 1], [2, 2], [4, 0]], [[3, 1, 0], [2, 0, 2], [1, 1, 0]], [[5, 0, 0], [0, 5, 0]], [[1, 0], [0, 1]],
        [[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]], [[2, 1, 1, 0], [0, 0, 3, 3], [4, 0, 0, 0]], [[2, 2, 2], [1, 2, 3]],
        [[1, 1, 0, 0, 0], [0, 2, 1, 0, 0]], [[0, 4, 1], [0, 4, 1], [4, 0, 1], [2, 2, 1], [1, 3, 1]],
    ],
)  # fmt: skip
def test_permutations_enumerate_every_assignment_of_methods(rows: list[list[int]]) -> None:
    ways = squares([*itertools.product(*(list(itertools.permutations(row)) for row in rows))])
    exact = (ways >= squares([rows])).mean()
    assert equal_shares(of_raters(rows)).raters == pytest.approx(exact, rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 4).flatmap(lambda k: st.lists(st.lists(st.integers(0, 3), min_size=k, max_size=k), min_size=2,
                                                    max_size=3)))  # fmt: skip
def test_exact_permutations_of_any_counts(rows: list[list[int]]) -> None:
    ways = squares([*itertools.product(*(list(itertools.permutations(row)) for row in rows))])
    observed = int(squares([rows])[0])
    found = module._exact_permutation(np.array(rows), observed)
    assert found == pytest.approx((ways >= observed).mean(), rel=1e-9)


@pytest.mark.parametrize("raters", [2, 3, 6])
def test_the_first_votes_of_nine_methods_are_counted_at_once(raters: int) -> None:
    """One vote each: permuting is then the multinomial test. Nine methods have 362,880 orders, a vote nine places."""
    choices = np.arange(raters) // 2
    votes = Votes(np.arange(raters), np.arange(raters), choices, 9)
    started = time.process_time()
    found = equal_shares(votes)
    assert time.process_time() - started < 1
    assert found.raters == found.images == pytest.approx(found.votes, rel=1e-9)


def test_random_permutations_agree_with_exact_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = np.array([[6, 2, 2], [5, 3, 2], [4, 4, 2], [6, 1, 3], [3, 5, 2]])
    exact = permutation(counts)
    monkeypatch.setattr(module, "_STATES", 0)
    drawn = permutation(counts)
    assert exact is not None
    assert drawn != exact
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact / 20_000))
    assert permutation(counts) == drawn, "the same seed draws the same"


def test_a_single_rater_has_no_permutations() -> None:
    found = equal_shares(of_raters([[9, 1]]))
    assert found.raters is None
    assert found.clustered is not None
    assert found.clustered >= found.images == pytest.approx(sign_test(9, 1))


# ---------------------------------------------------------------------------------------------------------------------
# clusters
# ---------------------------------------------------------------------------------------------------------------------
@settings(max_examples=40, deadline=None)
@given(some_votes())
def test_two_way_variance_is_the_sum_over_pairs_of_votes(votes: Votes) -> None:
    found = module._clustered_variance(votes, votes.chosen_VK)
    residual = votes.chosen_VK - votes.chosen_VK.mean(axis=0)
    dimensions = [clusters for clusters in (votes.raters, votes.images) if len(set(clusters)) > 1]
    if not dimensions:
        assert found is None
        return
    parts = []
    for clusters in dimensions:
        correction = len(set(clusters)) / (len(set(clusters)) - 1)
        pairs = [(v, w) for v, w in itertools.product(range(len(votes)), repeat=2) if clusters[v] == clusters[w]]
        parts.append(correction * sum(residual[v] * residual[w] for v, w in pairs) / len(votes) ** 2)
    single = (residual**2).sum(axis=0) / len(votes) ** 2
    both = sum(parts) - single if len(parts) == 2 else single
    assert found is not None
    np.testing.assert_allclose(found[0], np.maximum.reduce([*parts, single, both]), rtol=1e-9, atol=1e-15)
    assert found[1] == min(len(set(clusters)) for clusters in dimensions) - 1


@settings(max_examples=40, deadline=None)
@given(some_votes())
def test_any_votes_give_consistent_numbers(votes: Votes) -> None:
    found = shares(votes)
    assert sum(share.votes for share in found) == len(votes)
    assert sum(share.share for share in found) == pytest.approx(1)
    for share in found:
        for interval in (share.clustered, share.wilson, share.bootstrap):
            assert interval is None or 0 <= interval[0] <= share.share + 1e-9 <= interval[1] + 2e-9 <= 1 + 3e-9
    best = max(found, key=lambda share: share.votes)
    comparisons = compare_best(votes)
    assert [one.best_votes for one in comparisons] == [best.votes] * (votes.methods - 1)
    for significance in (equal_shares(votes), *(one.significance for one in comparisons)):
        known = [significance.clustered, significance.raters, significance.images, significance.votes]
        assert all(p is None or 0 <= p <= 1 for p in known)
        others = [p for p in (significance.raters, significance.images) if p is not None]
        assert significance.clustered is None or significance.clustered >= max(others, default=0.0) - 1e-12


def test_no_votes() -> None:
    nothing = Votes(*(np.array([], int),) * 3, 3)
    assert [(s.votes, s.clustered, s.wilson, s.bootstrap) for s in shares(nothing)] == [(0, None, (0, 1), None)] * 3
    assert equal_shares(nothing).clustered is None
    assert compare_best(nothing) == []


def test_raters_who_always_say_the_same_count_once() -> None:
    """Ten raters, each with one opinion about 50 images, are worth ten votes, not 500."""
    choices = np.repeat([0] * 7 + [1] * 3, 50)
    repeated = Votes(np.repeat(np.arange(10), 50), np.tile(np.arange(50), 10), choices, 2)
    share = shares(repeated)[0]
    low, high = wilson(0.7, 10)
    assert share.clustered is not None
    assert share.clustered[0] < low
    assert share.clustered[1] >= high - 0.02
    assert share.wilson[1] - share.wilson[0] < 0.1
    (pair,) = compare_best(repeated)
    assert pair.significance.votes < 1e-15
    assert pair.significance.raters == pytest.approx(sign_test(7, 3))
    assert pair.significance.clustered is not None
    assert pair.significance.clustered >= sign_test(7, 3)


def test_two_unanimous_raters_show_nothing_about_people() -> None:
    votes = Votes(np.repeat([0, 1], 100), np.tile(np.arange(100), 2), np.zeros(200, int), 2)
    (pair,) = compare_best(votes)
    assert pair.significance.votes < 1e-50
    assert pair.significance.clustered == pair.significance.raters == 0.5


def test_table_2_of_the_paper() -> None:
    """The published shares are sixtieths: one vote per participant and question. Figures quoted in docs/study.md."""
    published = {"Q": ((27, 17, 8, 8), (45.0, 28.3, 13.3, 13.3)), "T": ((24, 18, 7, 11), (40.0, 30.0, 11.7, 18.3)),
                 "C": ((35, 7, 5, 13), (58.3, 11.7, 8.3, 21.7))}  # fmt: skip
    quoted = {"Q": (0.001, [0.431, 0.011, 0.011]), "T": (0.010, [0.882, 0.020, 0.205]), "C": (0.0, [0.0, 0.0, 0.008])}
    for question, (counts, percent) in published.items():
        votes = alone(*counts)
        assert [round(100 * share.share, 1) for share in shares(votes)] == list(percent)
        overall, against = quoted[question]
        assert equal_shares(votes).votes == pytest.approx(overall, abs=0.0006)
        assert [one.significance.votes for one in compare_best(votes)] == pytest.approx(against, abs=0.0006)


# ---------------------------------------------------------------------------------------------------------------------
# simulated studies: a small version of the table of docs/study.md
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("rater_spread", "image_spread"), [(1.0, 0.0), (1.0, 1.0), (0.0, 1.0)])
def test_clustered_intervals_cover_the_truth_where_wilson_does_not(rater_spread: float, image_spread: float) -> None:
    found = tally(150, 12, rater_spread=rater_spread, image_spread=image_spread, tests=False)
    assert found.held["clustered"] >= 90
    assert found.held["wilson"] <= 80


def test_intervals_of_few_raters() -> None:
    found = tally(150, 3, rater_spread=1.0, tests=False)
    assert found.held["clustered"] >= 93
    assert found.held["bootstrap"] <= 85, "why the bootstrap over raters is not the interval to report"


def test_the_clustered_test_holds_its_level_and_has_power() -> None:
    found = tally(50, 7, images=10, rater_spread=1.0, image_spread=1.0)
    assert found.rejected["votes"] >= 25
    assert found.rejected["clustered"] <= 10
    assert found.pair["clustered"] <= 10
    rng = np.random.default_rng(0)
    rejected = 0
    for _ in range(20):
        votes = study(rng, 12, 15, 0.5, 0.5)
        better = np.where(rng.random(len(votes)) < 0.4, 0, votes.choices)  # method 0 wins two in five outright
        rejected += (equal_shares(Votes(votes.raters, votes.images, better, 3)).clustered or 1) <= 0.05
    assert rejected >= 16
