"""EnCo: the decoder's features agree with the encoder's of the same stage, at patches that the discriminator doubts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from unpaired.config import Share, settings
from unpaired.errors import ConfigError
from unpaired.methods.adversarial import AdversarialConfig, judged
from unpaired.methods.base import (
    DEFAULT_REQUEST,
    AdamSettings,
    ImageBatch,
    Method,
    OptimiserConfig,
    Phase,
    TranslateRequest,
    derive_seeds,
    register,
)
from unpaired.networks import PredictingProjector, ProjectedScores
from unpaired.ops import location_draws, widen

_DECODER_PLACES = {"stem": "doubled2", "halved1": "doubled1"}


@settings
class EnCoConfig(AdversarialConfig):
    """Settings of EnCo; the defaults are those of its published training script."""

    taps: tuple[str, ...] = ("stem", "halved1", "block2")
    """Stages of the encoder that the decoder is held to: stem, halved1 or a block of the first half; block k is
    compared with block (blocks - k)."""
    num_queries: PositiveInt = 256
    """N: patches per tap and image (all locations where a map has fewer)."""
    sampling: Literal["discriminator", "random"] = "discriminator"
    """What chooses the patches: discriminator takes those that it takes least for real (DAG), random chance alone."""
    oversampling: PositiveInt = 4
    """Of so many times N random locations, the least convincing ones are taken."""
    random_share: Share = 0.5
    """Share of the N patches that stay random."""
    projector_width: Annotated[int, Field(ge=2, multiple_of=2)] = 256
    """Dimension of the projected features, even."""
    content_weight: NonNegativeFloat = 2.0
    """Weight of the agreement of encoder and decoder; beside the identity term half of it counts, as published."""
    identity_weight: NonNegativeFloat = 10.0
    """Weight of the L1 distance between I_y and G(I_y), of which half counts; 0 leaves the identity pass out."""
    identity_share: Share | None = None
    """Share of training, 0 to 1, with the identity pass; unset ends it with the constant phase of the learning rate."""
    discriminator_learning_rate_factor: PositiveFloat = 4.0
    """The discriminator learns so many times as fast as the generator: 2e-4 against 5e-5."""
    optimiser: OptimiserConfig = field(default_factory=lambda: OptimiserConfig(learning_rate=5e-5, epochs=200))
    """Adam and its schedule."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.decoder_taps()

    def has_identity(self, progress: float) -> bool:
        """Whether an identity pass that has a weight is made after a share ``progress`` of training."""
        share = self.optimiser.constant_fraction if self.identity_share is None else self.identity_share
        return progress < share - 1e-12

    def decoder_taps(self) -> tuple[str, ...]:
        """The decoder's stage for each of ``taps``. Raises ``ConfigError`` for one that has none."""
        return tuple(self._decoder_tap(tap) for tap in self.taps)

    def _decoder_tap(self, tap: str) -> str:
        if tap in _DECODER_PLACES:
            return _DECODER_PLACES[tap]
        number = int(tap.removeprefix("block")) if tap.removeprefix("block").isdecimal() else 0
        if not 1 <= number < self.blocks - number:
            first_half = ", ".join(f"block{k}" for k in range(1, (self.blocks + 1) // 2))
            raise ConfigError(
                f"taps: '{tap}' has no counterpart in the decoder; with blocks = {self.blocks} these have: "
                f"{', '.join(_DECODER_PLACES)}{', ' if first_half else ''}{first_half}"
            )
        return f"block{self.blocks - number}"


@dataclass(frozen=True)
class EnCoOutputs:
    """What one training step computes, once.

    Attributes:
        target: I_y, (B, C, H, W).
        translated: G(I_x), (B, C, H, W).
        identical: G(I_y), (B, C, H, W), or None without the identity pass.
        encoder_features: Per tap, of the pass of I_x, (B, C_t, H_t, W_t).
        decoder_features: Per tap, of the same pass, the same shapes.
        seeds: (B,) int64.
    """

    target: Tensor
    translated: Tensor
    identical: Tensor | None
    encoder_features: list[Tensor]
    decoder_features: list[Tensor]
    seeds: Tensor


@register("enco")
class EnCo(Method):
    """EnCo (Cai et al., 2024): no second pass through the encoder and no negatives.

    As published, the identity pass ends with the constant phase of the learning rate; the content then counts whole.

    Deviations, named: the batch norm of projection and prediction takes each image by itself, which is the published
    one at the published batch of 1; draws are functions of (seed, image); the schedule falls per image. The warm-up of
    the learning rate that its script has for Cityscapes is left out.

    Args:
        config: The settings.
        channels: Channels of the images of both domains.
    """

    Config: ClassVar[type[EnCoConfig]] = EnCoConfig
    compiled = ("generator.translate_and_encode", "discriminator.forward")
    title = "EnCo"
    citation = (
        "Cai, Zhu, Miao, Fu, Yao: Rethinking the Paradigm of Content Constraints in Unpaired Image-to-Image "
        "Translation. AAAI 2024."
    )
    data_defaults: ClassVar[Mapping[str, Any]] = {"load_size_until": "decay"}

    def __init__(self, config: EnCoConfig, channels: int = 3) -> None:
        super().__init__()
        self.config = config
        self.generator = config.new_generator(channels)
        self.generator.check_taps(config.taps)
        self.discriminator = config.new_discriminator(channels)
        self.projector = PredictingProjector(
            {tap: self.generator.tap_channels[tap] for tap in config.taps}, config.projector_width
        )
        self.smallest_image = self.discriminator.smallest_image
        if config.identity_weight > 0:
            self.not_recordable = "the identity pass ends on the way; identity_weight 0 leaves it out"
        faster = {"discriminator": AdamSettings(config.discriminator_learning_rate_factor)}
        self.phases = (
            Phase("discriminator", ("discriminator",), self.discriminator_loss, adam=faster),
            Phase("generator", ("generator", "projector"), self.generator_loss),
        )

    def translate(self, x_BCHW: Tensor, request: TranslateRequest = DEFAULT_REQUEST) -> Tensor:
        return self.generator(x_BCHW)

    def encode(self, x_BCHW: Tensor, taps: Sequence[str]) -> list[Tensor]:
        return self.generator.encode(x_BCHW, taps)

    def forward_train(self, batch: ImageBatch) -> EnCoOutputs:
        config, images = self.config, len(batch.source)
        with_identity = config.identity_weight > 0 and config.has_identity(float(batch.progress))
        inputs = torch.cat([batch.source, batch.target]) if with_identity else batch.source
        made, features = self.generator.translate_and_encode(inputs, (*config.taps, *config.decoder_taps()))
        of_source = [each[:images] for each in features]
        return EnCoOutputs(
            target=batch.target,
            translated=made[:images],
            identical=made[images:] if with_identity else None,
            encoder_features=of_source[: len(config.taps)],
            decoder_features=of_source[len(config.taps) :],
            seeds=batch.seeds,
        )

    def discriminator_loss(self, outputs: EnCoOutputs) -> dict[str, Tensor]:
        """The loss of D on I_y and G(I_x), without gradient to G."""
        return self.config.discriminator_terms(self.discriminator, outputs.target, outputs.translated, outputs.seeds)

    def generator_loss(self, outputs: EnCoOutputs) -> dict[str, Tensor]:
        """Adversarial term, agreement of encoder and decoder, L1 identity."""
        config = self.config
        scores = judged(self.discriminator, outputs.translated, outputs.seeds)
        doubt = scores.finest if isinstance(scores, ProjectedScores) else scores
        share = 1.0 if outputs.identical is None else 0.5
        terms = {
            "adversarial": config.adversarial_term(scores),
            "content": share * config.content_weight * self.content_loss(outputs, doubt.detach()).mean(),
        }
        if outputs.identical is not None:
            distance = (outputs.identical - outputs.target).abs().mean()
            terms["identity"] = share * config.identity_weight * distance
        return terms

    def content_loss(self, outputs: EnCoOutputs, scores_B1hw: Tensor) -> Tensor:
        """2 - 2 cos of the prediction from the decoder and the encoder's projection, mean over N and taps: (B,)."""
        losses = []
        for number, tap in enumerate(self.config.taps):
            decoded, encoded = outputs.decoder_features[number], outputs.encoder_features[number].detach()
            chosen_BN = self.locations(scores_B1hw, decoded.shape[2:], derive_seeds(outputs.seeds, number))
            predicted = self.projector(tap, _gather(decoded, chosen_BN), predict=True)
            with torch.no_grad():
                projected = self.projector(tap, _gather(encoded, chosen_BN), predict=False)
            cosine_BN = F.cosine_similarity(widen(predicted), widen(projected), dim=-1)
            losses.append((2 - 2 * cosine_BN).mean(dim=1))
        return torch.stack(losses).mean(dim=0)

    def locations(self, scores_B1hw: Tensor, size: Sequence[int], seeds: Tensor) -> Tensor:
        """Choose patches of maps of ``size`` (height, width): (B, N) int64, y * W + x. A location may come twice."""
        config = self.config
        height, width = size
        draws_Bn = location_draws(seeds, height * width).to(scores_B1hw.device, non_blocking=True)
        count = min(config.num_queries, height * width)
        if config.sampling == "random":
            return draws_Bn.argsort(dim=1, stable=True)[:, :count]
        by_chance = int(count * config.random_share)
        candidates = draws_Bn.argsort(dim=1, stable=True)[:, : count * config.oversampling]
        doubted = F.interpolate(widen(scores_B1hw), (height, width), mode="bilinear").flatten(1)
        order = doubted.gather(1, candidates).argsort(dim=1, stable=True)[:, : count - by_chance]
        others = location_draws(derive_seeds(seeds, -1), height * width).to(scores_B1hw.device, non_blocking=True)
        return torch.cat([candidates.gather(1, order), others.argsort(dim=1, stable=True)[:, :by_chance]], dim=1)


def _gather(features_BCHW: Tensor, chosen_BN: Tensor) -> Tensor:
    """Features at the chosen locations: (B, N, C)."""
    flat_BnC = features_BCHW.flatten(2).transpose(1, 2)
    return flat_BnC.gather(1, chosen_BN[:, :, None].expand(-1, -1, flat_BnC.shape[2]))
