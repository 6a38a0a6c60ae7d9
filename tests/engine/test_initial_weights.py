"""``--init``: a run begins with the weights of another one."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from test_training import assert_same, final_state

from tiny import tiny_run, write_images
from unpaired import cli
from unpaired.config import load_yaml, save_yaml
from unpaired.errors import CheckpointError, ConfigError, UserError
from unpaired.inference.initial import InitialWeights
from unpaired.methods import METHODS
from unpaired.training import RunConfig, train


@pytest.fixture
def source(dataset: Path, tmp_path: Path) -> Path:
    """A finished run of CUT."""
    train(tiny_run(dataset, "cut", images=4), tmp_path / "source", quiet=True)
    return tmp_path / "source"


@pytest.fixture
def other_data(tmp_path: Path) -> Path:
    for split, seed in (("trainA", 11), ("trainB", 12)):
        write_images(tmp_path / "other" / split, 3, seed=seed)
    return tmp_path / "other"


def begun_with(source: Path | str, config: RunConfig, weights: Any = "ema") -> RunConfig:
    return replace(config, init=InitialWeights(str(source), weights))


def still(config: RunConfig) -> RunConfig:
    """The same run with steps too small to change a weight in float32."""
    optimiser = replace(config.model.optimiser, learning_rate=1e-60)
    return replace(config, model=replace(config.model, optimiser=optimiser))


@pytest.mark.parametrize("method", ["cut", "qs_attn", "fastcut"])
@pytest.mark.parametrize("weights", ["ema", "last"])
def test_all_networks_come_along_between_methods_of_one_architecture(
    method: str, weights: str, source: Path, other_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    train(begun_with(source, still(tiny_run(other_data, method, images=1)), weights), out)
    assert (
        f"Begins with generator ({weights}) of {source} and discriminator and projector of its "
        "checkpoint_000000004.pt; optimizers and average (EMA) start fresh." in capsys.readouterr().err
    )
    served = load_file(source / "weights" / f"{weights}.safetensors")
    assert_same(served, load_file(out / "weights" / "last.safetensors"))
    before, now = (final_state(run)["state"]["method"] for run in (source, out))
    others = [key for key in before if key.startswith(("discriminator.", "projector."))]
    assert len(others) == 10 + 20
    assert_same({key: before[key] for key in others}, {key: now[key] for key in others})
    recorded = load_yaml(out / "run.yaml")["init"]
    assert recorded["networks"] == ["generator", "discriminator", "projector"]
    assert recorded["source"] == str(source)
    assert recorded["weights"] == weights


def test_networks_of_another_shape_start_fresh(
    source: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other discriminators and projectors are no obstacle: only the networks that translate must fit."""
    out = tmp_path / "run"
    changes: dict[str, Any] = {"discriminator_layers": 2, "projector_width": 6, "images": 1}
    train(begun_with(source, still(tiny_run(dataset, "cut", **changes))), out)
    assert "; discriminator, projector, optimizers and average (EMA) start fresh." in capsys.readouterr().err
    assert_same(load_file(source / "weights" / "ema.safetensors"), load_file(out / "weights" / "last.safetensors"))
    assert load_yaml(out / "run.yaml")["init"]["checkpoint"] is None


