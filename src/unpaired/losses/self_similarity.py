"""Self-similarity of feature maps as the structure of an image (Zheng, Cham, Cai, CVPR 2021).

A location's map holds the similarities of its features to those of the locations around it. They are largely
invariant to colour and texture, so the maps of an image and its translation can be compared where the features cannot.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from unpaired.ops import widen


def self_similarity(
    features_BCHW: Tensor,
    locations_BN: Tensor,
    patch_size: int,
    similarity: Literal["cosine", "dot"] = "cosine",
) -> Tensor:
    """Similarity maps of the given locations: Eq. 2, S_{x_i} = f_{x_i}^T f_{x_*}.

    The mean over the map is subtracted from the features first, as in the authors' current code: features after a ReLU
    are not negative, and without this their cosines would all be close to 1.

    Args:
        features_BCHW: (B, C, H, W).
        locations_BN: (B, N) int64, the queries as y * W + x.
        patch_size: Side, in locations, of the square around each query that it is compared with (N_p is its square).
            At the borders the square is shifted inside; on smaller maps it is the whole map.
        similarity: ``cosine``, in [-1, 1]; or ``dot``, tanh(f_i . f_j / (10 C)), in (-1, 1).

    Returns:
        (B, N, N_p), float32 at least.
    """
    with torch.autocast(features_BCHW.device.type, enabled=False):
        height, width = features_BCHW.shape[2:]
        features_BCn = widen(features_BCHW.flatten(2))
        features_BCn = features_BCn - features_BCn.mean(dim=2, keepdim=True)
        if similarity == "cosine":
            features_BCn = F.normalize(features_BCn, dim=1)
        else:
            features_BCn = features_BCn * features_BCn.shape[1] ** -0.5
        queries = locations_BN.unsqueeze(1).expand(-1, features_BCn.shape[1], -1)
        maps_BNn = torch.bmm(features_BCn.gather(2, queries).transpose(1, 2), features_BCn)
        if similarity == "dot":
            maps_BNn = torch.tanh(maps_BNn / 10)
        if patch_size >= max(height, width):
            return maps_BNn
        return maps_BNn.gather(2, _patches(locations_BN, height, width, patch_size))


def _patches(locations_BN: Tensor, height: int, width: int, side: int) -> Tensor:
    """Locations of the square around each query: (B, N) -> (B, N, N_p) int64."""
    tall, wide = min(side, height), min(side, width)
    top = (locations_BN // width - tall // 2).clamp(0, height - tall)
    left = (locations_BN % width - wide // 2).clamp(0, width - wide)
    rows, columns = (torch.arange(length, device=locations_BN.device) for length in (tall, wide))
    within = (rows[:, None] * width + columns).flatten()
    return (top * width + left).unsqueeze(2) + within


def self_similarity_loss(
    source_BNP: Tensor, translated_BNP: Tensor, similarity: Literal["cosine", "dot"] = "cosine"
) -> Tensor:
    """Eq. 4 as in the authors' current code: 1 - cos of the similarity maps of the same locations in two images.

    Both maps are restricted to the strongest entries of the translation's: those not below its (N_p // 4 + 1)-th
    largest, a quarter and one.

    Args:
        source_BNP: Maps of the input, (B, N, N_p).
        translated_BNP: Of the translation, the same shape.
        similarity: Of the maps: for ``dot`` maps, smooth L1 of d = 1 - cos (d^2 / 2 below 1, d - 1 / 2 above); for
            ``cosine`` maps, d itself.

    Returns:
        The loss of each image, (B,), the mean over its queries, in [0, 2] (``dot``: [0, 1.5]).
    """
    rank = translated_BNP.shape[2] // 4
    threshold = translated_BNP.detach().topk(rank + 1, dim=2).values[:, :, -1:]
    strongest = translated_BNP.detach() >= threshold
    source, translated = (torch.where(strongest, maps, 0.0) for maps in (source_BNP, translated_BNP))
    cosine_BN = F.cosine_similarity(source, translated, dim=2)
    if similarity == "dot":
        return F.smooth_l1_loss(cosine_BN, torch.ones_like(cosine_BN), reduction="none").mean(dim=1)
    return (1 - cosine_BN).mean(dim=1)


def map_contrast_loss(
    anchors_BNP: Tensor, positives_BNP: Tensor, negatives_BMP: Tensor, temperature: float = 0.07
) -> Tensor:
    """Eq. 5: contrastive loss that matches each map with that of its location in an image of the same structure.

    The logits of anchor i are, as in the authors' code, its similarities to the N maps of that image, those to M maps
    of another image, and those of positive i to the same M maps. Gradients flow into all arguments.

    Args:
        anchors_BNP: Similarity maps of an image, (B, N, N_p).
        positives_BNP: Of its translation or recoloured copy at the same locations, (B, N, N_p); those of the N - 1
            other locations are negatives.
        negatives_BMP: Of another image, (B, M, N_p).
        temperature: tau.

    Returns:
        The loss of each image, (B,), the mean over its anchors; at least 0, log(N + 2 M) for identical maps.
    """
    with torch.autocast(anchors_BNP.device.type, enabled=False):
        anchors, positives, others = (F.normalize(maps, dim=2) for maps in (anchors_BNP, positives_BNP, negatives_BMP))
        pairs = ((anchors, positives), (anchors, others), (positives, others))
        logits = torch.cat([torch.bmm(one, other.transpose(1, 2)) for one, other in pairs], dim=2) / temperature
        batch, count = logits.shape[:2]
        correct = torch.arange(count, device=logits.device).expand(batch, count)
        return F.cross_entropy(logits.transpose(1, 2), correct, reduction="none").mean(dim=1)
