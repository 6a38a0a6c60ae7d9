"""The networks of MUNIT: content and style encoders, a style-conditioned decoder, a multi-scale discriminator.

Written from the paper (Huang, Liu, Belongie, Kautz, "Multimodal Unsupervised Image-to-Image Translation", ECCV 2018,
section 5.1 and appendix B.2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unpaired.networks.generators import ResidualBlock
from unpaired.networks.layers import Conv2d, initialise, instance_norm, normalise_spectrally


def _stem(in_channels: int, width: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, width, 7, padding=3, padding_mode="reflect")


def _halving(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, padding_mode="reflect")


def _initialise_kaiming(module: nn.Module) -> None:
    """Normal weights with deviation sqrt(2 / fan_in) (He et al., 2015), zero biases."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class ContentEncoder(nn.Module):
    """E^c: 7 x 7 stem, two downsampling layers, residual blocks, all with instance normalisation.

    With the defaults it has 5,385,856 parameters. Its taps are ``down1`` and ``down2`` (the downsampling layers, before
    their norm) and ``block1`` ... ``blockN``; ``blockN`` is the content.

    Args:
        in_channels: Channels of the image.
        base_channels: Width of the stem; the content has four times as many channels.
        blocks: Number of residual blocks.
    """

    def __init__(self, in_channels: int = 3, *, base_channels: int = 64, blocks: int = 4) -> None:
        super().__init__()
        width = base_channels
        self.stem = _stem(in_channels, width)
        self.down1, self.down2 = _halving(width, 2 * width), _halving(2 * width, 4 * width)
        self.blocks = nn.ModuleList(ResidualBlock(4 * width) for _ in range(blocks))
        _initialise_kaiming(self)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1], sides multiples of 4 -> content, (B, 4 base_channels, H / 4, W / 4)."""
        hidden = x_BCHW
        for _, stage in self._stages():
            hidden = stage(hidden)
        return hidden

    def encode(self, x_BCHW: Tensor, taps: Sequence[str]) -> list[Tensor]:
        """Features at ``taps``, in their order, computed up to the last one. Raises ``KeyError``."""
        hidden, features = x_BCHW, dict[str, Tensor]()
        for name, stage in self._stages():
            if len(features) == len(set(taps)):
                break
            hidden = stage(hidden)
            if name in taps:
                features[name] = hidden
        return [features[tap] for tap in taps]

    def _stages(self) -> list[tuple[str, Callable[[Tensor], Tensor]]]:
        """Stages in order, with the names of the taps; each norm belongs to the stage after it."""
        return [
            ("", self.stem),
            ("down1", lambda x: self.down1(F.relu(instance_norm(x), inplace=True))),
            ("down2", lambda x: self.down2(F.relu(instance_norm(x), inplace=True))),
            ("", lambda x: F.relu(instance_norm(x), inplace=True)),
            *((f"block{number}", block) for number, block in enumerate(self.blocks, start=1)),
        ]


class StyleEncoder(nn.Module):
    """E^s: 7 x 7 stem, four downsampling layers, global average pooling, one linear layer.

    Without instance normalisation, which would remove the style: feature means and variances. With the defaults it has
    2,764,936 parameters.

    Args:
        in_channels: Channels of the image.
        base_channels: Width of the stem; the downsampling layers have 2, 4, 4 and 4 times as many channels.
        style_channels: Dimension of the style.
    """

    def __init__(self, in_channels: int = 3, *, base_channels: int = 64, style_channels: int = 8) -> None:
        super().__init__()
        widths = [base_channels * factor for factor in (1, 2, 4, 4, 4)]
        self.stem = _stem(in_channels, base_channels)
        self.downs = nn.ModuleList(_halving(narrow, wide) for narrow, wide in pairwise(widths))
        self.last = nn.Linear(widths[-1], style_channels)
        _initialise_kaiming(self)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1], sides at least 16 -> style, (B, style_channels)."""
        hidden = F.relu(self.stem(x_BCHW), inplace=True)
        for down in self.downs:
            hidden = F.relu(down(hidden), inplace=True)
        return self.last(hidden.mean(dim=(2, 3)))


