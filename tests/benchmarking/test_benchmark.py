"""``unpaired benchmark`` end to end: real runs in processes of their own, killed, continued, grown, refused."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tiny import write_images
from unpaired.benchmarking.matrix import compose, load_matrix
from unpaired.benchmarking.runs import Plan
from unpaired.benchmarking.workers import locked, worker_environment
from unpaired.cli import main
from unpaired.config import load_yaml, save_yaml
from unpaired.errors import ConfigError

IMAGES = 24
NAMES = [f"{contender}-photos-seed{seed}" for seed in (0, 1) for contender in ("cut", "local")]
Capture = pytest.CaptureFixture[str]


def matrix(photos: Path, /, **changes: Any) -> dict[str, Any]:
    return {
        "budget": {"images": IMAGES},
        "seeds": [0, 1],
        "slots": ["cpu", "cpu"],
        "threads": 1,
        "common": {
            "data": {"image_size": 32, "load_size": 36, "num_workers": 0},
            "model": {"base_channels": 4, "blocks": 5, "num_queries": 16, "projector_width": 8},
            "training": {"score_every": 0, "log_every": 1, "checkpoint_every": 4, "sample_every": 1000},
        },
        "data": {"photos": {"folder": str(photos)}},
        "contenders": {
            "local": {"method": "qs_attn", "model": {"attention": "local"}, "label": "QS-Attn, local windows"},
            "cut": {"method": "cut"},
        },
        "evaluate": {"metrics": ["paired_l1_pm1", "swd_progan_x1e3"], "intervals": False},
        **changes,
    }


def write(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "m.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def weights(out: Path) -> dict[str, bytes]:
    return {
        f"{path.parents[1].name}/{path.name}": path.read_bytes()
        for path in sorted(out.glob("runs/*/weights/*.safetensors"))
    }


def until(condition: Callable[[], bool], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def processes(words: str) -> list[int]:
    """Those whose command line holds ``words``."""
    found = []
    for place in Path("/proc").iterdir():
        try:
            if place.name.isdecimal() and words in (place / "cmdline").read_text():
                found.append(int(place.name))
        except OSError:
            continue
    return found


def begin(file: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    """A benchmark in a process group of its own, which Ctrl-C reaches.

    Jobs that a shell starts in the background ignore SIGINT and hand that on. A signal with a handler is handed on with
    its default action, so there is one here while the child starts.
    """
    command = [sys.executable, "-m", "unpaired", "benchmark", str(file), "--out", str(out), *options]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    finally:
        signal.signal(signal.SIGINT, before)


def has_checkpoint(out: Path, name: str) -> bool:
    return any((out / "runs" / name / "checkpoints").glob("*.pt"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos") / "photos"
    for number, split in enumerate(("trainA", "trainB", "testA", "testB")):
        write_images(root / split, 4, seed=number)
    return root


@pytest.fixture(scope="module")
def straight(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A benchmark that nothing interrupted."""
    folder = tmp_path_factory.mktemp("straight")
    assert main(["benchmark", str(write(folder, matrix(photos))), "--out", str(folder / "out")]) == 0
    return folder / "out"


@pytest.fixture
def copy(straight: Path, tmp_path: Path) -> Path:
    return shutil.copytree(straight, tmp_path / "out")


