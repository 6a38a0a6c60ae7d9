"""The loop over the slots: what is left to do, in order, one worker per slot, failures set aside."""

from __future__ import annotations

import dataclasses
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from unpaired.benchmarking.cells import Cell
from unpaired.benchmarking.matrix import EvaluationOptions
from unpaired.benchmarking.plan import Plan, Run
from unpaired.benchmarking.slots import Ended, Slot
from unpaired.benchmarking.state import Failures, Stage, stage_of
from unpaired.benchmarking.worker import Order
from unpaired.config import to_dict

_PAUSE = 0.2
"""Seconds between two looks at the workers."""


class Display(Protocol):
    """What shows a schedule to a person."""

    def say(self, words: str) -> None: ...

    def working(self, slot: int, name: str, run: Run | None) -> None: ...

    def idle(self, slot: int) -> None: ...

    def refresh(self, waiting: Sequence[Run]) -> None: ...


@dataclasses.dataclass
class Outcome:
    """How a schedule ended.

    Attributes:
        finished: Runs that were finished now.
        failed: Name -> why, for runs that failed now.
        interrupted: Whether a person ended it.
    """

    finished: list[Run] = dataclasses.field(default_factory=list)
    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    interrupted: bool = False


class Schedule:
    """Workers in all slots.

    Args:
        plan: What is to be done.
        slots: Devices.
        threads: CPU threads of each worker.
        lock: Descriptor of the benchmark's lock.
        display: Shows it.
        evaluate: How runs are scored.
    """

    def __init__(
        self, plan: Plan, slots: Sequence[str], threads: int, lock: int, display: Display, evaluate: EvaluationOptions
    ) -> None:
        self.plan, self.display, self.evaluate = plan, display, evaluate
        self.slots = [Slot(number, device, threads, plan.out, lock) for number, device in enumerate(slots)]
        self.failures = Failures(plan.out)

    def measure(self, cells: Sequence[Cell]) -> Outcome:
        """Measure the speed of cells, each in a slot of its own, and file it."""
        outcome = Outcome()
        by_name = {f"measure-{cell.name}": cell for cell in cells}
        orders = [
            (name, None, self._order(cell, cell.config.to_mapping(), self.plan.out / "measuring" / cell.name,
                                     self._measured(cell)))
            for name, cell in by_name.items()
        ]  # fmt: skip

        def end(name: str, slot: Slot, ended: Ended) -> None:
            cell = by_name[name]
            if ended.code == 0:
                seconds = json.loads(self._measured(cell).read_text(encoding="utf-8"))["seconds_per_image"]
                self._measured(cell).unlink()
                self.plan.keep(cell, seconds, slot.device)
                length = self.plan.length(cell)
                words = f": {length:,} images" if self.plan.matrix.budget.minutes is not None and length else ""
                self.display.say(f"{cell.name}: {seconds:.4g} seconds per image on {slot.device}{words}")
            else:
                outcome.failed[cell.name] = ended.words
                self.display.say(f"FAILED: measuring {cell.name}: {ended.words}")

        outcome.interrupted = self._work(orders, end)
        return outcome

    def train(self, runs: Sequence[Run], after: Callable[[Run], None]) -> Outcome:
        """Train and evaluate runs, going on where they are; ``after`` is called with each that is finished."""
        outcome = Outcome()
        by_name = {run.name: run for run in runs}
        orders = [(run.name, run, self._order(run.cell, run.config.to_mapping(), run.folder, None)) for run in runs]

        def end(name: str, slot: Slot, ended: Ended) -> None:
            run = by_name[name]
            if ended.code == 0 and stage_of(run, self.evaluate) is Stage.EVALUATED:
                self.failures.forget(run)
                outcome.finished.append(run)
                self.display.say(f"{run.name}: done in {ended.seconds / 60:.1f} minutes")
                after(run)
                return
            words = ended.words if ended.code else "it ended without the evaluation that was asked for"
            outcome.failed[run.name] = words
            if ended.code >= 0:  # one that was killed may well succeed when the same command is run again
                self.failures.keep(run, words)
            self.display.say(f"FAILED: {run.name}: {words} (all of it: {self.plan.out / 'logs' / run.name}.log)")

        outcome.interrupted = self._work(orders, end)
        return outcome

    def _measured(self, cell: Cell) -> Path:
        return self.plan.out / "measuring" / f"{cell.name}.json"

    def _order(self, cell: Cell, config: dict[str, Any], out: Path, measured: Path | None) -> Order:
        return Order(
            config, str(out), cell.data, "", to_dict(self.evaluate), None if measured is None else str(measured)
        )

    def _work(self, orders: Sequence[tuple[str, Run | None, Order]], end: Callable[[str, Slot, Ended], None]) -> bool:
        """Run all orders; returns whether a person interrupted."""
        waiting, at_work = list(orders), dict[int, str]()
        with _signals_are_ctrl_c():
            try:
                while waiting or at_work:
                    for slot in self.slots:
                        if (ended := slot.ended()) is not None:
                            self.display.idle(slot.number)
                            end(at_work.pop(slot.number), slot, ended)
                        if slot.idle and waiting:
                            name, run, order = waiting.pop(0)
                            at_work[slot.number] = name
                            slot.start(name, order)
                            self.display.working(slot.number, name, run)
                    self.display.refresh([run for _, run, _ in waiting if run is not None])
                    time.sleep(_PAUSE)
            except KeyboardInterrupt:
                self._stop(at_work, end)
                return True
            except BaseException:
                self._kill()
                raise
        return False

    def _stop(self, at_work: dict[int, str], end: Callable[[str, Slot, Ended], None]) -> None:
        """Let all workers save; what ends in the meantime still counts."""
        try:
            self.display.say("Stopping: the runs at work save and end (Ctrl-C again ends them at once).")
            for slot in self.slots:
                slot.ask_to_end()
            while at_work:
                for slot in self.slots:
                    if (ended := slot.ended()) is not None:
                        self.display.idle(slot.number)
                        name = at_work.pop(slot.number)
                        if not ended.stopped:
                            end(name, slot, ended)
                    elif slot.idle:  # interrupted before it was started
                        at_work.pop(slot.number, None)
                time.sleep(_PAUSE)
        except KeyboardInterrupt:
            self._kill()

    def _kill(self) -> None:
        for slot in self.slots:
            slot.kill()


@contextmanager
def _signals_are_ctrl_c() -> Iterator[None]:
    """A job manager's SIGTERM and a closed terminal end a schedule as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            if (number := getattr(signal, name, None)) is not None:
                previous[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
