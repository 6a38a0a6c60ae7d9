"""Common failures: outputs that equal their inputs, outputs that all look alike, and a drift of colour.

None of these says whether a translation is good; they catch what distances between sets do not show.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from unpaired.errors import DataError
from unpaired.evaluation.intervals import share_interval
from unpaired.evaluation.metrics.content import lab_colours
from unpaired.evaluation.metrics.distances import LITE0, check_features
from unpaired.evaluation.registry import ImageSets, Score, checked, metric

IDENTITY_LEVELS = 2.0
"""Mean change, in levels of 255, under which an output counts as its input. Measured medians: saving a photo of
horse2zebra as JPEG of quality 95 changes it by 1.7, making it 5 % brighter by 6.4."""
_BLOCK_ROWS = 512


def mean_change_levels(source_BCHW: Tensor, fake_BCHW: Tensor) -> list[float]:
    """Mean absolute difference of each output to its input, images in [-1, 1], in levels of 255.

    >>> mean_change_levels(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5))
    [63.75]

    Raises:
        DataError: The shapes differ, or values are not finite.
    """
    source, fake = checked("change of the input", source=source_BCHW, fake=fake_BCHW)
    return ((fake - source).abs().flatten(1).mean(1) * 127.5).tolist()


def diversity(fake_ND: Tensor, real_MD: Tensor) -> float:
    """Mean pairwise Euclidean distance among outputs over that among real images: 1 = as diverse, 0 = all equal.

    Features of any network, or flattened images; the counts may differ.

    Raises:
        DataError: A set has fewer than 2 images, the widths differ, a feature is not finite, or all real images are
            equal.
    """
    check_features("diversity", fake_ND, real_MD, 2)
    means = []
    for features_ND in (fake_ND, real_MD):
        features = features_ND.detach().to("cpu" if features_ND.device.type == "mps" else features_ND.device).double()
        features = features - features.mean(0)  # or squares of a common offset would drown small distances
        total = sum(float(torch.cdist(block, features).sum()) for block in features.split(_BLOCK_ROWS))
        means.append(total / (len(features) * (len(features) - 1)))
    if means[1] == 0.0:
        raise DataError("diversity: the real images are all equal, so there is nothing to compare with")
    return means[0] / means[1]


def mean_colour_shift(fake: Iterable[Tensor], real: Iterable[Tensor]) -> float:
    """Distance of the two sets' mean colours in CIELAB (delta E of 1976): about 2 is just visible side by side.

    Every image counts the same, whatever its size; batches (B, C, H, W) in [-1, 1] are read once.

    Raises:
        DataError: A set is empty, or images have values that are not finite.
    """
    means = []
    for what, batches in (("fake", fake), ("real", real)):
        total, count = torch.zeros(3, dtype=torch.float64), 0
        for batch in batches:
            total += lab_colours(batch).mean((2, 3)).sum(0).cpu()
            count += len(batch)
        if count == 0:
            raise DataError(f"mean colour: there are no {what} images")
        means.append(total / count)
    return float((means[0] - means[1]).square().sum().sqrt())


@metric(
    "identity_percent", "input returned", "%", "lower",
    f"share of images that differ from their input by less than {IDENTITY_LEVELS:g} of 255 levels on average",
    against="source",
)  # fmt: skip
def _identity(sets: ImageSets, seed: int) -> Score:
    changes = [value for fake, source in sets.pairs("fake", "source") for value in mean_change_levels(source, fake)]
    returned = [change < IDENTITY_LEVELS for change in changes]
    interval = share_interval(sum(returned), len(returned)) if sets.intervals and len(returned) > 1 else None
    score = Score(sum(returned) / len(returned), interval=interval, per_image=[100.0 * each for each in returned])
    return score.scaled(100.0)


@metric(
    "diversity_lite0", "diversity", "", "higher",
    f"mean distance between made images over that between real ones (1: as diverse, 0: one picture); {LITE0}",
    against="real", networks=("lite0",), minimum=3,
)  # fmt: skip
def _diversity(sets: ImageSets, seed: int) -> Score:
    return Score(diversity(sets.features("lite0", "fake"), sets.features("lite0", "real")))


@metric(
    "colour_shift_lab", "colour shift", "dE", "lower",
    "distance in CIELAB (D65, CIE 1976) between the mean colours of made and real images",
    against="real", of_colours=True,
)  # fmt: skip
def _colour_shift(sets: ImageSets, seed: int) -> Score:
    return Score(mean_colour_shift(sets.batches("fake"), sets.batches("real")))
