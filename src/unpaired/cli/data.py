"""``unpaired data``: prepare a set of images for training, or check one."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from tyro.conf import OmitArgPrefixes, Positional, arg

from unpaired.cli.options import parse
from unpaired.config import settings
from unpaired.data.layouts import OFFICIAL, how_to_get
from unpaired.data.prepare_settings import NEAR, PrepareSettings
from unpaired.errors import ConfigError, DataError, nearest
from unpaired.files import write_atomically

if TYPE_CHECKING:
    from unpaired.data.check import Report
    from unpaired.data.inspection import Progress

_HELP = """usage: unpaired data prepare|check ...

Prepare a set of images for training, or check one.

  prepare  make a set from archives that you downloaded, or from any folders of images
  check    counts, duplicates, leaks from test to train, unreadable files, modes, sizes

'unpaired data prepare --help' and 'unpaired data check --help' list the options.
Example: unpaired data check data/horse2zebra"""
_LINES = 160
"""Columns where there is no terminal to ask."""


Bits = Annotated[int, Field(ge=-1, le=16)]


@settings
class Prepare:
    """Make a set for training from archives that you downloaded, or from any folders of images, and check it.

    Nothing is downloaded; if the archive of a known set is missing, the message says where to get it. After an
    interruption, run the same command again to continue. See docs/data.md.

    Example: unpaired data prepare pictures --out data/mine
    """

    what: Positional[
        Annotated[
            str,
            arg(
                metavar="SET|FOLDER",
                help="horse2zebra (or another set of the CycleGAN collection), cityscapes, afhq; or a folder or zip "
                "archive with one subfolder of images per domain.",
            ),
        ]
    ]
    archives: Positional[
        Annotated[
            tuple[Path, ...],
            arg(metavar="[ARCHIVE ...]", help="The zip archives of a known set, or the folders they were unpacked to."),
        ]
    ] = ()
    out: Path | None = None
    """Folder to make."""
    settings: OmitArgPrefixes[PrepareSettings] = field(default_factory=PrepareSettings)
    near: Bits = NEAR
    """Report pictures as similar whose 64-bit hashes differ in at most this many bits; -1: look for none."""
    strict: bool = False
    """Count warnings as errors: exit code 1."""
    json: Path | None = None
    """Write all that was found to this file."""


@settings
class Check:
    """Check a set before training: counts, duplicates, leaks from test to train, unreadable files, modes, sizes.

    Exit code 1 if there are errors. See docs/data.md.

    Example: unpaired data check data/horse2zebra
    """

    folder: Positional[Annotated[Path, arg(metavar="DIR", help="Holds trainA and trainB, or train/<domain>.")]]
    published: str | None = None
    """Compare counts with this published set; unset goes by the folder's name or preparation.json."""
    near: Bits = NEAR
    """Report pictures as similar whose 64-bit hashes differ in at most this many bits; -1: look for none."""
    strict: bool = False
    """Count warnings as errors: exit code 1."""
    json: Path | None = None
    """Write all that was found to this file."""


def main(argv: Sequence[str]) -> int:
    """Prepare or check; 0 no errors, 1 errors were found."""
    kinds: dict[str, type[Prepare] | type[Check]] = {"prepare": Prepare, "check": Check}
    name = argv[0] if argv else "--help"
    if name in ("-h", "--help"):
        print(_HELP)
        return 0 if argv else 2
    if name not in kinds:
        raise ConfigError(f"there is no 'unpaired data {name}'{nearest(name, kinds)}; there are prepare and check")
    options = parse(kinds[name], argv[1:], f"unpaired data {name}")
    if isinstance(options, Prepare):
        return _prepare(options)
    if options.published is not None and options.published not in OFFICIAL:
        raise ConfigError(
            f"published: there is no set '{options.published}'{nearest(options.published, OFFICIAL)}; "
            f"known: {', '.join(OFFICIAL)}"
        )
    from unpaired.data.check import check_set

    with _progress() as progress:
        report = check_set(options.folder, progress, name=options.published, near=options.near)
    return _say(report, options.strict, options.json)


def _prepare(options: Prepare) -> int:
    from unpaired.data.prepare import RECIPES, prepare

    if options.out is None:
        if options.what in RECIPES and not options.archives:
            raise ConfigError(how_to_get(options.what))
        raise ConfigError("--out is missing: name the folder to make")
    try:
        with _progress() as progress:
            done = prepare(options.what, options.archives, options.out, options.settings, progress, near=options.near)
    except KeyboardInterrupt:
        print("run the same command again to continue", file=sys.stderr)
        raise
    console = _console()
    written, there = done.written.written, done.written.there
    words = f"{options.out}: {written:,} images written in {done.written.seconds:.1f} s"
    _print(console, words + (f", {there:,} existed already" if there else ""))
    for remark in done.plan.remarks:
        _print(console, remark)
    if done.written.lost:
        lost = (f"{name} of {count:,} image{'s' * (count != 1)}" for name, count in done.written.lost.most_common())
        _print(console, f"not kept in scaled images: {'; '.join(lost)}")
    code = _say(done.report, options.strict, options.json)
    if done.written.problems:
        shown = done.written.problems[:5]
        _print(console, f"error: {len(done.written.problems):,} images were left out:")
        for problem in shown:
            _print(console, f"  {problem}")
        if len(done.written.problems) > len(shown):
            _print(console, f"  and {len(done.written.problems) - len(shown):,} more, listed in preparation.json")
        return 1
    return code


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else _LINES, highlight=False)


def _print(console: Console, words: str) -> None:
    console.print(words, markup=False, soft_wrap=True)


def _say(report: Report, strict: bool, path: Path | None) -> int:
    from unpaired.data.check import lines, parts_table, to_json

    console = _console()
    name = f" as {report.name}" if report.name else ""
    _print(console, f"{report.folder}{name}:")
    console.print(parts_table(report))
    for line in lines(report):
        _print(console, line)
    if path is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, (json.dumps(to_json(report), indent=1, ensure_ascii=False) + "\n").encode())
        except OSError as error:
            raise DataError(f"cannot write {path}: {error.strerror or error}") from error
    return 0 if report.passed(strict=strict) else 1


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on a terminal, nothing elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(),
               TimeRemainingColumn(compact=True))  # fmt: skip
    with Bar(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task("reading", total=None)

        def progress(stage: str, done: int, total: int) -> None:
            if bar.tasks[0].description != stage:
                bar.reset(task, description=stage, total=total)
            bar.update(task, completed=done, total=total)

        yield progress
