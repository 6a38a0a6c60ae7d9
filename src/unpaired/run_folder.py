"""The files of a run folder: one training at a time writes them, and anyone may read off them how far it is."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from unpaired.config import checked, load_yaml, stored
from unpaired.errors import TrainingError
from unpaired.files import (
    ignore,
    is_running,
    json_lines,
    open_file,
    owner_of_temporary,
    read_json,
    read_json_lines,
    write_atomically,
)

_QUIET_SECONDS = 120.0
"""A run that wrote nothing for so long, and for three intervals of its log, counts as stopped."""
_LOCK = (".lock", ".lock.json")
"""What the operating system locks, and who holds it."""
_WRITTEN = ("sessions.jsonl", "log.jsonl", "scores.jsonl", "samples", "checkpoints", "weights")


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold a run folder, made if missing, for one training; the operating system frees it however the process ends.

    Temporary files that processes left behind when they died are removed.

    Raises:
        TrainingError: Another training holds it; the message names that one.
        OSError: The folder cannot be written to.
    """
    from filelock import FileLock, Timeout  # its import takes longer than the listing of a person's runs

    run.mkdir(parents=True, exist_ok=True)
    lock, holder = (run / name for name in _LOCK)
    try:
        held = FileLock(lock, timeout=0).acquire()
    except Timeout:
        raise TrainingError(
            f"{run} is being trained by {_holder(holder)}; wait until that training ends, or choose another --out"
        ) from None
    with held:
        since = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        write_atomically(holder, json.dumps({"pid": os.getpid(), "host": platform.node(), "since": since}).encode())
        for path in (*run.glob(".*.tmp"), *run.glob("*/.*.tmp")):
            if (pid := owner_of_temporary(path)) is not None and (pid == os.getpid() or not is_running(pid)):
                path.unlink(missing_ok=True)
        yield


def _holder(file: Path) -> str:
    try:
        found = read_json(file)
        return f"process {found['pid']} on {found['host']} since {found['since']}"
    except (OSError, ValueError, KeyError, TypeError):  # that one is about to write it
        return "another process"


def is_unfinished_start(run: Path, files: tuple[str, ...]) -> bool:
    """Whether a folder without ``run.yaml`` holds nothing but what a training that was killed at its start leaves."""
    return not run.is_dir() or all(
        path.name in (*_LOCK, *files) or owner_of_temporary(path) is not None for path in run.iterdir()
    )


def append_line(path: Path, record: dict[str, Any]) -> None:
    """Append a line to a JSON Lines file and fsync it; an incomplete last line, left by a crash, is terminated first.

    Raises:
        OSError: It cannot be written to, or is no file.
    """
    with open_file(path, "a+b") as file:
        torn = b""
        if file.tell():
            file.seek(-1, os.SEEK_END)
            torn = b"\n" if file.read() != b"\n" else b""
        file.write(torn + json.dumps(record, allow_nan=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def cut_lines(path: Path, say: Callable[[str], object], seen: int | None = None) -> list[dict[str, Any]]:
    """Bring a JSON Lines file back to image ``seen`` (unset: as far as it goes), every line of it whole.

    Args:
        path: The file.
        say: Called with one sentence per line that is dropped because it is damaged.
        seen: Lines whose ``images_seen`` is greater are dropped as well.

    Returns:
        The lines that are left.
    """
    kept = []
    for where, entry in read_json_lines(path, say):
        found = entry.get("images_seen")
        if seen is None or (type(found) is int and found <= seen):
            kept.append(entry)
        elif type(found) is not int:
            say(f"{where} is skipped: its images_seen is not a whole number")
    content = "".join(f"{json.dumps(entry)}\n" for entry in kept).encode()
    if path.exists() and path.read_bytes() != content:
        write_atomically(path, content)
    return kept


@stored
class GitState:
    """Of the package's folder, where that is a checkout."""

    commit: str | None = None
    changed: str | None = None


@stored
class SessionRecord:
    """One line of ``sessions.jsonl``; those of earlier versions hold less."""

    time: str = ""
    """When it began, in UTC."""
    command: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    git: GitState = field(default_factory=GitState)
    threads: int | None = None
    cuda: str | None = None
    """Name of the GPU."""
    images: list[int] | None = None
    """Numbers of training images, by domain."""
    files_digest: str | None = None
    """Of their names."""
    files_checked: str | None = None
    """Of names, sizes and times of the files that were decoded."""
    skipped: frozenset[str] = frozenset()
    """Damaged files that were left out, ``folder/name``."""
    transform: str | None = None
    """Digest of the code of the user's transform."""


def read_sessions(run: Path, say: Callable[[str], object] = ignore) -> list[SessionRecord]:
    """The sessions of a run, oldest first; damaged lines are skipped, and told to ``say``."""
    found = []
    for where, entry in read_json_lines(run / "sessions.jsonl", say):
        try:
            found.append(checked(SessionRecord, entry))
        except ValueError as error:
            say(f"{where} is skipped: {error}")
    return found


def first_digest(run: Path) -> str | None:
    """The digest of the names of the images when a run began; None where its record is lost."""
    return next((each.files_digest for each in read_sessions(run) if each.files_digest), None)


@stored
class BestRecord:
    """``weights/best.json``: how a run chose its best weights."""

    images_seen: int
    weights: Literal["ema", "last"]
    score: str
    """Full name of the score."""
    chosen_on: str = "held-out images"
    """The images, in words."""
    value: float | None = None


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
    total = total_images(config, read_sessions(run))
    if total is not None and seen >= total:
        state = "finished"
    else:
        silent = time.time() - max([0.0, *(path.stat().st_mtime for n in _WRITTEN if (path := run / n).exists())])
        state = "running" if silent < longest_silence(config, seconds_per_image(run)) else "stopped"
    places = _section(config, "dataset")
    found = [places.get(name) for name in ("folder", "domains", "source", "target")]
    return RunStatus(
        str(config.get("method", "?")), " -> ".join(str(place) for place in found if place), seen, total,
        _newest_scores(run), state,
    )  # fmt: skip


def longest_silence(config: dict[str, Any], seconds_per_image: float | None) -> float:
    """Seconds without a new line in the log after which a training is taken for stopped: three of its intervals."""
    every = _section(config, "training").get("log_every", 100)
    return max(_QUIET_SECONDS, 3 * (every if isinstance(every, int) else 100) * (seconds_per_image or 0.0))


def images_seen(run: Path) -> int:
    """Of the log and of the exported weights, whichever is more."""
    logged = [line.get("images_seen") for line in json_lines(run / "log.jsonl")[-1:]]
    return max([images_in_weights(run), *(seen for seen in logged if isinstance(seen, int))])


def images_in_weights(run: Path) -> int:
    """Images that the exported weights have seen; 0 where there are none. The description is written after them."""
    try:
        seen = read_json(run / "weights" / "model.json")["images_seen"]
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


def total_images(config: dict[str, Any], sessions: Sequence[SessionRecord]) -> int | None:
    """Images of a whole training: as set, extensions included; else the epochs times the images of one."""
    try:
        if config.get("extensions"):
            return int(config["extensions"][-1]["to"])
        if images := _section(config, "training").get("images"):
            return int(images)
        sizes = sessions[-1].images or []
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
