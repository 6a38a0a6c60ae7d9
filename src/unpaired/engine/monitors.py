"""What a person sees of a training run: progress, the log, TensorBoard, sample grids; and what ends it early."""

from __future__ import annotations

import functools
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, cast

import torch
from pydantic import Field, TypeAdapter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column
from torch import Tensor

from unpaired.data import Batch, Formats, average_copies, pictures, preview_note, repeat_channels
from unpaired.engine.announce import Pace
from unpaired.engine.ema import EMA
from unpaired.engine.processes import mean_over_processes
from unpaired.environment import STOP_SIGNALS
from unpaired.errors import TrainingError
from unpaired.files import write_atomically
from unpaired.grids import image_grid, png_bytes
from unpaired.length import TrainingLength
from unpaired.methods.base import DEFAULT_REQUEST, Method, TranslateRequest
from unpaired.run_folder import append_line, cut_lines

if TYPE_CHECKING:
    from lightning_fabric import Fabric  # its import takes seconds where torchmetrics is installed

_UNCHANGED_AT_FIRST = 0.25
"""Share of training before which there is no warning of an unchanged input: some generators begin at the identity."""
_SMALLEST_CHANGE = 1.0
"""Mean change, in levels of 255, below which translations count as their inputs; rounding alone makes 0.25."""


def mean_difference(image: Tensor, other: Tensor) -> float:
    """Mean absolute difference, in levels of 255, of an image (C, H, W) and one that may go on to the right and below.

    Both are rounded to 8 bits first.
    """
    height, width = image.shape[-2:]
    levels = ((x.float().cpu().clamp(-1, 1) + 1).mul(127.5).round() for x in (image, other[..., :height, :width]))
    return float((next(levels) - next(levels)).abs().mean())


_Pair = Annotated[list[int | float], Field(min_length=2, max_length=2)]
_TERMS, _CHANGE = TypeAdapter(dict[str, list[_Pair]]), TypeAdapter(float | None)


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


