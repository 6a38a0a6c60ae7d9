"""Callbacks during training. Terminal output, TensorBoard and your own code use the same interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from PIL import Image
from torch import Tensor

from unpaired.length import TrainingLength
from unpaired.methods.base import Method

Event = Literal["on_start", "on_step", "on_sample", "on_score", "on_checkpoint", "on_end"]
Ending = Literal["finished", "stopped", "failed"]
"""finished: at its full length. stopped: saved before that, by a signal or ``stop_after``. failed: by an error."""


@dataclass(frozen=True)
class Training:
    """The training, as passed to :meth:`Callback.on_start`.

    Attributes:
        run: Its folder.
        method: What is trained; read it, do not change it.
        length: In images.
        seen: Images seen when this session began; above 0 in a resumed run.
        settings: Every setting of the run by its dotted name, such as ``model.num_queries``.
    """

    run: Path
    method: Method
    length: TrainingLength
    seen: int
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Samples:
    """Example images, held out where there are such images, else of training, and their translations.

    Attributes:
        inputs: (n, C, H, W) in [-1, 1], as the networks see them.
        before: The inputs as pictures.
        averaged: Their translations by the averaged weights (EMA).
        last: Their translations by the live weights.
        grid: All of them in one picture.
    """

    inputs: Tensor
    before: list[Image.Image]
    averaged: list[Image.Image]
    last: list[Image.Image]
    grid: Image.Image


class Callback:
    """Base class of callbacks; each method does nothing unless a subclass overrides it.

    All are called in the first process, between two steps, and training waits for them. ``seen`` is the number of
    images seen so far, earlier sessions included.
    """

    def on_start(self, training: Training) -> None:
        """Before the first step of this session."""

    def on_step(self, seen: int, terms: Mapping[str, Tensor], record: Mapping[str, Any] | None) -> None:
        """After a step.

        Args:
            seen: Images seen.
            terms: Loss terms of this step, scalars on the device; reading one waits for the device.
            record: The line of ``log.jsonl`` where one was written at this step: ``terms`` are means over the images
                since the line before.
        """

    def on_sample(self, seen: int, samples: Samples) -> None:
        """After held-out examples were translated, every ``sample_every`` images."""

    def on_score(self, seen: int, weights: str, scores: Mapping[str, Mapping[str, Any]], best: bool) -> None:
        """After held-out images were scored with the averaged (``ema``) or the live (``last``) weights.

        Args:
            seen: Images seen.
            weights: Which weights.
            scores: Full name -> the score as plain values, ``value`` and ``label`` among them.
            best: Whether these are the best weights so far.
        """

    def on_checkpoint(self, seen: int, path: Path) -> None:
        """After a checkpoint was saved at ``path`` and the weights were exported."""

    def on_end(self, seen: int, ending: Ending) -> None:
        """At the end of this session, also where it failed."""


def tell(callbacks: Sequence[Callback], event: Event, *arguments: Any) -> None:
    """Call one method of each callback in turn."""
    assert event in get_args(Event)
    for callback in callbacks:
        getattr(callback, event)(*arguments)
