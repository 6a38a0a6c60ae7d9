"""``--ray`` on a real cluster of two machines' worth of processes, one of which is killed at work."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tiny import tiny_run, write_images
from unpaired import cli
from unpaired.benchmarking.matrix import compose, load_matrix
from unpaired.benchmarking.runs import Plan
from unpaired.benchmarking.workers import carry_out, order_of
from unpaired.cluster import map_on_ray
from unpaired.training import train

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one core each."""
    pytest.importorskip("ray.data", reason="ray is not installed (410 MB): pip install 'unpaired[cluster]'")
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("OMP_NUM_THREADS", "1")
        made = Cluster(initialize_head=True, head_node_args=node)
        made.add_node(num_cpus=1, object_store_memory=100 << 20)
        try:
            yield made
        finally:
            made.shutdown()


def workers_at_work(cluster: Any, on: bytes) -> list[int]:
    """Processes of the cluster's nodes that are at work on something; Ray's own helpers have other titles."""
    nodes = {info.process.pid for node in cluster.list_all_nodes() for info in node.all_processes["raylet"]}
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            title = (place / "cmdline").read_bytes()
        except OSError:
            continue
        if parent in nodes and title.startswith(b"ray::") and on in title:
            found.append(int(place.name))
    return found


def kill_one(cluster: Any, on: bytes, when: Callable[[], bool]) -> Callable[[], list[int]]:
    """Kill a worker as soon as something is so; call the result to wait for that and to learn which."""
    killed: list[int] = []

    def wait() -> None:
        deadline = time.monotonic() + 240
        while not when() and time.monotonic() < deadline:
            time.sleep(0.01)
        killed.extend(workers_at_work(cluster, on)[:1])
        for process in killed:
            os.kill(process, signal.SIGKILL)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()

    def joined() -> list[int]:
        thread.join()
        return killed

    return joined


def contents(folder: Path, pattern: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob(pattern)}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")  # which pytest would show, and Python does not
def test_a_cluster_translates_as_one_process_does_although_a_worker_is_killed(
    cluster: Any, dataset: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tiny_run(dataset, images=1, checkpoint_every=1, sample_every=9), tmp_path / "run", quiet=True)
    write_images(tmp_path / "in", 60, size=(200, 190))
    (tmp_path / "in" / "image3.png").write_bytes((tmp_path / "in" / "image3.png").read_bytes()[:200])
    monkeypatch.chdir(tmp_path)

    def translate(out: str, *words: str) -> tuple[int, str, str]:
        code = cli.main(["translate", "run", "in", "--out", out, *words])
        said = capsys.readouterr()
        return code, said.out.replace(out, "OUT"), said.err

    code, out, errors = translate("here")
    assert (code, "59 of 60 images translated into OUT; 1 skipped" in out) == (1, True), out
    Path("on_ray").mkdir()
    made = {f"image{number}.png" for number in range(20, 30)}  # before an interruption
    times = {name: os.stat(shutil.copy(f"here/{name}", "on_ray")).st_mtime_ns for name in made}
    killed = kill_one(cluster, b"MapBatches", lambda: len(list(Path("on_ray").glob("*.png"))) > 12)
    code, out, said = translate("on_ray", "--ray", cluster.address, "--skip-existing")
    assert len(killed()) == 1
    assert code == 1
    assert "49 of 60 images translated into OUT; 1 skipped, 10 existed already" in out.splitlines(), out
    assert said == errors
    assert contents(Path("on_ray"), "*") == contents(Path("here"), "*")
    assert {name: (Path("on_ray") / name).stat().st_mtime_ns for name in times} == times


@pytest.mark.slow
def test_a_cluster_makes_the_table_of_one_machine_although_a_worker_is_killed(
    cluster: Any, dataset: Path, tmp_path: Path, capsys: Capture
) -> None:
    file, here, there = tmp_path / "matrix.yaml", tmp_path / "here", tmp_path / "there"
    content = {
        "budget": {"images": 60},
        "slots": ["cpu"],
        "threads": 1,
        "common": {
            "data": {"image_size": 32, "load_size": 36, "num_workers": 0},
            "model": {"base_channels": 4, "blocks": 5, "num_queries": 16, "projector_width": 8},
            "training": {"score_every": 0, "log_every": 1, "checkpoint_every": 4, "sample_every": 1000},
        },
        "data": {"photos": {"folder": str(dataset)}},
        "contenders": {"qs_attn": {"method": "qs_attn"}, "cut": {"method": "cut"}},
        "evaluate": {"metrics": ["paired_l1_pm1"], "intervals": False},
    }
    file.write_text(yaml.safe_dump(content))
    matrix = load_matrix(file)
    for run in Plan(matrix, compose(matrix, file)[0], here).runs():
        carry_out(order_of(run, matrix.evaluate), "cpu", 1)
    assert cli.main(["benchmark", str(file), "--out", str(here)]) == 0

    def both_begun() -> bool:
        return len({path.parent for path in there.glob("runs/*/checkpoints/*.pt")}) == 2

    killed = kill_one(cluster, b"-photos-seed0", both_begun)
    capsys.readouterr()
    code = cli.main(["benchmark", str(file), "--out", str(there), "--ray", cluster.address])
    said = capsys.readouterr().err
    assert code == 0, said
    assert len(killed()) == 1
    assert "one process each on a Ray cluster with room for 2 of them" in said
    assert contents(there, "*.safetensors") == contents(here, "*.safetensors")
    one, two = (json.loads((out / "results" / "photos" / "table.json").read_text())["rows"] for out in (here, there))
    assert [row["values"] for row in two] == [row["values"] for row in one]
    sessions = [len(path.read_text().splitlines()) for path in there.glob("runs/*/sessions.jsonl")]
    assert sorted(sessions) == [1, 2], "one was begun, killed, and gone on with"


def test_nothing_to_do_needs_no_worker() -> None:
    assert list(map_on_ray(lambda: len, [], workers=2, gpus=0)) == []


@pytest.mark.parametrize("address", ["127.0.0.1:1", "[::1]:1", "127.0.0.1:99999", "nowhere.invalid:6379"])
def test_a_cluster_that_does_not_answer_is_named_at_once(address: str, capsys: Capture) -> None:
    pytest.importorskip("ray.data", reason="ray is not installed (410 MB): pip install 'unpaired[cluster]'")
    assert cli.main(["translate", "run", "in", "--out", "out", "--ray", address]) == 2
    said = capsys.readouterr().err
    assert f"error: ray: no cluster answers at '{address}': " in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ray"], "--ray needs the package 'ray', which is not installed: pip install \"unpaired[cluster]\""),
        (["--ray", "--device", "cuda:1"], "device: Ray gives each worker a GPU of its own; use cuda, not cuda:1"),
    ],
)
def test_without_ray_or_with_a_device_of_one_machine_one_line_says_so(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert cli.main(["translate", "run", "in", "--out", "out", *words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
