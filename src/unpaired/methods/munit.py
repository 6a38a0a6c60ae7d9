"""MUNIT: an image is a content and a style; a translation keeps the content and draws another style."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from unpaired.config import settings
from unpaired.losses import discriminator_loss
from unpaired.methods.adversarial import AdversarialConfig
from unpaired.methods.base import (
    DEFAULT_REQUEST,
    ImageBatch,
    Method,
    OptimiserConfig,
    Phase,
    TranslateRequest,
    derive_seeds,
    register,
)
from unpaired.methods.two_way import mean_distance
from unpaired.networks.munit import ContentEncoder, Decoder, MultiScaleDiscriminator, StyleEncoder
from unpaired.ops import normal_draws


@settings
class MUNITConfig(AdversarialConfig):
    """Settings of MUNIT; the defaults are the paper's. Sizes are those of each encoder, decoder and discriminator."""

    blocks: PositiveInt = 4
    """Residual blocks of each content encoder and of each decoder."""
    style_channels: PositiveInt = 8
    """Dimension of the style."""
    perceptron_width: PositiveInt = 256
    """Width of the perceptrons that make the decoders' normalisation parameters out of the style."""
    discriminator_layers: PositiveInt = 4
    """Halvings of each discriminator, at each of its scales; 2 suits crops of 64 pixels."""
    discriminator_scales: PositiveInt = 3
    """How many sizes of an image each discriminator looks at: the image, its half, its quarter, ..."""
    reconstruction_weight: NonNegativeFloat = 10.0
    """lambda_x of Eq. 5: weight of the L1 distance between an image and what its own content and style decode to."""
    content_weight: NonNegativeFloat = 1.0
    """lambda_c: weight of the L1 distance between a content and that of its translation."""
    style_weight: NonNegativeFloat = 1.0
    """lambda_s: weight of the L1 distance between a drawn style and that of the translation made with it."""
    cycle_weight: NonNegativeFloat = 0.0
    """Weight of the style-augmented cycle: the L1 distance between an image and its translation's content decoded with
    the image's own style; 0, as in Eq. 5, leaves these passes out."""
    optimiser: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(learning_rate=1e-4, weight_decay=1e-4, schedule="halving", epochs=750)
    )
    """Adam and its schedule: halved after each tenth. The paper trains on a million images; 750 epochs are as many
    where the larger set has 1,334 (horse2zebra)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.own_networks("MUNIT", "generator", "discriminator")


@dataclass(frozen=True)
class MUNITDirection:
    """What one training step computes of one direction, from domain A to B (or B to A).

    Attributes:
        source: Images of A, (B, C, H, W).
        target: Images of B, (B, C, H, W); not paired with the source.
        content: Of the source, (B, 4 base_channels, H / 4, W / 4).
        drawn: The style that the translation was made with, (B, style_channels), from N(0, I).
        reconstructed: The source's content and style, decoded, (B, C, H, W).
        translated: The source's content and ``drawn``, decoded in B, (B, C, H, W).
        content_again: Of the translation, by B's encoder.
        drawn_again: The style of the translation, by B's encoder.
        cycled: ``content_again`` and the source's style, decoded in A, where it is asked for.
    """

    source: Tensor
    target: Tensor
    content: Tensor
    drawn: Tensor
    reconstructed: Tensor
    translated: Tensor
    content_again: Tensor
    drawn_again: Tensor
    cycled: Tensor | None


@dataclass(frozen=True)
class MUNITOutputs:
    """Both directions of a step: from the source domain, A, to the target domain, B, and back; (B,) int64 seeds."""

    ab: MUNITDirection
    ba: MUNITDirection
    seeds: Tensor

    def named(self) -> tuple[tuple[str, MUNITDirection], ...]:
        """Both directions with the endings of their terms' names."""
        return ("ab", self.ab), ("ba", self.ba)


