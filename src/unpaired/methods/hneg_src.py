"""Hneg-SRC: CUT with decoupled contrast, hard negatives mined by semantic relation, and the relation kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from unpaired.config import settings
from unpaired.losses.semantic_relation import Mining, hard_negative_loss, relation_consistency_loss
from unpaired.methods.base import ImageBatch, register
from unpaired.methods.contrast import Pair, mean_over_pairs
from unpaired.methods.cut import CUT, ContrastiveOutputs, CUTConfig


@settings
class HnegSRCConfig(CUTConfig):
    """Settings of Hneg-SRC; the defaults are those published for single-modal translation (horse to zebra)."""

    RETIRED: ClassVar[tuple[str, ...]] = ("curriculum_images",)
    """Settings of earlier versions that run files may still hold."""
    contrastive_weight: NonNegativeFloat = 0.1
    """Weight of the hard-negative contrast between I_x and G(I_x)."""
    identity_weight: NonNegativeFloat = 0.1
    """Weight of the same contrast between I_y and G(I_y); 0 leaves the identity pass out."""
    relation_weight: NonNegativeFloat = 0.05
    """Weight of the semantic relation consistency between I_x and G(I_x), a sum over the N locations."""
    mining: Mining = "similarity"
    """How relations weigh negatives: their similarities (the published code), their importance (the paper's
    expectation over von Mises-Fisher), or not at all."""
    decoupled: bool = True
    """Leave the positive out of the contrast's denominator."""
    relation_temperature: PositiveFloat = 50.0
    """Temperature of the relation that mines negatives, at the start: nearly all alike."""
    final_relation_temperature: PositiveFloat = 10.0
    """The same at the end of the curriculum: smaller means harder negatives."""

    def relation_temperature_at(self, progress: Tensor) -> Tensor:
        """The curriculum's temperature after a share ``progress`` of training, () float64.

        In epoch e = 1, 2, ... of E it is start + (end - start) e / E, as published; E is the optimiser's ``epochs``,
        and where the length of training is given in images, as many equal parts of it.
        """
        epochs = self.optimiser.epochs
        epoch = (progress * epochs + 1e-9).floor().clamp(max=epochs - 1) + 1
        return (
            self.relation_temperature + (self.final_relation_temperature - self.relation_temperature) * epoch / epochs
        )


@dataclass(frozen=True)
class HnegSRCOutputs(ContrastiveOutputs):
    """What one training step computes, once.

    Attributes:
        relation_temperatures: The curriculum's temperature for each image, (K B,), the same for all.
    """

    relation_temperatures: Tensor


@register("hneg_src")
class HnegSRC(CUT):
    """Patch-wise semantic relation (Jung et al., 2022): the relations of an image's locations are kept in its
    translation, and say which negatives are hard.

    Deviations, named, beside those of :class:`CUT`: the curriculum's sudden step to temperature 1 halfway, used for
    Cityscapes only, is left out; a location is kept out of its own negatives exactly; the value of the decoupled loss
    is reported as it is (the published code reports a cross entropy and takes the gradient of this).
    ``mining="importance"`` is the paper's equation, which the published code does not compute.

    Args:
        config: The settings.
        channels: Channels of the images of both domains.
    """

    Config: ClassVar[type[HnegSRCConfig]] = HnegSRCConfig
    title = "Hneg-SRC"
    citation = (
        "Jung, Kwon, Ye: Exploring Patch-wise Semantic Relation for Contrastive Learning in Image-to-Image "
        "Translation Tasks. CVPR 2022."
    )
    config: HnegSRCConfig

    def forward_train(self, batch: ImageBatch) -> HnegSRCOutputs:
        outputs = super().forward_train(batch)
        temperature = self.config.relation_temperature_at(batch.progress).to(batch.source, non_blocking=True)
        return HnegSRCOutputs(**vars(outputs), relation_temperatures=temperature.expand(len(outputs.seeds)))

    def generator_loss(self, outputs: ContrastiveOutputs) -> dict[str, Tensor]:
        """Adversarial term, hard-negative contrast of both images, relation consistency of I_x."""
        assert isinstance(outputs, HnegSRCOutputs)
        config, images = self.config, len(outputs.target)
        terms = {"adversarial": self.adversarial_loss(outputs)}
        pairs = self.pairs(outputs)  # projected once, for both losses
        contrastive = self.contrast_of(pairs, outputs.relation_temperatures)
        share = config.contrastive_share
        terms["contrastive"] = share * config.contrastive_weight * contrastive[:images].mean()
        if len(contrastive) > images:
            terms["identity"] = share * config.identity_weight * contrastive[images:].mean()
        if config.relation_weight > 0:
            of_source = [Pair(pair.anchors[:images], pair.positives[:images]) for pair in pairs]
            terms["relation"] = config.relation_weight * mean_over_pairs(of_source, relation_consistency_loss).mean()
        return terms

    def contrast_of(self, pairs: list[Pair], relation_temperatures: Tensor) -> Tensor:
        """Mean over the taps of the hard-negative contrast, per image: (K B,)."""
        config = self.config

        def loss(anchors_BND: Tensor, positives_BND: Tensor) -> Tensor:
            return hard_negative_loss(
                anchors_BND,
                positives_BND,
                relation_temperatures,
                config.temperature,
                mining=config.mining,
                decoupled=config.decoupled,
            )

        return mean_over_pairs(pairs, loss)

    def contrastive_loss(self, outputs: ContrastiveOutputs) -> Tensor:
        assert isinstance(outputs, HnegSRCOutputs)
        return self.contrast_of(self.pairs(outputs), outputs.relation_temperatures)
