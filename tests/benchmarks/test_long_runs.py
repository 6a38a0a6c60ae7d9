"""``benchmarks/long_runs.sh`` on tiny images: nothing starts twice, a killed run goes on, no picture is recorded."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tiny import write_images

ROOT = Path(__file__).parents[2]
TINY = (
    "--image-size 32 --load-size 36 --base-channels 4 --blocks 5 --num-queries 16 --projector-width 8 "
    "--discriminator-channels 4 --precision 32 --score-every 0 --sample-every 100000 --log-every 2 --checkpoint-every 2"
)
WAIT = 500.0
"""Seconds that a machine with other work may take to start Python and train a few steps."""

Script = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "long runs"


@pytest.fixture
def script(tmp_path: Path, out: Path) -> Iterator[Script]:
    """Call the script; whatever it started is ended at the end."""
    data = tmp_path / "horse2zebra"
    for seed, split in enumerate(("trainA", "trainB", "testA", "testB")):
        write_images(data / split, 3, seed=seed)
    environment = {
        **os.environ,
        "LONG_RUNS_OUT": str(out),
        "LONG_RUNS_DATA": str(data),
        "LONG_RUNS_RECORDS": str(tmp_path / "records"),
        "PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT / "src"),
    }

    def call(*words: str, images: int = 100_000, **changes: str) -> subprocess.CompletedProcess[str]:
        changes = {"LONG_RUNS_OPTIONS": f"{TINY} --images {images}", **changes}
        command = ["bash", str(ROOT / "benchmarks" / "long_runs.sh"), *words]
        return subprocess.run(command, env=environment | changes, capture_output=True, text=True, timeout=600)

    yield call
    call("stop")


def until(condition: Callable[[], bool], out: Path) -> None:
    """Wait for something that a training does."""
    end = time.monotonic() + WAIT
    while not condition():
        logs = "\n".join(path.read_text() for path in out.glob("*.log"))
        assert time.monotonic() < end, logs
        time.sleep(0.2)


def hurry(out: Path, name: str) -> int:
    """See that a run has the lowest priority and take it away, so that the test ends on a busy machine, too."""
    process = int((out / f"{name}.pid").read_text())
    until(lambda: os.getpriority(os.PRIO_PROCESS, process) == 19, out)
    group = Path(f"/proc/{process}/autogroup")
    if group.exists():
        assert group.read_text().split()[-1] == "19"
        group.write_text("0")
    return process


def images_seen(script: Script, name: str) -> int:
    found = re.fullmatch(rf"{name}: .*, (\d+) images seen\n", script("status", name).stdout)
    assert found is not None
    return int(found[1])


@pytest.mark.skipif(sys.platform != "linux", reason="setsid, flock and /proc are Linux's")
def test_a_run_starts_once_goes_on_after_a_kill_and_stops(script: Script, out: Path, tmp_path: Path) -> None:
    assert script("status", "cut").stdout == "cut: stopped, 0 images seen\n"
    assert script("records", "cut").stdout == "cut: has no records yet\n"
    assert script("start", "cut").stdout == f"cut: started; {out}/cut.log\n"
    process = hurry(out, "cut")
    assert os.getsid(process) == process  # away from this terminal
    until(lambda: images_seen(script, "cut") >= 4, out)
    again = script("start", "cut").stdout
    assert again == f"cut: is running already (process {process})\n"
    assert int((out / "cut.pid").read_text()) == process

    os.kill(process, signal.SIGKILL)
    until(lambda: script("status", "cut").stdout.startswith("cut: stopped"), out)
    before = images_seen(script, "cut")
    script("start", "cut")
    hurry(out, "cut")
    until(lambda: images_seen(script, "cut") > before + 4, out)
    assert "cut: running" in script("status", "cut").stdout
    assert re.fullmatch(r"cut: stopped after \d+ images\n", script("stop", "cut").stdout)
    assert script("stop", "cut").stdout == "cut: is not running\n"
    assert len((out / "cut" / "sessions.jsonl").read_text().splitlines()) == 2  # one run, resumed
    assert len(list((out / "cut").glob("checkpoints/*"))) <= 2 * 2  # two checkpoints, each with what belongs to it

    script("records", "cut")
    copied = {path.name for path in (tmp_path / "records").iterdir()}
    assert copied == {"cut.log.jsonl", "cut.run.yaml"}  # no scores were asked for; never pictures


@pytest.mark.skipif(sys.platform != "linux", reason="setsid, flock and /proc are Linux's")
def test_a_finished_run_is_left_alone(script: Script, out: Path) -> None:
    script("start", "qs_attn", images=4)
    hurry(out, "qs_attn")
    until(lambda: script("status", "qs_attn").stdout == "qs_attn: finished, 4 images seen\n", out)
    assert script("start", "qs_attn", images=4).stdout == "qs_attn: is finished\n"
    settings = (out / "qs_attn" / "run.yaml").read_text()
    assert "similarity: dot" in settings
    assert "attention: global" in settings


def test_which_runs_there_are(script: Script, tmp_path: Path) -> None:
    assert [line.split(":")[0] for line in script("status").stdout.splitlines()] == ["cut", "qs_attn"]
    named = script("status", "quick", "drawings").stdout
    assert [line.split(":")[0] for line in named.splitlines()] == ["quick", "drawings"]
    unknown = script("start", "cyclegan")
    assert unknown.returncode == 2
    assert unknown.stderr == "long_runs.sh: there is no run 'cyclegan'; known: cut qs_attn quick drawings\n"
    wrong = script("restart")
    assert wrong.returncode == 2
    assert "known: start, status, stop, records" in wrong.stderr
    absent = script("start", "cut", LONG_RUNS_DATA=str(tmp_path / "nowhere"))
    assert absent.returncode == 2
    assert f"{tmp_path}/nowhere/trainA is missing" in absent.stderr
