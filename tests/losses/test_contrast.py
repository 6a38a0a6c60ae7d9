"""Every contrastive loss against loops in float64, what they share, and their gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from losses.by_hand import contrast, plan, products, relation, unit
from unpaired.losses import patch_nce_loss
from unpaired.losses.modulated_nce import modulated_nce_loss, transport_plan, weighted_nce_loss
from unpaired.losses.semantic_relation import Mining, hard_negative_loss, relation_consistency_loss, relation_weights

TEMPERATURES = torch.tensor([0.2, 3.0], dtype=torch.float64)


def hard(mining: str, decoupled: bool) -> Callable[[Tensor, Tensor, int], float]:
    def loss(anchors: Tensor, positives: Tensor, image: int) -> float:
        similarity, inner = products(anchors, positives), products(positives, positives)
        places = range(len(inner))
        q = [relation(inner[i], float(TEMPERATURES[image]), without=i) for i in places]
        if mining == "similarity":  # logits of negatives are scaled by how alike they are
            pairs = [[s * (1 if i == j else q[i][j] / max(q[i])) for j, s in enumerate(similarity[i])] for i in places]
            return contrast(pairs, 0.07, decoupled=decoupled)
        weights = [[(len(inner) - 1) * each for each in row] for row in q] if mining == "importance" else None
        return contrast(similarity, 0.07, weights, decoupled=decoupled)

    return loss


def modulated(beta: float, q: float) -> Callable[[Tensor, Tensor, int], float]:
    def loss(anchors: Tensor, positives: Tensor, image: int) -> float:
        similarity = products(anchors, positives)
        weights = [[q * (len(similarity) - 1) * each + 1e-8 for each in row] for row in plan(similarity, beta, 20)]
        return contrast(similarity, 0.07, weights)

    return loss


def consistency(anchors: Tensor, positives: Tensor, image: int) -> float:
    total = 0.0
    for made, given in zip(products(anchors, anchors), products(positives, positives), strict=True):
        for q, p in zip(relation(made), relation(given), strict=True):
            total += (p * math.log(2 * p / (p + q)) + q * math.log(2 * q / (p + q))) / 2
    return total


Loss = Callable[[Tensor, Tensor], Tensor]
LOSSES: dict[str, tuple[Loss, Callable[[Tensor, Tensor, int], float]]] = {
    "patch_nce": (patch_nce_loss, lambda q, k, image: contrast(products(q, k), 0.07)),
    "relation": (relation_consistency_loss, consistency),
    **{
        f"modulated, {beta}, {weight}": (
            lambda q, k, beta=beta, weight=weight: modulated_nce_loss(
                q, k, transport_temperature=beta, negative_weight=weight, iterations=20
            ),
            modulated(beta, weight),
        )
        for beta, weight in ((1.0, 1.0), (0.1, 1.0), (0.5, 2.5))
    },
    **{
        f"hard, {mining}, decoupled {decoupled}": (
            lambda q, k, mining=mining, decoupled=decoupled: hard_negative_loss(
                q, k, TEMPERATURES, mining=mining, decoupled=decoupled
            ),
            hard(mining, decoupled),
        )
        for mining in get_args(Mining)
        for decoupled in (True, False)
    },
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_that_of_the_loops_and_teaches_the_anchors_only(name: str) -> None:
    loss, by_hand = LOSSES[name]
    anchors, positives = unit().requires_grad_(), unit(seed=1).requires_grad_()
    found = loss(anchors, positives)
    expected = [by_hand(anchors[i].detach(), positives[i].detach(), i) for i in range(2)]
    torch.testing.assert_close(found.detach(), torch.tensor(expected, dtype=torch.float64))
    gradient = torch.autograd.grad(found.sum(), [anchors, positives], allow_unused=True)
    assert gradient[0].isfinite().all()
    assert gradient[0].abs().max() > 0
    assert gradient[1] is None
    assert torch.autograd.gradcheck(lambda q: loss(q, positives.detach()), (anchors,))


def test_negatives_of_the_whole_batch_are_one_long_image() -> None:
    anchors, positives = unit(3, 5), unit(3, 5, seed=1)
    found = patch_nce_loss(anchors, positives, negatives="batch")
    expected = contrast(products(anchors.flatten(0, 1), positives.flatten(0, 1)), 0.07)
    assert found.mean().item() == pytest.approx(expected, rel=1e-9)
    own = patch_nce_loss(anchors.flatten(0, 1)[None], positives.flatten(0, 1)[None])
    torch.testing.assert_close(found.mean(), own[0])
    one = slice(0, 1)
    torch.testing.assert_close(
        patch_nce_loss(anchors[one], positives[one], negatives="batch"), patch_nce_loss(anchors[one], positives[one])
    )
    assert found.unique().numel() == 3  # each image its own


@pytest.mark.parametrize(
    "loss", [patch_nce_loss, modulated_nce_loss, lambda q, k: hard_negative_loss(q, k, q.new_ones(2))]
)
def test_a_single_location_has_no_negatives(loss: Loss) -> None:
    anchors = unit(count=1).requires_grad_()
    found = loss(anchors, unit(count=1, seed=1))
    assert found.tolist() == [0.0, 0.0]
    found.sum().backward()
    assert anchors.grad is not None


def test_losses_without_what_they_add_are_patch_nce() -> None:
    anchors, positives = unit(count=9), unit(count=9, seed=1)
    expected, ones = patch_nce_loss(anchors, positives), torch.ones(2, 9, 9, dtype=torch.float64)
    torch.testing.assert_close(weighted_nce_loss(anchors, positives, ones, 0.07), expected)
    plain = hard_negative_loss(anchors, positives, TEMPERATURES, mining="none", decoupled=False)
    torch.testing.assert_close(plain, expected)
    # Beyond every use even the diagonal of the plan gets its share: of the weight of the N - 1 negatives, 1 / N.
    nearly = modulated_nce_loss(anchors, positives, transport_temperature=1e9)
    torch.testing.assert_close(nearly, weighted_nce_loss(anchors, positives, 8 / 9 * ones, 0.07))
    assert not torch.allclose(modulated_nce_loss(anchors, positives, transport_temperature=0.3), expected)
    for mining in get_args(Mining):  # relations too warm to tell negatives apart
        warm = hard_negative_loss(anchors, positives, torch.full((2,), 1e9), mining=mining)
        torch.testing.assert_close(warm, hard_negative_loss(anchors, positives, TEMPERATURES, mining="none"))


# --- the plan and the relations --------------------------------------------------------------------------------------
@pytest.mark.parametrize("iterations", [1, 3, 50])
@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_the_plan_is_that_of_the_loops(beta: float, iterations: int) -> None:
    anchors, positives = unit(), unit(seed=1)
    found = transport_plan(anchors @ positives.transpose(1, 2), beta, iterations)
    expected = [plan(products(*pair), beta, iterations) for pair in zip(anchors, positives, strict=True)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("count", [2, 3, 40])
def test_every_anchor_gives_one_and_every_key_takes_one(count: int) -> None:
    found = transport_plan(unit(count=count) @ unit(count=count, seed=1).transpose(1, 2), 0.5, 200)
    ones = torch.ones(2, count, dtype=torch.float64)
    torch.testing.assert_close(found.sum(dim=1), ones, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.sum(dim=2), ones, rtol=0, atol=1e-6)
    assert found.diagonal(dim1=1, dim2=2).abs().max() < 1e-6
    assert (found >= 0).all()


def test_what_resembles_an_anchor_weighs_more() -> None:
    """Balancing scales rows and columns, which leaves the cross ratios of the kernel exp(s / beta) as they are."""
    similarity = unit(1) @ unit(1, seed=1).transpose(1, 2)
    found, s = transport_plan(similarity, 0.3)[0], similarity[0]
    ratio = found[0, 2] * found[1, 3] / (found[0, 3] * found[1, 2])
    torch.testing.assert_close(ratio, ((s[0, 2] + s[1, 3] - s[0, 3] - s[1, 2]) / 0.3).exp())


def test_the_coldest_plan_allowed_is_finite_in_float32() -> None:
    anchors = F.normalize(torch.randn(1, 64, 2, generator=torch.Generator().manual_seed(0)), dim=2)
    anchors[:, 0] = -anchors[:, 1]  # one opposite pair, all others likely close
    found = transport_plan(anchors @ anchors.transpose(1, 2), 0.05)
    assert found.isfinite().all()
    torch.testing.assert_close(found.sum(dim=1), torch.ones(1, 64))


def test_gradient_flows_through_the_plan() -> None:
    anchors, positives = unit(1).requires_grad_(), unit(1, seed=1)
    (gradient,) = torch.autograd.grad(modulated_nce_loss(anchors, positives, 0.2).sum(), anchors)
    with torch.no_grad():
        weights = 5 * transport_plan(anchors @ positives.transpose(1, 2), 1.0)
    (held_fixed,) = torch.autograd.grad(weighted_nce_loss(anchors, positives, weights, 0.2).sum(), anchors)
    assert (gradient - held_fixed).norm() > 0.01 * gradient.norm()


def test_weights_are_the_relations_to_others() -> None:
    positives = unit()
    found: Any = relation_weights(positives, TEMPERATURES)
    for image in range(2):
        inner = products(positives[image], positives[image])
        expected = [relation(inner[i], float(TEMPERATURES[image]), without=i) for i in range(6)]
        torch.testing.assert_close(found[image], torch.tensor(expected, dtype=torch.float64))


def test_a_rotation_of_all_features_keeps_their_relations() -> None:
    positives = unit().float()
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(2)))[0]
    anchors = (positives @ rotation).requires_grad_()
    loss = relation_consistency_loss(anchors, positives)
    torch.testing.assert_close(loss, torch.zeros(2), rtol=0, atol=1e-6)
    loss.sum().backward()
    assert anchors.grad is not None
    assert anchors.grad.abs().max() < 1e-5  # a minimum, and finite where both agree
