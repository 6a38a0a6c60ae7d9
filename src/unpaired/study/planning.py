"""What a study compares and on which images: from folders and settings, with what the runs know of themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from unpaired.data import UnpairedFiles, find_test_images
from unpaired.errors import ConfigError, DataError
from unpaired.study.prepare import Contender
from unpaired.training import RunConfig

MOST_METHODS = 9
"""Raters choose with one key."""
_LONGEST_NAME = 60

T = TypeVar("T")


def contenders_of(folders: Sequence[Path], names: Sequence[str] = ()) -> list[Contender]:
    """The methods to compare.

    Args:
        folders: Runs, or folders of made images.
        names: One for each; empty takes the folders' names.

    Raises:
        ConfigError: Their number or a name cannot be used.
        DataError: A folder is not there.
    """
    count = len(folders)
    if not 2 <= count <= MOST_METHODS:
        raise ConfigError(f"a study compares 2 to {MOST_METHODS} methods, not {count}; raters choose with a key each")
    names = names or tuple(folder.resolve().name for folder in folders)
    if len(names) != count:
        raise ConfigError(f"names: {len(names)} given for {count} methods; give one for each")
    for name in names:
        if not name.strip() or len(name) > _LONGEST_NAME or not name.isprintable():
            raise ConfigError(f"names: {name!r} must be 1 to {_LONGEST_NAME} printable characters")
        if names.count(name) > 1:
            raise ConfigError(f"two methods would be called '{name}'; tell them apart with --names")
    for folder in folders:
        if not folder.is_dir():
            what = "is a file, not a folder" if folder.exists() else "there is no such folder"
            raise DataError(f"{folder}: {what}; give runs, or folders of made images")
    return [Contender(name, folder) for name, folder in zip(names, folders, strict=True)]


def held_out_files(
    contenders: Sequence[Contender],
    data: Path | None,
    source: Path | None = None,
    target: Path | None = None,
    direction: Literal["AtoB", "BtoA"] | None = None,
) -> tuple[UnpairedFiles, str]:
    """Held-out images in the direction of the runs.

    Args:
        contenders: Their ``run.yaml`` says what is not given.
        data: Folder with testA and testB.
        source: Folder of source images, instead of ``data``.
        target: Folder of real target images, instead of ``data``.
        direction: Which domain of ``data`` is the source.

    Returns:
        The files, and where they lie in words.

    Raises:
        ConfigError: Nobody says, or the runs differ.
        DataError: The images cannot be used.
    """
    known = {
        contender.name: RunConfig.load(contender.folder / "run.yaml").dataset
        for contender in contenders
        if contender.is_run and (contender.folder / "run.yaml").is_file()
    }
    if data is None and source is None and target is None:
        data = _one_of("data", {name: dataset.folder for name, dataset in known.items()})
        if data is None:
            raise ConfigError("data: no run names a data folder; give --data DIR, or --source DIR and --target DIR")
    files = find_test_images(data, source, target)
    if files is None:
        raise DataError(
            f"{data}: there are no held-out images; give a folder with testA and testB, or --source DIR --target DIR"
        )
    if data is None:
        if direction is not None:
            raise ConfigError("direction: belongs to --data; --source and --target say it themselves")
        return files, f"{source} -> {target}"
    own = {name: dataset.direction for name, dataset in known.items() if dataset.folder is not None}
    chosen = direction or _one_of("direction", own) or "AtoB"
    return files.swapped() if chosen == "BtoA" else files, f"{data} {chosen}"


def _one_of(setting: str, values: Mapping[str, T | None]) -> T | None:
    """What all runs agree on; None where no run says."""
    said = {name: value for name, value in values.items() if value is not None}
    if len(set(said.values())) > 1:
        listed = "; ".join(f"{name}: {value}" for name, value in said.items())
        raise ConfigError(f"{setting}: the runs differ ({listed}); choose with --{setting}")
    return next(iter(said.values()), None)
