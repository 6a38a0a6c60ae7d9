"""Is the output the input, do all outputs look alike, has the colour drifted?

None of these says whether a translation is good. They catch what the distances between sets do not show, and belong
beside them.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from unpaired.errors import DataError
from unpaired.evaluation.metrics.content import checked_pair, lab_colours
from unpaired.evaluation.metrics.distances import LITE0
from unpaired.evaluation.metrics.paired import mean_score
from unpaired.evaluation.registry import ImageSets, Score, metric

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
    source, fake = checked_pair(source_BCHW, fake_BCHW, "change of the input")
    return ((fake - source).abs().flatten(1).mean(1) * 127.5).tolist()


def mean_pairwise_distance(features_ND: Tensor) -> float:
    """Mean Euclidean distance between the features of any two images of a set, block by block.

    Raises:
        DataError: Fewer than 2 images, or a feature is not finite.
    """
    if features_ND.ndim != 2 or len(features_ND) < 2:
        raise DataError(
            f"diversity needs features (images, D) of at least 2 images, not of shape {tuple(features_ND.shape)}"
        )
    device = "cpu" if features_ND.device.type == "mps" else features_ND.device
    finite = torch.isfinite(features_ND).all(1)
    if not bool(finite.all()):
        raise DataError(f"image {int((~finite).nonzero()[0])} has features that are not finite")
    features = features_ND.detach().to(device).double()
    features = features - features.mean(0)  # or squares of a common offset would drown small distances
    total = sum(float(torch.cdist(block, features).sum()) for block in features.split(_BLOCK_ROWS))
    return total / (len(features) * (len(features) - 1))


def diversity(fake_ND: Tensor, real_MD: Tensor) -> float:
    """Mean pairwise distance among outputs over that among real images: 1 = as diverse, 0 = one picture for all.

    Features of any network, or flattened images; the counts may differ.

    Raises:
        DataError: A set has fewer than 2 images, the widths differ, or all real images are equal.
    """
    if fake_ND.ndim == real_MD.ndim == 2 and fake_ND.shape[1] != real_MD.shape[1]:
        raise DataError(f"diversity: {fake_ND.shape[1]} features of a fake image, {real_MD.shape[1]} of a real one")
    among_fake, among_real = mean_pairwise_distance(fake_ND), mean_pairwise_distance(real_MD)
    if among_real == 0.0:
        raise DataError("diversity: the real images are all equal, there is nothing to compare with")
    return among_fake / among_real


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
    return mean_score([100.0 * (change < IDENTITY_LEVELS) for change in changes], sets, seed)


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
