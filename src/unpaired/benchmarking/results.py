"""The tables of a benchmark, and one page per data set: scores, costs, and translations of every contender."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from unpaired.benchmarking.matrix import Matrix
from unpaired.benchmarking.runs import Run
from unpaired.data.folders import find_partners
from unpaired.files import json_lines, write_atomically
from unpaired.grids import image_grid, png_bytes
from unpaired.methods import METHODS
from unpaired.reporting import page
from unpaired.reporting.formats import markdown_table, to_csv, to_json, to_latex, to_markdown
from unpaired.reporting.pictures import make_gallery
from unpaired.reporting.run_folders import choose_images, read_runs
from unpaired.reporting.tables import DASH, Comparison, collect
from unpaired.run_config import DatasetConfig, RunConfig, flat
from unpaired.run_folder import seconds_per_image

_SHOWN = 12
"""Held-out images on a page."""
_COSTS = {
    "label": "contender", "images": "images of a run", "seconds_per_image": "seconds per image",
    "minutes": "minutes of a run", "peak_memory_gib": "peak memory (GiB)", "seeds": "seeds",
}  # fmt: skip
"""Column of ``costs.csv`` -> its heading."""


def write_tables(matrix: Matrix, runs: Sequence[Run], out: Path) -> None:
    """Write ``results/DATA/table.{md,csv,json,tex}`` and ``costs.csv`` from the records of all finished runs.

    Args:
        matrix: What is compared.
        runs: Finished and unfinished ones.
        out: The benchmark's folder.

    Raises:
        UserError: The records cannot be compared (the message says why), or a file cannot be written.
    """
    for data, done in _finished(matrix, runs).items():
        comparison, folder, costs = _compare(matrix, done), out / "results" / data, _costs(matrix, done)
        folder.mkdir(parents=True, exist_ok=True)
        texts = {
            "table.md": f"{to_markdown(comparison)}\n{markdown_table(list(_COSTS.values()), _cost_words(costs))}",
            "table.csv": to_csv(comparison),
            "table.json": to_json(comparison),
            "table.tex": to_latex(comparison),
            "costs.csv": costs.to_csv(index=False, lineterminator="\n"),
        }
        for name, text in texts.items():
            write_atomically(folder / name, text.encode())


def write_pages(matrix: Matrix, runs: Sequence[Run], out: Path, notes: Sequence[str], command: str) -> list[Path]:
    """Write ``results/DATA/report.html`` and ``grid.png``: one column per contender, its first finished seed.

    Args:
        matrix: What is compared.
        runs: Finished and unfinished ones.
        out: The benchmark's folder.
        notes: Further remarks.
        command: The command that reproduces this.

    Returns:
        The pages.

    Raises:
        UserError: An image or a run cannot be read, or a file cannot be written.
    """
    budget, written = matrix.budget, []
    length = f"{budget.images:,} images" if budget.images is not None else f"{budget.minutes:g} minutes"
    for data, done in _finished(matrix, runs).items():
        folder, comparison = out / "results" / data, _compare(matrix, done)
        first = list({run.cell.contender: run for run in reversed(done)}.values())[::-1]
        files = first[0].cell.held_out
        found = read_runs([run.folder for run in first], [matrix.label(run.cell.contender) for run in first])
        gallery = make_gallery(
            found,
            choose_images(files, _SHOWN),
            find_partners(files.source, files.target, matrix.evaluate.paired),
            taps=(),
        )
        write_atomically(folder / "grid.png", png_bytes(image_grid(gallery.columns)))
        rows = [(name, list(cells)) for name, *cells in zip(gallery.names, *gallery.columns.values(), strict=True)]
        title, seeds = f"{len(first)} contenders on {data}", ", ".join(map(str, matrix.seeds))
        remarks = [*comparison.warnings, *notes]
        sections = [
            page.heading(title, f"Each trained for {length}, seeds {seeds}; scored on the same images."),
            page.score_table(comparison),
            page.table(list(_COSTS.values()), _cost_words(_costs(matrix, done)), title="Costs",
                       note="From the logs of training: steps and loading, without scores and sample grids."),
            page.gallery(
                list(gallery.columns), rows, title="Translations",
                note=f"{len(rows)} of {comparison.data.source_images} held-out images, evenly spaced by name; "
                "averaged weights of the first finished seed.",
            ),
            page.table(
                ["contender", "method", "published as", "settings that are not the method's defaults"],
                [_settings(matrix, run) for run in first], title="Contenders",
            ),
            *([page.notes(remarks, title="Notes")] if remarks else []),
            page.command(command),
        ]  # fmt: skip
        written.append(page.write_page(folder / "report.html", title, sections).path)
    return written


def _finished(matrix: Matrix, runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Data set -> its finished runs, if there are any, in the order of the contenders, seeds innermost."""
    order, seeds = list(matrix.contenders), matrix.seeds
    done = [run for run in runs if run.record(matrix.evaluate) is not None]
    done.sort(key=lambda run: (order.index(run.cell.contender), seeds.index(run.seed)))
    found = {data: [run for run in done if run.cell.data == data] for data in matrix.data}
    return {data: own for data, own in found.items() if own}


def _compare(matrix: Matrix, done: Sequence[Run]) -> Comparison:
    names = {record["data"]["name"] for run in done if (record := run.record(matrix.evaluate)) is not None}
    return collect(
        [run.folder for run in done],
        # runs made by hand may have other names for the same images
        names.pop() if len(names) == 1 else done[0].cell.digests[0],
        names=[matrix.label(run.cell.contender) for run in done],
    )


def _costs(matrix: Matrix, done: Sequence[Run]) -> pd.DataFrame:
    """Costs of the runs of each contender from their logs: median seconds and largest memory."""
    rows = []
    for contender in dict.fromkeys(run.cell.contender for run in done):
        own = [run for run in done if run.cell.contender == contender]
        speeds = [speed for run in own if (speed := seconds_per_image(run.folder)) is not None]
        speed = statistics.median(speeds) if speeds else None
        logged = [line.get("peak_memory_gib") for run in own for line in json_lines(run.folder / "log.jsonl")]
        peak = max((value for value in logged if isinstance(value, int | float)), default=None)
        minutes = None if speed is None else speed * own[0].images / 60
        rows.append((matrix.label(contender), own[0].images, speed, minutes, peak, len(own)))
    return pd.DataFrame(rows, columns=[*_COSTS])


def _cost_words(costs: pd.DataFrame) -> list[list[str]]:
    formats = ("{}", "{:,}", "{:.4f}", "{:.1f}", "{:.2f}", "{}")
    return [
        [DASH if pd.isna(value) else words.format(value) for words, value in zip(formats, row, strict=True)]
        for row in costs.itertuples(index=False)
    ]


def _settings(matrix: Matrix, run: Run) -> tuple[str, str, str, str]:
    """A contender, its method, and the settings of its model that are not the method's defaults."""
    config, method = run.config, METHODS[run.config.method]
    defaults = flat(RunConfig(config.method, DatasetConfig()).to_mapping())
    changed = (
        f"{key.removeprefix('model.')}: {value}" for key, value in flat(config.to_mapping()).items()
        if key.startswith("model.") and value != defaults.get(key)
    )  # fmt: skip
    return matrix.label(run.cell.contender), method.title, method.citation, ", ".join(changed) or "none"
