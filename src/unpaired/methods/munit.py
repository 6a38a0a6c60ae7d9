"""MUNIT: images are split into content and style; a translation keeps the content and draws a new style."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from unpaired.config import Amount, Depth, Levels, Width, settings
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
    """Settings of MUNIT; the defaults are the paper's. Sizes are per encoder, decoder and discriminator."""

    blocks: Depth = 4
    """Residual blocks of each content encoder and of each decoder."""
    style_channels: Width = 8
    """Dimension of the style."""
    perceptron_width: Width = 256
    """Width of the MLPs that map the style to the decoders' normalisation parameters."""
    discriminator_layers: Levels = 4
    """Downsampling layers of each discriminator at each scale; 2 suits crops of 64 pixels."""
    discriminator_scales: Levels = 3
    """Number of scales of each discriminator: the image, half its size, a quarter, ..."""
    reconstruction_weight: Amount = 10.0
    """lambda_x of Eq. 5: weight of the L1 distance between an image and its reconstruction from content and style."""
    content_weight: Amount = 1.0
    """lambda_c: weight of the L1 distance between the contents of an image and of its translation."""
    style_weight: Amount = 1.0
    """lambda_s: weight of the L1 distance between a drawn style and the style of the translation that used it."""
    cycle_weight: Amount = 0.0
    """Weight of the style-augmented cycle: the L1 distance between an image and its translation's content decoded with
    the image's own style; 0, as in Eq. 5, skips these passes."""
    optimiser: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(learning_rate=1e-4, weight_decay=1e-4, schedule="halving", epochs=750)
    )
    """Adam and its schedule: halved after each tenth. The paper trains on a million images, which are 750 epochs of
    horse2zebra (1,334 images)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_defaults("MUNIT", "generator", "discriminator")


@dataclass(frozen=True)
class MUNITDirection:
    """Tensors of one direction in a training step, from domain A to B (or B to A).

    Attributes:
        source: Images of A, (B, C, H, W).
        target: Images of B, (B, C, H, W); not paired with the source.
        content: Of the source, (B, 4 base_channels, H / 4, W / 4).
        drawn: The style of the translation, (B, style_channels), drawn from N(0, I).
        reconstructed: The source decoded from its own content and style, (B, C, H, W).
        translated: The source's content decoded with ``drawn`` in B, (B, C, H, W).
        content_again: Content of the translation, by B's encoder.
        drawn_again: Style of the translation, by B's encoder.
        cycled: ``content_again`` decoded with the source's style in A, or None without the cycle term.
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
        """Both directions with the suffixes of their terms' names."""
        return ("ab", self.ab), ("ba", self.ba)


@register("munit")
class MUNIT(Method):
    """Multimodal unsupervised translation (Huang et al., 2018), written from the paper.

    A style is drawn from N(0, I) as a function of a seed, or taken from an image of the target domain. The default is
    the style of seed 0.

    Known deviations: layer norms start as the identity and divide by the biased deviation, as in torch (published: the
    unbiased one, a difference of 1e-5); drawn styles are functions of (seed, image); discriminators and generators are
    trained on the same translations, and the discriminators are updated first; the learning rate is halved after each
    tenth of training, however long it is; the domain-invariant perceptual loss, which the paper uses for images of 512
    pixels, is left out.
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
        self.smallest_image = max(16, self.discriminator_a.smallest_image)  # of the style encoders
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
            # On the CPU, so that the style does not depend on the device.
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
        # Each decoder computes its domain's reconstructions and the translations into it in one pass.
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
        """Losses of D_A and D_B, summed over their scales, without gradient to the translations.

        As published, the losses on real and translated images are added, not averaged; with weight decay that matters.
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
            all_scores = functools.partial(_all_scores, discriminator)
            terms |= self.config.penalty_terms(all_scores, way.target, way.translated, seeds, f"_{name}")
        return terms

    def generator_loss(self, outputs: MUNITOutputs) -> dict[str, Tensor]:
        """Eq. 5: adversarial terms, reconstructions of images, contents and styles, and the optional cycle."""
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


def _all_scores(discriminator: MultiScaleDiscriminator, x_BCHW: Tensor) -> Tensor:
    """The scores of all scales, concatenated: (B, n)."""
    return torch.cat([scores.flatten(1) for scores in discriminator(x_BCHW)], dim=1)
