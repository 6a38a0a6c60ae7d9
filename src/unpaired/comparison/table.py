"""The table: which runs make a row, the mean over their seeds, and what has to be said below it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from unpaired.comparison.agreement import check_agreement, differing_references
from unpaired.comparison.groups import Group, group_runs
from unpaired.comparison.records import DataRecord, EvaluationRecord, ScoreRecord, newest_evaluation

WEIGHTS = {"ema": "EMA", "last": "last", "best": "best"}
"""Key of a row of an evaluation -> word of the table, in the order of the rows of one method."""
FLOOR = "input"
"""The reference that stands on top; the others are ceilings and stand at the bottom."""


@dataclass(frozen=True)
class Column:
    """One score."""

    name: str
    """Full name, with counts: what makes two values comparable."""
    metric: str
    """Name without counts."""
    label: str
    unit: str
    better: Literal["lower", "higher"]
    protocol: str

    @property
    def arrow(self) -> str:
        return "↓" if self.better == "lower" else "↑"


@dataclass(frozen=True)
class Value:
    """One score of one row.

    Attributes:
        mean: Over the seeds; may be infinite, not a number where infinities cancel.
        sd: Sample standard deviation over the seeds; ``None`` for one, or where a value is infinite.
        n: Seeds that have this score.
        spread: Standard deviation over subsets of the images, mean over the seeds, where all have it.
        interval: 95 % bootstrap interval over images, each bound averaged over the seeds, where all have it.
        name: Full name of the score, which differs from the column's where a reference counts other images.
    """

    mean: float
    sd: float | None
    n: int
    spread: float | None
    interval: tuple[float, float] | None
    name: str


@dataclass(frozen=True)
class Row:
    """One set of weights of one method, or a reference.

    Attributes:
        label: Method and settings, or the words of the reference.
        weights: ``ema``, ``last``, ``best``, ...; empty for a reference.
        reference: Whether it is a floor or a ceiling, which competes with nobody.
        values: Full name of a column -> value; absent where nobody measured it.
        images_seen: Training images of these weights, per run; empty for a reference and where nobody trained.
        runs: The run folders.
    """

    label: str
    weights: str
    reference: bool
    values: Mapping[str, Value]
    images_seen: tuple[int, ...]
    runs: tuple[str, ...]

    @property
    def chosen(self) -> bool:
        """Whether the weights were chosen by their scores, so that the row competes with nobody."""
        return self.weights == "best"

    @property
    def images_words(self) -> str:
        """``3,300``, or the range where the seeds differ."""
        if not self.images_seen:
            return ""
        return " to ".join(f"{seen:,}" for seen in sorted({min(self.images_seen), max(self.images_seen)}))


@dataclass(frozen=True)
class Comparison:
    """What ``unpaired compare`` shows.

    Attributes:
        columns: The scores.
        rows: Floor, then the rows of each method, then ceilings.
        data: The images that all were scored on.
        seed: Of the scores that draw at random.
        networks: Name -> (title, digest) of the networks behind the scores.
        remarks: How the best weights were chosen, one sentence per way.
        warnings: Lines that were passed over, and references on which the runs differ.
    """

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    data: DataRecord
    seed: int
    networks: Mapping[str, tuple[str, str]]
    remarks: tuple[str, ...]
    warnings: tuple[str, ...]


def collect(runs: Sequence[Path], data: str | None = None, *, names: Sequence[str] = ()) -> Comparison:
    """Make one table of the newest evaluations of several runs.

    Args:
        runs: Run folders; those that differ only in their seed become one row. A folder of images that some other
            software made stands under its own name, once 'unpaired evaluate' has scored it.
        data: Which data set, where runs were scored on several; see ``newest_evaluation``.
        names: Labels, one per row or per run, instead of method and settings.

    Raises:
        DataError: A folder is no run, or has no scores.
        ConfigError: The runs' scores cannot be compared (the message says what differs between which), a run or a seed
            occurs twice, or ``names`` do not fit.
    """
    warnings: list[str] = []
    records = [newest_evaluation(run, data, warnings.append) for run in runs]
    groups = group_runs(runs, images_seen=[record.images_seen for record in records], names=names)
    check_agreement(records)
    warnings += differing_references(records)
    columns = columns_of(
        score for reference in (False, True) for record in records for score in _scores(record, reference)
    )
    of_run = dict(zip(runs, records, strict=True))
    references = _references(records, columns)
    rows = [row for key, row in references.items() if key == FLOOR]
    for group in groups:
        rows += _rows(group, [of_run[run] for run in group.runs], columns)
    rows += [row for key, row in references.items() if key != FLOOR]
    return Comparison(
        columns=columns,
        rows=tuple(rows),
        data=records[0].data,
        seed=records[0].seed,
        networks={name: network for record in reversed(records) for name, network in record.networks.items()},
        remarks=tuple(dict.fromkeys(_how_chosen(record) for record in records if "best" in record.scores)),
        warnings=tuple(warnings),
    )


def columns_of(scores: Iterable[ScoreRecord]) -> tuple[Column, ...]:
    """One column per metric, as its first score describes it."""
    first: dict[str, ScoreRecord] = {}
    for score in scores:
        first.setdefault(score.name, score)
    return tuple(
        Column(score.full_name, score.name, score.label, score.unit, score.better, score.protocol)
        for score in first.values()
    )


def average(scores: Sequence[ScoreRecord]) -> Value | None:
    """Mean and standard deviation of one score over runs; ``None`` where no run has a value."""
    known = [(score, score.value) for score in scores if score.value is not None]
    if not known:
        return None
    values = [value for _, value in known]
    finite = all(map(math.isfinite, values))
    spreads = [score.spread for score, _ in known if score.spread is not None]
    intervals = [score.interval for score, _ in known if score.interval is not None]
    return Value(
        mean=statistics.fmean(values) if finite else sum(values),
        sd=statistics.stdev(values) if finite and len(values) > 1 else None,
        n=len(values),
        spread=statistics.fmean(spreads) if len(spreads) == len(known) else None,
        interval=(
            (statistics.fmean(low for low, _ in intervals), statistics.fmean(high for _, high in intervals))
            if len(intervals) == len(known)
            else None
        ),
        name=known[0][0].full_name,
    )


def _scores(record: EvaluationRecord, reference: bool) -> Iterable[ScoreRecord]:
    for row, scores in record.scores.items():
        if record.rows[row].reference == reference:
            yield from scores.values()


def _rows(group: Group, records: Sequence[EvaluationRecord], columns: Sequence[Column]) -> list[Row]:
    keys = dict.fromkeys(row for record in records for row in record.scores if not record.rows[row].reference)
    rows = []
    for key in sorted(keys, key=lambda key: [*WEIGHTS].index(key) if key in WEIGHTS else len(WEIGHTS)):
        having = [record for record in records if key in record.scores]
        seen = [record.rows[key].images_seen or record.images_seen for record in having]
        rows.append(
            Row(
                label=group.label,
                weights=key,
                reference=False,
                values=_values([record.scores[key] for record in having], columns),
                images_seen=tuple(number for number in seen if number),
                runs=tuple(str(record.run) for record in having),
            )
        )
    return rows


def _references(records: Sequence[EvaluationRecord], columns: Sequence[Column]) -> dict[str, Row]:
    """Every reference once: all runs were scored on the same images, so that the first value is everybody's."""
    found: dict[str, Row] = {}
    for key in dict.fromkeys(row for record in records for row in record.scores if record.rows[row].reference):
        having = [record for record in records if key in record.scores]
        first: dict[str, ScoreRecord] = {}
        for record in having:
            for score in record.scores[key].values():
                first.setdefault(score.full_name, score)
        values = _values([first], columns)
        others = dict.fromkeys(score.counts for score in first.values() if score.full_name not in values)
        label = having[0].rows[key].label + (f" ({', '.join(others)})" if others else "")
        found[key] = Row(label, "", True, values, (), tuple(str(record.run) for record in having))
    return found


def _values(scores: Sequence[Mapping[str, ScoreRecord]], columns: Sequence[Column]) -> dict[str, Value]:
    values = {}
    for column in columns:
        found = average([score for row in scores for score in row.values() if score.name == column.metric])
        if found is not None:
            values[column.name] = found
    return values


def _how_chosen(record: EvaluationRecord) -> str:
    best = record.rows["best"]
    flattered = "flattered" if best.chosen_on.startswith("test") else "flattered if those are the images scored here"
    return f"best: chosen by {best.score} on {best.chosen_on}: {flattered}; never compare with somebody's last"