def test_every_run_is_trained_scored_and_in_the_tables(straight: Path) -> None:
    assert sorted(path.name for path in (straight / "runs").iterdir()) == sorted(NAMES)
    for name in NAMES:
        kept = load_yaml(straight / "runs" / name / "run.yaml")
        assert kept["training"]["images"] == IMAGES
        assert kept["training"]["seed"] == int(name[-1])
        assert kept["training"]["threads"] == 1
    results = straight / "results" / "photos"
    table = json.loads((results / "table.json").read_text())
    rows = [(row["label"], row["weights"], len(row["runs"])) for row in table["rows"] if not row["reference"]]
    labels = ("QS-Attn, local windows", "cut")
    assert rows == [(label, kind, 2) for label in labels for kind in ("ema", "last")]
    assert [column["metric"] for column in table["columns"]] == ["paired_l1_pm1", "swd_progan_x1e3"]
    # the mean of the table is that of the records
    scores = []
    for seed in (0, 1):
        record = json.loads((straight / "runs" / f"cut-photos-seed{seed}" / "evaluations.jsonl").read_text())
        scores.append(record["scores"]["ema"]["paired_l1_pm1_4v4"]["value"])
        assert (record["data"]["name"], record["images_seen"]) == ("photos", IMAGES)
    (row,) = [row for row in table["rows"] if (row["label"], row["weights"]) == ("cut", "ema")]
    assert row["values"]["paired_l1_pm1_4v4"]["mean"] == pytest.approx(sum(scores) / 2, rel=1e-12)
    assert scores[0] != scores[1]
    with (results / "costs.csv").open() as file:
        costs = list(csv.DictReader(file))
    assert [cost["label"] for cost in costs] == ["QS-Attn, local windows", "cut"]
    assert all(float(x["minutes"]) == pytest.approx(float(x["seconds_per_image"]) * IMAGES / 60) for x in costs)
    assert "QS-Attn, local windows" in (results / "table.md").read_text()
    assert r"\begin{tabular}" in (results / "table.tex").read_text()
    page = (results / "report.html").read_text()
    assert page.count("QS-Attn, local windows") >= 4
    assert (results / "grid.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds the workers in /proc")
