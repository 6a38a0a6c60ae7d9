"""The Python of the pages runs as it stands there (that of docs/api.md: tests/test_api.py)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from doc_pages import DOCS, ROOT, blocks, run_examples
from tiny import microscopy, tiny_run, write_images
from unpaired.data import DataConfig, DatasetConfig, embedded_dataset
from unpaired.engine.step import make_optimizers, set_learning_rate, training_step
from unpaired.inference.large_images import translate
from unpaired.methods import ImageBatch, image_seeds
from unpaired.training import train


def test_arrays_of_file_values_become_arrays_of_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cells = microscopy(tmp_path / "cells")
    config = tiny_run(cells, channels=1, target_channels=3, value_range=(0.0, 4095.0))
    train(config, Path("runs/stain"), quiet=True)
    cells_HW = tifffile.imread(cells / "testA" / "cell0.tif")
    space, (printed,) = run_examples(DOCS / "images.md", cells_HW=cells_HW)
    assert (cells_HW.shape, cells_HW.dtype) == ((41, 50), np.uint16)
    assert (space["stained_HWC"].shape, space["stained_HWC"].dtype) == ((41, 50, 3), np.uint16)
    assert space["stained_HWC"].std() > 0
    assert space["stained_HWC"].max() <= 4095
    assert printed == "1 channel of uint16 -> 3 channels of uint16"


def test_a_large_image_is_translated_within_the_memory_and_its_progress_told(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    train(tiny_run(dataset, "cut", images=1, sample_every=100), Path("runs/mine"), quiet=True)
    with Image.open(write_images(tmp_path / "in", 1, size=(150, 333)) / "image0.png") as scan:
        scan.save("scan.tif")
    space, (printed,) = run_examples(DOCS / "large_images.md")
    translator, whole = space["translator"], space["translated"]
    assert (translator.memory_gib, whole.size, printed) == (6.0, (150, 333), "")
    monkeypatch.setattr(translate, "taken_memory", lambda device: 0)
    translator.memory_gib = 0.003  # of its tensors alone: now it goes in stripes, and tells
    with Image.open("scan.tif") as scan:
        stripes = translator.translate(scan)
    assert np.abs(np.asarray(stripes).astype(int) - np.asarray(whole)).max() <= 1
    told = capsys.readouterr().out.split("\r")
    assert told[-2:] == ["100 %", ""]
    assert len(told) > 3


def test_the_page_on_loggers_and_callbacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _, (printed,) = run_examples(DOCS / "logging.md")
    assert printed == blocks(DOCS / "logging.md", "text")[0].strip()
    with Image.open("newest.png") as grid:
        assert min(grid.size) > 100


def test_the_lightning_module_trains_every_network_as_our_own_loop_does() -> None:
    pytest.importorskip("lightning", reason="needs pip install lightning")
    spec = importlib.util.spec_from_file_location("lightning_module", ROOT / "examples" / "lightning_module.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    module = example.main(images=4)
    assert module.trainer.global_step == 4 * len(module.method.phases)
    assert {"adversarial", "contrastive", "discriminator", "identity"} == set(module.trainer.logged_metrics)

    torch.manual_seed(0)
    method = type(module.method)(module.method.config, channels=3)
    stream = DatasetConfig(folder=embedded_dataset().root, direction="BtoA").stream(
        DataConfig(image_size=32, num_workers=0), seed=0
    )
    method.prepare()
    optimizers, optimiser = make_optimizers(method, method.config.optimiser), method.config.optimiser
    for k in range(4):
        set_learning_rate(optimizers, optimiser.learning_rate * optimiser.factor(k / 4))
        source, target = (stream[k][role][None] for role in ("source", "target"))
        progress = torch.tensor(k / 4, dtype=torch.float64)
        batch = ImageBatch(source, target, image_seeds(0, [k]), progress=progress, number=k)
        training_step(method, optimizers, batch, number=k)
    theirs = dict(module.method.named_parameters())
    assert all(torch.equal(value, theirs[key]) for key, value in method.named_parameters())
    x_BCHW = torch.rand(1, 3, 32, 32) * 2 - 1
    assert module(x_BCHW).shape == x_BCHW.shape


def test_the_page_for_researchers() -> None:
    page = DOCS / "research.md"
    space, printed = run_examples(page)
    shown = [text.strip() for text in blocks(page, "text")]
    assert [text for text in printed if text in shown] == shown
    assert printed[3] == str(space["stream"].domain_sizes)
    assert all(term.isfinite() for term in space["terms"].values())
