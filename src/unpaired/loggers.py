"""Loggers: a training as scalars, images and settings in TensorBoard, Weights & Biases, MLflow or a CSV file.

The interface is Lightning Fabric's ``Logger`` with ``log_image(key, images, step)`` as Lightning's loggers have it.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric.loggers import Logger, TensorBoardLogger
from PIL import Image
from torch import Tensor

from unpaired.config import checked
from unpaired.engine.callbacks import Callback, Ending, Samples, Training
from unpaired.engine.training_config import LoggerName
from unpaired.errors import BackendError, require_packages
from unpaired.files import json_lines, read_json, write_atomically
from unpaired.grids import heat_map, side_by_side
from unpaired.inference.significance import significance_of
from unpaired.methods import Method
from unpaired.networks.padding import pad

IDS = "loggers.json"
"""File of a run folder: the id of the run at each service that gave one, with which a resumed run goes on there."""
_STATUS = {"finished": "success", "stopped": "aborted", "failed": "failed"}


class Logging(Callback):
    """Sends a training to loggers: loss terms, cost, scores, settings, samples, before and after, significance.

    A logger that fails after the start is left out from then on, with one line; training goes on.

    Args:
        loggers: Of Lightning or of Fabric. Those with ``log_image(key, images, step)`` get images.
        say: Called with one sentence where a logger fails.

    Raises:
        BackendError: A logger cannot begin.
    """

    def __init__(self, *loggers: Any, say: Callable[[str], object] = print) -> None:
        self._loggers, self._say = list(loggers), say

    def on_start(self, training: Training) -> None:
        self._method = training.method
        for logger in self._loggers:
            try:
                logger.log_hyperparams({key: value for key, value in training.settings.items() if value is not None})
            except Exception as error:
                raise BackendError(f"logger: {_name(logger)} cannot begin: {_line(error)}") from error

    def on_step(self, seen: int, terms: Mapping[str, Tensor], record: Mapping[str, Any] | None) -> None:
        if record is not None:
            cost = {name: record[name] for name in ("images_per_second", "peak_memory_gib")}
            self._metrics(seen, loss=record["terms"], cost=cost | {"learning_rate": record["learning_rate"]})

    def on_score(self, seen: int, weights: str, scores: Mapping[str, Mapping[str, Any]], best: bool) -> None:
        self._metrics(seen, score={f"{name}/{weights}": float(score["value"]) for name, score in scores.items()})

    def on_sample(self, seen: int, samples: Samples) -> None:
        if not self._loggers:
            return
        images = {
            "samples": [samples.grid],
            "before_after": [side_by_side(pair, 4) for pair in zip(samples.before, samples.averaged, strict=True)],
            **significance_maps(self._method, samples),
        }
        for key, pictures in images.items():
            self._each(functools.partial(_log_image, key=key, images=pictures, step=seen))

    def on_end(self, seen: int, ending: Ending) -> None:
        self._each(lambda logger: logger.finalize(_STATUS[ending]))

    def _metrics(self, seen: int, **groups: Mapping[str, float | None]) -> None:
        values = {f"{group}/{name}": x for group, found in groups.items() for name, x in found.items() if x is not None}
        self._each(lambda logger: logger.log_metrics(values, seen))

    def _each(self, action: Callable[[Any], object]) -> None:
        for logger in tuple(self._loggers):
            try:
                action(logger)
            except Exception as error:  # a server that is gone must not end a training
                self._loggers.remove(logger)
                self._say(f"Warning: {_name(logger)} failed and is left out from here on: {_line(error)}")


class CsvLog(Callback):
    """Writes ``log.csv`` in the run folder with every checkpoint: ``log.jsonl`` as a table."""

    def on_start(self, training: Training) -> None:
        self._run = training.run

    def on_checkpoint(self, seen: int, path: Path) -> None:
        import pandas as pd  # takes half a second

        table = pd.json_normalize(json_lines(self._run / "log.jsonl"))
        write_atomically(self._run / "log.csv", table.to_csv(index=False).encode())


class TensorBoard(TensorBoardLogger):
    """TensorBoard's files in the folder ``tensorboard`` of a run."""

    def log_image(self, key: str, images: Sequence[Image.Image], step: int) -> None:
        for tag, image in _numbered(key, images):
            self.experiment.add_image(tag, np.asarray(image), step, dataformats="HWC")

    def log_hyperparams(self, params: Any, *rest: Any, **more: Any) -> None:
        from torch.utils.tensorboard.summary import hparams

        for summary in hparams(self._sanitize_params(dict(params)), {}):  # Fabric's own would invent a score
            self.experiment._get_file_writer().add_summary(summary)
        table = "".join(f"| {key} | {value} |\n" for key, value in params.items())
        self.experiment.add_text("settings", f"| setting | value |\n|---|---|\n{table}", 0)


class _OfAService(Logger):
    """A run at a service, whose id is kept in the run folder."""

    def __init__(self, run: Path) -> None:
        self._run = run

    @property
    def name(self) -> str:
        return self._run.name

    @property
    def version(self) -> str | None:
        """The id of the run at the service."""
        return self._ids().get(type(self).__name__)

    def keep(self, version: str) -> None:
        """Write the id down."""
        ids = self._ids() | {type(self).__name__: version}
        write_atomically(self._run / IDS, json.dumps(ids, indent=1).encode())

    def _ids(self) -> dict[str, str]:
        try:
            return checked(dict[str, str], read_json(self._run / IDS))
        except (OSError, ValueError):  # none yet, or damaged: the service makes a new run
            return {}


