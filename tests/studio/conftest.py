"""Two tiny runs of the studio's tests, and bad uploads."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from served_studio import png_claiming

from tiny import tiny_run, write_images
from unpaired.training import train


@pytest.fixture(scope="session")
def studio_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run folder with all its records, and the weights alone of a copy."""
    root = tmp_path_factory.mktemp("studio")
    for split, count, seed in (("trainA", 3, 1), ("trainB", 3, 2), ("testA", 2, 3), ("testB", 2, 4)):
        write_images(root / "data" / split, count, seed=seed)
    train(tiny_run(root / "data", images=4), root / "first", quiet=True)
    shutil.copytree(root / "first" / "weights", root / "second")
    return root / "first", root / "second"


@pytest.fixture
def bomb(tmp_path: Path) -> Path:
    """A PNG of a few bytes whose header claims 60,000 x 60,000 pixels."""
    path = tmp_path / "bomb.png"
    path.write_bytes(png_claiming(60_000, 60_000))
    return path
