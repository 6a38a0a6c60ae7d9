"""SANTA: a decoder conditioned on the position along a path between two domains; the path is kept short."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from unpaired.config import Amount, Positive, Width, settings
from unpaired.errors import ConfigError
from unpaired.methods.adversarial import AdversarialConfig
from unpaired.methods.base import DEFAULT_REQUEST, ImageBatch, TranslateRequest, derive_seeds, register
from unpaired.methods.one_way import OneWay, OneWayOutputs
from unpaired.networks import PathGenerator
from unpaired.ops import location_draws, normal_draws, widen

_SHORTEST_STEP = 0.1  # published lower bound of the divisor of the difference quotient


@settings
class SANTAConfig(AdversarialConfig):
    """Settings of SANTA; the defaults are the published ones."""

    blocks: Annotated[int, Field(ge=2, le=64)] = 9
    """Residual blocks of the generator, at least 2; the first half, rounded down, belongs to the encoder."""
    code_channels: Width = 8
    """Dimension of the code of a position on the path."""
    noise: Amount = 1.0
    """Standard deviation of the noise added to the encoding in training; 0 adds none."""
    shortest_interval: Positive = 0.05
    """Lower bound of half the random distance between the two positions that are compared."""
    longest_interval: Positive = 0.1
    """Upper bound of the same."""
    reconstruction_weight: Amount = 5.0
    """Weight of the L1 distance between I_x and G(I_x, 0)."""
    identity_weight: Amount = 5.0
    """Weight of the L1 distance between I_y and G(I_y, 1)."""
    latent_weight: Amount = 0.01
    """Weight of the mean square of the encodings, which would otherwise grow to outweigh the noise."""
    path_weight: Amount = 0.01
    """Weight of the energy of the path (published: 0.01 by default, 0.1 for Cityscapes); 0 turns it off."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_defaults("SANTA", "generator")
        if not self.shortest_interval <= self.longest_interval <= 0.5:
            raise ConfigError(
                f"shortest_interval and longest_interval must be ordered and lie in (0, 0.5], "
                f"not {self.shortest_interval} and {self.longest_interval}"
            )

    def path_taps(self) -> tuple[str, ...]:
        """Decoder layers that are compared: the first and the second-to-last block and all later convolutions.

        With the published 9 blocks these are the published layers, outputs 0, 3, 6, 10 and 14 of the decoder.
        """
        first, last = self.blocks // 2 + 1, self.blocks
        compared = sorted({first, max(first, last - 1)})
        return (*(f"block{number}" for number in compared), "up1", "up2", "head")


@dataclass(frozen=True, kw_only=True)
class SANTAOutputs(OneWayOutputs):
    """As :class:`OneWayOutputs`; G(I_x) is G(I_x, 1).

    Attributes:
        source: I_x, (B, C, H, W).
        encodings: E(I_x) and E(I_y) without noise, (2 B, 4 base_channels, H / 4, W / 4).
        reconstructed: G(I_x, 0), (B, C, H, W).
        identical: G(I_y, 1), (B, C, H, W).
        later: Per decoder layer, its features at a position on the path of I_x, (B, C_t, H_t, W_t).
        earlier: The same at a position nearer to the source.
        steps: Distance between the two positions, (B,).
    """

    source: Tensor
    encodings: Tensor
    reconstructed: Tensor
    identical: Tensor
    later: list[Tensor]
    earlier: list[Tensor]
    steps: Tensor


