"""Regions that two domains share: where a linear probe on features of a frozen network cannot tell the domains apart.

Grass under a horse and grass under a zebra look alike; a horse and a zebra do not. So the probability that a location
belongs to the source domain, given by a probe that never saw this image, is near 1/2 on what the domains share.

Shapes: N images, C channels of the features, h and w their rows and columns, n locations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from unpaired.errors import DataError
from unpaired.evaluation.image_files import evenly_spaced

FOLDS = 5
PENALTY = 0.01
"""Weight of the squared coefficients, of standardised features."""
PROBED_IMAGES = 200
"""Images of each domain, evenly spaced, that probes are fitted to at most."""
_ITERATIONS = 60
_BATCH = 32

Maps = Callable[[Tensor], Tensor]


def shared_weights(source: Sequence[Tensor], target: Sequence[Tensor], maps: Maps) -> Tensor:
    """Weight of each location of the source images, 1 where the probe is undecided, towards 0 where it is sure.

    The images that probes are fitted to are dealt out into ``FOLDS`` folds in turns. A location of a source image of
    fold k has the probability p to be of the source, by logistic regression (domains weighed alike, ``PENALTY``) on the
    locations of all images outside fold k; its weight is 1 - |2 p - 1|. Nothing is drawn at random.

    Args:
        source: (C, H, W) in [-1, 1] each, all of one size.
        target: Real images of the other domain.
        maps: Batch of images (B, C, H, W) -> features (B, C, h, w).

    Returns:
        (N, h, w), float32.

    Raises:
        DataError: A domain has fewer images than folds.
    """
    for name, images in (("source", source), ("target", target)):
        if len(images) < FOLDS:
            raise DataError(f"shared regions need {FOLDS} images of each domain, and there are {len(images)} {name}")
    chosen = [evenly_spaced(range(len(images)), PROBED_IMAGES) for images in (source, target)]
    fitted = [
        torch.cat(list(_maps([images[i] for i in which], maps)))
        for which, images in zip(chosen, (source, target), strict=True)
    ]
    probes = []
    for fold in range(FOLDS):
        parts = [features[[place % FOLDS != fold for place in range(len(features))]] for features in fitted]
        probes.append(_Probe(*(part.flatten(2).transpose(1, 2).flatten(0, 1).double() for part in parts)))
    fold_of = {index: place % FOLDS for place, index in enumerate(chosen[0])}  # the others are new to all probes
    weights = list[Tensor]()
    for features_NChw in fitted[0].split(_BATCH) if len(fitted[0]) == len(source) else _maps(source, maps):
        for features_Chw in features_NChw:
            probe = probes[fold_of.get(len(weights), 0)]
            logits = probe.logits(features_Chw.flatten(1).T.double())
            weight = 2.0 * torch.sigmoid(-logits.abs())  # = 1 - |2 p - 1|, and never rounded to 0
            weights.append(weight.float().view(features_Chw.shape[1:]))
    return torch.stack(weights)


def at_pixels(weights_hw: Tensor, height: int, width: int) -> Tensor:
    """Weights of locations between pixels: (height, width), bilinear."""
    resized = F.interpolate(weights_hw[None, None], (height, width), mode="bilinear", align_corners=False)
    return resized[0, 0].clamp(0.0, 1.0)


class _Probe:
    """Logistic regression between two sets of locations (n, C), which count alike however many they are."""

    def __init__(self, source_nC: Tensor, target_nC: Tensor) -> None:
        both = torch.cat([source_nC, target_nC])
        self.mean, deviation = both.mean(0), both.std(0)
        self.deviation = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
        a, b = ((x - self.mean) / self.deviation for x in (source_nC, target_nC))
        weights = torch.zeros(both.shape[1] + 1, dtype=both.dtype, device=both.device, requires_grad=True)
        solver = torch.optim.LBFGS([weights], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            solver.zero_grad()
            of_source, of_target = (x @ weights[:-1] + weights[-1] for x in (a, b))
            wrong = F.softplus(-of_source).mean() + F.softplus(of_target).mean()
            value = wrong / 2 + PENALTY * weights[:-1].square().sum()
            torch.autograd.backward(value)
            return value

        with torch.enable_grad():
            solver.step(loss)
        self.weights = weights.detach()

    def logits(self, features_nC: Tensor) -> Tensor:
        return (features_nC - self.mean) / self.deviation @ self.weights[:-1] + self.weights[-1]


def _maps(images: Sequence[Tensor], maps: Maps) -> Iterator[Tensor]:
    for start in range(0, len(images), _BATCH):
        yield maps(torch.stack([images[i] for i in range(start, min(start + _BATCH, len(images)))]))
