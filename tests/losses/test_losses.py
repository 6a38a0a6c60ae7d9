"""Losses against the equations written out in float64."""

from __future__ import annotations

import math

import torch

from unpaired.losses import patch_nce_loss


def test_patch_nce_is_equation_2() -> None:
    torch.manual_seed(0)
    anchors, positives = torch.nn.functional.normalize(torch.randn(2, 3, 5, 4, dtype=torch.float64), dim=-1)
    expected = torch.zeros(3, dtype=torch.float64)
    for image in range(3):
        for i in range(5):
            scores = [math.exp(float(anchors[image, i] @ positives[image, j]) / 0.07) for j in range(5)]
            expected[image] -= math.log(scores[i] / sum(scores)) / 5
    torch.testing.assert_close(patch_nce_loss(anchors, positives), expected)


def test_patch_nce_gives_gradient_to_the_anchors_only() -> None:
    anchors, positives = torch.randn(2, 1, 5, 4, requires_grad=True)
    anchors, positives = anchors.detach().requires_grad_(), positives.detach().requires_grad_()
    patch_nce_loss(anchors, positives).sum().backward()
    assert anchors.grad is not None
    assert anchors.grad.abs().max() > 0
    assert positives.grad is None


def test_patch_nce_of_one_location_is_zero() -> None:
    assert patch_nce_loss(torch.ones(1, 1, 4), torch.ones(1, 1, 4)).item() == 0


def test_patch_nce_with_negatives_of_the_whole_batch() -> None:
    torch.manual_seed(0)
    anchors, positives = torch.nn.functional.normalize(torch.randn(2, 3, 5, 4, dtype=torch.float64), dim=-1)
    flat_anchors, flat_positives = anchors.flatten(0, 1), positives.flatten(0, 1)
    expected = torch.zeros(3, dtype=torch.float64)
    for i in range(15):
        scores = [math.exp(float(flat_anchors[i] @ flat_positives[j]) / 0.07) for j in range(15)]
        expected[i // 5] -= math.log(scores[i] / sum(scores)) / 5
    torch.testing.assert_close(patch_nce_loss(anchors, positives, negatives="batch"), expected)
    one = slice(0, 1)
    torch.testing.assert_close(
        patch_nce_loss(anchors[one], positives[one], negatives="batch"), patch_nce_loss(anchors[one], positives[one])
    )
