"""Query selection by fused Triton kernels, for NVIDIA GPUs: neither n x n nor N x n numbers are ever written.

Selection streams the keys past each block of rows and keeps four numbers per row (``triton_selection``). Routing by A_g
streams them past the N selected rows, forward and backward (``triton_routing``); routing by A_l gathers the N windows
by index arithmetic (``triton_windows``). Gradients of the selected features and of cosine's normalisation are torch's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unpaired.ops.attention import Attention, Measure, prepare, take_positions
from unpaired.ops.triton_routing_operators import route_rows
from unpaired.ops.triton_selection_operators import global_key, local_key
from unpaired.ops.triton_windows_operators import window_products, window_sums

_EPS = 1e-12  # of torch.nn.functional.normalize: shorter features are not stretched to unit length


def significance(features_BCn: Tensor, attention: Attention, measure: Measure) -> tuple[Tensor, Tensor]:
    """How significant each query is; arguments and results as :func:`unpaired.ops.reference.significance`."""
    with torch.no_grad():
        inverse_norms_Bn = None
        if attention.similarity == "cosine":
            norms_Bn = torch.linalg.vector_norm(features_BCn, dim=1, dtype=torch.float32)
            inverse_norms_Bn = norms_Bn.clamp_(min=_EPS).reciprocal_()
        scale = attention.logit_scale(features_BCn.shape[1])
        entropy = measure == "entropy"
        if attention.local:
            key_Bn = local_key(
                features_BCn, inverse_norms_Bn, attention.height, attention.width, *attention.radii, scale, entropy
            )
        else:
            key_Bn = global_key(features_BCn, inverse_norms_Bn, scale, entropy)
        if entropy:
            return key_Bn, key_Bn.exp()
        value_Bn = key_Bn * attention.max_mean_scale(features_BCn.shape[1])
        return -value_Bn, value_Bn


def route(queries_BCn: Tensor, values: Sequence[Tensor], indices_BN: Tensor, attention: Attention) -> list[Tensor]:
    """Route features by the selected rows; arguments and results as :func:`unpaired.ops.reference.route`."""
    keys_BCn = prepare(queries_BCn, attention) if attention.similarity == "cosine" else queries_BCn
    selected_BNC = take_positions(keys_BCn, indices_BN).transpose(1, 2).contiguous()
    scale = attention.logit_scale(queries_BCn.shape[1])
    if not attention.local:
        return [route_rows(selected_BNC, keys_BCn, value_BCn, scale)[0] for value_BCn in values]
    window = (indices_BN, attention.height, attention.width, *attention.radii)
    logits_BNS = window_products(selected_BNC, keys_BCn, *window, -torch.inf)
    rows_BNS = (logits_BNS * scale).softmax(dim=-1)
    return [window_sums(rows_BNS, value_BCn, *window) for value_BCn in values]
