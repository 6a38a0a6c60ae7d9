"""Where the results of ``unpaired translate`` go: names, what is there already, what must not be replaced."""

from __future__ import annotations

import errno
import glob
import os
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path

from unpaired.data import IMAGE_SUFFIXES, PixelFormat, can_hold, list_images
from unpaired.data.reading import describe
from unpaired.errors import ConfigError, DataError


def all_named(places: Sequence[str], recursive: bool) -> dict[Path, Path]:
    """Each image of all INPUTs once, whatever ways lead to it, and its name below the first that has it."""
    found: dict[Path, tuple[Path, Path]] = {}
    for place in places:
        for path, name in _named(place, recursive):
            found.setdefault(path.parent.resolve() / path.name, (path, name))
    return dict(found.values())


def _named(where: str, recursive: bool) -> Iterator[tuple[Path, Path]]:
    """The images that one INPUT names, and how each lies below it; links are not followed to find that out."""
    place = Path(where)
    if place.is_file():
        place = place.parent
    elif not place.is_dir():
        place = Path(*takewhile(lambda part: not glob.has_magic(part), place.parts))
    for path in list_images(where, recursive):
        relative = path.relative_to(place)
        yield path, Path(path.name) if ".." in relative.parts else relative


def result_name(path: Path, name: Path, kind: str) -> Path:
    """Name of the result of an image; ``kind`` is a file type or ``same``. Raises ``ConfigError`` for others."""
    if kind != "same":
        return name.with_suffix(f".{kind}")
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        describe(path)  # says what it is, where that is no image
        raise ConfigError(f"{path}: no image can be written under a name ending in '{path.suffix}'; use --format png")
    return name


def check_targets(pairs: Sequence[tuple[Path, Path]]) -> None:
    """Refuse to replace an input, by whatever links, and two results of one name."""
    inputs = {_identity(source): source for source, _ in pairs}
    taken: dict[Path, Path] = {}
    for source, target in pairs:
        replaced = inputs.get(_identity(target)) if target.exists() else None
        if replaced is not None:
            what = "it" if replaced == source else f"the input {replaced}"
            raise ConfigError(f"the translation of {source} would replace {what}; choose another --out")
        if target in taken:
            raise ConfigError(
                f"{taken[target]} and {source} would both become {target}; translate them with different --out folders"
            )
        taken[target] = source


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file it is, whatever its name."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def unfit(pairs: Sequence[tuple[Path, Path]], made: PixelFormat) -> dict[Path, str]:
    """Targets of a kind of file that cannot hold the results -> why not.

    Raises:
        ConfigError: None of the targets can.
    """
    found = {
        target: f"{source}: a {target.suffix} file cannot hold {made.words}, which this run makes; use --format tiff "
        "(or npy)"
        for source, target in pairs
        if not can_hold(target.suffix, made.dtype, made.channels)
    }
    if found and len(found) == len(pairs):
        raise ConfigError(next(iter(found.values())))
    return found


def existing(out: Path, targets: Sequence[Path], *, overwrite: bool, skip_existing: bool) -> set[Path]:
    """The results that need not be made again. Raises ``ConfigError`` where nobody said what to do about some."""
    there = set() if overwrite else {target for target in targets if os.path.lexists(target)}
    if there and not skip_existing:
        raise ConfigError(
            f"{len(there)} of {len(targets)} results are in {out} already (such as {min(there)}); "
            "--overwrite makes them again, --skip-existing makes only the others"
        )
    return there


def make_folder(out: Path) -> None:
    """Make the folder for results. Raises ``DataError`` where nothing can be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not os.access(out, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise DataError(f"cannot write to {out}: {error.strerror or error}; choose another --out") from error
