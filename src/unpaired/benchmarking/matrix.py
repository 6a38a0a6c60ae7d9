"""The file that describes a benchmark, and its cells: one per contender and data set."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from unpaired.config import BatchSize, Count, Positive, Seed, Threads, from_dict, load_yaml, settings, to_dict
from unpaired.data import EMBEDDED, DataConfig, UnpairedFiles, names_digest
from unpaired.data.dataset import places_of
from unpaired.data.huggingface import absolute
from unpaired.engine.training_config import TrainingConfig
from unpaired.errors import ConfigError, DataError, UserError, nearest
from unpaired.methods import METHODS
from unpaired.recipes import RECIPES, merged, methods_of, recipe
from unpaired.run_config import MAY_CHANGE, PATHS, DatasetConfig, RunConfig, flat

_ELSEWHERE = {"images": "budget", "stop_after": "budget", "seed": "seeds", "devices": "slots", "nodes": "slots",
              "accelerator": "slots", "threads": "threads"}  # fmt: skip
"""Training setting -> key of the file that decides it."""
_PROTOCOL = ("image_size", "channels", "background")
"""Settings of ``data`` that also say how held-out images are read: equal for all contenders of a data set."""


@settings
class Budget:
    """The length of every run: a number of images, or of minutes of training steps."""

    images: Count | None = None
    """Training images of every run."""
    minutes: Positive | None = None
    """Minutes of training steps of every run: measured once per contender and data set, then turned into images."""

    def __post_init__(self) -> None:
        if (self.images is None) == (self.minutes is None):
            raise ConfigError("give either 'images' or 'minutes'")


@settings
class DataEntry(DatasetConfig):
    """One data set: the keys of ``dataset`` in a run file, or an embedded one. Folders are relative to the file."""

    embedded: str | None = None
    """Name of an embedded data set, instead of folders."""
    loading: dict[str, Any] = field(default_factory=dict)
    """Settings of the section ``data`` for this data set only, such as image_size."""

    def __post_init__(self) -> None:
        super().__post_init__()
        places = [name for name in ("folder", "source", "target", "domains") if getattr(self, name) is not None]
        if self.embedded is None and not places:
            raise ConfigError("name a folder (or source and target, domains, or embedded)")
        if self.embedded is not None and places:
            raise ConfigError(f"'embedded' and '{places[0]}' contradict each other; drop one")
        _check_name(self.embedded, EMBEDDED, "embedded data set")

    def dataset(self, beside: Path) -> DatasetConfig:
        """The settings of a run, with absolute paths; relative ones are resolved against ``beside``."""
        values = {one.name: getattr(self, one.name) for one in fields(DatasetConfig)}
        if self.embedded is not None:
            values["folder"] = EMBEDDED[self.embedded]
        paths = {name: value for name, value in values.items() if all(isinstance(p, Path) for p in places_of(value))}
        return DatasetConfig(**values | {name: absolute(value, beside) for name, value in paths.items()})


@settings
class Settings:
    """Settings of runs, in the sections of a run file."""

    data: dict[str, Any] = field(default_factory=dict)
    """How images are read, resized and cropped."""
    model: dict[str, Any] = field(default_factory=dict)
    """The methods' own settings."""
    training: dict[str, Any] = field(default_factory=dict)
    """Averaging, batch size, bookkeeping."""


@settings
class Contender(Settings):
    """One row of the table: a method or a recipe, with changed settings."""

    method: str | None = None
    """A method with its defaults; with a recipe, one of the methods that the recipe supports."""
    recipe: str | None = None
    """A recipe ('unpaired recipes' lists them), whose settings are the defaults."""
    run: str | None = None
    """Old name of ``recipe``."""
    label: str | None = None
    """Its name in tables; by default its key."""

    def __post_init__(self) -> None:
        if self.run is not None:
            if self.recipe is not None:
                raise ConfigError("'run' is the old name of 'recipe'; drop 'run'")
            object.__setattr__(self, "recipe", self.run)
        if self.method is None and self.recipe is None:
            raise ConfigError("give a 'method' or a 'recipe'")
        _check_name(self.method, METHODS, "method")
        _check_name(self.recipe, RECIPES, "recipe")
        if self.recipe is not None and self.method is not None and self.method not in methods_of(self.recipe):
            raise ConfigError(f"the recipe '{self.recipe}' does not go with the method '{self.method}'; drop one")

    def base(self) -> dict[str, Any]:
        """The method and its sections before the settings of the file."""
        if self.recipe is not None:
            return recipe(self.recipe, self.method).to_mapping()
        return {"method": self.method, "data": {}, "model": {}, "training": {}}


