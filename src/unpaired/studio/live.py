"""A run folder -> what the page shows of its training. It only reads, so the training may run anywhere."""

from __future__ import annotations

import base64
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from PIL import Image

from unpaired.errors import DataError, UserError
from unpaired.grids import grid_cells
from unpaired.length import duration
from unpaired.reporting.page import data_uri
from unpaired.reporting.records import training_frame
from unpaired.reporting.report import loss_charts, score_charts, speed_chart
from unpaired.reporting.run_folders import RunFolder, read_runs
from unpaired.reporting.tables import DASH
from unpaired.run_folder import longest_silence, total_images

_RECENT = 10
"""Lines of the log over which the speed is averaged."""
_WATCHED = ("run.yaml", "log.jsonl", "scores.jsonl", "sessions.jsonl", "samples", "weights")

Stamp = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class TrainingProgress:
    """How far a training is.

    Attributes:
        images_seen: 0 before the first line of the log.
        total: Images in all; ``None`` where the folder does not tell.
        images_per_second: Mean of the last lines of the log; ``None`` before the first.
        seconds_left: ``None`` where it cannot be told, 0 when finished.
        seconds_silent: Since the log was written to.
        longest_silence: Seconds after which a training is taken for stopped.
    """

    images_seen: int
    total: int | None
    images_per_second: float | None
    seconds_left: float | None
    seconds_silent: float | None
    longest_silence: float

    @property
    def state(self) -> str:
        """``finished``, ``training``, or words for: no report yet, or none for longer than ``longest_silence``."""
        if self.total is not None and self.images_seen >= self.total:
            return "finished"
        if self.seconds_silent is None:
            return "waiting for the first report"
        if self.seconds_silent > self.longest_silence:
            return f"no report for {duration(self.seconds_silent)}"
        return "training"


def read_progress(run: RunFolder, now: float | None = None) -> TrainingProgress:
    """Work out how far a training is.

    Args:
        run: Its folder, as ``read_runs`` reads it.
        now: Seconds since 1970; unset takes the clock.
    """
    lines = [line for line in run.log if isinstance(line.get("images_seen"), int)]
    seen = lines[-1]["images_seen"] if lines else 0
    total = total_images(run.config.to_mapping(), run.sessions)
    speeds = [line.get("seconds_per_image") for line in lines[-_RECENT:]]
    each = [float(value) for value in speeds if isinstance(value, int | float) and value > 0]
    seconds_per_image = sum(each) / len(each) if each else None
    left = None if total is None or seconds_per_image is None else max(0, total - seen) * seconds_per_image
    silent = None
    if lines:
        with contextlib.suppress(OSError):
            silent = max(0.0, (time.time() if now is None else now) - (run.path / "log.jsonl").stat().st_mtime)
    speed = 1 / seconds_per_image if seconds_per_image else None
    longest = longest_silence(run.config.to_mapping(), seconds_per_image)
    return TrainingProgress(seen, total, speed, left, silent, longest)


def stamp(path: Path) -> Stamp:
    """Times and sizes of the files that the page shows: equal stamps, equal page."""
    found = []
    for name in _WATCHED:
        with contextlib.suppress(OSError):
            status = (path / name).stat()
            found.append((status.st_mtime_ns, status.st_size))
    return tuple(found)


def live_key(path: Path) -> tuple[Stamp, str]:
    """What :func:`live_page` depends on: equal keys, equal page."""
    try:
        (run,) = read_runs([path])
    except UserError as error:
        return stamp(path), str(error)
    return stamp(path), read_progress(run).state


def live_page(path: Path, now: float | None = None) -> str:
    """The page of one training as HTML; what cannot be read is said in its place."""
    try:
        (run,) = read_runs([path])
    except UserError as error:
        return f'<p class="studio-note">{escape(str(error))}</p>'
    parts = [_facts(run, read_progress(run, now)), _samples(run), _scores(run), _charts(run)]
    return "\n".join(part for part in parts if part)


def _facts(run: RunFolder, progress: TrainingProgress) -> str:
    seen, total = progress.images_seen, progress.total
    share = min(1.0, seen / total) if total else 0.0
    finished = progress.state == "finished"
    left = "done" if finished else DASH if progress.seconds_left is None else duration(progress.seconds_left)
    facts = {
        "state": progress.state,
        "images seen": f"{seen:,} of {total:,}" if total else f"{seen:,}",
        "images per second": f"{progress.images_per_second:.2f}" if progress.images_per_second else DASH,
        "time left": left,
        "method": run.title,
        "begun": (run.sessions[0].time[:16].replace("T", " ") if run.sessions else "") or DASH,
    }
    listed = "".join(f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>" for key, value in facts.items())
    bar = (
        f'<div class="studio-bar" role="progressbar" aria-label="images seen" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{100 * share:.0f}"><div style="width:{100 * share:.1f}%"></div></div>'
    )
    return f'<section class="studio-card"><dl class="studio-facts">{listed}</dl>{bar}</section>'


def _samples(run: RunFolder) -> str:
    """The newest readable sample grid: a row of inputs, of translations by the averaged and by the last weights."""
    for time_, path in reversed(run.samples()):
        try:
            with Image.open(path) as file:
                picture = file.convert("RGB")
        except OSError:  # cut short, or being written
            continue
        columns = grid_cells(picture)
        title = f"<h3>Samples after {time_:,} images</h3>"
        if len(columns) != 3:
            held = base64.b64encode(path.read_bytes()).decode()
            return (
                f'<section class="studio-card">{title}<img alt="samples" src="data:image/png;base64,{held}"></section>'
            )
        words = ("input", "average (EMA)", "last")
        rows = "".join(_row(word, column) for word, column in zip(words, columns, strict=True))
        return f'<section class="studio-card">{title}<div class="studio-samples">{rows}</div></section>'
    return ""


def _row(words: str, cells: Sequence[Image.Image]) -> str:
    pictures = "".join(
        f'<img alt="{escape(words)} {number}" src="{data_uri(cell)}">' for number, cell in enumerate(cells, start=1)
    )
    return f"<div><p>{escape(words)}</p><div>{pictures}</div></div>"


def _scores(run: RunFolder) -> str:
    """The latest scores of the averaged and the last weights."""
    try:
        frame = training_frame(run.path)
    except DataError:
        return ""
    latest = frame["images_seen"].max()
    rows = []
    for _, found in frame[frame["images_seen"] == latest].groupby("full_name", sort=False):
        values = dict(zip(found["weights"], found["value"], strict=True))
        cells = "".join(f"<td>{DASH if (x := values.get(w)) is None else f'{x:.4g}'}</td>" for w in ("ema", "last"))
        score = found.iloc[0]
        label = " ".join(filter(None, (score["label"], score["unit"])))
        rows.append(f"<tr><th>{escape(label)}<small>{escape(score['better'])} is better</small></th>{cells}</tr>")
    head = "<thead><tr><th></th><th>average (EMA)</th><th>last</th></tr></thead>"
    title = f"<h3>Scores after {latest:,} images</h3>"
    return f'<section class="studio-card">{title}<table class="studio-scores">{head}{"".join(rows)}</table></section>'


def _charts(run: RunFolder) -> str:
    drawn = [*loss_charts([run]).values(), *score_charts([run]).values(), *speed_chart([run]).values()]
    cards = "".join(f'<div class="studio-card">{svg}</div>' for svg in drawn)
    return f'<section class="studio-charts">{cards}</section>' if cards else ""
