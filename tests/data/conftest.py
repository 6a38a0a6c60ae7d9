"""Small images made on the spot, and the real ones beside the repository where they are present."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unpaired.data import UnpairedFiles

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def make_files(tmp_path: Path) -> Callable[..., UnpairedFiles]:
    """Write random images; flat ones are gray: source number i has the value i, target number i the value 100 + i."""

    def make(count_a: int, count_b: int, size: tuple[int, int] = (16, 16), flat: bool = True) -> UnpairedFiles:
        domains = []
        for domain, count, offset in (("trainA", count_a, 0), ("trainB", count_b, 100)):
            folder = tmp_path / domain
            folder.mkdir(exist_ok=True)
            random = np.random.default_rng(offset)
            for number in range(count):
                pixels = random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
                if flat:
                    pixels[:] = offset + number
                Image.fromarray(pixels).save(folder / f"{number:03}.png")
            domains.append(tuple(folder / f"{number:03}.png" for number in range(count)))
        return UnpairedFiles(*domains)

    return make


@pytest.fixture
def shared_data() -> Callable[[str], Path]:
    """Return the folder of a real data set, or skip the test."""

    def folder(name: str) -> Path:
        if not (SHARED / name).is_dir():
            pytest.skip(f"the real images {SHARED / name} are not on this machine")
        return SHARED / name

    return folder
