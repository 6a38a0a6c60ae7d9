"""Hneg-SRC: CUT with decoupled contrast, hard negatives mined by semantic relation, and relation consistency."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from unpaired.config import Amount, Positive, settings
from unpaired.losses.semantic_relation import Mining, hard_negative_loss, relation_consistency_loss
from unpaired.methods.base import ImageBatch, register
from unpaired.methods.contrast import Pair, mean_over_pairs
from unpaired.methods.cut import CUT, ContrastiveOutputs, CUTConfig


@settings
class HnegSRCConfig(CUTConfig):
    """Settings of Hneg-SRC; the defaults are those published for single-modal translation (horse to zebra)."""

    RETIRED: ClassVar[tuple[str, ...]] = ("curriculum_images",)
    """Settings of earlier versions that run files may still hold."""
    contrastive_weight: Amount = 0.1
    """Weight of the hard-negative contrastive loss between I_x and G(I_x)."""
    identity_weight: Amount = 0.1
    """Weight of the same loss between I_y and G(I_y); 0 skips the identity pass."""
    relation_weight: Amount = 0.05
    """Weight of the semantic relation consistency between I_x and G(I_x), a sum over the N locations."""
    mining: Mining = "similarity"
    """Weighting of the negatives: by similarity (the published code), by importance (the paper's expectation over von
    Mises-Fisher), or none."""
    decoupled: bool = True
    """Leave the positive out of the denominator of the contrastive loss."""
    relation_temperature: Positive = 50.0
    """Temperature of the relation that mines negatives at the start of training: nearly uniform weights."""
    final_relation_temperature: Positive = 10.0
    """The same at the end of the curriculum; lower means harder negatives."""

    def relation_temperature_at(self, progress: Tensor) -> Tensor:
        """Temperature of the curriculum at ``progress`` of training, () float64.

        As published, in epoch e = 1 ... E it is start + (end - start) e / E; E is the optimiser's ``epochs``, or as
        many equal parts of a training whose length is given in images.
        """
        epochs = self.optimiser.epochs
        epoch = (progress * epochs + 1e-9).floor().clamp(max=epochs - 1) + 1
        return (
            self.relation_temperature + (self.final_relation_temperature - self.relation_temperature) * epoch / epochs
        )


@dataclass(frozen=True, kw_only=True)
class HnegSRCOutputs(ContrastiveOutputs):
    """As :class:`ContrastiveOutputs`.

    Attributes:
        relation_temperatures: Temperature of the curriculum, (K B,), the same for all images.
    """

    relation_temperatures: Tensor


@register("hneg_src")
class HnegSRC(CUT):
    """Patch-wise semantic relation (Jung et al., 2022): a translation keeps the relations between the locations of its
    input, which also determine the hard negatives.

    Known deviations beside those of :class:`CUT`: the jump of the curriculum to temperature 1 halfway, used for
    Cityscapes only, is left out; a location is excluded from its own negatives exactly; the decoupled loss is reported
    as it is (the published code reports a cross entropy and takes the gradient of this).
    ``mining="importance"`` is the paper's equation, which the published code does not compute.
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

    def contrastive_terms(self, outputs: ContrastiveOutputs, pairs: list[Pair]) -> dict[str, Tensor]:
        """Hard-negative contrast of both images and relation consistency of I_x, weighted."""
        terms = super().contrastive_terms(outputs, pairs)
        if self.config.relation_weight > 0:
            images = len(outputs.target)
            of_source = [Pair(pair.anchors[:images], pair.positives[:images]) for pair in pairs]
            consistency = mean_over_pairs(of_source, relation_consistency_loss).mean()
            terms["relation"] = self.config.relation_weight * consistency
        return terms

    def contrastive_loss(self, outputs: ContrastiveOutputs, pairs: list[Pair]) -> Tensor:
        assert isinstance(outputs, HnegSRCOutputs)
        config, temperatures = self.config, outputs.relation_temperatures

        def loss(anchors_BND: Tensor, positives_BND: Tensor) -> Tensor:
            return hard_negative_loss(
                anchors_BND,
                positives_BND,
                temperatures,
                config.temperature,
                mining=config.mining,
                decoupled=config.decoupled,
            )

        return mean_over_pairs(pairs, loss)