@settings
class EvaluationOptions:
    """How all runs are scored."""

    metrics: tuple[str, ...] = ()
    """Scores by name; by default all that the files and the available networks allow."""
    intervals: bool = True
    """Compute 95 % confidence intervals."""
    paired: Literal["auto", "yes", "no"] = "auto"
    """Whether files of the same stem are input and truth."""
    weights: tuple[str, ...] = ()
    """Files of pretrained networks as NAME=PATH, relative to this file."""
    download: bool = False
    """Let torch-fidelity fetch the Inception weights of FID."""
    batch_size: BatchSize = 8
    """Images translated at a time."""
    seed: Seed = 0
    """Seed of the scores that draw at random."""

    def __post_init__(self) -> None:
        for entry in self.weights:
            if not re.fullmatch(r"[^=]+=.+", entry):
                raise ConfigError(f"weights: '{entry}' must be NAME=PATH, for example inception=inception.pth")


@settings
class Matrix:
    """What a benchmark compares."""

    budget: Budget
    """How long every run is."""
    data: dict[str, DataEntry]
    """Name -> data set."""
    contenders: dict[str, Contender]
    """Name -> what is compared, in the order of the tables."""
    seeds: tuple[Seed, ...] = (0,)
    """Training seeds; each contender is trained once per data set and seed."""
    slots: tuple[str, ...] = ("cpu",)
    """Devices of the runs, one process each: cpu (any number of times), cuda:N, mps."""
    threads: Threads | None = None
    """CPU threads of each process; unset shares the cores of this machine evenly among the slots."""
    common: Settings = field(default_factory=Settings)
    """Settings of all runs. Those of ``model`` apply to every method that has a setting of that name."""
    evaluate: EvaluationOptions = field(default_factory=EvaluationOptions)
    """How runs are scored."""

    def __post_init__(self) -> None:
        for section in ("data", "contenders", "seeds"):
            if not getattr(self, section):
                raise ConfigError(f"'{section}' is empty; name at least one")
        for name in (*self.data, *self.contenders):
            if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", str(name)):
                raise ConfigError(f"the name {name!r} becomes a part of folder names; use letters, digits and _.+-")
        if len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"seeds: {', '.join(map(str, self.seeds))} names one twice")
        if twice := _twice(map(self.label, self.contenders)):
            raise ConfigError(f"contenders: two have the label '{twice}'; rows must be told apart")
        if twice := _twice(f"{contender}-{data}" for contender in self.contenders for data in self.data):
            raise ConfigError(f"two contenders' runs would share the folder '{twice}-seed...'; rename one")
        check_slots(self.slots)

    def label(self, contender: str) -> str:
        """The name of a contender in tables."""
        return self.contenders[contender].label or contender


def _check_name(name: str | None, known: Iterable[str], what: str, where: str = "") -> None:
    if name is not None and name not in (known := list(known)):
        raise ConfigError(f"{where}there is no {what} '{name}'{nearest(str(name), known)}; known: {', '.join(known)}")


def _twice(names: Iterable[str]) -> str | None:
    names = list(names)
    return next((name for name in names if names.count(name) > 1), None)


