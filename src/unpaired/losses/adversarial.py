"""The least-squares adversarial losses (Mao et al., 2017), which the paper's family uses in place of its Eq. 1."""

from __future__ import annotations

from torch import Tensor


def lsgan_discriminator_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """0.5 * (E[(D(real) - 1)^2] + E[D(fake)^2]). Scores of any shape -> a scalar, at least 0, float32 at least."""
    return 0.5 * ((_wide(real_scores) - 1).square().mean() + _wide(fake_scores).square().mean())


def lsgan_generator_loss(fake_scores: Tensor) -> Tensor:
    """E[(D(fake) - 1)^2]. Scores of any shape -> a scalar, at least 0, float32 at least."""
    return (_wide(fake_scores) - 1).square().mean()


def _wide(scores: Tensor) -> Tensor:
    return scores.float() if scores.itemsize < 4 else scores
