"""A discriminator on the features of a frozen network (Sauer et al., Projected GANs Converge Faster, NeurIPS 2021)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unpaired.errors import BackendError, ConfigError
from unpaired.networks.backbones import backbone_channels, load_backbone
from unpaired.networks.discriminators import PatchDiscriminator
from unpaired.networks.frozen import Frozen
from unpaired.networks.layers import normalise_spectrally
from unpaired.ops import location_draws, normal_draws, splitmix64, widen

_SMALLEST_INPUT = 128
"""Images with a shorter side below this are upsampled by 2 for the frozen network."""
_MIXED_CHANNELS = 64


class ProjectedScores(NamedTuple):
    """Scores of images, unbounded.

    Attributes:
        projected: Per map of the frozen network, finest first, (B, 1, h, w).
        patch: Of the additional patch discriminator, (B, 1, h, w), or None without one.
    """

    projected: tuple[Tensor, ...]
    patch: Tensor | None

    @property
    def finest(self) -> Tensor:
        """The scores with the finest resolution."""
        return self.projected[0] if self.patch is None else self.patch


class ProjectedDiscriminator(nn.Module):
    """D on randomly mixed feature maps of a frozen network, with a small head per stride.

    Maps are mixed across channels by fixed random 1 x 1 convolutions, normalised by their deviation on noise with the
    spectrum of photographs, and across scales by fixed random 3 x 3 convolutions, from coarse to fine; the heads are
    spectrally normalised. The frozen network's input is randomly shifted, with reflected borders, and noise is added,
    so that a generator without a patch discriminator learns fewer patterns that fool the network.

    Args:
        channels: Of the images, 1 or 3.
        backbone: The frozen network (:func:`unpaired.networks.backbones.load_backbone`); :meth:`prepare` loads it.
        weights: File with its weights.
        head_channels: Width of the heads.
        shift: Largest shift as a fraction of the side, 0 to 0.5.
        noise: Standard deviation of the noise, in units of the images' range [-1, 1].
        patch: An additional discriminator on the unchanged images.
        batch_deviation: Show the head of the coarsest map how much the images of a batch differ (minibatch deviation,
            Karras et al., Progressive Growing of GANs, ICLR 2018): the deviation over the batch of each channel's mean.
            Without it nothing penalises translations that all have the same colours.

    Raises:
        ConfigError: Wrong number of channels, or there is no such network.
        BackendError: The package of the network is missing.
    """

    deviations: Tensor

    def __init__(
        self,
        channels: int = 3,
        *,
        backbone: str = "lite0",
        weights: Path | None = None,
        head_channels: int = 64,
        shift: float = 0.125,
        noise: float = 0.08,
        patch: PatchDiscriminator | None = None,
        batch_deviation: bool = False,
    ) -> None:
        super().__init__()
        if channels not in (1, 3):
            raise ConfigError(f"discriminator: the frozen network sees images of 1 or 3 channels, not {channels}")
        self.backbone, self.weights, self.shift, self.noise = backbone, weights, shift, noise
        widths = backbone_channels(backbone)
        mixed = [_MIXED_CHANNELS * (2 if number >= 2 else 1) for number in range(len(widths))]
        self.across_channels = nn.ModuleList(
            _random_convolution(*sizes, 1) for sizes in zip(widths, mixed, strict=True)
        )
        self.across_scales = nn.ModuleList(_random_convolution(coarse, fine, 3) for fine, coarse in pairwise(mixed))
        self.batch_deviation = batch_deviation
        seen = [*mixed[:-1], mixed[-1] * (2 if batch_deviation else 1)]
        self.heads = nn.ModuleList(_head(width, head_channels) for width in seen)
        self.register_buffer("deviations", torch.ones(len(widths)))
        normalise_spectrally(self.heads)
        self.patch = patch
        self.smallest_image = max(16, patch.smallest_image if patch is not None else 0)
        self._frozen: Frozen | None = None

    def prepare(self) -> None:
        """Load the frozen network and measure the deviations of its maps. Raises ``BackendError``."""
        self._frozen = Frozen(load_backbone(self.backbone, self.weights).network)
        with torch.no_grad():
            maps = self._frozen(_pink_noise())
            measured = [
                mix(each.to(self.deviations.dtype)).std() for mix, each in zip(self.across_channels, maps, strict=True)
            ]
            self.deviations.copy_(torch.stack(measured))

    def forward(self, x_BCHW: Tensor, seeds_B: Tensor | None = None, groups: int = 1) -> ProjectedScores:
        """Score images.

        Args:
            x_BCHW: (B, C, H, W) in [-1, 1].
            seeds_B: (B,) int64 on the CPU for shift and noise of each image; None applies neither.
            groups: Equal parts of the batch, in order, that know nothing of each other: real images and translations.

        Raises:
            BackendError: The frozen network has not been loaded.
        """
        if self._frozen is None:
            raise BackendError(f"discriminator: its frozen network '{self.backbone}' is not loaded; call prepare()")
        inputs = x_BCHW if seeds_B is None else self._augmented(x_BCHW, seeds_B)
        inputs = inputs.expand(-1, 3, -1, -1)
        if min(inputs.shape[2:]) < _SMALLEST_INPUT:
            inputs = F.interpolate(inputs, scale_factor=2, mode="bilinear", align_corners=False)
        mixed = self._mixed(self._frozen(inputs))
        if self.batch_deviation:
            mixed[-1] = torch.cat([mixed[-1], _deviations(mixed[-1], groups)], dim=1)
        scores = tuple(head(each) for head, each in zip(self.heads, mixed, strict=True))
        return ProjectedScores(scores, self.patch(x_BCHW) if self.patch is not None else None)

    def _mixed(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Mix across channels, then across scales from coarse to fine: (a + upsampled b) / sqrt(2)."""
        deviations = self.deviations.to(maps[0].dtype)
        mixed = [
            mix(each) / deviation for mix, each, deviation in zip(self.across_channels, maps, deviations, strict=True)
        ]
        for number in reversed(range(len(mixed) - 1)):
            coarse = self.across_scales[number](mixed[number + 1])
            enlarged = F.interpolate(coarse, size=mixed[number].shape[-2:], mode="bilinear", align_corners=False)
            mixed[number] = (mixed[number] + enlarged) * math.sqrt(0.5)
        return mixed

    def _augmented(self, x_BCHW: Tensor, seeds_B: Tensor) -> Tensor:
        """Shift each image, with reflected borders, and add noise, without synchronisation."""
        draws_B2 = location_draws(seeds_B, 2)
        for axis, draws_B in zip((2, 3), draws_B2.unbind(dim=1), strict=True):
            side = x_BCHW.shape[axis]
            largest = int(side * self.shift)
            if not largest:
                continue
            shifts_B = (draws_B * (2 * largest + 1)).long().to(x_BCHW.device, non_blocking=True) - largest
            places = torch.arange(side, device=x_BCHW.device) + shifts_B[:, None]
            places = side - 1 - (side - 1 - places.abs()).abs()
            x_BCHW = x_BCHW.take_along_dim(places[:, None, :, None] if axis == 2 else places[:, None, None], axis)
        if self.noise:
            seeds = splitmix64(seeds_B).to(x_BCHW.device, non_blocking=True)
            drawn = normal_draws(seeds, x_BCHW[0].numel()).to(x_BCHW).view(x_BCHW.shape)
            x_BCHW = x_BCHW + self.noise * drawn
        return x_BCHW


