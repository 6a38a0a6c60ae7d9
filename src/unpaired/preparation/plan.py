"""What a preparation is going to write: its settings, and one item per image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import PurePosixPath
from typing import Any

from unpaired.errors import ConfigError, DataError
from unpaired.preparation.archives import Source
from unpaired.preparation.changes import Change
from unpaired.preparation.facts import ImageFacts, in_threads, inspect
from unpaired.preparation.layouts import Kind, Placed, folder_of
from unpaired.preparation.splitting import Member, hold_out

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is, and of how much."""


@dataclass(frozen=True)
class PrepareSettings:
    """What decides which files a preparation writes."""

    size: int | None = None
    """Scale images down, antialiased, to so many pixels: the shorter side, or both sides of a Cityscapes square (256
    unless given). They are stored as PNG then. Unset copies files as they are."""
    source_class: str | None = None
    """Class or subfolder that becomes trainA and testA. AFHQ: cat unless given."""
    target_class: str | None = None
    """Class or subfolder that becomes trainB and testB. AFHQ: dog unless given."""
    domains: bool = False
    """Write train/CLASS and test/CLASS with all classes, for methods of several domains, instead of trainA, trainB."""
    test_fraction: float | None = None
    """FOLDER: the share of each subfolder that is held out as test images; 0.1 unless given."""
    test_count: int | None = None
    """FOLDER: how many images of each subfolder are held out as test images, instead of a share."""
    val_count: int = 0
    """Move so many training images of each domain to val, where training chooses its best weights, not in test."""
    seed: int = 0
    """Another seed holds out other images."""
    link: bool = False
    """Make links to the files of a folder instead of copies."""

    def __post_init__(self) -> None:
        if self.size is not None and not 8 <= self.size <= 2**14:
            raise ConfigError(f"size is {self.size}: it must be from 8 to {2**14:,} pixels")
        if self.test_fraction is not None and self.test_count is not None:
            raise ConfigError("give test_fraction or test_count, not both")
        if self.test_fraction is not None and not 0 <= self.test_fraction < 1:
            raise ConfigError(f"test_fraction is {self.test_fraction}: it must be at least 0 and below 1")
        for name in ("test_count", "val_count", "seed"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"{name} is {value}: it must be 0 or greater")
        if self.domains and (self.source_class is not None or self.target_class is not None):
            raise ConfigError("source_class and target_class name two of several classes; domains takes all: give one")
        if self.source_class is not None and self.source_class == self.target_class:
            raise ConfigError(f"source_class and target_class are both '{self.source_class}'; name two")
        if self.link and self.size is not None:
            raise ConfigError("link makes links to files as they are; with size they are made anew: give one")

    def refuse(self, names: Iterable[str], why: str) -> None:
        """Raise ``ConfigError`` where a setting was given that has no meaning here."""
        defaults = {field.name: field.default for field in fields(self)}
        for name in names:
            if getattr(self, name) != defaults[name]:
                raise ConfigError(f"{name} has no meaning here: {why}")


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
    """What is done to it; ``None`` copies the file."""
    facts: ImageFacts | None = None
    """Of the source, where it was looked at already."""

    @property
    def suffix(self) -> str:
        """Of the file to write."""
        return PurePosixPath(self.name).suffix.lower() if self.change is None else ".png"


@dataclass(frozen=True)
class Problem:
    """An image that is left out, and why."""

    words: str


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
    problems: tuple[Problem, ...] = ()
    remarks: tuple[str, ...] = field(default=())
    """What a person should know about the result."""

    def outputs(self) -> dict[str, Item]:
        """Path below the new folder -> item, sorted; equal names, in whatever case, are told apart by a number."""
        found: dict[str, Item] = {}
        taken: set[str] = set()
        for item in sorted(self.items, key=lambda item: (item.split, item.domain, item.stem, item.name)):
            folder = folder_of(self.kind, item.split, item.domain)
            path, number = f"{folder}/{item.stem}{item.suffix}", 1
            while path.casefold() in taken:
                number += 1
                path = f"{folder}/{item.stem}-{number}{item.suffix}"
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


def looked_at(items: Sequence[Item], progress: Progress) -> tuple[list[Item], list[Problem]]:
    """Decode every image; those that cannot be used are left out."""

    def look(item: Item) -> Item | Problem:
        try:
            facts = inspect(item.source.read(item.name), item.source.where(item.name))
        except DataError as error:
            return Problem(str(error))
        return replace(item, facts=facts)

    good: list[Item] = []
    bad: list[Problem] = []
    for number, result in enumerate(in_threads(look, items), 1):
        progress("looking at images", number, len(items))
        if isinstance(result, Problem):
            bad.append(result)
        else:
            good.append(result)
    return good, bad


def held_out(items: Sequence[Item], split: str, quotas: Mapping[str, int], seed: int) -> list[Item]:
    """Move so many training images of each domain to another split.

    Raises:
        DataError: A domain would keep fewer than 2.
    """
    places = [i for i, item in enumerate(items) if item.split == "train"]
    members = [
        Member(items[i].domain, items[i].stem, facts.digest if (facts := items[i].facts) else None) for i in places
    ]
    left = Counter(member.domain for member in members)
    for domain, quota in quotas.items():
        if quota and left[domain] - quota < 2:
            raise DataError(
                f"{domain}: {quota} of {left[domain]} images would be held out for {split}, and training needs 2 at "
                f"least; lower {split}_count or {split}_fraction"
                if split == "test"
                else f"{domain}: {quota} of {left[domain]} training images would be held out for {split}, and training "
                f"needs 2 at least; lower {split}_count"
            )
    chosen = hold_out(members, quotas, seed)
    moved = list(items)
    for place, held in zip(places, chosen, strict=True):
        if held:
            moved[place] = replace(moved[place], split=split)
    return moved


def with_val(
    items: Sequence[Item], settings: PrepareSettings, progress: Progress, *, look: bool = True
) -> tuple[list[Item], list[Problem]]:
    """Take ``val_count`` images of each domain out of the training images, equal pictures together.

    Args:
        items: Of all splits.
        settings: ``val_count`` and ``seed``.
        progress: Told how far it is.
        look: Decode the training images first; without it only names keep images together.
    """
    if not settings.val_count:
        return list(items), []
    if any(item.split == "val" for item in items):
        raise ConfigError("val_count has no meaning here: there are val images already")
    training = [item for item in items if item.split == "train"]
    others = [item for item in items if item.split != "train"]
    problems: list[Problem] = []
    if look and any(item.facts is None for item in training):
        training, problems = looked_at(training, progress)
    quotas = {item.domain: settings.val_count for item in training}
    return [*held_out(training, "val", quotas, settings.seed), *others], problems
