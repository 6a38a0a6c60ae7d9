"""Semantic relation consistency and the hard-negative contrast against loops in float64."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unpaired.losses import patch_nce_loss
from unpaired.losses.semantic_relation import (
    Mining,
    hard_negative_loss,
    relation_consistency_loss,
    relation_weights,
)

TEMPERATURES = torch.tensor([0.2, 3.0], dtype=torch.float64)


def unit(batch: int = 2, count: int = 6, width: int = 4, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(batch, count, width, generator=generator, dtype=torch.float64), dim=2)


def similarities(one_ND: Tensor, other_ND: Tensor) -> list[list[float]]:
    rows = one_ND.tolist(), other_ND.tolist()
    return [[sum(a * b for a, b in zip(one, other, strict=True)) for other in rows[1]] for one in rows[0]]


def relation(similarity: list[float], temperature: float = 1.0, without: int | None = None) -> list[float]:
    found = [0.0 if j == without else math.exp(s / temperature) for j, s in enumerate(similarity)]
    return [each / sum(found) for each in found]


def consistency_by_loops(anchors_ND: Tensor, positives_ND: Tensor) -> float:
    total = 0.0
    rows = similarities(anchors_ND, anchors_ND), similarities(positives_ND, positives_ND)
    for made, given in zip(*rows, strict=True):
        for q, p in zip(relation(made), relation(given), strict=True):
            middle = (p + q) / 2
            total += (p * math.log(p / middle) + q * math.log(q / middle)) / 2
    return total


def contrast_by_loops(
    anchors_ND: Tensor, positives_ND: Tensor, relation_temperature: float, tau: float, mining: str, decoupled: bool
) -> float:
    similarity, inner = similarities(anchors_ND, positives_ND), similarities(positives_ND, positives_ND)
    count, total = len(similarity), 0.0
    for i in range(count):
        q = relation(inner[i], relation_temperature, without=i)
        negatives = 0.0
        for j in range(count):
            if j == i:
                continue
            s = similarity[i][j] / tau
            if mining == "importance":
                negatives += (count - 1) * q[j] * math.exp(s)
            else:
                negatives += math.exp(s * (q[j] / max(q) if mining == "similarity" else 1.0))
        positive = math.exp(similarity[i][i] / tau)
        total -= math.log(positive / (negatives if decoupled else positive + negatives))
    return total / count


def test_consistency_is_that_of_the_loops() -> None:
    anchors, positives = unit(), unit(seed=1)
    expected = [consistency_by_loops(anchors[i], positives[i]) for i in range(2)]
    found = relation_consistency_loss(anchors, positives)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert (found > 0).all()
    assert (found < 6 * math.log(2)).all()


def test_a_rotation_of_all_features_keeps_their_relations() -> None:
    positives = unit().float()
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(2)))[0]
    anchors = (positives @ rotation).requires_grad_()
    loss = relation_consistency_loss(anchors, positives)
    torch.testing.assert_close(loss, torch.zeros(2), rtol=0, atol=1e-6)
    loss.sum().backward()
    assert anchors.grad is not None
    assert anchors.grad.abs().max() < 1e-5  # a minimum, and finite where both agree


def test_weights_are_the_relations_to_others() -> None:
    positives = unit()
    found = relation_weights(positives, TEMPERATURES)
    for image in range(2):
        inner = similarities(positives[image], positives[image])
        expected = [relation(inner[i], float(TEMPERATURES[image]), without=i) for i in range(6)]
        torch.testing.assert_close(found[image], torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("decoupled", [True, False])
@pytest.mark.parametrize("mining", get_args(Mining))
def test_contrast_is_that_of_the_loops(mining: Mining, decoupled: bool) -> None:
    anchors, positives = unit(), unit(seed=1)
    found = hard_negative_loss(anchors, positives, TEMPERATURES, 0.07, mining=mining, decoupled=decoupled)
    expected = [
        contrast_by_loops(anchors[i], positives[i], float(TEMPERATURES[i]), 0.07, mining, decoupled) for i in range(2)
    ]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("mining", get_args(Mining))
def test_relations_too_warm_to_tell_negatives_apart_are_no_mining(mining: Mining) -> None:
    anchors, positives = unit(), unit(seed=1)
    warm = torch.full((2,), 1e9)
    torch.testing.assert_close(
        hard_negative_loss(anchors, positives, warm, mining=mining),
        hard_negative_loss(anchors, positives, TEMPERATURES, mining="none"),
    )


def test_coupled_and_without_mining_it_is_patch_nce() -> None:
    anchors, positives = unit(), unit(seed=1)
    found = hard_negative_loss(anchors, positives, TEMPERATURES, 0.07, mining="none", decoupled=False)
    torch.testing.assert_close(found, patch_nce_loss(anchors, positives, 0.07))


@pytest.mark.parametrize("mining", get_args(Mining))
def test_no_gradient_reaches_the_positives(mining: Mining) -> None:
    anchors, positives = unit().requires_grad_(), unit(seed=1).requires_grad_()
    for loss in (
        hard_negative_loss(anchors, positives, TEMPERATURES, mining=mining),
        relation_consistency_loss(anchors, positives),
    ):
        gradient = torch.autograd.grad(loss.sum(), [anchors, positives], allow_unused=True)
        assert gradient[0].isfinite().all()
        assert gradient[0].abs().max() > 0
        assert gradient[1] is None


def test_a_single_location_has_no_negatives() -> None:
    anchors = unit(count=1).requires_grad_()
    loss = hard_negative_loss(anchors, unit(count=1, seed=1), TEMPERATURES)
    assert loss.tolist() == [0.0, 0.0]
    loss.sum().backward()
    assert anchors.grad is not None
