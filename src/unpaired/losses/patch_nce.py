"""The contrastive loss between locations of one image (PatchNCE, Park et al., 2020; Eq. 2 of the paper)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Negatives = Literal["image", "batch"]
"""Source of an anchor's negatives: its own image, or all images of the batch."""


def patch_nce_loss(
    anchors_BND: Tensor, positives_BND: Tensor, temperature: float = 0.07, *, negatives: Negatives = "image"
) -> Tensor:
    """Eq. 2: cross entropy of each anchor's positive, the key of its own location, against all keys.

    Args:
        anchors_BND: q, features of the translated image, (B, N, D), unit length.
        positives_BND: k, features of the input at the same locations, (B, N, D), unit length; those of the other
            locations are the negatives. No gradient flows into them.
        temperature: tau.
        negatives: ``image``: the N - 1 other locations of the anchor's image. ``batch``: the B N - 1 other locations of
            all images, as in DCLGAN and SinCUT.

    Returns:
        The loss of each image, (B,), the mean over its anchors; at least 0, log N (log B N) for random features.
    """
    if negatives == "batch":
        joined = _losses(anchors_BND.flatten(0, 1)[None], positives_BND.flatten(0, 1)[None], temperature)
        return joined.view(anchors_BND.shape[:2]).mean(dim=1)
    return _losses(anchors_BND, positives_BND, temperature).mean(dim=1)


def _losses(anchors_BND: Tensor, positives_BND: Tensor, temperature: float) -> Tensor:
    """The loss of each anchor, (B, N)."""
    with torch.autocast(anchors_BND.device.type, enabled=False):
        logits_BNN = torch.bmm(anchors_BND, positives_BND.detach().transpose(1, 2)) / temperature
        batch, count = logits_BNN.shape[:2]
        correct = torch.arange(count, device=logits_BNN.device).expand(batch, count)
        return F.cross_entropy(logits_BNN.transpose(1, 2), correct, reduction="none")