class WandB(_OfAService):
    """A run at Weights & Biases; ``WANDB_PROJECT``, ``WANDB_MODE`` and the like decide where it goes."""

    @functools.cached_property
    def experiment(self) -> Any:
        import wandb

        if self.version is None:
            self.keep(uuid.uuid4().hex[:8])
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "unpaired"), name=self.name, id=self.version, resume="allow",
            dir=os.environ.get("WANDB_DIR", self._run), settings=wandb.Settings(console="off", silent=True),
        )  # fmt: skip
        # Steps of a run at the service only go up, and a resumed training may repeat some.
        run.define_metric("images_seen")
        run.define_metric("*", step_metric="images_seen")
        return run

    def log_hyperparams(self, params: Any, *rest: Any, **more: Any) -> None:
        self.experiment.config.update(params, allow_val_change=True)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.experiment.log({**metrics, "images_seen": step})

    def log_image(self, key: str, images: Sequence[Image.Image], step: int) -> None:
        import wandb

        self.experiment.log({key: [wandb.Image(image) for image in images], "images_seen": step})

    def finalize(self, status: str) -> None:
        if "experiment" in vars(self):
            self.experiment.finish(exit_code=int(status == "failed"))


class MLflow(_OfAService):
    """A run at an MLflow server or store; ``MLFLOW_TRACKING_URI`` and ``MLFLOW_EXPERIMENT_NAME`` decide where."""

    @functools.cached_property
    def experiment(self) -> Any:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        client, title = MlflowClient(), os.environ.get("MLFLOW_EXPERIMENT_NAME", "unpaired")
        if self.version is not None:
            try:
                client.update_run(self.version, status="RUNNING")
                return client
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
        found = client.get_experiment_by_name(title)
        place = client.create_experiment(title) if found is None else found.experiment_id
        self.keep(client.create_run(place, run_name=self.name).info.run_id)
        return client

    def log_hyperparams(self, params: Any, *rest: Any, **more: Any) -> None:
        from mlflow.entities import Param

        known = self.experiment.get_run(self.version).data.params  # a value is written once
        new = [Param(key, str(value)) for key, value in params.items() if key not in known]
        for start in range(0, len(new), 100):
            self.experiment.log_batch(self.version, params=new[start : start + 100])

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        for key, value in metrics.items():
            self.experiment.log_metric(self.version, key, value, step=step)

    def log_image(self, key: str, images: Sequence[Image.Image], step: int) -> None:
        for tag, image in _numbered(key, images):
            self.experiment.log_image(self.version, image, key=tag, step=step)

    def finalize(self, status: str) -> None:
        words = {"success": "FINISHED", "aborted": "KILLED", "failed": "FAILED"}
        if "experiment" in vars(self):
            self.experiment.set_terminated(self.version, words[status])


_SERVICES: dict[str, type[_OfAService]] = {"wandb": WandB, "mlflow": MLflow}


class OwnLoggers(Logging):
    """The loggers that the setting ``logger`` names.

    Raises:
        BackendError: The package of one is not installed.
    """

    def __init__(self, names: Sequence[LoggerName], say: Callable[[str], object]) -> None:
        super().__init__(say=say)
        self._names = names
        for name in names:
            if name in _SERVICES:
                require_packages(f"--logger {name}", name, name)

    def on_start(self, training: Training) -> None:
        run, seen = training.run, training.seen
        self._loggers += [_SERVICES[name](run) for name in self._names if name in _SERVICES]
        if "tensorboard" in self._names:
            try:
                str(run.absolute()).encode()
                purge = seen + 1 if seen else None
                self._loggers.append(TensorBoard(root_dir=run, name="tensorboard", version="", purge_step=purge))
            except UnicodeEncodeError:
                self._say("No tensorboard/ is written: TensorBoard knows only folders whose names are UTF-8.")
        super().on_start(training)


def significance_maps(method: Method, samples: Samples) -> dict[str, list[Image.Image]]:
    """The samples under what the method finds significant in them, at each tap where it selects (the last two)."""
    taps = getattr(getattr(method, "config", None), "attention_taps", ())[-2:]
    inputs = pad(samples.inputs.to(next(method.parameters()).device))
    with torch.no_grad():
        return {
            f"significance/{tap}": [
                heat_map(picture, significance_of(method, x[None], tap, 1).entropy, size=max(128, *picture.size))
                for picture, x in zip(samples.before, inputs, strict=True)
            ]
            for tap in taps
        }


def _numbered(key: str, images: Sequence[Image.Image]) -> list[tuple[str, Image.Image]]:
    return [(key, images[0])] if len(images) == 1 else [(f"{key}/{n}", image) for n, image in enumerate(images)]


def _log_image(logger: Any, key: str, images: Sequence[Image.Image], step: int) -> None:
    if hasattr(logger, "log_image"):
        logger.log_image(key, images, step)


def _name(logger: Any) -> str:
    return type(logger).__name__


def _line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
