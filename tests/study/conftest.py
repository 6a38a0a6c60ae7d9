"""A small study of three methods, made from folders of images as any software would leave them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from served_study import METHODS, Served

from tiny import write_images
from unpaired.data import UnpairedFiles, list_images
from unpaired.study.prepare import Contender, Plan, make_study
from unpaired.study.store import Store

IMAGES = 4


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``source``, ``target`` and a folder of translations for each of ``METHODS``; file names pair them."""
    root = tmp_path_factory.mktemp("made")
    for seed, name in enumerate(("source", "target", *METHODS)):
        write_images(root / name, 6, size=(40, 32), seed=seed)
    return root


@pytest.fixture(scope="session")
def plan(made: Path) -> Callable[..., Plan]:
    """The plan of a study of ``METHODS``; keywords change it."""

    def build(**changes: Any) -> Plan:
        values: dict[str, Any] = {
            "contenders": [Contender(name, made / name) for name in METHODS],
            "files": UnpairedFiles(tuple(list_images(made / "source")), tuple(list_images(made / "target"))),
            "images": IMAGES, "examples": 2, "seed": 5, "weights": "ema", "size": "training", "device": "cpu",
            "settings": {"made": "by a test"},
        }  # fmt: skip
        return Plan(**values | changes)

    return build


@pytest.fixture(scope="session")
def untouched(plan: Callable[..., Plan], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study folder to be copied."""
    folder = tmp_path_factory.mktemp("untouched") / "study"
    make_study(plan(), folder)
    return folder


@pytest.fixture
def store(untouched: Path, tmp_path: Path) -> Store:
    """A new study that nobody has seen."""
    return Store(shutil.copytree(untouched, tmp_path / "study"))


@pytest.fixture
def served(store: Store) -> Iterator[Callable[..., Served]]:
    """Serve the study; each call starts another process."""
    processes: list[Served] = []

    def start(*words: str) -> Served:
        processes.append(Served(store.folder, *words))
        return processes[-1]

    yield start
    for one in processes:
        one.process.kill()
        one.process.communicate()
