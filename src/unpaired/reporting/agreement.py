"""Checks that scores of several runs are comparable: same images, protocol, counts, networks and seed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from unpaired.errors import ConfigError
from unpaired.reporting.records import EvaluationRecord

_SAME_REFERENCE = 1e-3
"""Relative difference of a score between machines."""


def check_agreement(records: Sequence[EvaluationRecord], frame: pd.DataFrame) -> None:
    """Reject runs whose scores differ in images, protocol, networks or seed.

    Raises:
        ConfigError: The message says what differs between which runs.
    """
    images: dict[tuple[str, str], list[EvaluationRecord]] = {}
    for record in records:
        images.setdefault(record.data.digests, []).append(record)
    if len(images) > 1:
        listed = "; ".join(f"{found[0].data}: {', '.join(str(one.run) for one in found)}" for found in images.values())
        raise ConfigError(
            f"the newest evaluations of these runs are of different images ({listed}); choose with --data NAME, or "
            "evaluate all runs on the same images"
        )
    told = [
        _difference("image_size", ((record.run, record.data.image_size) for record in records)),
        _difference("the seed of the scores", ((record.run, record.seed) for record in records)),
    ]
    for name in dict.fromkeys(name for record in records for name in record.networks):
        digests = ((record.run, record.networks[name].digest) for record in records if name in record.networks)
        told.append(_difference(f"the digest of the network {name}", digests))
    told += score_differences(frame)
    if words := "; ".join(filter(None, told)):
        raise ConfigError(
            f"the scores of these runs cannot be compared: {words}. Evaluate them alike: "
            "'unpaired evaluate RUN DATA' with the same options and version for each"
        )


def score_differences(frame: pd.DataFrame) -> list[str]:
    """How scores of one name differ in meaning. The counts of references may differ."""
    told = []
    for name, found in frame.groupby("name", sort=False):
        own = found[~found["reference"]] if "reference" in found else found
        told.append(_difference(f"the full name of {name}", zip(own["run"], own["full_name"], strict=True)))
        for what, field in (("the protocol of", "protocol"), ("the unit of", "unit"), ("what is better in", "better")):
            told.append(_difference(f"{what} {name}", zip(found["run"], found[field], strict=True)))
    return [words for words in told if words]


def _difference(what: str, values: Iterable[tuple[Path, Any]]) -> str:
    """``""``, or which runs have which value."""
    runs_of: dict[Any, dict[Path, None]] = {}
    for run, value in values:
        runs_of.setdefault(value, {})[run] = None
    if len(runs_of) < 2:
        return ""
    return f"{what} is " + ", ".join(f"{value!r} in {', '.join(map(str, runs))}" for value, runs in runs_of.items())


def differing_references(frame: pd.DataFrame) -> list[str]:
    """References whose values differ between runs although images and protocols agree, one sentence each."""
    told = []
    for _, found in frame.dropna(subset="value").groupby(["row", "name"], sort=False):
        first = found.iloc[0]
        for _, other in found.iloc[1:].iterrows():
            near = math.isclose(other["value"], first["value"], rel_tol=_SAME_REFERENCE)
            if not near or other["full_name"] != first["full_name"]:
                told.append(
                    f"{first['row_label']}: {first['full_name']} is {first['value']:g} in {first['run']} but "
                    f"{other['full_name']} is {other['value']:g} in {other['run']}; the first is shown"
                )
                break
    return told
