"""A float32 training step of several versions of the package, each in a process of its own, in turns.

    git worktree add --detach ../before f86ec45
    python benchmarks/bench_trees.py ../before . --out benchmarks/results/float32_before_after_202611

QS-Attn Global at its published size, batch 1, 256 px, one thread, CPU seconds. Where a version keeps freed memory
while it trains, it does so here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import tyro

from measure import Record

_STEPS = """
import contextlib, json, resource, time, torch
from unpaired.engine.step import make_optimizers, training_step
from unpaired.methods import ImageBatch, image_seeds
from unpaired.methods.qs_attn import QSAttn, QSAttnConfig
try:
    from unpaired.environment import freed_memory_kept as kept
except ImportError:
    kept = contextlib.nullcontext
torch.set_num_threads(1)
source, target = torch.rand(2, 1, 3, 256, 256, generator=torch.Generator().manual_seed(1)) * 2 - 1
torch.manual_seed(0)
method = QSAttn(QSAttnConfig())
optimizers = make_optimizers(method, method.config.optimiser)
usage = lambda: resource.getrusage(resource.RUSAGE_SELF)
seconds, faults = [], []
with kept():
    for _ in range(4):
        started, before = time.process_time(), usage().ru_minflt
        training_step(method, optimizers, ImageBatch(source, target, image_seeds(0, [0])))
        seconds.append(time.process_time() - started)
        faults.append(usage().ru_minflt - before)
print(json.dumps([seconds[1:], faults[1:], usage().ru_maxrss / 2**20]))
"""


@dataclass
class Trees:
    """Measure and write OUT.json and OUT.md."""

    trees: tyro.conf.Positional[tuple[Path, ...]]
    """Checkouts; the first one is what the others are compared with."""
    out: Path
    rounds: int = 3

    def __call__(self) -> None:
        record = Record(self.out, "A float32 training step of several versions", rounds=self.rounds)
        times: dict[str, list[float]] = {}
        for _ in range(self.rounds):
            for tree in self.trees:
                source = str(tree.resolve() / "src")
                commit = subprocess.check_output(["git", "-C", tree, "rev-parse", "--short", "HEAD"], text=True).strip()
                told = subprocess.check_output(
                    [sys.executable, "-W", "ignore", "-c", _STEPS],
                    env={**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"},
                )
                seconds, faults, gib = json.loads(told)
                times.setdefault(commit, []).append(median(seconds))
                first = next(iter(times.values()))
                record.add(
                    "step", version=commit, cpu_seconds=median(seconds), page_faults=median(faults), peak_gib=gib,
                    of_the_first=times[commit][-1] / first[-1],
                )  # fmt: skip


if __name__ == "__main__":
    tyro.cli(Trees)()
