"""How often intervals and tests of studies keep their word: ``python tests/study/simulated_studies.py [STUDIES]``.

It prints the table of docs/study.md. Simulated raters see three methods on 30 images and choose the one of largest
value: a part that belongs to rater and method, a part that belongs to image and method, and noise of every vote (the
spread of both parts is given in units of the noise). With no method better than another, a test at 5 % should reject in
5 % of the studies and an interval of 95 % should hold the true share, 1/3, in 95 %.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

import numpy as np

from unpaired.study.statistics import Votes, compare_best, equal_shares, shares

SPREADS = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0))
KINDS = ("votes", "raters", "images", "clustered")


@dataclass
class Tally:
    """Percentages over simulated studies."""

    held: dict[str, float] = field(default_factory=dict)
    """Interval -> how often it held the truth."""
    width: dict[str, float] = field(default_factory=dict)
    """Interval -> its mean width in points."""
    rejected: dict[str, float] = field(default_factory=dict)
    """Test of equal shares -> how often p was at most 0.05."""
    pair: dict[str, float] = field(default_factory=dict)
    """Best against others -> how often any p was at most 0.05."""


def study(rng: np.random.Generator, raters: int, images: int, rater_spread: float, image_spread: float) -> Votes:
    """One question of one study without a difference between three methods."""
    value = (
        rater_spread * rng.standard_normal((raters, 1, 3))
        + image_spread * rng.standard_normal((1, images, 3))
        + rng.gumbel(scale=np.sqrt(6) / np.pi, size=(raters, images, 3))
    )
    who, which = np.divmod(np.arange(raters * images), images)
    return Votes(who, which, value.argmax(axis=2).ravel(), 3)


def tally(
    studies: int,
    raters: int,
    images: int = 30,
    rater_spread: float = 0.0,
    image_spread: float = 0.0,
    tests: bool = True,
) -> Tally:
    """Simulate ``studies`` studies; ``tests=False`` looks at the intervals only."""
    rng = np.random.default_rng([raters, images, int(10 * rater_spread), int(10 * image_spread)])
    found, one = Tally(), 100 / studies
    for _ in range(studies):
        votes = study(rng, raters, images, rater_spread, image_spread)
        first = shares(votes)[0]
        for name in ("wilson", "bootstrap", "clustered"):
            low, high = getattr(first, name)
            found.held[name] = found.held.get(name, 0.0) + one * (low <= 1 / 3 <= high)
            found.width[name] = found.width.get(name, 0.0) + one * (high - low)
        if tests:
            overall, pairs = equal_shares(votes), compare_best(votes)
            for kind in KINDS:
                found.rejected[kind] = found.rejected.get(kind, 0.0) + one * (getattr(overall, kind) <= 0.05)
                any_pair = min(getattr(pair.significance, kind) for pair in pairs) <= 0.05
                found.pair[kind] = found.pair.get(kind, 0.0) + one * any_pair
    return found


def main(studies: int) -> None:
    print("| spread of raters, images | raters | Wilson | bootstrap over raters | clustered | votes | raters | images "
          "| clustered | pairs: votes | pairs: clustered |")  # fmt: skip
    print("|---|" + "---:|" * 10)
    for rater_spread, image_spread in SPREADS:
        for raters in (2, 5, 12, 40):
            found = tally(studies, raters, rater_spread=rater_spread, image_spread=image_spread)
            held = [f"{found.held[k]:.0f} ({found.width[k]:.0f})" for k in ("wilson", "bootstrap", "clustered")]
            rejected = [f"{found.rejected[kind]:.0f}" for kind in KINDS]
            pairs = [f"{found.pair[kind]:.0f}" for kind in ("votes", "clustered")]
            cells = " | ".join([*held, *rejected, *pairs])
            print(f"| {rater_spread:g}, {image_spread:g} | {raters} | {cells} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400)
