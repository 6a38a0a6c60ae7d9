"""DCLGAN + QS-Attn: dual contrastive learning at query-selected locations."""

from __future__ import annotations

from typing import Any, ClassVar

from unpaired.config import settings
from unpaired.methods.base import register
from unpaired.methods.dclgan import DCLGAN, DCLGANConfig
from unpaired.methods.query_selection import QuerySelectionConfig


@settings
class DCLGANQSAttnConfig(QuerySelectionConfig, DCLGANConfig):
    """Settings of DCLGAN + QS-Attn: those of both."""


@register("dclgan_qs_attn")
class DCLGANQSAttn(DCLGAN):
    """DCLGAN whose last taps select locations and route features by attention, in both directions.

    Our own combination, without published scores. Locations and attention rows come from the encoding of the input, as
    in QS-Attn; the rows also route the translation's features, which come from the other domain's encoder.
    """

    Config: ClassVar[type[DCLGANQSAttnConfig]] = DCLGANQSAttnConfig
    title = "DCLGAN + QS-Attn"
    citation = (
        f"{DCLGAN.citation} Hu, Zhou, Huang, Shi, Sun, Li: QS-Attn: Query-Selected Attention for Contrastive "
        "Learning. CVPR 2022."
    )
    config: DCLGANQSAttnConfig

    def selection(self, tap: str) -> dict[str, Any]:
        return self.config.selection(tap)
