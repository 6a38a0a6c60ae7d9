"""Values that no field expects in the files of runs, prepared sets and studies are one line for the person."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import faults
from tiny import tiny_run, write_images
from unpaired.cli import main
from unpaired.files import json_lines
from unpaired.run_folder import append_line
from unpaired.training import train


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``data``, a scored ``run`` with best weights, the same images as a prepared ``set``, and a ``study``."""
    root = tmp_path_factory.mktemp("facts")
    for seed, split in enumerate(("trainA", "trainB", "testA", "testB")):
        write_images(root / "data" / split, 3, seed=seed)
    data, run = str(root / "data"), str(root / "run")
    assert train(tiny_run(root / "data", images=2, checkpoint_every=1, score_every=1), run, quiet=True).finished
    assert main(["evaluate", run, "--metrics", "colour_shift_lab"]) == 0
    assert main(["data", "prepare", data, "--out", str(root / "set")]) == 0
    assert main(["study", run, f"{data}/testA", "--data", data, "--out", str(root / "study"), "--no-serve"]) == 0
    return root


CASES: tuple[tuple[str, tuple[Any, ...], Any, str, bool], ...] = (
    ("run/sessions.jsonl", (-1, "skipped"), 0.5, "train", True),
    ("run/sessions.jsonl", (-1, "skipped"), [1], "train", True),
    ("run/sessions.jsonl", (-1, "images"), "x", "train", True),
    ("run/sessions.jsonl", (-1, "git"), "x", "report", True),
    ("run/sessions.jsonl", (-1, "images"), "x", "report", True),
    ("run/sessions.jsonl", (-1, "command"), [1], "report", True),
    ("run/files.json", (0,), {"a": 1}, "train", True),
    ("run/files.json", (0, 0), 1, "train", True),
    ("run/weights/best.json", ("images_seen",), None, "evaluate", True),
    ("run/weights/best.json", ("score",), [1], "evaluate", True),
    ("run/weights/best.json", ("weights",), "x", "evaluate", True),
    ("run/weights/best.json", ("weights",), 1, "report", True),
    ("run/evaluations.jsonl", (-1, "rows", "input", "label"), 1e23, "push", True),
    ("run/evaluations.jsonl", (-1, "data", "image_size"), [[[]]], "push", True),
    ("run/evaluations.jsonl", (-1, "scores", "ema"), 3, "push", True),
    ("run/evaluations.jsonl", (-1, "images_seen"), {}, "push", True),
    ("set/preparation.json", ("settings",), -0.5, "prepare", False),
    ("set/preparation.json", ("sources", 0, "files"), ..., "prepare", False),
    ("set/preparation.json", ("sources",), [3], "prepare", False),
    ("set/preparation.json", ("classes",), 0, "check", False),
    ("set/preparation.json", ("finished",), "x", "check", False),
)


@pytest.mark.parametrize(("file", "path", "value", "command", "goes_on"), CASES)
def test_a_damaged_value_is_passed_over_or_named(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    file: str, path: tuple[Any, ...], value: Any, command: str, goes_on: bool,
) -> None:  # fmt: skip
    """``goes_on``: the command can do without it."""
    for name in ("run", "set"):
        shutil.copytree(made / name, tmp_path / name)
    spoilt, out = tmp_path / file, str(tmp_path / "out")
    lines = spoilt.suffix == ".jsonl"
    held = [json.loads(line) for line in spoilt.read_text().splitlines()] if lines else json.loads(spoilt.read_text())
    held = faults.changed(held, path, value)
    spoilt.write_text("".join(f"{json.dumps(each)}\n" for each in held) if lines else json.dumps(held))
    run, data = str(tmp_path / "run"), str(made / "data")
    code = main({
        "train": ["train", "--config", f"{run}/run.yaml", "--out", run, "--quiet"],
        "evaluate": ["evaluate", run, "--metrics", "colour_shift_lab"],
        "report": ["report", run, "--out", out],
        "push": ["push", run, "a/b", "--dry-run", out],
        "prepare": ["data", "prepare", data, "--out", str(tmp_path / "set")],
        "check": ["data", "check", str(tmp_path / "set")],
    }[command])  # fmt: skip
    said = capsys.readouterr().err
    assert "Traceback" not in said
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert (code, len(errors)) == ((0, 0) if goes_on else (2, 1)), said
    if not goes_on:
        assert str(spoilt) in errors[0]


def _set(table: str, column: str, value: Any) -> Callable[[sqlite3.Connection], object]:
    return lambda connection: connection.execute(f"UPDATE {table} SET {column} = ?", (value,))


@pytest.mark.parametrize(
    "damage",
    [
        _set("study", "value", b"\xff"), _set("study", "value", "["), _set("study", "value", "[" * 9000),
        _set("study", "key", "key" * 3),
        _set("votes", "shown", "[9]"), _set("votes", "shown", "x"), _set("votes", "method", 7),
    ],
)  # fmt: skip
def test_a_damaged_study_is_named(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Any) -> None:
    shutil.copytree(made / "study", tmp_path / "study")
    from unpaired.study.records import QUESTIONS
    from unpaired.study.store import Store

    store = Store(tmp_path / "study")
    methods = [method.id for method in store.study.methods]
    store.vote(store.enter(None)[0].id, min(store.study.images), next(iter(QUESTIONS)), methods[0], methods)
    file = tmp_path / "study" / "study.sqlite"
    connection = sqlite3.connect(file)
    with connection:
        try:
            damage(connection)
        except sqlite3.IntegrityError:  # keys are unique: take them all out
            connection.execute("DELETE FROM study")
    connection.close()
    assert main(["study", str(tmp_path / "study"), "--table"]) == 2
    said = capsys.readouterr().err
    assert said.count("error: ") == 1
    assert str(file) in said
    assert "Traceback" not in said


@pytest.mark.parametrize("content", [b"", b'{"a": 1}\n', b'{"a": 1', b'{"a": "\xff', b"\n"])
def test_a_line_is_added_behind_whatever_a_crash_left(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(content)
    append_line(path, {"b": 2})
    append_line(path, {"c": "é"})
    whole = [{"a": 1}] if content.endswith(b"}\n") else []
    assert json_lines(path) == [*whole, {"b": 2}, {"c": "é"}]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in a folder here")
def test_nothing_is_added_to_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(OSError, match=r"pipe|directory"):
            append_line(tmp_path / name, {"a": 1})
