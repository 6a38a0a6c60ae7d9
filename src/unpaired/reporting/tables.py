"""Scores of several runs in one table, mean ± std over seeds; scores under different protocols are rejected."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from unpaired.data.sizes import size_words
from unpaired.errors import ConfigError
from unpaired.files import last_part
from unpaired.reporting.agreement import check_agreement, differing_references, score_differences
from unpaired.reporting.records import (
    DataRecord,
    EvaluationRecord,
    best_choice,
    newest_evaluation,
    score_frame,
    training_frame,
)
from unpaired.reporting.rows import group_runs

WEIGHTS = {"ema": "EMA", "last": "last", "best": "best"}
"""Row of an evaluation -> its name in tables, in the order of the rows of one method."""
DASH = "\N{EN DASH}"


@dataclass(frozen=True)
class Column:
    """One score."""

    name: str
    """Full name, with counts: only values of one full name are comparable."""
    metric: str
    """Name without counts."""
    label: str
    unit: str
    better: Literal["lower", "higher"]
    protocol: str

    @property
    def arrow(self) -> str:
        """The direction of better values."""
        return "↓" if self.better == "lower" else "↑"

    @property
    def heading(self) -> str:
        """Label, direction and unit."""
        return f"{self.label} {self.arrow}" + (f" ({self.unit})" if self.unit else "")


@dataclass(frozen=True)
class Row:
    """One set of weights of one method, or a reference."""

    label: str
    weights: str
    """``ema``, ``last``, ``best``, ...; empty for a reference."""
    reference: bool
    """Reference rows (untranslated inputs, real images) are excluded from ranking."""
    images_seen: tuple[int, ...]
    """Training images of these weights, per run; empty for a reference and if nothing was trained."""
    runs: tuple[str, ...]

    @property
    def chosen(self) -> bool:
        """Whether the weights were chosen by their scores; such rows are excluded from ranking."""
        return self.weights == "best"

    @property
    def weights_words(self) -> str:
        """``EMA``, ``last``, ``best †``; empty for a reference."""
        return WEIGHTS.get(self.weights, self.weights) + (" †" if self.chosen else "")

    @property
    def images_words(self) -> str:
        """``3,300``, or the range if the seeds differ."""
        if not self.images_seen:
            return ""
        return " to ".join(f"{seen:,}" for seen in sorted({min(self.images_seen), max(self.images_seen)}))


class Cell(NamedTuple):
    """One printed value."""

    mean: str = DASH
    beside: str = ""
    """Deviation over seeds, interval or spread over images, missing seeds."""
    best: bool = False
    """Whether it is the best of its column."""
    exact: float = math.nan

    def __str__(self) -> str:
        return f"{self.mean} {self.beside}".rstrip()


@dataclass(frozen=True)
class Comparison:
    """The table of ``unpaired compare``."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    """Untranslated inputs, then the rows of each method, then the other references."""
    values: pd.DataFrame
    """One line per measured value, indexed by (number of the row, full name of the column): ``mean`` over the seeds;
    ``sd``, their sample standard deviation; ``n`` seeds; ``spread`` over subsets of the images and ``low`` and ``high``
    of the 95 % interval over images, averaged over the seeds and NaN unless all have it; ``name``, which differs from
    the column's if a reference counts other images."""
    data: DataRecord
    """The images that all were scored on."""
    seed: int
    """Of the scores that draw at random."""
    networks: Mapping[str, tuple[str, str]]
    """Name -> (title, digest) of the networks behind the scores."""
    remarks: tuple[str, ...]
    """How the best weights were chosen, one sentence per way."""
    warnings: tuple[str, ...]
    """Skipped lines, and references on which the runs differ."""

    def cells(self) -> list[list[Cell]]:
        """The printed values, row by row."""
        found = [[Cell()] * len(self.columns) for _ in self.rows]
        seeds = [1 if row.reference else len(row.runs) for row in self.rows]
        ranked = {n for n, row in enumerate(self.rows) if not (row.reference or row.chosen)}
        own = {n for n, row in enumerate(self.rows) if not row.reference}
        for at, column in enumerate(self.columns):
            for place, cell in _printed(self.values, column, own, ranked, seeds).items():
                found[place][at] = cell
        return found

    def footnotes(self, best: str = "bold", *, references: bool = True) -> list[str]:
        """Notes below the table, without the full names of the scores.

        Args:
            best: How the best of a column is marked.
            references: Whether the table shows the intervals of references.
        """
        shown = self.values
        if not references:
            shown = shown[[not self.rows[place].reference for place, _ in shown.index]]
        alone = shown[shown["n"] == 1]
        told = [f"† {remark}" for remark in self.remarks]
        if (shown["n"] > 1).any():
            told.append("± standard deviation over training seeds")
        if alone["low"].notna().any():
            told.append("[ ] 95 % interval over images")
        if (alone["low"].isna() & alone["spread"].notna()).any():
            told.append("( ) standard deviation over subsets of the images")
        if any(cell.best for row in self.cells() for cell in row):
            told.append(f"{best}: best of its column; reference rows and † are excluded from ranking")
        data = self.data
        name = last_part(data.name) if PureWindowsPath(data.name).root else data.name
        told.append(
            f"data: {name}, {data.source_images} source and {data.target_images} target images at "
            f"{size_words(data.image_size)} px (digests {data.source_digest}, {data.target_digest}); seed of the "
            f"scores: {self.seed}"
        )
        if self.networks:
            listed = (f"{title} ({digest})" for title, digest in self.networks.values())
            told.append(f"networks: {', '.join(listed)}")
        return told


