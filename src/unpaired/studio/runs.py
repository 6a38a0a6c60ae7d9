"""The runs that a studio shows: each loaded once, used by one request at a time."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from unpaired.errors import ConfigError
from unpaired.inference import InferencePrecision, Translator

Weights = Literal["ema", "last", "best"]
_USUAL_TAPS = ("block1", "block5")


@dataclass(frozen=True)
class StudioRun:
    """One run.

    Attributes:
        name: What the page calls it.
        path: Its folder.
        translator: Its weights; ``None`` for a training that has not saved any yet.
        live: Whether the folder has records of a training, and not weights alone.
        lock: Held while the translator works.
    """

    name: str
    path: Path
    translator: Translator | None
    live: bool
    lock: threading.Lock = field(default_factory=threading.Lock, compare=False)

    @property
    def supports(self) -> frozenset[str]:
        """PageRequest that its method knows: reverse, style, domain."""
        return self.translator.method.supports if self.translator else frozenset()

    @property
    def title(self) -> str:
        """The name of its method."""
        return self.translator.method.title if self.translator else "training, without weights so far"

    @property
    def taps(self) -> tuple[str, ...]:
        """Places of the encoder to look at: where it selects by significance, else the paper's."""
        if self.translator is None:
            return ()
        return tuple(self.translator.description["model"].get("attention_taps", ()))[-3:] or _USUAL_TAPS


def open_runs(
    paths: Sequence[Path], weights: Weights = "ema", device: str = "auto", precision: InferencePrecision = "32"
) -> tuple[StudioRun, ...]:
    """Load the weights of all runs.

    Args:
        paths: Run folders, or folders with weights alone.
        weights: The averaged weights, those of the last step, or those that scored best.
        device, precision: As of ``Translator.from_pretrained``.

    Raises:
        ConfigError: A run is named twice, or is not one of 8-bit pictures.
        CheckpointError: A folder is no run.
        BackendError: The device is not on this machine.
    """
    seen: set[Path] = set()
    for path in paths:
        if path.resolve() in seen:
            raise ConfigError(f"{path} is named twice; name each run once")
        seen.add(path.resolve())
    names = run_names(paths)
    return tuple(_open(path, name, weights, device, precision) for path, name in zip(paths, names, strict=True))


def _open(path: Path, name: str, weights: Weights, device: str, precision: InferencePrecision) -> StudioRun:
    live = (path / "run.yaml").is_file()
    if live and not (path / "weights" / "model.json").exists():
        return StudioRun(name, path, None, live)
    translator = Translator.from_pretrained(path, weights=weights, device=device, precision=precision)
    if translator.channels not in (1, 3):
        raise ConfigError(
            f"{path} takes images with {translator.channels} channels, but the studio shows 8-bit pictures only "
            "(gray or RGB); use 'unpaired translate'"
        )
    return StudioRun(name, path, translator, live)


def run_names(paths: Sequence[Path]) -> list[str]:
    """The folders' names, with as much of the path before them as tells them apart.

    >>> run_names([Path("a/run"), Path("b/run")])
    ['a/run', 'b/run']
    """
    full = [path.resolve() for path in paths]
    for count in range(1, 4):
        names = ["/".join(path.parts[-count:]) for path in full]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]
