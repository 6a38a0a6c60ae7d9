"""``unpaired runs``: a list of run folders with their progress and last scores."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional, arg

from unpaired.cli.options import parse
from unpaired.errors import UserError
from unpaired.run_folder import find_runs, run_status

_LINES = 160
"""Width without a terminal."""
_SCORES = 3
"""Most scores in a line; 'unpaired compare' prints all."""


@dataclass(frozen=True)
class Runs:
    """List the run folders in a folder: method, data, images seen, the newest scores, and whether a run is finished,
    running or stopped (by the times of its files). 'unpaired recipes' lists the published experiments.

    Example: unpaired runs runs
    """

    folder: Positional[Annotated[Path, arg(metavar="[DIR]", help="Where to look, at any depth.")]] = Path("runs")


def main(argv: Sequence[str]) -> int:
    """Print a line for each run; return 1 where a run file cannot be read."""
    options = parse(Runs, argv, "unpaired runs")
    if not options.folder.is_dir():
        raise UserError(
            f"{options.folder}: there is no such folder; 'unpaired recipes' lists the published experiments"
        )
    found = find_runs(options.folder)
    if not found:
        print(f"{options.folder} holds no run folders (the --out of 'unpaired train').")
        return 0
    table, unreadable = Table(box=None, pad_edge=False), []
    for head in ("run", "method", "data", "images", "state", "last scores"):
        table.add_column(head, justify="right" if head == "images" else "left", overflow="fold")
    for run in found:
        try:
            status = run_status(run)
        except UserError as error:
            unreadable.append(str(error))
            continue
        images = f"{status.images_seen:,}" + ("" if status.total is None else f" of {status.total:,}")
        scores = ", ".join(f"{label} {value:.4g}" for label, value in list(status.scores.items())[:_SCORES])
        name = (run.relative_to(options.folder) if run != options.folder else run).as_posix()
        table.add_row(name, status.method, status.data, images, status.state, scores)
    Console(width=None if sys.stdout.isatty() else _LINES, highlight=False, markup=False).print(table)
    for words in unreadable:
        print(f"error: {words}", file=sys.stderr)
    return 1 if unreadable else 0
