"""What a run folder says of its scores: lines of JSON, checked, with what is broken reported by file and line."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from unpaired.data import Size
from unpaired.errors import ConfigError, DataError
from unpaired.evaluation import FORMAT

Report = Callable[[str], None]


def nobody(words: str) -> None:
    """Report to nobody."""


@dataclass(frozen=True)
class ScoreRecord:
    """One measured value of one run, as it was filed."""

    full_name: str
    name: str
    label: str
    unit: str
    better: Literal["lower", "higher"]
    protocol: str
    counts: str
    """Made and real images, e.g. ``120v140``."""
    value: float | None
    """``None`` where nothing could be measured; may be infinite."""
    spread: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class DataRecord:
    """The images that were scored."""

    name: str
    source_digest: str
    target_digest: str
    source_images: int
    target_images: int
    image_size: Size

    def __str__(self) -> str:
        return f"{self.name} (source {self.source_digest[:8]}, target {self.target_digest[:8]})"


@dataclass(frozen=True)
class RowRecord:
    """One set of images that was scored; the last three say how the best weights were chosen."""

    label: str
    reference: bool
    images_seen: int | None = None
    score: str = ""
    chosen_on: str = ""


@dataclass(frozen=True)
class EvaluationRecord:
    """One line of ``evaluations.jsonl``."""

    run: Path
    images_seen: int
    seed: int
    data: DataRecord
    networks: Mapping[str, tuple[str, str]]
    """Name -> (title, digest of the weights)."""
    rows: Mapping[str, RowRecord]
    scores: Mapping[str, Mapping[str, ScoreRecord]]
    """Row -> full name -> score."""


@dataclass(frozen=True)
class TrainingRecord:
    """One line of ``scores.jsonl``: the scores of one set of weights at one time of training."""

    images_seen: int
    weights: str
    chosen_on: str
    scores: Mapping[str, ScoreRecord]


# ---------------------------------------------------------------------------------------------------------------------
# evaluations.jsonl
# ---------------------------------------------------------------------------------------------------------------------
def newest_evaluation(run: Path, data: str | None = None, report: Report = nobody) -> EvaluationRecord:
    """The last line of ``evaluations.jsonl`` that can be compared.

    Args:
        run: A run folder.
        data: Name of the data, the last part of its path, or the first digits (6 at least) of one of its digests.
        report: Told of every line that is passed over because it is broken or too old.

    Raises:
        DataError: There is no such folder, or no such evaluation; the message names the command that makes one.
        ConfigError: ``data`` fits several sets of images.
    """
    if not run.is_dir():
        raise DataError(f"{run}: there is no such run folder")
    found, reasons = _evaluations(run, report)
    advice = f"run 'unpaired evaluate {shlex.quote(str(run))} {shlex.quote(data or 'DATA')}'"
    if not found:
        why = "; ".join(reasons) or "it was never evaluated"
        raise DataError(f"{run} has no scores to compare ({why}); {advice}")
    if data is None:
        return found[-1]
    chosen = _of_data(run, found, data)
    if not chosen:
        known = ", ".join(dict.fromkeys(str(record.data) for record in found))
        raise DataError(f"{run} was not evaluated on '{data}' (but on {known}); {advice}")
    return chosen[-1]


def evaluations(run: Path, report: Report = nobody) -> list[EvaluationRecord]:
    """All evaluations of a run that can be compared, oldest first. Raises ``DataError`` if they cannot be read."""
    return _evaluations(run, report)[0]


def _of_data(run: Path, records: Sequence[EvaluationRecord], wanted: str) -> list[EvaluationRecord]:
    by_name = [record for record in records if record.data.name == wanted]
    if by_name:
        return by_name
    tests: tuple[Callable[[DataRecord], bool], ...] = (
        lambda data: Path(data.name).name == Path(wanted).name,
        lambda data: len(wanted) >= 6 and any(d.startswith(wanted) for d in (data.source_digest, data.target_digest)),
    )
    for fits in tests:
        found = [record for record in records if fits(record.data)]
        different = {(record.data.source_digest, record.data.target_digest): str(record.data) for record in found}
        if len(different) > 1:
            raise ConfigError(
                f"--data {wanted} fits several sets of images in {run}: {', '.join(different.values())}; "
                "give the first digits of a digest that only one of them has"
            )
        if found:
            return found
    return []


def _evaluations(run: Path, report: Report) -> tuple[list[EvaluationRecord], list[str]]:
    """All lines of this format, oldest first, and in a few words what was wrong with the others."""
    found: list[EvaluationRecord] = []
    old, broken = 0, list[str]()
    for where, line in _lines(run / "evaluations.jsonl"):
        try:
            entry = _parsed(line)
            if "format" not in entry:
                old += 1
            else:
                found.append(_evaluation(run, entry))
        except ValueError as error:
            broken.append(f"{where}: {error}")
            report(f"{where} is passed over: {error}")
    if not old:
        return found, broken
    words = f"{old} {'evaluation was' if old == 1 else 'evaluations were'} filed before protocols and digests were"
    report(f"{run / 'evaluations.jsonl'}: {words}; passed over")
    return found, [words, *broken]


def _evaluation(run: Path, entry: Mapping[str, Any]) -> EvaluationRecord:
    if entry["format"] != FORMAT:
        raise ValueError(f"its format is {entry['format']!r}, this version of unpaired knows {FORMAT}")
    data = _take(entry, "data", dict)
    rows = {name: _row(name, row) for name, row in _take(entry, "rows", dict).items()}
    scores = {row: _scores(values, row) for row, values in _take(entry, "scores", dict).items()}
    if alone := [name for name in scores if name not in rows]:
        raise ValueError(f"the row '{alone[0]}' has scores but is not described")
    if not any(found and not rows[name].reference for name, found in scores.items()):
        raise ValueError("it holds no scores of translations")
    return EvaluationRecord(
        run=run,
        images_seen=_take(entry, "images_seen", int),
        seed=_take(entry, "seed", int),
        data=DataRecord(
            **{key: _take(data, key, str) for key in ("name", "source_digest", "target_digest")},
            **{key: _take(data, key, int) for key in ("source_images", "target_images")},
            image_size=_size(data),
        ),
        networks={
            name: (_take(network, "title", str), _take(network, "digest", str))
            for name, network in _take(entry, "networks", dict).items()
        },
        rows=rows,
        scores=scores,
    )


def _size(data: Mapping[str, Any]) -> Size:
    size = data.get("image_size")
    if isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) for side in size):
        return (size[0], size[1])
    return int(_take(data, "image_size", int))


def _row(name: str, row: Any) -> RowRecord:
    label, reference = _take(row, "label", str), _take(row, "reference", bool)
    if name != "best":
        return RowRecord(label, reference)
    how = (_take(row, "images_seen", int), _take(row, "score", str), _take(row, "chosen_on", str))
    return RowRecord(label, reference, *how)


def _scores(values: Any, where: str) -> dict[str, ScoreRecord]:
    if not isinstance(values, dict):
        raise ValueError(f"the scores of '{where}' are no named values")
    return {full_name: _score(full_name, score) for full_name, score in values.items()}


def _score(full_name: str, score: Any) -> ScoreRecord:
    better, interval = _take(score, "better", str), score.get("interval")
    if better not in ("lower", "higher"):
        raise ValueError(f"'better' of {full_name} is {better!r}, expected 'lower' or 'higher'")
    if interval is not None and not (isinstance(interval, list) and len(interval) == 2):
        raise ValueError(f"'interval' of {full_name} is {interval!r}, expected two numbers")
    bounds = [_number(bound, full_name) for bound in interval or ()]
    return ScoreRecord(
        full_name=full_name,
        name=_take(score, "name", str),
        label=_take(score, "label", str),
        unit=_take(score, "unit", str),
        better=better,
        protocol=_take(score, "protocol", str),
        counts=f"{_take(score, 'images', int)}v{_take(score, 'reference_images', int)}",
        value=_number(_take(score, "value", int, float, str, type(None)), full_name),
        spread=_number(score.get("spread"), full_name),
        interval=(bounds[0], bounds[1]) if len(bounds) == 2 and None not in bounds else None,  # type: ignore[arg-type]
    )


# ---------------------------------------------------------------------------------------------------------------------
# scores.jsonl
# ---------------------------------------------------------------------------------------------------------------------
def training_scores(run: Path, report: Report = nobody) -> list[dict[str, Any]]:
    """The lines of ``scores.jsonl`` as they were written, sorted by images seen, EMA before last.

    Where a time was scored twice, as after a crash, the later line counts. Values that stand for infinity are words.

    Raises:
        DataError: There is no such run, or nothing in it was scored during training.
    """
    return [entry for _, entry in _training(run, report)]


def training_records(run: Path, report: Report = nobody) -> list[TrainingRecord]:
    """The same as checked records. Raises like ``training_scores``."""
    return [record for record, _ in _training(run, report)]


def _training(run: Path, report: Report) -> list[tuple[TrainingRecord, dict[str, Any]]]:
    if not run.is_dir():
        raise DataError(f"{run}: there is no such run folder")
    found: dict[tuple[int, str], tuple[TrainingRecord, dict[str, Any]]] = {}
    for where, line in _lines(run / "scores.jsonl"):
        try:
            entry = _parsed(line)
            record = TrainingRecord(
                images_seen=_take(entry, "images_seen", int),
                weights=_take(entry, "weights", str),
                chosen_on=_take(entry, "chosen_on", str),
                scores=_scores(entry.get("scores"), "this time"),
            )
        except ValueError as error:
            report(f"{where} is passed over: {error}")
        else:
            found[record.images_seen, record.weights] = (record, entry)
    if not found:
        raise DataError(
            f"{run} has no scores over training (scores.jsonl is absent or holds none): it was trained without "
            "held-out images, with --score-every 0, or by an older version"
        )
    return [found[key] for key in sorted(found)]  # 'ema' sorts before 'last'


def best_choice(run: Path, report: Report = nobody) -> tuple[int, str, str] | None:
    """(images seen, weights, full name of the score) of ``weights/best.json``; None where no best weights were kept."""
    path = run / "weights" / "best.json"
    if not path.exists():
        return None
    try:
        chosen = _parsed(path.read_bytes())
        return _take(chosen, "images_seen", int), _take(chosen, "weights", str), _take(chosen, "score", str)
    except (OSError, ValueError) as error:
        report(f"{path} is passed over: {error}")
        return None


# ---------------------------------------------------------------------------------------------------------------------
# JSON
# ---------------------------------------------------------------------------------------------------------------------
def _lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """("FILE, line N", line) of every line that is not blank; nothing where there is no such file."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    for number, line in enumerate(content.splitlines(), 1):
        if line.strip():
            yield f"{path}, line {number}", line


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None
    except (ValueError, RecursionError):
        raise ValueError("it is not complete JSON, as if writing it had been interrupted") from None
    if not isinstance(entry, dict):
        raise ValueError("it holds no named values")
    return entry


def _take(mapping: Any, key: str, *kinds: type) -> Any:
    if not isinstance(mapping, dict) or key not in mapping:
        raise ValueError(f"'{key}' is missing")
    value = mapping[key]
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise ValueError(f"'{key}' is {value!r:.60}, expected {' or '.join(kind.__name__ for kind in kinds)}")
    return value


def _number(value: Any, where: str) -> float | None:
    """A number; the words 'inf' and '-inf' stand for what JSON cannot write; not a number is none."""
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"a value of {where} is {value!r:.60}, expected a number") from None
    return None if math.isnan(number) else number
