"""Carrying out a plan: every file whole or not there, several at a time, and nothing twice.

``preparation.json`` says what a folder was prepared from and how; the same command goes on, another is refused.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unpaired.data.check import RECORD, RECORD_FORMAT, load_record
from unpaired.data.inspection import ImageInfo, Progress, in_threads, inspect
from unpaired.data.prepare_plan import Item, Plan
from unpaired.data.prepare_scale import SUFFIXES, Scaled, scaled
from unpaired.data.sources import Folder
from unpaired.errors import DataError
from unpaired.files import write_atomically

_SAME = ("name", "settings", "sources", "classes")
"""What has to be equal for a preparation to go on."""
_STALE = 60.0
"""Seconds after which a piece of a file belongs to a preparation that was killed, on whatever machine."""


@dataclass
class Written:
    """What a preparation did."""

    info: dict[str, ImageInfo] = field(default_factory=dict)
    """Path below the folder -> info, of the files written or looked at now."""
    written: int = 0
    """Files written now."""
    there: int = 0
    """Files that were there already."""
    problems: list[str] = field(default_factory=list)
    """Images that are left out, and why, one line each."""
    lost: Counter[str] = field(default_factory=Counter)
    """What has no place in the smaller images that were written now -> of how many."""
    seconds: float = 0.0


def write_plan(plan: Plan, out: Path, progress: Progress) -> Written:
    """Write every image of a plan below ``out``; files that are there already stay.

    Raises:
        DataError: ``out`` holds something else, or there is not enough room.
        OSError: A file cannot be written; what was written before stays, and the same call goes on.
    """
    start = time.monotonic()
    outputs = plan.outputs()
    finished = _begin(plan, out)
    _sweep(out)
    for path in outputs:
        (out / path).parent.mkdir(parents=True, exist_ok=True)
    waiting = {path: item for path, item in outputs.items() if not _exists(item, out / path)}
    _check_room(out, waiting, link=bool(plan.settings.get("link")))
    done = Written(there=len(outputs) - len(waiting), problems=list(plan.problems))
    for path in outputs.keys() - waiting.keys():
        item = outputs[path]
        if item.change is None and item.info is not None:
            done.info[path] = item.info

    def make(entry: tuple[str, Item]) -> tuple[str, ImageInfo, tuple[str, ...]] | DataError:
        path, item = entry
        try:
            suffix, info, lost = _write(item, out / path, link=bool(plan.settings.get("link")))
            return path + suffix, info, lost
        except DataError as error:
            return error

    for number, result in enumerate(in_threads(make, waiting.items()), 1):
        progress("writing images", number, len(waiting))
        if isinstance(result, DataError):
            done.problems.append(str(result))
        else:
            path, done.info[path], lost = result
            done.lost.update(lost)
            done.written += 1
    if waiting or not finished:
        _save(out, _record(plan) | {"finished": True, "left_out": done.problems})
    done.seconds = time.monotonic() - start
    return done


def _exists(item: Item, path: Path) -> bool:
    """Whether an item was written already; paths of what is made smaller lack the suffix."""
    suffixes = [""] if item.change is None else [*SUFFIXES, item.suffix]
    return any(os.path.lexists(f"{path}{suffix}") for suffix in suffixes)


def _write(item: Item, path: Path, *, link: bool) -> tuple[str, ImageInfo, tuple[str, ...]]:
    """Write one file.

    Returns:
        What was added to its name, what it holds, and what of the original has no place in it.
    """
    where = item.source.where(item.name)
    if link:
        assert isinstance(item.source, Folder)
        info = item.info or inspect(item.source.read(item.name), where)
        path.symlink_to((item.source.path / item.name).resolve())
        return "", info, ()
    content = item.source.read(item.name)
    if item.change is None or (made := scaled(content, where, item.change)) is None:
        made = Scaled(content, "" if item.change is None else item.suffix)
        info = item.info or inspect(content, where)
    else:
        info = inspect(made.content, where)
    write_atomically(Path(f"{path}{made.suffix}"), made.content)
    return made.suffix, info, made.lost


def _check_room(out: Path, waiting: dict[str, Item], *, link: bool) -> None:
    """Refuse copies that do not fit, before the first. Scaled images take an unknown part of the original's room."""
    if link:
        return
    needed = sum(item.source.sizes[item.name] for item in waiting.values() if item.change is None)
    free = shutil.disk_usage(out).free
    if needed > free:
        raise DataError(
            f"{out}: {needed / 2**30:.1f} GiB are to be written and {free / 2**30:.1f} GiB are free; "
            "make room, or choose another --out"
        )


def _sweep(out: Path) -> None:
    """Remove pieces that a killed preparation left."""
    for path in (piece for pattern in (".*.tmp", "*/.*.tmp", "*/*/.*.tmp") for piece in out.glob(pattern)):
        with contextlib.suppress(OSError):
            if _abandoned(path):
                path.unlink()


def _abandoned(path: Path) -> bool:
    """Whether the process that wrote a piece has ended; the piece's name ends in the number of the process that did."""
    process = path.name.split(".")[-2]
    if os.name == "posix" and process.isdecimal():
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            return True
    return time.time() - path.stat().st_mtime > _STALE


def _record(plan: Plan) -> dict[str, Any]:
    """``preparation.json`` of a plan that is not carried out yet."""
    return {
        "name": plan.name,
        "layout": plan.kind,
        "classes": list(plan.classes),
        "settings": dict(plan.settings),
        "sources": [
            {"file": source.path.name, "files": len(source.sizes), "listing": source.listing()}
            for source in plan.sources
        ],
        "finished": False,
        "left_out": list(plan.problems),
        "format": RECORD_FORMAT,
    }


def _save(out: Path, record: dict[str, Any]) -> None:
    write_atomically(out / RECORD, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())


def _begin(plan: Plan, out: Path) -> bool:
    """Make the folder, or recognise what is there as the same preparation.

    Returns:
        Whether all its files are written already.

    Raises:
        DataError: It holds something else.
    """
    for source in plan.sources:
        here, there = out.resolve(), source.path.resolve()
        if here == there or there in here.parents:
            raise DataError(f"{out}: lies in the folder that it is prepared from ({source.path}); choose another --out")
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file; choose another --out")
    new, old = _record(plan), load_record(out) if out.is_dir() else None
    if old is None:
        holds = sorted(entry.name for entry in out.iterdir()) if out.is_dir() else []
        if holds:
            raise DataError(f"{out}: is not empty (holds {holds[0]}) and was not prepared here; choose another --out")
        out.mkdir(parents=True, exist_ok=True)
        _save(out, new)
        return False
    different = [key for key in _SAME if _identity(old[key]) != _identity(new[key])]
    if different:
        key = different[0]
        words = {
            "sources": "from other files, or they have changed since",
            "settings": f"with other settings ({_changed_settings(old['settings'], new['settings'])})",
        }.get(key, f"as {old[key]}, not {new[key]}")
        raise DataError(f"{out}: was prepared {words}; choose another --out")
    return bool(old["finished"])


def _identity(value: Any) -> Any:
    """What two records have to agree on; archives may be renamed."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return sorted((source["listing"], source["files"]) for source in value)
    return value


def _changed_settings(old: dict[str, Any], new: dict[str, Any]) -> str:
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return ", ".join(f"{key} {old.get(key)}, now {new.get(key)}" for key in changed)
