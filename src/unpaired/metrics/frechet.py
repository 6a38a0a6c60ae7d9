"""Frechet distance between Gaussians fitted to two sets of features (FID on Inception's, Heusel et al., NeurIPS 2017).

|mean_f - mean_r|^2 + tr(S_f) + tr(S_r) - 2 tr((S_f^1/2 S_r S_f^1/2)^1/2), S the covariances with N - 1. It needs no
matrix square root: with S_f = A^T A and S_r = B^T B the last trace is the sum of the singular values of A B^T.

The value is defined for any counts, but it is biased upward, by an amount that falls with the counts and depends on
the model: with fewer images than features most of it is bias, and rankings can turn round. At 100 images a heavier JPEG
compression scored better than a lighter one. Compare values of equal counts only and look at the kernel distance
first, which has no such bias.

Shapes: N made images, M real images, D features.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from unpaired.metrics.checks import check_features

_BLOCK_ROWS = 4096


@dataclasses.dataclass(frozen=True)
class FrechetDistance:
    """The distance and its two parts, ``value = means + covariances``."""

    value: float
    means: float
    """Squared distance of the two mean features."""
    covariances: float
    """What differs in spread and correlation."""


def frechet_distance(fake_ND: Tensor, real_MD: Tensor) -> FrechetDistance:
    """Measure the Frechet distance, in float64, also for fewer images than features.

    Memory: a factor of at most min(N, D) x D numbers per set, whatever N is.

    Raises:
        DataError: A set has fewer than 2 images, the widths differ, or a feature is not finite.
    """
    width = fake_ND.shape[-1] if fake_ND.ndim else 0
    check_features(
        "Frechet distance", fake_ND, real_MD, 2, f" (and means little with fewer than {width}, the number of features)"
    )
    mean_f, factor_f = _mean_and_factor(fake_ND)
    mean_r, factor_r = _mean_and_factor(real_MD)
    means = float((mean_f - mean_r).square().sum())
    overlap = torch.linalg.svdvals(factor_f @ factor_r.T).sum()
    covariances = max(0.0, float(factor_f.square().sum() + factor_r.square().sum() - 2.0 * overlap))  # -1e-13 is 0
    return FrechetDistance(means + covariances, means, covariances)


def _mean_and_factor(features_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and a factor A, (at most min(N, D), D), of the covariance A^T A: a QR decomposition, block by block."""
    device = "cpu" if features_ND.device.type == "mps" else features_ND.device  # mps has no float64
    blocks = [block.detach() for block in features_ND.split(_BLOCK_ROWS)]
    total = sum(block.to(device).double().sum(0) for block in blocks)
    assert isinstance(total, Tensor)
    mean = total / len(features_ND)
    factor = features_ND.new_zeros((0, features_ND.shape[1]), dtype=torch.float64, device=device)
    for block in blocks:
        factor = torch.cat([factor, block.to(device).double() - mean])
        if len(factor) > factor.shape[1]:
            factor = torch.linalg.qr(factor, mode="r").R
    return mean, factor / (len(features_ND) - 1) ** 0.5
