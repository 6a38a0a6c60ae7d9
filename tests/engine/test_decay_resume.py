"""A run that is stopped anywhere about the border of the decay goes on as if nothing had happened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tiny import equal, tiny_run, trained
from unpaired.training import train


@pytest.mark.parametrize("stop", [2, 4, 6])
@pytest.mark.parametrize("changes", [{}, {"batch_size": 2, "images": 9}])
@pytest.mark.parametrize("workers", [0, 1])
def test_resumed_across_the_border_to_the_bit(
    stop: int, changes: dict[str, Any], workers: int, dataset: Path, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"images": 8, "num_workers": workers, **changes}  # from 4, or 4.5: a batch straddles it
    train(tiny_run(dataset, "cut", **settings), tmp_path / "whole", quiet=True)
    other = {**settings, "num_workers": 1 - workers}
    train(tiny_run(dataset, "cut", **other, stop_after=stop), tmp_path / "parts", quiet=True)
    train(tiny_run(dataset, "cut", **settings), tmp_path / "parts", quiet=True)
    assert equal(trained(tmp_path / "whole"), trained(tmp_path / "parts"))


def test_the_border_is_that_of_the_whole_length(dataset: Path, tmp_path: Path) -> None:
    """Up to the border both are one run; after it they are not, and constant_fraction moves it."""
    found = {}
    for until in ("decay", "end"):
        for stop in (4, 5):
            run = tmp_path / f"{until}{stop}"
            train(tiny_run(dataset, "cut", images=8, load_size_until=until, stop_after=stop), run, quiet=True)
            found[until, stop] = trained(run)
    assert equal(found["decay", 4], found["end", 4])
    assert not equal(found["decay", 5], found["end", 5])
