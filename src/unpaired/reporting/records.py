"""The scores in a run folder (``evaluations.jsonl``, ``scores.jsonl``), read strictly and turned into data frames."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from unpaired.errors import ConfigError, DataError
from unpaired.files import read_json_lines

if TYPE_CHECKING:
    import pandas as pd

Record = TypeVar("Record")
Warn = Callable[[str], None]


def _number(value: Any) -> Any:
    """NaN is ``None``; the words 'inf' and '-inf' stand for what JSON cannot write."""
    value = float(value) if value in ("inf", "-inf") else value
    return None if isinstance(value, float) and math.isnan(value) else value


Number = Annotated[float | None, BeforeValidator(_number)]
record = dataclass(frozen=True, config=ConfigDict(strict=True))
"""Dataclasses of what a line holds; what else it holds is ignored."""


@record
class ScoreRecord:
    """One measured value."""

    full_name: str
    """With counts, such as ``kid_lite0_x1e3_120v140``."""
    name: str
    label: str
    unit: str
    better: Literal["lower", "higher"]
    protocol: str
    images: int
    reference_images: int
    value: Number
    """``None`` if it could not be measured; may be infinite."""
    spread: Number = None
    """Standard deviation over subsets of the images."""
    interval: Annotated[list[Number], Field(min_length=2, max_length=2)] | None = None
    """95 % bootstrap interval over images."""


Scores = Annotated[
    dict[str, ScoreRecord],
    BeforeValidator(
        lambda scores: (
            {name: {**score, "full_name": name} if isinstance(score, dict) else score for name, score in scores.items()}
            if isinstance(scores, dict)
            else scores
        )
    ),
]
"""Full name -> score."""


@record
class DataRecord:
    """The images that were scored."""

    name: str
    source_digest: str
    target_digest: str
    source_images: int
    target_images: int
    image_size: int | tuple[int, int]

    def __str__(self) -> str:
        return f"{self.name} (source {self.source_digest[:8]}, target {self.target_digest[:8]})"


@record
class NetworkRecord:
    """A network behind a score."""

    title: str
    digest: str
    """Of its weights."""


@record
class RowRecord:
    """One set of images that was scored; the last three say how the best weights were chosen."""

    label: str
    reference: bool
    images_seen: int | None = None
    score: str | None = None
    chosen_on: str | None = None


@record
class EvaluationRecord:
    """One line of ``evaluations.jsonl``."""

    run: Path
    format: Literal[2]
    """Lines without any are from before protocols were recorded."""
    images_seen: int
    seed: int
    data: DataRecord
    networks: dict[str, NetworkRecord]
    rows: dict[str, RowRecord]
    scores: dict[str, Scores]
    """Row -> full name -> score."""

    def __post_init__(self) -> None:
        if alone := [name for name in self.scores if name not in self.rows]:
            raise ValueError(f"the row '{alone[0]}' has scores but is not described")
        if not any(found and not self.rows[name].reference for name, found in self.scores.items()):
            raise ValueError("it holds no scores of translations")
        best = self.rows.get("best")
        if best is not None and None in (best.images_seen, best.score, best.chosen_on):
            raise ValueError("it does not say how the best weights were chosen")


@record
class TrainingRecord:
    """One line of ``scores.jsonl``: the scores of one set of weights at one time of training."""

    images_seen: int
    weights: str
    chosen_on: str
    scores: Scores


@record
class BestRecord:
    """``weights/best.json``: how a run chose its best weights."""

    images_seen: int
    weights: str
    score: str
    """Full name of the score."""
    value: Number = None


# ---------------------------------------------------------------------------------------------------------------------
# evaluations.jsonl
# ---------------------------------------------------------------------------------------------------------------------
def evaluations(run: Path, warn: Warn | None = None) -> list[EvaluationRecord]:
    """All evaluations of a run that can be compared, oldest first.

    Args:
        run: A run folder.
        warn: Called with one sentence per line that is skipped because it is damaged or too old.

    Raises:
        DataError: The file cannot be read.
    """
    warn = warn or _ignore
    found: list[EvaluationRecord] = []
    old = 0
    for where, entry in _entries(run / "evaluations.jsonl", warn):
        try:
            if "format" in entry:
                found.append(_checked(EvaluationRecord, {**entry, "run": run}))
            else:
                old += 1
        except ValueError as error:
            warn(f"{where} is skipped: {error}")
    if old:
        which = "1 evaluation was" if old == 1 else f"{old} evaluations were"
        warn(f"{run / 'evaluations.jsonl'}: {which} recorded before protocols and digests were; skipped")
    return found


def newest_evaluation(run: Path, data: str | None = None, warn: Warn | None = None) -> EvaluationRecord:
    """The last line of ``evaluations.jsonl`` that can be compared.

    Args:
        run: A run folder.
        data: Name of the data, the last part of its path, or the first digits (6 at least) of one of its digests.
        warn: As in :func:`evaluations`.

    Raises:
        DataError: There is no such folder, or no such evaluation; the message names the command that makes one.
        ConfigError: ``data`` fits several sets of images.
    """
    if not run.is_dir():
        raise DataError(f"{run}: there is no such run folder")
    warnings: list[str] = []
    found = evaluations(run, warnings.append)
    for words in warnings if warn else ():
        warn(words)  # type: ignore[misc]
    advice = f"run 'unpaired evaluate {shlex.quote(str(run))} {shlex.quote(data or 'DATA')}'"
    if not found:
        raise DataError(f"{run} has no scores to compare ({'; '.join(warnings) or 'it was never evaluated'}); {advice}")
    if data is None:
        return found[-1]
    chosen = _of_data(run, found, data)
    if not chosen:
        known = ", ".join(dict.fromkeys(str(record.data) for record in found))
        raise DataError(f"{run} was not evaluated on '{data}' (but on {known}); {advice}")
    return chosen[-1]


def _of_data(run: Path, records: Sequence[EvaluationRecord], wanted: str) -> list[EvaluationRecord]:
    """Evaluations whose data has this name; if there are none, this last part of a path, then this digest."""

    def fits(data: DataRecord) -> tuple[bool, ...]:
        digests = (data.source_digest, data.target_digest)
        by_digest = len(wanted) >= 6 and any(digest.startswith(wanted) for digest in digests)
        return data.name == wanted, Path(data.name).name == Path(wanted).name, by_digest

    for test in range(3):
        found = [record for record in records if fits(record.data)[test]]
        different = {(record.data.source_digest, record.data.target_digest): str(record.data) for record in found}
        if test and len(different) > 1:
            raise ConfigError(
                f"--data {wanted} fits several sets of images in {run}: {', '.join(different.values())}; "
                "give the first digits of a digest that only one of them has"
            )
        if found:
            return found
    return []


def score_frame(records: Iterable[EvaluationRecord]) -> pd.DataFrame:
    """One line per run, row and score.

    Returns:
        Columns ``run``, ``row``, ``row_label``, ``reference``, ``images_seen``, ``low`` and ``high`` (the interval),
        and the fields of :class:`ScoreRecord`.
    """
    lines = []
    for record in records:
        for key, scores in record.scores.items():
            row = record.rows[key]
            seen = 0 if row.reference else row.images_seen or record.images_seen
            about = {"run": record.run, "row": key, "row_label": row.label, "reference": row.reference,
                     "images_seen": seen}  # fmt: skip
            lines += [about | _line(score) for score in scores.values()]
    return _frame(lines)


# ---------------------------------------------------------------------------------------------------------------------
# scores.jsonl
# ---------------------------------------------------------------------------------------------------------------------
def training_frame(run: Path, warn: Warn | None = None) -> pd.DataFrame:
    """Scores taken while a run was trained, sorted by images seen, EMA before last.

    If a time was scored twice, as after a crash, the later line counts.

    Returns:
        One line per time, weights and score: columns ``run``, ``images_seen``, ``weights``, ``chosen_on``, ``low``,
        ``high``, and the fields of :class:`ScoreRecord`.

    Raises:
        DataError: There is no such run, or nothing in it was scored during training.
    """
    if not run.is_dir():
        raise DataError(f"{run}: there is no such run folder")
    warn = warn or _ignore
    found: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for where, entry in _entries(run / "scores.jsonl", warn):
        try:
            record = _checked(TrainingRecord, entry)
        except ValueError as error:
            warn(f"{where} is skipped: {error}")
        else:
            about = {"run": run, "images_seen": record.images_seen, "weights": record.weights,
                     "chosen_on": record.chosen_on}  # fmt: skip
            found[record.images_seen, record.weights] = [about | _line(score) for score in record.scores.values()]
    lines = [line for key in sorted(found) for line in found[key]]  # 'ema' sorts before 'last'
    if not lines:
        raise DataError(
            f"{run} has no scores over training (scores.jsonl is absent or holds none): it was trained without "
            "held-out images, with --score-every 0, or by an older version"
        )
    return _frame(lines)


def best_choice(run: Path, warn: Warn | None = None) -> BestRecord | None:
    """How a run chose its best weights; ``None`` if it kept none."""
    path = run / "weights" / "best.json"
    if not path.exists():
        return None
    try:
        return _checked(BestRecord, json.loads(path.read_bytes()))
    except (OSError, ValueError) as error:
        (warn or _ignore)(f"{path} is skipped: {error}")
        return None


# ---------------------------------------------------------------------------------------------------------------------
# both
# ---------------------------------------------------------------------------------------------------------------------
def _checked(kind: type[Record], entry: Mapping[str, Any]) -> Record:
    """Build a record; a ``ValueError`` says in one sentence what is wrong."""
    try:
        # As JSON, because strict types take no list for a tuple and no mapping for a record otherwise.
        return TypeAdapter(kind).validate_json(json.dumps(entry, default=str))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if not first["loc"]:
            raise ValueError(first["msg"].removeprefix("Value error, ")) from None
        place = ".".join(map(str, first["loc"]))
        if first["type"] == "missing":
            raise ValueError(f"'{place}' is missing") from None
        raise ValueError(f"'{place}' is {first['input']!r:.60}; {first['msg'].lower()}") from None


def _entries(path: Path, warn: Warn) -> Iterable[tuple[str, dict[str, Any]]]:
    try:
        yield from read_json_lines(path, warn)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _line(score: ScoreRecord) -> dict[str, Any]:
    low, high = score.interval or (None, None)
    counts = f"{score.images}v{score.reference_images}"
    return {**vars(score), "counts": counts, "low": low, "high": high}


def _frame(lines: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(list(lines)).astype(dict.fromkeys(("value", "spread", "low", "high"), float))


def _ignore(words: str) -> None:
    """Drop a warning."""
