"""CycleGAN + QS-Attn: the question that Appendix A of the QS-Attn paper leaves open, put together from both."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor

from unpaired.config import settings
from unpaired.methods.base import ImageBatch, derive_seeds, register
from unpaired.methods.cyclegan import CycleGAN, CycleGANConfig
from unpaired.methods.query_selection import QuerySelectionConfig
from unpaired.methods.two_way import TwoWayContrastConfig, TwoWayOutputs, direction_contrast
from unpaired.networks import Projector


@settings
class CycleGANQSAttnConfig(QuerySelectionConfig, TwoWayContrastConfig, CycleGANConfig):
    """Settings of CycleGAN + QS-Attn: those of both; cycle_weight and identity_weight may be lowered or 0."""


@register("cyclegan_qs_attn")
class CycleGANQSAttn(CycleGAN):
    """CycleGAN whose generators also keep the query-selected features of their inputs, each with its own encoder.

    A composition of our own, there is no paper with figures: everything of CycleGAN stays, and QS-Attn's contrastive
    loss comes in once per direction. Keys are the encodings from the translations' full passes, so that the only
    addition to a step is to encode each translation. ``contrastive_weight=0`` is CycleGAN.
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
        self.generator_ab.check_taps(config.taps)
        tap_channels = {tap: self.generator_ab.tap_channels[tap] for tap in config.taps}
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
        """CycleGAN's terms and, per direction, PatchNCE at the selected locations."""
        terms = super().generator_loss(outputs)
        projectors = (self.projector_ab, self.projector_ba)
        for number, ((name, way), projector) in enumerate(zip(outputs.named(), projectors, strict=True)):
            seeds = derive_seeds(outputs.seeds, number)
            contrast = direction_contrast(way, seeds, self.config, self.selection, projector)
            terms[f"contrastive_{name}"] = self.config.contrastive_weight * contrast
        return terms
