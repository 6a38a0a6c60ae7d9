"""The rows of ``METRICS`` that say what changed although it must not, for three ways to know what that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from unpaired.errors import DataError
from unpaired.metrics.resampling import bootstrap_weighted_mean
from unpaired.metrics.sets import ImageSets, Measured, Metric
from unpaired.metrics.shared_regions import FOLDS, PENALTY, PROBED_IMAGES, at_pixels, shared_weights
from unpaired.metrics.unchanged import LEAST_SHARE, PAPER_LEVELS, Change, blank_paper, change_where_kept

Kept = Literal["masks", "paper", "shared"]
"""Who says what must stay: the person's masks, the blank paper of drawings, or a probe of what both domains share."""


def _kept_weights(kept: Kept, sets: ImageSets) -> Sequence[Tensor | None]:
    """Per source, in order, the weights (H, W) of what must stay."""
    if kept == "masks":
        assert sets.kept is not None
        return sets.kept
    if kept not in sets.of_inputs:
        if kept == "paper":
            found = [mask for batch in sets.batches("source") for mask in blank_paper(batch)]
        else:
            found = list(shared_weights(sets.images("source"), sets.real, sets.networks["lite0.last_maps"]))
        sets.of_inputs[kept] = found
    weights: Sequence[Tensor] = sets.of_inputs[kept]
    return weights


def _changes(kept: Kept, sets: ImageSets) -> Change:
    """Change of each made image where it must stay; measured once for colour and detail."""
    if ("change", kept) not in sets._held:
        sources, weights = sets.images("source"), _kept_weights(kept, sets)
        if len(weights) != len(sources):
            raise DataError(f"there are {len(weights)} masks of what may change for {len(sources)} sources")
        found = Change([], [], [], [], [])
        for index, fake in enumerate(sets.fake):
            source, weight = sources[index], weights[index]
            height, width = source.shape[-2:]
            if weight is None:
                weight = torch.zeros(height, width)
            elif kept == "shared":
                weight = at_pixels(weight, height, width)
            if sets.fake is sets.source:  # the untranslated input
                share = float(weight.double().mean())
                nothing = [0.0 if share > 0 else math.nan]
                one = Change(nothing, nothing, nothing, nothing, [share])
            else:
                one = change_where_kept(source[None], fake[None], weight[None])
            for name, values in vars(found).items():
                values += getattr(one, name)
        sets._held["change", kept] = found
    change: Change = sets._held["change", kept]
    return change


def _unchanged(part: str, kept: Kept, sets: ImageSets, seed: int) -> Measured:
    found = _changes(kept, sets)
    least = 0.0 if kept == "shared" else LEAST_SHARE
    counted = [index for index, weight in enumerate(found.weight) if weight > 0 and weight >= least]
    if not counted:
        whole = {"masks": "the masks of what may change cover every image", "paper": "no source shows blank paper"}
        raise DataError(f"{whole.get(kept, 'no region is shared')}, so nothing is left that must stay as it is")
    weights = [found.weight[index] for index in counted]

    def mean(values: list[float]) -> float:
        return sum(values[i] * w for i, w in zip(counted, weights, strict=True)) / sum(weights)

    values = getattr(found, part)
    interval = None
    if sets.intervals and len(counted) > 1:
        interval = bootstrap_weighted_mean([values[index] for index in counted], weights, seed=seed)
    per_image = [value if index in set(counted) else math.nan for index, value in enumerate(values)]
    per_level = {"added": mean(found.added), "lost": mean(found.lost)} if part == "detail" else {}
    return Measured(mean(values), interval=interval, per_level=per_level, per_image=per_image, counted=len(counted))


_COLOURS = "mean distance in CIELAB (D65, CIE 1976)"
_LOW_PASS = "a Gaussian low-pass of 1/32 of the shorter side, which sees only what must stay"
_CHANGE = {
    "colour": ("colour changed", f"{_COLOURS} of input and translation after {_LOW_PASS}"),
    "detail": (
        "detail changed",
        f"{_COLOURS} of what {_LOW_PASS}, leaves of input and translation; added, lost: difference of the local "
        "strength of that",
    ),
}
_AREA = (
    f"mean over all such pixels, images with less than {LEAST_SHARE:.0%} of them left out, interval by bootstrap over "
    "images"
)
_KEPT: dict[Kept, tuple[str, str]] = {
    "masks": ("outside masks", f"outside the masks or boxes of what may change; {_AREA}"),
    "paper": (
        "on blank paper",
        f"on blank paper of the input: white within {PAPER_LEVELS} of 255 levels, 1/32 of the shorter side away from "
        f"any line, connected to the border; {_AREA}",
    ),
    "shared": (
        "in shared regions",
        f"weighted by 1 - |2 p - 1|, p = probability of the source domain by logistic regression (penalty {PENALTY:g}, "
        f"{FOLDS} folds over images, at most {PROBED_IMAGES} images of each domain) on the last block of "
        "EfficientNet-Lite0 (ImageNet) at a thirty-second of 224 x 224; weighted mean over all pixels, interval by "
        "bootstrap over images",
    ),
}


def unchanged_rows() -> dict[str, Metric]:
    """Name -> row: colour and detail for each of the three."""
    rows = {}
    for kept, (where, region) in _KEPT.items():
        for part, (label, words) in _CHANGE.items():
            rows[f"unchanged_{part}_{kept}_de"] = Metric(
                partial(_unchanged, part, kept), f"{label} {where}", "dE", "lower", f"{words}; {region}",
                against="source", networks=("lite0.last_maps",) if kept == "shared" else (), kept=kept,
                minimum=10 if kept == "shared" else 1, of_colours=True,
            )  # fmt: skip
    return rows
