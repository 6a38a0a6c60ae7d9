"""How much a translation changed its input where it should have left it alone.

A translator from horses to zebras should not change the sky; distances between sets of images hardly detect such a
change. Every pixel has a weight, ``kept``, from 0 (may change) to 1 (must stay). With the difference D of output and
input in CIELAB and a Gaussian low-pass L over kept pixels only (sigma 1/32 of the shorter side, at least 1 px),

    colour = mean |L D|        detail = mean |D - L D|        (means over pixels, weighted by ``kept``),

both in delta E (CIE 1976; about 2 is just visible side by side). A cast or a wash of colour counts in the first;
ripples, noise, blur and lost edges in the second. Pixels of weight 0 count in neither, also beside the border.

Shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from unpaired.errors import DataError
from unpaired.evaluation.intervals import mean_interval
from unpaired.evaluation.metrics.content import lab_colours
from unpaired.evaluation.metrics.shared_regions import FOLDS, PENALTY, PROBED_IMAGES, at_pixels, shared_weights
from unpaired.evaluation.registry import ImageSets, Score, checked, metric

SIGMA_SHARE = 1 / 32
"""Standard deviation of the low-pass as a share of the shorter side (8 px at 256). A wave of an eighth of the side is
kept to 29 % by it, one of a sixteenth to 0.7 %; it is never narrower than 1 px."""
LEAST_SHARE = 0.01
"""An image whose mean weight is smaller says nothing: next to nothing of it has to stay."""
PAPER_LEVELS = 8
"""Levels of 255 that blank paper may lie below white."""
PAPER_MARGIN_SHARE = 1 / 32
"""Margin around lines, as a share of the shorter side (2 px at 64): paint may cross a line by so much."""
PAPER_SHARE = 0.1
"""Sources are drawings on paper if their blank paper is at least this share of them in the mean. Measured: drawings
0.39, emoji 0.21, photos of horses, zebras and streets at most 0.004."""


@dataclasses.dataclass(frozen=True)
class Change:
    """How much each image of a batch changed where it must stay; all in delta E, NaN where ``weight`` is 0."""

    colour: list[float]
    detail: list[float]
    added: list[float]
    """Part of the detail's strength that the output has and the input had not: ripples, rasters, noise."""
    lost: list[float]
    """The same the other way round: blur, wiped out texture."""
    weight: list[float]
    """Mean of ``kept``: the share of the image that was looked at."""


def change_where_kept(source_BCHW: Tensor, fake_BCHW: Tensor, kept_BHW: Tensor) -> Change:
    """Change of each output to its input where it must stay.

    Args:
        source_BCHW: Inputs, 1 or 3 channels, in [-1, 1].
        fake_BCHW: Outputs, of the same shape.
        kept_BHW: 1 where a pixel must stay, 0 where it may change, or anything between.

    ``added`` and ``lost`` are the positive and the negative part of the difference of the local strength of detail,
    the root of L |X - L X|^2, between output and input. All arithmetic is float64.

    Raises:
        DataError: Shapes disagree, values are not finite, weights are outside [0, 1], or channels are not 1 or 3.
    """
    checked("what must not change", source=source_BCHW, fake=fake_BCHW)
    source = lab_colours(source_BCHW)
    fake = lab_colours(fake_BCHW).to(source.device)
    if kept_BHW.shape != source[:, 0].shape:
        raise DataError(
            f"what must not change: weights have shape {tuple(kept_BHW.shape)}, not that of the images, "
            f"{tuple(source[:, 0].shape)} (B, H, W)"
        )
    kept = kept_BHW.to(source)
    if not bool(((kept >= 0) & (kept <= 1)).all()):
        raise DataError("what must not change: weights must be from 0 (may change) to 1 (must stay)")
    found = Change([], [], [], [], kept.mean((1, 2)).tolist())
    for a_CHW, b_CHW, weight_HW in zip(source, fake, kept, strict=True):
        values = _measured(a_CHW, b_CHW, weight_HW) if float(weight_HW.sum()) > 0 else [float("nan")] * 4
        for name, value in zip(("colour", "detail", "added", "lost"), values, strict=True):
            getattr(found, name).append(value)
    return found


