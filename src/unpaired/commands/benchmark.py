"""``unpaired benchmark``: methods x data x seeds from one file, resumable, with tables and pages at the end."""

from __future__ import annotations

import fnmatch
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional, arg

from unpaired.benchmarking import (
    Matrix,
    Outcome,
    Plan,
    Run,
    Schedule,
    Stage,
    compose,
    load_matrix,
    locked,
    stage_of,
    write_reports,
    write_tables,
)
from unpaired.benchmarking.matrix import check_slots
from unpaired.benchmarking.progress import Progressing, duration, seconds_left
from unpaired.benchmarking.state import Failures, check_settings
from unpaired.errors import ConfigError, UserError, nearest
from unpaired.evaluation import known_metrics

_LINES = 110


@dataclass(frozen=True)
class Benchmark:
    """Train and score methods x data sets x seeds from one file, and put all of it into tables and pages.

    Run the same command again to go on after any interruption; the file may grow by contenders, data and seeds in the
    meantime. Runs lie in OUT/runs, tables and pages in OUT/results, what the runs printed in OUT/logs.
    """

    matrix: Positional[Annotated[Path, arg(metavar="MATRIX.yaml", help="What to compare; see benchmarks/matrices.")]]
    out: Path
    """Folder of the benchmark; goes on with what it holds."""
    dry_run: bool = False
    """Print the runs, their lengths and the estimated time, and train nothing; speeds are measured if unknown."""
    only: tuple[str, ...] = ()
    """Patterns of contenders or runs (qs_attn*, *-seed0): work on these now."""
    slots: tuple[str, ...] = ()
    """Devices instead of the file's, one process each: cpu cpu, or cuda:0 cuda:1."""
    retry: bool = False
    """Try runs again that failed before."""