def collect(runs: Sequence[str | Path], data: str | None = None, *, names: Sequence[str] = ()) -> Comparison:
    """Make one table of the newest evaluations of several runs.

    Args:
        runs: Run folders; runs that differ only in their seed become one row. A folder of images made by other software
            stands under its own name, once 'unpaired evaluate' has scored it.
        data: Which data set, if runs were scored on several; see :func:`newest_evaluation`.
        names: Labels, one per row or per run, instead of method and settings.

    Raises:
        DataError: A folder is no run, or has no scores.
        ConfigError: The scores are not comparable (the message says what differs between which runs), a run or a seed
            occurs twice, or ``names`` do not fit.
    """
    folders = [Path(run) for run in runs]
    warnings: list[str] = []
    records = [newest_evaluation(run, data, warnings.append) for run in folders]
    groups = group_runs(folders, images_seen=[record.images_seen for record in records], names=names)
    frame = score_frame(records)
    check_agreement(records, frame)
    references = frame[frame["reference"]]
    warnings += differing_references(references)
    own = frame[~frame["reference"]]
    columns = _columns(own, references)
    own = own.assign(
        group=own["run"].map({run: n for n, group in enumerate(groups) for run in group.runs}),
        weights=own["row"].map({key: place for place, key in enumerate(WEIGHTS)}).fillna(len(WEIGHTS)),
    )
    parts: list[tuple[Row, pd.DataFrame]] = []
    for (group, _, key), found in own.groupby(["group", "weights", "row"]):
        seen = found.drop_duplicates("run")
        images = tuple(int(number) for number in seen["images_seen"] if number)
        parts.append((Row(groups[group].label, key, False, images, tuple(map(str, seen["run"]))), found))
    for key, found in references.groupby("row", sort=False):
        first_of_each = found.drop_duplicates("name")  # all runs were scored on the same images
        others = first_of_each.loc[~first_of_each["full_name"].isin([column.name for column in columns]), "counts"]
        label = found["row_label"].iloc[0] + (f" ({', '.join(dict.fromkeys(others))})" if len(others) else "")
        row = Row(label, "", True, (), tuple(map(str, found["run"].unique())))
        parts.insert(0 if key == "input" else len(parts), (row, first_of_each))
    numbered = pd.concat([found.assign(place=n) for n, (_, found) in enumerate(parts)])
    full = {column.metric: column.name for column in columns}
    return Comparison(
        columns=columns,
        rows=tuple(row for row, _ in parts),
        values=_average(numbered.assign(column=numbered["name"].map(full)), ["place", "column"]),
        data=records[0].data,
        seed=records[0].seed,
        networks={name: (network.title, network.digest) for record in reversed(records)
                  for name, network in record.networks.items()},
        remarks=tuple(dict.fromkeys(_how_chosen(record) for record in records if record.scores.get("best"))),
        warnings=tuple(warnings),
    )  # fmt: skip


