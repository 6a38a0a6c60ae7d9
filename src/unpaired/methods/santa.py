"""SANTA: an encoding and a place on the path between two domains give an image; the path is kept short."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from unpaired.config import settings
from unpaired.errors import ConfigError
from unpaired.methods.adversarial import AdversarialConfig, judged
from unpaired.methods.base import DEFAULT_REQUEST, ImageBatch, Method, Phase, TranslateRequest, derive_seeds, register
from unpaired.networks import PathGenerator
from unpaired.ops import location_draws, normal_draws, widen

_SHORTEST_STEP = 0.1  # published: the difference quotient divides by no less


@settings
class SANTAConfig(AdversarialConfig):
    """Settings of SANTA; the defaults are the published ones."""

    blocks: Annotated[int, Field(ge=2)] = 9
    """Residual blocks of the generator, at least 2; the first half, rounded down, is the encoder's."""
    code_channels: PositiveInt = 8
    """Dimension of the code of a place on the path."""
    noise: NonNegativeFloat = 1.0
    """Standard deviation of the noise that training adds to the encoding; 0 adds none."""
    shortest_interval: PositiveFloat = 0.05
    """Two places are compared that lie twice a random distance apart; its smallest value."""
    longest_interval: PositiveFloat = 0.1
    """Its largest value."""
    reconstruction_weight: NonNegativeFloat = 5.0
    """Weight of the L1 distance between I_x and G(I_x, 0)."""
    identity_weight: NonNegativeFloat = 5.0
    """Weight of the L1 distance between I_y and G(I_y, 1)."""
    latent_weight: NonNegativeFloat = 0.01
    """Weight of the mean square of the encodings, which noise would otherwise make grow."""
    path_weight: NonNegativeFloat = 0.01
    """Weight of the energy of the path (published: 0.01 by default, 0.1 for Cityscapes); 0 leaves it out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.own_networks("SANTA", "generator")
        if not self.shortest_interval <= self.longest_interval <= 0.5:
            raise ConfigError(
                f"shortest_interval and longest_interval must be ordered and lie in (0, 0.5], "
                f"not {self.shortest_interval} and {self.longest_interval}"
            )

    def path_taps(self) -> tuple[str, ...]:
        """Where the decoder's features are compared: its first and last but one block, and every convolution behind.

        At the published 9 blocks these are the published places, outputs 0, 3, 6, 10 and 14 of the decoder.
        """
        first, last = self.blocks // 2 + 1, self.blocks
        compared = sorted({first, max(first, last - 1)})
        return (*(f"block{number}" for number in compared), "up1", "up2", "head")


@dataclass(frozen=True)
class SANTAOutputs:
    """What one training step computes, once. All images are (B, C, H, W).

    Attributes:
        source: I_x.
        target: I_y.
        encodings: E(I_x) and E(I_y) without noise, (2 B, 4 base_channels, H / 4, W / 4).
        reconstructed: G(I_x, 0).
        translated: G(I_x, 1).
        identical: G(I_y, 1).
        later: Per place of the decoder, its features on the path of I_x, (B, C_t, H_t, W_t).
        earlier: The same at a place nearer to the source.
        steps: How far apart the two places are, (B,).
        seeds: (B,) int64, one per image.
    """

    source: Tensor
    target: Tensor
    encodings: Tensor
    reconstructed: Tensor
    translated: Tensor
    identical: Tensor
    later: list[Tensor]
    earlier: list[Tensor]
    steps: Tensor
    seeds: Tensor


@register("santa")
class SANTA(Method):
    """SANTA, shortest path regularisation (Xie et al., 2023).

    Deviations, named: draws are functions of (seed, image); the difference quotient divides each image by its own step
    (the published code divides the batch's features by a vector of steps, which is the same for a batch of 1 only); the
    schedule falls per image instead of per epoch.

    Args:
        config: The settings.
        channels: Channels of the images of both domains.
    """

    Config: ClassVar[type[SANTAConfig]] = SANTAConfig
    compiled = ("generator.encode", "generator.decode_along", "discriminator.forward")
    title = "SANTA"
    citation = "Xie, Xu, Gong, Zhang: Unpaired Image-to-Image Translation with Shortest Path Regularization. CVPR 2023."
    data_defaults: ClassVar[Mapping[str, Any]] = {"load_size_until": "decay"}

    def __init__(self, config: SANTAConfig, channels: int = 3) -> None:
        super().__init__()
        self.config = config
        self.generator = PathGenerator(
            channels,
            channels,
            base_channels=config.base_channels,
            blocks=config.blocks,
            code_channels=config.code_channels,
        )
        self.discriminator = config.new_discriminator(channels)
        self.smallest_image = self.discriminator.smallest_image
        self.phases = (
            Phase("discriminator", ("discriminator",), self.discriminator_loss),
            Phase("generator", ("generator",), self.generator_loss),
        )

    def translate(self, x_BCHW: Tensor, request: TranslateRequest = DEFAULT_REQUEST) -> Tensor:
        return self.generator(x_BCHW, torch.ones(x_BCHW.shape[:1], device=x_BCHW.device))

    def encode(self, x_BCHW: Tensor, taps: Sequence[str]) -> list[Tensor]:
        return self.generator.encode(x_BCHW, taps)

    def forward_train(self, batch: ImageBatch) -> SANTAOutputs:
        config, images = self.config, len(batch.source)
        (encodings,) = self.generator.encode(torch.cat([batch.source, batch.target]), [self.generator.last_tap])
        seeds = torch.cat([derive_seeds(batch.seeds, term) for term in range(2)])
        noisy = encodings + self.noise_like(encodings, seeds)
        sources = torch.arange(images, device=noisy.device)
        of = [sources, sources, sources + images]
        places = [torch.tensor([0.0, 1.0, 1.0], device=noisy.device).repeat_interleave(images)]
        if config.path_weight:
            places += [place.to(noisy, non_blocking=True) for place in self.near_places(derive_seeds(batch.seeds, 2))]
            of += [sources, sources]
        made, features = self.generator.decode_along(
            noisy, torch.cat(places), torch.cat(of), config.path_taps() if config.path_weight else ()
        )
        reconstructed, translated, identical = made[: 3 * images].split(images)
        return SANTAOutputs(
            batch.source,
            batch.target,
            encodings,
            reconstructed,
            translated,
            identical,
            later=[each[3 * images : 4 * images] for each in features],
            earlier=[each[4 * images :] for each in features],
            steps=places[1] - places[2] if config.path_weight else torch.zeros(images),
            seeds=batch.seeds,
        )

    def noise_like(self, encodings_BCHW: Tensor, seeds: Tensor) -> Tensor | float:
        """Noise of the chosen deviation, for each image a function of its seed; 0 without noise."""
        if not self.config.noise:
            return 0.0
        draws = normal_draws(seeds.to(encodings_BCHW.device, non_blocking=True), encodings_BCHW[0].numel())
        return self.config.noise * draws.to(encodings_BCHW.dtype).view(encodings_BCHW.shape)

    def near_places(self, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """Two near places of each image's path, the later one first, (B,) each in [0, 1]."""
        config = self.config
        middle_B, spread_B = location_draws(seeds, 2).unbind(dim=1)
        interval_B = config.shortest_interval + spread_B * (config.longest_interval - config.shortest_interval)
        return (middle_B + interval_B).clamp(max=1), (middle_B - interval_B).clamp(min=0)

    def discriminator_loss(self, outputs: SANTAOutputs) -> dict[str, Tensor]:
        """The loss of D on I_y and G(I_x, 1), without gradient to G."""
        return self.config.discriminator_terms(self.discriminator, outputs.target, outputs.translated, outputs.seeds)

    def generator_loss(self, outputs: SANTAOutputs) -> dict[str, Tensor]:
        """Adversarial term, both L1 reconstructions, size of the encodings, energy of the path."""
        config = self.config
        reconstruction = (outputs.reconstructed - outputs.source).abs().mean()
        identity = (outputs.identical - outputs.target).abs().mean()
        terms = {
            "adversarial": config.adversarial_term(judged(self.discriminator, outputs.translated, outputs.seeds)),
            "reconstruction": config.reconstruction_weight * reconstruction,
            "identity": config.identity_weight * identity,
        }
        if config.latent_weight:
            terms["latent"] = config.latent_weight * widen(outputs.encodings).square().mean()
        if config.path_weight:
            terms["path"] = config.path_weight * self.path_energy(outputs)
        return terms

    def path_energy(self, outputs: SANTAOutputs) -> Tensor:
        """Mean square of the features' change per unit of the path, mean over the places of the decoder: a scalar."""
        step = widen(outputs.steps).clamp(min=_SHORTEST_STEP)[:, None, None, None]
        pairs = zip(outputs.later, outputs.earlier, strict=True)
        return torch.stack([((widen(one) - widen(other)) / step).square().mean() for one, other in pairs]).mean()
