"""What a person sees of a benchmark at work: bars in a terminal, lines in a file."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from unpaired.benchmarking.plan import Plan, Run, log_records
from unpaired.benchmarking.state import images_in_weights

_LOOK_EVERY = 1.0
"""Seconds between two looks into the logs."""
_LINE_EVERY = 300.0
"""Seconds between two lines about the whole, where there is no terminal."""


class Progressing:
    """A bar for the whole and one per slot; events as lines above them. A context manager.

    Args:
        plan: For the speeds.
        slots: Devices.
        done: Runs that were finished before.
        total: Runs of the matrix.
    """

    def __init__(self, plan: Plan, slots: Sequence[str], done: int, total: int) -> None:
        self.plan, self.devices, self.done, self.total = plan, list(slots), done, total
        self.console = Console(stderr=True)
        self._runs: dict[int, Run | None] = {}
        self._names: dict[int, str] = {}
        self._looked = self._told = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[words]}"),
            console=self.console,
            disable=not self.console.is_terminal,
            refresh_per_second=2,
        )
        self._whole = self._bar.add_task("all runs", total=total, completed=done, words=f"{done}/{total}")
        self._tasks: dict[int, TaskID] = {
            number: self._bar.add_task(f"{number} {device}", total=1, words="idle")
            for number, device in enumerate(self.devices)
        }

    def __enter__(self) -> Progressing:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def say(self, words: str) -> None:
        """One line."""
        self.console.print(words, highlight=False, soft_wrap=True, markup=False)
        sys.stderr.flush()

    def working(self, slot: int, name: str, run: Run | None) -> None:
        """A worker was started."""
        self._runs[slot], self._names[slot] = run, name
        self._bar.update(self._tasks[slot], completed=0, total=run.images if run else 1, words=name)
        if not self.console.is_terminal:
            seen = 0 if run is None else _seen(run)
            what = f"going on after {seen:,} images" if seen else "begun"
            if run is not None and images_in_weights(run.folder) >= run.images:
                what = "evaluating"
            self.say(f"{name}: {what} on {self.devices[slot]}")

    def idle(self, slot: int) -> None:
        """A worker ended."""
        self._runs.pop(slot, None)
        self._names.pop(slot, None)
        self._bar.update(self._tasks[slot], completed=0, words="idle")

    def finished(self, count: int) -> None:
        """So many runs more are done."""
        self.done += count

    def refresh(self, waiting: Sequence[Run]) -> None:
        """Look how far the runs are, once in a while."""
        now = time.monotonic()
        if now - self._looked < _LOOK_EVERY:
            return
        self._looked = now
        seen = {slot: _seen(run) for slot, run in self._runs.items() if run is not None}
        whole = f"{self.done}/{self.total} runs{self._left(waiting, seen)}"
        if not self.console.is_terminal:
            if now - self._told >= _LINE_EVERY:
                self._told = now
                at = (f"{self._names[s]} {n:,}/{run.images:,}" for s, n in seen.items() if (run := self._runs[s]))
                self.say(f"{whole}; {', '.join(at)}")
            return
        self._bar.update(self._whole, completed=self.done, words=whole)
        for slot, images in seen.items():
            run = self._runs[slot]
            assert run is not None
            words = "evaluating" if images >= run.images else f"{images:,}/{run.images:,}"
            self._bar.update(self._tasks[slot], completed=images, words=f"{self._names[slot]} {words}")

    def _left(self, waiting: Sequence[Run], seen: dict[int, int]) -> str:
        seconds = seconds_left(self.plan, waiting)
        at_work = [(run, seen[slot]) for slot, run in self._runs.items() if run is not None]
        for run, images in at_work:
            each = self.plan.seconds_per_image(run.cell)
            seconds += (run.images - images) * (each if each is not None else typical_speed(self.plan) or 0.0)
        if not seconds:
            return ""
        return f", {duration(seconds / len(self.devices))} left"


def _seen(run: Run) -> int:
    logged = [record.get("images_seen") for record in log_records(run.folder)[-1:]]
    return max([images_in_weights(run.folder), *(seen for seen in logged if isinstance(seen, int))])


def typical_speed(plan: Plan) -> float | None:
    """Mean of the seconds per image that are known of the plan's cells."""
    known = [each for cell in plan.cells if (each := plan.seconds_per_image(cell)) is not None]
    return sum(known) / len(known) if known else None


def seconds_left(plan: Plan, runs: Sequence[Run]) -> float:
    """Training time of whole runs on one device; cells whose speed is unknown count as the mean of the others."""
    typical = typical_speed(plan) or 0.0
    speeds = {cell.name: plan.seconds_per_image(cell) for cell in {run.cell.name: run.cell for run in runs}.values()}
    return sum(run.images * (speed if (speed := speeds[run.cell.name]) is not None else typical) for run in runs)


def duration(seconds: float) -> str:
    """A time for people.

    >>> [duration(s) for s in (20, 600, 9000, 400_000)]
    ['20 s', '10 min', '2.5 h', '4.6 days']
    """
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 1.5 * length:
            value = seconds / length
            return f"{value:.1f} {unit}" if unit != "min" else f"{value:.0f} {unit}"
    return f"{seconds:.0f} s"
