"""Plain loops over Python numbers that the contrastive losses are held against."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

Rows = list[list[float]]


def unit(batch: int = 2, count: int = 6, width: int = 4, seed: int = 0) -> Tensor:
    """(B, N, D) float64 features of length 1."""
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(batch, count, width, generator=generator, dtype=torch.float64), dim=2)


def products(one_ND: Tensor, other_ND: Tensor) -> Rows:
    rows = one_ND.tolist(), other_ND.tolist()
    return [[sum(a * b for a, b in zip(one, other, strict=True)) for other in rows[1]] for one in rows[0]]


def relation(similarity: list[float], temperature: float = 1.0, without: int | None = None) -> list[float]:
    found = [0.0 if j == without else math.exp(s / temperature) for j, s in enumerate(similarity)]
    return [each / sum(found) for each in found]


def plan(similarity: Rows, temperature: float, iterations: int) -> Rows:
    """Rows and columns of the kernel are divided by their sums in turn, entry by entry; -10 stands on the diagonal."""
    places = range(len(similarity))
    found = [[math.exp((-10 if i == j else similarity[i][j]) / temperature) for j in places] for i in places]
    for _ in range(iterations):
        found = [[value / sum(row) for value in row] for row in found]
        totals = [sum(found[i][j] for i in places) for j in places]
        found = [[found[i][j] / totals[j] for j in places] for i in places]
    return found


def contrast(similarity: Rows, tau: float, weights: Rows | None = None, *, decoupled: bool = False) -> float:
    """Mean over rows of -log of the share of the diagonal; ``weights`` count the other entries, 1 unless given."""
    total, count = 0.0, len(similarity)
    for i, row in enumerate(similarity):
        force = [math.exp(s / tau) * (1.0 if weights is None else weights[i][j]) for j, s in enumerate(row)]
        positive, negatives = math.exp(row[i] / tau), sum(force) - force[i]
        total -= math.log(positive / (negatives if decoupled else positive + negatives)) / count
    return total
