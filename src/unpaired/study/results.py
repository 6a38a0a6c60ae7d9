"""What raters said: shares shaped like the paper's Table 2, with intervals and tests, for people and for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table
from rich.text import Text

from unpaired.study.records import QUESTIONS, Rater, Study, Vote
from unpaired.study.statistics import (
    Comparison,
    Interval,
    Share,
    Significance,
    Votes,
    compare_best,
    equal_shares,
    multinomial,
    shares,
)
from unpaired.study.store import Store

_FEW_RATERS = 6
_KINDS = ("clustered", "raters", "images", "votes")
_HEADINGS = {"clustered": "p", "raters": "raters", "images": "images", "votes": "votes alone"}
EXPLANATION = (
    "[ ]: 95 % interval for other raters and other images (two-way clustered). p: whether shares are equal; the best "
    "against each other method, corrected for all pairs (Holm). The column p allows for raters and images that differ "
    "and is the one to report; the others take raters alone, images alone, or every vote as the unit (docs/study.md)."
)


@dataclass(frozen=True)
class QuestionResult:
    """The votes on one question."""

    key: str
    votes: int
    shares: list[Share]
    equal: Significance
    comparisons: list[Comparison]


@dataclass(frozen=True)
class Results:
    """Everything that the tables show.

    Attributes:
        study: What was shown.
        raters: Those who gave at least one vote.
        votes: In all.
        questions: In the order of ``QUESTIONS``.
        positions: Votes per place on the screen, from the left.
        position_p: Whether places are equally liked, votes standing alone.
    """

    study: Study
    raters: list[Rater]
    votes: int
    questions: list[QuestionResult]
    positions: list[int]
    position_p: float

    @property
    def methods(self) -> list[str]:
        """Names, in the order in which they were given."""
        return [method.name for method in self.study.methods]

    @property
    def finished(self) -> int:
        """Raters who answered everything."""
        return sum(rater.votes == self.study.votes_per_rater for rater in self.raters)

    @property
    def title(self) -> str:
        """How much stands behind the tables."""
        raters = f"{len(self.raters)} rater{'s' * (len(self.raters) != 1)} ({self.finished} finished)"
        return f"User study: {len(self.study.images)} images, {raters}, {self.votes:,} votes"

    @property
    def warnings(self) -> list[str]:
        """What readers should know before they believe it."""
        found = []
        if not self.votes:
            return ["nobody has voted yet"]
        if len(self.raters) == 1:
            found.append("one rater: intervals and p speak of other images only, not of other people")
        elif len(self.raters) < _FEW_RATERS:
            found.append(f"{len(self.raters)} raters can hardly show a difference for people in general; ask more")
        if self.position_p < 0.01:
            share = ", ".join(f"{100 * n / self.votes:.0f}" for n in self.positions)
            found.append(f"places on the screen were not equally liked (from the left: {share} %)")
        return found


def evaluate_study(store: Store) -> Results:
    """Count and test all votes of a study; the same votes give the same results."""
    votes = store.votes()
    study = store.study
    place = {method.name: k for k, method in enumerate(study.methods)}
    positions = np.bincount([vote.shown.index(vote.method) for vote in votes], minlength=len(place))
    return Results(
        study=study,
        raters=[rater for rater in store.raters() if rater.votes],
        votes=len(votes),
        questions=[_question(key, [vote for vote in votes if vote.question == key], place) for key in QUESTIONS],
        positions=positions.tolist(),
        position_p=multinomial(positions),
    )


def share_table(results: Results) -> Table:
    """Table 2 for the terminal: a row per question, a column per method."""
    table = Table(title=results.title, title_justify="left", title_style="bold")
    table.add_column("", no_wrap=True)
    table.add_column("votes", justify="right")
    for name in results.methods:
        table.add_column(Text(name), justify="right", overflow="fold")
    for row in results.questions:
        best = max(share.votes for share in row.shares)
        cells = [Text(_share(s), style="bold" if s.votes == best and row.votes else "") for s in row.shares]
        table.add_row(f"{row.key} (%) {QUESTIONS[row.key].label}", str(row.votes), *cells)
    return table


def significance_table(results: Results) -> Table:
    """The tests for the terminal."""
    table = Table(title="Tests", title_justify="left", title_style="bold")
    table.add_column("")
    for kind in _KINDS:
        table.add_column(_HEADINGS[kind], justify="right", no_wrap=True)
    for words, significance in _tests(results):
        table.add_row(Text(words), *(_p(getattr(significance, kind)) for kind in _KINDS))
    return table


def markdown(results: Results) -> str:
    """Both tables, all intervals, methods and how to read them, as Markdown."""
    methods = results.methods
    lines = [f"**{results.title}**", "", _line(["", "votes", *methods]), _line(["---", *["---:"] * (len(methods) + 1)])]
    for row in results.questions:
        best = max(share.votes for share in row.shares)
        cells = [f"**{_share(s)}**" if s.votes == best and row.votes else _share(s) for s in row.shares]
        lines.append(_line([f"{row.key} (%), {QUESTIONS[row.key].label}", str(row.votes), *cells]))
    lines += ["", _line(["", *(_HEADINGS[kind] for kind in _KINDS)]), _line(["---", *["---:"] * len(_KINDS)])]
    for words, significance in _tests(results):
        lines.append(_line([words, *(_p(getattr(significance, kind)) for kind in _KINDS)]))
    lines += ["", EXPLANATION, "", "Other intervals, 95 %:", ""]
    lines += [
        _line(["", "method", "votes as units (Wilson)", "raters drawn anew"]),
        _line(["---", "---", "---:", "---:"]),
    ]
    for row in results.questions:
        for name, share in zip(methods, row.shares, strict=True):
            lines.append(_line([row.key, name, _interval(share.wilson), _interval(share.bootstrap)]))
    lines += ["", *(f"- {method.name}: {method.origin}" for method in results.study.methods)]
    lines += [f"- Note: {warning}." for warning in results.warnings]
    return "\n".join(lines) + "\n"


def results_csv(results: Results) -> str:
    """One line per question and method, every number unrounded; p of a method is that of the best against it."""
    rows = []
    for row in results.questions:
        against = {comparison.other: comparison.significance for comparison in row.comparisons}
        for k, (name, share) in enumerate(zip(results.methods, row.shares, strict=True)):
            versus = against.get(k)
            rows.append(
                {
                    "question": row.key,
                    "method": name,
                    "votes": share.votes,
                    "votes_in_all": row.votes,
                    "share": share.share if row.votes else None,
                    **_bounds("clustered", share.clustered),
                    **_bounds("wilson", share.wilson),
                    **_bounds("rater_bootstrap", share.bootstrap),
                    **{f"p_equal_{kind}": getattr(row.equal, kind) for kind in _KINDS},
                    **{f"p_best_holm_{kind}": getattr(versus, kind) if versus else None for kind in _KINDS},
                }
            )
    return _csv(list(rows[0]), [list(row.values()) for row in rows])


def votes_csv(votes: Sequence[Vote]) -> str:
    """One line per vote that counts, oldest first; ``shown`` is the order on the screen from the left."""
    head = ["time", "rater", "image", "question", "method", "position", "shown", "changed"]
    return _csv(
        head,
        [
            [
                v.time,
                v.rater,
                v.image,
                v.question,
                v.method,
                v.shown.index(v.method) + 1,
                " | ".join(v.shown),
                v.changed,
            ]
            for v in votes
        ],
    )


def _question(key: str, votes: Sequence[Vote], place: dict[str, int]) -> QuestionResult:
    _, raters = np.unique([vote.rater for vote in votes], return_inverse=True)
    _, images = np.unique([vote.image for vote in votes], return_inverse=True)
    table = Votes(raters, images, np.array([place[vote.method] for vote in votes], dtype=int), len(place))
    return QuestionResult(key, len(votes), shares(table), equal_shares(table), compare_best(table))


def _tests(results: Results) -> list[tuple[str, Significance]]:
    found = []
    for row in results.questions:
        if row.votes:
            found.append((f"{row.key}: equal shares", row.equal))
            names = results.methods
            for one in row.comparisons:
                words = (
                    f"{row.key}: {names[one.best]} against {names[one.other]} ({one.best_votes} : {one.other_votes})"
                )
                found.append((words, one.significance))
    return found


def _share(share: Share) -> str:
    interval = share.clustered or share.wilson
    return f"{100 * share.share:.1f} {_interval(interval)}" if share.share == share.share else "-"


def _interval(interval: Interval | None) -> str:
    return "-" if interval is None else f"[{100 * interval[0]:.0f}, {100 * interval[1]:.0f}]"


def _p(p: float | None) -> str:
    if p is None:
        return "-"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _bounds(name: str, interval: Interval | None) -> dict[str, float | None]:
    low, high = interval if interval is not None else (None, None)
    return {f"{name}_low": low, f"{name}_high": high}


def _csv(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue()
