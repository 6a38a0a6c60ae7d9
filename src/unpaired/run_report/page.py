"""The report page: blocks in order, pictures made to fit, one file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from unpaired import reports
from unpaired.reports import Block, Encoding
from unpaired.run_report.facts import commands, runs_table
from unpaired.run_report.folders import RunFolder
from unpaired.run_report.pictures import Gallery, Strip, Weights, over_training
from unpaired.run_report.scores import score_blocks
from unpaired.run_report.training_curves import loss_charts, speed_chart

PAGE_LIMIT = 20_000_000
"""Bytes; a larger page is a burden to mail and to open on a phone."""
_ENCODINGS = tuple(
    Encoding(quality, side) for quality, side in ((90, 512), (88, 384), (88, 256), (80, 192), (75, 128), (70, 96))
)


@dataclass(frozen=True)
class Page:
    """A page that was written.

    Attributes:
        path: The file.
        size: Its bytes.
        reduction: What was done to stay under the limit, in words; empty when nothing was.
    """

    path: Path
    size: int
    reduction: str


def write_page(
    out: Path,
    runs: Sequence[RunFolder],
    gallery: Gallery,
    *,
    images: str,
    weights: Weights = "ema",
    command: str = "",
    limit: int = PAGE_LIMIT,
) -> Page:
    """Write the report of several runs as one self-contained HTML page.

    Args:
        out: The file.
        runs: In the order of the gallery's columns.
        gallery: What ``pictures.look`` found.
        images: Which images these are, in words ("12 of 200 held-out images, evenly spaced by name").
        weights: Those that made the gallery.
        command: What makes this page again.
        limit: Largest number of bytes: pictures are stored smaller, then images left out, until the page fits.

    Raises:
        UserError: The file cannot be written.
    """
    scores = score_blocks(runs)
    after = [*_training(runs), runs_table(runs, weights), commands(runs, command)]
    strips = [(run.name, strip) for run in runs if (strip := over_training(run, weights=weights)) is not None]
    title = f"unpaired: {', '.join(run.name for run in runs)}"
    footer = f"Made with unpaired {metadata.version('unpaired')}."
    for number, (encoding, count) in enumerate(_reductions(len(gallery.names))):
        reduction = "" if number == 0 else _reduction(encoding, count, len(gallery.names), limit)
        shown = _first(gallery, count)
        blocks = [
            _heading(runs, images),
            _translations(shown, reduction, encoding),
            *scores,
            *_over_training(strips, weights, encoding),
            *_significance(shown, encoding),
            *after,
        ]
        if len(reports.html_page(title, blocks, footer=footer).encode("utf-8", "xmlcharrefreplace")) <= limit:
            break
    path = reports.write_html_report(out, title, blocks, footer=footer)
    return Page(path, path.stat().st_size, reduction)


def _reductions(images: int) -> Iterator[tuple[Encoding, int]]:
    """How pictures are stored and how many images are shown, from all to the least."""
    for encoding in _ENCODINGS:
        yield encoding, images
    while images > 1:
        images = (images + 1) // 2
        yield _ENCODINGS[-1], images


def _reduction(encoding: Encoding, count: int, images: int, limit: int) -> str:
    words = f"To keep the page under {limit / 1e6:g} MB, pictures have at most {encoding.largest_side} pixels a side"
    if count < images:
        words += f", and only {count} of the {images} images are shown"
    return f"{words}; 'unpaired report --figures DIR' writes them all in full."


def _first(gallery: Gallery, count: int) -> Gallery:
    names = gallery.names[:count]
    columns = {head: pictures[:count] for head, pictures in gallery.columns.items()}
    return Gallery(names, columns, [panel for panel in gallery.panels if panel.image in names], gallery.taps)


def _heading(runs: Sequence[RunFolder], images: str) -> Block:
    names = [run.name for run in runs]
    titles = ", ".join(dict.fromkeys(run.title for run in runs))
    listed = ", ".join(names[:-1]) + f" and {names[-1]}" if len(runs) > 1 else names[0]
    what = f"{len(runs)} runs ({titles})" if len(runs) > 1 else f"One run of {titles}"
    return reports.heading(listed if len(listed) < 70 else f"{len(names)} runs of {titles}", f"{what}. {images}.")


def _translations(gallery: Gallery, note: str, encoding: Encoding) -> Block:
    rows = [
        (name, [pictures[number] for pictures in gallery.columns.values()]) for number, name in enumerate(gallery.names)
    ]
    return reports.gallery(list(gallery.columns), rows, title="Translations", note=note, encoding=encoding)


def _over_training(strips: Sequence[tuple[str, Strip]], weights: Weights, encoding: Encoding) -> list[Block]:
    if not strips:
        return []
    note = f"By the {'live' if weights == 'last' else 'averaged'} weights after so many training images."
    shown = [(name, strip.heads, strip.rows) for name, strip in strips]
    return [reports.filmstrips(shown, note=note, encoding=encoding)]


def _significance(gallery: Gallery, encoding: Encoding) -> list[Block]:
    if not gallery.panels:
        return []
    note = (
        "Points: the locations that query selection takes, by each run's own settings. Colours: the entropy of each "
        "location's attention over the whole image; small entropy is significant. All runs share the scale of an image "
        "and a place."
    )
    return [reports.significance_viewer(gallery.panels, note=note, encoding=encoding)]


def _training(runs: Sequence[RunFolder]) -> list[Block]:
    drawn = [chart for chart in [*loss_charts(runs).values(), speed_chart(runs)] if chart is not None]
    return [reports.charts(drawn, title="Training", note="Means over the intervals of the log.")] if drawn else []
