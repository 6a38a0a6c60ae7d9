"""``unpaired demo``: the main job on the embedded drawings, from nothing to a report a person can open."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from PIL import Image
from rich.console import Console

from unpaired.cli.evaluate import LINES, remarks, scores_table, scoring_progress
from unpaired.data import embedded_dataset, tensor_to_image
from unpaired.engine.precision import autocast_for, choose_precision, half_layout, step_time_ratio
from unpaired.engine.step import seconds_per_step
from unpaired.environment import environment
from unpaired.errors import ConfigError
from unpaired.evaluation import Evaluation, append_record, evaluate_run
from unpaired.files import write_atomically
from unpaired.grids import image_grid, png_bytes, side_by_side
from unpaired.inference import Translator
from unpaired.methods import METHODS, Method
from unpaired.recipes import demo
from unpaired.run_config import as_begun
from unpaired.training import RunConfig, train

_OTHER_SECONDS = 75.0
"""What loading, scoring during and after training, and writing take on two cores; never more than half of the time."""
_LOADING_SECONDS = 0.004
"""What an image takes beside its step."""
_EXAMPLES = 12
_TAP = "block3"


@dataclass(frozen=True)
class Demo:
    """Train QS-Attn from scratch by the quick recipe on the embedded drawings (black line drawings -> colour),
    translate the 120 test drawings, score them against their known truth, and write a report. Scores during training,
    and the best weights, are by 100 of the 200 validation drawings; no weights were chosen on the test drawings.

    Run it again to resume. A prettier result needs longer: 'unpaired demo --minutes 60'.
    """

    out: Path | None = None
    """The run folder; unset means runs/demo, with what differs from the defaults added to its name."""
    minutes: float = 5.0
    """Time for everything; the number of training images is set by this machine's measured speed."""
    images: int | None = None
    """Train on exactly so many images instead (the same result on every run of one machine)."""
    seed: int = 0
    """Seed of everything random."""


def main(argv: Sequence[str]) -> int:
    """Train, translate, score, report."""
    options = tyro.cli(Demo, args=list(argv), prog="unpaired demo")
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
        console.print(line)
    console.print(f"Took {(time.perf_counter() - started) / 60:.1f} minutes. Open {report.resolve()}", soft_wrap=True)
    return 0


def _folder(options: Demo) -> Path:
    """The default folder of a demo: one for each length and seed."""
    name = "demo"
    if options.images is not None:
        name += f"-{options.images}-images"
    elif options.minutes != Demo.minutes:
        name += f"-{options.minutes:g}-minutes"
    return Path("runs") / (name + (f"-seed-{options.seed}" if options.seed else ""))


def _config(options: Demo, out: Path, console: Console) -> RunConfig:
    """The demo's settings: those of the run in ``out`` if there is one, else sized to the time that was given."""
    if (out / "run.yaml").exists():
        before = RunConfig.load(out / "run.yaml")
        length = before.training.images
        same = length is not None and before == as_begun(demo(length, options.seed), out)
        if same and options.images in (None, length):
            console.print(f"{out} holds this demo with {length:,} training images: going on with it.")
            return before
        raise ConfigError(f"{out} holds another run; choose another --out")
    if options.images is not None:
        return demo(options.images, options.seed)
    if not options.minutes > 0:
        raise ConfigError(f"minutes must be above 0, not {options.minutes}")
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


_GAINS = {
    "paired_l1_pm1": "truth (paired L1)",
    "swd_progan_x1e3": "target domain (SWD)",
    "kid_mobilenet_x1e3": "target domain (KID of MobileNet)",
    "kid_lite0_x1e3": "target domain (KID of Lite0)",
}


def gains(evaluation: Evaluation) -> list[str]:
    """Sentences that say by which scores the translations are closer than the untranslated inputs, and by which not."""
    lines = []
    for name, words in _GAINS.items():
        if name not in evaluation.scores["ema"]:
            continue
        before = evaluation.scores["input"][name].value
        after = evaluation.scores["ema"][name].value
        change = 100 * (before - after) / before
        direction = "closer to" if change >= 0 else "FARTHER from"
        looks = (
            " Training looked through that network, so this one is flattered." if name in evaluation.flattered else ""
        )
        lines.append(
            f"Translations are {abs(change):.0f} % {direction} the {words} than the untranslated drawings: "
            f"{before:.3f} -> {after:.3f}.{looks}"
        )
    return lines


def _write_report(out: Path, config: RunConfig, evaluation: Evaluation) -> Path:
    """``report.html`` and ``grid.png`` in the run folder."""
    from unpaired.reporting import page
    from unpaired.reporting.pictures import draw_queries, heat_map
    from unpaired.reporting.report import loss_charts
    from unpaired.reporting.run_folders import read_runs
    from unpaired.reporting.tables import collect

    translator = Translator.from_pretrained(out, device="cpu")
    count = len(evaluation.sources)
    chosen = [i * count // _EXAMPLES for i in range(_EXAMPLES)]
    columns: dict[str, list[Image.Image]] = {"input": [], "translation": [], "truth": [], "selected queries": []}
    entropies: list[Image.Image] = []
    for i in chosen:
        picture = tensor_to_image(evaluation.sources[i])
        seen = translator.significance(evaluation.sources[i], _TAP)
        height, width = seen.entropy.shape
        columns["input"].append(picture)
        columns["translation"].append(tensor_to_image(evaluation.translations["ema"][i]))
        columns["truth"].append(tensor_to_image(evaluation.truths[i]))
        columns["selected queries"].append(draw_queries(picture, seen.indices, height, width, size=192))
        entropies.append(heat_map(picture, seen.entropy, size=192))
    half = _EXAMPLES // 2
    halves = [{name: images[part] for name, images in columns.items()} for part in (slice(half), slice(half, None))]
    grid = side_by_side([image_grid(part, cell=96) for part in halves])
    write_atomically(out / "grid.png", png_bytes(grid))

    names = [evaluation.names[i] for i in chosen]
    rows = [(name, [*(column[k] for column in columns.values()), entropies[k]]) for k, name in enumerate(names)]
    numbers = environment()
    sections = [
        page.heading(
            "Black drawings into colour, without pairs",
            f"QS-Attn by the quick recipe, trained from scratch on {config.training.images:,} unpaired images; "
            f"scored on {len(evaluation.names)} drawings that it never saw.",
        ),
        page.before_after(
            [(name, columns["input"][k], columns["translation"][k]) for k, name in enumerate(names)],
            note="Evenly spaced by name, not chosen. Drag the border, or move the slider, to look beneath.",
        ),
        page.notes(gains(evaluation), title="What came out"),
        page.gallery(
            [*columns, "entropy"],
            rows,
            title="Test drawings",
            note=f"Evenly spaced by name, not chosen. Translations by the averaged weights. Queries: the "
            f"{config.model.num_queries} most significant of {height * width} locations at {_TAP}.",
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
                "device": f"{numbers['threads']} CPU threads",
                "unpaired": numbers["versions"]["unpaired"],
                "torch": numbers["versions"]["torch"],
                "data": "Fluent emoji, MIT, Microsoft Corporation",
                "run folder": out,
            }
        ),
        page.command(f"unpaired demo --images {config.training.images} --seed {config.training.seed}"),
    ]
    return page.write_page(out / "report.html", "unpaired: drawings into colour", sections).path
