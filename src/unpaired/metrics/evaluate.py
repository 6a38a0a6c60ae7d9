"""One call that fills in the rows of ``METRICS`` for a folder's worth of images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from unpaired.errors import ConfigError, DataError, nearest
from unpaired.metrics.sets import ImageSets, Score
from unpaired.metrics.table import METRICS


def why_not(name: str, sets: ImageSets) -> str:
    """Say why a row of ``METRICS`` cannot be computed from ``sets``; empty if it can."""
    row = METRICS[name]
    absent = {
        "truth": "it needs the true partner of every image",
        "source": "it needs what the images were made from",
        "real": "there are no real images of the target domain",
    }
    if row.against != "fake" and not len(sets.images(row.against)):
        return absent[row.against]
    if row.label_maps and not sets.label_maps:
        return "the sources are no label maps in the colours of Cityscapes"
    if row.kept == "masks" and sets.kept is None:
        return "there are no masks of what may change (--unchanged-masks)"
    if row.kept == "paper" and not sets.on_paper:
        return "the sources are no drawings on white paper"
    if row.kept == "shared" and len(sets.real) < row.minimum:
        return f"it needs at least {row.minimum} real images of the target domain, and there are {len(sets.real)}"
    missing = [network for network in row.networks if network not in sets.networks]
    if missing:
        return f"the network '{missing[0].partition('.')[0]}' is not at hand"
    if len(sets.fake):
        channels = len(sets.fake[0])
        if row.colours and channels not in (1, 3):
            return f"it needs colour or gray, and these images have {channels} channels"
        if row.against != "fake" and (other := len(sets.images(row.against)[0])) != channels:
            return f"it compares images of {channels} channels with others of {other} channels"
    fewest = min(len(sets.fake), len(sets.images(row.against)))
    if fewest < row.minimum:
        return f"it needs at least {row.minimum} images in each set, and there are {fewest}"
    return ""


def possible_metrics(sets: ImageSets) -> list[str]:
    """Rows of ``METRICS`` that can be computed from ``sets``, in the table's order."""
    return [name for name in METRICS if not why_not(name, sets)]


def known_metrics(names: Iterable[str]) -> list[str]:
    """The names without repetition.

    Raises:
        ConfigError: One is no row of ``METRICS``.
    """
    for name in names:
        if name not in METRICS:
            raise ConfigError(f"unknown metric '{name}'{nearest(name, METRICS)}; known: {', '.join(METRICS)}")
    return list(dict.fromkeys(names))


def evaluate_images(sets: ImageSets, names: Sequence[str] | None = None, seed: int = 0) -> dict[str, Score]:
    """Score made images against real ones, their true partners and what they were made from.

    Args:
        sets: The images. Sizes may vary from pair to pair for paired scores, not within a set for the others.
        names: Keys of ``METRICS`` to compute, in that order; ``None`` takes all that ``sets`` allow.
        seed: For metrics that sample at random.

    Returns:
        Scores keyed by their row in ``METRICS``.

    Raises:
        ConfigError: A name is unknown, or asks for what ``sets`` do not hold.
        DataError: An image or set cannot be scored; the message says which and why.
    """
    chosen = possible_metrics(sets) if names is None else known_metrics(names)
    if len(sets.fake) == 0:
        raise DataError("there are no made images to score")
    for name in chosen:
        if reason := why_not(name, sets):
            raise ConfigError(f"metric '{name}' cannot be computed: {reason}")
    for which in ("truth", "source"):
        if getattr(sets, which) is not None:
            _check_counts(sets, which)
    scores = {}
    for name in chosen:
        row = METRICS[name]
        measured = row.function(sets, seed)
        scores[name] = Score(
            name=name,
            label=row.label,
            unit=row.unit,
            better=row.better,
            protocol=row.protocol,
            images=len(sets.fake) if measured.counted is None else measured.counted,
            reference_images=len(sets.images(row.against)) if measured.counted is None else measured.counted,
            **{name: value for name, value in vars(measured).items() if name != "counted"},
        )
    return scores


def _check_counts(sets: ImageSets, which: str) -> None:
    there = len(getattr(sets, which))
    if there != len(sets.fake):
        words = {"truth": "truths", "source": "sources"}[which]
        raise DataError(f"{len(sets.fake)} made images but {there} {words}; give one for each image, in the same order")
