"""The runs that a studio shows: each used by one request at a time, its weights read again when there are new ones."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from unpaired.errors import CheckpointError, ConfigError
from unpaired.inference import InferencePrecision, Translator

Weights = Literal["ema", "last", "best"]
_USUAL_TAPS = ("block1", "block5")


class StudioRun:
    """One run.

    Attributes:
        name: What the page calls it.
        path: Its folder; of a model of the package or the Hub, its name.
        live: Whether the folder has records of a training, and not weights alone.
        lock: Held while the translator works or is read.

    Raises:
        ConfigError: It is not one of 8-bit pictures.
        CheckpointError: It is no run.
        BackendError: The device is not on this machine.
    """

    def __init__(
        self,
        name: str,
        path: str | Path,
        weights: Weights = "ema",
        device: str = "auto",
        precision: InferencePrecision = "32",
    ) -> None:
        self.name, self.path = name, Path(path)
        self.live = (self.path / "run.yaml").is_file()
        self.lock = threading.RLock()
        self._source, self._options = str(path), (weights, device, precision)
        self._translator: Translator | None = None
        self._read: object = None
        if not self.live or self._written():
            self._load()

    def _written(self) -> tuple[tuple[str, int, int], ...]:
        """Names, times and sizes of the files of weights."""
        folder = self.path / "weights" if self.live else self.path
        found = []
        with contextlib.suppress(OSError):  # they are being replaced
            for file in sorted(folder.glob("*")):
                found.append((file.name, file.stat().st_mtime_ns, file.stat().st_size))
        return tuple(found)

    def _load(self) -> None:
        written = self._written()
        weights, device, precision = self._options
        translator = Translator.from_pretrained(self._source, weights=weights, device=device, precision=precision)
        if translator.channels not in (1, 3):
            raise ConfigError(
                f"{self.path} takes images with {translator.channels} channels, but the studio shows 8-bit pictures "
                "only (gray or RGB); use 'unpaired translate'"
            )
        self._translator, self._read = translator, written

    @property
    def translator(self) -> Translator | None:
        """The newest weights that can be read; ``None`` while a training has not saved any."""
        with self.lock:
            written = self._written()
            if written and written != self._read:
                with contextlib.suppress(CheckpointError):  # half of them is written: the ones before serve
                    self._load()
            return self._translator

    @property
    def supports(self) -> frozenset[str]:
        """What its method knows of a request: reverse, style, domain."""
        return self._translator.method.supports if self._translator else frozenset()

    @property
    def domains(self) -> tuple[str, ...]:
        """Domains to translate into, where its method has several."""
        return tuple(self._translator.method.domains) if self._translator else ()

    @property
    def title(self) -> str:
        """The name of its method."""
        return self._translator.method.title if self._translator else "training, without weights so far"

    @property
    def taps(self) -> tuple[str, ...]:
        """Places of the encoder to look at: where it selects by significance, else the paper's."""
        if self._translator is None:
            return ()
        return tuple(self._translator.description["model"].get("attention_taps", ()))[-3:] or _USUAL_TAPS


def open_runs(
    paths: Sequence[str | Path], weights: Weights = "ema", device: str = "auto", precision: InferencePrecision = "32"
) -> tuple[StudioRun, ...]:
    """Load the weights of all runs.

    Args:
        paths: Run folders, folders of weights alone or of several runs, names of models of the package or the Hub.
        weights: The averaged weights, those of the last step, or those that scored best.
        device, precision: As of ``Translator.from_pretrained``.

    Raises:
        ConfigError: A run is named twice, or is not one of 8-bit pictures.
        CheckpointError: A folder is no run.
        BackendError: The device is not on this machine.
    """
    runs = [run for path in paths for run in _runs_in(path)]
    seen: set[Path] = set()
    for run in runs:
        if (place := Path(run).resolve()) in seen:
            raise ConfigError(f"{run} is named twice; name each run once")
        seen.add(place)
    return tuple(
        StudioRun(name, run, weights, device, precision) for name, run in zip(run_names(runs), runs, strict=True)
    )


def _runs_in(path: str | Path) -> list[str | Path]:
    """The run itself, or those that a folder of runs holds."""
    folder = Path(path)
    if not any((folder / name).exists() for name in ("run.yaml", "model.json", "weights/model.json")):
        inside = {file.parent for file in folder.glob("*/run.yaml")}
        inside |= {file.parents[1] for file in folder.glob("*/weights/model.json")}
        if inside:
            return sorted(inside)
    return [path]


def run_names(paths: Sequence[str | Path]) -> list[str]:
    """The folders' names, with as much of the path before them as tells them apart.

    >>> run_names([Path("a/run"), Path("b/run")])
    ['a/run', 'b/run']
    """
    full = [Path(path).resolve() for path in paths]
    for count in range(1, 4):
        names = ["/".join(path.parts[-count:]) for path in full]
        if len(set(names)) == len(names):
            return names
    return [Path(path).as_posix() for path in paths]
