"""Scores during training, and selection of the best weights, with a record of the score and images that decided."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from unpaired.engine.ema import EMA
from unpaired.engine.monitors import Monitor
from unpaired.errors import TrainingError
from unpaired.run_folder import append_line, cut_lines

Weights = Literal["ema", "last"]
_MARGIN = 0.02
"""Share of the inputs' score within which translations count as no different."""


class Scorer(Protocol):
    """What scores translations during training; the engine knows neither images nor metrics.

    Attributes:
        best_by: Full name of the score that decides which weights are best.
        label: Its name for people.
        lower_is_better: Its direction.
        chosen_on: Which images were scored, in words.
        images: How many translations are scored.
    """

    best_by: str
    label: str
    lower_is_better: bool
    chosen_on: str
    images: int

    def __call__(
        self, translate: Callable[[Tensor], Tensor], progress: Callable[[str, int, int], None]
    ) -> dict[str, dict[str, Any]]:
        """Score what ``translate`` makes of held-out images: full name -> plain values, ``value`` among them."""
        ...

    def of_the_inputs(self) -> float | None:
        """The score that decides, of the untranslated inputs; None where they cannot be scored."""
        ...


def verdict(label: str, made: float, inputs: float, *, lower_is_better: bool) -> str:
    """Whether translations beat the untranslated inputs, in a sentence; less than 2 % apart is no difference.

    Args:
        label: Of the score.
        made: Its value for the translations.
        inputs: Its value for their inputs.
        lower_is_better: Which way is better.
    """
    words = f"of the held-out images score {label} {made:.4g}, the untranslated images {inputs:.4g}"
    gain = (inputs - made) * (1 if lower_is_better else -1)
    if gain > _MARGIN * abs(inputs):
        return f"The translations {words}: better than their inputs."
    compared = "no different from their inputs" if abs(gain) <= _MARGIN * abs(inputs) else "WORSE than their inputs"
    return (
        f"Warning: the translations {words}: {compared}. Look at the samples. If the domains are similar, raise the "
        "weight of the content terms (the quick recipe does so automatically); otherwise train longer."
    )


class Selection:
    """Scores averaged and live weights and chooses the best of all.

    File in the run folder: ``scores.jsonl``, one line per time and weights.

    Attributes:
        best: When, by which score and on which images weights were chosen, and these; None where the ones that were
            exported before are still the best. They are to be exported after the next checkpoint, so that a run that
            is killed in between finds them again in that checkpoint.
    """

    def __init__(
        self,
        run: Path,
        scorer: Scorer,
        ema: EMA,
        translate: Callable[[Tensor], Tensor],
        monitor: Monitor,
        tell: Callable[..., None],
    ) -> None:
        self._path = run / "scores.jsonl"
        self.best: tuple[dict[str, Any], dict[str, Tensor]] | None = None
        self._scorer, self._ema, self._monitor = scorer, ema, monitor
        self._translate, self._tell = translate, tell
        self._value: float | None = None
        self._floor: float | None = None
        self._averaged: float | None = None

    def measure_inputs(self) -> None:
        """Score the untranslated inputs, which the translations have to beat, and say so."""
        self._floor = self._scorer.of_the_inputs()
        if self._floor is not None:
            words = f"{self._scorer.label} {self._floor:.4g}"
            self._monitor.say(f"The untranslated held-out images score {words}: the baseline for the translations.")

    def judge(self) -> None:
        """Say whether the averaged weights, as scored last, beat the untranslated inputs."""
        if self._floor is None or self._averaged is None:
            return
        label, lower = self._scorer.label, self._scorer.lower_is_better
        self._monitor.say(verdict(label, self._averaged, self._floor, lower_is_better=lower))

    def restore(self, seen: int) -> None:
        """Forget what was scored after image ``seen``, from where training goes on with the weights of that image."""
        for entry in cut_lines(self._path, self._monitor.say, seen):
            with suppress(KeyError, TypeError, ValueError):  # scored by something else, or damaged
                if self._is_best(entry["scores"]):
                    own = entry["images_seen"] == seen
                    self.best = self._chosen(seen, entry["weights"]) if own else None

    def score(self, seen: int) -> None:
        """Score both weights, write the lines, note the weights if they are the best so far.

        Raises:
            TrainingError: A file cannot be written.
        """
        for weights in ("ema", "last"):
            started = time.perf_counter()
            with self._ema.applied() if weights == "ema" else nullcontext():
                scores = self._scorer(self._translate, self._monitor.scoring)
            entry = {
                "images_seen": seen,
                "weights": weights,
                "seconds": round(time.perf_counter() - started, 2),
                "chosen_on": self._scorer.chosen_on,
                "scores": scores,
            }
            best = self._is_best(scores)
            if weights == "ema":
                self._averaged = float(scores[self._scorer.best_by]["value"])
            if best:
                self.best = self._chosen(seen, weights)
            try:
                append_line(self._path, entry)
            except OSError as error:
                raise TrainingError(
                    f"cannot write the scores in {self._path.parent}: {error.strerror or error}"
                ) from error
            self._tell("on_score", seen, weights, scores, best)

    def _is_best(self, scores: dict[str, dict[str, Any]]) -> bool:
        value = float(scores[self._scorer.best_by]["value"])
        if not torch.isfinite(torch.tensor(value)):
            return False
        signed = value if self._scorer.lower_is_better else -value
        if self._value is not None and signed >= self._value:
            return False
        self._value = signed
        return True

    def _chosen(self, seen: int, weights: Weights) -> tuple[dict[str, Any], dict[str, Tensor]]:
        assert self._value is not None
        record = {
            "images_seen": seen,
            "weights": weights,
            "score": self._scorer.best_by,
            "value": self._value if self._scorer.lower_is_better else -self._value,
            "chosen_on": self._scorer.chosen_on,
            "images": self._scorer.images,
        }
        tensors = self._ema.weights() if weights == "ema" else self._ema.live_weights()
        return record, {key: value.detach().clone() for key, value in tensors.items()}
