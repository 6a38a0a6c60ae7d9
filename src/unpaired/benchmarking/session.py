"""One session of a benchmark: plan, measure speeds, train, score, write tables and pages."""

from __future__ import annotations

import fnmatch
import os
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.table import Table

from unpaired.benchmarking.matrix import Cell, check_slots, compose, load_matrix
from unpaired.benchmarking.ray_slots import RaySlots
from unpaired.benchmarking.results import write_pages, write_tables
from unpaired.benchmarking.runs import Plan, Run
from unpaired.benchmarking.workers import LocalSlots, WorkerExit, locked, measuring_order_of, order_of, work
from unpaired.cluster import ray_cluster, ray_workers
from unpaired.errors import ConfigError, UserError, nearest
from unpaired.evaluation import known_metrics
from unpaired.length import duration
from unpaired.run_folder import images_seen

_LINES = 110
_LINE_EVERY = 300.0
"""Seconds between two lines about progress."""


def run_benchmark(
    matrix_file: Path,
    out: Path,
    command: str,
    *,
    dry_run: bool = False,
    only: Sequence[str] = (),
    slots: Sequence[str] = (),
    ray: str | None = None,
) -> int:
    """Run or resume a benchmark; see ``unpaired benchmark --help``.

    Args:
        matrix_file: What to compare.
        out: The benchmark's folder.
        command: The command that reproduces this, for the pages.
        dry_run: Only print the runs and the estimated time.
        only: Patterns of contenders or runs to work on now; empty means all.
        slots: Devices instead of the file's.
        ray: Address of a Ray cluster to work on; None: this machine. The first slot says whether a run needs a GPU.

    Returns:
        Exit code: 0 all done, 1 some failed, 130 interrupted.

    Raises:
        UserError: The file or the folder cannot be used.
    """
    matrix = load_matrix(matrix_file)
    devices = slots or matrix.slots
    check_slots(devices)
    known_metrics(matrix.evaluate.metrics)
    cells, notes = compose(matrix, matrix_file)
    out = out.absolute()
    threads = matrix.threads or max(1, (os.cpu_count() or 1) // len(devices))
    with ExitStack() as stack:
        held = True
        try:
            stack.enter_context(locked(out))
        except ConfigError:
            if not dry_run:
                raise
            held = False  # another benchmark runs there: print what is known, measure nothing
        plan = Plan(matrix, cells, out)
        chosen = _chosen(plan, only)
        for words in notes:
            _say(f"note: {words}")
        for run in plan.runs():
            run.check_settings(change=False)  # before minutes of measuring
        places = LocalSlots(devices, threads, out / "logs", _say)
        if ray is not None:
            stack.enter_context(ray_cluster(ray))
            gpu = devices[0].startswith("cuda")
            room = ["cuda:0" if gpu else devices[0]] * ray_workers(threads, gpu)
            places = RaySlots(room, threads, out / "logs", _say)
        failed: dict[str, str] = {}
        if held and _measure(plan, places, chosen, failed, every=dry_run):
            return 130
        if dry_run:
            _print_plan(plan, places, Console(width=None if sys.stdout.isatty() else _LINES))
            return 1 if failed else 0
        for run in plan.runs():
            if words := run.check_settings():
                _say(f"note: {words}")
        shutil.copyfile(matrix_file, out / "matrix.yaml")
        interrupted = _train(plan, places, chosen, failed)
        return _finish(plan, failed, notes, command, interrupted=interrupted)


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _chosen(plan: Plan, patterns: Sequence[str]) -> set[str]:
    """Names of the runs that match a pattern. Raises ``ConfigError`` for a pattern without a match."""
    names = {plan.folder(cell, seed).name: cell for cell in plan.cells for seed in plan.matrix.seeds}
    found = set() if patterns else set(names)
    for pattern in patterns:
        fitting = {
            name for name, cell in names.items()
            if any(fnmatch.fnmatchcase(each, pattern) for each in (name, cell.contender))
        }  # fmt: skip
        if not fitting:
            hint = nearest(pattern, [*plan.matrix.contenders, *names])
            raise ConfigError(f"only: no contender or run matches '{pattern}'{hint}")
        found |= fitting
    return found


def _measure(plan: Plan, slots: LocalSlots, chosen: set[str], failed: dict[str, str], *, every: bool) -> bool:
    """Measure the speeds that lengths (with ``every``: also estimates) need; returns whether the user interrupted."""
    unknown = {
        f"measure-{cell.name}": cell for cell in plan.cells
        if (plan.images(cell) is None or (every and plan.seconds_per_image(cell) is None))
        and any(plan.folder(cell, seed).name in chosen for seed in plan.matrix.seeds)
    }  # fmt: skip
    if not unknown:
        return False
    _say(f"Measuring the speed of {len(unknown)} contender{'s' * (len(unknown) > 1)} for a moment.")

    def ended(name: str, how: WorkerExit) -> None:
        cell = unknown[name]
        if how.code == 0:
            plan.keep(cell, float(how.last_line))
            _say(f"{cell.name}: {plan.seconds_per_image(cell):.4g} seconds per image")
        elif not how.stopped:
            failed[cell.name] = f"its speed could not be measured: {how.words}"

    return work(slots, [measuring_order_of(cell) for cell in unknown.values()], ended, lambda: None)


def _train(plan: Plan, slots: LocalSlots, chosen: set[str], failed: dict[str, str]) -> bool:
    """Train and score the chosen runs that are not done; returns whether the user interrupted."""
    runs, options = plan.runs(), plan.matrix.evaluate
    left = [run for run in runs if run.record(options) is None]
    waiting = {run.name: run for run in left if run.name in chosen}
    orders = [order_of(run, options) for run in sorted(waiting.values(), key=lambda run: not run.trained)]
    done = len(runs) - len(left)
    _say(f"{len(runs)} runs: {done} done, {len(waiting)} to do now, one process each on {slots.words}.")
    told = time.monotonic()

    def ended(name: str, how: WorkerExit) -> None:
        if how.code == 0 and waiting[name].record(options) is not None:
            _say(f"{name}: done")
            _tables(plan)
        else:
            failed[name] = how.words if how.code else "it ended without the evaluation that was asked for"
            _say(f"FAILED: {name}: {failed[name]} (all of it: {plan.out / 'logs' / name}.log)")

    def look() -> None:
        nonlocal told
        if time.monotonic() - told > _LINE_EVERY:
            told = time.monotonic()
            _say(_progress(plan, list(waiting.values()), len(slots.devices)))

    return work(slots, orders, ended, look)


def _progress(plan: Plan, runs: Sequence[Run], devices: int) -> str:
    """The progress of the current runs and the estimated time left."""
    at_work = [
        f"{run.name} {seen:,}/{run.images:,}" for run in runs if 0 < (seen := images_seen(run.folder)) < run.images
    ]
    return f"about {duration(plan.seconds_left(runs) / devices)} left; {', '.join(at_work[:devices])}"


def _tables(plan: Plan) -> list[str]:
    """Write the tables; returns the error, if any, which is no reason to stop training."""
    try:
        write_tables(plan.matrix, plan.runs(), plan.out)
    except UserError as error:
        return [str(error)]
    return []


def _finish(plan: Plan, failed: dict[str, str], notes: Sequence[str], command: str, *, interrupted: bool) -> int:
    """Report the outcome and write tables and pages."""
    runs, out = plan.runs(), plan.out
    for name, words in failed.items():
        _say(f"failed: {name}: {words}")
    troubles, left = _tables(plan), [run for run in runs if run.record(plan.matrix.evaluate) is None]
    if not interrupted and not troubles and len(left) < len(runs):
        try:
            for page in write_pages(plan.matrix, runs, out, notes, command):
                print(f"{page}: open it in a browser; {page.parent / 'table.md'} has the table")
        except UserError as error:
            troubles.append(str(error))
    for words in troubles:
        _say(f"error: {words}")
    _say(
        f"{len(runs) - len(left)} of {len(runs)} runs are done"
        + ("; run the same command again to continue." if left else ".")
    )
    return 130 if interrupted else 1 if troubles or failed else 0


def _print_plan(plan: Plan, slots: LocalSlots, console: Console) -> None:
    """The runs, their lengths and the estimated time."""
    table = Table(title="Runs", title_justify="left")
    for head in ("contender", "data", "method", "images", "s/image", "run", "done", "left"):
        table.add_column(head, justify="left" if head in ("contender", "data", "method") else "right")
    runs, options = plan.runs(), plan.matrix.evaluate
    for cell in plan.cells:
        done = sum(run.cell is cell and run.record(options) is not None for run in runs)
        table.add_row(*_plan_row(plan, cell, done))
    console.print(table)
    waiting = [run for run in runs if not run.trained]
    total, words = plan.seconds_left(waiting), f"{len(runs)} runs, {len(waiting)} to train"
    if total:
        words += f": about {duration(total)} of training, {duration(total / len(slots.devices))} on {slots.words}"
    console.print(f"{words}. Scoring comes on top.", highlight=False, soft_wrap=True)


def _plan_row(plan: Plan, cell: Cell, done: int) -> list[str]:
    images, speed = plan.images(cell), plan.seconds_per_image(cell)
    return [
        cell.contender, cell.data, cell.config.method, "?" if images is None else f"{images:,}",
        "?" if speed is None else f"{speed:.3g}",
        "?" if speed is None or images is None else duration(speed * images), str(done),
        str(len(plan.matrix.seeds) - done),
    ]  # fmt: skip
