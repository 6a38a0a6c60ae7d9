"""EnCo: decoder features match the encoder's of the same stage, at patches that the discriminator scores lowest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from unpaired.config import Amount, Count, Positive, Share, settings
from unpaired.errors import ConfigError
from unpaired.methods.adversarial import AdversarialConfig, generator_scores
from unpaired.methods.base import AdamSettings, ImageBatch, OptimiserConfig, derive_seeds, register
from unpaired.methods.one_way import OneWay, OneWayOutputs
from unpaired.networks import PredictingProjector, ProjectedScores
from unpaired.networks.generators import channels_at
from unpaired.ops import location_draws, widen

_DECODER_TAPS = {"stem": "doubled2", "halved1": "doubled1"}


@settings
class EnCoConfig(AdversarialConfig):
    """Settings of EnCo; the defaults are those of its published training script."""

    taps: tuple[str, ...] = ("stem", "halved1", "block2")
    """Encoder stages that the decoder must match: stem, halved1 or a block of the first half; block k is compared with
    block (blocks - k)."""
    num_queries: Count = 256
    """N: patches per tap and image (all locations where a feature map has fewer)."""
    sampling: Literal["discriminator", "random"] = "discriminator"
    """Selection of the patches: those that the discriminator scores lowest (DAG), or random."""
    oversampling: Annotated[int, Field(ge=1, le=1000)] = 4
    """The lowest-scored patches are taken from this many times N random locations."""
    random_share: Share = 0.5
    """Fraction of the N patches that is random in any case."""
    projector_width: Annotated[int, Field(ge=2, le=4096, multiple_of=2)] = 256
    """Dimension of the projected features, even."""
    content_weight: Amount = 2.0
    """Weight of the match between encoder and decoder; halved while the identity term is used, as published."""
    identity_weight: Amount = 10.0
    """Weight of the L1 distance between I_y and G(I_y), halved as published; 0 skips the identity pass."""
    identity_share: Share | None = None
    """Fraction of training, 0 to 1, with the identity pass; unset ends it with the constant learning rate."""
    discriminator_learning_rate_factor: Positive = 4.0
    """Multiplier of the learning rate for the discriminator: 2e-4 against 5e-5 for the generator."""
    optimiser: OptimiserConfig = field(default_factory=lambda: OptimiserConfig(learning_rate=5e-5, epochs=200))
    """Adam and its schedule."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.decoder_taps()

    def has_identity(self, progress: float) -> bool:
        """Whether the identity pass, if it has a weight, is run at ``progress`` of training."""
        share = self.optimiser.constant_fraction if self.identity_share is None else self.identity_share
        return progress < share - 1e-12

    def decoder_taps(self) -> tuple[str, ...]:
        """The decoder stage of each of ``taps``. Raises ``ConfigError`` for a tap without one."""
        return tuple(self._decoder_tap(tap) for tap in self.taps)

    def _decoder_tap(self, tap: str) -> str:
        if tap in _DECODER_TAPS:
            return _DECODER_TAPS[tap]
        number = int(tap.removeprefix("block")) if tap.removeprefix("block").isdecimal() else 0
        if not 1 <= number < self.blocks - number:
            first_half = ", ".join(f"block{k}" for k in range(1, (self.blocks + 1) // 2))
            raise ConfigError(
                f"taps: '{tap}' has no counterpart in the decoder; with blocks = {self.blocks} these have: "
                f"{', '.join(_DECODER_TAPS)}{', ' if first_half else ''}{first_half}"
            )
        return f"block{self.blocks - number}"


@dataclass(frozen=True, kw_only=True)
class EnCoOutputs(OneWayOutputs):
    """As :class:`OneWayOutputs`.

    Attributes:
        identical: G(I_y), (B, C, H, W), or None without the identity pass.
        encoder_features: Per tap, of the pass of I_x, (B, C_t, H_t, W_t).
        decoder_features: Per tap, of the same pass, the same shapes.
    """

    identical: Tensor | None
    encoder_features: list[Tensor]
    decoder_features: list[Tensor]


@register("enco")
class EnCo(OneWay):
    """EnCo (Cai et al., 2024): no second pass through the encoder and no negatives.

    As published, the identity pass ends with the constant learning rate; the content term is then no longer halved.

    Known deviations: the batch norm of projection and prediction normalises each image separately, which equals the
    published one at the published batch size of 1; draws are functions of (seed, image); the schedule decays per image.
    The learning rate warm-up that the published script has for Cityscapes is left out.
    """

    Config: ClassVar[type[EnCoConfig]] = EnCoConfig
    compiled = ("generator.translate_and_encode", "discriminator.forward")  # nothing is encoded twice
    title = "EnCo"
    citation = (
        "Cai, Zhu, Miao, Fu, Yao: Rethinking the Paradigm of Content Constraints in Unpaired Image-to-Image "
        "Translation. AAAI 2024."
    )
    updated_with_generator = ("projector",)
    config: EnCoConfig

    def __init__(self, config: EnCoConfig, channels: int = 3) -> None:
        super().__init__(config, channels)
        tap_channels = channels_at(self.generator.tap_channels, config.taps)
        self.projector = PredictingProjector(tap_channels, config.projector_width)
        if config.identity_weight > 0:
            self.not_recordable = "the identity pass ends during training; identity_weight 0 turns it off"
        discriminator, generator = self.phases
        faster = {"discriminator": AdamSettings(config.discriminator_learning_rate_factor)}
        self.phases = (replace(discriminator, adam=faster), generator)

    def forward_train(self, batch: ImageBatch) -> EnCoOutputs:
        config, images = self.config, len(batch.source)
        with_identity = config.identity_weight > 0 and config.has_identity(float(batch.progress))
        inputs = torch.cat([batch.source, batch.target]) if with_identity else batch.source
        translated, features = self.generator.translate_and_encode(inputs, (*config.taps, *config.decoder_taps()))
        of_source = [each[:images] for each in features]
        return EnCoOutputs(
            target=batch.target,
            translated=translated[:images],
            fakes=translated[:images],
            identical=translated[images:] if with_identity else None,
            encoder_features=of_source[: len(config.taps)],
            decoder_features=of_source[len(config.taps) :],
            seeds=batch.seeds,
        )

    def generator_loss(self, outputs: EnCoOutputs) -> dict[str, Tensor]:
        """Adversarial term, match between encoder and decoder, L1 identity."""
        config = self.config
        scores = generator_scores(self.discriminator, outputs.translated, outputs.seeds)
        finest = scores.finest if isinstance(scores, ProjectedScores) else scores
        share = 1.0 if outputs.identical is None else 0.5
        terms = {
            "adversarial": config.adversarial_term(scores),
            "content": share * config.content_weight * self.content_loss(outputs, finest.detach()).mean(),
        }
        if outputs.identical is not None:
            distance = (outputs.identical - outputs.target).abs().mean()
            terms["identity"] = share * config.identity_weight * distance
        return terms

    def content_loss(self, outputs: EnCoOutputs, scores_B1hw: Tensor) -> Tensor:
        """2 - 2 cos of the decoder's prediction and the encoder's projection, mean over N and taps: (B,)."""
        losses = []
        for number, tap in enumerate(self.config.taps):
            decoded, encoded = outputs.decoder_features[number], outputs.encoder_features[number].detach()
            selected_BN = self.locations(scores_B1hw, decoded.shape[2:], derive_seeds(outputs.seeds, number))
            predicted = self.projector(tap, _gather(decoded, selected_BN), predict=True)
            with torch.no_grad():
                projected = self.projector(tap, _gather(encoded, selected_BN), predict=False)
            cosine_BN = F.cosine_similarity(widen(predicted), widen(projected), dim=-1)
            losses.append((2 - 2 * cosine_BN).mean(dim=1))
        return torch.stack(losses).mean(dim=0)

    def locations(self, scores_B1hw: Tensor, size: Sequence[int], seeds: Tensor) -> Tensor:
        """Select patches of maps of ``size`` (height, width): (B, N) int64, y * W + x. Locations may repeat."""
        config = self.config
        height, width = size
        count = min(config.num_queries, height * width)

        def shuffled(seeds: Tensor) -> Tensor:
            order_Bn = location_draws(seeds, height * width).argsort(dim=1, stable=True)
            return order_Bn.to(scores_B1hw.device, non_blocking=True)

        if config.sampling == "random":
            return shuffled(seeds)[:, :count]
        randoms = int(count * config.random_share)
        candidates = shuffled(seeds)[:, : count * config.oversampling]
        scores_Bn = F.interpolate(widen(scores_B1hw), (height, width), mode="bilinear").flatten(1)
        order = scores_Bn.gather(1, candidates).argsort(dim=1, stable=True)[:, : count - randoms]
        return torch.cat([candidates.gather(1, order), shuffled(derive_seeds(seeds, -1))[:, :randoms]], dim=1)


def _gather(features_BCHW: Tensor, selected_BN: Tensor) -> Tensor:
    """Features at the selected locations: (B, N, C)."""
    flat_BnC = features_BCHW.flatten(2).transpose(1, 2)
    return flat_BnC.gather(1, selected_BN[:, :, None].expand(-1, -1, flat_BnC.shape[2]))
