"""From the name of a set and its archives to a folder that training reads, and what is to be said about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unpaired.errors import ConfigError, DataError
from unpaired.preparation.archives import Folder, open_source
from unpaired.preparation.check import NEAR, Report, check_set
from unpaired.preparation.official import offer
from unpaired.preparation.plan import Plan, PrepareSettings, Progress
from unpaired.preparation.recipes import RECIPES, folder
from unpaired.preparation.write import Written, write_plan


@dataclass(frozen=True)
class Prepared:
    """A set that was written and checked."""

    plan: Plan
    written: Written
    report: Report


def prepare(
    what: str,
    archives: Sequence[Path],
    out: Path,
    settings: PrepareSettings,
    progress: Progress,
    *,
    near: int = NEAR,
) -> Prepared:
    """Write a set in a layout that training reads, and check it. What is there already from the same call stays.

    Args:
        what: A name of ``RECIPES``, or a folder (or archive) of images in subfolders.
        archives: The archives or unpacked folders of a named set; nothing is ever downloaded.
        out: New folder, empty folder, or one that the same call began.
        settings: What decides which files are written.
        progress: Told how far it is.
        near: See :func:`check_set`.

    Raises:
        ConfigError: An archive was not named, or a setting has no meaning for this set.
        DataError: An archive or ``out`` cannot be used.
        OSError: A file cannot be written; the same call goes on.
    """
    if what in RECIPES:
        if not archives:
            raise ConfigError(how_to_get(what))
        paths, recipe = list(archives), RECIPES[what]
    else:
        if archives:
            raise ConfigError(
                f"'{what}' is no set that is known ({', '.join(RECIPES)}), and a folder stands alone; {archives[0]} is "
                "too much"
            )
        paths, recipe = [Path(what)], folder
    for path in paths:
        if what in RECIPES and not path.exists():
            raise DataError(f"{path}: there is no such file or folder; {how_to_get(what)}")
    if what not in RECIPES and not paths[0].exists():
        raise DataError(f"{what}: is neither a folder nor a set that is known ({', '.join(RECIPES)})")
    sources = [open_source(path) for path in paths]
    if settings.link and not all(isinstance(source, Folder) for source in sources):
        raise ConfigError("link makes links to the files of a folder, and an archive has none; leave it out")
    plan = recipe(what, sources, settings, progress)
    written = write_plan(plan, out, progress)
    report = check_set(out, progress, known=written.facts, near=near)
    return Prepared(plan, written, report)


def how_to_get(name: str) -> str:
    """Where a person gets a set, and what to run then."""
    where = offer(name)
    files = " ".join(where.files)
    words = f" ({where.words})" if where.words else ""
    return (
        f"{name} needs {' and '.join(where.files)}, never downloaded for you: get it from {where.address}{words}, then "
        f"run 'unpaired data prepare {name} {files} --out DIR'"
    )