@register("munit")
class MUNIT(Method):
    """Multimodal unsupervised translation (Huang et al., 2018), written from the paper.

    A style is drawn from N(0, I) as a function of one seed, or taken from an image of the wanted domain. Unless a
    request says otherwise, images are translated with the style of seed 0.

    Deviations, named: layer norms start as the identity and divide by the biased deviation, as torch's do (the
    published ones by the unbiased one, 1e-5 apart); drawn styles are functions of (seed, image), and the discriminators
    see the translations that the generators learn from, made once; the discriminators learn first in a step; the
    learning rate halves after each tenth of the training, however long it is; the domain-invariant perceptual loss,
    which the paper takes for images of 512 pixels, is left out.

    Args:
        config: The settings.
        channels: Channels of the images of both domains.
    """

    Config: ClassVar[type[MUNITConfig]] = MUNITConfig
    title = "MUNIT"
    citation = "Huang, Liu, Belongie, Kautz: Multimodal Unsupervised Image-to-Image Translation. ECCV 2018."
    data_defaults: ClassVar[Mapping[str, Any]] = {
        "resize": "scale_shorter_side",
        "load_size": "image_size",
        "resample": "bilinear",
    }
    served: ClassVar[tuple[str, ...]] = (
        "content_encoder_a", "content_encoder_b", "style_encoder_a", "style_encoder_b", "decoder_a", "decoder_b",
    )  # fmt: skip
    compiled: ClassVar[tuple[str, ...]] = (
        *(f"{name}.forward" for name in served),
        "discriminator_a.forward",
        "discriminator_b.forward",
    )
    supports = frozenset({"reverse", "style"})

    def __init__(self, config: MUNITConfig, channels: int = 3) -> None:
        super().__init__()
        self.config = config
        width, blocks, style = config.base_channels, config.blocks, config.style_channels
        self.content_encoder_a, self.content_encoder_b = (
            ContentEncoder(channels, base_channels=width, blocks=blocks) for _ in range(2)
        )
        self.style_encoder_a, self.style_encoder_b = (
            StyleEncoder(channels, base_channels=width, style_channels=style) for _ in range(2)
        )
        self.decoder_a, self.decoder_b = (
            Decoder(
                channels,
                base_channels=width,
                blocks=blocks,
                style_channels=style,
                perceptron_width=config.perceptron_width,
            )
            for _ in range(2)
        )
        self.discriminator_a, self.discriminator_b = (
            MultiScaleDiscriminator(channels, scales=config.discriminator_scales, **config.discriminator_options())
            for _ in range(2)
        )
        self.style_channels = style
        self.smallest_image = max(16, self.discriminator_a.smallest_image)  # the style encoders need 16
        self.phases = (
            Phase("discriminators", ("discriminator_a", "discriminator_b"), self.discriminator_loss),
            Phase("generators", self.served, self.generator_loss),
        )

    def translate(self, x_BCHW: Tensor, request: TranslateRequest = DEFAULT_REQUEST) -> Tensor:
        """Translate; a style reference needs sides of at least 16."""
        height, width = x_BCHW.shape[2:]
        x_BCHW = F.pad(x_BCHW, (0, -width % 4, 0, -height % 4), mode="replicate")
        encoder, style_encoder, decoder = (
            (self.content_encoder_b, self.style_encoder_a, self.decoder_a)
            if request.reverse
            else (self.content_encoder_a, self.style_encoder_b, self.decoder_b)
        )
        if request.style is not None:
            style = request.style
        elif request.style_reference is not None:
            style = style_encoder(request.style_reference)
        else:
            seeds = torch.zeros(1, dtype=torch.int64) if request.style_seeds is None else request.style_seeds
            # On the CPU, whose quantiles are the same to the bit wherever the networks run.
            style = normal_draws(seeds.cpu(), self.config.style_channels).to(x_BCHW)
        return decoder(encoder(x_BCHW), style.expand(x_BCHW.shape[0], -1))

    def encode(self, x_BCHW: Tensor, taps: Sequence[str]) -> list[Tensor]:
        return self.content_encoder_a.encode(x_BCHW, taps)

    def forward_train(self, batch: ImageBatch) -> MUNITOutputs:
        images, (a, b) = len(batch.source), (batch.source, batch.target)
        drawn_a, drawn_b = (
            normal_draws(derive_seeds(batch.seeds, number), self.config.style_channels).to(a, non_blocking=True)
            for number in range(2)
        )
        content_a, content_b = self.content_encoder_a(a), self.content_encoder_b(b)
        style_a, style_b = self.style_encoder_a(a), self.style_encoder_b(b)
        # Each decoder makes its domain's reconstructions and the translations into it in one pass.
        a_again, ba = self.decoder_a(torch.cat([content_a, content_b]), torch.cat([style_a, drawn_a])).split(images)
        b_again, ab = self.decoder_b(torch.cat([content_b, content_a]), torch.cat([style_b, drawn_b])).split(images)
        content_ab, content_ba = self.content_encoder_b(ab), self.content_encoder_a(ba)
        with_cycle = self.config.cycle_weight > 0
        return MUNITOutputs(
            ab=MUNITDirection(
                a, b, content_a, drawn_b, a_again, ab, content_ab, self.style_encoder_b(ab),
                self.decoder_a(content_ab, style_a) if with_cycle else None,
            ),
            ba=MUNITDirection(
                b, a, content_b, drawn_a, b_again, ba, content_ba, self.style_encoder_a(ba),
                self.decoder_b(content_ba, style_b) if with_cycle else None,
            ),
            seeds=batch.seeds,
        )  # fmt: skip

    def discriminator_loss(self, outputs: MUNITOutputs) -> dict[str, Tensor]:
        """The losses of D_A and D_B, summed over their scales, without gradient to what made the translations.

        As published the two halves of a scale's loss are added, not averaged; with Adam's weight decay that matters.
        """
        terms: dict[str, Tensor] = {}
        for number, (name, way) in enumerate((("a", outputs.ba), ("b", outputs.ab))):
            discriminator = self.discriminator_a if name == "a" else self.discriminator_b
            scales = discriminator(torch.cat([way.target, way.translated.detach()]))
            pairs = [scores.tensor_split(2) for scores in scales]
            losses = [discriminator_loss(real, fake, self.config.gan_mode) for real, fake in pairs]
            halves = 1.0 if self.config.gan_mode == "wgangp" else 2.0
            terms[f"discriminator_{name}"] = halves * torch.stack(losses).sum()
            seeds = derive_seeds(outputs.seeds, 2 + number)
            joined = functools.partial(_joined_scores, discriminator)
            terms |= self.config.penalty_terms(joined, way.target, way.translated, seeds, f"_{name}")
        return terms

    def generator_loss(self, outputs: MUNITOutputs) -> dict[str, Tensor]:
        """Eq. 5: adversarial terms, and the reconstructions of images, contents and styles; the cycle if asked for."""
        config, terms = self.config, dict[str, Tensor]()
        for name, way in outputs.named():
            discriminator = self.discriminator_b if name == "ab" else self.discriminator_a
            scales = [config.adversarial_term(scores) for scores in discriminator(way.translated)]
            terms[f"adversarial_{name}"] = torch.stack(scales).sum()
            reconstruction = mean_distance(way.reconstructed, way.source)
            terms[f"reconstruction_{name[0]}"] = config.reconstruction_weight * reconstruction
            terms[f"content_{name}"] = config.content_weight * mean_distance(way.content_again, way.content)
            terms[f"style_{name}"] = config.style_weight * mean_distance(way.drawn_again, way.drawn)
            if way.cycled is not None:
                terms[f"cycle_{name}"] = config.cycle_weight * mean_distance(way.cycled, way.source)
        return terms


def _joined_scores(discriminator: MultiScaleDiscriminator, x_BCHW: Tensor) -> Tensor:
    """The scores of all scales side by side, (B, n)."""
    return torch.cat([scores.flatten(1) for scores in discriminator(x_BCHW)], dim=1)
