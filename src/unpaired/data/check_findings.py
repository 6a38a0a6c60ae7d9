"""What the images of a set say: one finding for each thing to know, to mend, or at least not to overlook."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Literal

from unpaired.data.inspection import ImageInfo, equal_pictures, similar_pictures
from unpaired.data.layouts import SPLITS, Kind, folder_of
from unpaired.data.mapping import own_range, widest
from unpaired.data.pixels import PixelFormat
from unpaired.data.remarks import CHANGES, changes
from unpaired.data.spread import odd_types, range_remarks
from unpaired.data.stored import IMAGE_SUFFIXES

Level = Literal["error", "warning", "note"]

PAIRED_SHARE = 0.5
"""Of all names of A and B, how many have to be in both to be reported as pairs."""
SMALLEST_SIDE = 32
"""Pixels; an image with a shorter side is reported."""
_ONE = {"have": "has", "are": "is", "lie": "lies", "hold": "holds", "their": "its"}
_SINGULAR = re.compile(rf"\b({'|'.join(_ONE)})\b")
_USUAL = ("RGB", "RGBA", "LA")
"""Modes that say nothing beyond their opacity, which is told in any case."""
_MODES = {
    "L": "are gray (mode L)",
    "1": "are black and white (mode 1)",
    "P": "have a palette (mode P)",
    "CMYK": "are CMYK",
}


@dataclass
class Part:
    """One folder of a set: a split of a domain."""

    split: str
    domain: str
    folder: str
    """Below the set."""
    images: list[str] = field(default_factory=list)
    """Paths below the set, sorted."""
    others: list[str] = field(default_factory=list)
    """Files that are no images, by their suffix."""
    foreign: dict[str, list[str]] = field(default_factory=dict)
    """What some of these are, and what to do with them -> which."""
    subfolders: list[str] = field(default_factory=list)
    """Folders in it, which training does not read."""
    bytes: int = 0
    """Of the images."""
    info: dict[str, ImageInfo] = field(default_factory=dict)
    """Path -> info of every image that can be used."""
    unreadable: list[str] = field(default_factory=list)
    """One line for every other image."""
    official: int | None = None
    """How many images the published set has here."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found."""

    level: Level
    """error: training or scores cannot use it. warning: it makes results wrong or is not what it should be. note:
    worth knowing."""
    kind: str
    """A word for programs: unreadable, leak, duplicates, ..."""
    words: str
    """What it is, with a count."""
    files: list[str]
    """All files that it is about, or lines about them."""


def findings(parts: Sequence[Part], kind: Kind, near: int) -> list[Finding]:
    """Everything that the folders and images of a set give reason to say."""
    found: list[Finding] = []
    modes = {info.facts.mode for part in parts for info in part.info.values()}
    everywhere = modes.pop() if len(modes) == 1 else ""
    if everywhere not in (*_USUAL, ""):
        found.append(Finding("note", "modes", f"all images {_mode_in_words(everywhere)}", []))
    for part in parts:
        found.extend(_of_folder(part))
        found.extend(_of_images(part, everywhere))
    for domain in sorted({part.domain for part in parts}):
        option = "--target-value-range" if kind == "two" and domain == "B" else "--value-range"
        found.extend(_of_values([part for part in parts if part.domain == domain], option))
    info = {path: part_info for part in parts for path, part_info in part.info.items()}
    home = {path: part for part in parts for path in part.info}
    found.extend(_of_equal(info, home))
    if near >= 0:
        for domain in sorted({part.domain for part in parts}):
            mine = {path: one for path, one in info.items() if home[path].domain == domain}
            found.extend(_of_similar(mine, home, near))
    if kind == "two":
        found.extend(_of_pairs(parts))
    return found


