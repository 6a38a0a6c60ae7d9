"""Hneg-SRC: CUT with decoupled contrast, hard negatives mined by semantic relation, and the relation kept."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor

from unpaired.errors import ConfigError
from unpaired.losses import lsgan_generator_loss
from unpaired.losses.semantic_relation import Mining, hard_negative_loss, relation_consistency_loss
from unpaired.methods.base import ImageBatch
from unpaired.methods.contrast import Pair, mean_over_pairs
from unpaired.methods.cut import CUT, ContrastiveOutputs, CUTConfig

_STAGES = 400  # published: the curriculum moves once per epoch, of 400


@dataclass(frozen=True)
class HnegSRCConfig(CUTConfig):
    """Settings of Hneg-SRC; the defaults are those published for single-modal translation (horse to zebra)."""

    contrastive_weight: float = 0.1
    """Weight of the hard-negative contrast between I_x and G(I_x)."""
    identity_weight: float = 0.1
    """Weight of the same contrast between I_y and G(I_y); 0 leaves the identity pass out."""
    relation_weight: float = 0.05
    """Weight of the semantic relation consistency between I_x and G(I_x), a sum over the N locations."""
    mining: Mining = "similarity"
    """How relations weigh negatives: their similarities (the published code), their importance (the paper's
    expectation over von Mises-Fisher), or not at all."""
    decoupled: bool = True
    """Leave the positive out of the contrast's denominator."""
    relation_temperature: float = 50.0
    """Temperature of the relation that mines negatives, at the start: nearly all alike."""
    final_relation_temperature: float = 10.0
    """The same at the end of the curriculum: smaller means harder negatives."""
    curriculum_images: int = 533_600
    """Length of the curriculum in images; the default is the paper's 400 passes over horse2zebra. Set it to the length
    of training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.relation_weight < float("inf"):
            raise ConfigError(f"relation_weight must be finite and not negative, but is {self.relation_weight}")
        for name in ("relation_temperature", "final_relation_temperature"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} must be above 0 and finite, not {getattr(self, name)}")
        if self.curriculum_images < 1:
            raise ConfigError(f"curriculum_images must be at least 1, not {self.curriculum_images}")

    @property
    def has_curriculum(self) -> bool:
        """Whether the loss changes with the images seen."""
        return self.mining != "none" and self.relation_temperature != self.final_relation_temperature


@dataclass(frozen=True)
class HnegSRCOutputs(ContrastiveOutputs):
    """What one training step computes, once.

    Attributes:
        relation_temperatures: The curriculum's temperature for each image, (K B,).
    """

    relation_temperatures: Tensor


class HnegSRC(CUT):
    """Patch-wise semantic relation (Jung et al., 2022): the relations of an image's locations are kept in its
    translation, and say which negatives are hard.

    Deviations, named, beside those of :class:`CUT`: the curriculum counts images (``images_seen``, part of the state)
    over ``curriculum_images`` instead of epochs, in as many stages; its sudden step to temperature 1 halfway, used for
    Cityscapes only, is left out; a location is kept out of its own negatives exactly; the value of the decoupled loss
    is reported as it is. ``mining="importance"`` is the paper's equation, which the published code does not compute.

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
    images_seen: Tensor

    def __init__(self, config: HnegSRCConfig, channels: int = 3) -> None:
        super().__init__(config, channels)
        self.register_buffer("images_seen", torch.zeros((), dtype=torch.int64))
        if config.has_curriculum:
            self.one_process_only = "the curriculum counts the images of its own process"

    def relation_temperatures(self, images: int) -> Tensor:
        """The curriculum's temperature for each of the next ``images`` images: (images,), on the method's device."""
        config = self.config
        places = self.images_seen + torch.arange(images, device=self.images_seen.device)
        stages = (places * _STAGES // config.curriculum_images).clamp(max=_STAGES)
        step = (config.final_relation_temperature - config.relation_temperature) / _STAGES
        return config.relation_temperature + step * stages.float()

    def forward_train(self, batch: ImageBatch) -> HnegSRCOutputs:
        outputs = super().forward_train(batch)
        temperatures = self.relation_temperatures(len(batch.source))
        if self.training and torch.is_grad_enabled():
            self.images_seen += len(batch.source)  # in place on the device: a recorded step counts on
        copies = len(outputs.seeds) // len(batch.source)
        shared = {each.name: getattr(outputs, each.name) for each in fields(outputs)}
        return HnegSRCOutputs(**shared, relation_temperatures=temperatures.repeat(copies))

    def generator_loss(self, outputs: ContrastiveOutputs) -> dict[str, Tensor]:
        """Adversarial term, hard-negative contrast of both images, relation consistency of I_x."""
        assert isinstance(outputs, HnegSRCOutputs)
        config, images = self.config, len(outputs.target)
        scores = self.discriminator(outputs.translated)
        terms = {"adversarial": config.adversarial_weight * lsgan_generator_loss(scores)}
        pairs = self.pairs(outputs)  # projected once, for both losses
        contrastive = self.contrast_of(pairs, outputs.relation_temperatures)
        share = 0.5 if len(contrastive) > images and config.contrastive_reduction == "mean" else 1.0
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
