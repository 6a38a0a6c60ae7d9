"""The runs of a matrix: their lengths, and their progress as read from the run folders."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unpaired.benchmarking.matrix import Cell, EvaluationOptions, Matrix
from unpaired.config import to_dict
from unpaired.errors import ConfigError, UserError
from unpaired.evaluation import METRICS
from unpaired.files import json_lines, read_json, write_atomically
from unpaired.reporting.records import value_protocol
from unpaired.run_config import MAY_CHANGE, PATHS, RunConfig, as_begun, flat, store
from unpaired.run_folder import first_digest, images_in_weights, images_seen, seconds_per_image


@dataclass(frozen=True)
class Run:
    """One training and its evaluation: a cell with a seed and a length, in a run folder."""

    cell: Cell
    seed: int
    images: int
    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def config(self) -> RunConfig:
        """The settings; device and threads come from the slot."""
        own = self.cell.config
        return replace(own, training=replace(own.training, images=self.images, seed=self.seed))

    @property
    def trained(self) -> bool:
        return is_trained(self.folder, self.images)

    def record(self, options: EvaluationOptions) -> dict[str, Any] | None:
        """The newest evaluation by this benchmark's protocol; a run without one is not done."""
        lines = reversed(json_lines(self.folder / "evaluations.jsonl")) if self.trained else ()
        return next((line for line in lines if self._fits(line, options)), None)

    def _fits(self, record: Mapping[str, Any], options: EvaluationOptions) -> bool:
        """Whether a record has these images, this protocol and all wanted scores."""
        try:
            data, measured = record["data"], record["scores"]["ema"].values()
            scores = {one["name"]: value_protocol(one["protocol"]) for one in measured}
            found = (*(data[key] for key in ("source_digest", "target_digest", "image_size")), record["images_seen"],
                     record["seed"])  # fmt: skip
        except (AttributeError, KeyError, TypeError):
            return False
        size = to_dict(self.config.data)["image_size"]
        return (
            found == (*self.cell.digests, size, self.images, options.seed)
            and all(METRICS[name].protocol == protocol for name, protocol in scores.items() if name in METRICS)
            and all(name in scores for name in options.metrics)
        )

    def check_settings(self, *, change: bool = True) -> str:
        """Reject a folder with another run; adopt one whose images have moved.

        Args:
            change: Whether to write the new place of the images into its ``run.yaml``.

        Returns:
            A message about what was adopted; usually empty.

        Raises:
            ConfigError: A setting differs; the message names the run and the setting.
        """
        file = self.folder / "run.yaml"
        if not file.exists():
            return ""
        previous = RunConfig.load(file).to_mapping()
        before, now = flat(previous), flat(as_begun(self.config, self.folder).to_mapping())
        if not now.get("model.domains", True):
            now["model.domains"] = before["model.domains"]  # taken from the folder when the run began
        keys = dict.fromkeys((*now, *before))
        changed = [key for key in keys if before.get(key) != now.get(key) and key not in MAY_CHANGE]
        if settings := [key for key in changed if key not in PATHS]:
            listed = "; ".join(f"{key} was {before.get(key)!r}, now {now.get(key)!r}" for key in settings[:4])
            raise ConfigError(
                f"{self.folder} was made with other settings ({listed}); set them back, or give the contender another "
                "name"
            )
        if first_digest(self.folder) not in (self.cell.files_digest, None):
            raise ConfigError(
                f"{self.folder} was trained on other images (names or number differ from those of "
                f"data.{self.cell.data}); give the data set another name"
            )
        if not changed:
            return ""
        if change:
            store(file, {**previous, "dataset": self.config.to_mapping()["dataset"]})
        return f"{self.name}: existing run continued; its images were in {before[changed[0]]}, now in {now[changed[0]]}"


def is_trained(folder: Path, images: int | None) -> bool:
    """Whether a folder holds the weights of a whole run of so many images."""
    return (folder / "run.yaml").exists() and images_in_weights(folder) >= (images or 0)


class Plan:
    """The runs of a matrix in the folder ``out``, and the speeds that were measured there (``plan.json``).

    Raises:
        UserError: The file is damaged.
    """

    def __init__(self, matrix: Matrix, cells: Sequence[Cell], out: Path) -> None:
        self.matrix, self.cells, self.out = matrix, cells, out
        self._file, self._measured = out / "plan.json", dict[str, dict[str, Any]]()
        if self._file.exists():
            try:
                entries = read_json(self._file)["cells"]
                self._measured = {
                    name: {"fingerprint": str(one["fingerprint"]), "seconds_per_image": float(one["seconds_per_image"])}
                    for name, one in entries.items()
                }
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise UserError(
                    f"{self._file} is damaged ({error}); move it away: its speeds are measured again"
                ) from error

    def folder(self, cell: Cell, seed: int) -> Path:
        return self.out / "runs" / f"{cell.name}-seed{seed}"

    def runs(self) -> list[Run]:
        """All runs of known length; seeds outermost, so that the table of the first seed is complete first."""
        lengths = {cell.name: self.images(cell) for cell in self.cells}
        return [
            Run(cell, seed, images, self.folder(cell, seed))
            for seed in self.matrix.seeds
            for cell in self.cells
            if (images := lengths[cell.name]) is not None
        ]

    def images(self, cell: Cell) -> int | None:
        """Images of each run of a cell; ``None`` where minutes are given and the speed is not measured yet."""
        budget, batch = self.matrix.budget, cell.config.training.batch_size
        if budget.minutes is None:
            return budget.images
        begun = [file for seed in self.matrix.seeds if (file := self.folder(cell, seed) / "run.yaml").exists()]
        known = self._measured.get(cell.name)
        if known is not None and (begun or known["fingerprint"] == cell.fingerprint):
            return max(1, math.floor(budget.minutes * 60 / known["seconds_per_image"] / batch)) * batch
        return RunConfig.load(begun[0]).training.images if begun else None  # plan.json is lost, its runs are not

    def seconds_per_image(self, cell: Cell) -> float | None:
        """Speed of a cell's runs by their logs, else as measured."""
        logged = [seconds_per_image(self.folder(cell, seed)) for seed in self.matrix.seeds]
        if known := [each for each in logged if each is not None]:
            return statistics.median(known)
        found = self._measured.get(cell.name)
        return found["seconds_per_image"] if found is not None and found["fingerprint"] == cell.fingerprint else None

    def keep(self, cell: Cell, seconds: float) -> None:
        """Store a measured speed."""
        self._measured[cell.name] = {"fingerprint": cell.fingerprint, "seconds_per_image": seconds}
        write_atomically(self._file, json.dumps({"format": 1, "cells": self._measured}, indent=1).encode())

    def seconds_left(self, runs: Sequence[Run]) -> float:
        """Training time left for these runs on one device; an unknown speed counts as the mean of the others."""
        speeds = {cell.name: self.seconds_per_image(cell) for cell in self.cells}
        known = [speed for speed in speeds.values() if speed is not None]
        usual = sum(known) / len(known) if known else 0.0
        return sum(max(0, run.images - images_seen(run.folder)) * (speeds[run.cell.name] or usual) for run in runs)
