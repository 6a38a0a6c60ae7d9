"""Shared by all rooms: tiny images, tiny settings, and the real data where this checkout has it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unpaired.data import DataConfig
from unpaired.engine.trainer import TrainingConfig
from unpaired.methods import METHODS
from unpaired.training import DatasetConfig, RunConfig

torch.set_num_threads(1)  # tiny tensors: more threads only cost

SHARED = Path(__file__).parents[2] / "shared"


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


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A folder in the field's layout: 5 source, 4 target, 3 + 3 paired test images."""
    root = tmp_path / "data"
    for split, count, seed in (("trainA", 5, 1), ("trainB", 4, 2), ("testA", 3, 3), ("testB", 3, 4)):
        write_images(root / split, count, seed=seed)
    return root


def tiny_run(dataset: Path, method: str = "qs_attn", **changes: object) -> RunConfig:
    """Settings that train in milliseconds; ``changes`` go to whichever section has the field."""
    sections: dict[str, dict[str, object]] = {
        "data": {"image_size": 32, "num_workers": 0},
        "model": {"base_channels": 4, "blocks": 5, "num_queries": 16, "projector_width": 8},
        "training": {"images": 6, "log_every": 1, "checkpoint_every": 2, "sample_every": 4, "accelerator": "cpu"},
    }
    classes = {"data": DataConfig, "model": METHODS[method].Config, "training": TrainingConfig}
    for key, value in changes.items():
        section = next(name for name, cls in classes.items() if key in cls.__dataclass_fields__)
        sections[section][key] = value
    built = {name: classes[name](**values) for name, values in sections.items()}
    return RunConfig(method, DatasetConfig(folder=dataset), **built)
