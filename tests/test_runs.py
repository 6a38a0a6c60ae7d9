"""``unpaired runs``: a person's run folders, how far they are, and their scores, read off files of any state."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from unpaired.cli import main
from unpaired.config import save_yaml
from unpaired.run_folder import RunStatus, run_status

OLD = 1_700_000_000


def write_run(folder: Path, seen: int = 0, age: float | None = None, **training: Any) -> Path:
    """The files of a run that have to do with its progress."""
    save_yaml(folder / "run.yaml", {
        "method": "cut", "dataset": {"folder": "/data/horses"}, "data": {}, "training": training,
        "model": {"optimiser": {"epochs": 400}},
    })  # fmt: skip
    (folder / "sessions.jsonl").write_text(json.dumps({"images": [1067, 1334]}) + "\n")
    if seen:
        line = json.dumps({"images_seen": seen, "seconds_per_image": 0.5})
        (folder / "log.jsonl").write_text(f'{line}\n{{"cut short')
    for path in folder.iterdir() if age is not None else ():
        os.utime(path, (age, age))
    return folder


def score(label: str, value: float) -> dict[str, Any]:
    return {"label": label, "value": value}


def test_a_run_is_finished_running_or_stopped(tmp_path: Path) -> None:
    states = {
        "finished": write_run(tmp_path / "a", 200, OLD, images=200),
        "stopped": write_run(tmp_path / "b", 100, OLD, images=200),
        "running": write_run(tmp_path / "c", 100, images=200),
    }
    assert {run_status(run).state: run for run in states.values()} == states
    assert run_status(states["stopped"]) == RunStatus("cut", "/data/horses", 100, 200, {}, "stopped")
    # the length is in epochs; nothing is logged yet; weights count
    assert run_status(write_run(tmp_path / "d", 5)).total == 400 * 1334
    begun = write_run(tmp_path / "e", images=200)
    assert run_status(begun).images_seen == 0
    (begun / "weights").mkdir()
    (begun / "weights" / "model.json").write_text('{"images_seen": 60}')
    assert run_status(begun).images_seen == 60


def test_the_newest_scores_are_those_of_an_evaluation_else_of_training(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", 10, images=10)
    lines = [{"weights": weights, "scores": {"kid_4v4": score("KID", value)}} for weights, value in
             (("ema", 9), ("last", 8), ("ema", 7), ("last", 6))]  # fmt: skip
    (run / "scores.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run_status(run).scores == {"KID": 7}
    record = {"scores": {"input": {"a": score("KID", 1)}, "ema": {"a": score("KID", 5), "b": score("SWD", "inf")}}}
    (run / "evaluations.jsonl").write_text(json.dumps(record) + "\n{")
    assert run_status(run).scores == {"KID": 5}


def test_the_command_lists_runs_at_any_depth_and_names_those_that_it_cannot_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs" / "mine", 1500, OLD, images=2000)
    write_run(tmp_path / "runs" / "table" / "deep", 2000, OLD, images=2000)
    code = "import sys; from unpaired.cli import main; main(['runs']); assert 'torch' not in sys.modules"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    lines = [line.split() for line in found.splitlines()]
    assert lines[1] == ["mine", "cut", "/data/horses", "1,500", "of", "2,000", "stopped"]
    assert lines[2] == ["table/deep", "cut", "/data/horses", "2,000", "of", "2,000", "finished"]
    (tmp_path / "runs" / "mine" / "run.yaml").write_text("method: [")
    assert main(["runs", "runs"]) == 1
    answer = capsys.readouterr()
    assert "table/deep" in answer.out
    assert "error: runs/mine/run.yaml: line" in answer.err
    shutil.rmtree(tmp_path / "runs")
    assert main(["runs"]) == 2
    assert "runs: there is no such folder; 'unpaired recipes' lists the published" in capsys.readouterr().err
    (tmp_path / "runs").mkdir()
    assert main(["runs"]) == 0
    assert "runs holds no run folders" in capsys.readouterr().out
