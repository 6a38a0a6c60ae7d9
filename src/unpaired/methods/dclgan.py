"""DCLGAN: contrastive learning in both directions between the encoders of two domains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor

from unpaired.config import Amount, CountOrZero, Positive, settings
from unpaired.losses import GanMode
from unpaired.losses.patch_nce import Negatives
from unpaired.methods.base import AdamSettings, Decay, ImageBatch, derive_seeds, register
from unpaired.methods.contrast import ContrastConfig
from unpaired.methods.two_way import TwoWay, TwoWayConfig, TwoWayOutputs
from unpaired.networks import Projector
from unpaired.networks.generators import channels_at


@settings
class DCLGANConfig(ContrastConfig, TwoWayConfig):
    """Settings of DCLGAN; the defaults are those of its authors' code."""

    gan_mode: GanMode = "hinge"
    """Adversarial loss: least squares, hinge, non-saturating logistic, or Wasserstein with gradient penalty."""
    image_pool: CountOrZero = 0
    """Earlier translations kept per domain for its discriminator; 0 uses the newest only."""
    negatives: Negatives = "batch"
    """Source of an anchor's negatives: its own image, or all images of the batch (of a process)."""

    taps: tuple[str, ...] = ("down1", "down2", "block1", "block5")
    """Encoder layers at which the contrastive loss is computed."""
    contrastive_weight: Amount = 2.0
    """Weight of the contrastive loss of each direction."""
    identity_weight: Amount = 1.0
    """Weight of the L1 distance between G_ab(I_y) and I_y, and G_ba(I_x) and I_x; 0 skips these passes."""
    projector_learning_rate: Positive = 1e-3
    """Initial learning rate of the projectors."""
    projector_betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Adam's decay rates (beta1, beta2) for the projectors."""


@register("dclgan")
class DCLGAN(TwoWay):
    """Dual contrastive learning (Han et al., 2021): each domain has its own encoder and projector.

    A translation into B is encoded by the encoder of B (in G_ba) and compared with the encoding of its input by the
    encoder of A (in G_ab), each through the projector of its domain; and vice versa. There is no cycle.

    As in the authors' code: hinge losses (the paper's equations are logarithmic), no pool, negatives from the whole
    batch, positives without gradient, the contrast averaged over taps and locations, separate Adam settings for the
    projectors, discriminators updated first; the generators minimise half the sum of their terms.

    Known deviations: draws are functions of (seed, image); the schedule decays per image instead of per epoch. The
    paper's variant SimDCL with its similarity loss is left out.
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
        tap_channels = channels_at(self.generator_ab.tap_channels, config.taps)
        self.projector_a, self.projector_b = (  # the published loss takes cosines, without an epsilon
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
        """Adversarial, identity and dual contrastive terms, each halved."""
        terms = super().generator_loss(outputs)
        in_a, in_b = self.projector_a, self.projector_b
        for number, (name, way) in enumerate(outputs.named()):
            anchors, positives = (in_b, in_a) if name == "ab" else (in_a, in_b)
            seeds = derive_seeds(outputs.seeds, number)
            terms[f"contrastive_{name}"] = self.contrastive_term(way, seeds, anchors, positives)
        return {name: 0.5 * term for name, term in terms.items()}
