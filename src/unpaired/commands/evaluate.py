"""``unpaired evaluate``: scores of a run on held-out images, beside those of the untranslated input."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from tyro.conf import Positional, arg

from unpaired.data import UnpairedFiles, find_test_images
from unpaired.errors import DataError
from unpaired.evaluation import append_record, evaluate_run
from unpaired.inference import Translator
from unpaired.metrics import METRICS, Score
from unpaired.training import RunConfig


@dataclass(frozen=True)
class Evaluate:
    """Score a trained run on held-out images: SWD, and paired scores where file names pair source and target.

    The averaged (EMA) and the last weights are scored side by side with the untranslated input. Every score is added,
    with its protocol, to evaluations.jsonl in the run folder.
    """

    run: Positional[Annotated[Path, arg(help="A run folder (the --out of 'unpaired train').")]]
    data: Positional[Annotated[Path | None, arg(help="Folder with testA and testB.")]] = None
    source: Path | None = None
    """Folder of source images, instead of DATA."""
    target: Path | None = None
    """Folder of real target images, instead of DATA."""
    direction: Literal["AtoB", "BtoA"] | None = None
    """Which domain of DATA is the source; unset takes the run's own direction."""
    paired: Literal["auto", "yes", "no"] = "auto"
    """Whether files of the same stem are input and truth; auto takes them as such when every source file has one."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    batch_size: int = 8
    """Images translated at a time."""
    seed: int = 0
    """Seed of the random projections and patches."""


def main(argv: Sequence[str]) -> int:
    """Evaluate, print a table, keep a record."""
    options = tyro.cli(Evaluate, args=list(argv), prog="unpaired evaluate")
    description = Translator.from_pretrained(options.run, device="cpu").description
    files = _files(options)
    console = Console(stderr=True)
    with Progress(console=console, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("translating", total=None)
        evaluation = evaluate_run(
            options.run,
            files,
            device=options.device,
            batch_size=options.batch_size,
            seed=options.seed,
            paired=options.paired,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    where = str(options.data) if options.data else f"{options.source} -> {options.target}"
    Console(width=None if sys.stdout.isatty() else 110).print(
        scores_table(f"{options.run} on {where}", evaluation.scores)
    )
    append_record(
        options.run, evaluation, data=where, seed=options.seed, images_seen=int(description.get("images_seen", 0))
    )
    return 0


def _files(options: Evaluate) -> UnpairedFiles:
    files = find_test_images(options.data, options.source, options.target)
    if files is None:
        raise DataError(
            f"{options.data or 'no folder'}: there are no held-out images; give a folder with testA and testB, or "
            "--source DIR --target DIR"
        )
    direction = options.direction
    if direction is None and (options.run / "run.yaml").exists() and options.data is not None:
        direction = RunConfig.load(options.run / "run.yaml").dataset.direction
    return files.swapped() if direction == "BtoA" else files


def scores_table(title: str, scores: Mapping[str, Mapping[str, Score]]) -> Table:
    """A table for the terminal: one row per set of images, one column per score, full protocol names below."""
    first = next(iter(scores.values()))
    names = "\n".join(score.full_name for score in first.values())
    table = Table(title=title, title_justify="left", caption=names, caption_justify="left")
    table.add_column("", no_wrap=True)
    for name, score in first.items():
        arrow = "↓" if METRICS[name].better == "lower" else "↑"
        unit = f"\n({score.unit})" if score.unit else ""
        table.add_column(f"{score.label} {arrow}{unit}", justify="right")
    for row, found in scores.items():
        table.add_row(row, *(f"{found[name].value:.3f}" for name in first))
    return table
