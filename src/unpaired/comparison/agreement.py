"""Whether the scores of several runs may stand in one table: same images, same protocol, same networks, same seed."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path

from unpaired.comparison.records import EvaluationRecord, ScoreRecord
from unpaired.errors import ConfigError

_SAME_REFERENCE = 1e-3
"""Relative difference that other hardware may make to the score of the same images."""


def check_agreement(records: Sequence[EvaluationRecord]) -> None:
    """Refuse runs whose scores mean different things.

    Raises:
        ConfigError: The message says what differs between which runs.
    """
    images = _by_value((record.run, (record.data.source_digest, record.data.target_digest)) for record in records)
    if len(images) > 1:
        data = {record.run: str(record.data) for record in records}
        listed = "; ".join(f"{data[runs[0]]}: {_listed(runs)}" for runs in images.values())
        raise ConfigError(
            f"the newest evaluations of these runs are of different images ({listed}); choose with --data NAME, or "
            "evaluate all runs on the same images"
        )
    scores = [(record.run, row, score) for record in records for row, found in record.scores.items()
              for score in found.values()]  # fmt: skip
    own = {(record.run, row) for record in records for row in record.scores if not record.rows[row].reference}
    differences = [
        _difference("image_size", ((record.run, record.data.image_size) for record in records)),
        _difference("the seed of the scores", ((record.run, record.seed) for record in records)),
    ]
    for name in dict.fromkeys(name for record in records for name in record.networks):
        digests = ((record.run, record.networks[name][1]) for record in records if name in record.networks)
        differences.append(_difference(f"the digest of the network {name}", digests))
    differences += score_differences((run, score, (run, row) in own) for run, row, score in scores)
    if told := [words for words in differences if words]:
        raise ConfigError(
            f"the scores of these runs cannot be compared: {'; '.join(told)}. Evaluate them alike: "
            "'unpaired evaluate RUN DATA' with the same options and version for each"
        )


def score_differences(scores: Iterable[tuple[Path, ScoreRecord, bool]]) -> list[str]:
    """In which ways scores of one name differ in meaning; the flag says that counts matter, as they do in every row but
    those of references."""
    scores = list(scores)
    told = []
    for name in dict.fromkeys(score.name for _, score, _ in scores):
        same = [(run, score, own) for run, score, own in scores if score.name == name]
        counted = ((run, score.full_name) for run, score, own in same if own)
        told.append(_difference(f"the full name of {name}", counted))
        told.append(_difference(f"the protocol of {name}", ((run, score.protocol) for run, score, _ in same)))
        told.append(_difference(f"the unit of {name}", ((run, score.unit) for run, score, _ in same)))
        told.append(_difference(f"what is better in {name}", ((run, score.better) for run, score, _ in same)))
    return [words for words in told if words]


def differing_references(records: Sequence[EvaluationRecord]) -> list[str]:
    """Sentences about references whose values are not the same for all runs, though images and protocols are."""
    told = []
    first: dict[tuple[str, str], tuple[Path, ScoreRecord]] = {}
    seen = set[tuple[str, str]]()
    for record in records:
        for row, scores in record.scores.items():
            for score in scores.values() if record.rows[row].reference else ():
                run, before = first.setdefault((row, score.name), (record.run, score))
                if score.value is None or before.value is None or (row, score.name) in seen:
                    continue
                apart = score.value != before.value and not abs(score.value - before.value) <= _SAME_REFERENCE * max(
                    abs(score.value), abs(before.value)
                )
                if apart or score.full_name != before.full_name:
                    seen.add((row, score.name))
                    told.append(
                        f"{record.rows[row].label}: {before.full_name} is {before.value:g} in {run} but "
                        f"{score.full_name} is {score.value:g} in {record.run}; the first is shown"
                    )
    return told


def _difference(what: str, values: Iterable[tuple[Path, Hashable]]) -> str:
    """``""``, or which runs have which value."""
    found = _by_value(values)
    if len(found) < 2:
        return ""
    return f"{what} is " + ", ".join(f"{value!r} in {_listed(runs)}" for value, runs in found.items())


def _by_value(values: Iterable[tuple[Path, Hashable]]) -> dict[Hashable, list[Path]]:
    found: dict[Hashable, dict[Path, None]] = {}
    for run, value in values:
        found.setdefault(value, {})[run] = None
    return {value: list(runs) for value, runs in found.items()}


def _listed(runs: Sequence[Path]) -> str:
    return ", ".join(map(str, runs))
