"""``preparation.json``: what a folder was prepared from and how; the same command goes on, another is refused."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from unpaired.errors import DataError
from unpaired.files import write_atomically
from unpaired.preparation.plan import Plan

RECORD = "preparation.json"
_FORMAT = 1
_SAME = ("name", "settings", "sources", "classes")
"""What has to be equal for a preparation to go on."""


@dataclass(frozen=True)
class Record:
    """What ``preparation.json`` holds."""

    name: str
    """Of the set."""
    layout: str
    """two or domains."""
    classes: list[str]
    """What A and B are, or the domains."""
    settings: dict[str, Any]
    """Those of ``PrepareSettings`` that apply."""
    sources: list[dict[str, Any]]
    """File name, number of files and digest of the listing of each archive or folder."""
    finished: bool = False
    """All files are written."""
    left_out: list[str] = field(default_factory=list)
    """Images that could not be used, and why."""
    format: int = _FORMAT

    def save(self, folder: Path) -> None:
        """Write it."""
        write_atomically(folder / RECORD, (json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n").encode())


def record_of(plan: Plan) -> Record:
    """The record of a plan that is not carried out yet."""
    sources = [
        {"file": source.path.name, "files": len(source.sizes), "listing": source.listing()} for source in plan.sources
    ]
    problems = [problem.words for problem in plan.problems]
    return Record(plan.name, plan.kind, list(plan.classes), dict(plan.settings), sources, left_out=problems)


def load_record(folder: Path) -> Record | None:
    """The record in a folder, or ``None`` where there is none.

    Raises:
        DataError: It is damaged or of a newer version.
    """
    path = folder / RECORD
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != _FORMAT:
            raise DataError(f"{path}: was written by another version of unpaired; choose another folder")
        return Record(**found)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); delete it if the images beside it are all right") from error


def begin(plan: Plan, out: Path) -> bool:
    """Make the folder, or recognise what is there as the same preparation.

    Returns:
        Whether all its files are written already.

    Raises:
        DataError: It holds something else.
    """
    for source in plan.sources:
        here, there = out.resolve(), source.path.resolve()
        if here == there or there in here.parents:
            raise DataError(f"{out}: lies in what it is prepared from ({source.path}); choose another --out")
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file; choose another --out")
    new, old = record_of(plan), load_record(out) if out.is_dir() else None
    if old is None:
        holds = sorted(entry.name for entry in out.iterdir()) if out.is_dir() else []
        if holds:
            raise DataError(f"{out}: is not empty (holds {holds[0]}) and was not prepared here; choose another --out")
        out.mkdir(parents=True, exist_ok=True)
        new.save(out)
        return False
    different = [key for key in _SAME if _identity(getattr(old, key)) != _identity(getattr(new, key))]
    if different:
        key = different[0]
        words = {
            "sources": "from other files, or they have changed since",
            "settings": f"with other settings ({_settings(old.settings, new.settings)})",
        }.get(key, f"as {getattr(old, key)}, not {getattr(new, key)}")
        raise DataError(f"{out}: was prepared {words}; choose another --out, or delete it to begin anew")
    return old.finished


def _identity(value: Any) -> Any:
    """What two records have to agree on; archives may be renamed."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return sorted((source["listing"], source["files"]) for source in value)
    return value


def _settings(old: dict[str, Any], new: dict[str, Any]) -> str:
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return ", ".join(f"{key} {old.get(key)}, now {new.get(key)}" for key in changed)
