"""Contrastive losses under autocast, and with their arguments left to the defaults."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unpaired.losses import patch_nce_loss
from unpaired.losses.modulated_nce import modulated_nce_loss, transport_plan, weighted_nce_loss
from unpaired.losses.self_similarity import map_contrast_loss, self_similarity
from unpaired.losses.semantic_relation import hard_negative_loss, relation_consistency_loss, relation_weights

WARM = torch.tensor([0.2, 3.0])
PLACES = torch.tensor([[0, 5, 3], [2, 2, 7]])
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "patch_nce": patch_nce_loss,
    "patch_nce of the batch": lambda q, k: patch_nce_loss(q, k, negatives="batch"),
    "relation_consistency": relation_consistency_loss,
    "relation_weights": lambda q, k: relation_weights(k, WARM),
    "hard_negative": lambda q, k: hard_negative_loss(q, k, WARM),
    "hard_negative by importance": lambda q, k: hard_negative_loss(q, k, WARM, mining="importance"),
    "hard_negative coupled": lambda q, k: hard_negative_loss(q, k, WARM, mining="none", decoupled=False),
    "weighted_nce": lambda q, k: weighted_nce_loss(q, k, torch.full((2, 6, 6), 0.5), 0.07),
    "modulated_nce": modulated_nce_loss,
    "self_similarity": lambda q, k: self_similarity(q.view(2, 6, 2, 4), PLACES, 3),
    "self_similarity by products": lambda q, k: self_similarity(q.view(2, 6, 2, 4), PLACES, 9, "dot"),
    "map_contrast": lambda q, k: map_contrast_loss(q, k, k.flip(1)[:, :4]),
}


def unit(seed: int) -> Tensor:
    return F.normalize(torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(seed)), dim=2)


@pytest.mark.parametrize("name", LOSSES)
def test_autocast_changes_nothing(name: str) -> None:
    """bf16 products would move a logit, which tau divides, by more than the loss."""
    anchors, positives = unit(0), unit(1)
    plain = LOSSES[name](anchors, positives)
    with torch.autocast("cpu", torch.bfloat16):
        cast = LOSSES[name](anchors, positives)
    assert cast.dtype == torch.float32
    assert torch.equal(plain, cast)
    exact = LOSSES[name](anchors.double(), positives.double())
    torch.testing.assert_close(plain, exact.float(), rtol=1e-4, atol=1e-5)


def test_defaults() -> None:
    anchors, positives = unit(0).double(), unit(1).double()
    assert torch.equal(patch_nce_loss(anchors, positives), patch_nce_loss(anchors, positives, 0.07, negatives="image"))
    assert torch.equal(
        hard_negative_loss(anchors, positives, WARM),
        hard_negative_loss(anchors, positives, WARM, 0.07, mining="similarity", decoupled=True),
    )
    assert torch.equal(
        modulated_nce_loss(anchors, positives),
        modulated_nce_loss(
            anchors, positives, 0.07, transport_temperature=1.0, negative_weight=1.0, iterations=50
        ),
    )  # fmt: skip
    sharp = anchors @ positives.transpose(1, 2)
    assert torch.equal(transport_plan(sharp, 0.1), transport_plan(sharp, 0.1, 50))
    assert not torch.equal(transport_plan(sharp, 0.1), transport_plan(sharp, 0.1, 49))
    assert torch.equal(
        map_contrast_loss(anchors, positives, positives.flip(1)),
        map_contrast_loss(anchors, positives, positives.flip(1), 0.07),
    )
