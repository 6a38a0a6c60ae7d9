"""Query selection in plain torch, the definition that every other backend must match.

It keeps the n x n matrix, supports any floating dtype including float64, and is differentiable throughout. The second
half reproduces the published code where it differs from the paper's equations.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unpaired.ops.attention import Attention, Measure, outside_window, prepare, take_positions, widen
from unpaired.ops.backends import Backend


def attention_logits(features_BCn: Tensor, attention: Attention) -> Tensor:
    """Logits s_ij of every query i with every key j, -inf where j is not a key of i: (B, C, n) -> (B, n, n)."""
    prepared_BCn = prepare(features_BCn, attention)
    logits_Bnn = prepared_BCn.transpose(1, 2) @ prepared_BCn * attention.logit_scale(features_BCn.shape[1])
    if attention.local:
        positions = torch.arange(logits_Bnn.shape[-1], device=logits_Bnn.device)
        logits_Bnn = logits_Bnn.masked_fill(outside_window(positions, attention), -torch.inf)
    return logits_Bnn


def log_of_log1p(log_ratio: Tensor) -> Tensor:
    """log(log(1 + R)) from log R, also where R underflows (there log(1 + R) = R)."""
    ratio = log_ratio.exp()
    return torch.where(ratio < torch.finfo(ratio.dtype).eps, log_ratio, ratio.log1p().log())


def log_entropy(logits: Tensor) -> Tensor:
    """log H of Eq. 4 and 5, row by row: (..., n) logits -> (...) log of nats; -inf for a row with a single key.

    H itself underflows if the largest logit leads by more than 103 (float32), so each term is computed as a logarithm.
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
    """Significance of each query.

    Args:
        features_BCn: (B, C, n) floating.
        attention: The attention matrix.
        measure: ``entropy`` (Eq. 4, 5) or ``max_mean`` (Eq. 6).

    Returns:
        (B, n) ranking key, smallest first; (B, n) significance: entropy in nats, or Eq. 6.
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
        queries_BCn: (B, C, n) features that define the attention.
        values: Features to be routed, each (B, C, n) in any floating dtype.
        indices_BN: (B, N) int64 selected positions.
        attention: The attention matrix.

    Returns:
        One (B, N, C) per entry of ``values``, float32 or float64.
    """
    attention_Bnn = attention_logits(queries_BCn, attention).softmax(dim=-1)
    rows_BnN = take_positions(attention_Bnn.transpose(1, 2), indices_BN)
    return [(value_BCn.to(rows_BnN.dtype) @ rows_BnN).transpose(1, 2) for value_BCn in values]


# The published code, for reproducing its numbers; written from a description of its behaviour (docs/method.md, section
# 4). Intentional departures from the equations:
#
# * The local keys are scrambled: the columns of ``unfold`` hold (channel, offset) but are read as (offset, channel).
# * Zero padding takes part in the local softmax: a position outside the image is a key with logit 0.
# * In the local mode the values are scrambled differently from the keys: instead of one window per selected query they
#   hold one channel of all selected windows, so channels and patches are swapped.
# * Entropies use a plain softmax in float32 (float64 for float64 features), where many rows are exactly 0.
#
# ``attention="local_global"`` selects with the scrambled keys and routes correctly; ``attention="global"`` differs
# from the equations in the entropies only.


def _unfold(features_BCn: Tensor, attention: Attention) -> Tensor:
    """Zero-padded windows of every position: (B, C, n) -> (B, C * S, n), ordered as (channel, offset)."""
    features_BCHW = widen(features_BCn).unflatten(2, (attention.height, attention.width))
    return torch.nn.functional.unfold(features_BCHW, attention.window, padding=attention.window // 2)


def _scrambled_logits(features_BCn: Tensor, attention: Attention) -> Tensor:
    """Products of each query with its misread window: (B, C, n) -> (B, n, S)."""
    columns_BnK = _unfold(features_BCn, attention).transpose(1, 2)
    keys_BnSC = columns_BnK.unflatten(2, (attention.window**2, features_BCn.shape[1]))
    return torch.einsum("bnsc,bcn->bns", keys_BnSC, widen(features_BCn))


def published_significance(features_BCn: Tensor, attention: Attention, measure: Measure) -> tuple[Tensor, Tensor]:
    """Entropies as published; see :func:`significance`."""
    if measure != "entropy":
        raise ValueError("the published code ranks by entropy only")
    logits = (
        _scrambled_logits(features_BCn, attention) if attention.local else attention_logits(features_BCn, attention)
    )
    probabilities = logits.softmax(dim=-1)
    surprise = -probabilities.log()
    entropy_Bn = (probabilities * surprise.masked_fill(surprise.isinf(), 0.0)).sum(dim=-1)
    return entropy_Bn, entropy_Bn


def published_route(
    queries_BCn: Tensor, values: Sequence[Tensor], indices_BN: Tensor, attention: Attention
) -> list[Tensor]:
    """Route as published; see :func:`route`."""
    if not attention.local:
        return route(queries_BCn, values, indices_BN, attention)
    logits_BnS = _scrambled_logits(queries_BCn, attention)
    rows_BNS = take_positions(logits_BnS.transpose(1, 2), indices_BN).transpose(1, 2).softmax(dim=-1)
    routed = []
    for value_BCn in values:
        windows_BKN = take_positions(_unfold(value_BCn, attention), indices_BN)
        # The second error: (C * S, N) values read as (N, S, C). With N == C, entry (p, s, c) is channel p, offset s of
        # the window of query c, so "patch" p is channel p of every selected window.
        misread_BNSC = windows_BKN.reshape(*rows_BNS.shape, value_BCn.shape[1])
        routed.append(torch.einsum("bns,bnsc->bnc", rows_BNS, misread_BNSC.to(rows_BNS.dtype)))
    return routed


BACKEND = Backend(
    name="reference",
    preference=2,
    formulations={"equations": (significance, route), "published": (published_significance, published_route)},
)
