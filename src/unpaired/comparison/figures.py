"""Numbers as they are printed: digits that mean something, what stands beside them, and which is the best."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TypeVar

from unpaired.comparison.table import Column, Comparison, Row, Value
from unpaired.data import size_words

NOTHING, INFINITY = "\N{EN DASH}", "∞"
_MOST_DIGITS = 4
Key = TypeVar("Key")


def digits_for(values: Sequence[Value]) -> int:
    """Digits after the point for one column.

    As many as show two figures of the typical uncertainty (over seeds, else over images); without any, three of the
    typical value.
    """
    uncertain = [width for value in values if (width := _uncertainty(value)) and math.isfinite(width)]
    if uncertain:
        return _clamped(1 - _magnitude(statistics.median(uncertain)))
    known = [abs(value.mean) for value in values if value.mean and math.isfinite(value.mean)]
    return _clamped(2 - _magnitude(statistics.median(known))) if known else 1


def _uncertainty(value: Value) -> float | None:
    if value.sd:
        return value.sd
    return (value.interval[1] - value.interval[0]) / 2 if value.interval else value.spread


def _magnitude(number: float) -> int:
    return math.floor(math.log10(number))


def _clamped(digits: int) -> int:
    return max(0, min(_MOST_DIGITS, digits))


def number(value: float, digits: int) -> str:
    """A number for people.

    >>> [number(x, 1) for x in (31.25, -0.04, float("inf"), float("-inf"), float("nan"))]
    ['31.2', '0.0', '∞', '-∞', '–']
    """
    if math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return INFINITY if value > 0 else f"-{INFINITY}"
    words = f"{value:.{digits}f}"
    return words.removeprefix("-") if float(words) == 0 else words


def beside(value: Value, digits: int, seeds: int) -> str:
    """What stands beside a mean: the deviation over seeds, or the interval or spread over images of a single run."""
    words = ""
    if value.n > 1:
        words = "" if value.sd is None else f"± {number(value.sd, digits)}"
    elif value.interval is not None:
        words = f"[{number(value.interval[0], digits)}, {number(value.interval[1], digits)}]"
    elif value.spread is not None:
        words = f"({number(value.spread, digits)})"
    return f"{words} {value.n} of {seeds}".strip() if value.n < seeds else words


def best_of(values: Mapping[Key, Value], column: Column, digits: int) -> set[Key]:
    """Which of several values are the best as printed; none where all are level or there is nothing to compare."""
    known = {key: value.mean for key, value in values.items() if not math.isnan(value.mean)}
    if not known:
        return set()
    best = (min if column.better == "lower" else max)(known.values())
    found = {key for key, mean in known.items() if number(mean, digits) == number(best, digits)}
    return found if len(found) < len(known) else set()


class Figures:
    """The printed cells of a comparison.

    Attributes:
        digits: Full name of a column -> digits after the point.
        best: (number of the row, full name of the column) of every best value. Floors, ceilings and weights that were
            chosen by their scores do not compete.
    """

    def __init__(self, comparison: Comparison) -> None:
        self.digits: dict[str, int] = {}
        self.best: set[tuple[int, str]] = set()
        for column in comparison.columns:
            found = {n: row.values[column.name] for n, row in enumerate(comparison.rows) if column.name in row.values}
            own = {n: value for n, value in found.items() if not comparison.rows[n].reference}
            self.digits[column.name] = digits = digits_for(list((own or found).values()))
            competing = {n: value for n, value in own.items() if not comparison.rows[n].chosen}
            self.best |= {(n, column.name) for n in best_of(competing, column, digits)}

    def cell(self, row: Row, column: Column) -> tuple[str, str]:
        """The mean and what stands beside it."""
        value = row.values.get(column.name)
        if value is None:
            return NOTHING, ""
        digits = self.digits[column.name]
        return number(value.mean, digits), beside(value, digits, 1 if row.reference else len(row.runs))


def footnotes(comparison: Comparison, best: str = "bold", *, references: bool = True) -> list[str]:
    """What has to be said below a table, one sentence each, the full names apart.

    Args:
        comparison: The table.
        best: How the best of a column is marked.
        references: Whether the table shows the intervals of references.
    """
    values = [v for row in comparison.rows if references or not row.reference for v in row.values.values()]
    told = [f"† {remark}" for remark in comparison.remarks]
    if any(value.n > 1 for value in values):
        told.append("± standard deviation over training seeds")
    if any(value.n == 1 and value.interval is not None for value in values):
        told.append("[ ] 95 % bootstrap interval over images")
    if any(value.n == 1 and value.interval is None and value.spread is not None for value in values):
        told.append("( ) standard deviation over subsets of the images")
    if Figures(comparison).best:
        told.append(f"{best}: best of its column; references and † do not compete")
    data = comparison.data
    told.append(
        f"data: {data.name}, {data.source_images} source and {data.target_images} target images at "
        f"{size_words(data.image_size)} px (digests {data.source_digest}, {data.target_digest}); seed of the scores: "
        f"{comparison.seed}"
    )
    if comparison.networks:
        listed = (f"{title} ({digest})" for title, digest in comparison.networks.values())
        told.append(f"networks: {', '.join(listed)}")
    return told
