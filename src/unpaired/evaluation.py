"""Scores of a trained run on held-out images: input, averaged weights and last weights side by side."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from unpaired.data import DataConfig, UnpairedFiles, pair_by_name
from unpaired.errors import ConfigError, DataError, TrainingError
from unpaired.inference import Translator
from unpaired.metrics import Score, evaluate_images
from unpaired.training import environment, load_for_protocol

INPUT = "input (untranslated)"


@dataclass(frozen=True)
class Evaluation:
    """Scores and images of one evaluation.

    Attributes:
        scores: Row name (``input (untranslated)``, ``average (EMA)``, ``last``) -> metric -> score.
        sources: Inputs, each (C, S, S) in [-1, 1].
        translations: Row name -> translated images, in the order of ``sources``.
        truths: The true partner of each input, or an empty list when the files are not pairs.
        names: Stem of each input's file name.
    """

    scores: dict[str, dict[str, Score]]
    sources: list[Tensor]
    translations: dict[str, list[Tensor]]
    truths: list[Tensor]
    names: list[str]


def evaluate(
    translators: dict[str, Translator],
    files: UnpairedFiles,
    *,
    seed: int = 0,
    batch_size: int = 8,
    paired: Literal["auto", "yes", "no"] = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Translate the source files with each translator and score the results against the target files.

    Images are read as the field's protocol does, resized to the side of the training crop.

    Args:
        translators: Row name -> translator; all trained on crops of one size.
        files: Held-out images of both domains.
        seed: For metrics that draw at random.
        batch_size: Images translated at a time.
        paired: Whether files of the same stem are input and truth; ``auto`` takes them as such when every source file
            has a target file of its stem.
        progress: Called with (images translated, images in all).

    Raises:
        DataError: An image cannot be read, or there are too few.
        ConfigError: ``batch_size`` or ``seed`` is too small.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, not {batch_size}")
    if seed < 0:
        raise ConfigError(f"seed must be 0 or greater, not {seed}")
    first = next(iter(translators.values()))
    data = DataConfig(image_size=first.image_size, channels=first.channels, background=first.background)
    sources = [load_for_protocol(path, data) for path in files.source]
    targets = [load_for_protocol(path, data) for path in files.target]
    truths = [] if paired == "no" else _truths(files, targets)
    if paired == "yes" and not truths:
        raise DataError(
            "paired scores need a target file with the stem of each source file; rename them or drop --paired"
        )

    translations: dict[str, list[Tensor]] = {}
    done, total = 0, len(sources) * len(translators)
    for row, translator in translators.items():
        translations[row] = []
        for start in range(0, len(sources), batch_size):
            translated = translator.translate(torch.stack(sources[start : start + batch_size]))
            translations[row].extend(translated)
            done += len(translated)
            if progress is not None:
                progress(done, total)
    real, truth = [_rgb(x) for x in targets], [_rgb(x) for x in truths] or None
    scores = {
        row: evaluate_images([_rgb(x) for x in images], real, truth=truth, seed=seed)
        for row, images in {INPUT: sources, **translations}.items()
    }
    return Evaluation(scores, sources, translations, truths, [path.stem for path in files.source])


def evaluate_run(run: Path, files: UnpairedFiles, *, device: str = "auto", **options: Any) -> Evaluation:
    """Evaluate both the averaged and the last weights of a run folder. See ``evaluate``."""
    translators = {
        "average (EMA)": Translator.from_pretrained(run, weights="ema", device=device),
        "last": Translator.from_pretrained(run, weights="last", device=device),
    }
    return evaluate(translators, files, **options)


def image_set_scores(
    images: Sequence[Path], reference: Sequence[Path], data: DataConfig, *, seed: int = 0
) -> dict[str, Score]:
    """Unpaired scores between two sets of files, for floors and ceilings such as real against real."""
    made, real = ([_rgb(load_for_protocol(path, data)) for path in paths] for paths in (images, reference))
    return evaluate_images(made, real, seed=seed)


def append_record(run: Path, evaluation: Evaluation, *, data: str, seed: int, images_seen: int) -> None:
    """Add one JSON line with every score, its protocol and the environment to ``evaluations.jsonl`` of a run.

    Raises:
        TrainingError: The file cannot be written.
    """
    scores = {
        row: {score.full_name: {k: v for k, v in asdict(score).items() if k != "per_image"} for score in found.values()}
        for row, found in evaluation.scores.items()
    }
    record = {
        "data": data, "seed": seed, "images_seen": images_seen, "scores": scores, "environment": environment(),
    }  # fmt: skip
    try:
        with (run / "evaluations.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
    except OSError as error:
        raise TrainingError(f"cannot write {run / 'evaluations.jsonl'}: {error.strerror or error}") from error


def _truths(files: UnpairedFiles, targets: Sequence[Tensor]) -> list[Tensor]:
    """The target of each source file, when all of them have one of the same stem; else nothing."""
    try:
        pairs = pair_by_name(files.source, files.target)
    except DataError:  # a stem occurs twice, so these are no pairs
        return []
    if len(pairs) < len(files.source):
        return []
    by_path = dict(zip(files.target, targets, strict=True))
    return [by_path[target] for _, target in pairs]


def _rgb(x_CHW: Tensor) -> Tensor:
    """The scores are defined on colour images; gray ones are shown to them in three equal channels."""
    return x_CHW.expand(3, -1, -1) if len(x_CHW) == 1 else x_CHW