def _of_folder(part: Part) -> Iterator[Finding]:
    if not part.images:
        yield Finding("error", "empty", f"{part.folder} holds no image", [])
    elif part.split == "train" and len(part.info) < 2:
        yield Finding("error", "too_few", f"{part.folder} holds fewer than 2 images that can be used", [])
    if part.unreadable:
        yield Finding("error", "unreadable", _count(part.unreadable, part, "cannot be used"), part.unreadable)
    known = {path for paths in part.foreign.values() for path in paths}
    for words, paths in [*part.foreign.items(), ("", [path for path in part.others if path not in known])]:
        if paths:
            count = f"{len(paths):,} file{'s' * (len(paths) != 1)} of {part.folder}"
            are = "are not images" if len(paths) > 1 else "is not an image"
            yield Finding("warning", "not_images", f"{count} {are}{f' but {words}' if words else ''}", paths)
    if part.subfolders:
        words = f"{part.folder} holds folders, whose images training does not read"
        yield Finding("warning", "subfolders", words, part.subfolders)
    stems = Counter(PurePosixPath(path).stem for path in part.images)
    double = [path for path in part.images if stems[PurePosixPath(path).stem] > 1]
    if double:
        words = f"{len(double):,} images of {part.folder} share their name but for the suffix; pairs would be ambiguous"
        yield Finding("warning", "names", words, double)


def _mode_in_words(mode: str) -> str:
    if mode.startswith("I"):
        return f"have 16 bits (mode {mode})"
    if " x " in mode:
        return f"have {mode} (channels x type): see --channels, and --value-range for floats"
    return _MODES.get(mode, f"are of mode {mode}, converted to RGB")


