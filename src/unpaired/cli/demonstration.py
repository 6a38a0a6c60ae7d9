"""What ``unpaired demo`` does: size the training to the time, train, score, and write the report."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console

from unpaired.cli.evaluation import LINES, remarks, scores_table, scoring_progress
from unpaired.data import embedded_dataset, tensor_to_image
from unpaired.engine.precision import autocast_for, choose_precision, half_layout, step_time_ratio
from unpaired.engine.step import seconds_per_step
from unpaired.environment import environment
from unpaired.errors import ConfigError
from unpaired.evaluation import Evaluation, Score, append_record, evaluate_run
from unpaired.files import write_atomically
from unpaired.inference import Translator
from unpaired.methods import METHODS, Method
from unpaired.recipes import demo
from unpaired.run_config import as_begun
from unpaired.training import RunConfig, train

if TYPE_CHECKING:
    from unpaired.cli.demo import Demo

_OTHER_SECONDS = 75.0
"""What loading, scoring during and after training, and writing take on two cores; never more than half of the time."""
_LOADING_SECONDS = 0.004
"""What an image takes beside its step."""
_EXAMPLES = 12
_TAP = "block3"
_DASH = "\N{EN DASH}"


def demonstrate(options: Demo) -> int:
    """Train, translate, score, report; 0 when training reached its end. Raises ``UserError``."""
    console = Console(width=None if sys.stdout.isatty() else LINES)
    started = time.perf_counter()
    out = options.out or _folder(options)
    config = _config(options, out, console)
    result = train(config, out)
    if not result.finished:
        return 128 + result.interrupted if result.interrupted else 1

    with scoring_progress([]) as told:
        evaluation = evaluate_run(out, embedded_dataset("fluent").test, device="cpu", **told)
    append_record(out, evaluation, data="embedded fluent", images_seen=result.images_seen)
    report = _write_report(out, config, evaluation)
    console.print(scores_table(f"{len(evaluation.names)} test drawings against their true colours", evaluation))
    for line in remarks(evaluation):
        console.print(line, style="dim", highlight=False, soft_wrap=True)
    for line in gains(evaluation):
        console.print(line, soft_wrap=True)
    console.print(f"Took {(time.perf_counter() - started) / 60:.1f} minutes. Open {report.resolve()}", soft_wrap=True)
    return 0


def _folder(options: Demo) -> Path:
    """The default folder of a demo: one for each length and seed."""
    name = "demo"
    if options.images is not None:
        name += f"-{options.images}-images"
    elif options.minutes != type(options).minutes:
        name += f"-{options.minutes:g}-minutes"
    return Path("runs") / (name + (f"-seed-{options.seed}" if options.seed else ""))


def _config(options: Demo, out: Path, console: Console) -> RunConfig:
    """The demo's settings: those of the run in ``out`` if there is one, else sized to the time that was given."""
    if (out / "run.yaml").exists():
        before = RunConfig.load(out / "run.yaml")
        length = before.training.images
        same = length is not None and before == as_begun(demo(length, options.seed), out)
        if same and options.images in (None, length):
            console.print(f"{out} holds this demo with {length:,} training images: continuing it.")
            return before
        raise ConfigError(f"{out} holds another run; choose another --out")
    if options.images is not None:
        return demo(options.images, options.seed)
    config = demo(1, options.seed)
    optimiser, data, batch_size = config.model.optimiser, config.data, config.training.batch_size

    def fresh() -> Method:
        return METHODS[config.method](config.model, channels=data.channels)

    def ratio() -> float:
        method = fresh()
        method.prepare()
        return step_time_ratio(method, optimiser, data.channels, data.crop_size, batch_size=batch_size, budget=5.0)

    device = torch.device("cpu")
    choice = choose_precision(device, ratio)
    console.print(choice.line)
    seconds = seconds_per_step(
        fresh(), optimiser, data.channels, data.crop_size, batch_size=batch_size,
        autocast=autocast_for(choice.precision, device), layout=half_layout(choice.precision, device),
    ) / batch_size  # fmt: skip
    training = options.minutes * 60 - min(_OTHER_SECONDS, 30 * options.minutes)
    images = max(100, round(training / (seconds + _LOADING_SECONDS) / 100) * 100)
    console.print(
        f"This machine takes {seconds * 1000:.0f} ms per image ({torch.get_num_threads()} threads): "
        f"training on {images:,} images fits into {options.minutes:g} minutes."
    )
    return demo(images, options.seed).in_precision(choice.precision)


def changes(evaluation: Evaluation) -> list[tuple[Score, float, bool | None, bool]]:
    """Every score of the translations beside that of the untranslated inputs.

    Returns:
        The score, the inputs' value, whether it became better (``None``: equal, or the inputs have none to compare),
        and whether training used the network behind it, so that it is flattered.
    """
    found = []
    for name, score in evaluation.scores["ema"].items():
        reference = evaluation.scores["input"].get(name)
        before = math.nan if reference is None else reference.value
        better = None if math.isnan(before) or before == score.value else (
            (score.value < before) == (score.better == "lower"))  # fmt: skip
        found.append((score, before, better, name in evaluation.flattered))
    return found