def _measured(source_CHW: Tensor, fake_CHW: Tensor, kept_HW: Tensor) -> list[float]:
    height, width = kept_HW.shape
    sigma = max(1.0, min(height, width) * SIGMA_SHARE)
    down, across = _gaussian(height, sigma).to(kept_HW), _gaussian(width, sigma).to(kept_HW)
    total = (down @ kept_HW @ across).clamp(min=torch.finfo(kept_HW.dtype).tiny)

    def low(values: Tensor) -> Tensor:
        return down @ (values * kept_HW) @ across / total

    def mean(values_HW: Tensor) -> float:
        return float((values_HW * kept_HW).sum() / kept_HW.sum())

    def strength(detail_CHW: Tensor) -> Tensor:
        return low(detail_CHW.square().sum(0)).clamp(min=0.0).sqrt()

    difference = fake_CHW - source_CHW
    smooth = low(difference)
    detail = source_CHW - low(source_CHW)
    stronger = strength(detail + difference - smooth) - strength(detail)
    return [
        mean(smooth.norm(dim=0)),
        mean((difference - smooth).norm(dim=0)),
        mean(stronger.clamp(min=0.0)),
        mean((-stronger).clamp(min=0.0)),
    ]


def _gaussian(size: int, sigma: float) -> Tensor:
    """Weights between any two of ``size`` pixels in a row: (size, size), symmetric, not normalised."""
    place = torch.arange(size, dtype=torch.float64)
    exponents = (place[:, None] - place).square() / (2 * sigma**2)
    return torch.where(exponents < 60.0, torch.exp(-exponents), 0.0)  # denormal numbers would take ten times as long


def kept_outside(may_change_HW: Tensor, height: int, width: int) -> Tensor:
    """Weights (height, width), 0 or 1, for a mask of any size: a pixel must stay if nothing under it may change.

    Args:
        may_change_HW: Mask of the original picture; non-zero where it may change.
        height: Height of the scored images.
        width: Their width.
    """
    mask = (may_change_HW != 0).float()[None, None]
    return 1.0 - F.adaptive_max_pool2d(mask, (height, width))[0, 0]


