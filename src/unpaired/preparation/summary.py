"""A check's report for a person, as a table and lines, and for programs, as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from statistics import median
from typing import Any

from rich.table import Table

from unpaired.preparation.check import Part, Report

SHOWN = 5
"""Files that a line names; all of them are in the JSON file."""


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
            _counts(Counter(facts.mode for facts in part.facts.values())),
            _counts(Counter(facts.format for facts in part.facts.values())),
        )
    return table


def pixels(part: Part) -> str:
    """Sizes in words: ``256 x 256``, or the shorter side from, median and to, and how many are not square."""
    sizes = Counter((facts.width, facts.height) for facts in part.facts.values())
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
    counts = [
        f"{report.count(level)} {level}{'s' * (report.count(level) != 1)}" for level in ("error", "warning", "note")
    ]
    yield f"{report.images:,} images checked in {report.seconds:.1f} s: {', '.join(counts)}."


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
    short = sorted(min(facts.width, facts.height) for facts in part.facts.values())
    sizes = Counter(f"{facts.width}x{facts.height}" for facts in part.facts.values())
    return {
        "folder": part.folder,
        "images": len(part.images),
        "usable": len(part.facts),
        "published": part.official,
        "bytes": part.bytes,
        "shorter_side": {"min": short[0], "median": median(short), "max": short[-1]} if short else None,
        "not_square": sum(facts.width != facts.height for facts in part.facts.values()),
        "sizes": dict(sizes.most_common(20)),
        "modes": dict(Counter(facts.mode for facts in part.facts.values())),
        "formats": dict(Counter(facts.format for facts in part.facts.values())),
    }
