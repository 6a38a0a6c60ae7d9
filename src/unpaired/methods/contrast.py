"""The contrastive part of CUT and its relatives: settings, selected and projected features, PatchNCE over taps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from unpaired.config import Amount, Count, Positive, Width, settings
from unpaired.losses import patch_nce_loss
from unpaired.losses.patch_nce import Negatives
from unpaired.methods.base import derive_seeds
from unpaired.networks import DEFAULT_TAPS, Projector
from unpaired.ops import query_selected_attention


@settings
class ContrastConfig:
    """Settings of a contrastive loss; a method's Config inherits them."""

    taps: tuple[str, ...] = DEFAULT_TAPS
    """Encoder layers at which the contrastive loss is computed."""
    num_queries: Count = 256
    """N: anchors per tap and image (all locations where a feature map has fewer)."""
    temperature: Positive = 0.07
    """tau of the contrastive loss (Eq. 2)."""
    projector_width: Width = 256
    """Dimension of the projected features."""
    contrastive_weight: Amount = 1.0
    """Weight of the contrastive loss between inputs and translations, for each direction."""
    negatives: Negatives = "image"
    """Source of an anchor's negatives: its own image, or all images of the batch (of a process)."""


class Pair(NamedTuple):
    """Projected features of one tap at the same N locations.

    Attributes:
        anchors: Of the translation, (B, N, D), unit length, with gradient.
        positives: Of the input, (B, N, D), unit length, without gradient.
    """

    anchors: Tensor
    positives: Tensor


def projected_pairs(
    config: ContrastConfig,
    selection: Callable[[str], dict[str, Any]],
    source_features: Sequence[Tensor],
    translated_features: Sequence[Tensor],
    seeds: Tensor,
    projector: Projector,
    source_projector: Projector | None = None,
) -> list[Pair]:
    """Select locations from the encodings of the inputs and project both encodings there.

    Args:
        config: The settings of the contrast.
        selection: Options of ``query_selected_attention`` at a tap; with ``pool_to``, maps are average-pooled first.
        source_features: Per tap, encodings of the inputs, (B, C_t, H_t, W_t); the keys, never the anchors.
        translated_features: Per tap, encodings of the translations, the same shapes.
        seeds: (B,) int64, one per image; random locations are a function of them.
        projector: Projects the anchors, and the positives too without ``source_projector``.
        source_projector: Projects the positives (DCLGAN has one projector per domain).

    Returns:
        One pair per tap.
    """
    pairs = []
    for number, tap in enumerate(config.taps):
        options = selection(tap)
        pool_to = options.pop("pool_to", None)
        keys, values = (pooled(features[number], pool_to) for features in (source_features, translated_features))
        if options["routing"] != "cross" or options.get("detach_attention"):
            keys = keys.detach()
        if options["significance"] == "random":
            options["random_seeds"] = derive_seeds(seeds, number).to(keys.device, non_blocking=True)
        selected = query_selected_attention(keys, [values], config.num_queries, **options)
        # Anchors first: autocast of older torch would cache the cast weights without gradient.
        anchors = projector(tap, selected.targets[0])
        with torch.no_grad():
            positives = (source_projector or projector)(tap, selected.source)
        pairs.append(Pair(anchors, positives))
    return pairs


def mean_over_pairs(pairs: Sequence[Pair], loss: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Mean over the taps of ``loss(anchors, positives)``, itself (B,): (B,)."""
    return torch.stack([loss(pair.anchors, pair.positives) for pair in pairs]).mean(dim=0)


def mean_patch_nce(pairs: Sequence[Pair], images: int, config: ContrastConfig) -> Tensor:
    """Mean over the taps of PatchNCE (Eq. 2), per image: (K B,).

    Each block of B = ``images`` images (L_X, then L_Y) is a loss of its own: with ``negatives="batch"`` they are taken
    from the same block.
    """

    def loss(anchors_BND: Tensor, positives_BND: Tensor) -> Tensor:
        blocks = zip(anchors_BND.split(images), positives_BND.split(images), strict=True)
        return torch.cat([patch_nce_loss(q, k, config.temperature, negatives=config.negatives) for q, k in blocks])

    return mean_over_pairs(pairs, loss)


def pooled(features_BCHW: Tensor, side: int | None) -> Tensor:
    """Average-pool a map larger than ``side`` to ``side`` x ``side``; others are returned unchanged."""
    if side is None or max(features_BCHW.shape[2:]) <= side:
        return features_BCHW
    return F.adaptive_avg_pool2d(features_BCHW, side)
