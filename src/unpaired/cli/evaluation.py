"""What ``unpaired evaluate`` does, and how scores are shown at a terminal."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from unpaired.data import DataConfig, Size, UnpairedFiles, find_test_images, list_images
from unpaired.data.reading import describe
from unpaired.engine.devices import choose_device
from unpaired.errors import ConfigError, DataError, nearest
from unpaired.evaluation import (
    LABELS,
    METRICS,
    Evaluation,
    FeatureCache,
    Score,
    ScoringNetworks,
    append_record,
    evaluate_made,
    evaluate_run,
    record,
)
from unpaired.inference import Translator
from unpaired.training import RunConfig

if TYPE_CHECKING:
    from unpaired.cli.evaluate import Evaluate

LINES = 160
"""Columns of the table where there is no terminal to ask."""
_LINE_EVERY = 10.0
"""Seconds between two lines of progress where there is no terminal."""


def evaluate(options: Evaluate) -> int:
    """Evaluate, print a table, keep a record; 0 done, 1 images were left out. Raises ``UserError``."""
    is_run = _is_run(options.run)
    pixels = {name: value for name in options.option_groups["pixel"] if (value := getattr(options, name)) is not None}
    if is_run and pixels:
        name = next(iter(pixels))
        raise ConfigError(f"{name}: {options.run} is a run, whose images are read as in its training; leave it out")
    description = Translator.from_pretrained(options.run, device="cpu").description if is_run else {}
    options = _with_own_data(options)
    files, request = _files(options) if not description.get("model", {}).get("domains") else _domain_files(options)
    device = choose_device(options.device)
    cache = None if options.cache else FeatureCache(None)
    networks = ScoringNetworks(_networks(options.network), device, download=options.download, cache=cache)
    common: dict[str, Any] = {
        "networks": networks,
        "names": options.metrics or None,
        "paired": options.paired,
        "skip_bad": options.skip_bad,
        "seed": options.seed,
        "intervals": options.intervals,
        "unchanged_masks": options.unchanged_masks,
    }
    warnings: list[str] = []
    with scoring_progress(warnings) as told:
        if is_run:
            common |= {"batch_size": options.batch_size, "precision": options.precision, "request": request}
            evaluation = evaluate_run(options.run, files, device=options.device, **common, **told)
        else:
            data = DataConfig(image_size=_size(options), load_size="image_size", **pixels)
            evaluation = evaluate_made(options.run, files, data, **common, **told)
    where = str(options.data) if options.data else f"{options.source} -> {options.target}"
    if "domain" in request:
        where = f"{files.source[0].parent.name} -> {request['domain']}"
    elif request:
        where += f" ({', '.join(key if value is True else f'{key} {value}' for key, value in request.items())})"
    console = Console(width=None if sys.stdout.isatty() else LINES)
    console.print(scores_table(f"{options.run} on {where}", evaluation))
    for line in remarks(evaluation):
        console.print(line, style="dim", highlight=False, soft_wrap=True)
    kept = {"data": where, "images_seen": int(description.get("images_seen", 0))}
    append_record(options.run, evaluation, **kept)  # type: ignore[arg-type]
    if options.out is not None:
        options.out.write_text(json.dumps(record(evaluation, **kept), indent=1) + "\n", encoding="utf-8")  # type: ignore[arg-type]
    return 1 if any(words.startswith("left out: ") for words in warnings) else 0


def _with_own_data(options: Evaluate) -> Evaluate:
    """Without DATA, --source and --target: the held-out images of the run's own data set."""
    if any(place is not None for place in (options.data, options.source, options.target)):
        return options
    if not (options.run / "run.yaml").exists():
        return options
    dataset = RunConfig.load(options.run / "run.yaml").dataset
    if dataset.held_out_source is not None or dataset.folder is None:
        return replace(options, source=dataset.held_out_source, target=dataset.held_out_target)
    return replace(options, data=dataset.folder)


def _is_run(folder: Path) -> bool:
    """Whether a run is meant; a folder without any image counts as one, so that the error speaks of runs."""
    if any((folder / name).exists() for name in ("weights", "model.json", "run.yaml")) or folder.is_file():
        return True
    try:
        list_images(folder)
    except DataError:
        return True
    return False


def _networks(named: Sequence[str]) -> dict[str, Path]:
    found = {}
    for entry in named:
        name, sign, path = entry.partition("=")
        if not sign or not path:
            raise ConfigError(f"network: '{entry}' must be NAME=PATH, for example inception=inception.pth")
        found[name] = Path(path)
    return found


def _size(options: Evaluate) -> Size:
    if options.image_size is not None:
        return options.image_size
    found = (describe(path) for path in list_images(options.run)[:50])
    sizes = {(facts.width, facts.height) for facts in found}
    if len(sizes) == 1 and (side := sizes.pop())[0] == side[1] and side[0] % 4 == 0:
        return side[0]
    raise ConfigError(
        f"{options.run}: the generated images are not squares of one size that is a multiple of 4; give the size to "
        "resize everything to with --image-size, one side or height and width"
    )