class Monitor:
    """Collects loss terms without reading them, and every ``log_every`` images checks, averages and reports them.

    Files in the run folder: ``log.jsonl`` (one line per interval), ``tensorboard/``, ``samples/<images>.png``. What
    is not reported yet is state, so that a resumed run writes the very lines of an uninterrupted one.
    """

    def __init__(
        self,
        run: Path,
        fabric: Fabric,
        method: Method,
        ema: EMA,
        log_every: int,
        examples: Tensor,
        formats: Formats,
        *,
        autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
        request: TranslateRequest = DEFAULT_REQUEST,
        quiet: bool = False,
    ) -> None:
        self.run = run
        self._autocast = autocast
        self.fabric = fabric
        # A method that supports no field of a request need not take one.
        self._made = (
            method.translate if request is DEFAULT_REQUEST else functools.partial(method.translate, request=request)
        )
        self._formats = formats
        self.ema = ema
        self.log_every = log_every
        self.examples = examples
        self.console = Console(file=cast(Any, _Terminal(sys.stderr)), quiet=quiet or not fabric.is_global_zero)
        self._new: dict[str, list[tuple[int, Tensor, int]]] = {}
        self._terms: dict[str, list[list[float]]] = {}
        self._change: float | None = None
        self._bar: Progress | None = None
        self._writer: Any = None

    def say(self, message: str) -> None:
        """Print one line for the person at the terminal."""
        self.console.print(message, highlight=False, soft_wrap=True)

    def state_dict(self) -> dict[str, Any]:
        """What was seen since the last line of the log, as of the last :meth:`check`."""
        return {"terms": self._terms, "change": self._change}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._terms = _TERMS.validate_python(state["terms"], strict=True)
        self._change = _CHANGE.validate_python(state["change"], strict=True)

    @contextmanager
    def progress(self, seen: int, length: TrainingLength) -> Iterator[None]:
        """Show progress from ``seen`` images to the end; the log is cut back to ``seen`` first."""
        self._start_images, self._start_time = seen, time.perf_counter()
        self._logged, self._logged_time, self._length = seen, self._start_time, length
        self._total = total = length.total
        if self.fabric.is_global_zero:
            cut_lines(self.run / "log.jsonl", self.say, seen)
            self._open_tensorboard(seen)
        if seen:
            self.say(f"Going on after {seen:,} of {total:,} images.")
        self._bar = Progress(
            BarColumn(bar_width=16),
            MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=2 * len(str(total)) + 1)),
            TextColumn("{task.fields[speed]}", table_column=Column(no_wrap=True, min_width=24)),
            TextColumn("ETA", table_column=Column(no_wrap=True, min_width=3)),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True, min_width=5)),
            TextColumn("{task.fields[losses]}", style="dim", table_column=Column(no_wrap=True, overflow="ellipsis")),
            console=self.console,
            disable=not self.console.is_terminal or self.console.quiet,
            refresh_per_second=4,
        )
        self._pace = Pace(self.say, seen, total, by_clock=self._bar.disable)
        self._task = self._bar.add_task("training", total=total, completed=seen, speed="", losses="")
        try:
            with self._bar:
                yield
        finally:
            if self._writer is not None:
                self._writer.finalize("success")

    def step(self, seen: int, batch: Batch, terms: dict[str, Tensor], learning_rate: float) -> None:
        """Note the terms of one step; every ``log_every`` images, check and report those of the interval."""
        for name, value in terms.items():
            self._new.setdefault(name, []).append((seen, value.detach() * batch.weight, batch.global_size))
        if self._bar is not None and not self._bar.disable:
            elapsed = time.perf_counter() - self._start_time
            speed = f"{(seen - self._start_images) / elapsed:.2f} images/s, {_peak_memory_gib(self.fabric):.1f} GiB"
            self._bar.update(self._task, completed=seen, speed=speed)
        self._pace.step(seen)
        before = seen - batch.global_size
        if seen // self.log_every > before // self.log_every or self._length.ends_between(before, seen):
            self._report(seen, learning_rate)

    def check(self, *, weights_are_finite: bool) -> None:
        """Refuse to go on, to draw or to save with a loss or a weight that is not finite.

        Raises:
            TrainingError: Naming the term and the image at which it first happened.
        """
        self._collect()
        if not weights_are_finite:
            raise TrainingError(self._not_finite("a network's weights are", "at this point"))

    def sample(self, seen: int) -> None:
        """Write ``samples/<images>.png``: inputs, translations by the averaged and by the live weights."""
        if not self.fabric.is_global_zero or len(self.examples) == 0:
            return
        source, target = self._formats
        averaged, last = self._translations(averaged=True), self._translations(averaged=False)
        if source.channels == target.channels:
            self._warn_if_the_input_comes_back(seen, self.examples, last)
        columns = {f"input{preview_note(source)}": pictures(list(self.examples), source)}
        columns[f"average (EMA){preview_note(target)}"] = pictures(averaged, target)
        columns[f"last{preview_note(target)}"] = pictures(last, target)
        folder = self.run / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / f"{seen:09d}.png", png_bytes(image_grid(columns)))

    @torch.no_grad()
    def translate(self, x_BCHW: Tensor) -> Tensor:
        """Translate held-out images (B, c, H, W) in [-1, 1] with the weights that are in place now.

        They have the channels of their own domain, and what comes out those of the other one.
        """
        with self._autocast():
            return self._translate(x_BCHW.to(self.fabric.device)).float().clamp(-1, 1).cpu()

    def scoring(self, what: str, done: int, total: int) -> None:
        """Show how far the scores are, in the place of the losses."""
        if self._bar is not None and not self._bar.disable:
            self._bar.update(self._task, losses=f"{what} {done}/{total}")

    def scores(self, seen: int, weights: str, scores: dict[str, dict[str, Any]], *, best: bool) -> None:
        """Report the scores of one set of weights."""
        words = ", ".join(f"{score['label']} {float(score['value']):.4g}" for score in scores.values())
        self.say(f"Scores at image {seen:,}, {weights}: {words}{' (best so far)' if best else ''}")
        if self._writer is not None:
            self._writer.log_metrics(
                {f"score/{name}/{weights}": float(score["value"]) for name, score in scores.items()}, seen
            )

    def close(self, seen: int, *, finished: bool) -> None:
        """Say how it ended."""
        minutes = (time.perf_counter() - self._start_time) / 60
        state = "Finished" if finished else "Stopped and saved"
        self.say(f"{state} after {seen:,} of {self._total:,} images ({minutes:.1f} minutes this time).")

    def _translate(self, x_BCHW: Tensor) -> Tensor:
        """One batch through the networks, in the channels that these see."""
        counts = [pixels.channels for pixels in self._formats]
        return average_copies(self._made(repeat_channels(x_BCHW, max(counts))), counts[1])

    def _warn_if_the_input_comes_back(self, seen: int, inputs: Tensor, outputs: list[Tensor]) -> None:
        """Say so when translations are their inputs, which half precision has been seen to cause elsewhere."""
        change = sum(mean_difference(a, b) for a, b in zip(inputs, outputs, strict=True)) / len(outputs)
        self._change = round(change, 3)
        if change < _SMALLEST_CHANGE and seen >= _UNCHANGED_AT_FIRST * self._total:
            self.say(
                f"Warning: at image {seen:,} the translations differ from their inputs by {change:.2f} of 255 levels "
                "on average: the generator returns its input. "
                "With --precision bf16-mixed, try 32. If it stays so, lower --contrastive-weight, or look whether both "
                "folders hold the same images."
            )

    @torch.no_grad()
    def _translations(self, *, averaged: bool) -> list[Tensor]:
        device = self.fabric.device

        def run() -> list[Tensor]:
            with self._autocast():
                return [self._translate(x[None].to(device))[0].float().cpu() for x in self.examples]

        if not averaged:
            return run()
        with self.ema.applied():
            return run()

    def _report(self, seen: int, learning_rate: float) -> None:
        self._collect()
        means = {
            name: math.fsum(value * images for value, images in entries) / sum(images for _, images in entries)
            for name, entries in self._terms.items()
        }
        self._terms = {}
        now = time.perf_counter()
        seconds, images = now - self._logged_time, seen - self._logged
        self._logged, self._logged_time = seen, now
        if not self.fabric.is_global_zero:
            return
        record = {
            "images_seen": seen,
            "images_per_second": round(images / seconds, 4) if seconds > 0 else None,
            "seconds_per_image": round(seconds / images, 6) if images else None,
            "peak_memory_gib": round(_peak_memory_gib(self.fabric), 3),
            "change_from_input_levels": self._change,
            "learning_rate": learning_rate,
            "terms": means,
        }
        append_line(self.run / "log.jsonl", record)
        if self._writer is not None:
            self._writer.log_metrics({f"loss/{name}": value for name, value in means.items()}, seen)
            rates = {"images_per_second": record["images_per_second"], "peak_memory_gib": record["peak_memory_gib"]}
            self._writer.log_metrics({f"cost/{name}": value for name, value in rates.items()}, seen)
        losses = "  ".join(f"{name} {value:.3f}" for name, value in means.items())
        if self._bar is not None and not self._bar.disable:
            short = "  ".join(f"{name[:4]} {value:.2f}" for name, value in means.items())
            self._bar.update(self._task, losses=short)
        else:
            self._pace.printed()
            left = (self._total - seen) * (now - self._start_time) / max(1, seen - self._start_images)
            self.say(
                f"{seen:>9,} / {self._total:,} images  {images / seconds:.2f} images/s  "
                f"ETA {left / 60:.1f} min  {record['peak_memory_gib']:.1f} GiB  {losses}"
            )

    def _collect(self) -> None:
        """Read the terms of the steps since the last time, as means over the processes. Raises ``TrainingError``."""
        for name, entries in self._new.items():
            values = torch.stack([value for _, value, _ in entries]).float()
            values = mean_over_processes(values, self.fabric).cpu()
            bad = (~values.isfinite()).nonzero()
            if len(bad):
                seen = entries[int(bad[0])][0]
                raise TrainingError(self._not_finite(f"the loss term '{name}' is", f"at image {seen:,}"))
            self._terms.setdefault(name, []).extend(
                [value, images] for value, (_, _, images) in zip(values.tolist(), entries, strict=True)
            )
        self._new = {}

    def _not_finite(self, what: str, when: str) -> str:
        kept = sorted((self.run / "checkpoints").glob("checkpoint_*.pt"))
        last = f"the last good checkpoint is {kept[-1]}" if kept else "no checkpoint was saved yet"
        return (
            f"{what} not finite {when}, so training stopped; {last}. Lower --learning-rate, "
            "use --precision 32, or look for broken images; the same command goes on from that checkpoint"
        )

    def _open_tensorboard(self, seen: int) -> None:
        from lightning_fabric.loggers import TensorBoardLogger  # takes a second to import

        try:
            str(self.run.absolute()).encode()
        except UnicodeEncodeError:
            self.say("No tensorboard/ is written: TensorBoard knows only folders whose names are UTF-8.")
            return
        self._writer = TensorBoardLogger(
            root_dir=self.run, name="tensorboard", version="", purge_step=seen + 1 if seen else None
        )


def _peak_memory_gib(fabric: Fabric) -> float:
    """Peak memory of the device (CUDA) or of this process (otherwise), GiB; 0 where the system does not tell."""
    if fabric.device.type == "cuda":
        return torch.cuda.max_memory_allocated(fabric.device) / 2**30
    try:
        import resource
    except ImportError:  # Windows has no such module
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)
