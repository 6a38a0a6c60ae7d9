"""Shared by the tests of all rooms: tiny images, tiny settings, and the real data where this checkout has it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from unpaired.data import DataConfig
from unpaired.engine.checkpoint import read_checkpoint
from unpaired.engine.training_config import TrainingConfig
from unpaired.methods import METHODS
from unpaired.run_config import DatasetConfig, RunConfig
from unpaired.training import train

SHARED = Path(__file__).parents[2] / "shared"


TINY_MODEL: dict[str, Any] = {"base_channels": 4, "blocks": 5, "num_queries": 16, "projector_width": 8}
"""Settings of a model that trains in milliseconds, for every method that has them."""
TINY_EXTRA: dict[str, dict[str, Any]] = {
    "sincut": {"num_queries": 4, "discriminator_channels": 4, "discriminator_layers": 2},
    "munit": {"blocks": 2, "discriminator_layers": 2, "perceptron_width": 16},
    "fsesim": {"feature_network": "vgg16_untrained"},
    "lsesim": {"feature_network": "vgg16_untrained"},
    "multi_domain_qs_attn": {"domains": ("a", "b", "c")},
}
"""Method -> further settings that only it has."""


def tiny_settings(method: str) -> dict[str, Any]:
    """The tiny settings of one method, by the names that its Config knows."""
    known = METHODS[method].Config.__dataclass_fields__
    return {key: value for key, value in TINY_MODEL.items() if key in known} | TINY_EXTRA.get(method, {})


def shared_data(name: str) -> Path:
    """A real data set, or a skip with the reason."""
    folder = SHARED / "data" / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not on this machine")
    return folder


def write_images(folder: Path, count: int, size: tuple[int, int] = (40, 36), seed: int = 0) -> Path:
    """Write ``count`` smooth random colour images."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(folder / f"image{number}.png")
    return folder


def smooth(height: int, width: int, channels: int, seed: int) -> np.ndarray:
    """Waves in [0, 1], (H, W, C)."""
    rng = np.random.default_rng(seed)
    y, x = (axis[:, :, None] / 40 for axis in np.mgrid[:height, :width])
    waves = np.sin(rng.uniform(2, 9, channels) * y + rng.uniform(2, 9, channels) * x + rng.uniform(0, 6, channels))
    return waves * 0.5 + 0.5


def microscopy(folder: Path) -> Path:
    """16-bit gray TIFF -> 16-bit three-channel TIFF, of 12 bits, not square and of odd sizes."""
    for split, count, channels in (("trainA", 3, 1), ("trainB", 3, 3), ("testA", 2, 1), ("testB", 2, 3)):
        (folder / split).mkdir(parents=True)
        for number in range(count):
            values = (smooth(41, 50, channels, number + channels) * 4000).astype(np.uint16)
            tifffile.imwrite(folder / split / f"cell{number}.tif", values[:, :, 0] if channels == 1 else values,
                             photometric="minisblack", planarconfig="contig" if channels > 1 else None,
                             resolution=((300, 1), (150, 1)), resolutionunit=3)  # fmt: skip
    return folder


def domain_folder(dataset: Path, names: Sequence[str] = ("a", "b", "c")) -> Path:
    """The images of a set of two domains once more, one folder per domain; those of the third are new."""
    root = dataset.parent / f"{dataset.name}_domains"
    for number, name in enumerate(names):
        for split in ("train", "test"):
            folder = root / split / name
            if folder.is_dir():
                continue
            if number < 2 and (dataset / f"{split}{'AB'[number]}").is_dir():
                shutil.copytree(dataset / f"{split}{'AB'[number]}", folder)
            else:
                write_images(folder, 3, seed=5 + number)
    return root


def trained(run: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a run's newest checkpoint: weights, averages, and what the optimizers keep."""

    def flat(value: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
        if isinstance(value, torch.Tensor):
            yield name, value
        elif isinstance(value, dict | list | tuple):
            for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
                yield from flat(inner, f"{name}.{key}")

    return dict(flat(read_checkpoint(max((run / "checkpoints").glob("*.pt"))), ""))


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two such states are the same to the bit."""
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


def tiny_run(dataset: Path, method: str = "qs_attn", **changes: object) -> RunConfig:
    """Settings that train in milliseconds; ``changes`` go to whichever section has the field."""
    sections: dict[str, dict[str, object]] = {
        "data": {"image_size": 32, "num_workers": 0},
        "model": tiny_settings(method),
        "training": {
            "images": 6,
            "log_every": 1,
            "checkpoint_every": 2,
            "sample_every": 4,
            "accelerator": "cpu",
            "score_every": 0,
        },
    }
    classes = {"data": DataConfig, "model": METHODS[method].Config, "training": TrainingConfig}
    sections["data"] |= METHODS[method].data_defaults
    for key, value in changes.items():
        section = next(name for name, cls in classes.items() if key in cls.__dataclass_fields__)
        sections[section][key] = value
    built = {name: classes[name](**values) for name, values in sections.items()}
    several = "domain" in METHODS[method].supports
    place = DatasetConfig(domains=domain_folder(dataset)) if several else DatasetConfig(folder=dataset)
    return RunConfig(method, place, **built)


def tiny_trained(root: Path, images: int = 1, files: int = 2) -> Path:
    """A trained run, ``root/run``, of ``files`` pictures per domain."""
    for split, seed in (("trainA", 1), ("trainB", 2)):
        write_images(root / "data" / split, files, seed=seed)
    train(tiny_run(root / "data", images=images, checkpoint_every=images, sample_every=9), root / "run", quiet=True)
    return root / "run"


def forget_digests(weights: Path) -> None:
    """Take the digests out of ``model.json``, as earlier versions wrote it, so that weights may be exchanged."""
    path = weights / "model.json"
    description = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({key: value for key, value in description.items() if key != "sha256"}))
