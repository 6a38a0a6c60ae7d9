"""The table for other programs and pages: Markdown, CSV, JSON, HTML. LaTeX has a file of its own."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from unpaired.comparison.figures import Figures, footnotes
from unpaired.comparison.over_training import TrainingTable
from unpaired.comparison.table import WEIGHTS, Column, Comparison, Row, Value
from unpaired.reports import Block, ScoreColumn, ScoreRow, score_table

_FIELDS = (
    "label", "weights", "reference", "runs", "score", "mean", "sd", "n", "spread", "interval_low", "interval_high",
    "unit", "better", "protocol", "images_seen",
)  # fmt: skip


def weights_words(row: Row) -> str:
    """``EMA``, ``last``, ``best †``; nothing for a reference."""
    return WEIGHTS.get(row.weights, row.weights) + (" †" if row.chosen else "")


def heading(column: Column) -> str:
    """Label, direction and unit."""
    return f"{column.label} {column.arrow}" + (f" ({column.unit})" if column.unit else "")


# ---------------------------------------------------------------------------------------------------------------------
# Markdown
# ---------------------------------------------------------------------------------------------------------------------
def to_markdown(comparison: Comparison) -> str:
    """A Markdown table, best values bold, with full names, protocols and footnotes below."""
    figures = Figures(comparison)
    head = ["method", "weights", "images seen", "seeds", *(heading(column) for column in comparison.columns)]
    rows = []
    for place, row in enumerate(comparison.rows):
        cells = [_escaped(row.label), weights_words(row), row.images_words, "" if row.reference else str(len(row.runs))]
        for column in comparison.columns:
            mean, small = figures.cell(row, column)
            words = _escaped(f"{mean} {small}".rstrip())
            cells.append(f"**{words}**" if (place, column.name) in figures.best else words)
        rows.append(cells)
    notes = [*(f"{_escaped(c.label)}: {_code(c.name)}: {_escaped(c.protocol)}" for c in comparison.columns),
             *map(_escaped, footnotes(comparison))]  # fmt: skip
    return _markdown_table(map(_escaped, head), "lllr", rows) + "\n" + _listed(notes)


def training_markdown(tables: Sequence[TrainingTable]) -> str:
    """The tables over training in Markdown, a heading for each."""
    parts = []
    for table in tables:
        rows = []
        for seen in table.images:
            cells = [f"{seen:,}"]
            for column, weights in table.pairs:
                words = _escaped(table.cell(seen, column, weights))
                cells.append(f"**{words}**" if (seen, weights, column.name) in table.best else words)
            rows.append(cells)
        head = ["images seen", *(f"{heading(column)}, {WEIGHTS.get(w, w)}" for column, w in table.pairs)]
        names = [f"{_escaped(column.label)}: {_code(column.name)}" for column in table.columns]
        notes = [*names, *map(_escaped, table.footnotes())]
        parts.append(
            f"### {_escaped(table.label)}\n\n{_markdown_table(map(_escaped, head), 'r', rows)}\n{_listed(notes)}"
        )
    return "\n".join(parts)


def _markdown_table(head: Iterable[str], alignment: str, rows: Iterable[Sequence[str]]) -> str:
    head = list(head)
    marks = ["---:" if side == "r" else "---" for side in alignment.ljust(len(head), "r")]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, marks, *rows))


def _listed(notes: Iterable[str]) -> str:
    return "".join(f"- {note}\n" for note in notes)


def _escaped(words: str) -> str:
    """Text that Markdown prints as it is, also inside a table."""
    return re.sub(r"([\\`*_{}\[\]<>|#~&])", r"\\\1", " ".join(words.split()))


def _code(words: str) -> str:
    return "`" + " ".join(words.split()).replace("`", "'").replace("|", "\\|") + "`"


# ---------------------------------------------------------------------------------------------------------------------
# CSV and JSON
# ---------------------------------------------------------------------------------------------------------------------
def to_csv(comparison: Comparison) -> str:
    """One line per row and score; lists (runs, images seen of each run) are divided by semicolons."""
    lines = [
        _line(row.label, row.weights, row.reference, row.runs, column, row.values[column.name], row.images_seen)
        for row in comparison.rows
        for column in comparison.columns
        if column.name in row.values
    ]
    return _csv(_FIELDS, lines)


def training_csv(tables: Sequence[TrainingTable]) -> str:
    """One line per time, weights and score; the last field says whether it is the best of its score."""
    lines = []
    for table in tables:
        columns = {column.name: column for column in table.columns}
        for (seen, weights, name), value in table.values.items():
            line = _line(table.label, weights, False, table.runs, columns[name], value, (seen,))
            lines.append([*line, _yes((seen, weights, name) in table.best)])
    return _csv((*_FIELDS, "best"), lines)


def _line(
    label: str, weights: str, reference: bool, runs: Sequence[str], column: Column, value: Value, seen: Sequence[int]
) -> list[str]:
    low, high = value.interval or (None, None)
    numbers = [_exact(x) for x in (value.mean, value.sd, value.n, value.spread, low, high)]
    return [
        label, weights, _yes(reference), ";".join(runs), value.name, *numbers, column.unit, column.better,
        column.protocol, ";".join(map(str, seen)),
    ]  # fmt: skip


def _csv(fields: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    return "".join(",".join(map(_field, line)) + "\n" for line in (fields, *lines))


def _field(words: str) -> str:
    """Quoted where needed; the standard library leaves a carriage return bare, which readers take for a new line."""
    return '"' + words.replace('"', '""') + '"' if re.search(r'[",\r\n]', words) else words


def _exact(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else repr(value)


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"


def to_json(comparison: Comparison) -> str:
    """Everything, as plain values; infinities are the words ``inf`` and ``-inf``."""
    plain: dict[str, Any] = {**asdict(comparison), "footnotes": footnotes(comparison)}
    return json.dumps(_plain(plain), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


# ---------------------------------------------------------------------------------------------------------------------
# HTML
# ---------------------------------------------------------------------------------------------------------------------
def score_block(comparison: Comparison, *, title: str = "Scores") -> Block:
    """The score table of a report page: protocols and footnotes below, exact values behind the printed ones."""
    figures = Figures(comparison)
    columns = [
        ScoreColumn(c.name, c.label, c.better, figures.digits[c.name], c.unit, "none", f"{c.name}: {c.protocol}")
        for c in comparison.columns
    ]
    rows = [
        ScoreRow(
            label=f"{row.label}, {weights_words(row)}" if row.weights else row.label,
            values={name: value.mean for name, value in row.values.items()},
            note=_note(row),
            reference=row.reference,
            competes=not row.chosen,
            details={c.name: small for c in comparison.columns if (small := figures.cell(row, c)[1])},
        )
        for row in comparison.rows
    ]
    return score_table(columns, rows, sortable=True, title=title, note=". ".join(footnotes(comparison, "green")) + ".")


def _note(row: Row) -> str:
    if not row.images_seen:
        return ""
    seeds = len(row.runs)
    return f"{row.images_words} images seen, {seeds} seed{'s' * (seeds > 1)}"