def gains(evaluation: Evaluation) -> list[str]:
    """Sentences that say which scores became better than those of the untranslated inputs, and which worse."""
    lines = []
    for wanted, words in ((True, "Better than"), (False, "WORSE than"), (None, "Equal to, or not comparable with,")):
        told = [
            f"{score.label} ({before:.4g} -> {score.value:.4g}{', biased: training used its network' * flattered})"
            for score, before, better, flattered in changes(evaluation)
            if better is wanted
        ]
        if told:
            lines.append(f"{words} the untranslated drawings by {len(told)} scores: {', '.join(told)}.")
    return lines


def _write_report(out: Path, config: RunConfig, evaluation: Evaluation) -> Path:
    """``report.html`` and ``grid.png`` in the run folder."""
    from unpaired.reporting import page
    from unpaired.reporting.figures import Cell, Sheet
    from unpaired.reporting.pictures import Panel, View
    from unpaired.reporting.report import dotted, loss_charts
    from unpaired.reporting.run_folders import read_runs
    from unpaired.reporting.tables import collect

    translator = Translator.from_pretrained(out, device="cpu")
    count = len(evaluation.sources)
    chosen = [i * count // _EXAMPLES for i in range(_EXAMPLES)]
    names = [evaluation.names[i] for i in chosen]
    made = (evaluation.sources, evaluation.translations["ema"], evaluation.truths)
    columns = {
        head: [tensor_to_image(images[i]) for i in chosen]
        for head, images in zip(("input", "translation", "truth"), made, strict=True)
    }
    views = []
    for i, picture in zip(chosen, columns["input"], strict=True):
        seen = translator.significance(evaluation.sources[i], _TAP)
        views.append(View("QS-Attn", picture, seen.entropy.numpy(), seen.indices.numpy()))
    cells = {head: [Cell(picture) for picture in pictures] for head, pictures in columns.items()}
    cells["selected queries"] = [dotted(view) for view in views]
    halves = [(head, own[part]) for part in (slice(0, 6), slice(6, None)) for head, own in cells.items()]
    write_atomically(out / "grid.png", Sheet(halves).save("png"))

    verdicts = {True: "better", False: "worse", None: _DASH}
    rows = [
        (f"{score.label} {'↓' if score.better == 'lower' else '↑'}", f"{before:.4g}", f"{score.value:.4g}",
         verdicts[better] + ", biased" * flattered)
        for score, before, better, flattered in changes(evaluation)
    ]  # fmt: skip
    counted = {verdict: sum(better is verdict for _, _, better, _ in changes(evaluation)) for verdict in (True, False)}
    numbers = environment()
    sections = [
        page.heading(
            "Black drawings into colour, without pairs",
            f"QS-Attn by the quick recipe, trained from scratch on {config.training.images:,} unpaired images; "
            f"scored on {count} drawings that it never saw.",
        ),
        page.before_after(
            list(zip(names, columns["input"], columns["translation"], strict=True)),
            note="Evenly spaced by name, not hand-picked. Drag the border, or move the slider, to compare.",
        ),
        page.table(
            ["score", "before", "after", "change"],
            rows,
            title=f"Against the untranslated drawings: {counted[True]} scores better, {counted[False]} worse",
            note="All measured scores; the arrow shows which direction is better. Scores of lost structure and of "
            "changes to the input are 0 before translation by definition. Biased: training used this score's network.",
        ),
        page.gallery(
            [*columns],
            [(name, [own[k] for own in columns.values()]) for k, name in enumerate(names)],
            title="Beside the true colours",
            note="Translations by the averaged weights.",
        ),
        page.significance_viewer(
            [Panel(name, _TAP, [view]) for name, view in zip(names, views, strict=True)],
            note=f"Points: the {config.model.num_queries} most significant locations at {_TAP}, which training "
            "compares. Colours: the entropy of each location's attention; small entropy is significant.",
        ),
        page.score_table(collect([out])),
        page.charts(
            [*loss_charts(read_runs([out])).values()], title="Training", note="Means over 50 images, and smoothed."
        ),
        page.facts(
            {
                "method": "QS-Attn, global attention",
                "images seen": config.training.images,
                "seed": config.training.seed,
                "device": f"CPU, threads: {numbers['threads']}",
                "unpaired": numbers["versions"]["unpaired"],
                "torch": numbers["versions"]["torch"],
                "data": "Fluent emoji, MIT, Microsoft Corporation",
            }
        ),
        page.command(f"unpaired demo --images {config.training.images} --seed {config.training.seed}"),
    ]
    return page.write_page(out / "report.html", "unpaired: drawings into colour", sections).path
