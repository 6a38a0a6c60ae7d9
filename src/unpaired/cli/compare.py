"""``unpaired compare``: one table of several runs, from their records."""

from __future__ import annotations

import shlex
import sys
import textwrap
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tyro.conf import Positional, arg

from unpaired.cli.options import parse
from unpaired.errors import ConfigError
from unpaired.files import last_part, write_atomically

if TYPE_CHECKING:
    from unpaired.reporting.tables import Cell, Column, Comparison, TrainingTable

_WIDTH = 110
"""Of output to a file or a pipe."""
_LONGEST_LABEL = 34
_SHORT_LABEL = 11
"""Labels up to this length are not wrapped."""
_GAP = 3
"""Spaces between two columns, the star included."""
_SUFFIXES = {".md": "markdown", ".csv": "csv", ".tex": "latex", ".json": "json", ".html": "html"}
_TRAINING_FORMATS = ("terminal", "markdown", "csv")


@dataclass(frozen=True)
class Compare:
    """Compare runs by the records that 'unpaired evaluate' left in their folders: one table, nothing is computed again.

    Runs that differ only in their seed become one row with mean and standard deviation, for each of the averaged (EMA),
    last and best weights. Scores that are not comparable (other images, protocol, networks or seed) are rejected.

    Example: unpaired compare runs/mine runs/quick --out table.tex
    """

    runs: Positional[Annotated[tuple[Path, ...], arg(metavar="RUN [RUN ...]", help="Run folders.")]]
    data: str | None = None
    """Which evaluation, where runs were scored on several data sets: name of the data, or first digits of a digest."""
    names: tuple[str, ...] = ()
    """Labels, one per row or one per run; unset takes the method and the settings that differ."""
    over_training: bool = False
    """Show the scores that were taken during training instead, one table per method."""
    format: Literal["terminal", "markdown", "csv", "latex", "json", "html"] | None = None
    """Format of the printed table or of the file --out; unset: by the suffix of --out, else terminal."""
    out: Path | None = None
    """File to write: .md, .csv, .tex, .json or .html."""


def main(argv: Sequence[str]) -> int:
    """Collect, print or write."""
    options = parse(Compare, argv, "unpaired compare")
    if not options.runs:
        raise ConfigError("name at least one run: unpaired compare RUN [RUN ...]")
    kind = _format(options)
    from unpaired.reporting import formats, tables

    console = Console(width=None if sys.stdout.isatty() else _WIDTH, highlight=False)
    found: Any
    if options.over_training:
        found = tables.training_tables(options.runs, names=options.names)
        warnings = list(dict.fromkeys(words for table in found for words in table.warnings))
        writers: dict[str, Any] = {"markdown": formats.training_markdown, "csv": formats.training_csv}
        shown = [
            (_training_layout(table, console.width), table.footnotes("*"), dict.fromkeys(c for c, _ in table.columns))
            for table in found
        ]
    else:
        found = tables.collect(options.runs, options.data, names=options.names)
        warnings = list(found.warnings)
        writers = {"markdown": formats.to_markdown, "csv": formats.to_csv, "latex": formats.to_latex,
                   "json": formats.to_json}  # fmt: skip
        shown = [(_layout(found, console.width), found.footnotes("*"), dict.fromkeys(found.columns))]
    for words in warnings:
        print(f"warning: {words}", file=sys.stderr)
    text = writers[kind](found) if kind in writers else ""
    if options.out is None and kind != "terminal":
        sys.stdout.write(text)
        return 0
    if kind == "html" and options.out is not None:
        _write_page(options.out, found, argv)
    elif options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(options.out, text.encode())
    for found_tables, notes, columns in shown:
        for table in found_tables:
            console.print(table)
            console.print()
        for note in [*notes, *(f"{column.label}: {column.name}" for column in columns)]:
            console.print(Text(note), style="dim")
        console.print()
    if options.out is not None:
        print(f"wrote {options.out}", file=sys.stderr)
    return 0


def _format(options: Compare) -> str:
    """The format to print or write. Raises ``ConfigError`` if --format, --out and --over-training contradict."""
    if options.out is None:
        if options.format == "html":
            raise ConfigError("--format html is a page, not text for a terminal: name its file with --out FILE.html")
        kind: str = options.format or "terminal"
    else:
        of_suffix = _SUFFIXES.get(options.out.suffix.lower())
        kind = options.format or of_suffix or ""
        if not kind:
            raise ConfigError(
                f"--out {options.out}: unknown suffix; use one of {', '.join(_SUFFIXES)} or give --format"
            )
        if kind == "terminal":
            raise ConfigError(
                f"--format terminal is not written to a file: use > {shlex.quote(str(options.out))}, or another format"
            )
        if of_suffix not in (None, kind):
            raise ConfigError(f"--format {kind} contradicts --out {options.out}; drop one")
    if options.over_training and kind not in _TRAINING_FORMATS:
        raise ConfigError(f"--over-training is for the terminal, markdown or csv, not {kind}")
    if options.over_training and options.data is not None:
        raise ConfigError("--data chooses among evaluations; --over-training shows the scores taken during training")
    return kind


