"""Runs that differ only in their seed are one row; its label says how its settings differ from those of the others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unpaired.errors import ConfigError, DataError
from unpaired.methods import METHODS
from unpaired.training import MAY_CHANGE, DatasetConfig, RunConfig, first_digest, flat

_IGNORED = {*MAY_CHANGE, "training.seed", "dataset.folder", "dataset.source", "dataset.target",
            "dataset.domains"}  # fmt: skip
"""Settings that do not make another row; what the folders hold does, see ``_TRAINED_ON``."""
_TRAINED_ON, _IMAGES_SEEN = "trained on", "images seen"
_BEGUN_WITH, _EXTENDED = "begun with", "extended"
_LENGTH = "training.images"
_MOST_WORDS = 4
"""Differences that a label lists before it names the run folder instead."""


@dataclass(frozen=True)
class Group:
    """Runs of one method with one set of settings.

    Attributes:
        label: Title of the method and what sets it apart from the other groups.
        runs: The folders, as given.
        seeds: Training seed of each run.
        method: Key of ``METHODS``; empty for a scored folder without ``run.yaml``, such as one of images that some
            other software made: it stands alone, under its own name.
    """

    label: str
    runs: tuple[Path, ...]
    seeds: tuple[int, ...]
    method: str


@dataclass(frozen=True)
class _Settings:
    run: Path
    method: str
    seed: int
    folders: str
    """Names of the folders of training images."""
    values: Mapping[str, Any]
    """What makes a row, by dotted name, in the order of a label."""
    defaults: Mapping[str, Any]
    """The same of a run of this method that sets nothing."""

    @property
    def key(self) -> str:
        return json.dumps({"method": self.method, **self.values}, sort_keys=True)


def group_runs(
    runs: Sequence[Path], *, images_seen: Sequence[int] | None = None, names: Sequence[str] = ()
) -> list[Group]:
    """Gather runs that differ only in their seed, in the order of the first run of each group.

    Args:
        runs: Run folders.
        images_seen: Training images after which each run is looked at: other numbers are other groups.
        names: Labels, one per group or one per run, instead of those made here.

    Raises:
        DataError: A folder is no run.
        ConfigError: A ``run.yaml`` cannot be read, a run or a seed occurs twice, or ``names`` do not fit.
    """
    by_place: dict[Path, Path] = {}
    for run in runs:
        if run.resolve() in by_place:
            raise ConfigError(f"{run} is given twice (also as {by_place[run.resolve()]}); name every run once")
        by_place[run.resolve()] = run
    at: Sequence[int | None] = [None] * len(runs) if images_seen is None else images_seen
    settings = [_settings(run, seen) for run, seen in zip(runs, at, strict=True)]
    groups: dict[str, list[_Settings]] = {}
    for one in settings:
        groups.setdefault(one.key, []).append(one)
    for members in groups.values():
        _check_seeds(members)
    labels = _named(names, list(groups.values()), runs) if names else _labels(list(groups.values()))
    return [
        Group(
            label,
            tuple(one.run for one in members),
            tuple(one.seed for one in members),
            members[0].method,
        )
        for label, members in zip(labels, groups.values(), strict=True)
    ]


def _settings(run: Path, images_seen: int | None) -> _Settings:
    if not (run / "run.yaml").is_file():
        if (run / "evaluations.jsonl").is_file():
            own = {"folder": str(run.resolve())}
            return _Settings(run, "", 0, "", own, own)
        raise DataError(f"{run} is no run folder (it holds no run.yaml); name the --out of 'unpaired train'")
    config = RunConfig.load(run / "run.yaml")
    mapping = flat(replace(config, init=None, extensions=()).to_mapping())
    values = {key: value for key, value in mapping.items() if key not in _IGNORED}
    del values["method"]
    if config.init is not None:
        values[_BEGUN_WITH] = f"{Path(config.init.source).name} {str(config.init.sha256)[:6]}"
    if config.extensions:
        values[_EXTENDED] = ", ".join(f"at {one.at:,} to {one.to:,}" for one in config.extensions)
    model = {key: values.pop(key) for key in list(values) if key.startswith("model.")}
    data = config.dataset
    places = (data.folder, data.source, data.target, data.domains)
    folders = " -> ".join(place.name for place in places if place is not None)
    values = {**model, _TRAINED_ON: first_digest(run) or folders, _IMAGES_SEEN: images_seen, **values}
    defaults = flat(RunConfig(config.method, DatasetConfig()).to_mapping())
    return _Settings(run, config.method, config.training.seed, folders, values, defaults)


def _check_seeds(members: Sequence[_Settings]) -> None:
    first: dict[int, Path] = {}
    for one in members:
        if one.seed in first:
            raise ConfigError(
                f"{first[one.seed]} and {one.run} have the same settings and the same seed ({one.seed}), so they are "
                "not two samples of anything; leave one out"
            )
        first[one.seed] = one.run


def _named(names: Sequence[str], groups: Sequence[Sequence[_Settings]], runs: Sequence[Path]) -> list[str]:
    if len(names) == len(groups):
        labels = list(names)
    elif len(names) == len(runs):
        of_run = dict(zip(runs, names, strict=True))
        for members in groups:
            for one in members[1:]:
                if of_run[one.run] != of_run[members[0].run]:
                    raise ConfigError(
                        f"--names: {members[0].run} and {one.run} differ only in their seed and are one row, but are "
                        f"named '{of_run[members[0].run]}' and '{of_run[one.run]}'"
                    )
        labels = [of_run[members[0].run] for members in groups]
    else:
        rows = "; ".join(", ".join(str(one.run) for one in members) for members in groups)
        raise ConfigError(
            f"--names: {len(names)} names for {len(groups)} rows of {len(runs)} runs; give one per row, in this order "
            f"({rows}), or one per run"
        )
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise ConfigError(f"--names: '{twice[0]}' names two rows with different settings; give each its own")
    return labels


# ---------------------------------------------------------------------------------------------------------------------
# labels
# ---------------------------------------------------------------------------------------------------------------------
def _labels(groups: Sequence[Sequence[_Settings]]) -> list[str]:
    firsts = [members[0] for members in groups]
    trained = [one for one in firsts if one.method]
    apart = [[key for key in one.values if one.method and _sets_apart(key, one, trained)] for one in firsts]
    short = [[key for key in keys if key != _LENGTH or _IMAGES_SEEN not in keys] for keys in apart]
    brief = [[key for key in keys if one.values[key] is not None] for one, keys in zip(firsts, short, strict=True)]
    for chosen in (brief, short, apart):  # unset says little beside a value, the length little beside the images seen
        labels = [_label(one, keys, trained) for one, keys in zip(firsts, chosen, strict=True)]
        if len({*labels}) == len(labels):
            return labels
    return [f"{label} ({one.run.name})" for label, one in zip(labels, firsts, strict=True)]


def _sets_apart(key: str, one: _Settings, others: Sequence[_Settings]) -> bool:
    """Whether a reader must know this setting of ``one``: others have another value, and not as their method's own."""
    value, default = one.values[key], key in one.defaults and one.values[key] == one.defaults[key]
    for other in others:
        if key not in other.values:
            if not default:
                return True
        elif other.values[key] != value and (
            other.method == one.method or not default or other.values[key] != other.defaults.get(key)
        ):
            return True
    return False


def _label(one: _Settings, keys: Sequence[str], others: Sequence[_Settings]) -> str:
    words = [_words(key, one, others) for key in keys]
    if len(words) > _MOST_WORDS:
        words = [*words[: _MOST_WORDS - 1], f"{len(words) - _MOST_WORDS + 1} more"]
    return ", ".join([METHODS[one.method].title if one.method else one.run.resolve().name, *words])


def _words(key: str, one: _Settings, others: Sequence[_Settings]) -> str:
    value = one.values[key]
    if key == _TRAINED_ON:
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