def _files(options: Evaluate) -> tuple[UnpairedFiles, dict[str, Any]]:
    """The held-out images, source first, and what the translator is asked for."""
    for name in ("domain", "source_domain"):
        if getattr(options, name) is not None:
            raise ConfigError(f"{name}: {options.run} is not a run of several domains")
    files = find_test_images(options.data, options.source, options.target)
    if files is None:
        raise DataError(
            f"{options.data or 'DATA is missing'}: there are no held-out images; give a folder with testA and testB, "
            "or --source DIR --target DIR"
        )
    direction = options.direction
    if direction is None and (options.run / "run.yaml").exists() and options.data is not None:
        direction = RunConfig.load(options.run / "run.yaml").dataset.direction
    swapped = (direction == "BtoA") != (options.reverse and options.data is not None)
    request: dict[str, Any] = {"reverse": True} if options.reverse else {}
    if options.style_seed is not None:
        request["style_seed"] = options.style_seed
    return files.swapped() if swapped else files, request


def _domain_files(options: Evaluate) -> tuple[UnpairedFiles, dict[str, Any]]:
    """Held-out images of two of a run's domains."""
    names = Translator.from_pretrained(options.run, device="cpu").method.domains
    pair, data = names[:2], options.data
    if (options.run / "run.yaml").exists():
        dataset = RunConfig.load(options.run / "run.yaml").dataset
        pair = dataset.scored_domains or pair
        if data is None and options.source is None and options.target is None:
            data = dataset.domains
    source, wanted = options.source_domain or pair[0], options.domain or pair[1]
    for option, name in (("source_domain", source), ("domain", wanted)):
        if name not in names:
            raise ConfigError(
                f"{option}: this run has no domain '{name}'{nearest(name, names)}; it has {', '.join(names)}"
            )
    if source == wanted:
        raise ConfigError(f"domain: '{wanted}' is the source domain, too; name two of {', '.join(names)}")
    if data is not None:
        found = find_test_images(None, data / "test" / source, data / "test" / wanted)
    else:
        found = find_test_images(None, options.source, options.target)
    if found is None:
        raise DataError("there are no held-out images; give a folder with test/<domain>, or --source and --target")
    return found, {"domain": wanted}


@contextmanager
def scoring_progress(warnings: list[str]) -> Iterator[dict[str, Any]]:
    """A progress bar and what ``Evaluator`` takes to drive it; its reports are printed and added to ``warnings``.

    Where standard error is no terminal, a line says how far it is every ten seconds.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn(compact=True))  # fmt: skip
    told = time.monotonic()
    with Progress(*columns, console=console, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("reading", total=None)

        def progress(stage: str, done: int, total: int) -> None:
            nonlocal told
            if bar.tasks[0].description != stage:
                bar.reset(task, description=stage, total=total)
            if bar.disable and time.monotonic() - told > _LINE_EVERY:
                told = time.monotonic()
                console.print(f"{stage}: {done:,} of {total:,}", highlight=False, soft_wrap=True)
            bar.update(task, completed=done, total=total)

        def report(words: str) -> None:
            warnings.append(words)
            console.print(words, highlight=False, soft_wrap=True)

        yield {"progress": progress, "report": report}


def scores_table(title: str, evaluation: Evaluation) -> Table:
    """A table for the terminal: one row per score, one column per set of images, intervals below the values."""
    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    for row in evaluation.scores:
        words = LABELS.get(row, row)
        if row == "best" and evaluation.best:
            words += f" ({evaluation.best['images_seen']:,} images)"
        table.add_column(words, justify="right")
    names = [name for name in METRICS if any(name in found for found in evaluation.scores.values())]
    for name in names:
        arrow = "↓" if METRICS[name].better == "lower" else "↑"
        unit = f" ({METRICS[name].unit})" if METRICS[name].unit else ""
        cells = [_cell(found.get(name)) for found in evaluation.scores.values()]
        table.add_row(f"{METRICS[name].label}{unit} {arrow}", *cells)
    return table


def _cell(score: Score | None) -> str:
    if score is None:
        return ""
    value = number(score.value)
    if score.interval is not None:
        return f"{value}\n[dim]{number(score.interval[0])} to {number(score.interval[1])}[/dim]"
    return value


def number(value: float) -> str:
    """A score in as many digits as mean something: four, at most three after the point.

    >>> [number(v) for v in (0.1234, 12.346, 123.4, 1234.4, float("inf"))]
    ['0.123', '12.35', '123.4', '1234', '∞']
    """
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    digits = 3 if abs(value) < 10 else 2 if abs(value) < 100 else 1 if abs(value) < 1000 else 0
    return f"{value:.{digits}f}"


def remarks(evaluation: Evaluation) -> list[str]:
    """What has to be said below a table: full names, how the best was chosen, what was left out and why."""
    scores = next((found for row, found in evaluation.scores.items() if row in ("ema", "last", "made")), {})
    lines = [
        "Below a score: its 95 % interval over images. Full names: "
        + ", ".join(score.full_name for score in scores.values())
    ]
    if evaluation.best:
        best = evaluation.best
        lines.append(
            f"best: the {LABELS[best['weights']]} weights at image {best['images_seen']:,}, chosen by {best['score']} "
            f"on {best['chosen_on']}. If these are the images scored here, its scores are optimistically biased."
        )
    if evaluation.flattered:
        labels = ", ".join(score.label for name, score in scores.items() if name in evaluation.flattered)
        lines.append(
            f"Biased: {labels}. Training used the same network, so rely on another one (such as "
            "--network inception=PATH), on SWD and on visual inspection."
        )
    if evaluation.precision != "32":
        lines.append(f"Translated in {evaluation.precision}.")
    networks = [f"{name} ({why})" for name, why in evaluation.left_out.items() if "not available" in why]
    if networks:
        lines.append(
            f"Left out: {', '.join(networks)}; --network NAME=PATH adds them"
            + (", --download downloads inception." if any("'inception'" in each for each in networks) else ".")
        )
    return lines
