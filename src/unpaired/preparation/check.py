"""What is worth knowing about a set before days of training: each image is read once."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from unpaired.data.folders import missing
from unpaired.errors import DataError
from unpaired.preparation.archives import is_image_name
from unpaired.preparation.facts import ImageFacts, in_threads, inspect
from unpaired.preparation.findings import Finding, findings
from unpaired.preparation.layouts import SPLITS, Kind, folder_of
from unpaired.preparation.official import OFFICIAL, Counts
from unpaired.preparation.plan import Progress
from unpaired.preparation.record import RECORD, Record, load_record

NEAR = 4
"""Bits of 64 that may differ between pictures that are called similar."""


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
    subfolders: list[str] = field(default_factory=list)
    """Folders in it, which training does not read."""
    bytes: int = 0
    """Of the images."""
    facts: dict[str, ImageFacts] = field(default_factory=dict)
    """Path -> facts of every image that can be used."""
    unreadable: list[str] = field(default_factory=list)
    """One line for every other image."""
    official: int | None = None
    """How many images the published set has here."""


@dataclass(frozen=True)
class Report:
    """What a check saw."""

    folder: Path
    name: str | None
    """Of the published set that it is compared with."""
    kind: Kind
    classes: tuple[str, ...]
    """What A and B are, where that is known."""
    parts: tuple[Part, ...]
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def images(self) -> int:
        """Images that can be used."""
        return sum(len(part.facts) for part in self.parts)

    def count(self, level: str) -> int:
        """How many findings of a level there are."""
        return sum(finding.level == level for finding in self.findings)

    def passed(self, *, strict: bool) -> bool:
        """No errors, and with ``strict`` no warnings."""
        return not self.count("error") and not (strict and self.count("warning"))


def check_set(
    folder: Path,
    progress: Progress,
    *,
    name: str | None = None,
    known: Mapping[str, ImageFacts] | None = None,
    near: int = NEAR,
) -> Report:
    """Check a set in one of the two layouts that training reads.

    Args:
        folder: Holds trainA and trainB, or train/<domain>.
        progress: Told how far it is.
        name: The published set to compare counts with; ``None`` goes by ``preparation.json`` or the folder's name.
        known: Path below ``folder`` -> facts of images that need not be read again.
        near: Bits of 64 that may differ between similar pictures; negative: do not look for any.

    Raises:
        DataError: There is no such layout, or a folder cannot be listed.
    """
    start = time.monotonic()
    try:
        kind, parts, findings_of_layout = _parts(folder)
    except OSError as error:
        raise DataError(f"{error.filename or folder}: cannot be read: {error.strerror or error}") from error
    record = load_record(folder)
    classes: tuple[str, ...] = tuple(record.classes) if record else ()
    name = name or _published(folder, record)
    official = _official(OFFICIAL[name], kind, classes, parts) if name else {}
    for part in parts:
        part.official = official.get((part.split, part.domain))
    _read(folder, parts, known or {}, progress)
    seen = [*findings_of_layout, *findings(parts, kind, near)]
    seen.extend(_of_counts(parts, name))
    if record is not None and not record.finished:
        words = "its preparation was interrupted; the same 'unpaired data prepare' command goes on"
        seen.append(Finding("error", "unfinished", words, []))
    order = {"error": 0, "warning": 1, "note": 2}
    seen.sort(key=lambda finding: order[finding.level])
    return Report(folder, name, kind, classes, tuple(parts), tuple(seen), time.monotonic() - start)


def _parts(folder: Path) -> tuple[Kind, list[Part], list[Finding]]:
    """The folders of a set, whatever is wrong with them, and what is missing among them."""
    if not folder.is_dir():
        raise DataError(f"{folder}: is a file, not a folder" if folder.exists() else missing(folder))
    inside = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    train = folder / "train"
    domains = (
        sorted(e.name for e in train.iterdir() if e.is_dir() and not e.name.startswith(".")) if train.is_dir() else []
    )
    if {"trainA", "trainB"} & set(inside):
        kind: Kind = "two"
        domains = ["A", "B"]
        known = {folder_of(kind, split, domain) for split in SPLITS for domain in domains}
        unknown = [name for name in inside if name not in known]
    elif domains:
        kind = "domains"
        unknown = [name for name in inside if name not in SPLITS]
        for split in set(SPLITS) & set(inside):
            names = (e.name for e in (folder / split).iterdir() if e.is_dir() and not e.name.startswith("."))
            unknown += [f"{split}/{name}" for name in sorted(names) if name not in domains]
    else:
        found = f"the folders {', '.join(inside[:6])}" if inside else "no folders"
        advice = (
            f"; 'unpaired data prepare {folder} --out OUT' makes the layout from folders of images" if inside else ""
        )
        raise DataError(f"{folder}: expected trainA and trainB, or train/<domain>; found {found}{advice}")
    seen: list[Finding] = []
    parts: list[Part] = []
    for split in SPLITS:
        there = [domain for domain in domains if (folder / folder_of(kind, split, domain)).is_dir()]
        parts += [_list(folder, Part(split, domain, folder_of(kind, split, domain))) for domain in there]
        lacking = [folder_of(kind, split, domain) for domain in domains if domain not in there]
        if there and lacking:
            present = folder_of(kind, split, there[0])
            words = f"{' and '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} missing beside {present}"
            seen.append(Finding("error", "missing", words, []))
        elif not there and split == "test":
            seen.append(Finding("warning", "no_test", "there are no test images: scores need images held out", []))
    if len(domains) < 2:
        seen.append(
            Finding("error", "missing", f"there is only one domain ({domains[0]}); two are needed at least", [])
        )
    if unknown:
        seen.append(
            Finding("note", "unknown", f"{_number(len(unknown), 'folder')} that training does not read", unknown)
        )
    return kind, parts, seen


def _list(folder: Path, part: Part) -> Part:
    with os.scandir(folder / part.folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            path = f"{part.folder}/{entry.name}"
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                part.subfolders.append(path)
            elif is_image_name(entry.name):
                part.images.append(path)
                part.bytes += entry.stat().st_size if entry.is_file() else 0
            else:
                part.others.append(path)
    return part


def _read(folder: Path, parts: list[Part], known: Mapping[str, ImageFacts], progress: Progress) -> None:
    def look(path: str) -> ImageFacts | DataError:
        try:
            return known.get(path) or inspect((folder / path).read_bytes(), path)
        except DataError as error:
            return error
        except OSError as error:
            return DataError(f"{path}: cannot be read: {error.strerror or error}")

    everything = [(part, path) for part in parts for path in part.images]
    results = in_threads(look, (path for _, path in everything))
    for number, ((part, path), result) in enumerate(zip(everything, results, strict=True), 1):
        progress("checking images", number, len(everything))
        if isinstance(result, DataError):
            part.unreadable.append(str(result))
        else:
            part.facts[path] = result


def _published(folder: Path, record: Record | None) -> str | None:
    name = record.name if record else folder.resolve().name
    return name if name in OFFICIAL else None


def _official(counts: Counts, kind: Kind, classes: tuple[str, ...], parts: list[Part]) -> Counts:
    """Published counts by split and domain of the layout at hand; AFHQ's classes are its A and B."""
    letters = dict(zip(classes, "AB", strict=False)) if kind == "two" and len(classes) == 2 else {}
    if not any(domain in "AB" for _, domain in counts):
        if kind == "two":
            return {(split, letters[domain]): n for (split, domain), n in counts.items() if domain in letters}
        return counts
    return counts if kind == "two" else {}


def _of_counts(parts: list[Part], name: str | None) -> list[Finding]:
    """Where counts differ from the published ones; what was moved to val counts as training."""
    seen = []
    moved = {part.domain: len(part.images) for part in parts if part.split == "val"}
    for part in parts:
        if part.official is None:
            continue
        val = moved.get(part.domain, 0) if part.split == "train" else 0
        if len(part.images) + val != part.official:
            beside = f" (and {val:,} in val)" if val else ""
            words = (
                f"{part.folder} holds {len(part.images):,} images{beside}; the published {name} has {part.official:,}"
            )
            seen.append(Finding("warning", "counts", words, []))
    return seen


def _number(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'s' * (count != 1)}"


__all__ = ["NEAR", "RECORD", "Part", "Report", "check_set"]
