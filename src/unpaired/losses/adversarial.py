"""Adversarial losses and two penalties on the discriminator's gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from unpaired.ops import widen
from unpaired.ops.winograd import direct_convolutions

GanMode = Literal["lsgan", "hinge", "nonsaturating", "wgangp"]
"""Least squares (Mao et al., 2017), which the paper's family uses in place of its Eq. 1; hinge (Lim and Ye, 2017);
the non-saturating logistic loss (Goodfellow et al., 2014); Wasserstein with a gradient penalty (Gulrajani et al.,
2017)."""


def discriminator_loss(real_scores: Tensor, fake_scores: Tensor, mode: GanMode = "lsgan") -> Tensor:
    """The discriminator's loss, a scalar, float32 at least. With r and f its scores of real and translated images:

    - ``lsgan``: (E[(r - 1)^2] + E[f^2]) / 2;
    - ``hinge``: (E[relu(1 - r)] + E[relu(1 + f)]) / 2;
    - ``nonsaturating``: (E[softplus(-r)] + E[softplus(f)]) / 2;
    - ``wgangp``: E[f] - E[r], to be used with :func:`gradient_penalty`.

    Args:
        real_scores: Of any shape.
        fake_scores: Of any shape, without gradient to the generator.
        mode: Which loss.
    """
    real, fake = widen(real_scores), widen(fake_scores)
    if mode == "lsgan":
        return 0.5 * ((real - 1).square().mean() + fake.square().mean())
    if mode == "hinge":
        return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
    if mode == "nonsaturating":
        return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())
    return fake.mean() - real.mean()


def generator_loss(fake_scores: Tensor, mode: GanMode = "lsgan") -> Tensor:
    """The generator's loss, a scalar, float32 at least. With f the scores of its translations:

    - ``lsgan``: E[(f - 1)^2];
    - ``hinge``: E[relu(1 - f)], as in DCLGAN's code; where f < 1 its gradient is that of the usual -E[f];
    - ``nonsaturating``: E[softplus(-f)];
    - ``wgangp``: -E[f].

    Args:
        fake_scores: Of any shape.
        mode: Which loss.
    """
    fake = widen(fake_scores)
    if mode == "lsgan":
        return (fake - 1).square().mean()
    if mode == "hinge":
        return F.relu(1 - fake).mean()
    if mode == "nonsaturating":
        return F.softplus(-fake).mean()
    return -fake.mean()


def gradient_penalty(
    discriminator: Callable[[Tensor], Tensor], real_BCHW: Tensor, fake_BCHW: Tensor, shares_B: Tensor
) -> Tensor:
    """E[(|grad_x D(x)| - 1)^2] at points x between real and translated images (Gulrajani et al., 2017, Eq. 3).

    Args:
        discriminator: (B, C, H, W) -> scores (B, ...); D(x) is the sum of the scores of an image.
        real_BCHW: Real images.
        fake_BCHW: As many translations.
        shares_B: (B,) in [0, 1], the weight of the real image in x.

    Returns:
        A scalar, unweighted, with gradient to the discriminator's weights.
    """
    shares = shares_B.to(real_BCHW)[:, None, None, None]
    between = shares * real_BCHW.detach() + (1 - shares) * fake_BCHW.detach()
    length = torch.linalg.vector_norm(_gradient_at(discriminator, between), dim=1)
    return (length - 1).square().mean()


def r1_penalty(discriminator: Callable[[Tensor], Tensor], real_BCHW: Tensor) -> Tensor:
    """E[|grad_x D(x)|^2] / 2 at real images (Mescheder, Geiger and Nowozin, 2018, Eq. 9, with gamma = 1).

    Args:
        discriminator: (B, C, H, W) -> scores (B, ...); D(x) is the sum of the scores of an image.
        real_BCHW: Real images.

    Returns:
        A scalar, with gradient to the discriminator's weights.
    """
    return 0.5 * _gradient_at(discriminator, real_BCHW.detach()).square().sum(dim=1).mean()


def _gradient_at(discriminator: Callable[[Tensor], Tensor], images_BCHW: Tensor) -> Tensor:
    """Gradient of each image's summed scores with respect to its pixels, (B, C H W), itself differentiable."""
    images_BCHW = images_BCHW.requires_grad_(True).clone()  # not a leaf: torch's FLOP counter rejects leaves
    with direct_convolutions():  # our Winograd convolution is differentiable once only
        total = widen(discriminator(images_BCHW)).sum()
        (gradient,) = torch.autograd.grad(total, images_BCHW, create_graph=True)
    return widen(gradient).flatten(1)
