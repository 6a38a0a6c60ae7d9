"""What a preparation is going to write: one item per image, and which are held out."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from unpaired.data.inspection import ImageInfo, Progress, in_threads, inspect
from unpaired.data.layouts import Kind, Placed, folder_of
from unpaired.data.prepare_scale import Change
from unpaired.data.sources import Source
from unpaired.errors import DataError

_PAIRED_SHARE = 0.9
"""Of all names of two domains, how many have to be in both for the domains to be taken as paired by name."""


@dataclass(frozen=True)
class Item:
    """One image to write."""

    source: Source
    name: str
    """In the source."""
    split: str
    domain: str
    stem: str
    """What it will be called, without suffix; the same in another domain makes a pair."""
    change: Change | None = None
    """How it is made smaller; ``None`` copies the file."""
    info: ImageInfo | None = None
    """Of the source, where it was looked at already."""

    @property
    def suffix(self) -> str:
        """Of a copy; what is made smaller gets one that its content decides."""
        return PurePosixPath(self.name).suffix.lower()


@dataclass(frozen=True)
class Plan:
    """Everything that a preparation is going to write, and what makes it the same one when it is run again."""

    name: str
    """Of the set."""
    kind: Kind
    """trainA and trainB, or one folder per domain."""
    classes: tuple[str, ...]
    """What the domains are called: those that became A and B, or all of them."""
    items: tuple[Item, ...]
    settings: Mapping[str, Any]
    """Those that apply, with defaults filled in."""
    sources: tuple[Source, ...]
    problems: tuple[str, ...] = ()
    """Images that are left out, and why, one line each."""
    remarks: tuple[str, ...] = ()
    """What a person should know about the result."""

    def outputs(self) -> dict[str, Item]:
        """Path below the new folder -> item, sorted; equal names, in whatever case, are told apart by a number.

        Paths of what is made smaller have no suffix yet.
        """
        found: dict[str, Item] = {}
        taken: set[str] = set()
        for item in sorted(self.items, key=lambda item: (item.split, item.domain, item.stem, item.name)):
            folder = folder_of(self.kind, item.split, item.domain)
            suffix = item.suffix if item.change is None else ""
            path, number = f"{folder}/{item.stem}{suffix}", 1
            while path.casefold() in taken:
                number += 1
                path = f"{folder}/{item.stem}-{number}{suffix}"
            taken.add(path.casefold())
            found[path] = item
        return found


def items_of(
    source: Source, files: Iterable[Placed], rename: Mapping[str, str], change: Change | None, test: str = "test"
) -> list[Item]:
    """Items of files that are placed already.

    Args:
        source: Where they are.
        files: Those whose domain is not in ``rename`` are left out.
        rename: Domain -> what it becomes.
        change: For every image.
        test: The split that becomes the test split.
    """
    return [
        Item(
            source,
            file.name,
            "test" if file.split == test else file.split,
            rename[file.domain],
            stem(file.rest),
            change,
        )
        for file in files
        if file.domain in rename
    ]


def stem(rest: str) -> str:
    """A flat file name, without suffix, of a file that may lie deeper.

    >>> stem("siamese/old/1.JPG")
    'siamese__old__1'
    """
    return str(PurePosixPath(rest).with_suffix("")).replace("/", "__")


def looked_at(items: Sequence[Item], progress: Progress) -> tuple[list[Item], list[str]]:
    """Decode every image; those that cannot be used are left out, and why is returned beside."""

    def look(item: Item) -> Item | DataError:
        try:
            return replace(item, info=inspect(item.source.read(item.name), item.source.where(item.name)))
        except DataError as error:
            return error

    good, bad = [], []
    for number, result in enumerate(in_threads(look, items), 1):
        progress("looking at images", number, len(items))
        if isinstance(result, DataError):
            bad.append(str(result))
        else:
            good.append(result)
    return good, bad


def held_out(items: Sequence[Item], split: str, quotas: Mapping[str, int], seed: int) -> list[Item]:
    """Move so many training images of each domain to another split; a seeded choice.

    Images that belong together (equal pixels, or pairs by name) stay together. Groups of them are taken in the order of
    a hash of their content and the seed, so that neither file order nor the names of files decide. A group that would
    exceed a domain's quota is passed over.

    Raises:
        DataError: A domain would keep fewer than 2.
    """
    training = [i for i, item in enumerate(items) if item.split == "train"]
    present = Counter(items[i].domain for i in training)
    for domain, quota in quotas.items():
        if quota and present[domain] - quota < 2:
            settings = "test_count or test_fraction" if split == "test" else f"{split}_count"
            raise DataError(
                f"{domain}: {quota} of {present[domain]} training images would be held out for {split}, and training "
                f"needs 2 at least; lower {settings}"
            )
    groups = _groups(items, training)
    left, moved = dict(quotas), list(items)
    for group in sorted(
        groups, key=lambda group: hashlib.sha256(b"%d:" % seed + min(_key(items[i]) for i in group)).digest()
    ):
        sizes = Counter(items[i].domain for i in group)
        if all(left.get(domain, 0) >= size for domain, size in sizes.items()):
            for i in group:
                moved[i] = replace(items[i], split=split)
            for domain, size in sizes.items():
                left[domain] -= size
    return moved


def _key(item: Item) -> bytes:
    """Its content; the name stands in for it where it was not looked at."""
    return item.info.digest if item.info is not None else item.stem.encode("utf-8", "surrogateescape")


def _groups(items: Sequence[Item], places: Sequence[int]) -> list[list[int]]:
    """Places of items that share a picture or, in domains that are paired, a name, directly or through others."""
    paired = _paired_domains([items[i] for i in places])
    parent = {i: i for i in places}

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[object, int] = {}
    for i in places:
        picture = items[i].info
        for key in ((paired[items[i].domain], items[i].stem), picture and picture.digest):
            if key is not None:
                parent[root(i)] = root(first.setdefault(key, i))
    found: dict[int, list[int]] = {}
    for i in places:
        found.setdefault(root(i), []).append(i)
    return list(found.values())


def _paired_domains(items: Sequence[Item]) -> dict[str, str]:
    """Domain -> the first of the domains that hold nearly the same names, itself where there is no other.

    Names that are shared here and there, as numbers are, make no pairs.
    """
    names: dict[str, set[str]] = {}
    for item in items:
        names.setdefault(item.domain, set()).add(item.stem)
    found: dict[str, str] = {}
    for domain in sorted(names):
        alike = (
            other
            for other in found
            if len(names[domain] & names[other]) >= _PAIRED_SHARE * len(names[domain] | names[other])
        )
        other = next(alike, None)
        found[domain] = domain if other is None else found[other]
    return found
