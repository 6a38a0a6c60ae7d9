"""MoNCE's loss and its transport plan against loops in float64."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unpaired.losses import patch_nce_loss
from unpaired.losses.modulated_nce import modulated_nce_loss, transport_plan, weighted_nce_loss


def unit(batch: int = 2, count: int = 6, width: int = 4, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(batch, count, width, generator=generator, dtype=torch.float64), dim=2)


def similarities(anchors_ND: Tensor, positives_ND: Tensor) -> list[list[float]]:
    rows = anchors_ND.tolist(), positives_ND.tolist()
    return [[sum(a * b for a, b in zip(one, other, strict=True)) for other in rows[1]] for one in rows[0]]


def plan_by_loops(similarity: list[list[float]], temperature: float, iterations: int) -> list[list[float]]:
    """Rows and columns of the kernel are divided by their sums in turn, entry by entry; -10 stands on the diagonal."""
    places = range(len(similarity))
    plan = [[math.exp((-10 if i == j else similarity[i][j]) / temperature) for j in places] for i in places]
    for _ in range(iterations):
        plan = [[value / sum(row) for value in row] for row in plan]
        totals = [sum(plan[i][j] for i in places) for j in places]
        plan = [[plan[i][j] / totals[j] for j in places] for i in places]
    return plan


def loss_by_loops(
    anchors_ND: Tensor, positives_ND: Tensor, tau: float, beta: float, q: float, iterations: int
) -> float:
    similarity = similarities(anchors_ND, positives_ND)
    plan = plan_by_loops(similarity, beta, iterations)
    count, total = len(similarity), 0.0
    for i in range(count):
        positive = math.exp(similarity[i][i] / tau)
        weights = [q * (count - 1) * plan[i][j] + 1e-8 for j in range(count)]
        negatives = sum(weights[j] * math.exp(similarity[i][j] / tau) for j in range(count) if j != i)
        total -= math.log(positive / (positive + negatives))
    return total / count


@pytest.mark.parametrize("iterations", [1, 3, 50])
@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_the_plan_is_that_of_the_loops(beta: float, iterations: int) -> None:
    anchors, positives = unit(), unit(seed=1)
    found = transport_plan(anchors @ positives.transpose(1, 2), beta, iterations)
    for image in range(2):
        expected = plan_by_loops(similarities(anchors[image], positives[image]), beta, iterations)
        torch.testing.assert_close(found[image], torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("count", [2, 3, 40])
def test_every_anchor_gives_one_and_every_key_takes_one(count: int) -> None:
    plan = transport_plan(unit(count=count) @ unit(count=count, seed=1).transpose(1, 2), 0.5, 200)
    ones = torch.ones(2, count, dtype=torch.float64)
    torch.testing.assert_close(plan.sum(dim=1), ones, rtol=0, atol=1e-12)
    torch.testing.assert_close(plan.sum(dim=2), ones, rtol=0, atol=1e-6)
    assert plan.diagonal(dim1=1, dim2=2).abs().max() < 1e-6
    assert (plan >= 0).all()


def test_what_resembles_an_anchor_weighs_more() -> None:
    """Balancing scales rows and columns, which leaves the cross ratios of the kernel exp(s / beta) as they are."""
    similarity = unit(1) @ unit(1, seed=1).transpose(1, 2)
    plan = transport_plan(similarity, 0.3)[0]
    s = similarity[0]
    ratio = plan[0, 2] * plan[1, 3] / (plan[0, 3] * plan[1, 2])
    torch.testing.assert_close(ratio, ((s[0, 2] + s[1, 3] - s[0, 3] - s[1, 2]) / 0.3).exp())


def test_the_coldest_plan_allowed_is_finite_in_float32() -> None:
    anchors = F.normalize(torch.randn(1, 64, 2, generator=torch.Generator().manual_seed(0)), dim=2)
    anchors[:, 0] = -anchors[:, 1]  # one opposite pair, all others likely close
    plan = transport_plan(anchors @ anchors.transpose(1, 2), 0.05)
    assert plan.isfinite().all()
    torch.testing.assert_close(plan.sum(dim=1), torch.ones(1, 64))


@pytest.mark.parametrize(("beta", "q"), [(1.0, 1.0), (0.1, 1.0), (0.5, 2.5)])
def test_the_loss_is_that_of_the_loops(beta: float, q: float) -> None:
    anchors, positives = unit(), unit(seed=1)
    found = modulated_nce_loss(anchors, positives, 0.07, transport_temperature=beta, negative_weight=q, iterations=20)
    expected = [loss_by_loops(anchors[i], positives[i], 0.07, beta, q, 20) for i in range(2)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_uniform_weights_are_patch_nce() -> None:
    anchors, positives = unit(count=9).float(), unit(count=9, seed=1).float()
    expected = patch_nce_loss(anchors, positives, 0.07)
    ones = torch.ones(2, 9, 9)
    torch.testing.assert_close(weighted_nce_loss(anchors, positives, ones, 0.07), expected)
    nearly = modulated_nce_loss(anchors, positives, 0.07, transport_temperature=1e9)
    # Beyond every use even the diagonal gets its share: of the weight of the N - 1 negatives, 1 / N.
    shared = weighted_nce_loss(anchors, positives, 8 / 9 * ones, 0.07)
    torch.testing.assert_close(nearly, shared)
    assert not torch.allclose(modulated_nce_loss(anchors, positives, 0.07, transport_temperature=0.3), expected)


def test_a_single_location_has_no_negatives() -> None:
    assert modulated_nce_loss(unit(count=1), unit(count=1, seed=1)).tolist() == [0.0, 0.0]


def test_gradient_flows_through_the_plan_and_not_into_the_positives() -> None:
    anchors, positives = unit(1).requires_grad_(), unit(1, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda q: modulated_nce_loss(q, positives, 0.2, iterations=7), (anchors,))
    loss = modulated_nce_loss(anchors, positives, 0.2).sum()
    (gradient,) = torch.autograd.grad(loss, anchors, retain_graph=True)
    with torch.no_grad():
        weights = 5 * transport_plan(anchors @ positives.transpose(1, 2), 1.0)
    (held_fixed,) = torch.autograd.grad(weighted_nce_loss(anchors, positives, weights, 0.2).sum(), anchors)
    assert (gradient - held_fixed).norm() > 0.01 * gradient.norm()
    assert torch.autograd.grad(loss, positives, allow_unused=True) == (None,)
