"""What a reader must know of the runs: settings, data, length, machine, versions, commands."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from unpaired.reports import DASH, MINUS, Block, command, table
from unpaired.run_report.folders import RunFolder
from unpaired.run_report.pictures import Weights
from unpaired.training import DatasetConfig, RunConfig, flat


def runs_table(runs: Sequence[RunFolder], weights: Weights) -> Block:
    """One column per run: method, data, length, machine, versions, then the settings in which they differ.

    A single run shows the settings that are not the defaults of its method.
    """
    facts: list[tuple[str, list[str]]] = [
        ("method", [run.title for run in runs]),
        ("trained on", [_data(run) for run in runs]),
        ("images seen", [_images_seen(run) for run in runs]),
        *([("begun with", begun)] if any(begun := [_initial(run) for run in runs]) else []),
        ("training time", [_time(run) for run in runs]),
        ("seed", [str(run.config.training.seed) for run in runs]),
        ("device", [_device(run) for run in runs]),
        ("versions", [_versions(run) for run in runs]),
        ("weights shown", [_weights(run, weights) for run in runs]),
    ]
    own = [flat(run.config.to_mapping()) for run in runs]
    others = own if len(runs) > 1 else [*own, flat(RunConfig(runs[0].config.method, DatasetConfig()).to_mapping())]
    keys = dict.fromkeys(key for settings in own for key in settings)
    told = ("method", "dataset.", "training.seed", "training.images", "init.", "extensions")
    differing = [key for key in keys if len({_words(settings.get(key, DASH)) for settings in others}) > 1]
    differing = [key for key in differing if not key.startswith(told)]
    rows = [(key, *values) for key, values in facts]
    rows += [(key, *(_words(settings.get(key, DASH)) for settings in own)) for key in differing]
    note = (
        "Below the versions: the settings in which the runs differ."
        if len(runs) > 1
        else "Below the versions: the settings that are not the method's defaults."
    )
    return table(["", *(run.name for run in runs)], rows, title="Runs", note=note if differing else "")


def commands(runs: Sequence[RunFolder], own: str = "") -> Block:
    """The commands that make these runs and this page again."""
    lines = []
    for run in runs:
        first = run.sessions[0].get("command") if run.sessions else None
        if first:
            lines.append(f"# {run.path}: begun {run.sessions[0].get('time', '')} with")
            lines.append(f"#   {first}")
        again = ["unpaired", "train", "--config", f"{run.path}/run.yaml", "--out", f"{run.path}-again"]
        lines.append(shlex.join(again))
    return command("\n".join([*lines, *([own] if own else [])]), title="Reproduce")


def _words(value: Any) -> str:
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_words, value))
    return str(value).replace("-", MINUS) if isinstance(value, int | float) else str(value)


def _data(run: RunFolder) -> str:
    dataset = run.config.dataset
    where = f"{dataset.folder}, {dataset.direction}" if dataset.folder else f"{dataset.source}, {dataset.target}"
    if dataset.domains is not None:
        where = f"{dataset.domains}: {', '.join(run.config.model.domains)}"
    counts = run.sessions[0].get("images") if run.sessions else None
    return f"{where} ({counts[0]:,} + {counts[1]:,} images)" if isinstance(counts, list) and len(counts) == 2 else where


def _images_seen(run: RunFolder) -> str:
    seen = run.log[-1].get("images_seen") if run.log else None
    asked = run.config.images
    if seen is None:
        return f"{asked:,} asked for" if asked else DASH
    words = f"{seen:,}" if asked in (None, seen) else f"{seen:,} of {asked:,}"
    return words + "".join(f", extended to {one.to:,} at {one.at:,}" for one in run.config.extensions)


def _initial(run: RunFolder) -> str:
    init = run.config.init
    return "" if init is None else f"{', '.join(init.networks)} ({init.weights}) of {init.source}"


def _weights(run: RunFolder, weights: Weights) -> str:
    if weights != "best":
        return {"ema": "average (EMA)", "last": "last"}[weights]
    best = run.best() or {}
    return f"best: {best.get('weights')} after {best.get('images_seen')} images, chosen by {best.get('score')}"


def _time(run: RunFolder) -> str:
    """Time of the training steps, as the log has it."""
    seconds, before = 0.0, 0
    for record in run.log:
        seen, each = record.get("images_seen"), record.get("seconds_per_image")
        if isinstance(seen, int) and isinstance(each, int | float):
            seconds += each * (seen - before)
            before = seen
    if not seconds:
        return DASH
    return f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{seconds / 60:.1f} minutes"


def _device(run: RunFolder) -> str:
    found = dict.fromkeys(
        str(session.get("cuda") or f"CPU, threads: {session.get('threads', '?')}") for session in run.sessions
    )
    return ", ".join(found) or DASH


def _versions(run: RunFolder) -> str:
    found = []
    for session in run.sessions:
        versions = session.get("versions") or {}
        git = session.get("git") or {}
        words = f"unpaired {versions.get('unpaired', '?')}, torch {versions.get('torch', '?')}"
        commit = git.get("commit")
        found.append(
            words + (f", commit {commit[:10]}{' with changes' if git.get('changed') else ''}" if commit else "")
        )
    return "; ".join(dict.fromkeys(found)) or DASH
