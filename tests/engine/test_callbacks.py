"""Callbacks, and the loggers among them: what they are told, what lies in their files, and what a failure costs."""

from __future__ import annotations

import importlib.util
import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tiny import equal, tiny_run, trained
from unpaired.engine.callbacks import Callback, Samples, Training
from unpaired.errors import BackendError
from unpaired.loggers import IDS, Logging
from unpaired.training import RunConfig, train

SIDES = 4
"""Images of the tiny run between two sample grids."""


class Listener(Callback):
    """Notes the name of every event and what came with it."""

    def __init__(self) -> None:
        self.told: list[tuple[str, tuple[Any, ...]]] = []

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("on_"):
            return lambda *arguments: self.told.append((name, arguments))
        return super().__getattribute__(name)

    def of(self, name: str) -> list[tuple[Any, ...]]:
        return [arguments for event, arguments in self.told if event == name]


def scored(dataset: Path, **changes: object) -> RunConfig:
    """A tiny run of six images with samples, checkpoints and scores."""
    return tiny_run(dataset, sample_every=SIDES, checkpoint_every=2, score_every=3, log_every=2, **changes)


def test_what_a_callback_is_told(dataset: Path, tmp_path: Path) -> None:
    first, second, run = Listener(), Listener(), tmp_path / "run"
    assert not train(scored(dataset, stop_after=5), run, callbacks=[first], quiet=True).finished
    assert train(scored(dataset), run, callbacks=[second], quiet=True).finished

    ((training,),) = first.of("on_start")
    assert isinstance(training, Training)
    assert (training.run, training.seen, training.length.total) == (run, 0, 6)
    assert training.settings["model.num_queries"] == 16
    assert [seen for seen, _, _ in first.of("on_step")] == [1, 2, 3, 4, 5]
    assert [seen for seen, _, _ in second.of("on_step")] == [6]
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    records = [record for each in (first, second) for _, _, record in each.of("on_step") if record is not None]
    assert records == lines
    assert all(terms["adversarial"].isfinite() for _, terms, _ in first.of("on_step"))
    ((seen, samples),) = first.of("on_sample")
    assert (seen, len(samples.inputs), samples.inputs.shape[1:]) == (4, 3, (3, 32, 32))
    assert len(samples.before) == len(samples.averaged) == len(samples.last) == 3
    with Image.open(run / "samples" / "000000004.png") as written:
        assert written.tobytes() == samples.grid.tobytes()
    assert [(seen, weights) for seen, weights, _, _ in first.of("on_score")] == [(3, "ema"), (3, "last")]
    assert first.of("on_score")[0][3] is True
    assert [seen for seen, _ in first.of("on_checkpoint")] == [2, 3, 4, 5]
    assert all(path.parent == run / "checkpoints" for _, path in second.of("on_checkpoint"))
    assert (first.told[0][0], first.told[-1]) == ("on_start", ("on_end", (5, "stopped")))
    assert second.told[-1] == ("on_end", (6, "finished"))
    assert second.of("on_start")[0][0].seen == 5


def test_an_error_in_a_callback_ends_the_training_and_the_others_hear_of_it(dataset: Path, tmp_path: Path) -> None:
    class Broken(Callback):
        def on_step(self, seen: int, terms: Any, record: Any) -> None:
            if seen == 3:
                raise RuntimeError("mine")

    other, run = Listener(), tmp_path / "run"
    with pytest.raises(RuntimeError, match="mine"):
        train(tiny_run(dataset), run, callbacks=[other, Broken()], quiet=True)
    assert other.told[-1] == ("on_end", (3, "failed"))
    assert train(tiny_run(dataset), run, quiet=True).finished
    train(tiny_run(dataset), tmp_path / "whole", quiet=True)
    assert equal(trained(run), trained(tmp_path / "whole"))


# ---------------------------------------------------------------------------------------------------------------------
# loggers: name -> what lies there, as (settings, name -> steps of scalars, name -> steps of pictures)
# ---------------------------------------------------------------------------------------------------------------------
Found = tuple[dict[str, str], dict[str, list[int]], dict[str, list[int]]]


def in_tensorboard(run: Path) -> Found:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    files = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0, "scalars": 0})
    files.Reload()
    tags = files.Tags()
    assert "_hparams_/session_start_info" in files.summary_metadata
    table = files.Tensors("settings/text_summary")[-1].tensor_proto.string_val[0].decode()
    settings = dict(row.strip("| ").split(" | ", 1) for row in table.splitlines()[2:])
    pictures = {name.split("/0")[0]: [event.step for event in files.Images(name)] for name in tags["images"]}
    return settings, {name: [event.step for event in files.Scalars(name)] for name in tags["scalars"]}, pictures


def wandb_records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file, which is a log of LevelDB: blocks of 32 KiB, parts with a checksum and a length."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, record = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        record, at = record + data[at + 7 : at + 7 + length], at + 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(record)
            record = b""


def in_wandb(run: Path) -> Found:
    settings, scalars, pictures = dict[str, str](), dict[str, list[int]](), dict[str, list[int]]()
    files = sorted(run.glob("wandb/offline-run-*/*.wandb"))
    assert {path.name for path in files} == {f"run-{json.loads((run / IDS).read_text())['WandB']}.wandb"}
    for file in files:
        for record in wandb_records(file):
            settings |= {item.key: json.loads(item.value_json) for item in record.config.update}
            items = {tuple(each.nested_key): json.loads(each.value_json) for each in record.history.item}
            for (name, *rest), value in items.items():
                if rest == ["filenames"]:
                    assert all((file.parent / "files" / path).is_file() for path in value)
                    pictures.setdefault(name, []).append(items["images_seen",])
                elif not rest and "/" in name:
                    scalars.setdefault(name, []).append(items["images_seen",])
    return {key: str(value) for key, value in settings.items()}, scalars, pictures