@register("santa")
class SANTA(OneWay):
    """SANTA, shortest path regularisation (Xie et al., 2023).

    Known deviations: draws are functions of (seed, image); the difference quotient divides each image by its own step
    (the published code divides the features of the batch by the vector of steps, which agrees at batch size 1 only);
    the schedule decays per image instead of per epoch.
    """

    Config: ClassVar[type[SANTAConfig]] = SANTAConfig
    compiled = ("generator.encode", "generator.decode_along", "discriminator.forward")
    title = "SANTA"
    citation = "Xie, Xu, Gong, Zhang: Unpaired Image-to-Image Translation with Shortest Path Regularization. CVPR 2023."
    config: SANTAConfig

    def new_generator(self, channels: int) -> PathGenerator:
        config = self.config
        return PathGenerator(
            channels,
            channels,
            base_channels=config.base_channels,
            blocks=config.blocks,
            code_channels=config.code_channels,
        )

    def translate(self, x_BCHW: Tensor, request: TranslateRequest = DEFAULT_REQUEST) -> Tensor:
        return self.generator(x_BCHW, torch.ones(x_BCHW.shape[:1], device=x_BCHW.device))

    def forward_train(self, batch: ImageBatch) -> SANTAOutputs:
        config, images = self.config, len(batch.source)
        (encodings,) = self.generator.encode(torch.cat([batch.source, batch.target]), [self.generator.last_tap])
        seeds = torch.cat([derive_seeds(batch.seeds, term) for term in range(2)])
        noisy = encodings + self.noise_like(encodings, seeds)
        sources = torch.arange(images, device=noisy.device)
        of = [sources, sources, sources + images]
        positions = [torch.tensor([0.0, 1.0, 1.0], device=noisy.device).repeat_interleave(images)]
        if config.path_weight:
            near = self.near_positions(derive_seeds(batch.seeds, 2))
            positions += [each.to(noisy, non_blocking=True) for each in near]
            of += [sources, sources]
        decoded, features = self.generator.decode_along(
            noisy, torch.cat(positions), torch.cat(of), config.path_taps() if config.path_weight else ()
        )
        reconstructed, translated, identical = decoded[: 3 * images].split(images)
        return SANTAOutputs(
            source=batch.source,
            target=batch.target,
            encodings=encodings,
            reconstructed=reconstructed,
            translated=translated,
            fakes=translated,
            identical=identical,
            later=[each[3 * images : 4 * images] for each in features],
            earlier=[each[4 * images :] for each in features],
            steps=positions[1] - positions[2] if config.path_weight else torch.zeros(images),
            seeds=batch.seeds,
        )

    def noise_like(self, encodings_BCHW: Tensor, seeds: Tensor) -> Tensor | float:
        """Noise of the configured deviation as a function of the images' seeds; 0 without noise."""
        if not self.config.noise:
            return 0.0
        draws = normal_draws(seeds.to(encodings_BCHW.device, non_blocking=True), encodings_BCHW[0].numel())
        return self.config.noise * draws.to(encodings_BCHW).view(encodings_BCHW.shape)

    def near_positions(self, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """Two neighbouring positions on each image's path, the later one first, (B,) each in [0, 1]."""
        config = self.config
        middle_B, spread_B = location_draws(seeds, 2).unbind(dim=1)
        interval_B = config.shortest_interval + spread_B * (config.longest_interval - config.shortest_interval)
        return (middle_B + interval_B).clamp(max=1), (middle_B - interval_B).clamp(min=0)

    def generator_loss(self, outputs: SANTAOutputs) -> dict[str, Tensor]:
        """Adversarial term, both L1 reconstructions, mean square of the encodings, energy of the path."""
        config = self.config
        reconstruction = (outputs.reconstructed - outputs.source).abs().mean()
        identity = (outputs.identical - outputs.target).abs().mean()
        terms = {
            **super().generator_loss(outputs),
            "reconstruction": config.reconstruction_weight * reconstruction,
            "identity": config.identity_weight * identity,
        }
        if config.latent_weight:
            terms["latent"] = config.latent_weight * widen(outputs.encodings).square().mean()
        if config.path_weight:
            terms["path"] = config.path_weight * self.path_energy(outputs)
        return terms

    def path_energy(self, outputs: SANTAOutputs) -> Tensor:
        """Mean square of the change of features per unit of the path, mean over decoder layers: a scalar."""
        step = widen(outputs.steps).clamp(min=_SHORTEST_STEP)[:, None, None, None]
        pairs = zip(outputs.later, outputs.earlier, strict=True)
        return torch.stack([((widen(one) - widen(other)) / step).square().mean() for one, other in pairs]).mean()