def _columns(*frames: pd.DataFrame) -> tuple[Column, ...]:
    """One column per metric, as its first score describes it."""
    fields = ["full_name", "name", "label", "unit", "better", "protocol"]
    return tuple(Column(*line) for line in pd.concat(frames).drop_duplicates("name")[fields].itertuples(index=False))


def _average(frame: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Mean and standard deviation of each score over runs, without missing values."""
    if_all = functools.partial(pd.Series.mean, skipna=False)
    with np.errstate(invalid="ignore"):  # infinite scores have no deviation
        return frame.dropna(subset="value").groupby(keys, sort=False).agg(
            mean=("value", "mean"), sd=("value", "std"), n=("value", "size"), spread=("spread", if_all),
            low=("low", if_all), high=("high", if_all), name=("full_name", "first"),
        )  # fmt: skip


def _how_chosen(record: EvaluationRecord) -> str:
    best = record.rows["best"]
    condition = "" if str(best.chosen_on).startswith("test") else " if those are the images scored here"
    return f"best: chosen by {best.score} on {best.chosen_on}: biased{condition}; never compare with another run's last"


# ---------------------------------------------------------------------------------------------------------------------
# printed values
# ---------------------------------------------------------------------------------------------------------------------
def number(value: float, digits: int) -> str:
    """Format a number.

    >>> [number(x, 1) for x in (31.25, -0.04, float("inf"), float("-inf"), float("nan"))]
    ['31.2', '0.0', '∞', '-∞', '–']
    """
    if math.isnan(value):
        return DASH
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    words = f"{value:.{digits}f}"
    return words.removeprefix("-") if float(words) == 0 else words


def digits_for(values: pd.DataFrame) -> int:
    """Digits after the point: as many as show two figures of the typical uncertainty (over seeds, else over images);
    if there is none, three of the typical value."""
    width = values["sd"].where(values["sd"] > 0).fillna((values["high"] - values["low"]) / 2).fillna(values["spread"])
    for sizes, figures in ((width, 1), (values["mean"].abs(), 2)):
        known = sizes[(sizes > 0) & (sizes < math.inf)]
        if len(known):
            return max(0, min(4, figures - math.floor(math.log10(known.median()))))
    return 1


def _beside(value: Any, digits: int, seeds: int) -> str:
    words = ""
    if value.n > 1:
        words = "" if math.isnan(value.sd) else f"± {number(value.sd, digits)}"
    elif not math.isnan(value.low):
        words = f"[{number(value.low, digits)}, {number(value.high, digits)}]"
    elif not math.isnan(value.spread):
        words = f"({number(value.spread, digits)})"
    return f"{words} {value.n} of {seeds}".strip() if value.n < seeds else words


def _printed(
    values: pd.DataFrame, column: Column, own: set[Any], ranked: set[Any], seeds: Mapping[Any, int] | Sequence[int]
) -> dict[Any, Cell]:
    """The cells of one column; of the ``ranked`` keys those that print like the best are marked, unless all do."""
    values = values[values.index.get_level_values(-1) == column.name].droplevel(-1)
    digits = digits_for(values[values.index.isin(own)] if own & {*values.index} else values)
    competing = values.loc[values.index.isin(ranked), "mean"].dropna()
    best = "" if competing.empty else number(competing.min() if column.better == "lower" else competing.max(), digits)
    level = all(number(mean, digits) == best for mean in competing)
    cells = {}
    for value in values.itertuples():
        mean = number(value.mean, digits)
        marked = mean == best and not level and value.Index in ranked
        cells[value.Index] = Cell(mean, _beside(value, digits, seeds[value.Index]), marked, value.mean)
    return cells


# ---------------------------------------------------------------------------------------------------------------------
# over training
# ---------------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class TrainingTable:
    """Scores of the runs of one row over training."""

    label: str
    """As in the comparison of runs."""
    runs: tuple[str, ...]
    """The run folders, one per seed."""
    columns: tuple[tuple[Column, str], ...]
    """Every score with every kind of weights."""
    images: tuple[int, ...]
    """Training images seen, one per line."""
    values: pd.DataFrame
    """As in :class:`Comparison`, indexed by (images seen, weights, full name of the score)."""
    chosen: Mapping[tuple[int, str, str], int]
    """(images seen, weights, full name) by which runs chose their best weights -> number of runs."""
    chosen_on: tuple[str, ...]
    """Which images were scored, in words."""
    warnings: tuple[str, ...]
    """Skipped lines."""

    def cells(self) -> list[list[Cell]]:
        """The printed values, one list per number of images; † marks weights that a run kept as its best."""
        printed: dict[tuple[int, str, str], Cell] = {}
        seeds, keys = len(self.runs), {*self.values.index.droplevel(-1)}
        for column in dict.fromkeys(column for column, _ in self.columns):
            for key, cell in _printed(self.values, column, keys, keys, dict.fromkeys(keys, seeds)).items():
                chosen = self.chosen.get((*key, column.name), 0)
                mark = f"†{chosen if seeds > 1 else ''}" if chosen else ""
                beside = f"{cell.beside if seeds > 1 else ''} {mark}".strip()
                printed[*key, column.name] = cell._replace(beside=beside)
        return [[printed.get((seen, w, column.name), Cell()) for column, w in self.columns] for seen in self.images]

    def footnotes(self, best: str = "bold") -> list[str]:
        """Notes below the table; ``best`` is how the best is marked."""
        told = [f"scored on {where}" for where in self.chosen_on]
        if any(cell.best for row in self.cells() for cell in row):
            told.append(f"{best}: best of its score over training, optimistically biased by that choice")
        if self.chosen:
            counted = "" if len(self.runs) == 1 else "; the number says by how many of the runs"
            told.append(f"† weights kept as the best of a run, by this score{counted}")
        if len(self.runs) > 1:
            told.append(f"± standard deviation over {len(self.runs)} training seeds")
        return told


def training_tables(runs: Sequence[str | Path], *, names: Sequence[str] = ()) -> list[TrainingTable]:
    """Tables over training from the ``scores.jsonl`` of several runs, one per method and settings.

    Args:
        runs: Run folders; runs that differ only in their seed share a table.
        names: Labels, one per table or per run.

    Raises:
        DataError: A folder is no run, or nothing was scored while it trained.
        ConfigError: Scores differ in protocol or counts, a run or a seed occurs twice, or ``names`` do not fit.
    """
    folders = [Path(run) for run in runs]
    groups = group_runs(folders, names=names)
    warnings: dict[Path, list[str]] = {run: [] for run in folders}
    frames = {run: training_frame(run, warnings[run].append) for run in folders}
    every = pd.concat(frames.values())
    if differences := score_differences(every):
        raise ConfigError(f"the scores over training cannot be compared: {'; '.join(differences)}")
    tables = []
    for group in groups:
        frame = pd.concat([frames[run] for run in group.runs])
        best = [best_choice(run, warnings[run].append) for run in group.runs]
        chosen = Counter((one.images_seen, str(one.weights), one.score) for one in best if one is not None)
        values = _average(frame, ["images_seen", "weights", "full_name"]).sort_index()
        have = {*values.index.get_level_values("full_name")}
        weights = sorted({*values.index.get_level_values("weights")})
        tables.append(
            TrainingTable(
                label=group.label,
                runs=tuple(map(str, group.runs)),
                columns=tuple((column, one) for column in _columns(every) if column.name in have for one in weights),
                images=tuple(sorted({*values.index.get_level_values("images_seen")})),
                values=values,
                chosen=chosen,
                chosen_on=tuple(frame["chosen_on"].unique()),
                warnings=tuple(words for run in group.runs for words in warnings[run]),
            )
        )
    return tables
