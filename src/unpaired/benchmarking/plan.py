"""Every run of a benchmark and its length, which is fixed once and kept in ``plan.json``."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unpaired.benchmarking.cells import Cell, fingerprint
from unpaired.benchmarking.matrix import Matrix
from unpaired.errors import ConfigError, UserError
from unpaired.files import write_atomically
from unpaired.training import RunConfig

_FORMAT = 1


@dataclass(frozen=True)
class Run:
    """One training: a cell with one seed.

    Attributes:
        cell: Contender and data.
        seed: Of the training.
        images: Its length.
        folder: The run folder.
    """

    cell: Cell
    seed: int
    images: int
    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def config(self) -> RunConfig:
        """The settings of this run; device and threads come from its slot."""
        own = self.cell.config
        training = dataclasses.replace(own.training, images=self.images, seed=self.seed)
        return dataclasses.replace(own, training=training)


@dataclass(frozen=True)
class Measured:
    """What one short training told of a cell.

    Attributes:
        fingerprint: Of the settings that were measured.
        seconds_per_image: Time of a training step with its loading, per image.
        slot: Where.
        images: Length of the runs that a budget in minutes gave; ``None`` where the budget is in images.
        minutes: That budget.
    """

    fingerprint: str
    seconds_per_image: float
    slot: str
    images: int | None = None
    minutes: float | None = None


class Plan:
    """The lengths and the runs of a matrix in the folder ``out``.

    Args:
        matrix: What is compared.
        cells: Its cells.
        out: The benchmark's folder.

    Raises:
        ConfigError: Runs of another budget in minutes are there.
    """

    def __init__(self, matrix: Matrix, cells: Iterable[Cell], out: Path) -> None:
        self.matrix, self.cells, self.out = matrix, list(cells), out
        self.path = out / "plan.json"
        self.measured = self._read()
        self.notes: list[str] = []
        for cell in self.cells:
            self._check(cell)

    def folder(self, cell: Cell, seed: int) -> Path:
        return self.out / "runs" / f"{cell.name}-seed{seed}"

    def length(self, cell: Cell) -> int | None:
        """Images of each run of a cell; ``None`` until its speed is measured."""
        if self.matrix.budget.images is not None:
            return self.matrix.budget.images
        found = self.measured.get(cell.name)
        return None if found is None else found.images

    def unmeasured(self) -> list[Cell]:
        """Cells whose length waits for a measurement."""
        return [cell for cell in self.cells if self.length(cell) is None]

    def runs(self) -> list[Run]:
        """All runs whose length is known; seeds outermost, so that a whole table of the first seed comes first."""
        return [
            Run(cell, seed, length, self.folder(cell, seed))
            for seed in self.matrix.seeds
            for cell in self.cells
            if (length := self.length(cell)) is not None
        ]

    def keep(self, cell: Cell, seconds_per_image: float, slot: str) -> None:
        """File a measurement, and with a budget in minutes the length that follows from it.

        Raises:
            UserError: The file cannot be written.
        """
        minutes, images = self.matrix.budget.minutes, None
        if minutes is not None:
            batch = cell.config.training.batch_size
            images = max(1, math.floor(minutes * 60 / seconds_per_image / batch)) * batch
        self.measured[cell.name] = Measured(fingerprint(cell.config), seconds_per_image, slot, images, minutes)
        entries = {name: dataclasses.asdict(one) for name, one in self.measured.items()}
        self.out.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, json.dumps({"format": _FORMAT, "cells": entries}, indent=1).encode())

    def seconds_per_image(self, cell: Cell) -> float | None:
        """What a cell's runs took, as their logs have it, else what was measured."""
        logged = [speed for seed in self.matrix.seeds if (speed := logged_speed(self.folder(cell, seed))) is not None]
        if logged:
            return statistics.median(logged)
        found = self.measured.get(cell.name)
        return None if found is None or found.fingerprint != fingerprint(cell.config) else found.seconds_per_image

    def _read(self) -> dict[str, Measured]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            if content["format"] != _FORMAT:
                raise ConfigError(f"{self.path} is of another version of unpaired; choose another --out")
            return {name: Measured(**entry) for name, entry in content["cells"].items()}
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read: {error.strerror or error}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, UserError):
                raise
            raise ConfigError(f"{self.path} is damaged; remove it (the runs say again how long they are)") from error

    def _check(self, cell: Cell) -> None:
        """Take the length of a cell's runs from the plan or from the runs; forget what fits no more."""
        minutes, found = self.matrix.budget.minutes, self.measured.get(cell.name)
        begun = [f for seed in self.matrix.seeds if (f := self.folder(cell, seed)) and (f / "run.yaml").exists()]
        if minutes is None:
            return
        if begun and (found is None or found.images is None):
            images = RunConfig.load(begun[0] / "run.yaml").training.images
            self.measured[cell.name] = Measured(fingerprint(cell.config), _speed(begun, minutes, images), "", images,
                                                minutes)  # fmt: skip
            self.notes.append(f"{cell.name}: plan.json does not have its length; {begun[0].name} says {images} images")
        elif begun and found is not None and found.minutes != minutes:
            raise ConfigError(
                f"{begun[0]} has the length of a budget of {found.minutes:g} minutes, now minutes is {minutes:g}; set "
                "it back, or choose another --out"
            )
        elif (  # with runs begun, their check says which setting changed
            not begun
            and found is not None
            and (found.minutes, found.fingerprint) != (minutes, fingerprint(cell.config))
        ):
            del self.measured[cell.name]


def _speed(begun: Iterable[Path], minutes: float, images: int | None) -> float:
    logged = [speed for folder in begun if (speed := logged_speed(folder)) is not None]
    return statistics.median(logged) if logged else minutes * 60 / (images or 1)


def logged_speed(run: Path) -> float | None:
    """Median of the seconds per image in the log of a run."""
    found = [record.get("seconds_per_image") for record in log_records(run)]
    known = [float(each) for each in found if isinstance(each, int | float) and each > 0]
    return statistics.median(known) if known else None


def log_records(run: Path) -> list[Mapping[str, Any]]:
    """The whole lines of ``log.jsonl``."""
    try:
        lines = (run / "log.jsonl").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    records: list[Mapping[str, Any]] = []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:  # being written, or cut short
            continue
        if isinstance(record, dict):
            records.append(record)
    return records
