"""``unpaired compare``: one table of several runs, from their records."""

from __future__ import annotations

import shlex
import sys
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tyro.conf import Positional, arg

from unpaired.cli.options import parse
from unpaired.errors import ConfigError
from unpaired.files import write_atomically

if TYPE_CHECKING:
    from unpaired.reporting.tables import Cell, Column, Comparison, TrainingTable

_WIDTH = 110
"""Of what is printed into a file or a pipe."""
_LONGEST_LABEL = 34
_SHORT_LABEL = 11
"""Labels up to this length are not wrapped."""
_GAP = 3
"""Blanks between two columns, and the place of the star."""
_SUFFIXES = {".md": "markdown", ".csv": "csv", ".tex": "latex", ".json": "json", ".html": "html"}
_TRAINING_FORMATS = ("terminal", "markdown", "csv")


@dataclass(frozen=True)
class Compare:
    """Compare runs by the records that 'unpaired evaluate' left in their folders: one table, nothing is computed anew.

    Runs that differ only in their seed become one row with mean and standard deviation. Averaged (EMA), last and best
    weights stand side by side. Scores that mean different things (images, protocol, networks, seed) are refused.

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
    """Of what is printed, or written to --out; unset goes by the suffix of --out."""
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
    text = ""
    if options.over_training:
        found = tables.training_tables(options.runs, names=options.names)
        _warn(dict.fromkeys(words for table in found for words in table.warnings))
        if kind != "terminal":
            text = {"markdown": formats.training_markdown, "csv": formats.training_csv}[kind](found)
        shown = [
            (
                _training_layout(table, console.width),
                table.footnotes("*"),
                [*dict.fromkeys(c for c, _ in table.columns)],
            )
            for table in found
        ]
    else:
        comparison = tables.collect(options.runs, options.data, names=options.names)
        _warn(comparison.warnings)
        writers = {"markdown": formats.to_markdown, "csv": formats.to_csv, "latex": formats.to_latex,
                   "json": formats.to_json}  # fmt: skip
        if kind in writers:
            text = writers[kind](comparison)
        shown = [(_layout(comparison, console.width), comparison.footnotes("*"), list(comparison.columns))]
        if kind == "html" and options.out is not None:
            _write_page(options.out, comparison, argv)
    if options.out is None and kind != "terminal":
        sys.stdout.write(text)
        return 0
    if options.out is not None and kind != "html":
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(options.out, text.encode())
    for found_tables, notes, columns in shown:
        for table in found_tables:
            console.print(table)
            console.print()
        _below(console, notes, columns)
    if options.out is not None:
        print(f"wrote {options.out}", file=sys.stderr)
    return 0


def _format(options: Compare) -> str:
    """What to print or write. Raises ``ConfigError`` where --format, --out and --over-training do not fit."""
    if options.out is None:
        if options.format == "html":
            raise ConfigError("--format html is a page, not text for a terminal: name its file with --out FILE.html")
        kind: str = options.format or "terminal"
    else:
        of_suffix = _SUFFIXES.get(options.out.suffix.lower())
        kind = options.format or of_suffix or ""
        if not kind:
            raise ConfigError(
                f"--out {options.out}: the suffix names no format; use one of {', '.join(_SUFFIXES)} or give --format"
            )
        if kind == "terminal":
            raise ConfigError(f"--format terminal is not written to a file: use '> {options.out}' or another format")
        if of_suffix not in (None, kind):
            raise ConfigError(f"--format {kind} contradicts --out {options.out}; drop one")
    if options.over_training and kind not in _TRAINING_FORMATS:
        raise ConfigError(f"--over-training is for the terminal, markdown or csv, not {kind}")
    if options.over_training and options.data is not None:
        raise ConfigError("--data chooses among evaluations; --over-training shows the scores taken during training")
    return kind


def _warn(warnings: Iterable[str]) -> None:
    for words in warnings:
        print(f"warning: {words}", file=sys.stderr)


def _write_page(path: Path, comparison: Comparison, argv: Sequence[str]) -> None:
    from unpaired.reporting import page

    labels = ", ".join(dict.fromkeys(row.label for row in comparison.rows if not row.reference))
    title = f"{labels}: scores on {Path(comparison.data.name).name or comparison.data.name}"
    sections = [page.heading(title, "Compared from the records of the runs."), page.score_table(comparison)]
    if comparison.warnings:
        sections.append(page.notes(comparison.warnings, title="Warnings"))
    page.write_page(path, title, [*sections, page.command(shlex.join(["unpaired", "compare", *argv]))],
                    places=[Path(run) for row in comparison.rows for run in row.runs])  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------------
# the terminal
# ---------------------------------------------------------------------------------------------------------------------
def _layout(comparison: Comparison, width: int) -> list[Table]:
    """The comparison as tables of at most ``width`` characters, the scores spread over as many as it takes."""
    rows = comparison.rows
    several = any(len(row.runs) > 1 for row in rows if not row.reference)
    lead = [("method", [row.label for row in rows]), ("weights", [row.weights_words for row in rows])]
    first = [*lead, ("images seen", [row.images_words for row in rows])]
    if several:
        first.append(("seeds", ["" if row.reference else str(len(row.runs)) for row in rows]))
    by_column = zip(comparison.columns, zip(*comparison.cells(), strict=True), strict=True)
    scores = [(column, "", [_cell(cell) for cell in cells]) for column, cells in by_column]
    return _tables(first, lead, scores, [(row.label, row.reference) for row in rows], width)


def _training_layout(table: TrainingTable, width: int) -> list[Table]:
    """Scores over training as tables of at most ``width`` characters."""
    from unpaired.reporting.tables import WEIGHTS

    lead = [("images seen", [f"{seen:,}" for seen in table.images])]
    by_column = zip(table.columns, zip(*table.cells(), strict=True), strict=True)
    scores = [(column, WEIGHTS.get(w, w), [_cell(cell) for cell in cells]) for (column, w), cells in by_column]
    found = _tables(lead, lead, scores, [(f"{seen:,}", False) for seen in table.images], width, sections=False)
    found[0].title = Text(table.label, "bold")
    found[0].title_justify = "left"
    return found


def _tables(
    first: Sequence[tuple[str, Sequence[str]]],
    others: Sequence[tuple[str, Sequence[str]]],
    scores: Sequence[tuple[Column, str, Sequence[Text]]],
    groups: Sequence[tuple[str, bool]],
    width: int,
    *,
    sections: bool = True,
) -> list[Table]:
    """Tables that begin with the columns of words ``first``, on continuation ``others``, filled up with scores."""
    found: list[Table] = []
    waiting = list(scores)
    while waiting:
        lead = others if found else first
        used = sum(_lead_width(head, cells) + _GAP for head, cells in lead)
        taken = [waiting.pop(0)]
        used += _width(taken[0])
        while waiting and used + _width(waiting[0]) <= width:
            used += _width(waiting[0])
            taken.append(waiting.pop(0))
        found.append(_table(lead, taken, groups, sections))
    return found


def _table(
    lead: Sequence[tuple[str, Sequence[str]]],
    scores: Sequence[tuple[Column, str, Sequence[Text]]],
    groups: Sequence[tuple[str, bool]],
    sections: bool,
) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for place, (head, cells) in enumerate(lead):
        words = place < 2 and sections
        table.add_column(Text(head), justify="left" if words else "right", width=_lead_width(head, cells))
    for score in scores:
        table.add_column(_head(score), justify="right", width=_width(score) - _GAP)
    for place, (label, reference) in enumerate(groups):
        new = place == 0 or label != groups[place - 1][0]
        if sections and place and new:
            table.add_section()
        shown = [Text(words[place] if new or column else "") for column, (_, words) in enumerate(lead)]
        table.add_row(*shown, *(score[2][place] for score in scores), style="dim" if reference else "")
    return table


def _lead_width(head: str, cells: Sequence[str]) -> int:
    return min(_LONGEST_LABEL, max(map(len, [head, *cells])))


def _head(score: tuple[Column, str, Sequence[Text]]) -> Text:
    """The label in at most two lines, direction and unit, weights."""
    column, weights, cells = score
    words = max(map(len, column.label.split()), default=1)
    width = max(words, _SHORT_LABEL, *(len(line) - 1 for cell in cells for line in cell.plain.split("\n")))
    while len(label := textwrap.wrap(column.label, width)) > 2:
        width += 1
    return Text("\n".join(f"{line} " for line in [*label, f"{column.arrow} {column.unit}".rstrip(), weights] if line))


def _width(score: tuple[Column, str, Sequence[Text]]) -> int:
    texts = [_head(score), *score[2]]
    return max(len(line) for text in texts for line in text.plain.split("\n")) + _GAP


def _cell(cell: Cell) -> Text:
    """A value, a star on the best (a pipe shows no bold), and below it an interval of its own."""
    star, style = ("*", "bold") if cell.best else (" ", "")
    if cell.beside.startswith(("[", "(")):
        return Text.assemble((f"{cell.mean}{star}", style), "\n", (f"{cell.beside} ", "dim"))
    return Text(f"{cell}{star}", style)


def _below(console: Console, notes: Sequence[str], columns: Sequence[Column]) -> None:
    for note in notes:
        console.print(Text(note), style="dim")
    for column in columns:
        console.print(Text(f"{column.label}: {column.name}"), style="dim")
    console.print()
