"""Recipes: every one builds as it was published, trains, resumes and translates; what lists, shows and starts them."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from engine.test_training import assert_same, final_state
from tiny import domain_folder, shared_data, tiny_run, write_images
from unpaired.cli import main
from unpaired.config import load_yaml, to_dict
from unpaired.data import DatasetConfig
from unpaired.errors import ConfigError
from unpaired.inference import Translator
from unpaired.methods import METHODS
from unpaired.recipes import RECIPES, adaptation, demo, merged, methods_of, recipe
from unpaired.recipes.adaptation import adapted
from unpaired.run_config import RunConfig, flat, store
from unpaired.training import train

QUICK = RECIPES["quick"]
ROWS = list(QUICK["methods"])
ALONE = [name for name, entry in RECIPES.items() if "method" in entry]
"""Recipes of one method: the published experiments, and those for small images."""
GOLDEN = json.loads((Path(__file__).parent / "golden" / "recipes.json").read_text(encoding="utf-8"))
"""Every setting of these: what all share, what those of a method share, and what is a recipe's own."""
Capture = pytest.CaptureFixture[str]
TINY = (
    "--image-size", "32", "--load-size", "32", "--base-channels", "4", "--blocks", "5", "--num-queries", "16",
    "--projector-width", "8", "--num-workers", "0", "--accelerator", "cpu", "--score-every", "0", "--images", "2",
    "--batch-size", "1", "--precision", "32", "--quiet",
)  # fmt: skip
TINY_QUICK = (*TINY, "--head-channels", "4", "--discriminator-channels", "4")


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


# ---------------------------------------------------------------------------------------------------------------------
# what they say
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ALONE)
def test_every_recipe_of_one_method_is_what_it_was_published_as(name: str) -> None:
    config, own = recipe(name), GOLDEN["recipes"][name]
    settings = json.loads(json.dumps(flat(config.to_mapping())))
    wanted = {**GOLDEN["all"], **GOLDEN["methods"][own["method"]], **own}
    assert {key: settings.get(key, "absent") for key in wanted} == wanted
    assert RunConfig.from_mapping(config.to_mapping()) == config
    assert recipe(name, dataset=DatasetConfig(folder=Path("x"))).dataset.folder == Path("x")
    notes = RECIPES[name]["notes"]
    assert re.search(r"Published|No published", notes), "what the paper reports, or that it reports nothing"
    assert re.search(r"hours|minutes|times the arithmetic", notes), "what it costs"


def test_the_golden_file_knows_every_recipe_and_the_demo_is_one() -> None:
    assert GOLDEN["recipes"].keys() == set(ALONE)
    own, sized = recipe("demo"), demo(700, seed=3)
    assert demo(4000).training == own.training
    assert sized.training == replace(own.training, images=700, seed=3, score_every=350)
    assert (sized.data, sized.model, sized.dataset.direction) == (own.data, own.model, "BtoA")


@pytest.mark.parametrize("method", ROWS)
def test_the_quick_recipe_is_its_settings_that_the_method_has_and_those_under_its_name(method: str) -> None:
    config = recipe("quick", method, DatasetConfig(folder=Path("data")))
    assert (config.method, type(config.model)) == (method, METHODS[method].Config)
    assert RunConfig.from_mapping(config.to_mapping()) == config
    plain = to_dict(METHODS[method].Config())
    shared = {key: value for key, value in QUICK["model"].items() if key in plain}
    assert (
        to_dict(config.model)
        == to_dict(replace(config.model))
        == json.loads(json.dumps(merged(plain, {**shared, **(QUICK["methods"][method] or {})})))
    )
    for section, settings in ((config.data, QUICK["data"]), (config.training, QUICK["training"])):
        assert {key: getattr(section, key) for key in settings} == settings


@pytest.mark.parametrize("name", RECIPES)
def test_no_key_of_a_recipe_is_one_that_nobody_has(name: str) -> None:
    """A shared key that a method does not have is left out, so a typo would pass without a word."""
    entry = RECIPES[name]
    assert entry.keys() <= {"title", "notes", "method", "methods", "base", "data", "training", "model", "near", "flat"}
    assert entry["title"]
    assert not entry["title"].endswith(".")
    methods = {method: to_dict(METHODS[method].Config()) for method in methods_of(name)}
    further = [entry.get(kind, {}).get("model", {}) for kind in ("near", "flat")]
    for key, value in {**entry.get("model", {}), **further[0], **further[1]}.items():
        having = [method for method, settings in methods.items() if key in settings]
        assert having, key
        if isinstance(value, dict):
            assert value.keys() <= methods[having[0]][key].keys(), key