def check_slots(slots: Sequence[str]) -> None:
    """Reject slots that are not devices, and devices of different kinds, whose arithmetic differs.

    Raises:
        ConfigError: The message names the slot.
    """
    if not slots:
        raise ConfigError("slots: name at least one device, for example cpu or cuda:0")
    for slot in slots:
        if not re.fullmatch(r"cpu|mps|cuda:\d+", slot):
            raise ConfigError(f"slots: '{slot}' is not a device; use cpu, cuda:0, cuda:1, ... or mps")
    kinds = list(dict.fromkeys(slot.partition(":")[0] for slot in slots))
    if len(kinds) > 1:
        raise ConfigError(
            f"slots: {' and '.join(kinds)} together would make runs that cannot be compared; use devices of one kind"
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


# ---------------------------------------------------------------------------------------------------------------------
# the cells: contenders x data sets
# ---------------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Cell:
    """One contender on one data set: what its runs of all seeds share."""

    contender: str
    data: str
    config: RunConfig
    """The settings, with seed 0 and without a length."""
    held_out: UnpairedFiles
    """The images that it is scored on."""
    files_digest: str
    """Of the names of the training images, as in ``sessions.jsonl``."""

    @property
    def name(self) -> str:
        return f"{self.contender}-{self.data}"

    @property
    def digests(self) -> tuple[str, str]:
        """What identifies source and target images in a record of an evaluation."""
        return _digest(tuple(self.held_out.source)), _digest(tuple(self.held_out.target))

    @functools.cached_property
    def fingerprint(self) -> str:
        """Equal for cells with equal settings, apart from seed and place of the images."""
        ignored = {*MAY_CHANGE, *PATHS, "training.seed"}
        kept = {key: value for key, value in flat(self.config.to_mapping()).items() if key not in ignored}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def compose(matrix: Matrix, where: Path) -> tuple[list[Cell], list[str]]:
    """Merge each method's defaults, the common settings and the contender's own, later ones overriding earlier ones.

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
    notes = _check_common_model(matrix, where)
    cells: list[Cell] = []
    for data, entry in matrix.data.items():
        dataset = entry.dataset(where.parent)
        configs = {name: _config(matrix, name, dataset, entry.loading, where) for name in matrix.contenders}
        try:
            tested = find_held_out(dataset)
            found = [
                Cell(name, data, config, tested, names_digest(dataset.stream(config.data, 0).paths))
                for name, config in configs.items()
            ]
        except UserError as error:
            raise type(error)(f"{where}: data.{data}: {error}") from error
        _check_alike(found, where)
        cells += found
    return cells, notes


def find_held_out(dataset: DatasetConfig) -> UnpairedFiles:
    """The test images of a data set: those named, else testA and testB, else the test folders of two domains.

    Raises:
        DataError: There are none.
    """
    found = dataset.held_out_files(("test",))
    if found is None:
        raise DataError(
            f"{dataset.folder or dataset.domains or dataset.source}: there are no held-out images to score; add testA "
            "and testB to the folder, or name held_out_source and held_out_target"
        )
    return found[0]


@functools.cache
def _digest(paths: tuple[Path, ...]) -> str:
    """The digest of ``ImageFiles``, without decoding the images."""
    try:
        digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror or error}") from error
    return hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()[:16]


def _check_sections(matrix: Matrix, where: Path) -> None:
    """Reject unknown keys, and settings that another key of the file decides."""
    sections: dict[str, tuple[dict[str, Any], type]] = {
        f"data.{name}.loading": (entry.loading, DataConfig) for name, entry in matrix.data.items()
    }
    for place, one in {"common": matrix.common, **{f"contenders.{n}": c for n, c in matrix.contenders.items()}}.items():
        sections |= {f"{place}.data": (one.data, DataConfig), f"{place}.training": (one.training, TrainingConfig)}
    for place, (given, config) in sections.items():
        for key in given:
            _check_name(key, (each.name for each in fields(config)), "setting", f"{where}: {place}: ")
            if config is TrainingConfig and key in _ELSEWHERE:
                raise ConfigError(f"{where}: {place}.{key} has no place here: '{_ELSEWHERE[key]}' decides it")


def _check_common_model(matrix: Matrix, where: Path) -> list[str]:
    """Notes about common settings that some methods do not have; those that none has are rejected."""
    usual = {name: to_dict(METHODS[one.base()["method"]].Config()) for name, one in matrix.contenders.items()}
    without: dict[str, list[str]] = {}
    for name, known in usual.items():
        for key in _applicable(matrix.common.model, known)[1]:
            without.setdefault(key, []).append(name)
    for key, names in without.items():
        if len(names) == len(usual):
            hint = nearest(key, sorted({setting for settings in usual.values() for setting in settings}))
            raise ConfigError(f"{where}: common.model.{key}: no contender's method has such a setting{hint}")
    return [f"common.model.{key} is not a setting of {', '.join(names)}" for key, names in without.items()]


def _applicable(settings: Mapping[str, Any], usual: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The settings whose names ``usual`` has, and the dotted names of the others."""
    applied: dict[str, Any] = {}
    others: list[str] = []
    for key, value in settings.items():
        if key not in usual:
            others.append(key)
        elif isinstance(value, Mapping) and isinstance(usual[key], Mapping):
            applied[key], more = _applicable(value, usual[key])
            others += [f"{key}.{name}" for name in more]
        else:
            applied[key] = value
    return applied, others


def _config(matrix: Matrix, name: str, dataset: DatasetConfig, loading: Mapping[str, Any], where: Path) -> RunConfig:
    contender, place = matrix.contenders[name], f"{where}: contenders.{name}"
    base = contender.base()
    method = METHODS[base["method"]]
    several = "domain" in method.supports
    if several != (dataset.domains is not None):
        raise ConfigError(
            f"{place}: {method.title} is for {'several domains' if several else 'two domains'}, but a data set of this "
            f"file is for {'two' if several else 'several'}; benchmark them in a file of their own"
        )
    applied, _ = _applicable(matrix.common.model, to_dict(method.Config()))
    sections = {
        "data": (matrix.common.data, loading, contender.data),
        "model": (applied, contender.model),
        "training": (matrix.common.training, contender.training, dict.fromkeys(("images", "stop_after", "threads"))
                     | {"seed": 0, "devices": 1, "nodes": 1, "accelerator": "auto"}),
    }  # fmt: skip
    mapping = {key: functools.reduce(merged, layers, base[key]) for key, layers in sections.items()}
    return replace(RunConfig.from_mapping({"method": base["method"], **mapping}, place), dataset=dataset)


def _check_alike(cells: Sequence[Cell], where: Path) -> None:
    """Reject contenders whose scores would not be comparable, and those that are the same run."""
    first, same = cells[0], dict[str, Cell]()
    for cell in cells:
        for key in _PROTOCOL:
            values = getattr(first.config.data, key), getattr(cell.config.data, key)
            if values[0] != values[1]:
                raise ConfigError(
                    f"{where}: {key} is {values[0]} for {first.contender} but {values[1]} for {cell.contender}, so "
                    "their scores would mean different things; set it for all under common.data"
                )
        if (found := same.setdefault(cell.fingerprint, cell)) is not cell:
            names = f"{found.contender} and {cell.contender}"
            raise ConfigError(f"{where}: the contenders {names} have the same settings, so they are the same run")
