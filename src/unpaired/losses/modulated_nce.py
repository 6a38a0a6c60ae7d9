"""The modulated contrastive loss (MoNCE, Zhan et al., 2022): negatives weighted by an optimal-transport plan."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_MASKED = -10.0
"""Published similarity on the diagonal, far below any cosine, so that little mass is transported there."""


def transport_plan(similarity_BNN: Tensor, temperature: float, iterations: int = 50) -> Tensor:
    """Sinkhorn's transport plan between N anchors and N keys, with little mass on the diagonal.

    The kernel is the paper's weight of a hard negative, exp(similarity / beta); the iterations normalise its rows and
    columns to a sum of 1. Gradient flows through all of them, as in the published code.

    Args:
        similarity_BNN: Anchor by key, (B, N, N) in [-1, 1], N at least 2.
        temperature: beta, at least 0.05 (below, the kernel leaves the range of float32).
        iterations: Iterations of Sinkhorn's algorithm.

    Returns:
        (B, N, N), in [0, 1]. Columns sum to 1, rows after convergence. Entries of the diagonal are below 0.001 up to
        temperature 1 and grow with it, towards 1 / N: at 5, up to 0.15.
    """
    count = similarity_BNN.shape[1]
    itself = torch.eye(count, dtype=torch.bool, device=similarity_BNN.device)
    kernel = (similarity_BNN.masked_fill(itself, _MASKED) / temperature).exp()
    transposed = kernel.transpose(1, 2)
    keys_BN1 = torch.ones_like(kernel[:, :, :1])
    for _ in range(iterations):
        anchors_BN1 = 1.0 / torch.bmm(kernel, keys_BN1)
        keys_BN1 = 1.0 / torch.bmm(transposed, anchors_BN1)
    return anchors_BN1 * kernel * keys_BN1.transpose(1, 2)


def weighted_nce_loss(anchors_BND: Tensor, positives_BND: Tensor, weights_BNN: Tensor, temperature: float) -> Tensor:
    """Eq. 2 with weighted negatives: -log(exp(s_ii / tau) / (exp(s_ii / tau) + sum_j w_ij exp(s_ij / tau))).

    Args:
        anchors_BND: q, features of the translated image, (B, N, D), unit length.
        positives_BND: k, features of the input at the same locations, (B, N, D), unit length, without gradient.
        weights_BNN: w_ij of key j for anchor i, (B, N, N), not negative; the diagonal is ignored. 1e-8 is added, as
            published.
        temperature: tau.

    Returns:
        The loss of each image, (B,), the mean over its anchors.
    """
    with torch.autocast(anchors_BND.device.type, enabled=False):
        logits_BNN = torch.bmm(anchors_BND, positives_BND.detach().transpose(1, 2)) / temperature
        batch, count = logits_BNN.shape[:2]
        itself = torch.eye(count, dtype=torch.bool, device=logits_BNN.device)
        logits_BNN = logits_BNN + (weights_BNN + 1e-8).masked_fill(itself, 1.0).log()
        correct = torch.arange(count, device=logits_BNN.device).expand(batch, count)
        return F.cross_entropy(logits_BNN.transpose(1, 2), correct, reduction="none").mean(dim=1)


def modulated_nce_loss(
    anchors_BND: Tensor,
    positives_BND: Tensor,
    temperature: float = 0.07,
    *,
    transport_temperature: float = 1.0,
    negative_weight: float = 1.0,
    iterations: int = 50,
) -> Tensor:
    """MoNCE: Eq. 2 with N - 1 negatives of total weight Q (N - 1), distributed by the transport plan.

    Gradient flows to the anchors through their similarities and through the plan; none to the positives.

    Args:
        anchors_BND: q, features of the translated image, (B, N, D), unit length.
        positives_BND: k, features of the input at the same locations, (B, N, D), unit length, without gradient.
        temperature: tau.
        transport_temperature: beta of the plan; larger values give more uniform weights.
        negative_weight: Q, mean weight of a negative.
        iterations: Of Sinkhorn's algorithm.

    Returns:
        The loss of each image, (B,), the mean over its anchors; equal to PatchNCE if all weights are 1.
    """
    count = anchors_BND.shape[1]
    with torch.autocast(anchors_BND.device.type, enabled=False):
        similarity_BNN = torch.bmm(anchors_BND, positives_BND.detach().transpose(1, 2))
        if count == 1:  # a single location has no negatives
            weights_BNN = torch.ones_like(similarity_BNN)
        else:
            plan_BNN = transport_plan(similarity_BNN, transport_temperature, iterations)
            weights_BNN = negative_weight * (count - 1) * plan_BNN
    return weighted_nce_loss(anchors_BND, positives_BND, weights_BNN, temperature)
