"""The settings of every contender on every data set, and the rules that make their scores comparable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from unpaired.benchmarking.held_out import HeldOut, held_out
from unpaired.benchmarking.matrix import Contender, Matrix
from unpaired.data import DataConfig
from unpaired.engine.trainer import TrainingConfig
from unpaired.errors import ConfigError, UserError, nearest
from unpaired.methods import METHODS
from unpaired.runs import RUNS
from unpaired.training import MAY_CHANGE, DatasetConfig, RunConfig, flat, names_digest

PATHS = {f"dataset.{name}" for name in ("folder", "source", "target", "domains")}
"""Settings that say where the training images lie, not what they are."""
_SET_ELSEWHERE = {
    "images": "the key 'budget' says how long every run is",
    "stop_after": "the key 'budget' says how long every run is",
    "seed": "the key 'seeds' lists them",
    "devices": "a run has one process; the key 'slots' lists the devices",
    "accelerator": "the key 'slots' lists the devices",
    "threads": "it is a key of its own, beside 'slots'",
}
"""Setting of a training -> what says it here."""
_PROTOCOL = ("image_size", "channels", "background")
"""Settings of ``data`` that also say how held-out images are read: equal for all contenders of a data set."""


@dataclass(frozen=True)
class Cell:
    """One contender on one data set: what its runs of all seeds share.

    Attributes:
        contender: Its name.
        data: Name of the data set.
        config: The settings, with seed 0 and without a length.
        held_out: The images that it is scored on.
        files_digest: Of the names of the training images, as ``sessions.jsonl`` holds it.
    """

    contender: str
    data: str
    config: RunConfig
    held_out: HeldOut
    files_digest: str

    @property
    def name(self) -> str:
        return f"{self.contender}-{self.data}"


def compose(matrix: Matrix, where: Path) -> tuple[list[Cell], list[str]]:
    """Lay the common settings over each method's own and the contender's over both.

    Args:
        matrix: What is compared.
        where: Its file, for messages and relative folders.

    Returns:
        The cells, data sets outermost, and sentences about common settings that some methods do not have.

    Raises:
        ConfigError: A setting is unknown, belongs elsewhere, or makes contenders unlike; two of them are the same run.
        DataError: Images cannot be used.
    """
    _check_sections(matrix, where)
    cells: list[Cell] = []
    for data, entry in matrix.data.items():
        dataset = entry.dataset(where.parent)
        configs = {name: _config(matrix, name, dataset, entry.loading, where) for name in matrix.contenders}
        try:
            tested = held_out(dataset)
            digests = {name: names_digest(dataset.stream(one.data, 0).paths) for name, one in configs.items()}
        except UserError as error:
            raise type(error)(f"{where}: data.{data}: {error}") from error
        found = [Cell(name, data, config, tested, digests[name]) for name, config in configs.items()]
        _check_alike(found, where)
        cells += found
    names = [cell.name for cell in cells]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"{where}: two contenders' runs would share the folder '{twice[0]}-seed...'; rename one")
    labels = [matrix.label(name) for name in matrix.contenders]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise ConfigError(f"{where}: contenders: two have the label '{twice[0]}'; rows must be told apart")
    return cells, _not_applied(matrix, where)


def _check_sections(matrix: Matrix, where: Path) -> None:
    """Unknown keys where they were written, and settings that something else decides."""
    sections: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
        "common": (matrix.common.data, matrix.common.training),
        **{f"contenders.{name}": (one.data, one.training) for name, one in matrix.contenders.items()},
        **{f"data.{name}": (one.loading, {}) for name, one in matrix.data.items()},
    }
    for place, (data, training) in sections.items():
        word = "loading" if place.startswith("data.") else "data"
        _check_keys(data, [one.name for one in fields(DataConfig)], f"{where}: {place}.{word}")
        _check_keys(training, [one.name for one in fields(TrainingConfig)], f"{where}: {place}.training")
        for key in training:
            if key in _SET_ELSEWHERE:
                raise ConfigError(f"{where}: {place}.training.{key} has no place here: {_SET_ELSEWHERE[key]}")
        for key in data if place.startswith("contenders.") else ():
            if key in _PROTOCOL:
                raise ConfigError(
                    f"{where}: {place}.data.{key} would make this contender unlike the others, and their scores mean "
                    f"different things; set it for all under common.data, or for one data set under its 'loading'"
                )


def _check_keys(given: Iterable[str], known: Iterable[str], where: str) -> None:
    known = list(known)
    for key in given:
        if key not in known:
            raise ConfigError(f"{where}: unknown setting '{key}'{nearest(str(key), known)}; known: {', '.join(known)}")


def _config(matrix: Matrix, name: str, dataset: DatasetConfig, loading: Mapping[str, Any], where: Path) -> RunConfig:
    contender, place = matrix.contenders[name], f"{where}: contenders.{name}"
    base = _base(contender)
    method = base["method"]
    several = "domain" in METHODS[method].offers
    if several != (dataset.domains is not None):
        raise ConfigError(
            f"{place}: {METHODS[method].title} is for {'several domains' if several else 'two domains'}, but a data "
            f"set of this file is for {'two' if several else 'several'}; benchmark them in a file of their own"
        )
    applied, _ = _applicable(matrix.common.model, METHODS[method].Config)
    mapping = {
        "method": method,
        "dataset": {},
        "data": _merged(base["data"], matrix.common.data, loading, contender.data),
        "model": _merged(base["model"], applied, contender.model),
        "training": {
            **_merged(base["training"], matrix.common.training, contender.training),
            "images": None, "stop_after": None, "seed": 0, "devices": 1,
            "threads": None, "accelerator": "auto",
        },
    }  # fmt: skip
    config = RunConfig.from_mapping(mapping, place)
    return RunConfig(method, dataset, config.data, config.model, config.training)


def _base(contender: Contender) -> dict[str, Any]:
    if contender.run is None:
        return {"method": contender.method, "data": {}, "model": {}, "training": {}}
    mapping = RUNS[contender.run](Path("DATA")).to_mapping()
    return {key: mapping[key] for key in ("method", "data", "model", "training")}


def _merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Later layers win, nested settings key by key."""
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            before = result.get(key)
            nested = isinstance(value, Mapping) and isinstance(before, Mapping)
            result[key] = _merged(before, value) if nested else value  # type: ignore[arg-type]
    return result


