"""Where the images are: files, folders and patterns in; sorted tuples of paths out."""

from __future__ import annotations

import array
import glob
import operator
import os
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from unpaired.data.foreign import foreign_file
from unpaired.data.stored import IMAGE_SUFFIXES
from unpaired.errors import DataError, nearest

DATASET = "hf:"
"""How a place begins that the library ``datasets`` reads."""
_IN_ORDER = operator.attrgetter("parts")
"""Windows itself compares paths without their case."""


@dataclass(frozen=True)
class UnpairedFiles:
    """The images of two domains, as a rule paths of files; equal positions mean nothing."""

    source: Sequence[Any]
    """Images of the domain that is translated (A, the paper's X)."""
    target: Sequence[Any]
    """Images of the domain that is wanted (B, the paper's Y)."""

    def __post_init__(self) -> None:
        for name in ("source", "target"):
            object.__setattr__(self, name, as_images(getattr(self, name)))

    def __repr__(self) -> str:
        return f"UnpairedFiles({len(self.source):,} source files, {len(self.target):,} target files)"

    def swapped(self) -> UnpairedFiles:
        """Return the same files with source and target exchanged."""
        return UnpairedFiles(self.target, self.source)


def as_images(given: Sequence[Any]) -> Sequence[Any]:
    """Names of files as a tuple of paths; what are images in another way, as they are."""
    if not isinstance(given, tuple | list):
        return given
    return tuple(Path(image) if isinstance(image, str | os.PathLike) else image for image in given)


def list_images(where: Path | str, recursive: bool = False) -> list[Path]:
    """List the image files that a path names, in an order that is the same on every machine.

    Args:
        where: One file (taken whatever its suffix), a folder, or a pattern such as ``"photos/*.png"`` (``**`` crosses
            folders). Hidden files are skipped.
        recursive: Descend into the subfolders of a folder (hidden ones excepted).

    Returns:
        At least one path, sorted by name, case-sensitively.

    Raises:
        DataError: Nothing is there, or nothing of it is an image; the message says what was found instead.
    """
    where = Path(where)
    if is_dataset(where):
        raise DataError(f"{where}: is a dataset, and files are needed here; name a file, a folder or a pattern")
    try:
        if where.is_file():
            return [where]
        if where.is_dir():
            return _list_folder(where, recursive)
        if not glob.has_magic(str(where)):
            raise DataError(missing(where))
        matches = [Path(match) for match in glob.glob(str(where), recursive=True)]
    except OSError as error:
        raise DataError(f"{where}: cannot be read: {error.strerror or error}") from error
    except RecursionError:
        raise DataError(f"{where}: its folders are nested too deep; name one further down") from None
    images = sorted((path for path in matches if is_image_name(path.name) and path.is_file()), key=_IN_ORDER)
    if not images:
        raise DataError(f"{where}: the pattern matches no image ({len(matches)} other matches)")
    return images


@dataclass
class Listing:
    """What lies in a folder, hidden entries excepted."""

    images: list[Path] = field(default_factory=list)
    """By their suffix, sorted."""
    others: list[Path] = field(default_factory=list)
    """Files of any other suffix, sorted."""
    subfolders: list[Path] = field(default_factory=list)
    """Those that were not descended into, sorted."""


def scan(folder: Path, recursive: bool = False, above: frozenset[tuple[int, int]] = frozenset()) -> Listing:
    """List a folder, and nothing again that it lies in (``above``, by device and number).

    Raises:
        OSError: That is not possible.
        DataError: A link points to nothing.
    """
    found, status = Listing(), folder.stat()
    above |= {(status.st_dev, status.st_ino)}
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            path = folder / entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_file():
                (found.images if is_image_name(entry.name) else found.others).append(path)
            elif entry.is_dir() and recursive:
                if ((status := path.stat()).st_dev, status.st_ino) in above:
                    continue
                inside = scan(path, recursive, above)
                found.images += inside.images
                found.others += inside.others
            elif entry.is_dir():
                found.subfolders.append(path)
            elif entry.is_symlink():
                raise DataError(f"{path}: the link points to nothing; fix or move it")
    found.images.sort(key=_IN_ORDER)
    return found


def _list_folder(folder: Path, recursive: bool) -> list[Path]:
    found = scan(folder, recursive)
    if found.images:
        return found.images
    if found.others:
        first = found.others[0]
        kind = foreign_file(first)
        raise DataError(
            f"{folder}: none of its {len(found.others)} files is an image (found {first.name}"
            f"{f', {kind}' if kind else ''}); these suffixes are read: {' '.join(IMAGE_SUFFIXES)}; a kind of your own "
            "needs --plugin FILE"
        )
    names = ", ".join(path.name for path in found.subfolders[:6])
    inside = f"; it holds only the folders {names}" if names else ""
    raise DataError(f"{folder}: the folder is empty{inside}; put images there ({' '.join(IMAGE_SUFFIXES)})")


