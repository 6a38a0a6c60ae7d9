"""The file that says what a benchmark compares: contenders, data, seeds, and how long each run may be."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from unpaired.config import from_dict, load_yaml
from unpaired.data import EMBEDDED
from unpaired.errors import ConfigError, nearest
from unpaired.methods import METHODS
from unpaired.runs import RUNS
from unpaired.training import DatasetConfig

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_SLOT = re.compile(r"cpu|mps|cuda:\d+")


@dataclass(frozen=True)
class Budget:
    """How long every run is: as many images for each, or as many minutes of training steps for each."""

    images: int | None = None
    """Training images of every run."""
    minutes: float | None = None
    """Minutes of training steps of every run: measured once per contender and data set, then turned into images."""

    def __post_init__(self) -> None:
        if (self.images is None) == (self.minutes is None):
            raise ConfigError("give either 'images' or 'minutes'")
        for name in ("images", "minutes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} must be above 0, not {value}")


@dataclass(frozen=True)
class DataEntry(DatasetConfig):
    """One data set: the keys of ``dataset`` in a run file, or an embedded one. Folders are relative to the file."""

    embedded: str | None = None
    """Name of an embedded data set, instead of folders."""
    loading: dict[str, Any] = field(default_factory=dict)
    """Settings of the section ``data`` for this data set only, such as image_size."""

    def __post_init__(self) -> None:
        super().__post_init__()
        places = [name for name in ("folder", "source", "target", "domains") if getattr(self, name) is not None]
        if self.embedded is None:
            if not places:
                raise ConfigError("name a folder (or source and target, domains, or embedded)")
            return
        if places:
            raise ConfigError(f"'embedded' and '{places[0]}' contradict each other; drop one")
        if self.embedded not in EMBEDDED:
            raise ConfigError(
                f"there is no embedded data set '{self.embedded}'{nearest(self.embedded, EMBEDDED)}; "
                f"known: {', '.join(EMBEDDED)}"
            )

    def dataset(self, beside: Path) -> DatasetConfig:
        """The folders as a run has them, absolute; relative ones start from the folder ``beside``."""
        values = {one.name: getattr(self, one.name) for one in fields(DatasetConfig)}
        if self.embedded is not None:
            values["folder"] = EMBEDDED[self.embedded]
        for name, value in values.items():
            if isinstance(value, Path):
                values[name] = Path(os.path.abspath(beside / value.expanduser()))
        return DatasetConfig(**values)


@dataclass(frozen=True)
class Settings:
    """Settings of runs, in the sections of a run file."""

    data: dict[str, Any] = field(default_factory=dict)
    """How images are read, resized and cropped."""
    model: dict[str, Any] = field(default_factory=dict)
    """The methods' own settings."""
    training: dict[str, Any] = field(default_factory=dict)
    """Averaging, batch size, bookkeeping."""


@dataclass(frozen=True)
class Contender(Settings):
    """One row of the table: a method or a named run, and what is set otherwise."""

    method: str | None = None
    """A method, with its own defaults."""
    run: str | None = None
    """A named run ('unpaired runs' lists them), whose settings are the defaults."""
    label: str | None = None
    """What tables call it; unset takes its name."""

    def __post_init__(self) -> None:
        if (self.method is None) == (self.run is None):
            raise ConfigError("give either 'method' or 'run'")
        for word, known, what in ((self.method, METHODS, "method"), (self.run, RUNS, "named run")):
            if word is not None and word not in known:
                raise ConfigError(f"there is no {what} '{word}'{nearest(word, known)}; known: {', '.join(known)}")


@dataclass(frozen=True)
class EvaluationOptions:
    """How every run is scored: the same way."""

    metrics: tuple[str, ...] = ()
    """Scores by name; none means all that the files and the networks at hand allow."""
    intervals: bool = True
    """Compute 95 % confidence intervals."""
    paired: Literal["auto", "yes", "no"] = "auto"
    """Whether files of the same stem are input and truth."""
    weights: tuple[str, ...] = ()
    """Files of pretrained networks as NAME=PATH, relative to this file."""
    download: bool = False
    """Let torch-fidelity fetch the Inception weights of FID."""
    batch_size: int = 8
    """Images translated at a time."""
    seed: int = 0
    """Seed of what is drawn at random."""

    def __post_init__(self) -> None:
        for entry in self.weights:
            name, sign, path = entry.partition("=")
            if not (name and sign and path):
                raise ConfigError(f"weights: '{entry}' must be NAME=PATH, for example inception=inception.pth")


@dataclass(frozen=True)
class Matrix:
    """What a benchmark compares."""

    budget: Budget
    """How long every run is."""
    data: dict[str, DataEntry]
    """Name -> data set."""
    contenders: dict[str, Contender]
    """Name -> what is compared, in the order of the tables."""
    seeds: tuple[int, ...] = (0,)
    """Training seeds; each contender is trained once per data set and seed."""
    slots: tuple[str, ...] = ("cpu",)
    """Where runs are computed, one process each: cpu (any number of times), cuda:N, mps."""
    threads: int | None = None
    """CPU threads of each process; unset shares the cores of this machine evenly among the slots."""
    common: Settings = field(default_factory=Settings)
    """Settings of all runs. Those of ``model`` are for every method that has a setting of that name."""
    evaluate: EvaluationOptions = field(default_factory=EvaluationOptions)
    """How runs are scored."""

    def __post_init__(self) -> None:
        for section in ("data", "contenders", "seeds"):
            if not getattr(self, section):
                raise ConfigError(f"'{section}' is empty; name at least one")
        for section in ("data", "contenders"):
            for name in getattr(self, section):
                if not isinstance(name, str) or not _NAME.fullmatch(name):
                    raise ConfigError(
                        f"{section}: the name {name!r} becomes a part of folder names; use letters, digits and _.+- "
                        "(and quotes around a number)"
                    )
        if len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"seeds: {', '.join(map(str, self.seeds))} names one twice")
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads must be at least 1, not {self.threads}")
        check_slots(self.slots)

    def label(self, contender: str) -> str:
        """What tables call a contender."""
        return self.contenders[contender].label or contender


def check_slots(slots: Iterable[str]) -> None:
    """Refuse slots that are no devices, or that would make runs of one table differ in their arithmetic.

    Raises:
        ConfigError: The message names the slot.
    """
    slots = list(slots)
    if not slots:
        raise ConfigError("slots: name at least one device, for example cpu or cuda:0")
    for slot in slots:
        if not _SLOT.fullmatch(slot):
            raise ConfigError(f"slots: '{slot}' is no device; use cpu, cuda:0, cuda:1, ... or mps")
    kinds = list(dict.fromkeys(slot.partition(":")[0] for slot in slots))
    if len(kinds) > 1:
        raise ConfigError(
            f"slots: {' and '.join(kinds)} together would compute the runs of one table on unlike devices, at unlike "
            "speeds; name devices of one kind"
        )


def load_matrix(path: Path) -> Matrix:
    """Read and check a matrix file.

    Raises:
        ConfigError: The message names the file and the key.
    """
    matrix = from_dict(Matrix, load_yaml(path), str(path))
    named = (entry.partition("=") for entry in matrix.evaluate.weights)
    weights = tuple(f"{name}={os.path.abspath(path.parent / Path(file).expanduser())}" for name, _, file in named)
    return replace(matrix, evaluate=replace(matrix.evaluate, weights=weights))