def _applicable(settings: Mapping[str, Any], config: type) -> tuple[dict[str, Any], list[str]]:
    """The settings whose names a method knows, and the dotted names of the others."""
    hints = get_type_hints(config)
    known = {one.name for one in fields(config)}
    applied: dict[str, Any] = {}
    others: list[str] = []
    for key, value in settings.items():
        nested = [cls for cls in (hints.get(key), *get_args(hints.get(key))) if isinstance(cls, type)]
        inner = next((cls for cls in nested if is_dataclass(cls)), None)
        if key not in known:
            others.append(key)
        elif inner is not None and isinstance(value, Mapping):
            applied[key], more = _applicable(value, inner)
            others += [f"{key}.{name}" for name in more]
        else:
            applied[key] = value
    return applied, others


def _not_applied(matrix: Matrix, where: Path) -> list[str]:
    """Which common settings which methods do not have; a setting that none has is a mistake."""
    configs = {name: METHODS[_base(one)["method"]].Config for name, one in matrix.contenders.items()}
    without: dict[str, list[str]] = {}
    for name, config in configs.items():
        for key in _applicable(matrix.common.model, config)[1]:
            without.setdefault(key, []).append(name)
    for key, names in without.items():
        if len(names) == len(configs):
            known = sorted({one.name for config in configs.values() for one in fields(config)})
            hint = nearest(key, known)
            raise ConfigError(f"{where}: common.model.{key}: no contender's method has such a setting{hint}")
    return [f"common.model.{key} is no setting of {', '.join(names)}" for key, names in without.items()]


def _check_alike(cells: list[Cell], where: Path) -> None:
    first = cells[0]
    same: dict[str, Cell] = {}
    for cell in cells:
        for key in _PROTOCOL:
            values = getattr(first.config.data, key), getattr(cell.config.data, key)
            if values[0] != values[1]:
                raise ConfigError(
                    f"{where}: {key} is {values[0]} for {first.contender} but {values[1]} for {cell.contender}, so "
                    "their scores would mean different things; set it for all under common.data"
                )
        found = same.setdefault(fingerprint(cell.config), cell)
        if found is not cell:
            raise ConfigError(
                f"{where}: the contenders {found.contender} and {cell.contender} have the same settings, so they are "
                "the same run; drop one"
            )


def fingerprint(config: RunConfig) -> str:
    """What is equal where the same would be learned, seed and place of the images apart."""
    ignored = {*MAY_CHANGE, *PATHS, "training.seed"}
    kept = {key: value for key, value in flat(config.to_mapping()).items() if key not in ignored}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]
