"""DCLGAN: contrastive learning in both directions, between the encoders of two domains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import Tensor

from unpaired.config import settings
from unpaired.losses import GanMode
from unpaired.losses.patch_nce import Negatives
from unpaired.methods.base import AdamSettings, Decay, ImageBatch, derive_seeds, register
from unpaired.methods.two_way import TwoWay, TwoWayConfig, TwoWayContrastConfig, TwoWayOutputs, direction_contrast
from unpaired.networks import Projector


@settings
class DCLGANConfig(TwoWayContrastConfig, TwoWayConfig):
    """Settings of DCLGAN; the defaults are those of its authors' code."""

    gan_mode: GanMode = "hinge"
    """The adversarial loss: least squares, hinge, the non-saturating logistic one, or Wasserstein with a penalty."""
    image_pool: NonNegativeInt = 0
    """Earlier translations kept per domain for its discriminator; 0 shows the newest only."""
    negatives: Negatives = "batch"
    """Where an anchor's negatives come from: its own image, or all images of the batch (of a process)."""

    taps: tuple[str, ...] = ("down1", "down2", "block1", "block5")
    """Places of the encoders where the contrastive loss is taken: two halvings and two residual blocks."""
    contrastive_weight: NonNegativeFloat = 2.0
    """Weight of each direction's contrastive loss."""
    identity_weight: NonNegativeFloat = 1.0
    """Weight of the L1 distance between G_ab(I_y) and I_y, and between G_ba(I_x) and I_x; 0 leaves them out."""
    projector_learning_rate: PositiveFloat = 1e-3
    """Learning rate of the projectors' own Adam, before the schedule."""
    projector_betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decays of the running means of the gradient and of its square in the projectors' own Adam."""


@register("dclgan")
class DCLGAN(TwoWay):
    """Dual contrastive learning (Han et al., 2021): each domain has an encoder and a projector of its own.

    A translation into B is encoded by the generator that reads B (G_ba) and compared with the encoding of its input by
    the generator that reads A (G_ab), each through its domain's projector; and the other way round. No cycle.

    As in its authors' code: hinge losses (the paper's equations are the logarithmic ones), no pool, negatives from the
    whole batch, positives without gradient, the contrast as a mean over taps and locations, an Adam of their own for
    the projectors. Both discriminators learn first in a step. The generators minimise half the sum of their
    terms, as published.

    Deviations, named: draws are functions of (seed, image); the schedule falls per image instead of per epoch. The
    paper's variant SimDCL with its similarity loss is left out.

    Args:
        config: The settings.
        channels: Channels of the images of both domains.
    """

    Config: ClassVar[type[DCLGANConfig]] = DCLGANConfig
    compiled: ClassVar[tuple[str, ...]] = (*TwoWay.compiled, "generator_ab.encode", "generator_ba.encode")
    title = "DCLGAN"
    citation = (
        "Han, Shoeiby, Petersson, Armin: Dual Contrastive Learning for Unsupervised Image-to-Image Translation. "
        "CVPR Workshops 2021."
    )
    data_defaults: ClassVar[Mapping[str, Any]] = {"load_size_until": "decay"}
    config: DCLGANConfig

    def __init__(self, config: DCLGANConfig, channels: int = 3) -> None:
        super().__init__(config, channels, taps=config.taps)
        self.generator_ab.check_taps(config.taps)
        tap_channels = {tap: self.generator_ab.tap_channels[tap] for tap in config.taps}
        self.projector_a, self.projector_b = (  # the loss takes cosines: nothing is added to a length
            Projector(tap_channels, config.projector_width, epsilon=0.0) for _ in range(2)
        )
        faster = config.projector_learning_rate / config.optimiser.learning_rate
        self.set_phases("projector_a", "projector_b", adam=AdamSettings(faster, config.projector_betas))

    def identity_factor(self) -> float:
        return self.config.identity_weight

    def forward_train(self, batch: ImageBatch) -> TwoWayOutputs:
        outputs = super().forward_train(batch)
        ab, ba = outputs.ab, outputs.ba
        return replace(
            outputs,
            ab=replace(ab, translated_features=self.generator_ba.encode(ab.translated, self.taps)),
            ba=replace(ba, translated_features=self.generator_ab.encode(ba.translated, self.taps)),
        )

    def generator_loss(self, outputs: TwoWayOutputs) -> dict[str, Tensor]:
        """Adversarial, identity and dual contrastive terms, each by half."""
        terms = super().generator_loss(outputs)
        in_a, in_b = self.projector_a, self.projector_b
        for number, (name, way) in enumerate(outputs.named()):
            anchors, positives = (in_b, in_a) if name == "ab" else (in_a, in_b)
            seeds = derive_seeds(outputs.seeds, number)
            contrast = direction_contrast(way, seeds, self.config, self.selection, anchors, positives)
            terms[f"contrastive_{name}"] = self.config.contrastive_weight * contrast
        return {name: 0.5 * term for name, term in terms.items()}
