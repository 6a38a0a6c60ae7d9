"""What a person sees of a training run at the terminal and in its folder; and what ends it early."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column
from torch import Tensor

from unpaired.engine.announce import Pace
from unpaired.engine.callbacks import Callback, Ending, Samples, Training
from unpaired.engine.loss_log import peak_memory_gib
from unpaired.engine.processes import mean_over_processes
from unpaired.environment import STOP_SIGNALS
from unpaired.files import write_atomically
from unpaired.grids import png_bytes

if TYPE_CHECKING:
    from lightning_fabric import Fabric  # its import takes seconds where torchmetrics is installed

_UNCHANGED_AT_FIRST = 0.25
"""Share of training before which there is no warning of an unchanged input: some generators begin at the identity."""
_SMALLEST_CHANGE = 1.0
"""Mean change, in levels of 255, below which translations count as their inputs; rounding alone makes 0.25."""
_KEEPING = ("contrastive", "content", "structure", "cycle", "reconstruction", "identity")
"""Terms of the loss, the most important first, that keep translations similar to their inputs."""
_WORDS = {"ema": "average (EMA)", "last": "last"}
_ENDINGS = {"finished": "Finished", "stopped": "Stopped and saved"}


class StopSignal:
    """Ctrl-C, SIGTERM and SIGHUP ask for a clean end after the current step; a second Ctrl-C ends at once.

    With several processes all of them agree on the step at which they end.

    Attributes:
        number: Of the signal; 0 before there was one.
    """

    def __init__(self, fabric: Fabric) -> None:
        self.number = 0
        self._fabric = fabric
        self._previous: dict[int, Any] = {}
        self._asked = 0

    def __enter__(self) -> StopSignal:
        for number in STOP_SIGNALS:
            if number not in (signal.SIGINT, signal.SIGTERM) and signal.getsignal(number) is signal.SIG_IGN:
                continue  # as nohup leaves SIGHUP
            try:
                self._previous[number] = signal.signal(number, self._handle)
            except ValueError:  # not the main thread: whoever runs us there has another way to stop
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.number and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number

    def requested(self) -> bool:
        """Whether to end now; the same answer in every process."""
        self._asked += 1
        if self._fabric.world_size > 1 and (self._fabric.device.type == "cpu" or self._asked % 16 == 0):
            # On an accelerator reading the vote waits for the device, so it is not taken at every step.
            vote = torch.tensor(float(self.number > 0), device=self._fabric.device)
            asked = mean_over_processes(vote, self._fabric).item() > 0
            self.number = self.number or (signal.SIGTERM if asked else 0)
            return asked
        return self.number > 0 and self._fabric.world_size == 1


class _Terminal:
    """A stream for people. When its terminal was closed, or what reads the pipe is gone, training goes on."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


class Monitor(Callback):
    """Progress, log and scores at the terminal, and ``samples/<images>.png`` in the run folder."""

    def __init__(self, fabric: Fabric, *, quiet: bool = False) -> None:
        self.fabric = fabric
        self.console = Console(file=cast(Any, _Terminal(sys.stderr)), quiet=quiet or not fabric.is_global_zero)
        self._bar: Progress | None = None

    def say(self, message: str) -> None:
        """Print one line for the person at the terminal."""
        self.console.print(message, highlight=False, soft_wrap=True)

    def on_start(self, training: Training) -> None:
        self._run, self._start_images, self._start_time = training.run, training.seen, time.perf_counter()
        seen, self._total = training.seen, training.length.total
        self._settings, self._unchanged = training.settings, False
        if seen:
            self.say(f"Continuing after {seen:,} of {self._total:,} images.")
        self._bar = Progress(
            BarColumn(bar_width=16),
            MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=2 * len(str(self._total)) + 1)),
            TextColumn("{task.fields[speed]}", table_column=Column(no_wrap=True, min_width=24)),
            TextColumn("ETA", table_column=Column(no_wrap=True, min_width=3)),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True, min_width=5)),
            TextColumn("{task.fields[losses]}", style="dim", table_column=Column(no_wrap=True, overflow="ellipsis")),
            console=self.console,
            disable=not self.console.is_terminal or self.console.quiet,
            refresh_per_second=4,
        )
        self._pace = Pace(self.say, seen, self._total, by_clock=self._bar.disable)
        self._task = self._bar.add_task("training", total=self._total, completed=seen, speed="", losses="")
        self._bar.start()

    def on_step(self, seen: int, terms: Mapping[str, Tensor], record: Mapping[str, Any] | None) -> None:
        assert self._bar is not None
        if not self._bar.disable:
            elapsed = time.perf_counter() - self._start_time
            speed = f"{(seen - self._start_images) / elapsed:.2f} images/s, {peak_memory_gib(self.fabric):.1f} GiB"
            self._bar.update(self._task, completed=seen, speed=speed)
        self._pace.step(seen)
        if record is None:
            return
        if not self._bar.disable:
            short = "  ".join(f"{name[:4]} {value:.2f}" for name, value in record["terms"].items())
            self._bar.update(self._task, losses=short)
        else:
            self._pace.printed()
            passed = time.perf_counter() - self._start_time
            left = (self._total - seen) * passed / max(1, seen - self._start_images)
            losses = "  ".join(f"{name} {value:.3f}" for name, value in record["terms"].items())
            self.say(
                f"{seen:>9,} / {self._total:,} images  {record['images_per_second'] or 0:.2f} images/s  "
                f"ETA {left / 60:.1f} min  {record['peak_memory_gib']:.1f} GiB  {losses}"
            )

    def on_sample(self, seen: int, samples: Samples) -> None:
        folder = self._run / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / f"{seen:09d}.png", png_bytes(samples.grid))

    def warn_of_unchanged(self, seen: int, change: float) -> None:
        """Say, once until it changes, that translations are their inputs; half precision has been seen to cause it."""
        unchanged = change < _SMALLEST_CHANGE and seen >= _UNCHANGED_AT_FIRST * self._total
        if unchanged and not self._unchanged:
            half = self._settings.get("training.precision", "32") != "32"
            weights = [f"{name}_weight" for name in _KEEPING if self._settings.get(f"model.{name}_weight")]
            lower = " or ".join(f"--{name.replace('_', '-')}" for name in weights[:2])
            advice = [
                *(["use --precision 32"] if half else []),
                *([f"lower {lower}"] if lower else []),
                "look whether both folders hold the same images",
            ]
            self.say(
                f"Warning: at image {seen:,} the translations differ from their inputs by {change:.2f} of 255 levels "
                f"on average: the generator returns its input. If it stays so, in a new run {', or '.join(advice)}."
            )
        self._unchanged = unchanged

    def scoring(self, what: str, done: int, total: int) -> None:
        """Show how far the scores are, in the place of the losses."""
        if self._bar is not None and not self._bar.disable:
            self._bar.update(self._task, losses=f"{what} {done}/{total}")

    def on_score(self, seen: int, weights: str, scores: Mapping[str, Mapping[str, Any]], best: bool) -> None:
        words = ", ".join(f"{score['label']} {float(score['value']):.4g}" for score in scores.values())
        self.say(f"Scores at image {seen:,}, {_WORDS[weights]}: {words}{' (best so far)' if best else ''}")

    def on_end(self, seen: int, ending: Ending) -> None:
        if self._bar is not None:
            self._bar.stop()
        if ending != "failed":
            minutes = (time.perf_counter() - self._start_time) / 60
            of = f"{seen:,} of {self._total:,} images"
            self.say(f"{_ENDINGS[ending]} after {of} ({minutes:.1f} minutes this time).")