@pytest.mark.parametrize(
    ("entry", "typo"),
    [
        ({"method": "cut", "data": {"imagesize": 1}}, "imagesize"),
        ({"method": "cut", "training": {"image": 1}}, "image"),
        ({"method": "cut", "model": {"tap": 1}}, "tap"),
        ({"methods": {"cut": {"tap": 1}}}, "tap"),
    ],
)
def test_a_typo_in_a_section_of_one_owner_is_refused(
    entry: dict[str, Any], typo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPES, "mine", {"title": "Mine", **entry})
    with pytest.raises(ConfigError, match=f"recipe mine: .*'{typo}'"):
        recipe("mine")


# ---------------------------------------------------------------------------------------------------------------------
# training by them
# ---------------------------------------------------------------------------------------------------------------------
SMALLER: dict[str, Any] = {
    "base_channels": 2, "discriminator_channels": 2, "projector_width": 8, "num_queries": 32, "style_width": 8,
    "head_channels": 4,
}  # fmt: skip
"""Widths only: what a recipe is about (its taps, blocks, losses, selection, pool) stays."""
UNLIKE = list({json.dumps(GOLDEN["recipes"][name], sort_keys=True): name for name in ALONE}.values())
"""One recipe for each set of settings."""


@pytest.mark.parametrize("name", UNLIKE)
def test_every_recipe_takes_two_steps(name: str, dataset: Path, tmp_path: Path) -> None:
    run = recipe(name, dataset=DatasetConfig(folder=dataset))
    tiny = tiny_run(dataset, run.method)
    known = type(run.model).__dataclass_fields__
    smaller = {key: value for key, value in SMALLER.items() if key in known}
    smaller |= {key: getattr(tiny.model, key) for key in ("feature_network", "domains") if key in known}
    data = replace(run.data, image_size=64, load_size=72, num_workers=0)
    training = replace(run.training, images=2, accelerator="cpu", score_every=0, precision="32")
    config = RunConfig(run.method, tiny.dataset, data, replace(run.model, **smaller), training)
    assert train(config, tmp_path / "run", quiet=True).finished


@pytest.mark.parametrize("method", ROWS)
def test_the_quick_recipe_trains_resumes_to_the_bit_and_translates(method: str, dataset: Path, tmp_path: Path) -> None:
    config = small(recipe("quick", method, DatasetConfig(folder=dataset)))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(config, whole, quiet=True).finished
    assert not train(small(config, stop_after=4), parts, quiet=True).finished
    assert train(config, parts, quiet=True).finished
    assert_same(final_state(whole), final_state(parts))
    terms = [json.loads(line)["terms"] for line in (whole / "log.jsonl").read_text().splitlines()]
    names = {re.sub("_(ab|ba|a|b)$", "", name) for name in terms[0]}  # of a two-way method
    assert {"discriminator", "patch_discriminator", "adversarial"} <= names
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


# ---------------------------------------------------------------------------------------------------------------------
# the command line
# ---------------------------------------------------------------------------------------------------------------------
def test_the_option_gives_the_defaults_and_options_beside_it_win(dataset: Path, tmp_path: Path) -> None:
    words = ("train", "--recipe", "quick", dataset, *TINY_QUICK, "--patch-weight", "0.5", "--beta1", "0.25")
    assert unpaired(*words, "--out", tmp_path / "quick") == 0
    kept, plain = RunConfig.load(tmp_path / "quick" / "run.yaml"), recipe("quick")
    assert kept.method == "qs_attn"
    assert (kept.model.patch_weight, kept.model.optimiser.beta1) == (0.5, 0.25)
    assert (kept.model.base_channels, kept.data.image_size, kept.training.images) == (4, 32, 2)
    for key in ("generator", "discriminator", "taps", "similarity", "detach_attention", "identity_interval"):
        assert getattr(kept.model, key) == getattr(plain.model, key), key
    assert kept.model.optimiser.schedule == plain.model.optimiser.schedule
    # another method takes its own row
    fits = [word for word in TINY_QUICK if word not in ("--projector-width", "8")]
    words = ("train", "--recipe", "quick", "--method", "fsesim", dataset, *fits, "--patch-size", "8")
    assert unpaired(*words, "--out", tmp_path / "fsesim") == 0
    kept = RunConfig.load(tmp_path / "fsesim" / "run.yaml")
    assert (kept.method, kept.model.feature_network, kept.model.generator) == ("fsesim", "lite0", "light")


