"""Query selection in plain torch: this file DEFINES what every other backend computes.

It keeps the n x n matrix, runs in any floating dtype (float64 included) and autograd goes through all of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unpaired.ops.attention import Attention, Measure, log_of_log1p, outside_window, prepare, take_positions


def attention_logits(features_BCn: Tensor, attention: Attention) -> Tensor:
    """Similarities s_ij of every query i with every key j, -inf where j is no key of i: (B, C, n) -> (B, n, n)."""
    prepared_BCn = prepare(features_BCn, attention)
    logits_Bnn = prepared_BCn.transpose(1, 2) @ prepared_BCn * attention.logit_scale(features_BCn.shape[1])
    if attention.local:
        positions = torch.arange(logits_Bnn.shape[-1], device=logits_Bnn.device)
        logits_Bnn = logits_Bnn.masked_fill(outside_window(positions, attention), -torch.inf)
    return logits_Bnn


def log_entropy(logits: Tensor) -> Tensor:
    """log H of Eq. 4 and 5, row by row: (..., n) logits -> (...) log of nats; -inf where a row has a single key.

    H itself underflows where one key leads by more than 103 (float32), so each term of the sum is taken as a logarithm.
    With p* the largest probability and R = sum_{j != *} exp(s_j - s_*): log p* = -log(1 + R), log p_j = s_j - s_* -
    log(1 + R), and a term is exp(log p_j + log(-log p_j)).
    """
    largest, best = logits.max(dim=-1, keepdim=True)
    leads = (logits - largest).scatter(-1, best, -torch.inf)
    log_ratio = leads.logsumexp(dim=-1, keepdim=True)
    log_total = log_ratio.exp().log1p()
    others = torch.where(leads == -torch.inf, -torch.inf, leads - log_total + (log_total - leads).log())
    best_term = log_of_log1p(log_ratio) - log_total
    return torch.cat([others, best_term], dim=-1).logsumexp(dim=-1)


def max_mean(logits: Tensor) -> Tensor:
    """Eq. 6, row by row: the largest logit minus the mean over the row's keys: (..., n) -> (...)."""
    is_key = logits > -torch.inf
    mean = torch.where(is_key, logits, 0.0).sum(dim=-1) / is_key.sum(dim=-1)
    return logits.amax(dim=-1) - mean


def significance(features_BCn: Tensor, attention: Attention, measure: Measure) -> tuple[Tensor, Tensor]:
    """How significant each query is.

    Args:
        features_BCn: (B, C, n) floating.
        attention: The matrix whose rows are measured.
        measure: ``entropy`` (Eq. 4, 5) or ``max_mean`` (Eq. 6).

    Returns:
        (B, n) ranking key, the smallest is the most significant; (B, n) the value to show: entropy in nats, or Eq. 6.
    """
    logits_Bnn = attention_logits(features_BCn, attention)
    if measure == "entropy":
        key_Bn = log_entropy(logits_Bnn)
        return key_Bn, key_Bn.exp()
    value_Bn = max_mean(logits_Bnn) * attention.max_mean_scale(features_BCn.shape[1])
    return -value_Bn, value_Bn


def route(queries_BCn: Tensor, values: Sequence[Tensor], indices_BN: Tensor, attention: Attention) -> list[Tensor]:
    """Route features by the selected attention rows: A[indices] V.

    Args:
        queries_BCn: (B, C, n) features whose attention it is.
        values: Features to be routed, each (B, C, n) in any floating dtype.
        indices_BN: (B, N) int64 selected positions.
        attention: The matrix.

    Returns:
        One (B, N, C) per entry of ``values``, float32 or float64.
    """
    attention_Bnn = attention_logits(queries_BCn, attention).softmax(dim=-1)
    rows_BnN = take_positions(attention_Bnn.transpose(1, 2), indices_BN)
    return [(value_BCn.to(rows_BnN.dtype) @ rows_BnN).transpose(1, 2) for value_BCn in values]