def mask_of_boxes(boxes: Sequence[Sequence[float]], height: int, width: int) -> Tensor:
    """Mask (height, width), True in the boxes: (left, top, right, bottom) in pixels, right and bottom exclusive.

    >>> mask_of_boxes([(0, 0, 2, 1)], 2, 3).int().tolist()
    [[1, 1, 0], [0, 0, 0]]

    Raises:
        DataError: A box is no four numbers in this order, or does not lie inside the image.
    """
    mask = torch.zeros(height, width, dtype=torch.bool)
    for box in boxes:
        is_box = isinstance(box, Sequence) and len(box) == 4 and all(isinstance(x, int | float) for x in box)
        if not is_box or not (0 <= box[0] < box[2] <= width and 0 <= box[1] < box[3] <= height):
            raise DataError(
                f"{list(box) if isinstance(box, Sequence) else box} is not a box [left, top, right, bottom] inside an "
                f"image {width} pixels wide and {height} high"
            )
        left, top, right, bottom = int(box[0]), int(box[1]), -int(-box[2] // 1), -int(-box[3] // 1)
        mask[top:bottom, left:right] = True
    return mask


def blank_paper(images_BCHW: Tensor) -> Tensor:
    """Where drawings show blank paper: (B, H, W) bool.

    Paper is white (within ``PAPER_LEVELS`` of it in every channel), further from any line than a margin
    (``PAPER_MARGIN_SHARE``), and connected to the border of the image in this way: what lines enclose is meant to be
    painted, and a gap in a line narrower than two margins encloses as well.

    Raises:
        DataError: Not a batch of images.
    """
    if images_BCHW.ndim != 4:
        raise DataError(f"blank paper: expected a batch (B, C, H, W), not {tuple(images_BCHW.shape)}")
    height, width = images_BCHW.shape[2:]
    ink = (images_BCHW < 1.0 - 2.0 * PAPER_LEVELS / 255 - 1e-6).any(1, keepdim=True).float()
    margin = max(1, round(min(height, width) * PAPER_MARGIN_SHARE))
    clear = 1.0 - F.max_pool2d(ink, 2 * margin + 1, stride=1, padding=margin)
    paper = clear.clone()
    paper[:, :, 1:-1, 1:-1] = 0.0
    while True:  # grow from the border; ends at the latest when all clear pixels are reached
        grown = F.max_pool2d(paper, 3, stride=1, padding=1) * clear
        if bool((grown == paper).all()):
            return paper[:, 0] > 0.5
        paper = grown


Kept = Literal["masks", "paper", "shared"]
"""Who says what must stay: the person's masks, the blank paper of drawings, or a probe of what both domains share."""


def _kept_weights(kept: Kept, sets: ImageSets) -> Sequence[Tensor | None]:
    """Per source, in order, the weights (H, W) of what must stay."""
    if kept == "masks":
        assert sets.kept is not None
        return sets.kept
    if kept not in sets.of_inputs:
        sets.of_inputs[kept] = (
            [mask for batch in sets.batches("source") for mask in blank_paper(batch)]
            if kept == "paper"
            else list(shared_weights(sets.images("source"), sets.real, sets.networks["lite0.last_maps"]))
        )
    return sets.of_inputs[kept]


def _changes(kept: Kept, sets: ImageSets) -> Change:
    sources, weights = sets.images("source"), _kept_weights(kept, sets)
    if len(weights) != len(sources):
        raise DataError(f"there are {len(weights)} masks of what may change for {len(sources)} sources")
    found = Change([], [], [], [], [])
    for fake, source, weight in zip(sets.fake, sources, weights, strict=True):
        height, width = source.shape[-2:]
        if weight is None:
            weight = torch.zeros(height, width)
        elif kept == "shared":
            weight = at_pixels(weight, height, width)
        one = change_where_kept(source[None], fake[None], weight[None])
        for name, values in vars(found).items():
            values += getattr(one, name)
    return found


def _unchanged(part: str, kept: Kept, sets: ImageSets, seed: int) -> Score:
    found = sets.once(("change", kept), lambda: _changes(kept, sets))  # for colour and detail
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
        low, high = mean_interval([values[index] for index in counted], weights)
        interval = max(0.0, low), high
    return Score(
        mean(values),
        interval=interval,
        per_level={"added": mean(found.added), "lost": mean(found.lost)} if part == "detail" else {},
        per_image=[value if index in set(counted) else math.nan for index, value in enumerate(values)],
        images=len(counted),
        reference_images=len(counted),
    )


_COLOURS = "mean distance in CIELAB (D65, CIE 1976)"
# That it is at least 1 px, which matters below 32 px, is not in the words: older records could not be compared.
_LOW_PASS = "a Gaussian low-pass of 1/32 of the shorter side, which sees only what must stay"
_CHANGE = {
    "colour": ("colour changed", f"{_COLOURS} of input and translation after {_LOW_PASS}"),
    "detail": (
        "detail changed",
        f"{_COLOURS} of what {_LOW_PASS}, leaves of input and translation; added, lost: difference of the local "
        "strength of that",
    ),
}
_AREA = f"mean over all such pixels, images with less than {LEAST_SHARE:.0%} of them left out"
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
        "EfficientNet-Lite0 (ImageNet) at a thirty-second of 224 x 224; weighted mean over all pixels",
    ),
}


def _requires(kept: Kept, sets: ImageSets) -> str:
    if kept == "masks" and sets.kept is None:
        return "there are no masks of what may change (--unchanged-masks)"
    if kept == "paper" and not sets.on_paper:
        return "the sources are not drawings on white paper"
    if kept == "shared" and len(sets.real) < 2 * FOLDS:
        return f"it needs at least {2 * FOLDS} real images of the target domain, and there are {len(sets.real)}"
    return ""


for _kept, (_where, _region) in _KEPT.items():
    for _part, (_label, _words) in _CHANGE.items():
        metric(
            f"unchanged_{_part}_{_kept}_de", f"{_label} {_where}", "dE", "lower", f"{_words}; {_region}",
            against="source", networks=("lite0.last_maps",) if _kept == "shared" else (),
            minimum=2 * FOLDS if _kept == "shared" else 1, of_colours=True, requires=partial(_requires, _kept),
        )(partial(_unchanged, _part, _kept))  # fmt: skip