def _write_page(path: Path, comparison: Comparison, argv: Sequence[str]) -> None:
    from unpaired.reporting import page

    labels = ", ".join(dict.fromkeys(row.label for row in comparison.rows if not row.reference))
    title = f"{labels}: scores on {last_part(comparison.data.name)}"
    sections = [page.heading(title, "Compared from the records of the runs."), page.score_table(comparison)]
    if comparison.warnings:
        sections.append(page.notes(comparison.warnings, title="Warnings"))
    page.write_page(path, title, [*sections, page.command(shlex.join(["unpaired", "compare", *argv]))],
                    places=[Path(run) for row in comparison.rows for run in row.runs])  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------------
# the terminal
# ---------------------------------------------------------------------------------------------------------------------
class _Column(NamedTuple):
    """A column of a terminal table."""

    head: Text
    cells: Sequence[Text]
    width: int
    left: bool = False


def _layout(comparison: Comparison, width: int) -> list[Table]:
    """The comparison as tables of at most ``width`` characters, the scores spread over as many as necessary."""
    rows = comparison.rows
    new = [place == 0 or row.label != rows[place - 1].label for place, row in enumerate(rows)]
    lead = [
        _words("method", [row.label if first else "" for row, first in zip(rows, new, strict=True)], left=True),
        _words("weights", [row.weights_words for row in rows], left=True),
    ]
    first = [*lead, _words("images seen", [row.images_words for row in rows])]
    if any(len(row.runs) > 1 for row in rows if not row.reference):
        first.append(_words("seeds", ["" if row.reference else str(len(row.runs)) for row in rows]))
    columns = zip(comparison.columns, zip(*comparison.cells(), strict=True), strict=True)
    scores = [_scores(column, "", cells) for column, cells in columns]
    sections = {place for place, begins in enumerate(new) if begins and place}
    return _tables(first, lead, scores, width, sections, {place for place, row in enumerate(rows) if row.reference})


def _training_layout(table: TrainingTable, width: int) -> list[Table]:
    """Scores over training as tables of at most ``width`` characters."""
    from unpaired.reporting.tables import WEIGHTS

    lead = [_words("images seen", [f"{seen:,}" for seen in table.images])]
    columns = zip(table.columns, zip(*table.cells(), strict=True), strict=True)
    scores = [_scores(column, WEIGHTS.get(weights, weights), cells) for (column, weights), cells in columns]
    found = _tables(lead, lead, scores, width)
    found[0].title, found[0].title_justify = Text(table.label, "bold"), "left"
    return found


def _tables(
    first: Sequence[_Column],
    others: Sequence[_Column],
    scores: Sequence[_Column],
    width: int,
    sections: Collection[int] = (),
    dim: Collection[int] = (),
) -> list[Table]:
    """Tables that begin with the columns ``first``, continuations with ``others``, filled up with scores."""
    parts: list[list[_Column]] = []
    for score in scores:
        if not parts or sum(column.width + _GAP for column in [*parts[-1], score]) > width:
            parts.append([*(others if parts else first)])
        parts[-1].append(score)
    found = []
    for columns in parts:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for column in columns:
            table.add_column(column.head, justify="left" if column.left else "right", width=column.width)
        for place, cells in enumerate(zip(*(column.cells for column in columns), strict=True)):
            if place in sections:
                table.add_section()
            table.add_row(*cells, style="dim" if place in dim else "")
        found.append(table)
    return found


def _words(head: str, cells: Sequence[str], left: bool = False) -> _Column:
    width = min(_LONGEST_LABEL, max(map(len, [head, *cells])))
    return _Column(Text(head), [Text(cell) for cell in cells], width, left)


def _scores(column: Column, weights: str, values: Sequence[Cell]) -> _Column:
    """The head is the label in at most two lines, direction and unit, weights."""
    cells = [_cell(value) for value in values]
    lines = [line for cell in cells for line in cell.plain.split("\n")]
    width = max(_SHORT_LABEL, *(len(line) - 1 for line in lines), *map(len, column.label.split()))
    while len(label := textwrap.wrap(column.label, width)) > 2:
        width += 1
    head = [f"{line} " for line in [*label, f"{column.arrow} {column.unit}".rstrip(), weights] if line]
    return _Column(Text("\n".join(head)), cells, max(map(len, [*head, *lines])))


def _cell(cell: Cell) -> Text:
    """A value, with a star on the best (a pipe shows no bold) and an interval on a line of its own."""
    star, style = ("*", "bold") if cell.best else (" ", "")
    if cell.beside.startswith(("[", "(")):
        return Text.assemble((f"{cell.mean}{star}", style), "\n", (f"{cell.beside} ", "dim"))
    return Text(f"{cell}{star}", style)
