"""``unpaired benchmark``: methods x data x seeds from one file, resumable, with tables and pages at the end."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from unpaired.cli.options import RayAddress, parse


@dataclass(frozen=True)
class Benchmark:
    """Train and score methods x data sets x seeds from one file, and write tables and pages.

    Run the same command again after any interruption, or after adding contenders, data or seeds to the file. Runs are
    in OUT/runs, tables and pages in OUT/results, what the runs printed in OUT/logs.

    Example: unpaired benchmark benchmarks/matrices/similarities_64px.yaml --out runs/quick-benchmark
    """

    matrix: Positional[Annotated[Path, arg(metavar="MATRIX.yaml", help="What to compare; see benchmarks/matrices.")]]
    out: Path
    """Folder of the benchmark; an interrupted one is continued."""
    dry_run: bool = False
    """Print the runs, their lengths and the estimated time, and train nothing; speeds are measured if unknown."""
    only: tuple[str, ...] = ()
    """Patterns of contenders or runs (qs_attn*, *-seed0): work on these now."""
    slots: tuple[str, ...] = ()
    """Devices instead of the file's, one process each: cpu cpu, or cuda:0 cuda:1."""
    ray: RayAddress = None
    """Work on the Ray cluster at ADDRESS (host:port of its head), as many runs at a time as it has room for; without
    ADDRESS on the one that runs here. All its machines see OUT and the images at the same paths. The first slot says
    whether a run needs a GPU."""


def main(argv: Sequence[str]) -> int:
    """Run the benchmark; 0 all done, 1 some failed, 130 interrupted."""
    options = parse(Benchmark, argv, "unpaired benchmark")
    from unpaired.benchmarking.session import run_benchmark  # loads torch

    command = shlex.join(["unpaired", "benchmark", *argv])
    return run_benchmark(options.matrix, options.out, command, dry_run=options.dry_run, only=options.only,
                         slots=options.slots, ray=options.ray)  # fmt: skip