def test_a_published_recipe_is_the_same_as_spelling_it_out(dataset: Path, tmp_path: Path) -> None:
    words = ("train", dataset, "--direction", "BtoA", *TINY, "--seed", "3")
    assert unpaired(*words, "--recipe", "table3_d", "--out", tmp_path / "run") == 0
    kept = RunConfig.load(tmp_path / "run" / "run.yaml")
    assert (kept.method, kept.model.routing, kept.model.similarity) == ("qs_attn", "self", "dot")
    assert (kept.model.num_queries, kept.training.seed, kept.data.image_size) == (16, 3, 32)
    assert kept.dataset == DatasetConfig(folder=dataset.absolute(), direction="BtoA")
    file = tmp_path / "table3_d.yaml"
    file.write_text(yaml.safe_dump({"method": "qs_attn", "model": {"routing": "self", "similarity": "dot"}}))
    assert unpaired(*words, "--config", file, "--out", tmp_path / "again") == 0
    for weights in ("ema", "last"):
        first, second = ((tmp_path / name / "weights" / f"{weights}.safetensors") for name in ("run", "again"))
        assert first.read_bytes() == second.read_bytes()
    # images may be named otherwise, and an option may win over what the recipe is about
    places = ("--source", dataset / "trainA", "--target", dataset / "trainB")
    words = ("train", *places, "--recipe=table3_d", *TINY, "--routing", "none", "--out", tmp_path / "places")
    assert unpaired(*words) == 0
    kept = RunConfig.load(tmp_path / "places" / "run.yaml")
    assert kept.model.routing == "none"
    assert (kept.dataset.folder, kept.dataset.source) == (None, dataset / "trainA")


def test_data_of_a_recipe_for_several_domains_is_their_folder(dataset: Path, tmp_path: Path) -> None:
    folder = domain_folder(dataset)
    words = ("train", "--recipe", "multi_domain_qs_attn", folder, *TINY, "--out", tmp_path / "run")
    assert unpaired(*words) == 0
    assert load_yaml(tmp_path / "run" / "run.yaml")["dataset"]["domains"] == str(folder)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("recipes", "table3_aa"), "there is no recipe 'table3_aa' (did you mean 'table3_a'?); 'unpaired "),
        (("train", "--recipe", "quik", "DATA"), "there is no recipe 'quik' (did you mean 'quick'?)"),
        (("train", "--recipe", "table3_b", "--config", "run.yaml", "DATA"),
         "--config run.yaml contradicts --recipe table3_b: both give the settings; drop one"),
        (("train", "--recipe", "quick", "--method", "munit", "DATA"),
         "recipe: 'quick' does not support the method 'munit', only qs_attn, cut, fastcut, monce, hneg_src"),
        (("train", "--recipe", "table3_b", "--method", "cut", "DATA"),
         "recipe: 'table3_b' does not support the method 'cut', only qs_attn"),
        (("train", "--recipe", "quick", "--method", "cutt", "DATA"), "--method: there is no 'cutt' (did you mean"),
        (("train", "--recipe", "table3_b"), "--recipe gives the settings, not the images"),
    ],
)  # fmt: skip
def test_what_is_refused(words: tuple[str, ...], said: str, capsys: Capture, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "run") if words[0] == "train" else ()
    assert unpaired(*words, *out) == 2
    answer = capsys.readouterr()
    assert said in answer.err
    assert answer.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_all_recipes_are_listed_in_a_line_each_without_waiting_for_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    code = "import sys; from unpaired.cli import main; main(['recipes']); assert 'torch' not in sys.modules"
    lines = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    for name, entry in RECIPES.items():
        (line,) = [line for line in lines if line.split()[:1] == [name]]
        assert line.split()[1] == entry.get("method", str(len(ROWS)))
        assert entry["title"] in line
    assert len(lines) == len(RECIPES) + 3


