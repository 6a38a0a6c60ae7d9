"""Semantic relation consistency and the hard-negative contrastive loss based on it (Jung et al., 2022)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Mining = Literal["similarity", "importance", "none"]


def relation_consistency_loss(anchors_BND: Tensor, positives_BND: Tensor) -> Tensor:
    """SRC: distance between the semantic relations of the translation and those of the input.

    The relation of location k is a distribution over all N locations, softmax_i(z_k . z_i); the loss is the sum over
    k of the Jensen-Shannon divergence (natural logarithm) between those of the input and of the translation.

    Args:
        anchors_BND: Features of the translation, (B, N, D), unit length.
        positives_BND: Features of the input at the same locations, (B, N, D), unit length. No gradient flows into them.

    Returns:
        The loss of each image, (B,), between 0 and N log 2.
    """
    with torch.autocast(anchors_BND.device.type, enabled=False):
        translated, source = (
            torch.bmm(each, each.transpose(1, 2)).log_softmax(dim=2) for each in (anchors_BND, positives_BND.detach())
        )
        log_mean = torch.logaddexp(translated, source) - torch.log(translated.new_tensor(2.0))
        divergence = translated.exp() * (translated - log_mean) + source.exp() * (source - log_mean)
        return 0.5 * divergence.sum(dim=(1, 2))


def relation_weights(positives_BND: Tensor, temperature_B: Tensor) -> Tensor:
    """Hardness of each location as a negative of another: the relation of the input without the location itself.

    Args:
        positives_BND: Features z of the input, (B, N, D), unit length, N at least 2.
        temperature_B: Of each image, (B,), above 0, the inverse of von Mises-Fisher's concentration; lower values shift
            weight to semantically similar negatives.

    Returns:
        softmax over j other than i of z_i . z_j / temperature, (B, N, N), without gradient, zero on the diagonal.
    """
    with torch.no_grad(), torch.autocast(positives_BND.device.type, enabled=False):
        relation_BNN = torch.bmm(positives_BND, positives_BND.transpose(1, 2))
        itself = torch.eye(relation_BNN.shape[1], dtype=torch.bool, device=relation_BNN.device)
        logits_BNN = relation_BNN / temperature_B[:, None, None].to(relation_BNN)
        return logits_BNN.masked_fill(itself, -torch.inf).softmax(dim=2)


def hard_negative_loss(
    anchors_BND: Tensor,
    positives_BND: Tensor,
    relation_temperature_B: Tensor,
    temperature: float = 0.07,
    *,
    mining: Mining = "similarity",
    decoupled: bool = True,
) -> Tensor:
    """hDCE: decoupled contrastive loss (no positive in the denominator) with negatives weighted by relation.

    With q_ij of :func:`relation_weights` and similarities s_ij of anchor i and key j, the loss of an anchor is
    log(sum_j exp(l_ij)) - s_ii / tau over the N - 1 negatives j, with l_ij =

    - ``importance``: s_ij / tau + log((N - 1) q_ij), the paper's expectation over negatives drawn from q;
    - ``similarity``: (q_ij / max_j q_ij) s_ij / tau, the published code;
    - ``none``: s_ij / tau.

    Args:
        anchors_BND: w, features of the translated image, (B, N, D), unit length.
        positives_BND: z, features of the input at the same locations, (B, N, D), unit length, without gradient.
        relation_temperature_B: Of the relation, (B,).
        temperature: tau.
        mining: Weighting of the negatives.
        decoupled: Leave the positive out of the denominator; if false and without mining, the loss is PatchNCE.

    Returns:
        The loss of each image, (B,), the mean over its anchors; it can be negative if decoupled.
    """
    with torch.autocast(anchors_BND.device.type, enabled=False):
        logits_BNN = torch.bmm(anchors_BND, positives_BND.detach().transpose(1, 2)) / temperature
        count = logits_BNN.shape[1]
        if count == 1:  # a single location has no negatives
            return 0.0 * logits_BNN.sum(dim=(1, 2))
        itself = torch.eye(count, dtype=torch.bool, device=logits_BNN.device)
        negatives_BNN = logits_BNN
        if mining != "none":
            weights_BNN = relation_weights(positives_BND, relation_temperature_B)
            if mining == "importance":
                negatives_BNN = logits_BNN + ((count - 1) * weights_BNN.masked_fill(itself, 1.0)).log()
            else:
                negatives_BNN = logits_BNN * (weights_BNN / weights_BNN.amax(dim=2, keepdim=True))
        positive_BN = logits_BNN.diagonal(dim1=1, dim2=2)
        others_BN = negatives_BNN.masked_fill(itself, -torch.inf).logsumexp(dim=2)
        if not decoupled:
            others_BN = torch.logaddexp(others_BN, positive_BN)
        return (others_BN - positive_BN).mean(dim=1)
