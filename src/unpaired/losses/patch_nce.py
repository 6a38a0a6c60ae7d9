"""The contrastive loss between locations of one image (PatchNCE, Park et al., 2020; Eq. 2 of the paper)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def patch_nce_loss(anchors_BND: Tensor, positives_BND: Tensor, temperature: float = 0.07) -> Tensor:
    """Eq. 2: each anchor must find the positive of its own location among all N of the same image.

    Args:
        anchors_BND: q, features of the translated image, (B, N, D), unit length.
        positives_BND: k, features of the input at the same locations, (B, N, D), unit length; those of the other
            locations are the N - 1 negatives. No gradient flows into them.
        temperature: tau.

    Returns:
        The loss of each image, (B,), the mean over its anchors; at least 0, log N for random features.
    """
    with torch.autocast(anchors_BND.device.type, enabled=False):
        logits_BNN = torch.bmm(anchors_BND, positives_BND.detach().transpose(1, 2)) / temperature
        batch, count = logits_BNN.shape[:2]
        correct = torch.arange(count, device=logits_BNN.device).expand(batch, count)
        return F.cross_entropy(logits_BNN.transpose(1, 2), correct, reduction="none").mean(dim=1)