@pytest.mark.parametrize("name", ["quick", "demo", "table4_all_pooled", "monce", "multi_domain_qs_attn"])
def test_one_recipe_in_full_is_what_it_is_and_what_it_changes(name: str, capsys: Capture) -> None:
    assert unpaired("recipes", name) == 0
    out = capsys.readouterr().out
    entry, config = RECIPES[name], recipe(name)
    assert entry["title"] in out
    assert " ".join(entry.get("notes", "").split()) in " ".join(out.split())
    assert ", ".join(methods_of(name)) in out
    assert out.rstrip().endswith(f"unpaired train --recipe {name} DATA --out OUT")
    shown, *others = re.split(r"\nIf .*:\n", out[out.index("\nmethod: ") : out.rindex("unpaired train")])
    rules = [entry[kind]["model"] for kind in ("near", "flat") if kind in entry]
    assert [yaml.safe_load(each)["model"] for each in others] == rules
    shown = yaml.safe_load(shown)
    assert shown.pop("method") == config.method
    # laid over the defaults of the method, what is shown gives the recipe again
    plain = RunConfig(config.method, DatasetConfig()).to_mapping()
    for section, values in shown.items():
        assert all(plain[section][key] != value for key, value in values.items()), "only what differs is shown"
        plain[section] = merged(plain[section], values)
    again = RunConfig.from_mapping(plain)
    assert (again.data, again.model, again.training) == (config.data, config.model, config.training)


def test_help_shows_the_defaults_of_the_recipe(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    assert unpaired("train", "--recipe", "table5_cut_128", "--help") == 0
    out = capsys.readouterr().out
    assert re.search(r"--num-queries.*default: 128", re.sub(r"\s+", " ", out))


# ---------------------------------------------------------------------------------------------------------------------
# what the images ask for
# ---------------------------------------------------------------------------------------------------------------------
def quick_run(folder: Path, method: str = "qs_attn", **settings: Any) -> RunConfig:
    config = recipe("quick", method, DatasetConfig(folder=folder))
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **settings))


def measure(monkeypatch: pytest.MonkeyPatch, **found: float | None) -> None:
    """Let images be far and no graphics, or what ``found`` says."""
    monkeypatch.setattr(adaptation, "_look_at", lambda config: config)
    for kind, value in {"near": 1000.0, "flat": 0.0, **found}.items():
        words = adaptation._RULES[kind][1]
        monkeypatch.setitem(adaptation._RULES, kind, (lambda seen, value=value: value, words))


