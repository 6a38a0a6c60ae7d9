"""The log of a run: loss terms, collected without reading them, checked, averaged and written at intervals."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field, TypeAdapter
from torch import Tensor

from unpaired.data import Batch
from unpaired.engine.processes import mean_over_processes
from unpaired.errors import TrainingError
from unpaired.length import TrainingLength
from unpaired.run_folder import append_line, cut_lines

if TYPE_CHECKING:
    from lightning_fabric import Fabric  # its import takes seconds where torchmetrics is installed

_Pair = Annotated[list[int | float], Field(min_length=2, max_length=2)]
_TERMS, _CHANGE = TypeAdapter(dict[str, list[_Pair]]), TypeAdapter(float | None)


class LossLog:
    """Writes ``log.jsonl``, one line per ``every`` images.

    What is not reported yet is state, so that a resumed run writes the very lines of an uninterrupted one.

    Attributes:
        change: Mean difference of translations from their inputs at the newest samples, in levels of 255.
    """

    def __init__(self, run: Path, fabric: Fabric, every: int) -> None:
        self.change: float | None = None
        self._run, self._fabric, self._every = run, fabric, every
        self._new: dict[str, list[tuple[int, Tensor, int]]] = {}
        self._terms: dict[str, list[list[float]]] = {}

    def state_dict(self) -> dict[str, Any]:
        """What was seen since the last line of the log, as of the last :meth:`check`."""
        return {"terms": self._terms, "change": self.change}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._terms = _TERMS.validate_python(state["terms"], strict=True)
        self.change = _CHANGE.validate_python(state["change"], strict=True)

    def begin(self, seen: int, length: TrainingLength, say: Callable[[str], object]) -> None:
        """Cut the log back to ``seen`` images, from where training goes on."""
        self._logged, self._logged_time, self._length = seen, time.perf_counter(), length
        if self._fabric.is_global_zero:
            cut_lines(self._run / "log.jsonl", say, seen)

    def step(self, seen: int, batch: Batch, terms: dict[str, Tensor], learning_rate: float) -> dict[str, Any] | None:
        """Note the terms of one step; at the end of an interval check them, and write and return its line.

        Raises:
            TrainingError: A term of the interval is not finite.
        """
        for name, value in terms.items():
            self._new.setdefault(name, []).append((seen, value.detach() * batch.weight, batch.global_size))
        before = seen - batch.global_size
        if seen // self._every > before // self._every or self._length.ends_between(before, seen):
            return self._write(seen, learning_rate)
        return None

    def check(self, *, weights_are_finite: bool) -> None:
        """Refuse to go on, to draw or to save with a loss or a weight that is not finite.

        Raises:
            TrainingError: Naming the term and the image at which it first happened.
        """
        self._collect()
        if not weights_are_finite:
            raise TrainingError(self._not_finite("a network's weights are", "at this point"))

    def _write(self, seen: int, learning_rate: float) -> dict[str, Any]:
        self._collect()
        means = {
            name: math.fsum(value * images for value, images in entries) / sum(images for _, images in entries)
            for name, entries in self._terms.items()
        }
        self._terms = {}
        now = time.perf_counter()
        seconds, images = now - self._logged_time, seen - self._logged
        self._logged, self._logged_time = seen, now
        record = {
            "images_seen": seen,
            "images_per_second": round(images / seconds, 4) if seconds > 0 else None,
            "seconds_per_image": round(seconds / images, 6) if images else None,
            "peak_memory_gib": round(peak_memory_gib(self._fabric), 3),
            "change_from_input_levels": self.change,
            "learning_rate": learning_rate,
            "terms": means,
        }
        if self._fabric.is_global_zero:
            append_line(self._run / "log.jsonl", record)
        return record

    def _collect(self) -> None:
        """Read the terms of the steps since the last time, as means over the processes. Raises ``TrainingError``."""
        for name, entries in self._new.items():
            values = torch.stack([value for _, value, _ in entries]).float()
            values = mean_over_processes(values, self._fabric).cpu()
            bad = (~values.isfinite()).nonzero()
            if len(bad):
                seen = entries[int(bad[0])][0]
                raise TrainingError(self._not_finite(f"the loss term '{name}' is", f"at image {seen:,}"))
            self._terms.setdefault(name, []).extend(
                [value, images] for value, (_, _, images) in zip(values.tolist(), entries, strict=True)
            )
        self._new = {}

    def _not_finite(self, what: str, when: str) -> str:
        kept = sorted((self._run / "checkpoints").glob("checkpoint_*.pt"))
        last = f"the last good checkpoint is {kept[-1]}" if kept else "no checkpoint was saved yet"
        return (
            f"{what} not finite {when}, so training stopped; {last}. Begin a new run (another --out) with a lower "
            "--learning-rate or --precision 32; or, if images are broken, replace them and run the same command with "
            "--data-changed to continue from that checkpoint"
        )


def peak_memory_gib(fabric: Fabric) -> float:
    """Peak memory of the device (CUDA) or of this process (otherwise), GiB; 0 where the system does not tell."""
    if fabric.device.type == "cuda":
        return torch.cuda.max_memory_allocated(fabric.device) / 2**30
    try:
        import resource
    except ImportError:  # Windows has no such module
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)
