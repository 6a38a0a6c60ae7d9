"""Check a set before days of training (each image is read once), and report it for people and for programs."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table

from unpaired.config import checked, stored
from unpaired.data.check_findings import Finding, Part, findings
from unpaired.data.folders import Listing, missing, scan
from unpaired.data.foreign import by_kind
from unpaired.data.inspection import ImageInfo, Progress, in_threads, inspect
from unpaired.data.layouts import OFFICIAL, SPLITS, Counts, Kind, folder_of
from unpaired.data.prepare_settings import NEAR
from unpaired.data.remarks import Remarks
from unpaired.data.settings import DataConfig
from unpaired.errors import DataError
from unpaired.files import read_json

RECORD = "preparation.json"
RECORD_FORMAT = 1
SHOWN = 5
"""Files that a line names; all of them are in the JSON file."""


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
        return sum(len(part.info) for part in self.parts)

    def count(self, level: str) -> int:
        """How many findings of a level there are."""
        return sum(finding.level == level for finding in self.findings)

    def passed(self, *, strict: bool) -> bool:
        """No errors, and with ``strict`` no warnings."""
        return not self.count("error") and not (strict and self.count("warning"))


def check_set(
    folder: str | Path,
    progress: Progress,
    *,
    name: str | None = None,
    known: Mapping[str, ImageInfo] | None = None,
    near: int = NEAR,
) -> Report:
    """Check a set in one of the two layouts that training reads.

    Args:
        folder: Holds trainA and trainB, or train/<domain>.
        progress: Told how far it is.
        name: The published set to compare counts with; ``None`` goes by ``preparation.json`` or the folder's name.
        known: Path below ``folder`` -> info of images that need not be read again.
        near: Bits of 64 that may differ between similar pictures; negative: do not look for any.

    Raises:
        DataError: There is no such layout, or a folder cannot be listed.
    """
    start, folder = time.monotonic(), Path(folder)
    try:
        kind, parts, findings_of_layout = _parts(folder)
    except OSError as error:
        raise DataError(f"{error.filename or folder}: cannot be read: {error.strerror or error}") from error
    record = load_record(folder)
    classes: tuple[str, ...] = tuple(record["classes"]) if record else ()
    name = name or _published(folder, record)
    official = _official(OFFICIAL[name], kind, classes, parts) if name else {}
    for part in parts:
        part.official = official.get((part.split, part.domain))
    _read(folder, parts, known or {}, progress)
    seen = [*findings_of_layout, *findings(parts, kind, near)]
    seen.extend(_of_counts(parts, name))
    if record is not None and not record["finished"]:
        words = "its preparation was interrupted; run the same 'unpaired data prepare' command again"
        seen.append(Finding("error", "unfinished", words, []))
    order = {"error": 0, "warning": 1, "note": 2}
    seen.sort(key=lambda finding: order[finding.level])
    return Report(folder, name, kind, classes, tuple(parts), tuple(seen), time.monotonic() - start)


@stored
class _Source:
    """An archive or a folder that a set was prepared from."""

    file: str
    files: int
    listing: str


@stored
class _Prepared:
    """What ``preparation.json`` holds."""

    name: str | None
    layout: str
    classes: list[str]
    settings: dict[str, Any]
    sources: list[_Source]
    finished: bool
    left_out: list[str]


def load_record(folder: Path) -> dict[str, Any] | None:
    """What ``preparation.json`` says a folder was prepared from, or ``None`` where there is none.

    Raises:
        DataError: It is damaged or of a newer version.
    """
    path = folder / RECORD
    try:
        found: dict[str, Any] = read_json(path)
        if found["format"] != RECORD_FORMAT:
            raise DataError(f"{path}: was written by another version of unpaired; choose another folder")
        checked(_Prepared, found)
        return found
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); prepare the set again with another --out") from error


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
            f"; 'unpaired data prepare {shlex.quote(str(folder))} --out OUT' makes the layout from folders of images"
            if inside
            else ""
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
            seen.append(Finding("warning", "no_test", "there are no test images: scores need held-out images", []))
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
    found = scan(folder / part.folder)
    part.images, part.others, part.subfolders = (
        [f"{part.folder}/{path.name}" for path in paths] for paths in (found.images, found.others, found.subfolders)
    )
    for files, words in by_kind(found.others).values():
        if words:
            part.foreign.setdefault(words, []).extend(f"{part.folder}/{path.name}" for path in files)
    part.bytes = sum(path.stat().st_size for path in found.images)
    return part


def _read(folder: Path, parts: list[Part], known: Mapping[str, ImageInfo], progress: Progress) -> None:
    def look(path: str) -> ImageInfo | DataError:
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
            part.info[path] = result


def _published(folder: Path, record: dict[str, Any] | None) -> str | None:
    name = record["name"] if record else folder.resolve().name
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


def parts_table(report: Report) -> Table:
    """One row per folder."""
    table = Table(box=None, pad_edge=False)
    table.add_column("folder", no_wrap=True)
    published = any(part.official is not None for part in report.parts)
    for head in ("images", *(["published"] if published else []), "MB", "pixels", "modes", "formats"):
        table.add_column(head, justify="right" if head in ("images", "published", "MB") else "left")
    letters = dict(zip("AB", report.classes, strict=False)) if report.kind == "two" else {}
    for part in report.parts:
        name = letters.get(part.domain)
        table.add_row(
            part.folder + (f" ({name})" if name and name != part.domain else ""),
            f"{len(part.images):,}",
            *([f"{part.official:,}" if part.official is not None else ""] if published else []),
            f"{part.bytes / 1e6:,.1f}",
            pixels(part),
            _counts(Counter(info.facts.mode for info in part.info.values())),
            _counts(Counter(info.facts.kind for info in part.info.values())),
        )
    return table


def pixels(part: Part) -> str:
    """Sizes in words: ``256 x 256``, or the shorter side from, median and to, and how many are not square."""
    sizes = Counter((info.facts.width, info.facts.height) for info in part.info.values())
    if not sizes:
        return ""
    if len(sizes) == 1:
        ((width, height),) = sizes
        return f"{width} x {height}"
    short = sorted(min(size) for size in sizes.elements())
    long = max(max(size) for size in sizes)
    oblong = sum(count for (width, height), count in sizes.items() if width != height)
    words = f"shorter side {short[0]}, median {median(short):.0f}, to {short[-1]}; longest {long}"
    return words + (f"; {oblong:,} not square" if oblong else "; all square")


def _counts(counter: Counter[str]) -> str:
    common = counter.most_common()
    return common[0][0] if len(common) == 1 else ", ".join(f"{name} {count:,}" for name, count in common)


def lines(report: Report) -> Iterator[str]:
    """One line per finding, worst first, files capped; then the verdict."""
    for finding in report.findings:
        files = finding.files[:SHOWN]
        more = f", and {len(finding.files) - SHOWN:,} more" if len(finding.files) > SHOWN else ""
        yield f"{finding.level}: {finding.words}" + (f": {', '.join(files)}{more}" if files else "")
    if line := remarks(report).line:
        yield line
    counts = [
        f"{report.count(level)} {level}{'s' * (report.count(level) != 1)}" for level in ("error", "warning", "note")
    ]
    yield f"{report.images:,} images checked in {report.seconds:.1f} s: {', '.join(counts)}."


def remarks(report: Report) -> Remarks:
    """What training leaves out of the set, as it says itself."""
    training = [part for part in report.parts if part.split == "train"]
    listing = Listing(others=[report.folder / path for part in training for path in part.others],
                      subfolders=[report.folder / path for part in training for path in part.subfolders])  # fmt: skip
    found = Remarks(listing, pixels=DataConfig().plain_formats[0])
    for info in (info for part in training for info in part.info.values()):
        found.add(info.facts, info.no_data)
    return found


def to_json(report: Report) -> dict[str, Any]:
    """Everything, uncapped."""
    return {
        "folder": str(report.folder),
        "published_set": report.name,
        "layout": report.kind,
        "classes": list(report.classes),
        "images": report.images,
        "seconds": round(report.seconds, 3),
        "errors": report.count("error"),
        "warnings": report.count("warning"),
        "notes": report.count("note"),
        "folders": [_part(part) for part in report.parts],
        "findings": [asdict(finding) for finding in report.findings],
    }


def _part(part: Part) -> dict[str, Any]:
    short = sorted(min(info.facts.width, info.facts.height) for info in part.info.values())
    sizes = Counter(f"{info.facts.width}x{info.facts.height}" for info in part.info.values())
    return {
        "folder": part.folder,
        "images": len(part.images),
        "usable": len(part.info),
        "published": part.official,
        "bytes": part.bytes,
        "shorter_side": {"min": short[0], "median": median(short), "max": short[-1]} if short else None,
        "not_square": sum(info.facts.width != info.facts.height for info in part.info.values()),
        "sizes": dict(sizes.most_common(20)),
        "modes": dict(Counter(info.facts.mode for info in part.info.values())),
        "formats": dict(Counter(info.facts.kind for info in part.info.values())),
    }
