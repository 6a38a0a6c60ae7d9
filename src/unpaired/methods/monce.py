"""MoNCE: CUT whose contrastive loss weights the negatives by optimal transport."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from unpaired.config import Positive, settings
from unpaired.losses.modulated_nce import modulated_nce_loss
from unpaired.methods.base import register
from unpaired.methods.contrast import Pair, mean_over_pairs
from unpaired.methods.cut import CUT, ContrastiveOutputs, CUTConfig


@settings
class MoNCEConfig(CUTConfig):
    """Settings of MoNCE; the defaults are those published for unpaired translation."""

    transport_temperature: Annotated[float, Field(ge=0.05, le=1e9)] = 1.0
    """beta: lower values shift weight to negatives that resemble the anchor; large values give CUT. The authors trained
    horse2zebra with 0.1."""
    negative_weight: Positive = 1.0
    """Q: mean weight of a negative."""
    transport_iterations: Annotated[int, Field(ge=1, le=10_000)] = 50
    """Iterations of Sinkhorn's algorithm."""


@register("monce")
class MoNCE(CUT):
    """Modulated contrast (Zhan et al., 2022) in CUT: hard negatives weigh more, balanced over all anchors and keys.

    As in the authors' code, Sinkhorn's kernel is the hard weight exp(similarity / beta) and gradient flows through the
    plan. Only the hard weighting, the one for unpaired translation, is implemented. Known deviations: those of
    :class:`CUT`.
    """

    Config: ClassVar[type[MoNCEConfig]] = MoNCEConfig
    title = "MoNCE"
    citation = "Zhan, Zhang, Yu, Wu, Lu: Modulated Contrast for Versatile Image Synthesis. CVPR 2022."
    config: MoNCEConfig

    def contrastive_loss(self, outputs: ContrastiveOutputs, pairs: list[Pair]) -> Tensor:
        config = self.config

        def loss(anchors_BND: Tensor, positives_BND: Tensor) -> Tensor:
            return modulated_nce_loss(
                anchors_BND,
                positives_BND,
                config.temperature,
                transport_temperature=config.transport_temperature,
                negative_weight=config.negative_weight,
                iterations=config.transport_iterations,
            )

        return mean_over_pairs(pairs, loss)
