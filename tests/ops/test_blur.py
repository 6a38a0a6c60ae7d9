"""Blurring and halving in one operation against the two average poolings that it replaces, in every layout."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unpaired.ops.blur import blur_halve

LAYOUTS = (torch.contiguous_format, torch.channels_last)


def pooled(x: Tensor) -> Tensor:
    """[1, 1] twice is [1, 2, 1]."""
    return F.avg_pool2d(F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), 2, stride=1), 2)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("height", [2, 3, 5, 8, 9])
@pytest.mark.parametrize("width", [2, 3, 7, 12])
def test_it_is_the_filter_and_its_gradient_the_transpose(height: int, width: int, layout: torch.memory_format) -> None:
    x = torch.randn(2, 3, height, width, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    found, expected = blur_halve(x), pooled(x)
    torch.testing.assert_close(found, expected)
    gradient = torch.randn_like(expected)
    for incoming in (gradient, gradient.contiguous(memory_format=torch.channels_last)):
        torch.testing.assert_close(
            torch.autograd.grad(found, x, incoming, retain_graph=True)[0],
            torch.autograd.grad(expected, x, incoming, retain_graph=True)[0],
        )


def test_the_gradient_can_be_differentiated_again() -> None:
    x = torch.randn(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(blur_halve, (x,))
    assert torch.autograd.gradgradcheck(blur_halve, (x,))