class AdaptiveResidualBlock(nn.Module):
    """x + adain(conv(relu(adain(conv(x))))), with the scales and shifts given."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = Conv2d(channels, channels, 3, padding=1, padding_mode="reflect")
        self.conv2 = Conv2d(channels, channels, 3, padding=1, padding_mode="reflect")

    def forward(self, x_BCHW: Tensor, style_B22C: Tensor) -> Tensor:
        """``style_B22C``: per norm, shift and scale of each channel."""
        hidden = F.relu(adaptive_instance_norm(self.conv1(x_BCHW), style_B22C[:, 0]), inplace=True)
        return x_BCHW + adaptive_instance_norm(self.conv2(hidden), style_B22C[:, 1])


def adaptive_instance_norm(x_BCHW: Tensor, style_B2C: Tensor) -> Tensor:
    """AdaIN (Huang and Belongie, 2017): scale * norm(x) + shift, per image and channel."""
    shift, scale = style_B2C[:, 0, :, None, None], style_B2C[:, 1, :, None, None]
    return instance_norm(x_BCHW) * scale + shift


class Decoder(nn.Module):
    """G: residual blocks with AdaIN, two upsampling layers, 7 x 7 convolution, Tanh.

    An MLP maps the style to the shifts and scales of all AdaIN layers. The upsampling layers have layer norms, since
    instance norms would undo AdaIN. With the defaults it has 6,875,395 parameters.

    Args:
        out_channels: Channels of the image.
        base_channels: Width before the last convolution; the content has four times as many channels.
        blocks: Number of residual blocks.
        style_channels: Dimension of the style.
        perceptron_width: Width of the MLP's two hidden layers.
    """

    def __init__(
        self,
        out_channels: int = 3,
        *,
        base_channels: int = 64,
        blocks: int = 4,
        style_channels: int = 8,
        perceptron_width: int = 256,
    ) -> None:
        super().__init__()
        width = base_channels
        self.perceptron = nn.Sequential(
            nn.Linear(style_channels, perceptron_width),
            nn.ReLU(),
            nn.Linear(perceptron_width, perceptron_width),
            nn.ReLU(),
            nn.Linear(perceptron_width, blocks * 2 * 2 * 4 * width),
        )
        self.blocks = nn.ModuleList(AdaptiveResidualBlock(4 * width) for _ in range(blocks))
        self.up1 = nn.Conv2d(4 * width, 2 * width, 5, padding=2, padding_mode="reflect")
        self.up2 = nn.Conv2d(2 * width, width, 5, padding=2, padding_mode="reflect")
        self.norm1, self.norm2 = nn.GroupNorm(1, 2 * width), nn.GroupNorm(1, width)  # one group: layer norm
        self.head = nn.Conv2d(width, out_channels, 7, padding=3, padding_mode="reflect")
        _initialise_kaiming(self)

    def forward(self, content_BCHW: Tensor, style_BS: Tensor) -> Tensor:
        """Content (B, 4 base_channels, h, w) and style (B, style_channels) -> image (B, C, 4 h, 4 w) in [-1, 1]."""
        styles = self.perceptron(style_BS).unflatten(1, (len(self.blocks), 2, 2, -1))
        hidden = content_BCHW
        for number, block in enumerate(self.blocks):
            hidden = block(hidden, styles[:, number])
        for up, norm in ((self.up1, self.norm1), (self.up2, self.norm2)):
            hidden = F.relu(norm(up(F.interpolate(hidden, scale_factor=2, mode="nearest"))), inplace=True)
        return torch.tanh(self.head(hidden))


class MultiScaleDiscriminator(nn.Module):
    """D: patch discriminators at full, half and a quarter of the resolution, without normalisation.

    With the defaults it has 8,271,171 parameters.

    Args:
        in_channels: Channels of the image.
        base_channels: Width of each first convolution.
        layers: Downsampling layers at each scale.
        scales: Number of scales.
        spectral_norm: Divide each weight by its largest singular value (Miyato et al., 2018).
    """

    def __init__(
        self,
        in_channels: int = 3,
        *,
        base_channels: int = 64,
        layers: int = 4,
        scales: int = 3,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        widths = [in_channels, *(base_channels * min(2**number, 8) for number in range(layers))]
        self.scales = nn.ModuleList(_scale(widths) for _ in range(scales))
        initialise(self, "normal")
        if spectral_norm:
            normalise_spectrally(self)

    @property
    def smallest_image(self) -> int:
        """The smallest height and width, in pixels, with a score at every scale: 61 with 4 layers and 3 scales."""
        layers = sum(isinstance(layer, nn.LeakyReLU) for layer in self.scales[0].children())
        side = 2**layers  # the convolutions round down
        for _ in self.scales[1:]:
            side = 2 * side - 1  # the pooling rounds up
        return side

    def forward(self, x_BCHW: Tensor) -> list[Tensor]:
        """(B, C, H, W) images in [-1, 1] -> per scale, (B, 1, h, w) scores, unbounded."""
        scores = []
        for number, scale in enumerate(self.scales):
            if number:
                x_BCHW = F.avg_pool2d(x_BCHW, 3, stride=2, padding=1, count_include_pad=False)
            scores.append(scale(x_BCHW))
        return scores


def _scale(widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for narrow, wide in pairwise(widths):
        layers += [_halving(narrow, wide), nn.LeakyReLU(0.2, inplace=True)]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 1))
