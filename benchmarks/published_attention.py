"""QS-Attn's sampling the way its published code goes about it: the baseline of every speed and memory claim.

Written by us from a description of that code's steps; no line of it is copied. What it computes is defined by
``unpaired/ops/backends/reference.py`` (a test compares the two). What it costs is the published formulation's: the
whole n x n matrix stays in the autograd graph, windows are gathered by ``unfold`` for every position, and nothing is
improved or made slower on purpose.

Legend of the suffixes: B images, C channels, n = H * W positions, N selected positions, S keys of a window.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Mode = Literal["global", "local", "local_global"]


def published_qs_attention(
    source_BCHW: Tensor,
    target_BCHW: Tensor,
    num_queries: int,
    attention: Mode,
    window: int = 7,
    indices_BN: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Select N positions of the source and route source and target by the source's attention rows.

    Args:
        source_BCHW: Features of the source image; gradient flows into them through the attention rows as well.
        target_BCHW: Features of the translated image.
        num_queries: N, at most H*W.
        attention: The paper's mode.
        window: Side of the local window.
        indices_BN: Route these positions instead; the entropies are taken all the same.

    Returns:
        (B, N) positions, (B, N, C) routed source, (B, N, C) routed target.
    """
    tokens_BnC = source_BCHW.permute(0, 2, 3, 1).flatten(1, 2)
    images_B1 = torch.arange(source_BCHW.shape[0], device=source_BCHW.device).unsqueeze(1)

    if attention == "global":
        logits_Bnn = torch.bmm(tokens_BnC, tokens_BnC.transpose(1, 2))  # named there as well, so it lives to the end
        rows_Bnn = logits_Bnn.softmax(dim=2)
        indices_BN = _smallest(_entropy(rows_Bnn), num_queries, indices_BN)
        rows_BNn = rows_Bnn[images_B1, indices_BN]
        return indices_BN, torch.bmm(rows_BNn, tokens_BnC), _routed_globally(rows_BNn, target_BCHW)

    windows_BKn = _windows(source_BCHW, window)
    rows_BnS = _local_rows(tokens_BnC, windows_BKn)
    indices_BN = _smallest(_entropy(rows_BnS), num_queries, indices_BN)
    if attention == "local_global":
        logits_Bnn = torch.bmm(tokens_BnC, tokens_BnC.transpose(1, 2))
        rows_Bnn = logits_Bnn.softmax(dim=2)
        rows_BNn = rows_Bnn[images_B1, indices_BN]
        return indices_BN, torch.bmm(rows_BNn, tokens_BnC), _routed_globally(rows_BNn, target_BCHW)

    rows_BNS = rows_BnS[images_B1, indices_BN]
    routed_source = _routed_by_windows(rows_BNS, windows_BKn, indices_BN)
    return indices_BN, routed_source, _routed_by_windows(rows_BNS, _windows(target_BCHW, window), indices_BN)


def _entropy(rows: Tensor) -> Tensor:
    """-sum p log p along the last dimension, with 0 where the logarithm is infinite; autograd follows it too."""
    surprise = -rows.log()
    surprise = torch.where(surprise.isinf(), torch.zeros_like(surprise), surprise)
    return (rows * surprise).sum(dim=2)


def _smallest(entropy_Bn: Tensor, num_queries: int, given_BN: Tensor | None) -> Tensor:
    selected_BN = entropy_Bn.sort(dim=1).indices[:, :num_queries]
    return selected_BN if given_BN is None else given_BN


def _routed_globally(rows_BNn: Tensor, values_BCHW: Tensor) -> Tensor:
    return torch.bmm(rows_BNn, values_BCHW.permute(0, 2, 3, 1).flatten(1, 2))


def _windows(features_BCHW: Tensor, window: int) -> Tensor:
    """(B, K, n), K = C * S: a zero-padded copy of the window of every position."""
    return torch.nn.functional.unfold(features_BCHW, kernel_size=window, padding=window // 2)


def _local_rows(tokens_BnC: Tensor, windows_BKn: Tensor) -> Tensor:
    """(B, n, S): softmax over each position's window, whose C * S numbers are read as (S, C): the first error."""
    batch, positions, channels = tokens_BnC.shape
    keys_MSC = windows_BKn.permute(0, 2, 1).reshape(batch * positions, -1, channels)
    queries_M1C = tokens_BnC.reshape(batch * positions, 1, channels)
    logits_M1S = torch.bmm(queries_M1C, keys_MSC.transpose(1, 2))
    return logits_M1S.reshape(batch, positions, -1).softmax(dim=2)


def _routed_by_windows(rows_BNS: Tensor, windows_BKn: Tensor, indices_BN: Tensor) -> Tensor:
    """(B, N, C): the selected windows as (K, N), read as (N, S, C): the second error."""
    batch, queries, keys = rows_BNS.shape
    images_B1 = torch.arange(batch, device=rows_BNS.device).unsqueeze(1)
    selected_BKN = windows_BKn[images_B1, :, indices_BN].permute(0, 2, 1)
    values_MSC = selected_BKN.reshape(batch * queries, keys, -1)
    return torch.bmm(rows_BNS.reshape(batch * queries, 1, keys), values_MSC).reshape(batch, queries, -1)
