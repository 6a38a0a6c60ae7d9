"""Training on several machines: two of them on loopback, one torchrun each, against one process."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from doc_pages import DOCS, blocks
from tiny import tiny_run
from unpaired.config import save_yaml
from unpaired.engine.processes import launch, make_fabric
from unpaired.engine.training_config import TrainingConfig
from unpaired.errors import BackendError
from unpaired.run_config import RunConfig
from unpaired.training import train

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}
SLURM = {"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "2", "SLURM_JOB_ID": "1"}


def start_nodes(config: RunConfig, run: Path) -> list[subprocess.Popen[str]]:
    """The two commands of docs/clusters.md with another run, first node first."""
    save_yaml(run.with_suffix(".yaml"), config.to_mapping())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = []
    for block in blocks(DOCS / "clusters.md", "bash")[:2]:
        words = shlex.split(block.replace("\\\n", " ").replace("29500", port))
        assert words[0] == "torchrun"
        agent, options = words[1 : words.index("train") + 1], words[words.index("--batch-size") :]
        ours = ["--config", str(run.with_suffix(".yaml")), "--out", str(run)]
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "torch.distributed.run", *agent, *ours, *options],
                stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        )  # fmt: skip
    return started


def log(run: Path) -> list[dict[str, Any]]:
    path = run / "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")] if path.exists() else []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="a process follows its agent at once on Linux only")
def test_two_nodes_go_on_from_one_learn_the_same_and_end_together(dataset: Path, tmp_path: Path) -> None:
    config = tiny_run(dataset, batch_size=4, images=100_000, checkpoint_every=10)
    single, double = tmp_path / "single", tmp_path / "double"
    train(replace(config, training=replace(config.training, stop_after=12)), single, quiet=True)
    train(replace(config, training=replace(config.training, stop_after=4)), double, quiet=True)
    nodes = start_nodes(config, double)
    try:
        deadline = time.monotonic() + 240
        while len(log(double)) < 12:
            assert time.monotonic() < deadline
            assert [node.poll() for node in nodes] == [None, None]
            time.sleep(0.05)
        nodes[1].kill()  # its training process goes with it
        killed = time.monotonic()
        said = nodes[0].communicate(timeout=60)[1]
        assert nodes[0].returncode != 0
        assert time.monotonic() - killed < 30
        assert [line for line in said.splitlines() if line.startswith("error: ")] == [
            "error: another training process stopped, so this one does too; see its message"
        ]
        assert "Traceback" not in said.partition("error: ")[0]  # what follows is torchrun's own report
    finally:
        for node in nodes:
            with contextlib.suppress(ProcessLookupError):
                node.send_signal(signal.SIGKILL)
            node.communicate()
    for one, two in zip(log(single), log(double), strict=False):
        assert two["terms"] == pytest.approx(one["terms"], rel=1e-5)
    seen = log(double)[-1]["images_seen"] + 4
    train(replace(config, training=replace(config.training, stop_after=seen)), double, quiet=True)
    assert [line["images_seen"] for line in log(double)] == list(range(4, seen + 1, 4))


@pytest.mark.parametrize(
    ("environment", "changes", "words"),
    [
        ({}, {"nodes": 2}, "neither torchrun nor srun started this process; start the command on each machine"),
        (
            TORCHRUN,
            {},
            "torchrun started 4 training processes, but --nodes 1 --devices 1 makes 1; use --nodes 2 --d",
        ),
        (TORCHRUN, {"devices": 4, "nodes": 2}, "--nodes 2 --devices 4 makes 8; use --nodes 2 --devices 2"),
        ({"SLURM_NTASKS": "4"}, {"nodes": 2, "devices": 2}, "Use `--ntasks-per-node=4` instead"),
    ],
)
def test_a_launcher_that_started_another_number_is_named(
    environment: dict[str, str], changes: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BackendError, match="nodes: ") as raised:
        make_fabric(TrainingConfig(accelerator="cpu", **changes))
    assert words in str(raised.value)


def test_the_processes_of_slurm_are_those_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**SLURM, "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1"}.items():
        monkeypatch.setenv(name, value)
    fabric = make_fabric(TrainingConfig(accelerator="cpu", devices=2, nodes=2))
    assert (fabric.world_size, fabric.global_rank, fabric.node_rank, fabric.local_rank) == (4, 3, 1, 1)
    with pytest.raises(BackendError, match=r"nodes: .*the number of nodes configured in SLURM `--nodes=2` does not"):
        launch(make_fabric(TrainingConfig(accelerator="cpu", devices=2, nodes=3)))