def _of_images(part: Part, everywhere: str) -> Iterator[Finding]:
    info = part.info

    def told(level: Level, kind: str, words: str, wanted: Callable[[str], bool]) -> Iterator[Finding]:
        files = [path for path in info if wanted(path)]
        if files:
            yield Finding(level, kind, _count(files, part, words), files)

    def other_format(path: str) -> bool:
        return IMAGE_SUFFIXES.get(PurePosixPath(path).suffix.lower()) != info[path].facts.kind

    small = {path for path, one in info.items() if min(one.facts.width, one.facts.height) < SMALLEST_SIDE}
    void = {
        path for path, one in info.items() if one.no_data == one.facts.width * one.facts.height * one.facts.channels
    }
    yield from told("warning", "no_data", "hold only no-data values: nothing to learn from", void.__contains__)
    yield from told("warning", "small", f"have a side below {SMALLEST_SIDE} pixels", small.__contains__)
    for mode in sorted({one.facts.mode for one in info.values()} - {*_USUAL, everywhere}):
        files = [path for path, one in info.items() if one.facts.mode == mode]
        words = _count(files, part, _mode_in_words(mode))
        yield Finding("note", "modes", words, files if len(files) <= len(info) // 2 else [])
    for kind, words in CHANGES.items():
        changed = {path for path, one in info.items() if kind in changes(one.facts, one.no_data)}
        yield from told("note", kind, words, changed.__contains__)
    suffix = "are of another format than their suffix says; the content counts"
    for found in told("note", "suffix", suffix, other_format):
        yield replace(found, files=[f"{path} is {info[path].facts.kind}" for path in found.files])


def _of_values(parts: Sequence[Part], option: str) -> Iterator[Finding]:
    """Whether the values of a domain fill the range of its type; floats have none, so training has to be told one."""
    images = [(path, one.spread) for part in parts for path, one in part.info.items() if one.spread is not None]
    dtype = widest({one.facts.dtype for part in parts for one in part.info.values()})
    what = f"images of {', '.join(part.folder for part in parts)}"
    if dtype == "float32":
        remarks = odd_types(images, dtype, what)
    else:
        remarks = range_remarks(images, PixelFormat(1, dtype, own_range(dtype)), what, option)
    for remark in remarks:
        yield Finding("warning", "range", remark.words, remark.names)


_EQUAL: dict[str, tuple[Level, str]] = {
    "leak": ("warning", "{number} of {first} {are} in {second}, too"),
    "both_domains": ("warning", "{number} {are} both in {first} and in {second}"),
    "duplicates": ("note", "{number} of {first} {are} there more than once"),
}


def _of_equal(info: Mapping[str, ImageInfo], home: Mapping[str, Part]) -> Iterator[Finding]:
    """Equal pictures: between splits of a domain, between domains, within a folder."""
    seen: dict[str, dict[tuple[str, str], list[str]]] = {kind: {} for kind in _EQUAL}
    for group in equal_pictures(info):
        folders: dict[str, list[str]] = {}
        for path in group:
            folders.setdefault(home[path].folder, []).append(path)
        for folder, paths in folders.items():
            if len(paths) > 1:
                seen["duplicates"].setdefault((folder, folder), []).append(" = ".join(paths))
        ordered = sorted(folders, key=lambda name: (SPLITS.index(home[folders[name][0]].split), name))
        for first, second in itertools.combinations(ordered, 2):
            one, other = folders[first][0], folders[second][0]
            if home[one].domain == home[other].domain:
                seen["leak"].setdefault((second, first), []).append(f"{other} = {one}")
            elif home[one].split == home[other].split:
                seen["both_domains"].setdefault((first, second), []).append(f"{other} = {one}")
    for kind, (level, words) in _EQUAL.items():
        for (first, second), lines in sorted(seen[kind].items()):
            number = f"{len(lines):,} picture{'s' * (len(lines) != 1)}"
            are = "is" if len(lines) == 1 else "are"
            yield Finding(level, kind, words.format(number=number, are=are, first=first, second=second), lines)


def _of_similar(info: Mapping[str, ImageInfo], home: Mapping[str, Part], near: int) -> Iterator[Finding]:
    """Similar pictures of one domain; a hint, because simple pictures may look alike to a hash of 64 bits."""
    pairs: dict[tuple[str, str], list[str]] = {}
    for one, other in similar_pictures(info, near):
        first, second = sorted((one, other), key=lambda path: (-SPLITS.index(home[path].split), path))
        pairs.setdefault((home[first].folder, home[second].folder), []).append(f"{first} ~ {second}")
    for (first, second), lines in sorted(pairs.items()):
        where = f"within {first}" if first == second else f"between {first} and {second}"
        words = f"{len(lines):,} pair{'s' * (len(lines) != 1)} of similar pictures {where}: a hint, look at them"
        yield Finding("note", "similar", words, lines)


def _of_pairs(parts: Sequence[Part]) -> Iterator[Finding]:
    stems = {part.folder: {PurePosixPath(path).stem for path in part.images} for part in parts}
    for split in SPLITS:
        a, b = (folder_of("two", split, letter) for letter in "AB")
        if a not in stems or b not in stems:
            continue
        common = stems[a] & stems[b]
        if not common or len(common) < PAIRED_SHARE * len(stems[a] | stems[b]):  # numbers coincide here and there
            continue
        alone = sorted([f"{a}/{name}" for name in stems[a] - common] + [f"{b}/{name}" for name in stems[b] - common])
        number = f"{len(common):,} names in both"
        use = "training ignores that" if split == "train" else "translations can be scored against the ground truth"
        words = f"{a} and {b} pair by name ({number}, {len(alone):,} in one only); if these are true pairs, {use}"
        yield Finding("note", "pairs", words, alone)


def _count(files: Sequence[str], part: Part, words: str) -> str:
    """``3 of 20 images of trainA are gray``; words are in the plural."""
    many = words if len(files) != 1 else _SINGULAR.sub(lambda match: _ONE[match[0]], words)
    if len(files) == len(part.images):
        return (
            f"all {len(files):,} images of {part.folder} {words}"
            if len(files) > 1
            else f"the image of {part.folder} {many}"
        )
    return f"{len(files):,} of {len(part.images):,} images of {part.folder} {many}"
