"""Results of a study: shares as in the paper's Table 2, with intervals and tests, as text, Markdown and CSV."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table
from rich.text import Text

from unpaired.study.records import QUESTIONS, Rater, Study, Vote, counted, printable
from unpaired.study.statistics import (
    Comparison,
    Interval,
    Share,
    Significance,
    Votes,
    compare_best,
    equal_shares,
    holm,
    multinomial,
    shares,
)
from unpaired.study.store import Store

_FEW_RATERS = 6
"""Fewer cannot show a difference for people in general."""
_BIASED = 0.01
"""Level of the test of positions, over all questions."""
_FORMULA = re.compile(r"(^|;)(?=\s*[=+\-@\uff1d\uff0b\uff0d\uff20])")
"""Where a text begins that spreadsheets would run; many take a semicolon as the end of a cell."""
_HEADINGS = {"clustered": "p", "raters": "raters", "images": "images", "votes": "votes alone"}
EXPLANATION = (
    "[ ]: 95 % interval for other raters and other images (two-way clustered). p: whether shares are equal; the best "
    "against each other method, corrected for all pairs (Holm). The column p accounts for variation among raters and "
    "images and is the one to report; the others take raters, images or single votes as the unit (docs/study.md)."
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
    """All results of a study."""

    study: Study
    raters: list[Rater]
    """Those who gave at least one vote."""
    votes: int
    questions: list[QuestionResult]
    """In the order of ``QUESTIONS``."""
    biased: dict[str, list[int]]
    """See ``biased_positions``."""

    @property
    def methods(self) -> list[str]:
        """Their names."""
        return [printable(method.name) for method in self.study.methods]

    @property
    def title(self) -> str:
        """Numbers of images, raters and votes."""
        return f"User study: {len(self.study.images)} images, {counted(self.raters, self.study)}, {self.votes:,} votes"

    @property
    def warnings(self) -> list[str]:
        """Reasons to doubt the results."""
        if not self.votes:
            return ["nobody has voted yet"]
        found = []
        if len(self.raters) == 1:
            found.append("one rater: intervals and p-values generalise to other images only, not to other raters")
        elif len(self.raters) < _FEW_RATERS:
            found.append(f"{len(self.raters)} raters can hardly show a difference for people in general; ask more")
        if self.biased:
            listed = "; ".join(
                f"{key}: {', '.join(f'{100 * n / sum(counts):.0f}' for n in counts)} %"
                for key, counts in self.biased.items()
            )
            found.append(f"positions on the screen were not chosen equally often (from the left, {listed})")
        return found


def biased_positions(votes: Sequence[Vote], methods: int) -> dict[str, list[int]]:
    """Question -> votes per place on the screen, from the left, where places were not chosen equally often.

    The order of methods is drawn for every rater and image. So, whatever raters like, places are independent within a
    question; the three questions about an image share its order, and are tested apart with Holm's correction.
    """
    counts = {
        key: np.bincount([vote.shown.index(vote.method) for vote in votes if vote.question == key], minlength=methods)
        for key in QUESTIONS
    }
    corrected = holm([multinomial(counts_K) if counts_K.any() else None for counts_K in counts.values()])
    return {
        key: counts_K.tolist()
        for (key, counts_K), p in zip(counts.items(), corrected, strict=True)
        if p is not None and p < _BIASED
    }


def evaluate_study(store: Store) -> Results:
    """Count and test all votes of a study, deterministically."""
    votes = store.votes()
    study = store.study
    place = {method.name: k for k, method in enumerate(study.methods)}
    return Results(
        study=study,
        raters=[rater for rater in store.raters() if rater.votes],
        votes=len(votes),
        questions=[_question(key, [vote for vote in votes if vote.question == key], place) for key in QUESTIONS],
        biased=biased_positions(votes, len(place)),
    )


def share_table(results: Results) -> Table:
    """Table 2 for the terminal: a row per question, a column per method."""
    table = Table(title=results.title, title_justify="left", title_style="bold")
    table.add_column("", no_wrap=True)
    table.add_column("votes", justify="right")
    for name in results.methods:
        table.add_column(Text(name), justify="right", overflow="fold")
    for row in results.questions:
        cells = [Text(words, style="bold" * best) for words, best in _shares(row)]
        table.add_row(f"{row.key} (%) {QUESTIONS[row.key].label}", str(row.votes), *cells)
    return table


def significance_table(results: Results) -> Table:
    """The tests for the terminal."""
    table = Table(title="Tests", title_justify="left", title_style="bold")
    table.add_column("")
    for heading in _HEADINGS.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for words, *cells in _tests(results):
        table.add_row(Text(words), *cells)
    return table


def markdown(results: Results) -> str:
    """Both tables, all intervals, the origins of the methods and an explanation, as Markdown."""
    names = results.methods
    shares_ = [
        [f"{row.key} (%), {QUESTIONS[row.key].label}", str(row.votes),
         *(f"**{words}**" if best else words for words, best in _shares(row))] for row in results.questions
    ]  # fmt: skip
    intervals = [
        [row.key, name, _interval(share.wilson), _interval(share.bootstrap)]
        for row in results.questions
        for name, share in zip(names, row.shares, strict=True)
    ]
    return "\n".join([
        f"**{results.title}**", "", *_table(["", "votes", *names], shares_),
        "", *_table(["", *_HEADINGS.values()], _tests(results)),
        "", EXPLANATION, "", "Other intervals, 95 %:",
        "", *_table(["", "method", "votes as units (Wilson)", "raters drawn anew"], intervals, words=2),
        "", *(f"- {printable(f'{method.name}: {method.origin}')}" for method in results.study.methods),
        *(f"- Note: {warning}." for warning in results.warnings), "",
    ])  # fmt: skip


def results_csv(results: Results) -> str:
    """One line per question and method, unrounded; p of a method is that of the best against it."""
    rows = []
    for row in results.questions:
        against = {comparison.other: asdict(comparison.significance) for comparison in row.comparisons}
        for k, (name, share) in enumerate(zip(results.methods, row.shares, strict=True)):
            line = {"question": row.key, "method": name, "votes": share.votes, "votes_in_all": row.votes,
                    "share": share.share}  # fmt: skip
            for kind, interval in (("clustered", share.clustered), ("wilson", share.wilson),
                                   ("rater_bootstrap", share.bootstrap)):  # fmt: skip
                line[f"{kind}_low"], line[f"{kind}_high"] = interval or (None, None)
            line |= {f"p_equal_{kind}": p for kind, p in asdict(row.equal).items()}
            line |= {f"p_best_holm_{kind}": against.get(k, {}).get(kind) for kind in _HEADINGS}
            rows.append(line)
    return _csv(pd.DataFrame(rows, dtype=object))


def votes_csv(votes: Sequence[Vote]) -> str:
    """One line per vote that counts, oldest first; ``shown`` is the order on the screen from the left."""
    columns = ["time", "rater", "image", "question", "method", "position", "shown", "changed"]
    lines = [
        asdict(vote) | {"position": vote.shown.index(vote.method) + 1, "shown": " | ".join(vote.shown)}
        for vote in votes
    ]
    return _csv(pd.DataFrame(lines, columns=columns, dtype=object))


def _csv(frame: pd.DataFrame) -> str:
    """The lines of a table, safe to open in a spreadsheet."""
    return frame.map(_cell).to_csv(index=False, lineterminator="\n")


def _cell(value: Any) -> Any:
    """A text with an apostrophe before whatever a spreadsheet would run; other values as they are."""
    return _FORMULA.sub(r"\1'", printable(value)) if isinstance(value, str) else value


def _question(key: str, votes: Sequence[Vote], place: dict[str, int]) -> QuestionResult:
    _, raters = np.unique([vote.rater for vote in votes], return_inverse=True)
    _, images = np.unique([vote.image for vote in votes], return_inverse=True)
    table = Votes(raters, images, np.array([place[vote.method] for vote in votes], dtype=int), len(place))
    return QuestionResult(key, len(votes), shares(table), equal_shares(table), compare_best(table))


def _tests(results: Results) -> Iterator[list[str]]:
    """Hypotheses and their p-values in the order of ``_HEADINGS``."""
    names = results.methods
    for row in results.questions:
        if not row.votes:
            continue
        found = [("equal shares", row.equal)]
        for one in row.comparisons:
            counts = f"({one.best_votes} : {one.other_votes})"
            found.append((f"{names[one.best]} against {names[one.other]} {counts}", one.significance))
        for words, significance in found:
            yield [f"{row.key}: {words}", *map(_p, asdict(significance).values())]


def _shares(row: QuestionResult) -> Iterator[tuple[str, bool]]:
    """The share of each method with its interval, and whether it is the largest."""
    most = max(share.votes for share in row.shares)
    for share in row.shares:
        words = f"{100 * share.share:.1f} {_interval(share.clustered or share.wilson)}" if row.votes else "-"
        yield words, bool(row.votes) and share.votes == most


def _interval(interval: Interval | None) -> str:
    return "-" if interval is None else f"[{100 * interval[0]:.0f}, {100 * interval[1]:.0f}]"


def _p(p: float | None) -> str:
    if p is None:
        return "-"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> list[str]:
    """The lines of a Markdown table whose first ``words`` columns are text."""
    marks = ["---"] * words + ["---:"] * (len(head) - words)
    lines = ([cell.replace("|", "\\|") for cell in row] for row in (head, marks, *rows))
    return [f"| {' | '.join(cells)} |" for cells in lines]