def _deviations(x_BCHW: Tensor, groups: int) -> Tensor:
    """Deviation of each channel's mean over the images of a group, at every place: (B, C, H, W)."""
    means_GIC = widen(x_BCHW).mean(dim=(2, 3)).unflatten(0, (groups, -1))
    deviations_G1C = (means_GIC.var(dim=1, correction=0, keepdim=True) + 1e-8).sqrt().to(x_BCHW.dtype)
    return deviations_G1C.expand_as(means_GIC).flatten(0, 1)[:, :, None, None].expand_as(x_BCHW)


def _random_convolution(inputs: int, outputs: int, taps: int) -> nn.Conv2d:
    """A fixed random convolution that preserves the deviation of white noise."""
    layer = nn.Conv2d(inputs, outputs, taps, padding=taps // 2, bias=False)
    nn.init.normal_(layer.weight, std=1 / math.sqrt(layer.weight[0].numel()))
    return layer.requires_grad_(False)


def _head(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, width, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, width, 4, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, 1, 3, padding=1),
    )


def _pink_noise(side: int = 256, images: int = 4) -> Tensor:
    """Fixed noise with a 1 / frequency amplitude spectrum, like photographs, mostly shared by the channels: (images, 3,
    side, side) in [-1, 1]."""
    generator = torch.Generator().manual_seed(0)
    white = torch.randn(images, 4, side, side, generator=generator)
    frequencies = torch.fft.fftfreq(side)
    radius = (frequencies[:, None] ** 2 + frequencies[None, : side // 2 + 1] ** 2).sqrt().clamp(min=1 / side)
    pink = torch.fft.irfft2(torch.fft.rfft2(white) / radius, s=(side, side))
    pink = pink / pink.std(dim=(2, 3), keepdim=True)
    return (0.45 * pink[:, :1] + 0.2 * pink[:, 1:]).clamp(-1, 1)
