"""The pictures of a report as files for papers: PNG and PDF sheets, loss curves as SVG."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unpaired.errors import UserError
from unpaired.files import write_atomically
from unpaired.reports import Cell, Column, Panel, Sheet, View, finite_range, heat_map, nats
from unpaired.run_report.folders import RunFolder
from unpaired.run_report.pictures import Gallery, Weights, over_training
from unpaired.run_report.scores import score_charts
from unpaired.run_report.training_curves import loss_charts, speed_chart


def write_figures(
    folder: Path,
    runs: Sequence[RunFolder],
    gallery: Gallery,
    *,
    weights: Weights = "ema",
) -> list[Path]:
    """Write ``figure_samples``, ``figure_training`` and ``figure_significance_RUN`` as PNG and PDF, curves as SVG.

    A cell is one inch wide and holds the pixels of its picture. Colours of the entropy mean the same in all
    significance figures: per tap, one scale over all images and runs, whose ends stand under the bar.

    Args:
        folder: Where to; made if missing.
        runs: In the order of the gallery's columns.
        gallery: What ``pictures.look`` found.
        weights: Those that made the gallery.

    Returns:
        The files written.

    Raises:
        UserError: A file cannot be written; the message names it.
    """
    sheets = {"figure_samples": _samples(gallery)}
    training = _training(runs, weights)
    if training is not None:
        sheets["figure_training"] = training
    if gallery.panels:
        for number, run in enumerate(runs):
            sheets[f"figure_significance_{_file_name(run.name)}"] = _significance(gallery, number)
    files: dict[str, bytes] = {}
    for name, sheet in sheets.items():
        files[f"{name}.png"] = sheet.png()
        files[f"{name}.pdf"] = sheet.pdf(name)
    charts = {f"loss_{title}": svg for title, svg in loss_charts(runs, standalone=True).items()}
    charts |= {f"score_{name}": svg for name, svg in score_charts(runs, standalone=True).items()}
    speed = speed_chart(runs, standalone=True)
    for title, svg in {**charts, **({"speed": speed} if speed else {})}.items():
        files[f"figure_{_file_name(title)}.svg"] = svg.encode("utf-8", "xmlcharrefreplace")
    return [_write(folder / name, content) for name, content in files.items()]


def _write(path: Path, content: bytes) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except OSError as error:
        raise UserError(
            f"cannot write the figure {path}: {error.strerror or error}; choose another --figures"
        ) from error
    return path


def _file_name(words: str) -> str:
    """Letters, digits, dots and dashes; for names that people typed."""
    return re.sub(r"[^\w.-]+", "_", words).strip("._") or "unnamed"


def _samples(gallery: Gallery) -> Sheet:
    return Sheet([Column(head, [Cell(picture) for picture in made]) for head, made in gallery.columns.items()])


def _training(runs: Sequence[RunFolder], weights: Weights) -> Sheet | None:
    """Columns: the input and the times; rows: the images of each run. Runs may have other times than the first."""
    strips = [(run, strip) for run in runs if (strip := over_training(run, weights=weights)) is not None]
    if not strips:
        return None
    length = max(len(strip.heads) for _, strip in strips)
    alike = len({tuple(strip.heads) for _, strip in strips}) == 1
    rows, labels = [], []
    for run, strip in strips:
        times = "" if alike else f" ({', '.join(strip.heads[strip.has_input :])})"
        for number, row in enumerate(strip.rows):
            rows.append([*row, *[None] * (length - len(row))])
            labels.append(run.name + times if number == (len(strip.rows) - 1) // 2 else "")
    heads = strips[0][1].heads if alike else [""] * length
    columns = [
        Column(heads[at], [Cell(picture) if (picture := row[at]) is not None else None for row in rows])
        for at in range(length)
    ]
    return Sheet(columns, labels)


def _significance(gallery: Gallery, run: int) -> Sheet:
    """Figure 2 of the paper: rows images; columns the input and, per tap, entropy and selected points."""
    by_place = {(panel.image, panel.tap): panel for panel in gallery.panels}
    views = {place: panel.views[run] for place, panel in by_place.items()}
    first = gallery.taps[0]
    columns = [Column("input", [Cell(views[name, first].picture) for name in gallery.names])]
    for tap in gallery.taps:
        low, high = finite_range([view.entropy for panel in _of(gallery, tap) for view in panel.views])
        ends = nats(low, high)
        heats = [
            heat_map(view.picture, view.entropy, size=max(view.picture.size), value_range=(low, high), bar=False)
            for view in (views[name, tap] for name in gallery.names)
        ]
        bar = (ends[0], f"{ends[1]} nats")
        columns.append(Column(f"entropy, {tap}", [Cell(heat, smooth=False) for heat in heats], bar))
        columns.append(Column(f"selected, {tap}", [_dotted(views[name, tap]) for name in gallery.names]))
    return Sheet(columns)


def _of(gallery: Gallery, tap: str) -> list[Panel]:
    return [panel for panel in gallery.panels if panel.tap == tap]


def _dotted(view: View) -> Cell:
    height, width = np.asarray(view.entropy).shape
    dots = [((at % width + 0.5) / width, (at // width + 0.5) / height) for at in np.asarray(view.indices).tolist()]
    return Cell(view.picture, dots, max(0.008, min(0.018, 0.32 / max(height, width))))