def main(argv: Sequence[str]) -> int:
    """Plan, measure, train, score, write; 0 all done, 1 some failed, 130 interrupted."""
    options = tyro.cli(Benchmark, args=list(argv), prog="unpaired benchmark")
    matrix = load_matrix(options.matrix)
    slots = options.slots or matrix.slots
    check_slots(slots)
    known_metrics(matrix.evaluate.metrics)
    cells, notes = compose(matrix, options.matrix)
    out = options.out.absolute()
    command = shlex.join(["unpaired", "benchmark", *argv])
    with ExitStack() as stack:
        try:
            lock = stack.enter_context(locked(out, _say))
        except ConfigError:
            if not options.dry_run:
                raise
            lock = -1  # at work already: say what is known, measure nothing
        plan = Plan(matrix, cells, out)
        chosen = {cell.name for cell in cells} if not options.only else _chosen_cells(plan, options.only)
        for words in (*notes, *plan.notes):
            _say(f"note: {words}")
        threads = matrix.threads or max(1, (os.cpu_count() or 1) // len(slots))
        _check(plan, dry_run=True)  # before minutes of measuring
        if lock >= 0 and not _measure(plan, slots, threads, lock, chosen, every=options.dry_run):
            return 130
        if options.dry_run:
            _print_plan(plan, slots, Console(width=None if sys.stdout.isatty() else _LINES))
            return 0
        _check(plan)
        shutil.copyfile(options.matrix, out / "matrix.yaml")
        return _run(plan, slots, threads, lock, options, notes, command)


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _chosen_cells(plan: Plan, patterns: Sequence[str]) -> set[str]:
    """Names of cells that have a chosen run. Raises ``ConfigError`` where a pattern fits nothing."""
    found: set[str] = set()
    names = {plan.folder(cell, seed).name: cell for cell in plan.cells for seed in plan.matrix.seeds}
    for pattern in patterns:
        fitting = {cell.name for name, cell in names.items() if _fits(name, cell.contender, [pattern])}
        if not fitting:
            known = [*plan.matrix.contenders, *names]
            raise ConfigError(f"only: no contender and no run fits '{pattern}'{nearest(pattern, known)}")
        found |= fitting
    return found


def _fits(run: str, contender: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns for name in (run, contender))


def _check(plan: Plan, *, dry_run: bool = False) -> None:
    """Refuse runs that were made with other settings, all before any work is done."""
    for run in plan.runs():
        words = check_settings(run, change=not dry_run)
        if words and not dry_run:
            _say(f"note: {words}")


def _measure(plan: Plan, slots: Sequence[str], threads: int, lock: int, chosen: set[str], *, every: bool) -> bool:
    """Measure what is needed for lengths, with ``every`` also for an estimate; False where a person interrupted."""
    unknown = plan.unmeasured()
    if every:
        unknown = [cell for cell in plan.cells if plan.seconds_per_image(cell) is None or plan.length(cell) is None]
    cells = [cell for cell in unknown if cell.name in chosen]
    if not cells:
        return True
    _say(f"Measuring the speed of {len(cells)} contender{'s' * (len(cells) > 1)} for a moment.")
    with Progressing(plan, slots, 0, len(cells)) as display:
        outcome = Schedule(plan, slots, threads, lock, display, plan.matrix.evaluate).measure(cells)
    return not outcome.interrupted


def _run(
    plan: Plan, slots: Sequence[str], threads: int, lock: int, options: Benchmark, notes: Sequence[str], command: str
) -> int:
    matrix, runs, failures = plan.matrix, plan.runs(), Failures(plan.out)
    stages = {run.name: stage_of(run, matrix.evaluate) for run in runs}
    mine = [run for run in runs if not options.only or _fits(run.name, run.cell.contender, options.only)]
    waiting = [run for run in mine if stages[run.name] is not Stage.EVALUATED]
    if options.retry:
        for run in waiting:
            failures.forget(run)
    before = {run.name: words for run in waiting if (words := failures.words(run)) is not None}
    waiting = [run for run in waiting if run.name not in before]
    waiting.sort(key=lambda run: stages[run.name] is not Stage.TRAINED)  # scores of what is there come first
    done = len(runs) - len([run for run in runs if stages[run.name] is not Stage.EVALUATED])
    _say(f"{len(runs)} runs: {done} done, {len(waiting)} to do now, one process each on {', '.join(slots)}.")
    troubles: list[str] = []
    with Progressing(plan, slots, done, len(runs)) as display:

        def after(run: Run) -> None:
            display.finished(1)
            troubles[:] = _tables(matrix, runs, plan.out)

        outcome = Schedule(plan, slots, threads, lock, display, matrix.evaluate).train(waiting, after)
    unplanned = [
        cell.name for cell in plan.unmeasured() if not options.only or cell.name in _chosen_cells(plan, options.only)
    ]
    return _end(plan, runs, outcome, before, unplanned, notes, command)


def _tables(matrix: Matrix, runs: Sequence[Run], out: Path) -> list[str]:
    """Write the tables; what stands in their way is no reason to stop training."""
    try:
        write_tables(matrix, runs, out)
    except UserError as error:
        return [str(error)]
    return []


def _end(
    plan: Plan, runs: Sequence[Run], outcome: Outcome, before: dict[str, str], unplanned: Sequence[str],
    notes: Sequence[str], command: str,
) -> int:  # fmt: skip
    """Say how it ended and write what there is to see."""
    matrix, out = plan.matrix, plan.out
    stages = {run.name: stage_of(run, matrix.evaluate) for run in runs}
    code = 0
    for name, words in before.items():
        _say(f"failed before: {name}: {words} (--retry tries again)")
    for name, words in outcome.failed.items():
        _say(f"failed: {name}: {words}")
    for name in unplanned:
        _say(f"failed: {name}: its speed could not be measured, so it has no length yet; see {out / 'logs'}")
    if before or outcome.failed or unplanned:
        code = 1
    troubles = _tables(matrix, runs, out)
    if not outcome.interrupted and any(stage is Stage.EVALUATED for stage in stages.values()) and not troubles:
        try:
            for page in write_reports(matrix, runs, out, notes, command):
                print(f"{page}: open it in a browser; {page.parent / 'table.md'} has the table")
        except UserError as error:
            troubles.append(str(error))
    for words in troubles:
        _say(f"error: {words}")
    left = len([stage for stage in stages.values() if stage is not Stage.EVALUATED])
    _say(f"{len(runs) - left} of {len(runs)} runs are done" + ("; the same command goes on." if left else "."))
    if outcome.interrupted:
        return 130
    return 1 if troubles else code


def _print_plan(plan: Plan, slots: Sequence[str], console: Console) -> None:
    """What would be done, and how long it would take."""
    table = Table(title="Runs", title_justify="left")
    for head in ("contender", "data", "method", "images", "s/image", "run", "done", "left"):
        table.add_column(head, justify="left" if head in ("contender", "data", "method") else "right")
    runs = plan.runs()
    stages = {run.name: stage_of(run, plan.matrix.evaluate) for run in runs}
    waiting = [run for run in runs if stages[run.name] in (Stage.NEW, Stage.BEGUN)]
    for cell in plan.cells:
        own = [run for run in runs if run.cell is cell]
        length, speed = plan.length(cell), plan.seconds_per_image(cell)
        done = len([run for run in own if stages[run.name] is Stage.EVALUATED])
        left = len(plan.matrix.seeds) - done
        table.add_row(
            cell.contender, cell.data, cell.config.method, "?" if length is None else f"{length:,}",
            "?" if speed is None else f"{speed:.3g}",
            "?" if speed is None or length is None else duration(speed * length), str(done), str(left),
        )  # fmt: skip
    console.print(table)
    total = seconds_left(plan, waiting)
    words = f"{len(runs)} runs, {len(waiting)} to train"
    if total:
        words += f": about {duration(total)} of training, {duration(total / len(slots))} on {', '.join(slots)}"
    console.print(f"{words}. Scoring comes on top.", highlight=False, soft_wrap=True)
