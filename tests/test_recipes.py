"""Recipes: every row trains, resumes and translates; the option of the command line; and that no key is a typo."""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from engine.test_training import assert_same, final_state
from tiny import write_images
from unpaired.cli import main
from unpaired.config import to_dict
from unpaired.data import DataConfig, DatasetConfig
from unpaired.engine.trainer import TrainingConfig
from unpaired.errors import ConfigError
from unpaired.inference import Translator
from unpaired.methods import METHODS
from unpaired.recipes import RECIPES, near, read_recipe, recipe
from unpaired.run_config import RunConfig, store
from unpaired.training import train

ROWS = [(name, method) for name in RECIPES for method in read_recipe(name)["methods"]]
Capture = pytest.CaptureFixture[str]
TINY = (
    "--image-size", "32", "--load-size", "32", "--base-channels", "4", "--blocks", "5", "--num-queries", "16",
    "--projector-width", "8", "--head-channels", "4", "--discriminator-channels", "4", "--num-workers", "0",
    "--accelerator", "cpu", "--score-every", "0", "--images", "2", "--batch-size", "1", "--precision", "32", "--quiet",
)  # fmt: skip


def unpaired(*words: object) -> int:
    try:
        return main([str(word) for word in words])
    except SystemExit as end:
        return int(end.code or 0)


def small(config: RunConfig, **training: Any) -> RunConfig:
    """The same run with tiny networks and images."""
    sizes: dict[str, Any] = {
        "base_channels": 4, "blocks": 5, "num_queries": 16, "projector_width": 8, "head_channels": 4,
        "discriminator_channels": 4, "patch_size": 8,
    }  # fmt: skip
    known = config.model.__dataclass_fields__
    steps: dict[str, Any] = {"images": 8, "batch_size": 2, "precision": "32", "checkpoint_every": 2, "sample_every": 99,
                             "accelerator": "cpu", "score_every": 0, "log_every": 2}  # fmt: skip
    return replace(
        config,
        data=replace(config.data, image_size=32, load_size=36, num_workers=0),
        model=replace(config.model, **{key: value for key, value in sizes.items() if key in known}),
        training=replace(config.training, **steps, **training),
    )


@pytest.mark.parametrize(("name", "method"), ROWS)
def test_every_row_builds_and_says_the_same_as_its_run_file(name: str, method: str) -> None:
    config = recipe(name, method, DatasetConfig(folder=Path("data")))
    assert (config.method, type(config.model)) == (method, METHODS[method].Config)
    assert RunConfig.from_mapping(config.to_mapping()) == config
    found = read_recipe(name)
    own = found["methods"][method] or {}
    plain = to_dict(METHODS[method].Config())
    for key, value in to_dict(config.model).items():
        wanted = own.get(key, found["model"].get(key, plain[key]))
        assert value == ({**plain[key], **wanted} if isinstance(wanted, dict) else wanted), key
    for section, settings in ((config.data, found["data"]), (config.training, found["training"])):
        assert {key: getattr(section, key) for key in settings} == settings


@pytest.mark.parametrize("name", RECIPES)
def test_no_key_of_a_recipe_is_one_that_nobody_has(name: str) -> None:
    """A shared key that a method does not have is left out, so a typo would pass without a word."""
    found = read_recipe(name)
    assert found.keys() <= {"title", "data", "training", "model", "methods", "near"}
    assert found["title"]
    assert not found["title"].endswith(".")
    methods = {method: to_dict(METHODS[method].Config()) for method in found["methods"]}
    for key, value in {**found["model"], **found.get("near", {}).get("model", {})}.items():
        having = [method for method, settings in methods.items() if key in settings]
        assert having, key
        if isinstance(value, dict):
            assert value.keys() <= methods[having[0]][key].keys(), key
    for method, own in found["methods"].items():
        assert (own or {}).keys() <= methods[method].keys(), method
    for section, known in (("data", DataConfig), ("training", TrainingConfig)):
        assert found[section].keys() <= known.__dataclass_fields__.keys()


@pytest.mark.parametrize(
    "changed", [{"data": {"imagesize": 1}}, {"training": {"image": 1}}, {"methods": {"cut": {"tap": 1}}}]
)
def test_a_typo_in_a_section_of_one_owner_is_refused(
    changed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"title": "Mine", "methods": {"cut": None}} | changed))
    monkeypatch.setitem(RECIPES, "mine", path)
    (typo,) = (word for word in ("imagesize", "image", "tap") if f"'{word}'" in str(changed))
    with pytest.raises(ConfigError, match=f"{typo}"):
        recipe("mine", "cut")