def test_weights_without_a_run_are_enough(source: Path, dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(source / "weights", tmp_path / "weights_alone")
    train(begun_with(tmp_path / "weights_alone", still(tiny_run(dataset, "cut", images=1))), tmp_path / "run")
    assert load_yaml(tmp_path / "run" / "run.yaml")["init"]["networks"] == ["generator"]


def test_optimizers_start_fresh(source: Path, dataset: Path, tmp_path: Path) -> None:
    train(begun_with(source, tiny_run(dataset, "cut", images=2)), tmp_path / "run", quiet=True)
    state = final_state(tmp_path / "run")["state"]["optimizer_generator"]["state"]
    assert {float(one["step"]) for one in state.values()} == {2.0}


def test_a_damaged_checkpoint_is_passed_over(
    source: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = sorted((source / "checkpoints").glob("*.pt"))[-1]
    newest.write_bytes(newest.read_bytes()[:-50])
    train(begun_with(source, tiny_run(dataset, "cut", images=1)), tmp_path / "run")
    said = capsys.readouterr().err
    assert f"{newest} is damaged" in said
    assert "checkpoint_000000002.pt" in said


def test_resumed_is_uninterrupted_and_needs_the_source_no_more(
    source: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    config = begun_with(source, tiny_run(dataset, "qs_attn", batch_size=2))
    train(config, whole, quiet=True)
    train(replace(config, training=replace(config.training, stop_after=2)), parts, quiet=True)
    shutil.rmtree(source)
    monkeypatch.chdir(tmp_path)
    asked = replace(config, init=InitialWeights("source"))  # the same place, named from here
    assert train(asked, parts, quiet=True).finished
    assert_same(final_state(whole), final_state(parts))
    assert load_yaml(whole / "run.yaml") == load_yaml(parts / "run.yaml")


@pytest.mark.parametrize("moment", ["take", "yaml", "first checkpoint"])
def test_a_crash_before_the_first_checkpoint_changes_nothing(
    moment: str, source: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    config = begun_with(source, tiny_run(dataset, "cut", images=2))
    train(config, whole, quiet=True)

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    place = {
        "take": "unpaired.session._store_formats",
        "yaml": "unpaired.session.environment",
        "first checkpoint": "unpaired.engine.checkpoint.CheckpointFolder.save",
    }[moment]
    with monkeypatch.context() as patch:
        patch.setattr(place, crash)
        with pytest.raises(KeyboardInterrupt):
            train(config, parts, quiet=True)
    assert (parts / "initial.safetensors").exists()
    assert (parts / "run.yaml").exists() == (moment != "take")
    if moment != "take":
        shutil.rmtree(source)
    assert train(config, parts, quiet=True).finished
    assert_same(final_state(whole), final_state(parts))


@pytest.mark.parametrize(
    ("method", "changes", "words"),
    [
        ("cut", {"base_channels": 6}, "base_channels is 4 there and 6 here"),
        ("cut", {"blocks": 6}, "blocks is 5 there and 6 here"),
        ("cut", {"channels": 1}, "its images have 3 channels, those of this run 1"),
        ("cut", {"blocks": 6, "base_channels": 8}, "base_channels is 4 there and 8 here; blocks is 5 there and 6 here"),
        ("cyclegan", {}, r"CUT \(generator\) and of CycleGAN \(generator_ab, generator_ba\) are built differently"),
        ("santa", {}, r"the networks of CUT \(generator\) and of SANTA \(generator\) are built differently"),
    ],
)
def test_what_does_not_fit_is_named(
    method: str, changes: dict[str, Any], words: str, source: Path, dataset: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=words):
        train(begun_with(source, tiny_run(dataset, method, **changes)), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "run.yaml").exists()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_goes_on_from_itself_and_names_what_differs(method: str, dataset: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    train(tiny_run(dataset, method, images=2), first, quiet=True)
    train(begun_with(first, still(tiny_run(dataset, method, images=1))), second, quiet=True)
    assert_same(load_file(first / "weights" / "ema.safetensors"), load_file(second / "weights" / "last.safetensors"))
    networks = {name for phase in METHODS[method](tiny_run(dataset, method).model).phases for name in phase.networks}
    assert set(load_yaml(second / "run.yaml")["init"]["networks"]) == networks
    wider = tiny_run(dataset, method, base_channels=6)
    with pytest.raises(CheckpointError, match=r"do not fit this run: base_channels is 4 there and 6 here; change that"):
        train(begun_with(first, wider), tmp_path / "third", quiet=True)


def test_the_command_line_says_what_is_wrong(
    source: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(*words: str) -> str:
        assert cli.main(["train", "--config", str(tmp_path / "run.yaml"), *words]) == 2
        return capsys.readouterr().err

    save_yaml(tmp_path / "run.yaml", tiny_run(dataset, "cut", images=1).to_mapping())
    run = str(tmp_path / "run")
    assert cli.main(["train", "--config", str(tmp_path / "run.yaml"), "--out", run, "--init", str(source)]) == 0
    assert f"began with --init {source} --init-weights ema; give the same" in answer("--out", run)
    assert "began with --init" in answer("--out", run, "--init", str(source), "--init-weights", "last")
    assert "began without --init" in answer("--out", str(source), "--init", str(source), "--images", "4")
    assert "give both" in answer("--out", run, "--init-weights", "last")
    assert "holds no best weights" in answer(
        "--out", str(tmp_path / "b"), "--init", str(source), "--init-weights", "best"
    )
    assert "is not a trained run" in answer("--out", str(tmp_path / "n"), "--init", str(tmp_path / "nothing"))


def test_the_same_settings_begin_with_the_same_weights_or_not_at_all(
    source: Path, dataset: Path, tmp_path: Path
) -> None:
    """``--config OUT/run.yaml`` makes the run again; a source that has changed since is refused."""
    train(begun_with(source, tiny_run(dataset, "cut", images=2)), tmp_path / "run", quiet=True)
    again = RunConfig.load(tmp_path / "run" / "run.yaml")
    train(again, tmp_path / "again", quiet=True)
    assert_same(final_state(tmp_path / "run"), final_state(tmp_path / "again"))
    train(tiny_run(dataset, "cut", images=4), source, extend_to=6, quiet=True)
    with pytest.raises(CheckpointError, match="have changed"):
        train(again, tmp_path / "third", quiet=True)


def test_a_damaged_copy_is_noticed(source: Path, dataset: Path, tmp_path: Path) -> None:
    config = begun_with(source, tiny_run(dataset, "cut", images=2))
    train(config, tmp_path / "run", quiet=True)
    path = tmp_path / "run" / "initial.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(CheckpointError, match="is missing or damaged"):
        train(config, tmp_path / "run", quiet=True)


def test_settings_of_the_beginning_are_checked() -> None:
    with pytest.raises(UserError, match="init: unknown setting 'wieghts'"):
        RunConfig.from_mapping({"method": "cut", "init": {"source": "x", "wieghts": "ema"}})
    with pytest.raises(ConfigError, match="weights must be 'ema', 'last' or 'best'"):
        RunConfig.from_mapping({"method": "cut", "init": {"source": "x", "weights": "average"}})
    with pytest.raises(ConfigError, match="extensions must be a list"):
        RunConfig.from_mapping({"method": "cut", "extensions": 7})
    with pytest.raises(ConfigError, match="below 'to'"):
        RunConfig.from_mapping({"method": "cut", "extensions": [{"at": 7, "to": 7}]})


@pytest.mark.parametrize(("source", "target"), [("dclgan", "enco"), ("enco", "cyclegan"), ("munit", "cut")])
def test_networks_of_other_names_are_named_and_no_setting(
    source: str, target: str, dataset: Path, tmp_path: Path
) -> None:
    train(tiny_run(dataset, source, images=2), tmp_path / "first", quiet=True)
    config = replace(tiny_run(dataset, target, images=2), init=InitialWeights(str(tmp_path / "first")))
    with pytest.raises(CheckpointError, match=r"do not fit this run: the networks of .* are built differently; change"):
        train(config, tmp_path / "second", quiet=True)
