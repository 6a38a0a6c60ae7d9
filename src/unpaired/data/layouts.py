"""The two layouts that training reads, trainA and trainB or train/<domain>, and what published sets hold."""

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


Counts = dict[tuple[str, str], int]
"""(split, domain) -> images; domains are A and B, or a class."""


def _two(train_a: int, train_b: int, test_a: int, test_b: int) -> Counts:
    return {("train", "A"): train_a, ("train", "B"): train_b, ("test", "A"): test_a, ("test", "B"): test_b}


def _classes(train: tuple[int, int, int], test: tuple[int, int, int]) -> Counts:
    names = ("cat", "dog", "wild")
    return {
        (split, name): count
        for split, counts in (("train", train), ("test", test))
        for name, count in zip(names, counts, strict=True)
    }


COLLECTION: dict[str, Counts] = {
    "apple2orange": _two(995, 1019, 266, 248),
    "cezanne2photo": _two(525, 6287, 58, 751),
    "facades": _two(400, 400, 106, 106),
    "horse2zebra": _two(1067, 1334, 120, 140),
    "iphone2dslr_flower": _two(1812, 3325, 569, 480),
    "maps": _two(1096, 1096, 1098, 1098),
    "monet2photo": _two(1072, 6287, 121, 751),
    "summer2winter_yosemite": _two(1231, 962, 309, 238),
    "ukiyoe2photo": _two(562, 6287, 263, 751),
    "vangogh2photo": _two(400, 6287, 400, 751),
}
"""The CycleGAN authors' sets, each one ``NAME.zip`` with trainA, trainB, testA and testB."""

OFFICIAL: dict[str, Counts] = {
    **COLLECTION,
    "cityscapes": _two(2975, 2975, 500, 500),
    "afhq": _classes((5153, 4739, 4738), (500, 500, 500)),
    "afhq_v2": _classes((5065, 4678, 4593), (493, 491, 483)),
}
"""Every set whose counts are known. AFHQ's are those of its two versions."""


def how_to_get(name: str) -> str:
    """Where a person gets a set that :data:`OFFICIAL` knows, and what to run then; nothing is ever downloaded."""
    files, address = [f"{name}.zip"], "http://efrosgans.eecs.berkeley.edu/cyclegan/datasets/"
    if name == "cityscapes":
        files = ["gtFine_trainvaltest.zip", "leftImg8bit_trainvaltest.zip"]
        address = "https://www.cityscapes-dataset.com/downloads/ (after a registration)"
    elif name.startswith("afhq"):
        files = ["afhq.zip"]
        address = "https://github.com/clovaai/stargan-v2 (its README links the archive of either version)"
    return (
        f"{name} needs {' and '.join(files)}, never downloaded for you: get it from {address}, then "
        f"run 'unpaired data prepare {name} {' '.join(files)} --out DIR'"
    )
