"""Pictures of runs: translations, sample grids over training, and what query selection chose (the paper's Figure 2)."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from unpaired.data import DataConfig, PixelFormat, load_for_protocol, pictures
from unpaired.errors import ConfigError, ValueRangeWarning
from unpaired.grids import grid_cells
from unpaired.inference import Translator
from unpaired.reporting.run_folders import RunFolder

Weights = Literal["ema", "last", "best"]
_USUAL_TAPS = ("block1", "block5")


@dataclass(frozen=True)
class View:
    """Entropies and selected locations of one encoder for one image at one tap."""

    name: str
    """Of the run."""
    picture: Image.Image
    """The input of the encoder."""
    entropy: Any
    """(H, W), nats; small means significant."""
    indices: Any
    """(N,), selected positions as y * W + x."""
    note: str = ""


@dataclass(frozen=True)
class Panel:
    """One image and one tap, the encoders side by side."""

    image: str
    tap: str
    views: Sequence[View]


@dataclass(frozen=True)
class Gallery:
    """All pictures of the chosen images."""

    names: list[str]
    """Stem of each image."""
    columns: dict[str, list[Image.Image]]
    """Heading -> one picture per image: input, each run, and the truth if it is known."""
    panels: list[Panel]
    """One per image and tap, with a view per run; empty if no tap was asked for."""
    taps: tuple[str, ...]


def make_gallery(
    runs: Sequence[RunFolder],
    images: Sequence[Path],
    truths: Mapping[Path, Path],
    *,
    taps: Sequence[str] | None = None,
    weights: Weights = "ema",
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> Gallery:
    """Translate the images with every run, and compute what its encoder finds significant.

    As in the standard protocol, images are resized to the size of each run's training crops.

    Args:
        runs: At least one.
        images: Source images.
        truths: Source image -> its true translation; used if every image has one.
        taps: Layers of the encoder; unset takes those that select by significance, at most the last two. An empty
            sequence leaves significance out.
        weights: Which weights of the runs.
        device: As for :class:`unpaired.Translator`.
        progress: Called with (translations done, all).

    Raises:
        CheckpointError: A run has no such weights.
        ConfigError: A run has no such tap.
        DataError: An image cannot be read.
    """
    chosen = tuple(taps) if taps is not None else _default_taps(runs)
    translated: dict[str, list[Image.Image]] = {}
    inputs: dict[str, list[Image.Image]] = {}
    targets: dict[str, PixelFormat] = {}
    views: dict[tuple[int, str], list[View]] = {(number, tap): [] for number in range(len(images)) for tap in chosen}
    for done, run in enumerate(runs):
        translator = Translator.from_pretrained(run.path, weights=weights, device=device)
        data = DataConfig(image_size=translator.image_size)
        translated[run.name], inputs[run.name] = [], []
        targets[run.name] = translator.target
        for number, path in enumerate(images):
            source = load_for_protocol(path, data, translator.source)
            (picture,) = pictures([source], translator.source)
            inputs[run.name].append(picture)
            with warnings.catch_warnings(action="ignore", category=ValueRangeWarning):  # bright images
                made = translator.translate(source, domain=run.config.dataset.shown_domain)
            translated[run.name] += pictures([made], translator.target)
            for tap in chosen:
                views[number, tap].append(_view(run, translator, source, picture, tap))
            if progress is not None:
                progress(done * len(images) + number + 1, len(runs) * len(images))
    finest = max(runs, key=lambda run: inputs[run.name][0].size)
    columns = {"input": inputs[finest.name], **translated}
    if all(path in truths for path in images):
        shown = inputs[finest.name][0]
        target = targets[finest.name]
        data = DataConfig(image_size=(shown.height, shown.width))
        columns["truth"] = pictures([load_for_protocol(truths[path], data, target) for path in images], target)
    stems = [Path(path.name).stem for path in images]
    names = stems if len(set(stems)) == len(stems) else [path.name for path in images]
    panels = [Panel(names[number], tap, found) for (number, tap), found in views.items()]
    return Gallery(names, columns, panels, chosen)


def _default_taps(runs: Sequence[RunFolder]) -> tuple[str, ...]:
    """The last two taps at which a run selects by significance; the paper's if no run does."""
    selecting = [tuple(getattr(run.config.model, "attention_taps", ())) for run in runs]
    found = list(dict.fromkeys(tap for taps in selecting for tap in taps[-2:]))
    return tuple(found[:2]) or _USUAL_TAPS


def _view(run: RunFolder, translator: Translator, source: Any, picture: Image.Image, tap: str) -> View:
    try:
        seen = translator.significance(source, tap)
    except ConfigError as error:
        raise ConfigError(f"{run.path}: {error}; choose others with --taps") from error
    options = translator.method.selection(tap)
    if options["significance"] == "random":
        note = "sampled at random in training; shown here by the paper's entropy"
    else:
        note = f"selects by {options['significance']}, {options['attention']}, {options['similarity']}"
    return View(run.name, picture, seen.entropy.numpy(), seen.indices.numpy(), note)


@dataclass(frozen=True)
class Strip:
    """Translations of the same images at several times of a training."""

    times: list[int]
    """Images seen, one per column of translations."""
    rows: list[list[Image.Image | None]]
    """Per image: its input if the grids show it, then one picture per time."""
    has_input: bool

    @property
    def heads(self) -> list[str]:
        """Headings of the columns."""
        return ["input"] * self.has_input + [f"{time:,}" for time in self.times]


def over_training(run: RunFolder, *, weights: Weights = "ema", most_times: int = 8, most_rows: int = 3) -> Strip | None:
    """Crop translations over training from the sample grids of a run, evenly spaced, first and last included.

    Args:
        run: The run.
        weights: The averaged or the live weights; there are no grids of the best ones, the averaged stand for them.
        most_times: Largest number of columns.
        most_rows: Largest number of images.

    Returns:
        ``None`` if the run has no readable sample grid.
    """
    found = run.samples()
    count = min(most_times, len(found))
    places = sorted({round(number * (len(found) - 1) / max(1, count - 1)) for number in range(count)})
    whole: dict[int, Image.Image | None] = {}
    for time, path in (found[place] for place in places):
        with contextlib.suppress(OSError), Image.open(path) as file:  # cut short by a full disk, or no picture at all
            whole[time] = file.convert("RGB")
    times, grids = [*whole], [grid_cells(picture) for picture in whole.values() if picture]
    if not times:
        return None
    if any(len(grid) != len(grids[-1]) or len(grid) < 2 for grid in grids):  # not the grids of this version
        return Strip(times, [[*whole.values()]], has_input=False)
    column = 2 if weights == "last" and len(grids[-1]) > 2 else 1
    rows: list[list[Image.Image | None]] = []
    for number in range(min(most_rows, len(grids[-1][0]))):
        cells = [grid[column][number] if number < len(grid[column]) else None for grid in grids]
        rows.append([grids[-1][0][number], *cells])
    return Strip(times, rows, has_input=True)


def nats(low: float, high: float) -> tuple[str, str]:
    """Format both ends of a range of entropies with as many digits as distinguish them.

    >>> nats(0.0, 5.54), nats(2.7180, 2.7183)
    (('0.00', '5.54'), ('2.718000', '2.718300'))
    """
    digits = 2 if not (high > low) or high - low >= 0.1 else min(8, 2 - math.floor(math.log10(high - low)))
    return f"{low:.{digits}f}", f"{high:.{digits}f}"
