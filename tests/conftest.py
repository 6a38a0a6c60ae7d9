"""Fixtures of all rooms."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tiny import write_images
from unpaired import plugins
from unpaired.data.stored import IMAGE_SUFFIXES, KINDS
from unpaired.evaluation import METRICS
from unpaired.methods import METHODS

torch.set_num_threads(1)  # tiny tensors: more threads only cost


@pytest.fixture(autouse=True)
def _first_process() -> Iterator[None]:
    """Lightning keeps the rank of the last launch for the whole process; a test of several ranks leaves none behind."""
    yield
    if (module := sys.modules.get("lightning_utilities.core.rank_zero")) is not None:
        module.rank_zero_only.rank = 0


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Features of test images do not belong into the cache of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNPAIRED_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def forget_plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """What makes this process forget the plug-ins that the test has loaded; it does so at the end as well."""
    tables: list[dict[str, Any]] = [METHODS, METRICS, IMAGE_SUFFIXES, plugins._LOADED, plugins._PARTS]
    kinds, folders, known = list(KINDS), list(sys.path), set(sys.modules)
    before = [dict(table) for table in tables]
    monkeypatch.setenv(plugins.VARIABLE, "")

    def forget() -> None:
        os.environ[plugins.VARIABLE] = ""
        own = {each.partition(".")[0] for each in [*plugins._LOADED, *plugins._PARTS]}
        for module in sys.modules.keys() - known:
            if module.partition(".")[0] in own:
                del sys.modules[module]
        KINDS[:] = kinds
        for table, rows in zip(tables, before, strict=True):
            table.clear()
            table.update(rows)

    yield forget
    forget()
    sys.path[:] = folders


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A folder in the field's layout: 5 source, 4 target, 3 + 3 paired test images."""
    root = tmp_path / "data"
    for split, count, seed in (("trainA", 5, 1), ("trainB", 4, 2), ("testA", 3, 3), ("testB", 3, 4)):
        write_images(root / split, count, seed=seed)
    return root


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Headless Chromium, or a skip with the reason."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs pip install playwright")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("there is no Chromium on this machine")
    quiet = ("background-networking", "component-update", "sync")
    options = ["--no-sandbox", "--disable-gpu", "--no-first-run", *(f"--disable-{name}" for name in quiet)]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=options)
        yield browser
        browser.close()
