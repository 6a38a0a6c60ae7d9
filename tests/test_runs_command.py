"""``unpaired runs`` and ``unpaired train --run``: what is listed, shown, taken as defaults, and refused."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import yaml

from tiny import domain_folder, write_images
from unpaired.cli import main
from unpaired.commands.runs import changes, summary
from unpaired.config import load_yaml
from unpaired.engine.trainer import TrainingConfig
from unpaired.methods import METHODS
from unpaired.recipes import RECIPES
from unpaired.run_config import loading
from unpaired.runs import RUNS
from unpaired.training import DatasetConfig, RunConfig

Capture = pytest.CaptureFixture[str]
TINY = (
    "--image-size", "32", "--load-size", "32", "--base-channels", "4", "--blocks", "5", "--num-queries", "16",
    "--projector-width", "8", "--num-workers", "0", "--accelerator", "cpu", "--score-every", "0", "--images", "2",
    "--quiet",
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("named") / "data"
    for number, split in enumerate(("trainA", "trainB", "testA", "testB")):
        write_images(root / split, 3, seed=number)
    return root


def unpaired(*words: object) -> int:
    try:
        return main([str(word) for word in words])
    except SystemExit as end:
        return int(end.code or 0)


def test_all_runs_are_listed_in_a_line_each(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    assert unpaired("runs") == 0
    lines = capsys.readouterr().out.splitlines()
    for name, function in RUNS.items():
        (line,) = [line for line in lines if line.split()[:1] == [name]]
        assert line.split()[1] == function(Path("DATA")).method
        assert (function.__doc__ or "").strip().splitlines()[0] in line
    assert len(lines) == len(RUNS) + len(RECIPES) + 6


@pytest.mark.parametrize("name", RUNS)
def test_one_run_in_full_is_its_docstring_and_what_it_changes(capsys: Capture, name: str) -> None:
    assert unpaired("runs", name) == 0
    out = capsys.readouterr().out
    for line in (RUNS[name].__doc__ or "").strip().splitlines():
        assert line.strip() in out
    config = RUNS[name](Path("DATA"))
    text = re.split(r"\n\n", out[out.index("Settings that are not") :])[1]
    shown = yaml.safe_load(text)
    assert shown.pop("method") == config.method
    # laid over the defaults of the method, what is shown gives the run again
    plain = RunConfig(config.method, DatasetConfig()).to_mapping()
    for section, values in shown.items():
        for key, value in values.items():
            assert plain[section][key] != value, "only what differs is shown"
            plain[section][key] = {**plain[section][key], **value} if isinstance(value, dict) else value
    again = RunConfig.from_mapping(plain)
    assert (again.data, again.model, again.training) == (config.data, config.model, config.training)


def test_only_the_nested_settings_that_differ_are_shown() -> None:
    plain = RunConfig("cut", DatasetConfig())
    optimiser = dataclasses.replace(plain.model.optimiser, epochs=3)
    changed = RunConfig(
        "cut",
        DatasetConfig(folder=Path("x")),
        loading("cut", load_size=300),
        dataclasses.replace(plain.model, optimiser=optimiser),
        TrainingConfig(seed=4, images=9),
    )
    assert changes(changed) == {
        "method": "cut", "data": {"load_size": 300}, "model": {"optimiser": {"epochs": 3}}, "training": {"images": 9},
    }  # fmt: skip


def test_a_named_run_gives_the_defaults_and_options_beside_it_win(data: Path, tmp_path: Path) -> None:
    words = ("train", "--run", "table3_d", data, "--direction", "BtoA", *TINY, "--seed", "3")
    assert unpaired(*words, "--out", tmp_path / "run") == 0
    kept = RunConfig.load(tmp_path / "run" / "run.yaml")
    assert (kept.method, kept.model.routing, kept.model.similarity) == ("qs_attn", "self", "dot")
    assert (kept.model.num_queries, kept.training.seed, kept.data.image_size) == (16, 3, 32)
    assert kept.dataset == DatasetConfig(folder=data.absolute(), direction="BtoA")
    # the same as spelling it out
    file = tmp_path / "table3_d.yaml"
    file.write_text(yaml.safe_dump({"method": "qs_attn", "model": {"routing": "self", "similarity": "dot"}}))
    words = ("train", "--config", file, data, "--direction", "BtoA", *TINY, "--seed", "3")
    assert unpaired(*words, "--out", tmp_path / "again") == 0
    for weights in ("ema", "last"):
        first, second = ((tmp_path / name / "weights" / f"{weights}.safetensors") for name in ("run", "again"))
        assert first.read_bytes() == second.read_bytes()


def test_a_folder_may_be_called_data_and_an_option_may_win_over_what_the_run_is_about(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "DATA").symlink_to(data)
    monkeypatch.chdir(tmp_path)
    assert unpaired("train", "DATA", "--run=table3_d", *TINY, "--routing", "none", "--out", "run") == 0
    assert RunConfig.load(tmp_path / "run" / "run.yaml").model.routing == "none"
    places = ("--source", data / "trainA", "--target", data / "trainB")
    assert unpaired("train", *places, "--run=table3_d", *TINY, "--out", "places") == 0
    kept = RunConfig.load(tmp_path / "places" / "run.yaml").dataset
    assert (kept.folder, kept.source, kept.target) == (None, data / "trainA", data / "trainB")


def test_data_of_a_run_of_several_domains_is_their_folder(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [name for name, function in RUNS.items() if function(Path("DATA")).dataset.domains is not None]
    several = next((name for name, row in METHODS.items() if "domain" in row.offers), None)
    if several is None:
        pytest.skip("no method of several domains")
    if not names:
        monkeypatch.setitem(RUNS, "domains_run", lambda folder: RunConfig(several, DatasetConfig(domains=folder)))
    folder = domain_folder(data)
    assert unpaired("train", "--run", (names or ["domains_run"])[0], folder, *TINY, "--out", tmp_path / "run") == 0
    assert load_yaml(tmp_path / "run" / "run.yaml")["dataset"]["domains"] == str(folder)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("runs", "table3_aa"), "there is no run 'table3_aa' (did you mean 'table3_a'?); 'unpaired runs' lists"),
        (("train", "--run", "tabel3_b", "DATA", "--out", "x"),
         "--run: there is no run 'tabel3_b' (did you mean 'table3_b'?"),
        (("train", "--run", "table3_b", "--method", "cut", "DATA", "--out", "x"),
         "--method cut contradicts --run table3_b, which gives all settings; drop one"),
        (("train", "--run", "table3_b", "--config", "run.yaml", "DATA", "--out", "x"),
         "--config run.yaml contradicts --run table3_b, which gives all settings; drop one"),
        (("train", "--run", "table3_b", "--out", "x"), "--run gives the settings, not the images"),
    ],
)  # fmt: skip
def test_what_is_refused(capsys: Capture, words: tuple[str, ...], said: str) -> None:
    assert unpaired(*words) == 2
    answer = capsys.readouterr()
    assert said in answer.err
    assert answer.err.count("\n") == 1


def test_help_names_the_option_and_shows_the_defaults_of_the_run(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    assert unpaired("train", "--run", "table5_cut_128", "--help") == 0
    out = capsys.readouterr().out
    assert "--run" in out
    assert re.search(r"--num-queries.*default: 128", re.sub(r"\s+", " ", out))


def test_the_summary_is_one_sentence() -> None:
    assert all(summary(name).endswith(".") for name in RUNS)
