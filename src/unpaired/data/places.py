"""Where the images of both domains are: folders, patterns of files and datasets in; the images out."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unpaired.data.folders import FolderFiles, UnpairedFiles, is_dataset, list_images, missing
from unpaired.data.huggingface import images_of, pair_of
from unpaired.errors import ConfigError, DataError

_LAYOUT = "expected DATA/trainA and DATA/trainB (and, for tests, DATA/testA and DATA/testB), or --source and --target"


def images_in(place: Path, recursive: bool = False) -> Sequence[Any]:
    """The images that a place names, as :func:`list_images` has them, or a dataset; errors as there."""
    if is_dataset(place):
        return images_of(place)
    if place.is_dir() and not recursive:
        try:
            return FolderFiles(place)
        except OSError as error:
            raise DataError(f"{place}: cannot be read: {error.strerror or error}") from error
    return tuple(list_images(place, recursive))


def find_training_images(
    data: Path | str | None,
    source: Path | str | None = None,
    target: Path | str | None = None,
    recursive: bool = False,
    least: int = 2,
) -> UnpairedFiles:
    """Find the images of both domains for training.

    Args:
        data: A folder that holds ``trainA`` (source) and ``trainB`` (target), or a dataset; or ``None``.
        source: Instead of ``data``: file pattern or folder of the source domain, together with ``target``.
        target: The same for the target domain.
        recursive: Descend into subfolders.
        least: How many images a domain needs.

    Raises:
        ConfigError: Neither or both ways were used.
        DataError: A folder is missing, empty or holds too few images.
    """
    if is_dataset(data) and source is None and target is None:
        files, places = _pair_of(data, "train") or UnpairedFiles((), ()), (Path(str(data)),) * 2
    else:
        places = _places(data, source, target, "train")
        files = UnpairedFiles(*(images_in(place, recursive) for place in places))
    for place, found in zip(places, (files.source, files.target), strict=True):
        check_count(place, found, least)
    return files


def check_count(place: Path, found: Sequence[Path], least: int) -> None:
    """Raise ``DataError`` if a domain has fewer than ``least`` images."""
    if len(found) < least:
        raise DataError(
            f"{place}: holds only one image; training needs at least {least} in each domain, unless it takes crops of "
            "one picture at many scales (--resize zoom_and_crop)"
        )


def find_test_images(
    data: Path | str | None, source: Path | str | None = None, target: Path | str | None = None, recursive: bool = False
) -> UnpairedFiles | None:
    """Find the held-out images of both domains, ``testA`` and ``testB``.

    Args:
        data: A folder as for :func:`find_training_images`, or a dataset; or ``None``.
        source: Instead of ``data``: file, folder or pattern of the source domain, together with ``target``.
        target: The same for the target domain.
        recursive: Descend into subfolders.

    Returns:
        The files, or ``None`` when ``data`` holds neither folder or nothing was given at all.

    Raises:
        ConfigError: Both ways were used, or ``source`` without ``target``.
        DataError: A folder is empty or holds no images, or only one of the two exists.
    """
    if data is None and source is None and target is None:
        return None
    if is_dataset(data) and source is None and target is None:
        return _pair_of(data, "test")
    if data is not None and source is None and target is None and Path(data).is_dir():
        there = [name for name in ("testA", "testB") if (Path(data) / name).is_dir()]
        if not there:
            return None
        if len(there) == 1:
            other = "testB" if there == ["testA"] else "testA"
            raise DataError(
                f"{data}: has {there[0]} but no {other}; scores need both: add {other} or rename {there[0]}"
            )
    place_a, place_b = _places(data, source, target, "test")
    return UnpairedFiles(images_in(place_a, recursive), images_in(place_b, recursive))


def _pair_of(dataset: Path | str | None, split: str) -> UnpairedFiles | None:
    found = pair_of(dataset, split)
    return None if found is None else UnpairedFiles(*found)


def _places(
    data: Path | str | None, source: Path | str | None, target: Path | str | None, split: str
) -> tuple[Path, Path]:
    if data is not None and (source is not None or target is not None):
        raise ConfigError("give either DATA or --source and --target, not both")
    if data is None:
        if source is None or target is None:
            absent = "DATA" if source is None and target is None else "--source" if source is None else "--target"
            raise ConfigError(f"{absent} is missing: {_LAYOUT}")
        return Path(source), Path(target)
    data = Path(data)
    if not data.is_dir():
        problem = f"{data}: is a file, not a folder" if data.exists() else missing(data)
        raise DataError(f"{problem}; {_LAYOUT}")
    for name in (f"{split}A", f"{split}B"):
        if not (data / name).is_dir():
            inside = {place.name for place in data.iterdir() if place.is_dir()} if split == "train" else set[str]()
            hint = (
                f"; 'unpaired data prepare {shlex.quote(str(data))} --out OUT' makes this layout from folders of images"
            )
            bare = len(inside) > 1 and not inside & {"trainA", "trainB"}
            raise DataError(f"{missing(data / name)}; {_LAYOUT}{hint if bare else ''}")
    return data / f"{split}A", data / f"{split}B"
