"""The scores of a report: one sortable table, and curves over training, from the records in the run folders."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from unpaired import comparison
from unpaired.errors import ConfigError, DataError
from unpaired.reports import Block, charts, curve_svg, notes
from unpaired.run_report.folders import RunFolder
from unpaired.run_report.training_curves import Series


def score_blocks(runs: Sequence[RunFolder]) -> list[Block]:
    """The table of all runs that were evaluated, a sentence for the others, and the scores over training.

    Where the scores of the runs cannot be compared, the reason stands there and each run has a table of its own.
    """
    scored = [run for run in runs if _is_evaluated(run)]
    missing = [run for run in runs if run not in scored]
    blocks = _tables(scored) if scored else []
    if missing:
        which = shlex.quote(str(missing[0].path)) if len(missing) == 1 else "RUN"
        names = f" of {', '.join(run.name for run in missing)}" if len(missing) < len(runs) else ""
        words = f"No evaluation yet{names}: unpaired evaluate {which} DATA"
        blocks.append(notes([words], title="Not scored" if scored else "Scores"))
    lines_of = _training_lines(runs)
    if lines_of:
        told = ", ".join(dict.fromkeys(line["chosen_on"] for found in lines_of.values() for line in found))
        note = f"Scored on {told}. Ringed: the weights that a run kept as its best, chosen on these very images."
        blocks.append(charts(list(score_charts(runs).values()), title="Scores over training", note=note))
    return blocks


def _is_evaluated(run: RunFolder) -> bool:
    try:
        comparison.collect([run.path])
    except DataError:
        return False
    return True


def _tables(runs: Sequence[RunFolder]) -> list[Block]:
    paths = [run.path for run in runs]
    try:
        alone = all(len(group.runs) == 1 for group in comparison.group_runs(paths))
        names = [run.name for run in runs] if alone else ()  # several seeds of one method are one row
        return [comparison.score_block(comparison.collect(paths, names=names))]
    except ConfigError as error:
        own = [(run, comparison.collect([run.path])) for run in runs]
        tables = [comparison.score_block(found, title=f"Scores of {run.name}") for run, found in own]
        return [notes([f"There is no common table: {error}."], title="Scores"), *tables]


def _training_lines(runs: Sequence[RunFolder]) -> dict[str, list[dict[str, Any]]]:
    """Name of a run -> its scores over training, where it has any."""
    found = {}
    for run in runs:
        with contextlib.suppress(DataError):
            found[run.name] = comparison.training_scores(run.path)
    return found


def score_charts(runs: Sequence[RunFolder], **options: Any) -> dict[str, str]:
    """Draw scores over training: by the averaged and the live weights for one run, by the averaged for several.

    A ring marks the weights that a run kept as its best by that score.

    Args:
        runs: In the order of their colours.
        **options: Of ``curve_svg``, such as ``standalone``.

    Returns:
        Full name of the score -> SVG; empty when nothing was scored during training.
    """
    lines = _training_lines(runs)
    words: dict[str, tuple[str, str]] = {}
    for line in (line for found in lines.values() for line in found):
        for name, score in line["scores"].items():
            words.setdefault(name, (f"{score['label']}, {score['better']} is better", score.get("unit") or "score"))
    places = {run.name: number for number, run in enumerate(runs)} if len(runs) > 1 else None
    drawn = {}
    for name, (title, unit) in words.items():
        series: Series = {}
        marks: dict[str, tuple[float, float]] = {}
        for run in runs:
            kinds = {"ema": "average (EMA)", "last": "last"} if len(runs) == 1 else {"ema": run.name}
            for weights, label in kinds.items():
                points = _points(lines.get(run.name, ()), name, weights)
                series |= {label: points} if points else {}
            best = run.best()
            if best is not None and best["score"] == name:
                marks[kinds.get(best["weights"], run.name)] = (float(best["images_seen"]), float(best["value"]))
        drawn[name] = curve_svg(series, title, "images seen", unit, places=places, marks=marks, **options)
    return drawn


def _points(lines: Sequence[Mapping[str, Any]], name: str, weights: str) -> list[tuple[float, float]]:
    found = [line for line in lines if line["weights"] == weights and name in line["scores"]]
    values = [(line["images_seen"], line["scores"][name]["value"]) for line in found]
    return [(float(seen), float(value)) for seen, value in values if value is not None]
