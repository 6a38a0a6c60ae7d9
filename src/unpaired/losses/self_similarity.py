"""Self-similarity of feature maps as the structure of an image (Zheng, Cham, Cai, CVPR 2021).

A location's map says how similar its features are to those of each location around it. What makes two places alike
stays when colours and textures change, so the maps of an image and of its translation are comparable where the
features themselves are not.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

_EPS = 1e-6
"""Least length of a vector; constant maps have no direction."""


def self_similarity(
    features_BCHW: Tensor,
    locations_BN: Tensor,
    patch_size: int,
    similarity: Literal["cosine", "dot"] = "cosine",
) -> Tensor:
    """Similarity maps of chosen locations: Eq. 2, S_{x_i} = f_{x_i}^T f_{x_*}.

    Features have their mean over the map taken off first: those that follow a ReLU are never negative, and without
    that their cosines would all be close to 1.

    Args:
        features_BCHW: (B, C, H, W).
        locations_BN: (B, N) int64, the queries as y * W + x.
        patch_size: Side of the square around each query, in locations, whose features it is compared with (N_p is its
            square). At the borders the square is moved inside; where the map is smaller, it is the whole map.
        similarity: ``cosine``, in [-1, 1], or ``dot``, divided by sqrt(C).

    Returns:
        (B, N, N_p), float32 at least.
    """
    with torch.autocast(features_BCHW.device.type, enabled=False):
        height, width = features_BCHW.shape[2:]
        features_BCn = features_BCHW.flatten(2)
        if features_BCn.itemsize < 4:
            features_BCn = features_BCn.float()
        features_BCn = features_BCn - features_BCn.mean(dim=2, keepdim=True)
        if similarity == "cosine":
            features_BCn = F.normalize(features_BCn, dim=1, eps=_EPS)
        else:
            features_BCn = features_BCn * features_BCn.shape[1] ** -0.25
        chosen = locations_BN.unsqueeze(1).expand(-1, features_BCn.shape[1], -1)
        maps_BNn = torch.bmm(features_BCn.gather(2, chosen).transpose(1, 2), features_BCn)
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


def self_similarity_loss(maps_BNP: Tensor, other_BNP: Tensor) -> Tensor:
    """Eq. 4: 1 - cos of the similarity maps of the same locations in two images.

    Args:
        maps_BNP: Of one image, (B, N, N_p).
        other_BNP: Of the other, the same shape.

    Returns:
        The loss of each image, (B,), the mean over its queries, in [0, 2].
    """
    return (1 - F.cosine_similarity(maps_BNP, other_BNP, dim=2, eps=_EPS)).mean(dim=1)


def map_contrast_loss(
    anchors_BNP: Tensor, positives_BNP: Tensor, negatives_BMP: Tensor, temperature: float = 0.07
) -> Tensor:
    """Eq. 5: each map must find that of its own location in a recoloured image (InfoNCE). It trains the features.

    Args:
        anchors_BNP: Similarity maps of an image, (B, N, N_p).
        positives_BNP: Of the recoloured image at the same locations, (B, N, N_p); those of the N - 1 others are
            negatives. Gradients flow into all three.
        negatives_BMP: Of another image, (B, M, N_p): M more negatives.
        temperature: tau.

    Returns:
        The loss of each image, (B,), the mean over its anchors; at least 0, log(N + M) where all maps are alike.
    """
    with torch.autocast(anchors_BNP.device.type, enabled=False):
        anchors, candidates = (
            F.normalize(maps, dim=2, eps=_EPS) for maps in (anchors_BNP, torch.cat([positives_BNP, negatives_BMP], 1))
        )
        logits = torch.bmm(anchors, candidates.transpose(1, 2)) / temperature
        batch, count = logits.shape[:2]
        correct = torch.arange(count, device=logits.device).expand(batch, count)
        return F.cross_entropy(logits.transpose(1, 2), correct, reduction="none").mean(dim=1)
