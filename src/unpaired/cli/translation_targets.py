"""Where the results of ``unpaired translate`` go: names, what is there already, what must not be replaced."""

from __future__ import annotations

import errno
import glob
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

from unpaired.data import IMAGE_SUFFIXES, PixelFormat, list_images
from unpaired.data.reading import describe
from unpaired.errors import ConfigError, DataError
from unpaired.inference.batch import misfit
from unpaired.inference.video import VIDEO_SUFFIXES


def all_named(places: Sequence[str], recursive: bool, out: Path) -> tuple[dict[Path, Path], set[Path]]:
    """What there is to translate.

    Returns:
        Each image of all INPUTs once, whatever ways lead to it, with its name below the first INPUT that has it; and
        those that lie in an OUT within INPUT, which are taken for results of an earlier time.

    Raises:
        DataError: An INPUT names nothing to translate.
    """
    found: dict[Path, tuple[Path, Path]] = {}
    results: set[Path] = set()
    for place in places:
        for path, name in _named(place, recursive):
            if lies_in(path, out) and not (Path(place).is_file() or lies_in(_folder(place), out)):
                results.add(_absolute(path))
            else:
                found.setdefault(_absolute(path), (path, name))
    if not found:
        raise DataError(
            f"INPUT: all of its {len(results)} images lie in {out}, so they are results; choose another --out"
        )
    return dict(found.values()), results - found.keys()


def _named(where: str, recursive: bool) -> Iterator[tuple[Path, Path]]:
    """The images that one INPUT names, and how each lies below it; links are not followed to find that out."""
    folder = _folder(where)
    for path in list_images(where, recursive):
        relative = path.relative_to(folder)
        yield path, Path(path.name) if ".." in relative.parts else relative


def _folder(where: str) -> Path:
    """The folder that an INPUT is, or that its images lie in or below."""
    place = Path(where)
    if place.is_file():
        return place.parent
    return place if place.is_dir() else Path(*takewhile(lambda part: not glob.has_magic(part), place.parts))


def _absolute(path: Path) -> Path:
    """A folder, or a file in its folder, without links on the way; the file may be one."""
    return path.resolve() if path.is_dir() else path.parent.resolve() / path.name


def lies_in(path: Path, folder: Path) -> bool:
    """Whether a file or folder is ``folder``, or lies in it at any depth."""
    return _absolute(path).is_relative_to(folder.resolve())


def is_file_name(out: Path) -> bool:
    """Whether OUT is a file to write: it is named like an image or a video, and no folder has that name."""
    return out.suffix.lower() in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES) and not out.is_dir()


def check_one_image(out: Path, places: Sequence[str], images: int, kind: str, styles: int) -> None:
    """Refuse to write what is asked for into the single file OUT. Raises ``ConfigError``."""
    if out.suffix.lower() not in IMAGE_SUFFIXES:
        raise ConfigError(f"{out} is named like a video, and INPUT holds images; name a folder, or an image, as --out")
    if images > 1 or styles > 1 or any(Path(place).is_dir() for place in places):
        what = "a folder" if Path(places[0]).is_dir() else f"{images} image{'s' * (images > 1)}"
        wanted = f"{what} in {styles} styles" if styles > 1 else what
        raise ConfigError(f"{out} is one file, but INPUT is {wanted}; name a folder as --out")
    if kind != "same" and IMAGE_SUFFIXES[f".{kind}"] != IMAGE_SUFFIXES[out.suffix.lower()]:
        raise ConfigError(f"--format {kind} contradicts --out {out}; drop one")


def result_name(path: Path, name: Path, kind: str) -> Path:
    """Name of the result of an image; ``kind`` is a file type or ``same``. Raises ``ConfigError`` for others."""
    if kind != "same":
        return name.with_suffix(f".{kind}")
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        describe(path)  # says what it is, where that is no image
        raise ConfigError(f"{path}: no image can be written under a name ending in '{path.suffix}'; use --format png")
    return name


def check_targets(pairs: Sequence[tuple[Path, Path]], within: Collection[Path] = ()) -> None:
    """Refuse to replace an input, by whatever links, or what else is ``within`` INPUT, and two results of one name."""
    inputs = {_identity(source): source for source, _ in pairs}
    taken: dict[Path, Path] = {}
    for source, target in pairs:
        replaced = inputs.get(_identity(target)) if target.exists() else None
        if replaced is not None:
            what = "it" if replaced == source else f"the input {replaced}"
            raise ConfigError(f"the translation of {source} would replace {what}; choose another --out")
        if within and _absolute(target) in within:
            raise ConfigError(
                f"the translation of {source} would replace {target}, which lies in INPUT; choose another --out, or "
                "--skip-existing to make only the others"
            )
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


def check_kinds(pairs: Sequence[tuple[Path, Path]], made: PixelFormat) -> None:
    """Refuse results of which none is of a kind of file that can hold it. Raises ``ConfigError``."""
    found = [misfit(target.suffix, made) for _, target in pairs]
    if not all(found):
        return  # the others are named when their turn comes
    for (source, _), words in zip(pairs, found, strict=True):
        with suppress(DataError):
            describe(source)  # else it has another fault, which is the one to be told
            raise ConfigError(f"{source}: {words}")


def existing(out: Path, targets: Sequence[Path], *, overwrite: bool, skip_existing: bool) -> set[Path]:
    """The results that need not be made again. Raises ``ConfigError`` where nobody said what to do about some."""
    there = set() if overwrite else {target for target in targets if os.path.lexists(target)}
    if there and not skip_existing:
        if out in there:
            raise ConfigError(f"{out} exists already; --overwrite makes it again, --skip-existing leaves it as it is")
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
