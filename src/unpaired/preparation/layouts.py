"""The two layouts that training reads, recognised among names: trainA and trainB, or train/<domain>."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from unpaired.errors import DataError

Kind = Literal["two", "domains"]
SPLITS = ("train", "val", "test")

_TWO = re.compile(r"(?P<root>(?:.*/)?)(?P<split>train|val|test)(?P<domain>[AB])/(?P<rest>.+)")
_DOMAINS = re.compile(r"(?P<root>(?:.*/)?)(?P<split>train|val|test)/(?P<domain>[^/]+)/(?P<rest>.+)")


@dataclass(frozen=True)
class Placed:
    """A file and its place in a layout."""

    name: str
    """Of the file in its source."""
    split: str
    """train, val or test."""
    domain: str
    """A or B, or the name of a domain."""
    rest: str
    """Its name below the folder of split and domain, with ``/`` if it lies deeper."""


@dataclass(frozen=True)
class Layout:
    """Files in one of the two layouts."""

    kind: Kind
    root: str
    """What stands before the split in all names: empty or ending in ``/``."""
    files: tuple[Placed, ...]

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the domains that have training files, sorted."""
        return tuple(sorted({file.domain for file in self.files if file.split == "train"}))


def folder_of(kind: Kind, split: str, domain: str) -> str:
    """Name of the folder of a split and domain.

    >>> folder_of("two", "test", "A"), folder_of("domains", "test", "cat")
    ('testA', 'test/cat')
    """
    return f"{split}{domain}" if kind == "two" else f"{split}/{domain}"


def find_layout(names: Iterable[str], place: object) -> Layout | None:
    """Recognise a layout among the names of images, wherever it begins.

    Args:
        names: With ``/`` between folders.
        place: What to call their place in messages.

    Returns:
        The layout with training files of at least two domains that begins highest, or ``None``.

    Raises:
        DataError: There are several beside each other.
    """
    names = list(names)
    for kind, pattern in (("two", _TWO), ("domains", _DOMAINS)):
        roots: dict[str, list[Placed]] = {}
        for name in names:
            match = pattern.fullmatch(name)
            if match:
                placed = Placed(name, match["split"], match["domain"], match["rest"])
                roots.setdefault(match["root"], []).append(placed)
        found = [
            Layout("two" if kind == "two" else "domains", root, tuple(files))
            for root, files in sorted(roots.items(), key=lambda item: (item[0].count("/"), item[0]))
        ]
        found = [layout for layout in found if len(layout.domains) >= 2]
        beside = [layout.root for layout in found if layout.root.count("/") == found[0].root.count("/")]
        if len(beside) > 1:
            raise DataError(f"{place}: holds several sets ({', '.join(beside)}); name the folder of one")
        if found:
            return found[0]
    return None


def class_folders(names: Iterable[str]) -> tuple[dict[str, list[Placed]], list[str]]:
    """Images by the folder that they lie in, below whatever single folders hold all of them.

    Returns:
        Folder -> its images, at any depth, not yet split (``split`` is empty); and the images beside the folders.
    """
    names = list(names)
    depth = 0
    while names:
        tops = {PurePosixPath(name).parts[depth] for name in names if len(PurePosixPath(name).parts) > depth + 1}
        loose = any(len(PurePosixPath(name).parts) == depth + 1 for name in names)
        if loose or len(tops) != 1:
            break
        depth += 1
    folders: dict[str, list[Placed]] = {}
    beside = []
    for name in names:
        parts = PurePosixPath(name).parts[depth:]
        if len(parts) == 1:
            beside.append(name)
        else:
            folders.setdefault(parts[0], []).append(Placed(name, "", parts[0], "/".join(parts[1:])))
    return dict(sorted(folders.items())), beside
