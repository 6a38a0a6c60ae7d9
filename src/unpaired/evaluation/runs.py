"""Scores of a trained run, or of any folder of made images, on held-out images; and the record that is kept of them."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from unpaired.config import checked, from_dict, to_dict
from unpaired.data import DataConfig, UnpairedFiles, ValueMapping, list_images
from unpaired.environment import environment
from unpaired.errors import DataError, TrainingError, UserError, ValueRangeWarning
from unpaired.evaluation.evaluator import Evaluator
from unpaired.evaluation.image_files import ImageFiles, evenly_spaced
from unpaired.evaluation.registry import METRICS, Score
from unpaired.evaluation.scoring_networks import ScoringNetworks
from unpaired.files import read_json
from unpaired.inference import InferencePrecision, Translator
from unpaired.methods import METHODS
from unpaired.methods.base import frozen_networks
from unpaired.run_config import RunConfig
from unpaired.run_folder import BestRecord, append_line

if TYPE_CHECKING:
    import pandas as pd

LABELS = {
    "input": "input (untranslated)",
    "real": "real against real",
    "truth": "real photos",
    "made": "generated images",
    "ema": "average (EMA)",
    "last": "last",
    "best": "best",
}
"""Key of a row of scores -> words for people."""
REFERENCES = ("input", "real", "truth")
"""Reference rows, excluded from ranking: floors and ceilings."""
FORMAT = 2


@dataclass(frozen=True)
class Evaluation:
    """Scores and images of one evaluation.

    Attributes:
        scores: Row (a key of ``LABELS``) -> metric -> score.
        sources: Inputs, each (C, H, W) in [-1, 1].
        translations: Row -> translated images, in the order of ``sources``.
        truths: The true partner of each input, or nothing when the files are not pairs.
        names: Stem of each input's file name.
        data: What was scored on, as plain values: digests, counts, side, whether files are pairs.
        networks: Networks that were used -> title and digest of their weights.
        left_out: Metrics that were not computed -> why.
        best: How the row ``best`` was chosen, if there is one.
        seed: For metrics that draw at random.
        flattered: Scores by networks that training used as well; they may be optimistically biased, because the
            generator was trained against these networks.
        precision: Arithmetic in which the translations were made.
    """

    scores: dict[str, dict[str, Score]]
    sources: Sequence[Tensor]
    translations: dict[str, Sequence[Tensor]]
    truths: Sequence[Tensor]
    names: list[str]
    data: dict[str, Any]
    networks: dict[str, dict[str, str]]
    left_out: dict[str, str]
    best: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    flattered: tuple[str, ...] = ()
    precision: str = "32"

    def __repr__(self) -> str:
        return f"Evaluation({len(self.names):,} images, rows {', '.join(self.scores)}; .frame() has the scores)"

    def frame(self) -> pd.DataFrame:
        """The scores as a table: a row per set of images, a column per score by its full name."""
        import pandas as pd  # slow, and training scores without it

        rows = {row: {each.full_name: each.value for each in found.values()} for row, found in self.scores.items()}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("images")

    def _repr_html_(self) -> str:
        return self.frame().rename(index=LABELS).to_html(float_format="{:.4g}".format, na_rep="")


def evaluate(
    translators: Mapping[str, Translator],
    files: UnpairedFiles,
    *,
    networks: ScoringNetworks | None = None,
    real: Sequence[str | Path] = (),
    batch_size: int = 8,
    best: dict[str, Any] | None = None,
    request: Mapping[str, Any] | None = None,
    **options: Any,
) -> Evaluation:
    """Translate the source files with each translator and score the results against the target files.

    Args:
        translators: Row -> translator; all trained on crops of one size.
        files: Held-out images of both domains.
        networks: Where the scores' networks come from; unset takes those at hand.
        real: More real images of the target domain, scored like translations: the ceiling ``real against real``.
        batch_size: Images translated at a time.
        best: How the row ``best`` was chosen.
        request: What ``Translator.translate`` is asked for: ``reverse``, ``style_seed`` or ``domain``.
        options: Further ones of ``Evaluator``.

    Raises:
        UserError: An image cannot be read, there are too few, a setting cannot work, weights are missing.
    """
    first = next(iter(translators.values()))
    data = DataConfig(image_size=first.image_size, load_size="image_size", channels=first.channels,
                      background=first.background)  # fmt: skip
    formats = first.sides(bool((request or {}).get("reverse")))
    found = networks or ScoringNetworks(device=first.device)
    evaluator = Evaluator(files, data, found, formats=formats, **options)
    _warn_of_ranges(evaluator, (evaluator.sources, "source images", ""), (evaluator.targets, "target images", ""))
    if evaluator.remark:
        evaluator.report(evaluator.remark)
    scores, translations = dict[str, dict[str, Score]](), dict[str, Sequence[Tensor]]()
    if inputs := evaluator.score_inputs():
        scores["input"] = inputs
    if real:
        further = evaluator.read(evenly_spaced(real, len(files.source)), "further real images")
        scores["real"] = evaluator.score_set(further, LABELS["real"])
    if truth := evaluator.score_truths():
        scores["truth"] = truth
    for row, translator in translators.items():
        translate = functools.partial(translator.translate, **(request or {}))
        with warnings.catch_warnings(action="ignore", category=ValueRangeWarning):  # bright images
            translations[row] = evaluator.translate(translate, batch_size, LABELS.get(row, row))
        scores[row] = evaluator.score(translations[row], LABELS.get(row, row))
    frozen_networks = frozenset[str]().union(*(_frozen_networks(each.description) for each in translators.values()))
    evaluation = _evaluation(evaluator, scores, translations, best or {}, request, frozen_networks)
    return replace(evaluation, precision=first.arithmetic.name)


def _warn_of_ranges(evaluator: Evaluator, *read: tuple[ImageFiles, str, str]) -> None:
    """Report where values do not suit their range, once for images of one range; ``read``: files, words, option."""
    told: list[ValueMapping] = []
    for files, what, option in read:
        if files.pixels.mapping not in told and (found := files.range_warnings(what, option)):
            told.append(files.pixels.mapping)
            for words in found:
                evaluator.report(words)


def _frozen_networks(description: Mapping[str, Any]) -> frozenset[str]:
    """Frozen networks that the training of a model used."""
    config: Any = from_dict(METHODS[description["method"]].Config, description["model"], "model.json: model")
    return frozen_networks(config)


def evaluate_made(
    made: str | Path, files: UnpairedFiles, data: DataConfig, *, networks: ScoringNetworks | None = None, **options: Any
) -> Evaluation:
    """Score a folder of images that any software made from the source files; their stems are those of the sources.

    ``data`` says how files become values in [-1, 1], as for :class:`Evaluator`, whose ``options`` these are.

    Raises:
        ConfigError: The values have no range of their own, or a setting does not fit.
        DataError: A source has no made image or the other way round, or they are the real images themselves.
    """
    evaluator = Evaluator(files, data, networks or ScoringNetworks(), **options)
    by_stem = dict[str, Path]()
    for path in list_images(made):
        if path.stem in by_stem:
            raise DataError(f"{made}: both {by_stem[path.stem].name} and {path.name} could be the translation of one "
                            "source; leave only one of them there")  # fmt: skip
        by_stem[path.stem] = path
    absent = [path.name for path in evaluator.sources.paths if path.stem not in by_stem]
    if absent:
        raise DataError(
            f"{made}: there is no translation of {', '.join(absent[:3])} ({len(absent)} of "
            f"{len(evaluator.sources.paths)} are missing); generated images need the names of their sources"
        )
    found = evaluator.read([by_stem[path.stem] for path in evaluator.sources.paths], "the made images")
    if set(found.digests) <= set(evaluator.targets.digests):
        raise DataError(f"{made} holds the real target images themselves, so there is nothing to compare")
    _warn_of_ranges(
        evaluator,
        (evaluator.sources, "source images", "--value-range"),
        (evaluator.targets, "target images", "--target-value-range"),
        (found, "generated images", "--target-value-range"),
    )
    if evaluator.remark:
        evaluator.report(evaluator.remark)
    scores = {"input": inputs} if (inputs := evaluator.score_inputs()) else {}
    if truth := evaluator.score_truths():
        scores["truth"] = truth
    scores["made"] = evaluator.score(found.images, LABELS["made"], files=found)
    return _evaluation(evaluator, scores, {"made": found.images}, {})


def evaluate_run(
    run: str | Path, files: UnpairedFiles, *, device: str = "auto", precision: InferencePrecision = "32", **options: Any
) -> Evaluation:
    """Evaluate the averaged, the last and, if one was chosen, the best weights of a run folder. See ``evaluate``."""
    run = Path(run)
    first = Translator.from_pretrained(run, device=device)
    names = ["ema", "last"] if first.origin is not None and first.origin.weights == "ema" else ["last"]
    best = best_record(run)
    if best and (run / "weights" / "best.safetensors").exists():
        names.append("best")
    translators = {
        name: Translator.from_pretrained(run, weights=name, device=device, precision=precision)  # type: ignore[arg-type]
        for name in names
    }
    request = options.get("request") or {}
    if "real" not in options:
        options["real"] = _training_images(run, request)
    if request:  # how the best weights were chosen says nothing about another direction, style or domain
        best = {**best, "chosen_on": f"{best['chosen_on']}, by plain translations"} if best else best
    return evaluate(translators, files, best=best, **options)


def best_record(run: str | Path) -> dict[str, Any]:
    """How the best weights of a run were chosen, the fields of :class:`BestRecord`; empty if none were."""
    try:
        return vars(checked(BestRecord, read_json(Path(run) / "weights" / "best.json")))
    except (OSError, ValueError):
        return {}


def _training_images(run: Path, request: Mapping[str, Any]) -> Sequence[Path]:
    """The real images of the wanted domain that a run was trained with, where they still lie."""
    try:
        dataset = RunConfig.load(run / "run.yaml").dataset
        if dataset.domains is not None:
            name = request.get("domain")
            return list_images(dataset.domains / "train" / name) if name else ()
        files = dataset.training_files()
        return files.source if request.get("reverse") else files.target
    except UserError:
        return ()


def _evaluation(
    evaluator: Evaluator,
    scores: dict[str, dict[str, Score]],
    translations: dict[str, Sequence[Tensor]],
    best: dict[str, Any],
    request: Mapping[str, Any] | None = None,
    frozen_networks: Iterable[str] = (),
) -> Evaluation:
    computed = dict.fromkeys(name for found in scores.values() for name in found)
    data = {
        "source_digest": evaluator.sources.digest,
        "target_digest": evaluator.targets.digest,
        "source_images": len(evaluator.sources.paths),
        "target_images": len(evaluator.targets.paths),
        "image_size": evaluator.data.image_size,
        "paired": evaluator.truths is not None,
        **({"request": dict(request)} if request else {}),
        **(
            {}
            if all(pixels.plain for pixels in evaluator.formats)
            else {"formats": dict(zip(("source", "target"), map(to_dict, evaluator.formats), strict=True))}
        ),
    }
    return Evaluation(
        scores, evaluator.sources.images, translations, evaluator.truths or [], evaluator.stems, data,
        evaluator.networks.used(), evaluator.left_out, best, evaluator.seed,
        tuple(name for name in computed if METRICS[name].judges_by(frozen_networks)),
    )  # fmt: skip


def record(evaluation: Evaluation, *, data: str, images_seen: int) -> dict[str, Any]:
    """One evaluation as plain values: every score with its protocol, the networks' digests and the environment."""
    facts = environment()
    rows: dict[str, dict[str, Any]] = {}
    for row in evaluation.scores:
        rows[row] = {"label": LABELS.get(row, row), "reference": row in REFERENCES}
        if row == "best":
            rows[row] |= {key: evaluation.best.get(key) for key in ("images_seen", "weights", "score", "chosen_on")}
    return {
        "format": FORMAT,
        "time": facts["time"],
        "images_seen": images_seen,
        "seed": evaluation.seed,
        "precision": evaluation.precision,
        "data": {"name": data, **evaluation.data},
        "networks": evaluation.networks,
        "rows": rows,
        "flattered": list(evaluation.flattered),
        "scores": {
            row: {score.full_name: score.plain() for score in scores.values()}
            for row, scores in evaluation.scores.items()
        },
        "environment": facts,
    }


def append_record(folder: str | Path, evaluation: Evaluation, *, data: str, images_seen: int) -> None:
    """Add one JSON line, as ``record`` makes it, to ``evaluations.jsonl`` of a run.

    Raises:
        TrainingError: The file cannot be written.
    """
    file = Path(folder) / "evaluations.jsonl"
    try:
        append_line(file, record(evaluation, data=data, images_seen=images_seen))
    except OSError as error:
        raise TrainingError(f"cannot write {file}: {error.strerror or error}") from error
