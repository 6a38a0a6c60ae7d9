"""Losses against the equations written out in float64."""

from __future__ import annotations

import math

import pytest
import torch

from unpaired.losses import lsgan_discriminator_loss, lsgan_generator_loss, patch_nce_loss


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


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_least_squares_losses(dtype: torch.dtype) -> None:
    real, fake = torch.tensor([1.0, 0.5], dtype=dtype), torch.tensor([0.0, 2.0], dtype=dtype)
    assert lsgan_discriminator_loss(real, fake).item() == pytest.approx(0.5 * (0.125 + 2.0))
    assert lsgan_generator_loss(fake).item() == pytest.approx(1.0)
    assert lsgan_generator_loss(fake).dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
