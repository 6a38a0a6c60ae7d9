"""``unpaired study``: make a blind study of several methods, serve it to raters, count their votes."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field
from rich.console import Console
from rich.progress import Progress
from tyro.conf import Positional, arg

from unpaired.cli.options import parse
from unpaired.config import Port, Seed, settings
from unpaired.errors import ConfigError, DataError, require_packages
from unpaired.files import write_atomically
from unpaired.study.records import DATABASE, StoreError, counted
from unpaired.study.store import Store

if TYPE_CHECKING:
    from unpaired.study.prepare import Plan

_OF_MAKING = ("data", "source", "target", "direction", "out", "names", "show", "examples", "seed", "weights", "size",
              "device")  # fmt: skip


@settings
class Study:
    """Ask people which method is best: blind, shuffled, side by side, with the three questions of the paper's Table 2.

    'unpaired study RUN RUN --out STUDY' translates held-out images with each run, or reads translations from folders,
    and serves a page on this machine. 'unpaired study STUDY' opens it again; with --table or --export it prints
    or writes what raters said, also while it is served elsewhere. See docs/study.md.

    Example: unpaired study runs/mine runs/cut --out studies/first
    """

    run: Positional[
        Annotated[
            tuple[Path, ...],
            arg(
                metavar="RUN [RUN ...]",
                help="Two to nine runs, or folders of translations named like the sources; or one existing study.",
            ),
        ]
    ]
    out: Path | None = None
    """Folder for a new study."""
    data: Path | None = None
    """Folder with testA and testB; unset takes the runs' own."""
    source: Path | None = None
    """Folder of source images, instead of DATA."""
    target: Path | None = None
    """Folder of real target images, instead of DATA."""
    direction: Literal["AtoB", "BtoA"] | None = None
    """Which domain of DATA is the source; unset takes the runs' own direction."""
    names: tuple[str, ...] = ()
    """Names of the methods in the results, one for each RUN; unset takes the folders' names. Raters never see them."""
    show: Annotated[int, Field(ge=1, le=10_000)] = 30
    """Source images to show, evenly spaced by name."""
    examples: Annotated[int, Field(ge=1, le=100)] = 6
    """Real target images to show beside the question about the target domain."""
    seed: Seed = 0
    """Seed of the orders in which raters see images and methods."""
    weights: Literal["ema", "last", "best"] = "ema"
    """Of the runs: the averaged weights, those of the last step, or those that scored best during training."""
    size: str = "training"
    """How runs get the images. training: with the shorter side scaled to that of the training crops. original: at
    their own size. A number: with the shorter side scaled to that many pixels."""
    device: str = "auto"
    """To translate on: auto, cpu, cuda, cuda:N or mps."""
    host: str = "127.0.0.1"
    """Address to serve at. Anything but a loopback address lets other machines vote."""
    port: Port = 8000
    """Port to serve at; 0 takes any free one."""
    serve: bool = True
    """Serve the page; --no-serve only makes the study."""
    table: bool = False
    """Print shares, intervals and tests, and do not serve."""
    format: Literal["text", "markdown", "csv"] = "text"
    """How --table prints."""
    export: Path | None = None
    """Write every vote to this CSV file, and do not serve."""
    option_groups: ClassVar[dict[str, tuple[str, ...]]] = {
        "image": ("data", "source", "target", "direction", "show", "examples", "seed"),
        "method": ("names", "weights", "size", "device"),
        "server": ("host", "port", "serve"),
        "result": ("table", "format", "export"),
    }


def main(argv: Sequence[str]) -> int:
    """Make or open a study, then print, write or serve it."""
    options = parse(Study, argv, "unpaired study")
    results_only = options.table or options.export is not None
    if options.serve and not results_only:
        require_packages("the page of a study", "study", "starlette", "uvicorn")  # before minutes of translating
    store = _store(options)
    try:
        if options.export is not None:
            _export(store, options.export)
        if options.table:
            _print_results(store, options.format)
        if options.serve and not results_only:
            _serve(store, options.host, options.port)
    except StoreError as error:
        raise DataError(f"{store.folder / DATABASE}: cannot be read ({error}); restore a copy of it") from error
    return 0


