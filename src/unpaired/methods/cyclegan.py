"""CycleGAN: two generators, each the inverse of the other."""

from __future__ import annotations

from dataclasses import field, replace
from typing import ClassVar

from torch import Tensor

from unpaired.config import Amount, settings
from unpaired.methods.base import AdamSettings, ImageBatch, OptimiserConfig, register
from unpaired.methods.two_way import TwoWay, TwoWayConfig, TwoWayOutputs, mean_distance


@settings
class CycleGANConfig(TwoWayConfig):
    """Settings of CycleGAN; the defaults are the paper's."""

    cycle_weight: Amount = 10.0
    """lambda of the paper's Eq. 3: weight of the L1 distance between an image and its reconstruction by both
    generators; 0 skips these passes."""
    identity_weight: Amount = 0.5
    """Weight of the L1 distance between G(I_y) and I_y (section 5.2) relative to cycle_weight; 0 skips these passes."""
    optimiser: OptimiserConfig = field(default_factory=lambda: OptimiserConfig(epochs=200))
    """Adam and its schedule."""


@register("cyclegan")
class CycleGAN(TwoWay):
    """Cycle-consistent adversarial translation (Zhu et al., 2017), with strided networks and N(0, 0.02) weights.

    As published, a step updates the generators before the discriminators. Known deviations: the identity term, which
    the paper uses for paintings, is always on, as in the published code; draws of the pools are functions of (seed,
    image); the schedule decays per image instead of per epoch.

    Args:
        config: The settings.
        channels: Channels of the images of both domains.
        taps: Encoder layers whose features of the inputs a subclass needs.
    """

    Config: ClassVar[type[CycleGANConfig]] = CycleGANConfig
    compiled: ClassVar[tuple[str, ...]] = (*TwoWay.compiled, "generator_ab.forward", "generator_ba.forward")
    title = "CycleGAN"
    citation = (
        "Zhu, Park, Isola, Efros: Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks. "
        "ICCV 2017."
    )
    config: CycleGANConfig

    def __init__(self, config: CycleGANConfig, channels: int = 3, *, taps: tuple[str, ...] = ()) -> None:
        super().__init__(config, channels, resampling="strided", initialisation="normal", taps=taps)

    def set_phases(self, *projectors: str, adam: AdamSettings | None = None) -> None:
        """Both generators with ``projectors``, then both discriminators: the order of the published code."""
        super().set_phases(*projectors, adam=adam)
        self.phases = self.phases[::-1]

    def identity_factor(self) -> float:
        return self.config.identity_weight * self.config.cycle_weight

    def forward_train(self, batch: ImageBatch) -> TwoWayOutputs:
        outputs = super().forward_train(batch)
        if self.config.cycle_weight == 0:
            return outputs
        return replace(
            outputs,
            ab=replace(outputs.ab, cycled=self.generator_ba(outputs.ab.translated)),
            ba=replace(outputs.ba, cycled=self.generator_ab(outputs.ba.translated)),
        )

    def generator_loss(self, outputs: TwoWayOutputs) -> dict[str, Tensor]:
        """Eq. 3 and the identity terms."""
        terms = super().generator_loss(outputs)
        for name, way in outputs.named():
            if way.cycled is not None:
                terms[f"cycle_{name}"] = self.config.cycle_weight * mean_distance(way.cycled, way.source)
        return terms
