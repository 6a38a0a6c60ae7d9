"""Carrying out a plan: every file whole or not there, several at a time, and nothing twice."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from unpaired.data.images import load_stored
from unpaired.errors import DataError
from unpaired.files import write_atomically
from unpaired.preparation.archives import Folder
from unpaired.preparation.changes import png
from unpaired.preparation.facts import ImageFacts, in_threads, inspect
from unpaired.preparation.plan import Item, Plan, Progress
from unpaired.preparation.record import begin, record_of

_STALE = 60.0
"""Seconds after which a piece of a file belongs to a preparation that was killed, on whatever machine."""


@dataclass
class Written:
    """What a preparation did."""

    facts: dict[str, ImageFacts] = field(default_factory=dict)
    """Path below the folder -> facts, of the files written or looked at now."""
    written: int = 0
    """Files written now."""
    there: int = 0
    """Files that were there already."""
    problems: list[str] = field(default_factory=list)
    """Images that are left out, and why, one line each."""
    seconds: float = 0.0


def write_plan(plan: Plan, out: Path, progress: Progress) -> Written:
    """Write every image of a plan below ``out``; files that are there already stay.

    Raises:
        DataError: ``out`` holds something else, or there is not enough room.
        OSError: A file cannot be written; what was written before stays, and the same call goes on.
    """
    start = time.monotonic()
    outputs = plan.outputs()
    finished = begin(plan, out)
    _sweep(out)
    for path in outputs:
        (out / path).parent.mkdir(parents=True, exist_ok=True)
    waiting = {path: item for path, item in outputs.items() if not os.path.lexists(out / path)}
    _check_room(out, waiting, link=bool(plan.settings.get("link")))
    done = Written(there=len(outputs) - len(waiting), problems=[problem.words for problem in plan.problems])
    for path in outputs.keys() - waiting.keys():
        item = outputs[path]
        if item.change is None and item.facts is not None:
            done.facts[path] = item.facts

    def make(entry: tuple[str, Item]) -> tuple[str, ImageFacts | DataError]:
        path, item = entry
        try:
            return path, _write(item, out / path, link=bool(plan.settings.get("link")))
        except DataError as error:
            return path, error

    for number, (path, result) in enumerate(in_threads(make, waiting.items()), 1):
        progress("writing images", number, len(waiting))
        if isinstance(result, DataError):
            done.problems.append(str(result))
        else:
            done.facts[path] = result
            done.written += 1
    if waiting or not finished:
        replace(record_of(plan), finished=True, left_out=done.problems).save(out)
    done.seconds = time.monotonic() - start
    return done


def _write(item: Item, path: Path, *, link: bool) -> ImageFacts:
    where = item.source.where(item.name)
    if link:
        assert isinstance(item.source, Folder)
        facts = item.facts or inspect(item.source.read(item.name), where)
        path.symlink_to((item.source.path / item.name).resolve())
        return facts
    content = item.source.read(item.name)
    if item.change is None:
        facts = item.facts or inspect(content, where)
    else:
        image = load_stored(io.BytesIO(content), where)
        try:
            content = png(item.change(image))
        except (ValueError, OSError) as error:
            raise DataError(f"{where}: cannot be scaled ({error}); save it as 8-bit RGB") from error
        facts = inspect(content, where)
    write_atomically(path, content)
    return facts


def _check_room(out: Path, waiting: dict[str, Item], *, link: bool) -> None:
    """Refuse copies that do not fit, before the first. Scaled images take an unknown part of the original's room."""
    if link:
        return
    needed = sum(item.source.sizes[item.name] for item in waiting.values() if item.change is None)
    free = shutil.disk_usage(out).free
    if needed > free:
        raise DataError(f"{out}: {needed / 2**30:.1f} GiB are to be written and {free / 2**30:.1f} GiB are free")


def _sweep(out: Path) -> None:
    """Remove pieces that a killed preparation left."""
    for path in _pieces(out):
        with contextlib.suppress(OSError):
            if _abandoned(path):
                path.unlink()


def _abandoned(path: Path) -> bool:
    """Whether nobody is writing a piece any more; its name ends in the number of the process that did."""
    process = path.name.split(".")[-2]
    if os.name == "posix" and process.isdecimal():
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            return True
    return time.time() - path.stat().st_mtime > _STALE


def _pieces(out: Path) -> Iterator[Path]:
    yield from out.glob(".*.tmp")
    yield from out.glob("*/.*.tmp")
    yield from out.glob("*/*/.*.tmp")
