"""Every named run: it builds, says what it is, and takes two steps."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import pkgutil
import re
from pathlib import Path
from typing import Any

import pytest

import unpaired.runs
from test_architecture import check_run
from tiny import tiny_run, write_images
from unpaired.data import DataConfig
from unpaired.engine.trainer import TrainingConfig
from unpaired.runs import RUNS
from unpaired.training import RunConfig, train

SMALLER: dict[str, Any] = {
    "base_channels": 2, "discriminator_channels": 2, "projector_width": 8, "num_queries": 32, "style_width": 8,
}  # fmt: skip
"""Widths only: what a run is about (its taps, blocks, losses, selection, pool) stays."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for number, split in enumerate(("trainA", "trainB")):
        write_images(root / split, 3, size=(80, 72), seed=number)
    return root


@pytest.mark.parametrize("name", RUNS)
def test_every_named_run_builds_and_says_what_it_is(name: str, tmp_path: Path) -> None:
    function = RUNS[name]
    assert function.__name__ == name
    check_run(function(tmp_path), tmp_path)
    words = function.__doc__ or ""
    first, _, rest = words.partition("\n\n")
    assert first.endswith("."), "the first line is a sentence: it is what 'unpaired runs' lists"
    assert "\n" not in first
    assert re.search(r"Published|No published", rest), "what the paper reports, or that it reports nothing"
    assert re.search(r"hours|minutes|times the arithmetic", rest), "what it costs"


@pytest.mark.parametrize("name", RUNS)
def test_every_named_run_takes_two_steps(name: str, folder: Path, tmp_path: Path) -> None:
    run = RUNS[name](folder)
    tiny = tiny_run(folder, run.method)
    known = type(run.model).__dataclass_fields__
    smaller = {key: value for key, value in SMALLER.items() if key in known}
    smaller |= {key: getattr(tiny.model, key) for key in known if key == "feature_network"}
    data = dataclasses.replace(run.data, image_size=64, load_size=72, num_workers=0)
    if run.dataset.domains is not None:
        data, run = dataclasses.replace(data), dataclasses.replace(run, dataset=tiny.dataset)
        smaller["domains"] = tiny.model.domains
    model = dataclasses.replace(run.model, **smaller)
    training = dataclasses.replace(run.training, images=2, accelerator="cpu", score_every=0)
    result = train(dataclasses.replace(run, data=data, model=model, training=training), tmp_path / "run", quiet=True)
    assert result.finished


def test_every_run_is_seeded(folder: Path) -> None:
    for name, function in RUNS.items():
        seeded: Any = function
        run: RunConfig = seeded(folder, seed=7)
        assert run.training.seed == 7, name
        assert isinstance(run.data, DataConfig)
        assert isinstance(run.training, TrainingConfig)


def test_every_public_function_of_the_room_is_in_the_table() -> None:
    for module in pkgutil.iter_modules(unpaired.runs.__path__):
        source = importlib.import_module(f"unpaired.runs.{module.name}").__file__
        assert source is not None
        for node in ast.parse(Path(source).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and node.name not in HELPERS:
                assert node.name in RUNS, f"{module.name}.{node.name} is not in RUNS"


HELPERS = {"demo", "qs_attn_run", "run"}
"""Functions that runs are made of; ``demo`` has its own command."""
