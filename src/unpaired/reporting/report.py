"""The report of one or several runs, from their folders: one page, and figures for papers."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unpaired.data.dataset import places_of
from unpaired.errors import ConfigError, DataError, UserError
from unpaired.files import write_atomically
from unpaired.grids import finite_range, heat_map
from unpaired.reporting import page
from unpaired.reporting.figures import Cell, Sheet, line_chart
from unpaired.reporting.page import Page, Section
from unpaired.reporting.pictures import Gallery, View, Weights, nats, over_training
from unpaired.reporting.records import best_choice, training_frame
from unpaired.reporting.rows import group_runs
from unpaired.reporting.run_folders import RunFolder
from unpaired.reporting.tables import DASH, collect
from unpaired.run_config import DatasetConfig, RunConfig, flat

_MINUS = "\N{MINUS SIGN}"
_GROUPS = {
    "Adversarial losses": ("discriminator", "patch_discriminator", "adversarial"),
    "Content losses": ("contrastive", "cycle", "identity", "similarity", "reconstruction", "content", "style"),
}
"""Title -> how the names of its terms begin; a single run draws the terms of one group into one chart."""


def write_report(
    out: Path,
    runs: Sequence[RunFolder],
    gallery: Gallery,
    *,
    images: str,
    weights: Weights = "ema",
    command: str = "",
    limit: int = page.PAGE_LIMIT,
) -> Page:
    """Write the report of several runs as one self-contained HTML page.

    Args:
        out: The file.
        runs: In the order of the gallery's columns.
        gallery: Made by :func:`unpaired.reporting.pictures.make_gallery`.
        images: Which images these are, in words ("12 of 200 held-out images, evenly spaced by name").
        weights: Those that made the gallery.
        command: The command that reproduces this page.
        limit: Largest number of bytes; see :func:`unpaired.reporting.page.write_page`.

    Raises:
        UserError: The file cannot be written.
    """
    names, titles = [run.name for run in runs], ", ".join(dict.fromkeys(run.title for run in runs))
    listed = f"{', '.join(names[:-1])} and {names[-1]}" if len(runs) > 1 else names[0]
    folders = {run.config.dataset.folder for run in runs}
    folder = folders.pop() if len(folders) == 1 else None
    title = listed if len(listed) < 70 else f"{len(names)} runs of {titles}"
    title += "" if folder is None else f" on {folder.name}"
    what = f"{len(runs)} runs compared ({titles})" if len(runs) > 1 else f"One run of {titles}"
    inputs, *made = gallery.columns.values()
    sections = [page.heading(title, f"{what}. {images}."), _pairs(names, gallery)]
    if len(made) > 1:
        rows = [(name, list(cells)) for name, *cells in zip(gallery.names, inputs, *made, strict=True)]
        sections.append(page.gallery(list(gallery.columns), rows, title="Translations side by side"))
    sections += score_sections(runs)
    strips = [(run.name, strip) for run in runs if (strip := over_training(run, weights=weights)) is not None]
    if strips:
        note = f"Above each column: training images seen. By the {'last' if weights == 'last' else 'averaged'} weights."
        sections.append(page.filmstrips([(name, strip.heads, strip.rows) for name, strip in strips], note=note))
    if gallery.panels:
        note = (
            "Points: the locations that query selection takes, by each run's own settings. Colours: the entropy of "
            "each location's attention over the whole image; small entropy is significant. For one image and layer "
            "all runs share one colour scale."
        )
        sections.append(page.significance_viewer(gallery.panels, note=note))
    if drawn := [*loss_charts(runs).values(), *speed_chart(runs).values()]:
        sections.append(page.charts(drawn, title="Training", note="Means over the intervals of the log."))
    sections += [runs_table(runs, weights), _commands(runs, command)]
    footer = f"Made with unpaired {metadata.version('unpaired')}."
    places = [
        place
        for run in runs
        for place in (run.path, *places_of(run.config.dataset.folder), *places_of(run.config.dataset.source))
    ]
    return page.write_page(out, f"unpaired: {title}", sections, footer=footer, limit=limit, places=places)


def _pairs(names: Sequence[str], gallery: Gallery) -> Section:
    """All images for a single run; for several, fewer images, so that there are as many pairs."""
    count = max(1, len(gallery.names) // len(names))
    pairs = [
        (f"{image}, {name}" if len(names) > 1 else image, gallery.columns["input"][at], gallery.columns[name][at])
        for at, image in enumerate(gallery.names[:count])
        for name in names
    ]
    return page.before_after(pairs, note="Left: input, right: translation. Drag the border, or move the slider.")


# ---------------------------------------------------------------------------------------------------------------------
# scores
# ---------------------------------------------------------------------------------------------------------------------
def score_sections(runs: Sequence[RunFolder]) -> list[Section]:
    """The table of all evaluated runs, a note about the others, and the scores over training.

    If the scores of the runs are not comparable, the page says why and has one table per run.
    """
    scored = [run for run in runs if _is_evaluated(run)]
    missing = [run for run in runs if run not in scored]
    sections = _score_tables(scored) if scored else []
    if missing:
        which = shlex.quote(str(missing[0].path)) if len(missing) == 1 else "RUN"
        names = f": {', '.join(run.name for run in missing)}" if len(missing) < len(runs) else ""
        words = f"Not scored yet{names}; run: unpaired evaluate {which}"
        sections.append(page.notes([words], title="Not scored" if scored else "Scores"))
    if drawn := score_charts(runs):
        told = ", ".join(dict.fromkeys(x for frame in _training_scores(runs).values() for x in frame["chosen_on"]))
        note = f"Scored on {told}. Ringed: the weights that a run kept as its best, chosen on these very images."
        sections.append(page.charts(list(drawn.values()), title="Scores over training", note=note))
    return sections


def _is_evaluated(run: RunFolder) -> bool:
    try:
        collect([run.path])
    except DataError:
        return False
    return True


def _score_tables(runs: Sequence[RunFolder]) -> list[Section]:
    paths = [run.path for run in runs]
    try:
        alone = all(len(group.runs) == 1 for group in group_runs(paths))
        names = [run.name for run in runs] if alone else ()  # several seeds of one method are one row
        return [page.score_table(collect(paths, names=names))]
    except ConfigError as error:
        tables = [page.score_table(collect([run.path]), title=f"Scores of {run.name}") for run in runs]
        return [page.notes([f"There is no common table: {error}."], title="Scores"), *tables]


def _training_scores(runs: Sequence[RunFolder]) -> dict[str, Any]:
    """Name of a run -> its scores over training, if it has any."""
    found = {}
    for run in runs:
        with contextlib.suppress(DataError):
            found[run.name] = training_frame(run.path).dropna(subset="value")
    return found


def score_charts(runs: Sequence[RunFolder], **options: Any) -> dict[str, str]:
    """Draw scores over training, of averaged and live weights for one run, of the averaged ones for several.

    A ring marks the weights that a run kept as its best by that score; ``options`` are those of :func:`line_chart`.

    Returns:
        Full name of the score -> SVG; empty if nothing was scored during training.
    """
    frames = _training_scores(runs)
    if not frames:
        return {}
    drawn = {}
    for first in pd.concat(frames.values()).drop_duplicates("full_name").itertuples():
        name = first.full_name
        series: dict[str, Any] = {}
        marks: dict[str, tuple[float, float]] = {}
        for run in (run for run in runs if run.name in frames):
            labels = {"ema": "average (EMA)", "last": "last"} if len(runs) == 1 else {"ema": run.name}
            own = frames[run.name][frames[run.name]["full_name"] == name]
            for weights, label in labels.items():
                found = own.loc[own["weights"] == weights, ["images_seen", "value"]]
                series |= {label: found.to_numpy()} if len(found) else {}
            best = best_choice(run.path)
            if best is not None and best.score == name and best.value is not None:
                marks[labels.get(best.weights, run.name)] = (float(best.images_seen), best.value)
        title, unit = f"{first.label}, {first.better} is better", first.unit or "score"
        drawn[name] = line_chart(series, title, "images seen", unit, places=_places(runs), marks=marks, **options)
    return drawn


# ---------------------------------------------------------------------------------------------------------------------
# logs
# ---------------------------------------------------------------------------------------------------------------------
def loss_charts(runs: Sequence[RunFolder], **options: Any) -> dict[str, str]:
    """Draw the loss terms: one chart per group for a single run; one per term, with a line per run, for several.

    Returns:
        Title -> SVG; empty if no run has a log.
    """
    logged = [record["terms"] for run in runs for record in run.log if isinstance(record.get("terms"), dict)]
    terms = list(dict.fromkeys(term for found in logged for term in found))
    series: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for term in terms:
        if len(runs) > 1:
            series[term] = {run.name: points for run in runs if (points := run.curve("terms", term))}
        else:
            group = next((title for title, begins in _GROUPS.items() if term.startswith(begins)), "Other terms")
            series.setdefault(group, {})[term] = runs[0].curve("terms", term)
    return {
        title: _log_chart(lines, f"Loss: {title}" if len(runs) > 1 else title, "loss", runs, **options)
        for title, lines in series.items()
    }


def speed_chart(runs: Sequence[RunFolder], **options: Any) -> dict[str, str]:
    """Draw images per second: ``{"speed": SVG}``, or nothing if no run has logged any."""
    series = {run.name: points for run in runs if (points := run.curve("images_per_second"))}
    return {"speed": _log_chart(series, "Speed", "images per second", runs, **options)} if series else {}


def _log_chart(
    series: dict[str, list[tuple[float, float]]], title: str, y_label: str, runs: Sequence[RunFolder], **options: Any
) -> str:
    longest = max(map(len, series.values()), default=0)
    smoothing = 0.0 if longest < 30 else min(0.9, 1.0 - 20.0 / longest)  # short logs need none
    return line_chart(series, title, "images seen", y_label, smoothing=smoothing, places=_places(runs), **options)


def _places(runs: Sequence[RunFolder]) -> dict[str, int] | None:
    """Runs have the same colours in all charts."""
    return {run.name: number for number, run in enumerate(runs)} if len(runs) > 1 else None


# ---------------------------------------------------------------------------------------------------------------------
# settings
# ---------------------------------------------------------------------------------------------------------------------
def runs_table(runs: Sequence[RunFolder], weights: Weights) -> Section:
    """One column per run: method, data, length, machine, versions, and the settings in which the runs differ.

    For a single run: the settings that differ from the defaults of its method.
    """
    facts = [{**run.facts(), "weights shown": _weights(run, weights)} for run in runs]
    own = [flat(run.config.to_mapping()) for run in runs]
    others = own if len(runs) > 1 else [*own, flat(RunConfig(runs[0].config.method, DatasetConfig()).to_mapping())]
    told = ("method", "dataset.", "training.seed", "training.images", "init.", "extensions")
    keys = [key for key in dict.fromkeys(key for settings in own for key in settings) if not key.startswith(told)]
    keys = [key for key in keys if len({_words(settings.get(key, DASH)) for settings in others}) > 1]
    rows = [(key, *(one[key] for one in facts)) for key in facts[0] if any(one[key] for one in facts)]
    rows += [(key, *(_words(one.get(key, DASH)) for one in own)) for key in keys]
    which = "in which the runs differ" if len(runs) > 1 else "that are not the method's defaults"
    note = f"Below the weights: the settings {which}." if keys else ""
    return page.table(["", *(run.name for run in runs)], rows, title="Runs", note=note)


def _words(value: Any) -> str:
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_words, value))
    return str(value).replace("-", _MINUS) if isinstance(value, int | float) else str(value)


def _weights(run: RunFolder, weights: Weights) -> str:
    best = best_choice(run.path) if weights == "best" else None
    if best is not None:
        return f"best: {best.weights} after {best.images_seen} images, chosen by {best.score}"
    return {"ema": "average (EMA)"}.get(weights, weights)


def _commands(runs: Sequence[RunFolder], own: str) -> Section:
    """The commands that reproduce these runs and this page."""
    lines = []
    for run in runs:
        first = run.sessions[0] if run.sessions else None
        if first is not None and first.command:
            lines += [f"# {run.path}: begun {first.time} with", f"#   {first.command}"]
        words = ["unpaired", "train", "--config", f"{run.path}/run.yaml", "--out", f"{run.path}-again"]
        lines.append(shlex.join(words))
    return page.command("\n".join([*lines, *([own] if own else [])]))


# ---------------------------------------------------------------------------------------------------------------------
# figures for papers
# ---------------------------------------------------------------------------------------------------------------------
def write_figures(folder: Path, runs: Sequence[RunFolder], gallery: Gallery, *, weights: Weights = "ema") -> list[Path]:
    """Write ``figure_samples``, ``figure_training`` and ``figure_significance_RUN`` as PNG and PDF, curves as SVG.

    For each tap, all significance figures share one colour scale, whose ends stand under the bar.

    Returns:
        The files written.

    Raises:
        UserError: A file cannot be written; the message names it.
    """
    columns = [(head, [Cell(picture) for picture in made]) for head, made in gallery.columns.items()]
    sheets = {"figure_samples": Sheet(columns)}
    if (training := _training_sheet(runs, weights)) is not None:
        sheets["figure_training"] = training
    for number, run in enumerate(runs if gallery.panels else ()):
        sheets[f"figure_significance_{_file_name(run.name)}"] = _significance_sheet(gallery, number)
    files = {f"{name}.{kind}": sheet.save(kind, name) for name, sheet in sheets.items() for kind in ("png", "pdf")}
    drawn = {f"loss_{title}": svg for title, svg in loss_charts(runs, standalone=True).items()}
    drawn |= {f"score_{name}": svg for name, svg in score_charts(runs, standalone=True).items()}
    drawn |= speed_chart(runs, standalone=True)
    files |= {f"figure_{_file_name(title)}.svg": svg.encode("utf-8") for title, svg in drawn.items()}
    for name, content in files.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / name, content)
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"cannot write the figure {folder / name}: {reason}; choose another --figures") from error
    return [folder / name for name in files]


def _file_name(words: str) -> str:
    """A file name of letters, digits, dots and dashes."""
    return re.sub(r"[^\w.-]+", "_", words).strip("._") or "unnamed"


def _training_sheet(runs: Sequence[RunFolder], weights: Weights) -> Sheet | None:
    """Columns: the input and the times; rows: the images of each run. Times may differ between runs."""
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
        (head, [Cell(x) if (x := row[at]) is not None else None for row in rows]) for at, head in enumerate(heads)
    ]
    return Sheet(columns, labels)


def _significance_sheet(gallery: Gallery, run: int) -> Sheet:
    """Figure 2 of the paper: rows images; columns the input and, per tap, entropy and selected points."""
    views = {(panel.image, panel.tap): panel.views[run] for panel in gallery.panels}
    columns = [("input", [Cell(views[x, gallery.taps[0]].picture) for x in gallery.names])]
    bars = {}
    for tap in gallery.taps:
        ends = finite_range([view.entropy for panel in gallery.panels if panel.tap == tap for view in panel.views])
        low, high = nats(*ends)
        bars[f"entropy, {tap}"] = (low, f"{high} nats")
        own = [views[name, tap] for name in gallery.names]
        heats = [heat_map(x.picture, x.entropy, size=max(x.picture.size), value_range=ends) for x in own]
        columns.append((f"entropy, {tap}", [Cell(heat) for heat in heats]))
        columns.append((f"selected, {tap}", [dotted(view) for view in own]))
    return Sheet(columns, bars=bars)


def dotted(view: View) -> Cell:
    """The picture with its selected points."""
    height, width = np.asarray(view.entropy).shape
    dots = [((at % width + 0.5) / width, (at // width + 0.5) / height) for at in np.asarray(view.indices).tolist()]
    return Cell(view.picture, dots, max(0.008, min(0.018, 0.32 / max(height, width))))
