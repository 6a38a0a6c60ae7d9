"""How far the run in a folder is, read off its files: nothing is loaded or computed, and nothing there is changed."""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unpaired.config import load_yaml
from unpaired.files import json_lines

_QUIET_SECONDS = 120.0
"""A run that wrote nothing for so long, and for three intervals of its log, counts as stopped."""
_WRITTEN = ("sessions.jsonl", "log.jsonl", "scores.jsonl", "samples", "checkpoints", "weights")


@dataclass(frozen=True)
class RunStatus:
    """How far a run is.

    Attributes:
        method: A key of ``METHODS``.
        data: Its training images: a folder, or two.
        images_seen: Of the log and of the exported weights, whichever is more.
        total: Images of the whole training; ``None`` where the folder does not say.
        scores: Label -> value of the newest evaluation, else of the newest scores of training.
        state: ``finished``, ``running`` or ``stopped``; the last two by the times of its files.
    """

    method: str
    data: str
    images_seen: int
    total: int | None
    scores: dict[str, float]
    state: str


def run_status(run: str | Path) -> RunStatus:
    """Read a run folder. Raises ``ConfigError`` where its ``run.yaml`` cannot be read."""
    run = Path(run)
    config, seen = load_yaml(run / "run.yaml"), images_seen(run)
    total = _total(config, json_lines(run / "sessions.jsonl"))
    if total is not None and seen >= total:
        state = "finished"
    else:
        interval = _section(config, "training").get("log_every", 100) * (seconds_per_image(run) or 0.0)
        silent = time.time() - max([0.0, *(path.stat().st_mtime for n in _WRITTEN if (path := run / n).exists())])
        state = "running" if silent < max(_QUIET_SECONDS, 3 * interval) else "stopped"
    places = _section(config, "dataset")
    found = [places.get(name) for name in ("folder", "domains", "source", "target")]
    return RunStatus(
        str(config.get("method", "?")), " -> ".join(str(place) for place in found if place), seen, total,
        _newest_scores(run), state,
    )  # fmt: skip


def images_seen(run: Path) -> int:
    """Of the log and of the exported weights, whichever is more."""
    logged = [line.get("images_seen") for line in json_lines(run / "log.jsonl")[-1:]]
    return max([images_in_weights(run), *(seen for seen in logged if isinstance(seen, int))])


def images_in_weights(run: Path) -> int:
    """Images that the exported weights have seen; 0 where there are none. The description is written after them."""
    try:
        seen = json.loads((run / "weights" / "model.json").read_text(encoding="utf-8"))["images_seen"]
    except (OSError, ValueError, KeyError, TypeError):
        return 0
    return seen if isinstance(seen, int) else 0


def seconds_per_image(run: Path) -> float | None:
    """Median of the log; ``None`` where it holds no speed."""
    found = [line.get("seconds_per_image") for line in json_lines(run / "log.jsonl")]
    known = [float(each) for each in found if isinstance(each, int | float) and each > 0]
    return statistics.median(known) if known else None


def _section(config: dict[str, Any], name: str) -> dict[str, Any]:
    found = config.get(name)
    return found if isinstance(found, dict) else {}


def _total(config: dict[str, Any], sessions: list[dict[str, Any]]) -> int | None:
    """As set, extensions included; else the epochs times the images of one."""
    try:
        if config.get("extensions"):
            return int(config["extensions"][-1]["to"])
        if images := _section(config, "training").get("images"):
            return int(images)
        sizes = sessions[-1]["images"]
        epoch = _section(config, "data").get("images_per_epoch") or max(sizes)
        if _section(config, "dataset").get("domains"):
            others = len(sizes) - 1
            epoch = -(-max(sizes) // others) * len(sizes) * others
        return int(config["model"]["optimiser"]["epochs"]) * epoch
    except (IndexError, KeyError, TypeError, ValueError, ZeroDivisionError):
        return None


def _newest_scores(run: Path) -> dict[str, float]:
    """Of the averaged weights where there are any."""
    for record in reversed(json_lines(run / "evaluations.jsonl")):
        rows = record.get("scores")
        if isinstance(rows, dict) and (row := next((rows[name] for name in ("ema", "last") if name in rows), None)):
            return _values(row)
    lines = json_lines(run / "scores.jsonl")
    found = [line for line in lines if line.get("weights") == "ema"] or lines
    return _values(found[-1].get("scores")) if found else {}


def _values(scores: Any) -> dict[str, float]:
    entries = [entry for entry in (scores.values() if isinstance(scores, dict) else ()) if isinstance(entry, dict)]
    return {str(entry.get("label")): entry["value"] for entry in entries if isinstance(entry.get("value"), int | float)}


def find_runs(folder: str | Path) -> list[Path]:
    """The run folders in ``folder``, at any depth, by name; a run holds no others."""
    folder = Path(folder)
    if (folder / "run.yaml").is_file():
        return [folder]
    inner = sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
    return [run for path in inner if not path.name.startswith(".") for run in find_runs(path)]