def in_mlflow(run: Path) -> Found:
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    ((experiment),) = [each for each in client.search_experiments() if each.name == "unpaired"]
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.status, found.info.run_name) == ("FINISHED", run.name)
    key = found.info.run_id
    scalars = {name: [each.step for each in client.get_metric_history(key, name)] for name in found.data.metrics}
    pictures: dict[str, set[int]] = {}
    for artifact in client.list_artifacts(key, "images"):
        name, _, rest = Path(artifact.path).name.replace("~", "/").replace("#", "/").partition("+step+")
        pictures.setdefault(name.split("/0")[0], set()).add(int(rest.split("+")[0]))
    return found.data.params, scalars, {name: sorted(steps) for name, steps in pictures.items()}


LOGGERS: dict[str, Callable[[Path], Found]] = {
    "tensorboard": in_tensorboard, "wandb": in_wandb, "mlflow": in_mlflow,
}  # fmt: skip
EXTRAS = ("wandb", "mlflow")


def needs(name: str) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed: pip install 'unpaired[{name}]'")


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """wandb without a network, and an MLflow store of this test."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)  # MLflow's pictures go to ./mlruns


@pytest.mark.parametrize("name", LOGGERS)
def test_a_logger_has_scalars_pictures_and_settings_and_goes_on_in_its_run(
    name: str, dataset: Path, tmp_path: Path, services: None
) -> None:
    needs(name)
    run, config = tmp_path / "run", scored(dataset, logger=(name, "csv"))
    train(replace(config, training=replace(config.training, stop_after=5)), run, quiet=True)
    assert train(config, run, quiet=True).finished
    settings, scalars, pictures = LOGGERS[name](run)
    assert (settings["model.num_queries"], settings["method"]) == ("16", "qs_attn")
    assert sorted(set(scalars["loss/adversarial"])) == [2, 4, 6]
    assert sorted(set(scalars["cost/learning_rate"])) == [2, 4, 6]
    assert {name.split("/")[2] for name in scalars if name.startswith("score/")} == {"ema", "last"}
    kinds = ("samples", "before_after", "significance/block1", "significance/block5")
    assert {key: pictures[key] for key in kinds} == {key: [SIDES] for key in kinds}
    rows = (run / "log.csv").read_text().splitlines()
    assert len(rows) == 4
    assert "terms.adversarial" in rows[0]

    train(scored(dataset, logger=()), tmp_path / "plain", quiet=True)
    assert equal(trained(run), trained(tmp_path / "plain"))  # a logger draws nothing
    assert not (tmp_path / "plain" / "tensorboard").exists()


@pytest.mark.parametrize("name", EXTRAS)
def test_a_missing_extra_is_one_line_before_anything_is_written(
    name: str, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda asked, *rest: None if asked == name else real(asked, *rest))
    with pytest.raises(BackendError, match=rf'--logger {name} needs .*pip install "unpaired\[{name}\]"'):
        train(tiny_run(dataset, logger=("tensorboard", name)), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


class Frail:
    """A logger of somebody else's, without images, that fails at one of its functions."""

    def __init__(self, at: str) -> None:
        self._at, self.calls = at, list[str]()

    def __getattr__(self, name: str) -> Any:
        if name == "log_image":
            raise AttributeError(name)

        def called(*_: Any, **__: Any) -> None:
            self.calls.append(name)
            if name == self._at:
                raise ConnectionError("the server is gone\nand more of it")

        return called


@pytest.mark.parametrize("at", ["log_metrics", "finalize", "log_hyperparams", "nothing"])
def test_a_logger_that_fails_costs_no_training(at: str, dataset: Path, tmp_path: Path) -> None:
    said: list[str] = []
    frail, config = Frail(at), tiny_run(dataset, logger=())
    logging = Logging(frail, say=said.append)
    if at == "log_hyperparams":  # at the start there is time to mend it
        with pytest.raises(BackendError, match=r"logger: Frail cannot begin: the server is gone$"):
            train(config, tmp_path / "run", callbacks=[logging], quiet=True)
        return
    assert train(config, tmp_path / "run", callbacks=[logging], quiet=True).finished
    assert said == (
        [] if at == "nothing" else ["Warning: Frail failed and is left out from here on: the server is gone"]
    )
    assert frail.calls.count("log_metrics") == (1 if at == "log_metrics" else 6)


def test_samples_have_no_significance_where_a_method_does_not_select(dataset: Path, tmp_path: Path) -> None:
    seen: list[str] = []

    class Images(Frail):
        def log_image(self, key: str, images: list[Image.Image], step: int) -> None:
            seen.append(key)

    class Last(Callback):
        def on_sample(self, seen: int, samples: Samples) -> None:
            assert samples.grid.width > 100

    train(tiny_run(dataset, "cut", logger=()), tmp_path / "run", callbacks=[Logging(Images("no")), Last()], quiet=True)
    assert seen == ["samples", "before_after"]