def test_killed_workers_and_a_killed_benchmark_go_on_to_the_same_weights(
    straight: Path, photos: Path, tmp_path: Path, capsys: Capture
) -> None:
    out, file, only = tmp_path / "out", write(tmp_path, matrix(photos)), ("--only", "*-seed0")
    first = begin(file, out, *only)
    assert first.stderr is not None
    until(lambda: has_checkpoint(out, "local-photos-seed0"))
    for process in processes("unpaired.benchmarking.workers\0local-photos-seed0"):
        os.kill(process, signal.SIGKILL)  # as the kernel does when memory runs out
    assert any("FAILED: local-photos-seed0: killed by signal 9" in line for line in first.stderr)
    until(lambda: has_checkpoint(out, "cut-photos-seed0"))
    os.killpg(first.pid, signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    assert main(["benchmark", str(file), "--out", str(out), *only]) == 0  # waits for the workers, which save and end
    assert "2 of 4 runs are done" in capsys.readouterr().err
    assert weights(out) == {name: content for name, content in weights(straight).items() if "-seed0/" in name}
    assert len(weights(out)) == 4
    sessions = (out / "runs" / "local-photos-seed0" / "sessions.jsonl").read_text().splitlines()
    assert len(sessions) == 2, "it was begun, killed, and gone on with"


def test_ctrl_c_lets_the_runs_save_and_says_so(photos: Path, tmp_path: Path) -> None:
    out, file = tmp_path / "out", write(tmp_path, matrix(photos, budget={"images": 500}))
    run = out / "runs" / "local-photos-seed0"
    run.mkdir(parents=True)
    (run / ".run.yaml.123.tmp").write_text("metho")  # what a power loss leaves of a new run is no obstacle
    benchmark = begin(file, out, "--slots", "cpu", "--only", "*-seed0")
    until(lambda: has_checkpoint(out, "local-photos-seed0"))
    os.kill(benchmark.pid, signal.SIGINT)
    _, said = benchmark.communicate(timeout=120)
    assert benchmark.returncode == 130
    assert "Stopping: the runs at work save and end" in said
    assert "failed" not in said.lower()
    assert "0 of 4 runs are done; run the same command again to continue." in said
    assert "Stopped and saved after" in (out / "logs" / "local-photos-seed0.log").read_text()
    assert sorted(path.name for path in (out / "runs").iterdir()) == ["local-photos-seed0"]


@pytest.mark.slow
def test_the_matrix_grows_and_a_contender_that_fails_stops_no_other(
    copy: Path, photos: Path, tmp_path: Path, capsys: Capture
) -> None:
    before, content = weights(copy), matrix(photos)
    content["contenders"] |= {
        "broken": {"method": "cut", "model": {"discriminator_layers": 5}},  # needs larger images
        "fast": {"method": "fastcut"},
    }
    command = ["benchmark", str(write(tmp_path, content)), "--out", str(copy), "--only", "broken*seed0", "fast*seed0"]
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "FAILED: broken-photos-seed0: image_size: CUT needs crops of at least" in said
    assert "failed: broken-photos-seed0: image_size: CUT needs" in said
    assert "fast-photos-seed0: done" in said
    assert "5 of 8 runs are done; run the same command again to continue." in said
    after = weights(copy)
    assert after.items() >= before.items()
    assert {name.partition("/")[0] for name in after.keys() - before.keys()} == {"fast-photos-seed0"}
    rows = json.loads((copy / "results" / "photos" / "table.json").read_text())["rows"]
    own = {row["label"]: len(row["runs"]) for row in rows if not row["reference"]}
    assert own == {"QS-Attn, local windows": 2, "cut": 2, "fast": 1}


def test_finished_runs_are_left_alone_wherever_their_images_lay_and_whichever_version_made_them(
    copy: Path, photos: Path, tmp_path: Path, capsys: Capture
) -> None:
    for name in NAMES:
        path = copy / "runs" / name / "run.yaml"
        kept = load_yaml(path)
        known = ("load_size_until", "smallest_zoom", "images_per_epoch", "resample")  # to this version alone
        kept["data"] = {**{key: value for key, value in kept["data"].items() if key not in known}, "flip": True}
        kept["training"] |= {"log_every": 7, "keep_checkpoints": 9}  # settings that change nothing
        if name == NAMES[0]:
            kept["dataset"]["folder"] = "/elsewhere/photos"
        save_yaml(path, kept)
    (copy / "runs" / NAMES[1] / "evaluations.jsonl").write_text('{"cut short": ')
    before, file = weights(copy), write(tmp_path, matrix(photos))
    assert main(["benchmark", str(file), "--out", str(copy)]) == 0
    said = capsys.readouterr().err
    assert f"{NAMES[0]}: existing run continued; its images were in /elsewhere/photos" in said
    assert "4 runs: 3 done, 1 to do now" in said
    assert weights(copy) == before
    assert load_yaml(copy / "runs" / NAMES[0] / "run.yaml")["dataset"]["folder"] == str(photos)
    for name in NAMES:
        assert len((copy / "runs" / name / "sessions.jsonl").read_text().splitlines()) == 1, "scored, not trained"
    assert len((copy / "runs" / NAMES[1] / "evaluations.jsonl").read_text().splitlines()) == 2
    content = matrix(photos)
    content["common"]["data"]["flip"] = "both"
    assert main(["benchmark", str(write(tmp_path, content)), "--out", str(copy)]) == 2
    assert "data.flip was 'horizontal', now 'both'" in capsys.readouterr().err


def test_other_settings_other_images_and_a_folder_without_a_run_are_refused(
    copy: Path, photos: Path, tmp_path: Path, capsys: Capture
) -> None:
    before, other, fewer = weights(copy), tmp_path / "other", matrix(photos)
    fewer["common"]["model"]["num_queries"] = 15
    for split in ("trainA", "trainB", "testA", "testB"):
        write_images(other / split, 5)
    for content, words in (
        (fewer, "local-photos-seed0 was made with other settings (model.num_queries was 16, now 15)"),
        (matrix(photos, budget={"images": 25}), "training.images was 24, now 25"),
        (matrix(photos, data={"photos": {"folder": str(other)}}), "local-photos-seed0 was trained on other images"),
        (matrix(photos, evaluate={"metrics": ["paired_l2"]}), "unknown metric 'paired_l2'"),
    ):
        assert main(["benchmark", str(write(tmp_path, content)), "--out", str(copy)]) == 2
        assert words in capsys.readouterr().err
    (copy / "runs" / "local-photos-seed0" / "run.yaml").unlink()
    assert main(["benchmark", str(write(tmp_path, matrix(photos))), "--out", str(copy)]) == 1
    assert "local-photos-seed0 is not empty and holds no run" in capsys.readouterr().err
    assert weights(copy) == before


def test_records_of_another_protocol_do_not_count(copy: Path, photos: Path, tmp_path: Path, capsys: Capture) -> None:
    """Of another seed, other images, fewer images seen, an older protocol, or without a wanted score."""
    file = write(tmp_path, matrix(photos))
    found = load_matrix(file)
    (run,) = [run for run in Plan(found, compose(found, file)[0], copy).runs() if run.name == "cut-photos-seed0"]
    path = run.folder / "evaluations.jsonl"
    content = path.read_text()
    record = json.loads(content)
    assert run.record(found.evaluate) == record
    assert run.record(replace(found.evaluate, metrics=("paired_psnr_db",))) is None
    for before, after in (
        ('"seed": 0', '"seed": 1'),
        (f'"images_seen": {IMAGES}', '"images_seen": 3'),
        ('"image_size": 32', '"image_size": 64'),
        (record["data"]["source_digest"], "0" * 16),
        (record["scores"]["ema"]["swd_progan_x1e3_4v4"]["protocol"], "another way"),
    ):
        assert before in content
        path.write_text(content.replace(before, after))
        assert run.record(found.evaluate) is None
    protocol = record["scores"]["ema"]["swd_progan_x1e3_4v4"]["protocol"]
    path.write_text(content.replace(protocol, f"{protocol}, interval by bootstrap over images"))
    assert run.record(found.evaluate) is not None  # so earlier versions said it; the value is the same
    # and those that the tables cannot join are named
    path.write_text(re.sub(r'"unit": "[^"]*"', '"unit": "furlongs"', content))
    (copy / "results" / "photos" / "table.md").unlink()
    assert main(["benchmark", str(file), "--out", str(copy)]) == 1
    assert "error: the scores of these runs cannot be compared: the unit of" in capsys.readouterr().err
    assert not (copy / "results" / "photos" / "table.md").exists()


@pytest.mark.slow
def test_a_budget_in_minutes_is_measured_once_and_fixes_the_lengths(
    photos: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out"
    content = matrix(photos, budget={"minutes": 0.02}, seeds=[0], contenders={"cut": {"method": "cut"}})
    command = ["benchmark", str(write(tmp_path, content)), "--out", str(out)]
    assert main([*command, "--dry-run"]) == 0
    (entry,) = json.loads((out / "plan.json").read_text())["cells"].values()
    images = max(1, int(0.02 * 60 // entry["seconds_per_image"]))
    assert f" {images:,} " in capsys.readouterr().out
    assert not (out / "runs").exists()
    assert main(command) == 0
    assert "Measuring" not in capsys.readouterr().err
    run = out / "runs" / "cut-photos-seed0"
    assert load_yaml(run / "run.yaml")["training"]["images"] == images
    assert json.loads((run / "weights" / "model.json").read_text())["images_seen"] == images
    content["budget"] = {"minutes": 3}
    assert main(["benchmark", str(write(tmp_path, content)), "--out", str(out)]) == 2
    assert f"training.images was {images}, now" in capsys.readouterr().err
    # lost or not, the plan stays what it was, also for further seeds
    (out / "plan.json").unlink()
    content |= {"budget": {"minutes": 0.02}, "seeds": [0, 1]}
    assert main(["benchmark", str(write(tmp_path, content)), "--out", str(out), "--dry-run"]) == 0
    assert "2 runs, 1 to train" in capsys.readouterr().out


def test_two_benchmarks_in_one_folder_are_refused(copy: Path, photos: Path, tmp_path: Path, capsys: Capture) -> None:
    command = ["benchmark", str(write(tmp_path, matrix(photos))), "--out", str(copy)]
    with locked(copy):
        assert main(command) == 2
        assert "another benchmark is at work there" in capsys.readouterr().err
        assert main([*command, "--dry-run"]) == 0, "what is known can be looked at meanwhile"
    answer = capsys.readouterr().out
    assert "4 runs, 0 to train" in answer
    (line,) = [line for line in answer.splitlines() if " cut " in line and "photos" in line]
    assert line.split("│")[-3:-1] == ["    2 ", "    0 "], line


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--only", "loccal"), "only: no contender or run matches 'loccal' (did you mean 'local'?)"),
        (("--slots", "gpu0"), "slots: 'gpu0' is not a device"),
    ],
)
def test_options_that_are_wrong(
    photos: Path, tmp_path: Path, capsys: Capture, options: tuple[str, ...], said: str
) -> None:
    assert main(["benchmark", str(write(tmp_path, matrix(photos))), "--out", str(tmp_path / "out"), *options]) == 2
    assert said in capsys.readouterr().err


def test_each_worker_sees_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5")
    assert worker_environment("cuda:1", 2)["CUDA_VISIBLE_DEVICES"] == "5"
    assert worker_environment("cpu", 2).items() >= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "2"}.items()
    with pytest.raises(ConfigError, match="there is no cuda:2: CUDA_VISIBLE_DEVICES is '3, 5'"):
        worker_environment("cuda:2", 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert worker_environment("cuda:1", 2)["CUDA_VISIBLE_DEVICES"] == "1"