def _store(options: Study) -> Store:
    """The study that was named, made if necessary."""
    opened = [folder for folder in options.run if (folder / DATABASE).is_file()]
    if len(options.run) == 1 and opened:
        _nothing_of_making(options)
        return Store(opened[0])
    if opened:
        raise ConfigError(f"{opened[0]} is a study; open it alone: unpaired study {shlex.quote(str(opened[0]))}")
    if options.out is None:
        if len(options.run) < 2:
            what = f"{options.run[0]} holds no study, and a" if options.run else "no RUN was given: a"
            raise ConfigError(f"{what} new study compares at least two methods: unpaired study RUN RUN --out STUDY")
        raise ConfigError("--out is missing: a new study needs a folder, unpaired study RUN RUN --out STUDY")
    return _made_study(options, options.out)


def _made_study(options: Study, out: Path) -> Store:
    """A new study, or the one that the same command made before."""
    from unpaired.study.prepare import make_study  # loads torch, which an existing study does not need

    plan = _plan(options)
    if (out / DATABASE).is_file():
        return _same_study(Store(out), plan)
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        tasks: dict[str, Any] = {}

        def progress(words: str, done: int, total: int) -> None:
            if words not in tasks:
                tasks[words] = bar.add_task(words, total=total)
            bar.update(tasks[words], completed=done)

        shown = make_study(plan, out, progress)
    few = f" (all that there are; {options.show} were asked for)" if shown < options.show else ""
    print(f"made {out}: {shown} images{few}, {len(plan.contenders)} methods")
    return Store(out)


def _nothing_of_making(options: Study) -> None:
    """Reject options that only apply to a new study."""
    for field in fields(options):
        if field.name in _OF_MAKING and field.default is not MISSING and getattr(options, field.name) != field.default:
            raise ConfigError(
                f"{field.name}: {options.run[0]} exists and cannot be changed; "
                "give the runs and a new --out for another study"
            )


def _plan(options: Study) -> Plan:
    from unpaired.reporting.run_folders import held_out_images
    from unpaired.study.prepare import Plan, contenders_of

    if options.size not in ("training", "original") and not (options.size.isdecimal() and int(options.size) >= 16):
        raise ConfigError(f"size is '{options.size}': it must be training, original, or a number of pixels from 16 on")
    contenders = contenders_of(options.run, options.names)
    datasets = {contender.name: contender.dataset for contender in contenders if contender.is_run}
    files, described = held_out_images(
        datasets, options.data, options.source, options.target, options.direction, option="--data"
    )
    settings = {
        "runs": [str(contender.folder.resolve()) for contender in contenders],
        "names": [contender.name for contender in contenders],
        "data": described,
        "images": options.show,
        **{name: getattr(options, name) for name in ("examples", "seed", "weights", "size")},
    }
    return Plan(
        contenders, files, options.show, options.examples, options.seed, options.weights, options.size,
        options.device, settings,
    )  # fmt: skip


def _same_study(store: Store, plan: Plan) -> Store:
    before = store.study.settings
    changed = [key for key, value in plan.settings.items() if before.get(key) != value]
    if changed:
        listed = "; ".join(f"{key} was {before.get(key)!r}, now {plan.settings[key]!r}" for key in changed[:3])
        raise ConfigError(f"{store.folder} holds another study ({listed}); choose another --out")
    return store


def _export(store: Store, path: Path) -> None:
    from unpaired.study.results import votes_csv

    votes = store.votes()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, votes_csv(votes).encode())
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error
    print(f"{len(votes)} votes written to {path}")


def _print_results(store: Store, kind: str) -> None:
    from unpaired.study import results  # loads SciPy

    found = results.evaluate_study(store)
    if kind != "text":
        print(results.markdown(found) if kind == "markdown" else results.results_csv(found), end="")
        return
    console = Console(width=None if sys.stdout.isatty() else 110)
    console.print(results.share_table(found))
    if found.votes:
        console.print(results.significance_table(found))
        console.print(results.EXPLANATION, markup=False, style="dim")
    for warning in found.warnings:
        console.print(f"Note: {warning}.", markup=False)


def _serve(store: Store, host: str, port: int) -> None:
    store.require_writing()
    study = store.study
    print(f"{store.folder}: {len(study.images)} images, {len(study.methods)} methods, {_progress(store)}")
    from unpaired.study.server import serve  # needs the packages of the extra

    serve(
        store, host, port,
        lambda address: print(f"open {address} in a browser; Ctrl-C ends it, votes are kept", flush=True),
    )  # fmt: skip
    print(f"\nended with {_progress(store)}; results: unpaired study {shlex.quote(str(store.folder))} --table")


def _progress(store: Store) -> str:
    raters = store.raters()
    return f"{counted(raters, store.study)}, {sum(rater.votes for rater in raters):,} votes"
