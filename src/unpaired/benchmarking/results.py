"""The tables of a benchmark, and one page per data set: scores, costs, and what every contender makes."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unpaired.benchmarking.matrix import EvaluationOptions, Matrix
from unpaired.benchmarking.plan import Run, log_records, logged_speed
from unpaired.benchmarking.state import accepted_record
from unpaired.files import write_atomically
from unpaired.grids import image_grid, png_bytes
from unpaired.methods import METHODS
from unpaired.reporting import page
from unpaired.reporting.formats import to_csv, to_json, to_latex, to_markdown
from unpaired.reporting.pictures import Gallery, make_gallery
from unpaired.reporting.run_folders import choose_images, find_partners, read_runs
from unpaired.reporting.tables import DASH, Comparison, collect
from unpaired.training import DatasetConfig, RunConfig, flat

_SHOWN = 12
"""Held-out images on a page."""


@dataclass(frozen=True)
class Cost:
    """What the runs of one contender took.

    Attributes:
        label: Of the contender.
        images: Length of its runs.
        seconds_per_image: Median over its logs.
        minutes: Of training steps of one run.
        peak_memory_gib: Largest of its logs.
        seeds: Finished runs.
    """

    label: str
    images: int
    seconds_per_image: float | None
    minutes: float | None
    peak_memory_gib: float | None
    seeds: int


def write_tables(matrix: Matrix, runs: Sequence[Run], out: Path) -> list[str]:
    """Write ``results/DATA/table.{md,csv,json,tex}`` and ``costs.csv`` from the records of all finished runs.

    Args:
        matrix: What is compared.
        runs: Finished and unfinished ones.
        out: The benchmark's folder.

    Returns:
        What the comparison warns of.

    Raises:
        UserError: The records cannot be compared (the message says why), or a file cannot be written.
    """
    warnings: list[str] = []
    for data in matrix.data:
        done = _evaluated(matrix, [run for run in runs if run.cell.data == data], matrix.evaluate)
        if not done:
            continue
        comparison = _compare(matrix, done, matrix.evaluate)
        folder = out / "results" / data
        folder.mkdir(parents=True, exist_ok=True)
        costs = _costs(matrix, done)
        markdown = to_markdown(comparison) + "\n" + _costs_markdown(costs)
        for suffix, text in (("md", markdown), ("csv", to_csv(comparison)), ("json", to_json(comparison)),
                             ("tex", to_latex(comparison))):  # fmt: skip
            write_atomically(folder / f"table.{suffix}", text.encode())
        write_atomically(folder / "costs.csv", _costs_csv(costs).encode())
        warnings += comparison.warnings
    return list(dict.fromkeys(warnings))


def _evaluated(matrix: Matrix, runs: Sequence[Run], options: EvaluationOptions) -> list[Run]:
    """Finished runs in the order of the contenders, seeds innermost."""
    order = list(matrix.contenders)
    done = [run for run in runs if accepted_record(run, options) is not None]
    return sorted(done, key=lambda run: (order.index(run.cell.contender), matrix.seeds.index(run.seed)))


def _compare(matrix: Matrix, done: Sequence[Run], options: EvaluationOptions) -> Comparison:
    records = [accepted_record(run, options) for run in done]
    names = {record.data.name for record in records if record is not None}
    source_digest = done[0].cell.held_out.digests[0]
    return collect(
        [run.folder for run in done],
        names.pop() if len(names) == 1 else source_digest,  # runs made by hand may know the same images by other names
        names=[matrix.label(run.cell.contender) for run in done],
    )


def _costs(matrix: Matrix, done: Sequence[Run]) -> list[Cost]:
    costs = []
    for contender in dict.fromkeys(run.cell.contender for run in done):
        own = [run for run in done if run.cell.contender == contender]
        speeds = [speed for run in own if (speed := logged_speed(run.folder)) is not None]
        peaks = [
            float(peak) for run in own for record in log_records(run.folder)
            if isinstance(peak := record.get("peak_memory_gib"), int | float)
        ]  # fmt: skip
        speed = statistics.median(speeds) if speeds else None
        minutes = None if speed is None else speed * own[0].images / 60
        peak = max(peaks, default=None)
        costs.append(Cost(matrix.label(contender), own[0].images, speed, minutes, peak, len(own)))
    return costs


_COST_HEAD = ("contender", "images of a run", "seconds per image", "minutes of a run", "peak memory (GiB)", "seeds")


def _cost_cells(cost: Cost) -> list[str]:
    numbers = ((cost.seconds_per_image, 4), (cost.minutes, 1), (cost.peak_memory_gib, 2))
    return [cost.label, f"{cost.images:,}", *(DASH if x is None else f"{x:.{n}f}" for x, n in numbers),
            str(cost.seeds)]  # fmt: skip


def _costs_markdown(costs: Sequence[Cost]) -> str:
    rows = [_COST_HEAD, ("---", *["---:"] * (len(_COST_HEAD) - 1)), *map(_cost_cells, costs)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _costs_csv(costs: Sequence[Cost]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Cost.__dataclass_fields__)
    writer.writerows([getattr(cost, name) for name in Cost.__dataclass_fields__] for cost in costs)
    return text.getvalue()


# ---------------------------------------------------------------------------------------------------------------------
# pages
# ---------------------------------------------------------------------------------------------------------------------
def write_reports(matrix: Matrix, runs: Sequence[Run], out: Path, notes: Sequence[str], command: str) -> list[Path]:
    """Write ``results/DATA/report.html`` and ``grid.png``: one column per contender, its first finished seed.

    Args:
        matrix: What is compared.
        runs: Finished and unfinished ones.
        out: The benchmark's folder.
        notes: What a reader has to know besides.
        command: What makes all this again.

    Returns:
        The pages.

    Raises:
        UserError: An image or a run cannot be read, or a file cannot be written.
    """
    written = []
    for data in matrix.data:
        done = _evaluated(matrix, [run for run in runs if run.cell.data == data], matrix.evaluate)
        if not done:
            continue
        first = list({run.cell.contender: run for run in reversed(done)}.values())[::-1]
        gallery = _gallery(matrix, first)
        folder = out / "results" / data
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "grid.png", png_bytes(image_grid(gallery.columns)))
        written.append(_write_page(folder / "report.html", matrix, data, done, gallery, notes, command))
    return written


def _gallery(matrix: Matrix, first: Sequence[Run]) -> Gallery:
    names = [matrix.label(run.cell.contender) for run in first]
    found = read_runs([run.folder for run in first], names)
    files = first[0].cell.held_out.files
    return make_gallery(found, choose_images(files, _SHOWN), find_partners(files, matrix.evaluate.paired), taps=())


def _write_page(
    path: Path, matrix: Matrix, data: str, done: Sequence[Run], gallery: Gallery, notes: Sequence[str], command: str
) -> Path:
    comparison = _compare(matrix, done, matrix.evaluate)
    contenders = list(dict.fromkeys(run.cell.contender for run in done))
    budget = matrix.budget
    length = f"{budget.images:,} images" if budget.images is not None else f"{budget.minutes:g} minutes"
    title = f"{len(contenders)} contenders on {data}"
    seeds = ", ".join(map(str, matrix.seeds))
    rows = [(name, list(cells)) for name, *cells in zip(gallery.names, *gallery.columns.values(), strict=True)]
    sections = [
        page.heading(title, f"Each trained for {length}, seeds {seeds}; scored on the same held-out images."),
        page.score_table(comparison),
        page.table(_COST_HEAD, [_cost_cells(cost) for cost in _costs(matrix, done)], title="Costs",
                   note="From the logs of training: steps and loading, without scores and sample grids."),
        page.gallery(
            list(gallery.columns), rows, title="Translations",
            note=f"{len(rows)} of {comparison.data.source_images} held-out images, evenly spaced by name; averaged "
            "weights of the first finished seed.",
        ),
        _contenders_table(matrix, done),
        *([page.notes([*comparison.warnings, *notes], title="Notes")] if notes or comparison.warnings else []),
        page.command(command),
    ]  # fmt: skip
    return page.write_page(path, title, sections).path


def _contenders_table(matrix: Matrix, done: Sequence[Run]) -> page.Section:
    first = {run.cell.contender: run for run in reversed(done)}
    rows = [
        (matrix.label(name), METHODS[first[name].config.method].title, METHODS[first[name].config.method].citation,
         ", ".join(changes(first[name].config)) or "none")
        for name in matrix.contenders if name in first
    ]  # fmt: skip
    return page.table(["contender", "method", "published as", "settings that are not the method's defaults"], rows,
                         title="Contenders")  # fmt: skip


def changes(config: RunConfig) -> list[str]:
    """Settings of a run's model that are not its method's defaults, as ``key: value``."""
    defaults = flat(RunConfig(config.method, DatasetConfig()).to_mapping())
    own = flat(config.to_mapping())
    return [
        f"{key.removeprefix('model.')}: {value}" for key, value in own.items()
        if key.startswith("model.") and value != defaults.get(key)
    ]  # fmt: skip
