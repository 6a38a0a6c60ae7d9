"""Adversarial losses and penalties: closed forms, gradients, and what they do with half precision."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from unpaired.losses import GanMode, discriminator_loss, generator_loss, gradient_penalty, r1_penalty
from unpaired.networks import PatchDiscriminator
from unpaired.networks.layers import normalise_spectrally

MODES = get_args(GanMode)
REAL, FAKE = (1.0, 0.5, -2.0), (0.0, 2.0, 0.5)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


CLOSED_FORMS = {
    "lsgan": (
        0.5 * (mean([(r - 1) ** 2 for r in REAL]) + mean([f**2 for f in FAKE])),
        mean([(f - 1) ** 2 for f in FAKE]),
    ),
    "hinge": (
        0.5 * (mean([max(0.0, 1 - r) for r in REAL]) + mean([max(0.0, 1 + f) for f in FAKE])),
        mean([max(0.0, 1 - f) for f in FAKE]),
    ),
    "nonsaturating": (
        0.5 * (mean([softplus(-r) for r in REAL]) + mean([softplus(f) for f in FAKE])),
        mean([softplus(-f) for f in FAKE]),
    ),
    "wgangp": (mean(list(FAKE)) - mean(list(REAL)), -mean(list(FAKE))),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mode", MODES)
def test_closed_forms(mode: GanMode, dtype: torch.dtype) -> None:
    real, fake = (torch.tensor(scores, dtype=dtype).view(1, 1, 1, 3) for scores in (REAL, FAKE))
    found = discriminator_loss(real, fake, mode), generator_loss(fake, mode)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert [each.dtype for each in found] == [wide, wide]
    assert [each.item() for each in found] == pytest.approx(CLOSED_FORMS[mode], rel=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_d_parts_real_from_fake_and_g_closes_the_gap(mode: GanMode) -> None:
    """Downhill, D raises real scores and lowers fake ones, and G raises fake ones."""
    real, fake = (torch.tensor(each, dtype=torch.float64, requires_grad=True) for each in ([0.3, -0.2], [0.1, 0.4]))
    discriminator_loss(real, fake, mode).backward()
    assert (real.grad < 0).all()
    assert (fake.grad > 0).all()
    made = fake.detach().clone().requires_grad_()
    generator_loss(made, mode).backward()
    assert (made.grad < 0).all()


class Linear(nn.Module):
    """D(x) = sum of w x over the pixels, whose gradient is w everywhere."""

    def __init__(self, weight_CHW: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight_CHW)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return (x_BCHW * self.weight).sum(dim=(1, 2, 3), keepdim=True)


class Quadratic(nn.Module):
    """D(x) = a |x|^2 / 2, whose gradient is a x."""

    def __init__(self, a: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a, dtype=torch.float64))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return 0.5 * self.a * x_BCHW.square().sum(dim=(1, 2, 3))


def test_gradient_penalty_of_a_linear_discriminator() -> None:
    weight = torch.linspace(-1, 2, 12, dtype=torch.float64).view(3, 2, 2)
    judge = Linear(weight.clone())
    real, fake = torch.randn(2, 4, 3, 2, 2, dtype=torch.float64)
    length = weight.norm()
    penalty = gradient_penalty(judge, real, fake, torch.rand(4, dtype=torch.float64))
    torch.testing.assert_close(penalty, (length - 1).square())
    penalty.backward()
    torch.testing.assert_close(judge.weight.grad, 2 * (length - 1) * weight / length)


def test_penalties_are_taken_where_they_should_be() -> None:
    """At points between the images, each at its own share of the real one; R1 at the real images alone."""
    judge = Quadratic(3.0)
    real, fake = torch.randn(2, 3, 1, 2, 2, dtype=torch.float64)
    shares = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    between = [s * r + (1 - s) * f for s, r, f in zip(shares, real, fake, strict=True)]
    expected = torch.stack([(3 * x.norm() - 1).square() for x in between]).mean()
    torch.testing.assert_close(gradient_penalty(judge, real, fake, shares), expected)
    penalty = r1_penalty(judge, real)
    torch.testing.assert_close(penalty, 0.5 * 9 * real.square().sum(dim=(1, 2, 3)).mean())
    penalty.backward()
    torch.testing.assert_close(judge.a.grad, 3 * real.square().sum(dim=(1, 2, 3)).mean())


def test_penalties_give_no_gradient_to_images_and_their_own_to_a_patch_discriminator() -> None:
    torch.manual_seed(0)
    judge = PatchDiscriminator(3, base_channels=4, layers=2).double()
    real, fake = (torch.rand(2, 3, 32, 32, dtype=torch.float64).requires_grad_() for _ in range(2))
    shares = torch.tensor([0.3, 0.8], dtype=torch.float64)
    for penalty in (lambda: gradient_penalty(judge, real, fake, shares), lambda: r1_penalty(judge, real)):
        judge.zero_grad()
        penalty().backward()
        weight = judge.before_last.weight
        place = (3, 1, 2, 0)
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                weight[place] += step
            values.append(penalty().item())
            with torch.no_grad():
                weight[place] -= step
        assert weight.grad[place].item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5)
    assert real.grad is None
    assert fake.grad is None


@pytest.mark.parametrize("size", [24, 33])
def test_spectral_norm_bounds_every_layer(size: int) -> None:
    torch.manual_seed(0)
    judge = PatchDiscriminator(3, base_channels=4, layers=2, spectral_norm=True)
    for _ in range(60):  # one power iteration each
        judge(torch.randn(1, 3, size, size))
    for layer in judge.modules():
        if isinstance(layer, nn.Conv2d):
            assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1.0, rel=1e-3)
    linear = nn.Sequential(nn.Linear(3, 2))
    normalise_spectrally(linear)
    assert len(list(linear.parameters())) == 2
