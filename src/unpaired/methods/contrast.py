"""The contrast of CUT's family: which features of an image and of its translation a loss compares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from unpaired.losses import patch_nce_loss
from unpaired.losses.patch_nce import Negatives
from unpaired.methods.base import derive_seeds
from unpaired.networks import Projector
from unpaired.ops import query_selected_attention


class Pair(NamedTuple):
    """Projected features of one tap at the same N locations.

    Attributes:
        anchors: Of the translation, (B, N, D), unit length, with gradient.
        positives: Of the input, (B, N, D), unit length, without gradient.
    """

    anchors: Tensor
    positives: Tensor


def projected_pairs(
    taps: Sequence[str],
    source_features: Sequence[Tensor],
    translated_features: Sequence[Tensor],
    seeds: Tensor,
    *,
    projector: Projector,
    num_queries: int,
    selection: Callable[[str], dict[str, Any]],
    source_projector: Projector | None = None,
) -> list[Pair]:
    """Choose locations in the encodings of the inputs and project both encodings there.

    Args:
        taps: Names of the places of the encoder.
        source_features: Per tap, encodings of the inputs, (B, C_t, H_t, W_t): keys, never anchors.
        translated_features: Per tap, encodings of the translations, the same shapes.
        seeds: (B,) int64, one per image: random locations are a function of them.
        projector: Projects the anchors, and the positives too unless they have their own.
        num_queries: N; all locations where a map has fewer.
        selection: Options of ``query_selected_attention`` at a tap; ``pool_to`` among them pools the maps first.
        source_projector: Projects the positives (DCLGAN has one per domain).

    Returns:
        One pair per tap.
    """
    pairs = []
    for number, tap in enumerate(taps):
        options = selection(tap)
        pool_to = options.pop("pool_to", None)
        keys, values = (pooled(features[number], pool_to) for features in (source_features, translated_features))
        if options["routing"] != "cross" or options.get("detach_attention"):
            keys = keys.detach()
        if options["significance"] == "random":
            options["random_seeds"] = derive_seeds(seeds, number).to(keys.device, non_blocking=True)
        selected = query_selected_attention(keys, [values], num_queries, **options)
        # Anchors first: autocast of older torch would keep the weights that it cast without gradient.
        anchors = projector(tap, selected.targets[0])
        with torch.no_grad():
            positives = (source_projector or projector)(tap, selected.source)
        pairs.append(Pair(anchors, positives))
    return pairs


def mean_over_pairs(pairs: Sequence[Pair], loss: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Mean over the taps of ``loss(anchors, positives)``, which gives (B,): (B,)."""
    return torch.stack([loss(pair.anchors, pair.positives) for pair in pairs]).mean(dim=0)


def mean_patch_nce(pairs: Sequence[Pair], images: int, temperature: float, negatives: Negatives) -> Tensor:
    """Mean over the taps of Eq. 2, per image: (K B,).

    L_X and L_Y are losses of their own: where negatives come from the whole batch, they are those of the same
    B = ``images`` images, the first ones, the next ones, and so on.
    """

    def loss(anchors_BND: Tensor, positives_BND: Tensor) -> Tensor:
        blocks = zip(anchors_BND.split(images), positives_BND.split(images), strict=True)
        return torch.cat([patch_nce_loss(q, k, temperature, negatives=negatives) for q, k in blocks])

    return mean_over_pairs(pairs, loss)


def pooled(features_BCHW: Tensor, side: int | None) -> Tensor:
    """Average-pool a map that is larger than ``side`` to ``side`` x ``side``; hand others through."""
    if side is None or max(features_BCHW.shape[2:]) <= side:
        return features_BCHW
    return F.adaptive_avg_pool2d(features_BCHW, side)
