"""Scores during training and the choice of the best weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tiny import tiny_run, write_images
from unpaired.engine.checkpoint import load_weights
from unpaired.engine.selection import verdict
from unpaired.errors import ConfigError
from unpaired.evaluation import HeldOutScorer
from unpaired.inference import Translator
from unpaired.inference.hub.bundle import file_digest
from unpaired.training import RunConfig, train


@pytest.fixture
def config(dataset: Path) -> RunConfig:
    return tiny_run(dataset, images=6, score_every=2, checkpoint_every=100)


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "scores.jsonl").read_text().splitlines()]


def test_both_weights_are_scored_and_the_best_are_kept(config: RunConfig, tmp_path: Path, capsys: Any) -> None:
    train(config, tmp_path / "run")
    found = lines(tmp_path / "run")
    assert [(line["images_seen"], line["weights"]) for line in found] == [
        (seen, weights) for seen in (2, 4, 6) for weights in ("ema", "last")
    ]
    name = "swd_progan_x1e3_3v3"  # three images are too few for KID
    assert set(found[0]["scores"]) == {name, "paired_l1_pm1_3v3", "identity_percent_3v3"}
    values = [line["scores"][name]["value"] for line in found]
    best = json.loads((tmp_path / "run" / "weights" / "best.json").read_text())
    at = values.index(min(values))
    assert best.pop("sha256") == file_digest(tmp_path / "run" / "weights" / "best.safetensors")
    assert best == {
        "images_seen": found[at]["images_seen"],
        "weights": found[at]["weights"],
        "score": name,
        "value": min(values),
        "chosen_on": f"testA and testB of {config.dataset.folder}",
        "images": 3,
    }
    told = capsys.readouterr().err
    assert "Scores at image 4, average (EMA): SWD" in told
    assert "(best so far)" in told
    translator = Translator.from_pretrained(tmp_path / "run", weights="best", device="cpu")
    assert translator.translate(torch.zeros(3, 32, 32)).shape == (3, 32, 32)


def test_the_best_weights_are_those_of_their_image(config: RunConfig, tmp_path: Path) -> None:
    train(config, tmp_path / "whole", quiet=True)
    best = json.loads((tmp_path / "whole" / "weights" / "best.json").read_text())
    part = replace(config, training=replace(config.training, stop_after=best["images_seen"]))
    train(part, tmp_path / "part", quiet=True)
    expected = load_weights(tmp_path / "part" / "weights" / f"{best['weights']}.safetensors")
    found = load_weights(tmp_path / "whole" / "weights" / "best.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in found)


def test_scoring_changes_nothing_of_training(config: RunConfig, tmp_path: Path) -> None:
    train(config, tmp_path / "scored", quiet=True)
    train(replace(config, training=replace(config.training, score_every=0)), tmp_path / "plain", quiet=True)
    for name in ("ema", "last"):
        one, other = (load_weights(tmp_path / run / "weights" / f"{name}.safetensors") for run in ("scored", "plain"))
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert not (tmp_path / "plain" / "scores.jsonl").exists()
    assert not (tmp_path / "plain" / "weights" / "best.json").exists()


def test_resumed_equals_uninterrupted(config: RunConfig, tmp_path: Path) -> None:
    train(config, tmp_path / "whole", quiet=True)
    for stop in (1, 3, 5):
        train(replace(config, training=replace(config.training, stop_after=stop)), tmp_path / "parts", quiet=True)
    with (tmp_path / "parts" / "scores.jsonl").open("a") as file:  # after a crash: later lines, one of them torn
        file.write(json.dumps({**lines(tmp_path / "whole")[0], "images_seen": 6}) + '\n{"images_s')
    train(config, tmp_path / "parts", quiet=True)
    timeless = [[{**line, "seconds": 0} for line in lines(tmp_path / name)] for name in ("whole", "parts")]
    assert timeless[0] == timeless[1]
    for name in ("best.json", "best.safetensors"):
        assert (tmp_path / "parts" / "weights" / name).read_bytes() == (
            tmp_path / "whole" / "weights" / name
        ).read_bytes()


def test_another_score_can_choose(config: RunConfig, tmp_path: Path) -> None:
    by = replace(config, training=replace(config.training, score_by="paired_psnr_db"))
    train(by, tmp_path / "run", quiet=True)
    values = [line["scores"]["paired_psnr_db_3v3"]["value"] for line in lines(tmp_path / "run")]
    best = json.loads((tmp_path / "run" / "weights" / "best.json").read_text())
    assert best["value"] == max(values)
    assert best["score"] == "paired_psnr_db_3v3"


@pytest.mark.parametrize(
    ("made", "inputs", "lower", "words"),
    [
        (50.0, 100.0, True, "better than their inputs"),
        (233.3, 233.6, True, "no different from their inputs"),
        (101.9, 100.0, True, "no different from their inputs"),
        (103.0, 100.0, True, "WORSE than their inputs"),
        (20.0, 10.0, False, "better than their inputs"),
        (9.0, 10.0, False, "WORSE than their inputs"),
        (-3.0, -2.0, True, "better than their inputs"),
        (0.0, 0.0, True, "no different from their inputs"),
        (1.0, 0.0, True, "WORSE than their inputs"),
        (float("inf"), 10.0, True, "WORSE than their inputs"),
        (float("nan"), 10.0, True, "WORSE than their inputs"),
    ],
)
def test_the_end_says_whether_translations_beat_their_inputs(
    made: float, inputs: float, lower: bool, words: str
) -> None:
    said = verdict("SWD", made, inputs, lower_is_better=lower)
    assert f"SWD {made:.4g}, the untranslated images {inputs:.4g}: {words}." in said
    assert said.startswith("Warning") == ("better" not in words)


def test_a_training_ends_with_its_verdict(
    config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(config, tmp_path / "run")
    said = " ".join(capsys.readouterr().err.split())
    scored = [line for line in lines(tmp_path / "run") if line["weights"] == "ema"][-1]["scores"]
    label, value = next((score["label"], score["value"]) for name, score in scored.items() if name.startswith("swd"))
    assert f"of the held-out images score {label} {value:.4g}, the untranslated images" in said


def test_a_bounded_number_of_images_is_scored(config: RunConfig, tmp_path: Path) -> None:
    scorer = HeldOutScorer(config.dataset.held_out_files()[0], config.data, 2, "auto", "words")  # type: ignore[index]
    assert scorer.best_by == "swd_progan_x1e3_2v2"
    assert list(scorer(lambda x: x, lambda *at: None)) == ["swd_progan_x1e3_2v2", "paired_l1_pm1_2v2",
                                                           "identity_percent_2v2"]  # fmt: skip


def test_validation_images_go_before_test_images(config: RunConfig, tmp_path: Path) -> None:
    folder = config.dataset.folder
    assert folder is not None
    for split, seed in (("valA", 11), ("valB", 12)):
        write_images(folder / split, 4, seed=seed)
    files, words = config.dataset.held_out_files()  # type: ignore[misc]
    assert words == f"valA and valB of {folder}"
    assert (len(files.source), files.target[0].parent.name) == (4, "valB")
    swapped = replace(config.dataset, direction="BtoA").held_out_files()
    assert swapped is not None
    assert swapped[0].source[0].parent.name == "valB"
    named = replace(config.dataset, held_out_source=folder / "testB", held_out_target=folder / "testA")
    found = named.held_out_files()
    assert found is not None
    assert found[0].source[0].parent.name == "testB"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"score_every": -1}, "score_every must be at least 0"),
        ({"score_images": 1}, "score_images must be at least 2"),
        ({"score_by": "swd"}, "score_by: there is no 'swd'"),
        ({"score_by": "kid_lite0_x1e3"}, "'kid_lite0_x1e3' cannot be computed: it needs at least 10 images"),
    ],
)
def test_impossible_settings(config: RunConfig, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        train(replace(config, training=replace(config.training, **changes)), tmp_path / "run", quiet=True)


def test_without_held_out_images_there_is_nothing_to_score(dataset: Path, tmp_path: Path) -> None:
    plain = tiny_run(dataset, images=2)
    folders = replace(plain.dataset, folder=None, source=dataset / "trainA", target=dataset / "trainB")
    silent = replace(plain, dataset=folders, training=replace(plain.training, score_every=None))
    train(silent, tmp_path / "silent", quiet=True)
    assert not (tmp_path / "silent" / "scores.jsonl").exists()
    asked = replace(silent, training=replace(silent.training, score_every=1))
    with pytest.raises(ConfigError, match=r"no held-out images to score.*--held-out-source"):
        train(asked, tmp_path / "asked", quiet=True)


def test_held_out_images_that_cannot_be_used_do_not_stop_a_run_that_did_not_ask(
    dataset: Path, tmp_path: Path, capsys: Any
) -> None:
    (dataset / "testA" / "image0.png").write_bytes(b"broken")
    config = tiny_run(dataset, images=2, sample_every=100)
    examples = [path for path in (dataset / "testA").iterdir() if path.name != "image0.png"]
    assert examples
    unasked = replace(config, training=replace(config.training, score_every=None))
    folders = replace(unasked.dataset, folder=None, source=dataset / "trainA", target=dataset / "trainB",
                      held_out_source=dataset / "testA", held_out_target=dataset / "testB")  # fmt: skip
    train(replace(unasked, dataset=folders), tmp_path / "run")
    assert "No scores during training: " in capsys.readouterr().err