@pytest.mark.parametrize("method", ROWS)
@pytest.mark.parametrize("kind", ["near", "flat"])
def test_settings_for_such_images_are_taken_beyond_the_bound_only(
    method: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule, config = QUICK[kind], quick_run(tmp_path / "data", method)
    bound, step = (rule["below"], -1) if kind == "near" else (rule["above"], 0.1)
    usual = flat({"model": to_dict(config.model)})
    wanted = {key: value for key, value in flat({"model": rule["model"]}).items() if key in usual}
    if method == "santa":
        wanted.pop("model.generator", None)  # it has its own
    assert wanted
    for found, taken in ((bound + step, True), (bound, False), (bound - step, False), (None, False)):
        measure(monkeypatch, **{kind: found})
        changed, lines = adapted("quick", config, tmp_path / "new")
        if not taken:
            assert (changed, lines) == (config, [])
            continue
        assert flat({"model": to_dict(changed.model)}) == {**usual, **wanted}
        assert dataclasses.replace(changed, model=config.model) == config
        (line,) = lines
        for key, value in wanted.items():
            assert f"{key.rpartition('.')[2]} {value:g}" in line if isinstance(value, float) else f"{value}" in line


def test_what_a_person_chose_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure(monkeypatch, near=1.0, flat=0.9)
    changed, lines = adapted("quick", quick_run(tmp_path, adversarial_weight=3.0), tmp_path / "new")
    assert changed.model.adversarial_weight == 3.0
    assert changed.model.identity_interval == QUICK["near"]["model"]["identity_interval"]
    assert changed.model.generator == "light_smooth"
    assert "adversarial_weight" not in lines[0]
    usual = quick_run(tmp_path)
    linear = dataclasses.replace(usual.model.optimiser, schedule="linear")
    changed, _ = adapted("quick", quick_run(tmp_path, optimiser=linear), tmp_path / "new")
    assert (changed.model.optimiser.schedule, changed.model.optimiser.learning_rate) == ("linear", 2e-4)
    fast = dataclasses.replace(usual.model.optimiser, learning_rate=1e-3)
    changed, lines = adapted("quick", quick_run(tmp_path, optimiser=fast, augment_noise=0.5), tmp_path / "new")
    assert (changed.model.optimiser, changed.model.augment_noise) == (fast, 0.5)
    assert "learning_rate" not in lines[0]
    assert "generator light_smooth" in lines[1]
    assert "augment_noise" not in lines[1]
    changed, _ = adapted("quick", usual, tmp_path / "new", {"augment_noise", "learning_rate"})
    assert changed.model.augment_noise == 0
    assert changed.model.optimiser.learning_rate == usual.model.optimiser.learning_rate


def test_a_run_that_exists_keeps_what_was_decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = quick_run(tmp_path)
    measure(monkeypatch, near=1.0, flat=0.9)
    first, _ = adapted("quick", config, tmp_path / "run")
    store(tmp_path / "run" / "run.yaml", first.to_mapping())
    monkeypatch.setattr(adaptation, "_look_at", lambda _: pytest.fail("measured again"))
    assert adapted("quick", config, tmp_path / "run") == (first, [])


def test_the_distance_is_that_of_the_held_out_images_else_of_the_training_images(tmp_path: Path) -> None:
    for split in ("trainA", "trainB", "testA", "testB"):
        write_images(tmp_path / "data" / split, 12, seed=sum(map(ord, split)))
    config = quick_run(tmp_path / "data")
    seen = adaptation._look_at(config)
    assert seen is not None
    held_out = adaptation.domain_distance(seen)
    assert held_out is not None
    for split in ("testA", "testB"):
        shutil.rmtree(tmp_path / "data" / split)
    seen = adaptation._look_at(config)
    assert seen is not None
    assert adaptation.domain_distance(seen) not in (None, held_out)
    gray = dataclasses.replace(config, data=dataclasses.replace(config.data, channels=1, target_channels=3))
    seen = adaptation._look_at(gray)
    assert seen is None or isinstance(adaptation.domain_distance(seen), float | None)


def test_drawings_are_flat_and_the_quick_recipe_becomes_the_demos(tmp_path: Path) -> None:
    drawings = recipe("demo", dataset=demo().dataset)
    seen = adaptation._look_at(drawings)
    assert seen is not None
    assert 0.6 < adaptation.flat_share(seen) < 0.9
    changed, lines = adapted("quick", dataclasses.replace(quick_run(tmp_path), dataset=drawings.dataset), tmp_path)
    assert changed.model == drawings.model
    assert len(lines) == 1
    for split in ("trainA", "trainB"):
        write_images(tmp_path / "data" / split, 3, seed=sum(map(ord, split)))  # smooth
    seen = adaptation._look_at(quick_run(tmp_path / "data"))
    assert seen is not None
    assert adaptation.flat_share(seen) < 0.1


@pytest.mark.parametrize(
    ("folder", "direction", "low", "high"),
    [
        ("horse2zebra", "AtoB", 0.0, 0.02), ("cityscapes", "AtoB", 0.03, 0.1), ("cityscapes", "BtoA", 0.3, 0.45),
        ("emoji", "AtoB", 0.4, 0.6), ("emoji", "BtoA", 0.55, 0.75),
    ],
)  # fmt: skip
def test_graphics_are_flat_and_photographs_are_not(folder: str, direction: Any, low: float, high: float) -> None:
    config = quick_run(shared_data(folder))
    side = 64 if folder == "emoji" else 128
    data = dataclasses.replace(config.data, image_size=side, load_size=side)
    dataset = dataclasses.replace(config.dataset, direction=direction)
    seen = adaptation._look_at(dataclasses.replace(config, data=data, dataset=dataset))
    assert seen is not None
    assert low <= adaptation.flat_share(seen) < high


def test_an_option_that_repeats_the_recipe_is_kept(tmp_path: Path, capsys: Capture) -> None:
    drawings = demo().dataset.folder
    out = tmp_path / "run"
    options = ("--direction", "BtoA", *TINY_QUICK, "--augment-noise", "0", "--no-batch-deviation")
    assert unpaired("train", drawings, "--recipe", "quick", *options, "--out", out) == 0
    model = load_yaml(out / "run.yaml")["model"]
    assert (model["generator"], model["augment_noise"], model["batch_deviation"]) == ("light_smooth", 0.0, False)