@pytest.mark.parametrize(("name", "method"), ROWS)
def test_every_row_trains_resumes_to_the_bit_and_translates(
    name: str, method: str, dataset: Path, tmp_path: Path
) -> None:
    config = small(recipe(name, method, DatasetConfig(folder=dataset)))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(config, whole, quiet=True).finished
    assert not train(small(config, stop_after=4), parts, quiet=True).finished
    assert train(config, parts, quiet=True).finished
    assert_same(final_state(whole), final_state(parts))
    terms = [json.loads(line)["terms"] for line in (whole / "log.jsonl").read_text().splitlines()]
    assert {"discriminator", "patch_discriminator", "adversarial"} <= terms[0].keys()
    if (interval := getattr(config.model, "identity_interval", 1)) > 1:
        assert ["identity" in each for each in terms] == [number % interval == 0 for number in range(4)]
    x = torch.rand(3, 34, 41) * 2 - 1
    made = Translator.from_pretrained(whole, weights="last").translate(x)
    assert made.shape == x.shape
    if config.model.generator == "light":  # it began at the identity
        assert 0 < (made - x).abs().mean() < 0.2


def test_a_row_trains_in_half_precision(dataset: Path, tmp_path: Path) -> None:
    config = small(recipe("quick", "qs_attn", DatasetConfig(folder=dataset)))
    plain, mixed = (
        replace(config, training=replace(config.training, precision=precision, images=2))  # type: ignore[arg-type]
        for precision in ("32", "bf16-mixed")
    )
    found = []
    for number, each in enumerate((plain, mixed)):
        train(each, tmp_path / str(number), quiet=True)
        found.append(json.loads((tmp_path / str(number) / "log.jsonl").read_text().splitlines()[0])["terms"])
    assert found[1] == pytest.approx(found[0], rel=0.05, abs=0.02)


def test_the_option_gives_the_defaults_and_options_beside_it_win(dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ("train", "--recipe", "quick", dataset, *TINY, "--patch-weight", "0.5", "--beta1", "0.25")
    assert unpaired(*words, "--out", run) == 0
    kept, plain = RunConfig.load(run / "run.yaml"), recipe("quick")
    assert kept.method == "qs_attn"
    assert (kept.model.patch_weight, kept.model.optimiser.beta1) == (0.5, 0.25)
    assert (kept.model.base_channels, kept.data.image_size, kept.training.images) == (4, 32, 2)
    for key in ("generator", "discriminator", "taps", "similarity", "detach_attention", "identity_interval"):
        assert getattr(kept.model, key) == getattr(plain.model, key), key
    assert kept.model.optimiser.schedule == plain.model.optimiser.schedule
    assert kept.training.ema_half_life_images == plain.training.ema_half_life_images


def test_another_method_takes_its_own_row(dataset: Path, tmp_path: Path) -> None:
    fits = [word for word in TINY if word not in ("--projector-width", "8")]
    words = ("train", "--recipe", "quick", "--method", "fsesim", dataset, *fits, "--patch-size", "8")
    assert unpaired(*words, "--out", tmp_path / "run") == 0
    kept = RunConfig.load(tmp_path / "run" / "run.yaml")
    assert (kept.method, kept.model.feature_network, kept.model.generator) == ("fsesim", "lite0", "light")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--recipe", "quik"), "recipe: there is no 'quik' (did you mean 'quick'?); known: quick"),
        (("--recipe", "quick", "--config", "run.yaml"),
         "--config run.yaml contradicts --recipe quick: both give the settings; drop one"),
        (("--recipe", "quick", "--run=table3_a"),
         "--run table3_a contradicts --recipe quick: both give the settings; drop one"),
        (("--recipe", "quick", "--method", "munit"),
         "recipe: 'quick' is not made for the method 'munit'; it goes with qs_attn, cut, fastcut, monce, hneg_src"),
        (("--recipe", "quick", "--method", "cutt"), "--method: there is no 'cutt' (did you mean 'cut'?)"),
    ],
)  # fmt: skip
def test_what_is_refused(words: tuple[str, ...], said: str, capsys: Capture, tmp_path: Path) -> None:
    assert unpaired("train", *words, "DATA", "--out", tmp_path / "run") == 2
    answer = capsys.readouterr()
    assert said in answer.err
    assert answer.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", RECIPES)