class ImageSet(Sequence[Any]):
    """Images of a domain, each made when it is asked for: paths, or what else ``read_picture`` takes.

    A million of them take tens of bytes each, not a Python object.
    """

    @abstractmethod
    def _at(self, number: int) -> Any:
        """Image ``number``, from 0 to the length - 1."""

    @abstractmethod
    def stamps(self) -> Iterator[tuple[str, int, int]]:
        """What tells the set from others: names, bytes and times of its files, or one such entry for a dataset."""

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return tuple(self._at(i) for i in range(*number.indices(len(self))))
        if not -len(self) <= number < len(self):
            raise IndexError(f"image {number} of {len(self)}")
        return self._at(int(number) % len(self))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(
            a == b for a, b in zip(self, other, strict=True)
        )  # fmt: skip

    __hash__ = None  # type: ignore[assignment]


class FolderFiles(ImageSet):
    """The images in a folder, sorted by name; what else lies there is in ``rest``.

    Raises:
        DataError: It holds none, or a link to nothing.
        OSError: It cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self.rest = folder, Listing()
        names: list[str] = []
        sizes, times, ends = array.array("q"), array.array("q"), array.array("q")
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_file() and is_image_name(entry.name):
                    names.append(entry.name)
                    status = entry.stat()
                    sizes.append(status.st_size)
                    times.append(status.st_mtime_ns)
                elif entry.is_file():
                    self.rest.others.append(folder / entry.name)
                elif entry.is_dir():
                    self.rest.subfolders.append(folder / entry.name)
                elif entry.is_symlink():
                    raise DataError(f"{folder / entry.name}: the link points to nothing; fix or move it")
        if not names:
            list_images(folder)  # says what is there instead
        self.rest.others.sort(key=_IN_ORDER)
        self.rest.subfolders.sort(key=_IN_ORDER)
        order = np.array(sorted(range(len(names)), key=names.__getitem__), np.int64)
        joined = bytearray()
        for number in order:
            joined += os.fsencode(names[number])
            ends.append(len(joined))
        self._names, self._ends = bytes(joined), np.array([0, *ends])
        self._sizes, self._times = np.array(sizes)[order], np.array(times)[order]

    def __len__(self) -> int:
        return len(self._sizes)

    def _name(self, number: int) -> str:
        return os.fsdecode(self._names[self._ends[number] : self._ends[number + 1]])

    def _at(self, number: int) -> Path:
        return self._folder / self._name(number)

    def stamps(self) -> Iterator[tuple[str, int, int]]:
        for number in range(len(self)):
            yield self._name(number), int(self._sizes[number]), int(self._times[number])


def is_dataset(place: object) -> bool:
    """Whether a place names a dataset of the library ``datasets`` (:mod:`unpaired.data.huggingface`)."""
    return str(place).startswith(DATASET)


def is_image_name(name: str) -> bool:
    """Whether a name is that of an image that is read, by its suffix."""
    return not name.startswith(".") and name.lower().endswith(tuple(IMAGE_SUFFIXES))


def missing(where: Path) -> str:
    """Say that ``where`` does not exist, and the nearest thing that does."""
    if where.exists():
        return f"{where}: is a pipe or a device, not a file or a folder"
    ancestor = where
    while not ancestor.exists() and ancestor != ancestor.parent:
        last, ancestor = ancestor.name, ancestor.parent
    try:
        names = sorted(os.listdir(ancestor)) if ancestor.is_dir() else []
    except OSError:
        names = []
    return f"{where}: there is no such file or folder{nearest(last, names)}"


def pair_by_name(source_files: Sequence[str | Path], target_files: Sequence[str | Path]) -> list[tuple[Path, Path]]:
    """Pair files whose names agree up to the suffix; files without a partner are left out.

    Args:
        source_files: Any files, for example ``UnpairedFiles.source``.
        target_files: Any files.

    Returns:
        Pairs in the order of ``source_files``; empty when no name occurs on both sides.

    Raises:
        DataError: A name occurs twice on one side (``a.png`` and ``a.jpg``).
    """
    targets = _by_stem(as_images(tuple(target_files)))
    return [(path, targets[stem]) for stem, path in _by_stem(as_images(tuple(source_files))).items() if stem in targets]


def find_partners(
    source_files: Sequence[Any], target_files: Sequence[Any], paired: Literal["auto", "yes", "no"] = "auto"
) -> dict[Any, Any]:
    """Map each source image to the target image of the same stem, its truth; empty if the files are not paired.

    ``auto`` takes files as paired if every source file has a partner.

    Raises:
        DataError: They have to be paired and are not.
    """
    if paired == "no" or not target_files:
        return {}
    try:
        pairs = dict(pair_by_name(source_files, target_files))
        if alone := [path.name for path in source_files if path not in pairs]:
            raise DataError(
                f"paired: each source file needs a target file of the same stem, but {len(alone)} of "
                f"{len(source_files)} have none ({', '.join(alone[:3])}); rename them or drop --paired"
            )
    except DataError:  # or a stem occurs twice
        if paired == "yes":
            raise
        return {}
    return pairs


def _by_stem(files: Iterable[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in files:
        if path.stem in found:
            raise DataError(
                f"{path} and {found[path.stem].name} have the same name: pairs would be ambiguous; rename one"
            )
        found[path.stem] = path
    return found
