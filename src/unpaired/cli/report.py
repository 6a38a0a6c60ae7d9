"""``unpaired report``: one page that shows what runs make, and figures for papers."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from rich.console import Console
from rich.progress import Progress
from tyro.conf import Positional, arg

from unpaired.cli.options import parse
from unpaired.config import settings
from unpaired.errors import ConfigError


@settings
class Report:
    """Write one self-contained HTML page about one or several runs: translations side by side, scores, samples over
    training, what the encoders find significant, losses, settings. With --figures also PNG, PDF and SVG for papers.

    Example: unpaired report runs/mine runs/quick --out report.html
    """

    runs: Positional[
        Annotated[
            tuple[Path, ...],
            arg(
                metavar="RUN... [DATA]",
                help="Run folders; then, if other than the runs' own, a folder with testA and testB.",
            ),
        ]
    ]
    out: Path = Path("report.html")
    """The page."""
    figures: Path | None = None
    """Folder for the figures; made if missing."""
    source: Path | None = None
    """Folder of source images, instead of DATA."""
    target: Path | None = None
    """Folder of real target images, where they are the truth of the source images of the same names."""
    direction: Literal["AtoB", "BtoA"] | None = None
    """Which domain of DATA is the source; unset takes the runs' own direction."""
    show: Annotated[int, Field(ge=1, le=1000)] = 12
    """Held-out images to show, evenly spaced by name."""
    pick: tuple[str, ...] = ()
    """Names of the images to show instead."""
    names: tuple[str, ...] = ()
    """What to call the runs, in their order; unset takes their methods, or their folders where methods repeat."""
    taps: tuple[str, ...] | None = None
    """Encoder layers for the heat maps (block1 block5); unset: the last two at which the runs select queries, or block1
    and block5 if none does."""
    weights: Literal["ema", "last", "best"] = "ema"
    """The averaged weights, those of the last step, or those that scored best during training."""
    paired: Literal["auto", "yes", "no"] = "auto"
    """Whether files with the same stem are an input and its ground truth; auto: yes if each source file has a target
    file of its stem."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    option_groups: ClassVar[dict[str, tuple[str, ...]]] = {
        "image": ("source", "target", "direction", "show", "pick", "paired"),
        "run": ("names", "taps", "weights", "device"),
    }


def main(argv: Sequence[str]) -> int:
    """Translate the chosen images, look into the encoders, write the page and the figures."""
    options = parse(Report, argv, "unpaired report")
    _check_places(options)
    from unpaired.data import UnpairedFiles
    from unpaired.data.folders import find_partners, is_dataset
    from unpaired.data.places import images_in
    from unpaired.reporting.pictures import make_gallery
    from unpaired.reporting.report import write_figures, write_report
    from unpaired.reporting.run_folders import choose_images, held_out_images, read_runs

    paths, data = _split(options.runs)
    runs = read_runs(paths, options.names)
    if data is None and options.source is not None and options.target is None:
        files = UnpairedFiles(images_in(options.source), ())
    else:
        datasets = {run.name: run.config.dataset for run in runs}
        files, _ = held_out_images(datasets, data, options.source, options.target, options.direction)
    images = choose_images(files, options.show, options.pick)
    truths = find_partners(files.source, files.target, options.paired)
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("translating", total=None)
        gallery = make_gallery(
            runs,
            images,
            truths,
            taps=options.taps,
            weights=options.weights,
            device=options.device,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    folder = images[0].parent if is_dataset(images[0]) else images[0].resolve().parent
    chosen = "named with --pick" if options.pick else "evenly spaced by name"
    page = write_report(
        options.out,
        runs,
        gallery,
        images=f"{len(images)} of {len(files.source)} held-out images of {folder.parent.name}/{folder.name}, {chosen}",
        weights=options.weights,
        command=shlex.join(["unpaired", "report", *argv]),
    )
    if page.reduction:
        print(f"{page.reduction} --figures DIR writes them all in full.")
    print(f"{page.path.resolve()}: {page.size / 1e6:.1f} MB, needs nothing else; open it in a browser")
    if options.figures is not None:
        written = write_figures(options.figures, runs, gallery, weights=options.weights)
        print(f"{options.figures}: {len(written)} figures ({', '.join(path.name for path in written)})")
    return 0


def _check_places(options: Report) -> None:
    """Fail now rather than after minutes of work."""
    if options.out.is_dir():
        raise ConfigError(f"out: {options.out} is a folder; name a file, such as {options.out / 'report.html'}")
    if options.figures is not None and options.figures.exists() and not options.figures.is_dir():
        raise ConfigError(f"figures: {options.figures} is a file; name a folder")


def _split(paths: Sequence[Path]) -> tuple[Sequence[Path], Path | None]:
    """Separate a data folder at the end from the runs."""
    from unpaired.data.folders import is_dataset

    last = paths[-1] if len(paths) > 1 else None
    if last is not None and (is_dataset(last) or (not (last / "run.yaml").exists() and (last / "testA").is_dir())):
        return paths[:-1], last
    return paths, None