def test_runs_lists_recipes_and_shows_one_in_full(name: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    assert unpaired("runs") == 0
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.split()[:1] == [name]]
    found = read_recipe(name)
    assert found["title"] in line

    assert unpaired("runs", name) == 0
    out = capsys.readouterr().out
    assert found["title"] in out
    assert ", ".join(found["methods"]) in out
    assert out.rstrip().endswith(f"unpaired train --recipe {name} DATA --out OUT")
    shown = yaml.safe_load(out[out.index("method: ") : out.rindex("unpaired train")])
    plain, config = RunConfig("qs_attn", DatasetConfig()).to_mapping(), recipe(name)
    assert shown.pop("method") == "qs_attn"
    for section, values in shown.items():
        for key, value in values.items():
            plain[section][key] = {**plain[section][key], **value} if isinstance(value, dict) else value
    again = RunConfig.from_mapping(plain)
    assert (again.data, again.model, again.training) == (config.data, config.model, config.training)
    assert unpaired("runs", name + "k") == 2
    assert f"did you mean '{name}'?" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------------------------
# domains that are near each other
# ---------------------------------------------------------------------------------------------------------------------
def near_run(folder: Path, method: str = "qs_attn", **settings: Any) -> RunConfig:
    config = recipe("quick", method, DatasetConfig(folder=folder))
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **settings))


@pytest.mark.parametrize("method", ["qs_attn", "cut", "fastcut", "fsesim", "santa"])
def test_near_domains_are_held_and_far_ones_are_not(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = read_recipe("quick")["near"]
    config = near_run(tmp_path / "data", method)
    for distance, held in ((rule["below"] - 1, True), (rule["below"], False), (1000.0, False), (None, False)):
        monkeypatch.setattr(near, "domain_distance", lambda _, found=distance: found)
        changed, line = near.held_back("quick", config, tmp_path / "new")
        known = {key: value for key, value in rule["model"].items() if hasattr(config.model, key)}
        assert known
        if held:
            settings, before = to_dict(changed.model), to_dict(config.model)
            rate = known.pop("optimiser")["learning_rate"]
            assert {key: settings.pop(key) for key in known} == known
            assert settings.pop("optimiser") == {**before["optimiser"], "learning_rate": rate}
            assert settings == {key: before[key] for key in settings}
            assert dataclasses.replace(changed, model=config.model) == config
            assert "near each other" in line
            assert all(f"{key} {value}" in line for key, value in {**known, "learning_rate": rate}.items())
        else:
            assert (changed, line) == (config, "")


def test_what_a_person_chose_stays_near_or_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "domain_distance", lambda _: 1.0)
    changed, line = near.held_back("quick", near_run(tmp_path, adversarial_weight=3.0), tmp_path / "new")
    assert changed.model.adversarial_weight == 3.0
    assert changed.model.identity_interval == read_recipe("quick")["near"]["model"]["identity_interval"]
    assert "adversarial_weight" not in line
    usual = near_run(tmp_path)
    linear = dataclasses.replace(usual.model.optimiser, schedule="linear")
    changed, line = near.held_back("quick", near_run(tmp_path, optimiser=linear), tmp_path / "new")
    assert (changed.model.optimiser.schedule, changed.model.optimiser.learning_rate) == ("linear", 2e-4)
    quick = dataclasses.replace(usual.model.optimiser, learning_rate=1e-3)
    changed, line = near.held_back("quick", near_run(tmp_path, optimiser=quick), tmp_path / "new")
    assert changed.model.optimiser == quick
    assert "learning_rate" not in line


def test_a_run_that_exists_keeps_what_was_decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = near_run(tmp_path)
    monkeypatch.setattr(near, "domain_distance", lambda _: 1.0)
    first, _ = near.held_back("quick", config, tmp_path / "run")
    store(tmp_path / "run" / "run.yaml", first.to_mapping())
    monkeypatch.setattr(near, "domain_distance", lambda _: pytest.fail("measured again"))
    assert near.held_back("quick", config, tmp_path / "run") == (first, "")


def test_the_distance_is_that_of_the_held_out_images_else_of_the_training_images(tmp_path: Path) -> None:
    for split in ("trainA", "trainB", "testA", "testB"):
        write_images(tmp_path / "data" / split, 12, seed=sum(map(ord, split)))
    config = near_run(tmp_path / "data")
    held_out = near.domain_distance(config)
    assert held_out is not None
    for split in ("testA", "testB"):
        shutil.rmtree(tmp_path / "data" / split)
    trained = near.domain_distance(config)
    assert trained is not None
    assert trained != held_out
    gray = dataclasses.replace(config, data=dataclasses.replace(config.data, channels=1, target_channels=3))
    assert near.domain_distance(gray) is None or isinstance(near.domain_distance(gray), float)
