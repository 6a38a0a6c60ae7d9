"""CycleGAN + QS-Attn, a combination that Appendix A of the QS-Attn paper leaves open."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor

from unpaired.config import settings
from unpaired.methods.base import ImageBatch, derive_seeds, register
from unpaired.methods.contrast import ContrastConfig
from unpaired.methods.cyclegan import CycleGAN, CycleGANConfig
from unpaired.methods.query_selection import QuerySelectionConfig
from unpaired.methods.two_way import TwoWayOutputs
from unpaired.networks import Projector
from unpaired.networks.generators import channels_at


@settings
class CycleGANQSAttnConfig(QuerySelectionConfig, ContrastConfig, CycleGANConfig):
    """Settings of CycleGAN + QS-Attn: those of both; cycle_weight and identity_weight may be 0."""


@register("cyclegan_qs_attn")
class CycleGANQSAttn(CycleGAN):
    """CycleGAN with QS-Attn's contrastive loss in each direction, each computed with the direction's own encoder.

    Our own combination, without published scores. Keys are the encodings from the full passes, so a step only adds an
    encoder pass per translation. ``contrastive_weight=0`` is CycleGAN.
    """

    Config: ClassVar[type[CycleGANQSAttnConfig]] = CycleGANQSAttnConfig
    compiled: ClassVar[tuple[str, ...]] = (*CycleGAN.compiled, "generator_ab.encode", "generator_ba.encode")
    title = "CycleGAN + QS-Attn"
    citation = (
        f"{CycleGAN.citation} Hu, Zhou, Huang, Shi, Sun, Li: QS-Attn: Query-Selected Attention for Contrastive "
        "Learning. CVPR 2022."
    )
    config: CycleGANQSAttnConfig

    def __init__(self, config: CycleGANQSAttnConfig, channels: int = 3) -> None:
        super().__init__(config, channels, taps=config.taps)
        tap_channels = channels_at(self.generator_ab.tap_channels, config.taps)
        self.projector_ab, self.projector_ba = (Projector(tap_channels, config.projector_width) for _ in range(2))
        self.set_phases("projector_ab", "projector_ba")

    def selection(self, tap: str) -> dict[str, Any]:
        return self.config.selection(tap)

    def forward_train(self, batch: ImageBatch) -> TwoWayOutputs:
        outputs = super().forward_train(batch)
        ab, ba = outputs.ab, outputs.ba
        return replace(
            outputs,
            ab=replace(ab, translated_features=self.generator_ab.encode(ab.translated, self.taps)),
            ba=replace(ba, translated_features=self.generator_ba.encode(ba.translated, self.taps)),
        )

    def generator_loss(self, outputs: TwoWayOutputs) -> dict[str, Tensor]:
        """CycleGAN's terms and PatchNCE at the selected locations in each direction."""
        terms = super().generator_loss(outputs)
        projectors = (self.projector_ab, self.projector_ba)
        for number, ((name, way), projector) in enumerate(zip(outputs.named(), projectors, strict=True)):
            terms[f"contrastive_{name}"] = self.contrastive_term(way, derive_seeds(outputs.seeds, number), projector)
        return terms
