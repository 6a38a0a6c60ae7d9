"""Charts of the training logs: loss terms and speed, all runs over each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unpaired.reports import curve_svg
from unpaired.run_report.folders import RunFolder

Series = dict[str, list[tuple[float, float]]]

_GROUPS = {
    "Adversarial game": ("discriminator", "adversarial"),
    "Content kept": ("contrastive", "cycle", "identity", "similarity", "reconstruction", "content", "style"),
}
"""Title -> how the names of its terms begin; a single run draws the terms of one group into one chart."""


def loss_charts(runs: Sequence[RunFolder], **options: Any) -> dict[str, str]:
    """Draw the loss terms: by group for one run; for several, one chart per term with a line per run.

    Args:
        runs: At least one.
        **options: Of ``curve_svg``, such as ``standalone``.

    Returns:
        Title -> SVG; empty when no run has a log.
    """
    terms = list(dict.fromkeys(term for run in runs for record in run.log for term in _terms(record)))
    if len(runs) > 1:
        places = {run.name: number for number, run in enumerate(runs)}
        by_term = {term: {run.name: _term(run, term) for run in runs} for term in terms}
        return {
            term: _chart(_known(series), f"Loss: {term}", "loss", places, **options) for term, series in by_term.items()
        }
    grouped: dict[str, Series] = {}
    for term in terms:
        title = next((title for title, begins in _GROUPS.items() if term.startswith(begins)), "Other terms")
        grouped.setdefault(title, {})[term] = _term(runs[0], term)
    return {title: _chart(series, title, "loss", **options) for title, series in grouped.items()}


def speed_chart(runs: Sequence[RunFolder], **options: Any) -> str | None:
    """Draw images per second; ``None`` when no run has logged any."""
    series: Series = {run.name: _numbers(run, "images_per_second") for run in runs}
    if not any(series.values()):
        return None
    places = {run.name: number for number, run in enumerate(runs)}
    return _chart(_known(series), "Speed", "images per second", places, **options)


def _chart(series: Series, title: str, y_label: str, places: Mapping[str, int] | None = None, **options: Any) -> str:
    longest = max((len(points) for points in series.values()), default=0)
    smoothing = 0.0 if longest < 30 else min(0.9, 1.0 - 20.0 / longest)  # short logs are means already
    return curve_svg(series, title, "images seen", y_label, smoothing=smoothing, places=places, **options)


def _known(series: Series) -> Series:
    return {name: points for name, points in series.items() if points}


def _terms(record: Mapping[str, Any]) -> Mapping[str, Any]:
    terms = record.get("terms")
    return terms if isinstance(terms, dict) else {}


def _term(run: RunFolder, term: str) -> list[tuple[float, float]]:
    return [
        (float(record["images_seen"]), float(_terms(record)[term]))
        for record in run.log
        if isinstance(record.get("images_seen"), int) and isinstance(_terms(record).get(term), int | float)
    ]


def _numbers(run: RunFolder, key: str) -> list[tuple[float, float]]:
    return [
        (float(record["images_seen"]), float(record[key]))
        for record in run.log
        if isinstance(record.get("images_seen"), int) and isinstance(record.get(key), int | float)
    ]
