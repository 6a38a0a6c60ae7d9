"""QS-Attn: contrastive learning at the most significant locations, on features routed by their attention."""

from __future__ import annotations

from typing import Any, ClassVar

from unpaired.config import settings
from unpaired.methods.base import register
from unpaired.methods.cut import CUT, CUTConfig
from unpaired.methods.query_selection import QuerySelectionConfig


@settings
class QSAttnConfig(QuerySelectionConfig, CUTConfig):
    """Settings of QS-Attn; the defaults are the paper's Global mode."""


@register("qs_attn")
class QSAttn(CUT):
    """Query-selected attention (Hu et al., 2022): CUT whose last taps select locations and route features by attention.

    Known deviations: the ranking key is computed in the log domain (exact where float32 entropies underflow to zero);
    local windows are those of Eq. 5, which the published code scrambles, and keys outside the image are masked.
    ``formulation="published"`` reproduces the published code. ``similarity="scaled"`` is our own variant
    (docs/significance.md).
    """

    Config: ClassVar[type[QSAttnConfig]] = QSAttnConfig
    title = "QS-Attn"
    citation = "Hu, Zhou, Huang, Shi, Sun, Li: QS-Attn: Query-Selected Attention for Contrastive Learning. CVPR 2022."
    config: QSAttnConfig

    def selection(self, tap: str) -> dict[str, Any]:
        return self.config.selection(tap)

    def keys_need_gradient(self) -> bool:
        return self.config.keys_need_gradient
