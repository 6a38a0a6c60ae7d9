"""The scores in a run folder (``evaluations.jsonl``, ``scores.jsonl``), validated and turned into data frames."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import pandas as pd
from pydantic import AfterValidator, BeforeValidator, Field

from unpaired.config import checked, stored
from unpaired.errors import ConfigError, DataError
from unpaired.files import ignore, last_part, read_json, read_json_lines
from unpaired.run_folder import BestRecord

Record = TypeVar("Record")
Warn = Callable[[str], object]


def _number(value: Any) -> Any:
    """NaN becomes ``None``; infinities are written as 'inf' and '-inf'."""
    value = float(value) if value in ("inf", "-inf") else value
    return None if isinstance(value, float) and math.isnan(value) else value


def value_protocol(recorded: str) -> str:
    """A protocol without what earlier versions said in it of the interval, which does not change the value."""
    return recorded.removesuffix(", interval by bootstrap over images")


Number = Annotated[float | None, BeforeValidator(_number)]


@stored
class ScoreRecord:
    """One measured value."""

    name: str
    label: str
    unit: str
    better: Literal["lower", "higher"]
    protocol: Annotated[str, AfterValidator(value_protocol)]
    images: int
    reference_images: int
    value: Number
    """``None`` if it could not be measured."""
    spread: Number = None
    """Standard deviation over subsets of the images."""
    interval: Annotated[list[Number], Field(min_length=2, max_length=2)] | None = None
    """95 % interval over images."""

    @property
    def counts(self) -> str:
        """Generated and real images, e.g. ``120v140``."""
        return f"{self.images}v{self.reference_images}"

    @property
    def full_name(self) -> str:
        """With counts, such as ``kid_lite0_x1e3_120v140``: only values of one full name are comparable."""
        return f"{self.name}_{self.counts}"


@stored
class DataRecord:
    """The images that were scored."""

    name: str
    source_digest: str
    target_digest: str
    source_images: int
    target_images: int
    image_size: int | tuple[int, int]

    @property
    def digests(self) -> tuple[str, str]:
        """Of source and target images."""
        return self.source_digest, self.target_digest

    def __str__(self) -> str:
        return f"{self.name} (source {self.source_digest[:8]}, target {self.target_digest[:8]})"


@stored
class NetworkRecord:
    """A network behind a score."""

    title: str
    digest: str
    """Of its weights."""


@stored
class RowRecord:
    """One set of scored images; the last three fields say how the best weights were chosen."""

    label: str
    reference: bool
    images_seen: int | None = None
    score: str | None = None
    chosen_on: str | None = None


@stored
class EvaluationRecord:
    """One line of ``evaluations.jsonl``."""

    run: Path
    format: Literal[2]
    """Older lines have none, and no protocols."""
    images_seen: int
    seed: int
    data: DataRecord
    networks: dict[str, NetworkRecord]
    rows: dict[str, RowRecord]
    scores: dict[str, dict[str, ScoreRecord]]
    """Row -> full name -> score."""

    def __post_init__(self) -> None:
        if alone := [name for name in self.scores if name not in self.rows]:
            raise ValueError(f"the row '{alone[0]}' has scores but is not described")
        if not any(found and not self.rows[name].reference for name, found in self.scores.items()):
            raise ValueError("it holds no scores of translations")
        best = self.rows.get("best")
        if best is not None and None in (best.images_seen, best.score, best.chosen_on):
            raise ValueError("it does not say how the best weights were chosen")


@stored
class TrainingRecord:
    """One line of ``scores.jsonl``: the scores of one set of weights at one time of training."""

    images_seen: int
    weights: str
    chosen_on: str
    scores: dict[str, ScoreRecord]


def evaluations(run: Path, warn: Warn = ignore) -> list[EvaluationRecord]:
    """All comparable evaluations of a run, oldest first.

    ``warn`` is called with one sentence per line that is skipped because it is damaged or too old.

    Raises:
        DataError: The file cannot be read.
    """
    path = run / "evaluations.jsonl"
    entries = list(_entries(path, warn))
    known = [(where, entry) for where, entry in entries if "format" in entry]
    found = [*_records(EvaluationRecord, ((where, {**entry, "run": run}) for where, entry in known), warn)]
    if old := len(entries) - len(known):
        which = "1 evaluation was" if old == 1 else f"{old} evaluations were"
        warn(f"{path}: {which} recorded before protocols and digests were; skipped")
    return found


def newest_evaluation(run: Path, data: str | None = None, warn: Warn = ignore) -> EvaluationRecord:
    """The newest comparable evaluation of a run.

    Args:
        run: A run folder.
        data: Name of the data, the last part of its path, or at least 6 digits from the start of one of its digests.
        warn: As in :func:`evaluations`.

    Raises:
        DataError: There is no such folder, or no such evaluation; the message names the command that makes one.
        ConfigError: ``data`` fits several sets of images.
    """
    if not run.is_dir():
        raise DataError(f"{run}: there is no such run folder")
    warnings: list[str] = []
    found = evaluations(run, warnings.append)
    for words in warnings:
        warn(words)
    advice = f"run '{shlex.join(['unpaired', 'evaluate', str(run), *([data] if data else [])])}'"
    if not found:
        raise DataError(f"{run} has no scores to compare ({'; '.join(warnings) or 'it was never evaluated'}); {advice}")
    if chosen := found if data is None else _of_data(run, found, data):
        return chosen[-1]
    known = ", ".join(dict.fromkeys(str(one.data) for one in found))
    raise DataError(f"{run} was not evaluated on '{data}' (but on {known}); {advice}")


def _of_data(run: Path, records: Sequence[EvaluationRecord], wanted: str) -> list[EvaluationRecord]:
    """Evaluations on the data of this name; if there are none, of this last part of a path, then of this digest."""
    if exact := [one for one in records if one.data.name == wanted]:
        return exact
    found = [one for one in records if last_part(one.data.name) == last_part(wanted)]
    if not found and len(wanted) >= 6:
        found = [one for one in records if any(digest.startswith(wanted) for digest in one.data.digests)]
    different = {one.data.digests: str(one.data) for one in found}
    if len(different) > 1:
        raise ConfigError(
            f"--data {wanted} fits several sets of images in {run}: {', '.join(different.values())}; "
            "give the first digits of a digest that only one of them has"
        )
    return found


def score_frame(records: Iterable[EvaluationRecord]) -> pd.DataFrame:
    """One line per run, row and score.

    Returns:
        Columns ``run``, ``row``, ``row_label``, ``reference``, ``images_seen``, ``full_name``, ``counts``, ``low`` and
        ``high`` (the interval), and the fields of :class:`ScoreRecord`.
    """
    return _frame(
        {"run": one.run, "row": key, "row_label": one.rows[key].label, "reference": one.rows[key].reference,
         "images_seen": one.rows[key].images_seen or one.images_seen, **_line(score)}
        for one in records for key, scores in one.scores.items() for score in scores.values()
    )  # fmt: skip


def training_frame(run: Path, warn: Warn = ignore) -> pd.DataFrame:
    """Scores measured during training (``scores.jsonl``), sorted by images seen, EMA before last.

    If a time was scored twice, as after a crash, the later line counts.

    Returns:
        One line per time, weights and score: columns ``run``, ``images_seen``, ``weights``, ``chosen_on``, and those of
        a score as in :func:`score_frame`.

    Raises:
        DataError: There is no such run, or nothing in it was scored during training.
    """
    if not run.is_dir():
        raise DataError(f"{run}: there is no such run folder")
    records = _records(TrainingRecord, _entries(run / "scores.jsonl", warn), warn)
    latest = {(one.images_seen, one.weights): one for one in records}
    if not any(one.scores for one in latest.values()):
        raise DataError(
            f"{run} has no scores over training (scores.jsonl is absent or holds none): it was trained without "
            "held-out images, with --score-every 0, or by an older version"
        )
    return _frame(
        {"run": run, "images_seen": seen, "weights": weights, "chosen_on": one.chosen_on, **_line(score)}
        for (seen, weights), one in sorted(latest.items()) for score in one.scores.values()
    )  # fmt: skip


def best_choice(run: Path, warn: Warn = ignore) -> BestRecord | None:
    """How a run chose its best weights; ``None`` if it has none."""
    path = run / "weights" / "best.json"
    try:
        return checked(BestRecord, read_json(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        warn(f"{path} is skipped: {error}")
        return None


def _entries(path: Path, warn: Warn) -> Iterable[tuple[str, dict[str, Any]]]:
    try:
        yield from read_json_lines(path, warn)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _records(kind: type[Record], entries: Iterable[tuple[str, dict[str, Any]]], warn: Warn) -> Iterator[Record]:
    for where, entry in entries:
        try:
            yield checked(kind, entry)
        except ValueError as error:
            warn(f"{where} is skipped: {error}")


def _line(score: ScoreRecord) -> dict[str, Any]:
    low, high = score.interval or (None, None)
    return {**vars(score), "full_name": score.full_name, "counts": score.counts, "low": low, "high": high}


def _frame(lines: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    with pd.option_context("mode.string_storage", "python"):  # Arrow's text holds no names that are not UTF-8
        return pd.DataFrame(list(lines)).astype(dict.fromkeys(("value", "spread", "low", "high"), float))
