"""The score table: rows compared column by column, the best marked, the gain over a baseline in words."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Literal

from unpaired.errors import ConfigError
from unpaired.reports.blocks import Block, section

MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"


@dataclasses.dataclass(frozen=True)
class ScoreColumn:
    """One column of a score table."""

    key: str
    """Where each row keeps its value."""
    label: str
    """Words of the header."""
    better: Literal["lower", "higher"]
    """Which direction is an improvement."""
    digits: int = 3
    """Digits after the point."""
    unit: str = ""
    """Printed after the header."""
    gain: Literal["percent", "difference", "none"] = "percent"
    """How the change from the baseline row is given; decibels and other logarithms want the difference."""
    protocol: str = ""
    """What two people must share to compare values; listed under the table."""


@dataclasses.dataclass(frozen=True)
class ScoreRow:
    """One row of a score table."""

    label: str
    values: Mapping[str, float | None]
    """Column key -> value; a missing, ``None`` or not-a-number value prints as a dash."""
    note: str = ""
    """Small words under the label, such as the number of images."""
    reference: bool = False
    """True for a floor or ceiling to compare with (real against real): never marked best, no gain."""
    competes: bool = True
    """False for a row that was chosen by what the table shows: never marked best either."""
    details: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Column key -> small words under the value, such as its spread or interval."""


def _number(value: float, digits: int) -> str:
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    return f"{value:.{digits}f}".replace("-", MINUS)


def _exact(value: float) -> str:
    """All digits, as scripts read numbers."""
    return repr(float(value)) if math.isfinite(value) else "Infinity" if value > 0 else "-Infinity"


def _gain(value: float, base: float, column: ScoreColumn) -> str:
    """Say by how much a value improves on the baseline: positive is better whatever the column's direction."""
    better_by = base - value if column.better == "lower" else value - base
    if column.gain == "none" or not math.isfinite(better_by):
        return ""
    if column.gain == "percent":
        if base == 0:
            return ""
        amount = 100.0 * better_by / abs(base)
        words = f"{abs(amount):.0f} %" if abs(amount) >= 9.95 else f"{abs(amount):.1f} %"
    else:
        amount = better_by
        words = f"{abs(amount):.{column.digits}f} {column.unit}".rstrip()
    if not any(digit in "123456789" for digit in words):
        return '<small class="even">no change</small>'
    return f'<small class="{"good" if amount > 0 else "bad"}">{words} {"better" if amount > 0 else "worse"}</small>'


def _best(rows: Sequence[ScoreRow], column: ScoreColumn) -> str | None:
    """Best value as printed, so that rows that look equal are all marked; ``None`` with fewer than two to compare."""
    values = [row.values.get(column.key) for row in rows if row.competes and not row.reference]
    known = [value for value in values if value is not None and not math.isnan(value)]
    if len(known) < 2:
        return None
    return _number(min(known) if column.better == "lower" else max(known), column.digits)


def score_table(
    columns: Sequence[ScoreColumn],
    rows: Sequence[ScoreRow],
    *,
    baseline: str | None = None,
    title: str = "Scores",
    note: str = "",
    sortable: bool = False,
) -> Block:
    """Compare rows (untranslated input, translation, other runs) column by column; best marked, gain in words.

    Args:
        columns: What was measured.
        rows: What was measured on, top to bottom.
        baseline: Label of the row that gains are relative to; ``None`` takes the first row that is not a reference.
        title: Heading.
        note: Words under the table.
        sortable: Headers become buttons: best first, then worst first, then as given. References take part, because a
            floor and a ceiling say most in their place among the rows; rows without a value stay at the end.

    Raises:
        ConfigError: ``baseline`` is no row.
    """
    labels = [row.label for row in rows]
    if baseline is None:
        baseline = next((row.label for row in rows if not row.reference), None)
    elif baseline not in labels:
        raise ConfigError(f"baseline '{baseline}' is no row of the table; rows: {', '.join(labels)}")
    base_row = next((row for row in rows if row.label == baseline), None)

    head = f'<th scope="col">{"Name" if sortable else ""}</th>'
    for column in columns:
        arrow, words = ("↓", "lower is better") if column.better == "lower" else ("↑", "higher is better")
        unit = f", {escape(column.unit)}" if column.unit else ""
        better = f' data-better="{column.better}"' if sortable else ""
        head += f'<th scope="col"{better}>{escape(column.label)}&nbsp;{arrow}<small>{words}{unit}</small></th>'
    best = {column.key: _best(rows, column) for column in columns}
    body = ""
    for row in rows:
        small = f"<small>{escape(row.note)}</small>" if row.note else ""
        cells = f'<th scope="row">{escape(row.label)}{small}</th>'
        for column in columns:
            value = row.values.get(column.key)
            if value is None or math.isnan(value):
                cells += f"<td>{DASH}</td>"
                continue
            printed = _number(value, column.digits)
            marked = ' class="best"' if printed == best[column.key] and row.competes and not row.reference else ""
            base = base_row.values.get(column.key) if base_row is not None and row is not base_row else None
            gain = _gain(value, base, column) if base is not None and not math.isnan(base) and not row.reference else ""
            small = f"<small>{escape(row.details[column.key])}</small>" if column.key in row.details else ""
            exact = f' data-value="{_exact(value)}"' if sortable else ""
            cells += f"<td{marked}{exact}>{printed}{small}{gain}</td>"
        kind = ' class="reference"' if row.reference else ""
        body += f"<tr{kind}>{cells}</tr>"
    asks = ' data-script="sort"' if sortable else ""
    many = " many" if len(columns) > 5 else ""
    table = f'<table class="scores{many}"{asks}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    inside = f'<div class="card scroll">{table}</div>'
    if sortable:
        inside += '<p class="note script-only" hidden>Click a header, or press Enter on it, to sort.</p>'
    protocols = [f"<li>{escape(column.label)}: {escape(column.protocol)}</li>" for column in columns if column.protocol]
    if protocols:
        inside += f'<ul class="protocols note">{"".join(protocols)}</ul>'
    return section(title, inside, note)
