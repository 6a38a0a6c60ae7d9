"""Groups runs that differ only in their seed into rows, labelled with the settings in which the rows differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unpaired.data.dataset import places_of
from unpaired.errors import ConfigError, DataError
from unpaired.files import last_part
from unpaired.methods import METHODS
from unpaired.run_config import MAY_CHANGE, DatasetConfig, RunConfig, flat
from unpaired.run_folder import first_digest

_IMAGES_SEEN, _LENGTH = "images seen", "training.images"
_MOST_WORDS = 4
"""Most differences in a label."""


@dataclass(frozen=True)
class Group:
    """Runs of one method with one set of settings."""

    label: str
    """Title of the method and the settings in which it differs from the other groups."""
    runs: tuple[Path, ...]
    """The folders, as given."""
    seeds: tuple[int, ...]
    """Training seed of each run."""
    method: str
    """Key of ``METHODS``; empty for a scored folder without ``run.yaml``, such as images made by other software, which
    is a row of its own, called by the name of the folder."""


@dataclass(frozen=True)
class _Settings:
    run: Path
    method: str
    title: str
    seed: int
    folders: str
    """Names of the folders of training images."""
    values: Mapping[str, Any]
    """Settings that distinguish rows, by dotted name, in the order of a label."""
    defaults: Mapping[str, Any]
    """The defaults of the method."""


def group_runs(
    runs: Sequence[Path], *, images_seen: Sequence[int] | None = None, names: Sequence[str] = ()
) -> list[Group]:
    """Group runs that differ only in their seed, in the order of the first run of each group.

    Args:
        runs: Run folders.
        images_seen: Of each run's scored weights: different numbers make different groups.
        names: Labels, one per group or one per run, instead of those made here.

    Raises:
        DataError: A folder is no run.
        ConfigError: A ``run.yaml`` cannot be read, a run or a seed occurs twice, or ``names`` do not fit.
    """
    check_distinct(runs)
    groups: dict[str, list[_Settings]] = {}
    at: Sequence[int | None] = images_seen or [None] * len(runs)
    for run, seen in zip(runs, at, strict=True):
        one = _settings(run, seen)
        groups.setdefault(json.dumps([one.method, one.values], sort_keys=True), []).append(one)
    for members in groups.values():
        seeds: dict[int, Path] = {}
        for one in members:
            if one.seed in seeds:
                raise ConfigError(
                    f"{seeds[one.seed]} and {one.run} have the same settings and the same seed ({one.seed}), so they "
                    "are not two independent runs; leave one out"
                )
            seeds[one.seed] = one.run
    members_of = list(groups.values())
    labels = _given_labels(names, members_of, runs) if names else _labels([members[0] for members in members_of])
    return [
        Group(label, tuple(one.run for one in found), tuple(one.seed for one in found), found[0].method)
        for label, found in zip(labels, members_of, strict=True)
    ]


def check_distinct(runs: Sequence[Path]) -> None:
    """Raise ``ConfigError`` if two paths are the same folder."""
    known: dict[Path, Path] = {}
    for run in runs:
        if (other := known.setdefault(run.resolve(), run)) is not run:
            raise ConfigError(f"{run} is given twice (also as {other}); name every run once")


def _settings(run: Path, images_seen: int | None) -> _Settings:
    if not (run / "run.yaml").is_file():
        if (run / "evaluations.jsonl").is_file():
            own = {"folder": str(run.resolve())}
            return _Settings(run, "", run.resolve().name, 0, "", own, own)
        raise DataError(f"{run} is not a run folder (it has no run.yaml); name the --out of 'unpaired train'")
    config = RunConfig.load(run / "run.yaml")
    values = flat(replace(config, init=None, extensions=()).to_mapping())
    places = (f"dataset.{name}" for name in ("folder", "source", "target", "domains"))  # their contents count
    for key in (*MAY_CHANGE, "method", "training.seed", *places):
        values.pop(key, None)
    if config.init is not None:
        values["begun with"] = f"{last_part(config.init.source)} {str(config.init.sha256)[:6]}"
    if config.extensions:
        values["extended"] = ", ".join(f"at {one.at:,} to {one.to:,}" for one in config.extensions)
    model = {key: values.pop(key) for key in list(values) if key.startswith("model.")}
    data = config.dataset
    named = [*places_of(data.folder), *places_of(data.source), *places_of(data.target), *places_of(data.domains)]
    folders = " -> ".join(place.name for place in named)
    values = {**model, "trained on": first_digest(run) or folders, _IMAGES_SEEN: images_seen, **values}
    defaults = flat(RunConfig(config.method, DatasetConfig()).to_mapping())
    title = METHODS[config.method].title
    return _Settings(run, config.method, title, config.training.seed, folders, values, defaults)


def _given_labels(names: Sequence[str], groups: Sequence[Sequence[_Settings]], runs: Sequence[Path]) -> list[str]:
    if len(names) not in (len(groups), len(runs)):
        rows = "; ".join(", ".join(str(one.run) for one in members) for members in groups)
        raise ConfigError(
            f"--names: {len(names)} names for {len(groups)} rows of {len(runs)} runs; give one per row, in this order "
            f"({rows}), or one per run"
        )
    labels = names = [" ".join(name.split()) for name in names]
    if len(names) != len(groups):
        of_run = dict(zip(runs, names, strict=True))
        labels = [of_run[members[0].run] for members in groups]
        for members, label in zip(groups, labels, strict=True):
            for one in members:
                if of_run[one.run] != label:
                    raise ConfigError(
                        f"--names: {members[0].run} and {one.run} differ only in their seed and are one row, but are "
                        f"named '{label}' and '{of_run[one.run]}'"
                    )
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise ConfigError(f"--names: '{twice[0]}' names two rows with different settings; give each its own")
    return labels


def _labels(firsts: Sequence[_Settings]) -> list[str]:
    """The shortest distinct labels: without unset settings, else without the length beside images seen, else all."""
    trained = [one for one in firsts if one.method]
    apart = [[key for key in one.values if one.method and _differs(key, one, trained)] for one in firsts]
    short = [[key for key in keys if key != _LENGTH or _IMAGES_SEEN not in keys] for keys in apart]
    brief = [[key for key in keys if one.values[key] is not None] for one, keys in zip(firsts, short, strict=True)]
    for chosen in (brief, short, apart):
        labels = [_label(one, keys, trained) for one, keys in zip(firsts, chosen, strict=True)]
        if len({*labels}) == len(labels):
            return labels
    return [f"{label} ({one.run.name})" for label, one in zip(labels, firsts, strict=True)]


def _differs(key: str, one: _Settings, others: Sequence[_Settings]) -> bool:
    """Whether another row has another value of this setting, other than by the defaults of two methods."""
    missing = object()
    value, default = one.values[key], one.values[key] == one.defaults.get(key, missing)
    for other in others:
        found = other.values.get(key, missing)
        by_defaults = default and (found is missing or found == other.defaults.get(key))
        if found != value and not (by_defaults and (found is missing or other.method != one.method)):
            return True
    return False


def _label(one: _Settings, keys: Sequence[str], others: Sequence[_Settings]) -> str:
    words = [_words(key, one, others) for key in keys]
    if len(words) > _MOST_WORDS:
        words = [*words[: _MOST_WORDS - 1], f"{len(words) - _MOST_WORDS + 1} more"]
    return ", ".join([one.title, *words])


def _words(key: str, one: _Settings, others: Sequence[_Settings]) -> str:
    value = one.values[key]
    if key == "trained on":
        alike = any(other.folders == one.folders and other.values[key] != value for other in others)
        return f"trained on {one.folders}" + (f" {value[:6]}" if alike else "")
    if key == _IMAGES_SEEN:
        return f"{value:,} images seen"
    if key == _LENGTH:
        return "length unset" if value is None else f"length {value:,}"
    name = key.rpartition(".")[2].replace("_", " ")
    if isinstance(value, bool):
        return name if value else f"no {name}"
    if value is None:
        return f"{name} unset"
    if isinstance(value, list):
        return f"{name} {'+'.join(map(str, value)) or 'none'}"
    return f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
