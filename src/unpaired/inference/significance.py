"""What an encoder finds significant in an image (Figure 2 of the paper)."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from unpaired.errors import ConfigError
from unpaired.methods import Method
from unpaired.methods.contrast import pooled
from unpaired.ops import query_selected_attention


class Significance(NamedTuple):
    """Significance of the locations of one feature map.

    Attributes:
        indices: (N,) int64, selected locations as y * W + x, most significant first.
        entropy: (H, W) float32, nats; small means significant.
    """

    indices: Tensor
    entropy: Tensor


def significance_of(method: Method, padded_1CHW: Tensor, tap: str, num_queries: int) -> Significance:
    """Significance at one tap of a method's encoder.

    Args:
        method: With its weights.
        padded_1CHW: One image in [-1, 1], in the networks' channels, of a size that they take.
        tap: Place of the encoder.
        num_queries: N.

    Raises:
        ConfigError: There is no such tap.
    """
    try:
        (features,) = method.encode(padded_1CHW, [tap])
    except ConfigError:
        raise
    except (KeyError, ValueError) as error:
        raise ConfigError(f"this model has no tap '{tap}'; its blocks are called block1, block2, ...") from error
    options = {"attention": "global", **method.selection(tap), "routing": "none"}
    own = options.pop("significance")
    features = pooled(features, options.pop("pool_to", None))
    options.pop("backend", None)  # the one of the machine that trained need not run here
    measure: Any = "entropy" if own == "random" else own  # a method without selection is seen through the paper's
    selected = query_selected_attention(features, [], num_queries, significance=measure, **options)
    entropy = selected.significance
    if measure != "entropy":
        entropy = query_selected_attention(features, [], 1, **options).significance
    height, width = features.shape[2:]
    return Significance(selected.indices[0].cpu(), entropy[0].view(height, width).cpu())
