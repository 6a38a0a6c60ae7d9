"""Scores over training: one table per method, and series for plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unpaired.comparison.agreement import score_differences
from unpaired.comparison.figures import NOTHING, beside, best_of, digits_for, number
from unpaired.comparison.groups import group_runs
from unpaired.comparison.records import TrainingRecord, best_choice, training_records
from unpaired.comparison.table import Column, Value, average, columns_of
from unpaired.errors import ConfigError

Cell = tuple[int, str, str]
"""(images seen, weights, full name of the score)."""


@dataclass(frozen=True)
class TrainingTable:
    """Scores of the runs of one row over training.

    Attributes:
        label: As in the comparison of runs.
        runs: The run folders, one per seed.
        columns: The scores.
        weights: ``ema`` and ``last``.
        images: Training images seen, one per line.
        values: Means over the seeds.
        best: The best values of each score, as printed.
        chosen: Scores by which a run kept its weights as the best -> how many runs did.
        chosen_on: Which images were scored, in words.
        warnings: Lines that were passed over.
    """

    label: str
    runs: tuple[str, ...]
    columns: tuple[Column, ...]
    weights: tuple[str, ...]
    images: tuple[int, ...]
    values: Mapping[Cell, Value]
    best: frozenset[Cell]
    chosen: Mapping[Cell, int]
    chosen_on: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def pairs(self) -> list[tuple[Column, str]]:
        """Columns of the printed table: every score by every kind of weights."""
        return [(column, weights) for column in self.columns for weights in self.weights]

    def digits(self, column: Column) -> int:
        """Digits after the point of one score."""
        return digits_for([value for (_, _, name), value in self.values.items() if name == column.name])

    def cell(self, seen: int, column: Column, weights: str) -> str:
        """The printed value with what stands beside it; † where weights were kept as the best by this score."""
        cell = (seen, weights, column.name)
        if cell not in self.values:
            return NOTHING
        value, digits = self.values[cell], self.digits(column)
        beside_it = beside(value, digits, len(self.runs)) if len(self.runs) > 1 else ""
        marks = "" if cell not in self.chosen else "†" if len(self.runs) == 1 else f"†{self.chosen[cell]}"
        return " ".join(word for word in (number(value.mean, digits), beside_it, marks) if word)

    def footnotes(self, best: str = "bold") -> list[str]:
        """What has to be said below the table; ``best`` is how the best is marked."""
        told = [f"scored on {where}" for where in self.chosen_on]
        if self.best:
            told.append(f"{best}: best of its score over training, and flattered by that choice")
        if self.chosen:
            counted = "" if len(self.runs) == 1 else "; the number says by how many of the runs"
            told.append(f"† weights kept as the best of a run, by this score{counted}")
        if len(self.runs) > 1:
            told.append(f"± standard deviation over {len(self.runs)} training seeds")
        return told


def training_table(runs: Sequence[Path], *, names: Sequence[str] = ()) -> list[TrainingTable]:
    """Tables over training from the ``scores.jsonl`` of several runs: one for each method and its settings.

    Args:
        runs: Run folders; those that differ only in their seed share a table.
        names: Labels, one per table or per run.

    Raises:
        DataError: A folder is no run, or nothing was scored while it trained.
        ConfigError: Scores differ in protocol or counts, a run or a seed occurs twice, or ``names`` do not fit.
    """
    groups = group_runs(runs, names=names)
    warnings: dict[Path, list[str]] = {run: [] for run in runs}
    records = {run: training_records(run, warnings[run].append) for run in runs}
    every = [(run, score, True) for run in runs for record in records[run] for score in record.scores.values()]
    if differences := score_differences(every):
        raise ConfigError(f"the scores over training cannot be compared: {'; '.join(differences)}")
    columns = columns_of(score for _, score, _ in every)
    return [
        _table(group.label, {run: records[run] for run in group.runs}, columns,
               [words for run in group.runs for words in warnings[run]])
        for group in groups
    ]  # fmt: skip


def _table(
    label: str, records: Mapping[Path, Sequence[TrainingRecord]], columns: Sequence[Column], warnings: list[str]
) -> TrainingTable:
    every = [record for found in records.values() for record in found]
    values: dict[Cell, Value] = {}
    for seen, weights in sorted({(record.images_seen, record.weights) for record in every}):
        here = [record.scores for record in every if (record.images_seen, record.weights) == (seen, weights)]
        for column in columns:
            found = average([scores[column.name] for scores in here if column.name in scores])
            if found is not None:
                values[seen, weights, column.name] = found
    known = tuple(column for column in columns if any(name == column.name for _, _, name in values))
    best: set[Cell] = set()
    for column in known:
        own = {cell: value for cell, value in values.items() if cell[2] == column.name}
        best |= best_of(own, column, digits_for(list(own.values())))
    chosen: dict[Cell, int] = {}
    for run in records:
        if (cell := best_choice(run, warnings.append)) is not None:
            chosen[cell] = chosen.get(cell, 0) + 1
    return TrainingTable(
        label=label,
        runs=tuple(map(str, records)),
        columns=known,
        weights=tuple(dict.fromkeys(weights for _, weights, _ in sorted(values, key=lambda cell: cell[1]))),
        images=tuple(sorted({seen for seen, _, _ in values})),
        values=values,
        best=frozenset(best),
        chosen=chosen,
        chosen_on=tuple(dict.fromkeys(record.chosen_on for record in every)),
        warnings=tuple(warnings),
    )


def training_series(run: Path) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Scores of one run over training, for plots.

    Returns:
        Full name of the score -> ``ema`` and ``last`` -> (images seen, value) in order; values may be infinite.

    Raises:
        DataError: There is no such run, or nothing was scored while it trained.
    """
    series: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for record in training_records(run):
        for name, score in record.scores.items():
            points = series.setdefault(name, {"ema": [], "last": []}).setdefault(record.weights, [])
            if score.value is not None:
                points.append((record.images_seen, score.value))
    return series
