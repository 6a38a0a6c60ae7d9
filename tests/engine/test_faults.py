"""What a training leaves behind when it is killed or started twice, and what the same command makes of it."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import faults
from tiny import tiny_run
from unpaired.errors import CheckpointError, TrainingError
from unpaired.inference import Translator
from unpaired.run_folder import is_running
from unpaired.training import RunConfig, train

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def wait_for(condition: Callable[[], bool], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def in_a_child(action: Callable[[], object]) -> int:
    """A forked process that carries out ``action``: its number."""
    if (child := os.fork()) == 0:
        try:
            action()
        finally:
            os._exit(0)
    return child


def test_a_run_killed_at_any_file_event_ends_like_an_uninterrupted_one(tmp_path: Path) -> None:
    faults.kills(every=12, first=3, work=tmp_path)  # all of them: python benchmarks/faults.py kills


def test_a_second_training_in_the_same_folder_is_refused_until_the_first_is_gone(dataset: Path, tmp_path: Path) -> None:
    config, run = tiny_run(dataset, images=100_000, checkpoint_every=2), tmp_path / "run"
    first = in_a_child(lambda: train(config, run, quiet=True))
    try:
        wait_for((run / "log.jsonl").exists)
        with pytest.raises(TrainingError, match=rf"is being trained by process {first} on \S+ since 20\d\d-.*--out"):
            train(config, run, quiet=True)
    finally:
        os.kill(first, signal.SIGKILL)
        os.waitpid(first, 0)
    stop = replace(config, training=replace(config.training, stop_after=1))
    assert train(stop, run, quiet=True).images_seen >= 1
    assert [json.loads(line)["images_seen"] for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", ["formats.json", "initial.safetensors", ".run.yaml.4194305.tmp", ".lock"])
def test_an_unfinished_start_is_taken_over(name: str, dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / name).write_bytes(b"half")
    assert train(tiny_run(dataset, images=2), run, quiet=True).finished
    assert not (run / "formats.json").exists()


def test_temporary_files_of_dead_processes_are_swept_and_those_of_living_ones_are_not(
    dataset: Path, tmp_path: Path
) -> None:
    run, living = tmp_path / "run", os.getppid()
    (run / "checkpoints").mkdir(parents=True)
    dead = next(number for number in range(4_194_000, 1, -1) if not is_running(number))
    for pid in (dead, os.getpid(), living):
        for place in (run, run / "checkpoints"):
            (place / f".a file.{pid}.tmp").write_bytes(b"half")
    (run / "checkpoints").rename(tmp_path / "aside")
    train(tiny_run(dataset, images=2, stop_after=1), run, quiet=True)
    (tmp_path / "aside" / f".a file.{dead}.tmp").rename(run / "checkpoints" / f".a file.{dead}.tmp")
    train(tiny_run(dataset, images=2), run, quiet=True)
    assert [path.name for path in run.rglob("*.tmp")] == [f".a file.{living}.tmp"]


TORN = (
    b'{"images_seen": 2, "ter', b"\xff\xfe{\n", b'{"images_seen": "2"}\n', b'{"images_seen": null, "scores": 3}\n',
    b"[1, 2]\n", b"7\n", b"[" * 100_000, b'{"images_seen": 1, "scores": {"swd": []}, "weights": 3',
)  # fmt: skip


@pytest.mark.parametrize("line", TORN, ids=range(len(TORN)))
def test_damaged_lines_are_dropped_and_said(line: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = faults.small_run(tmp_path / "data")
    part = replace(config, training=replace(config.training, stop_after=2))
    for name, content in (("whole", b""), ("torn", line)):
        train(part, tmp_path / name, quiet=True)
        for file in ("log.jsonl", "scores.jsonl", "sessions.jsonl"):
            with (tmp_path / name / file).open("ab") as stream:
                stream.write(content)
        train(config, tmp_path / name)
    assert faults.content(tmp_path / "torn") == faults.content(tmp_path / "whole")
    said = capsys.readouterr().err
    assert said.count("is skipped") == (3 if b'"images_seen": "2"' not in line and b"null" not in line else 2)
    assert len((tmp_path / "torn" / "sessions.jsonl").read_text().splitlines()) >= 2


def test_the_log_of_a_resumed_run_is_that_of_an_uninterrupted_one(dataset: Path, tmp_path: Path) -> None:
    config = tiny_run(dataset, images=9, log_every=4, sample_every=2, checkpoint_every=100)
    train(config, tmp_path / "whole", quiet=True)
    for stop in (1, 3, 5, 6, 9):
        part = replace(config, training=replace(config.training, stop_after=stop))
        train(part, tmp_path / "parts", quiet=True)
    assert faults.content(tmp_path / "parts")["log.jsonl"] == faults.content(tmp_path / "whole")["log.jsonl"]


def test_weights_of_two_times_are_refused_and_exported_again(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run = tiny_run(dataset), tmp_path / "run"
    train(replace(config, training=replace(config.training, stop_after=2)), run, quiet=True)
    earlier = (run / "weights" / "ema.safetensors").read_bytes()
    train(config, run, quiet=True)
    whole = faults.content(run)
    (run / "weights" / "ema.safetensors").write_bytes(earlier)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(CheckpointError, match=r"ema\.safetensors is not the file that model\.json describes"):
        Translator.from_pretrained(run)
    assert Translator.from_pretrained(run, weights="last").origin
    assert train(config, run, quiet=True).finished
    assert faults.content(run) == whole


def command(config: RunConfig, run: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "unpaired", "train", "--out", str(run), "--config", str(run.parent / "run.yaml"),
            *options]  # fmt: skip


@pytest.mark.slow
def test_a_closed_terminal_saves(dataset: Path, tmp_path: Path) -> None:
    from unpaired.config import save_yaml

    config, run = tiny_run(dataset, images=100_000, checkpoint_every=100_000, sample_every=100_000), tmp_path / "run"
    save_yaml(tmp_path / "run.yaml", config.to_mapping())
    child, terminal = pty.fork()
    if child == 0:
        os.execve(sys.executable, command(config, run), ENVIRONMENT)
    reader = in_a_child(lambda: [os.read(terminal, 4096) for _ in iter(int, 1)])
    wait_for((run / "log.jsonl").exists)
    os.kill(reader, signal.SIGKILL)
    os.waitpid(reader, 0)
    os.close(terminal)  # the last one: the kernel sends SIGHUP
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGHUP
    assert list((run / "checkpoints").glob("*.pt"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_no_process_outlives_the_first_one(dataset: Path, tmp_path: Path) -> None:
    from unpaired.config import save_yaml

    config, run = tiny_run(dataset, images=100_000, batch_size=2, num_workers=1), tmp_path / "run"
    save_yaml(tmp_path / "run.yaml", config.to_mapping())

    def others() -> list[str]:
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                if str(run).encode() in path.read_bytes() and path.parent.name != str(first.pid):
                    found.append(path.parent.name)
        return found

    first = subprocess.Popen(command(config, run, "--devices", "2"), env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    wait_for(lambda: len(others()) >= 1)  # the second one starts: it loads torch
    first.kill()
    first.wait()
    wait_for(lambda: not others(), 60)
