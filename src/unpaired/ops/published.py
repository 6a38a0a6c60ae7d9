"""What the published code computes, where that differs from the paper's equations; for people who must reproduce it.

Written from a description of its behaviour (docs: method, section 4). Departures, all kept here on purpose:

* The local keys are scrambled: the columns of ``unfold`` hold (channel, offset) but are read as (offset, channel).
* Zero padding takes part in the local softmax: a position outside the image is a key with logit 0.
* In the local mode the values are scrambled differently from the keys: what should be one window per selected query
  is one CHANNEL of all selected windows, so that channels and patches trade places.
* Entropies are a plain softmax's in float32 (float64 for float64 features), where many rows come out as exactly 0.

``attention="local_global"`` selects with the scrambled keys and routes correctly; ``attention="global"`` differs from
the equations in the entropies only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unpaired.ops import reference
from unpaired.ops.attention import Attention, Measure, take_positions, widen


def _unfold(features_BCn: Tensor, attention: Attention) -> Tensor:
    """Zero-padded windows of every position: (B, C, n) -> (B, C * S, n), channel by channel, offsets inside."""
    features_BCHW = widen(features_BCn).unflatten(2, (attention.height, attention.width))
    return torch.nn.functional.unfold(features_BCHW, attention.window, padding=attention.window // 2)


def _scrambled_logits(features_BCn: Tensor, attention: Attention) -> Tensor:
    """Products of each query with its mis-read window: (B, C, n) -> (B, n, S)."""
    columns_BnK = _unfold(features_BCn, attention).transpose(1, 2)
    keys_BnSC = columns_BnK.unflatten(2, (attention.window**2, features_BCn.shape[1]))
    return torch.einsum("bnsc,bcn->bns", keys_BnSC, widen(features_BCn))


def significance(features_BCn: Tensor, attention: Attention, measure: Measure) -> tuple[Tensor, Tensor]:
    """Entropies as published; arguments and results as :func:`unpaired.ops.reference.significance`."""
    if measure != "entropy":
        raise ValueError("the published code ranks by entropy only; the front door refuses the rest")
    logits = (
        _scrambled_logits(features_BCn, attention)
        if attention.local
        else reference.attention_logits(features_BCn, attention)
    )
    probabilities = logits.softmax(dim=-1)
    surprise = -probabilities.log()
    entropy_Bn = (probabilities * surprise.masked_fill(surprise.isinf(), 0.0)).sum(dim=-1)
    return entropy_Bn, entropy_Bn


def route(queries_BCn: Tensor, values: Sequence[Tensor], indices_BN: Tensor, attention: Attention) -> list[Tensor]:
    """Route as published; arguments and results as :func:`unpaired.ops.reference.route`."""
    if not attention.local:
        return reference.route(queries_BCn, values, indices_BN, attention)
    logits_BnS = _scrambled_logits(queries_BCn, attention)
    rows_BNS = take_positions(logits_BnS.transpose(1, 2), indices_BN).transpose(1, 2).softmax(dim=-1)
    routed = []
    for value_BCn in values:
        windows_BKN = take_positions(_unfold(value_BCn, attention), indices_BN)
        # The second error: (C * S, N) numbers read as (N, S, C). With N == C, entry (p, s, c) is channel p, offset s of
        # the window of query c, so "patch" p is channel p of every selected window.
        misread_BNSC = windows_BKN.reshape(*rows_BNS.shape, value_BCn.shape[1])
        routed.append(torch.einsum("bns,bnsc->bnc", rows_BNS, misread_BNSC.to(rows_BNS.dtype)))
    return routed
