"""Models that come with the package are found by name, unless a folder of that name lies there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tiny import tiny_run, write_images
from unpaired.errors import CheckpointError
from unpaired.inference import Translator, packaged
from unpaired.training import train


def test_a_model_is_found_by_its_name_and_a_folder_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split in ("trainA", "trainB"):
        write_images(tmp_path / "data" / split, 2, seed=len(split))
    train(tiny_run(tmp_path / "data", images=2), tmp_path / "run", quiet=True)
    models = tmp_path / "models"
    models.mkdir()
    (models / "notes").mkdir()
    (tmp_path / "run" / "weights").rename(models / "sketches")
    monkeypatch.setattr(packaged, "MODELS", models)
    assert packaged.packaged() == {"sketches": models / "sketches"}

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    made = Translator.from_pretrained("sketches", device="cpu").translate(torch.zeros(1, 3, 32, 32))
    assert made.shape == (1, 3, 32, 32)
    with pytest.raises(CheckpointError, match="sketch is not a trained run: no such folder"):
        Translator.from_pretrained("sketch", device="cpu")
    (elsewhere / "sketches").mkdir()
    with pytest.raises(CheckpointError, match=r"no weights/model\.json"):
        Translator.from_pretrained("sketches", device="cpu")


def test_without_models_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged, "MODELS", tmp_path / "missing")
    assert packaged.packaged() == {}
    assert packaged.folder_of("drawings") == Path("drawings")
