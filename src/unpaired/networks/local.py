"""Networks without normalisation over the image, trained on crops of one image that is translated as a whole.

Instance norms have different statistics on a crop and on the whole image, so their output would differ. These networks
follow StyleGAN2 (Karras et al., CVPR 2020), as SinCUT does: convolutions with normalised weights instead of normalised
features, and leaky ReLUs with gain sqrt(2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unpaired.networks.generators import Stage, run_stages
from unpaired.networks.layers import BlurDownsample, blur_upsample, normalise_spectrally
from unpaired.ops.half_precision import reflect


class EqualisedConv2d(nn.Conv2d):
    """A convolution with equalised learning rate: weights from N(0, 1), scaled at runtime.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        taps: Side of the filter, odd; borders are reflected.
        demodulate: Normalise each output's weights to length 1 (StyleGAN2, Eq. 3, with all styles 1) instead of scaling
            by 1 / sqrt(fan-in).
    """

    def __init__(self, in_channels: int, out_channels: int, taps: int, *, demodulate: bool = False) -> None:
        super().__init__(in_channels, out_channels, taps)
        self.demodulate = demodulate
        self.border = taps // 2
        nn.init.normal_(self.weight)
        assert self.bias is not None
        nn.init.zeros_(self.bias)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        weight = self.weight
        if self.demodulate:
            weight = weight * (weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).rsqrt()
        else:
            weight = weight * weight[0].numel() ** -0.5
        if self.border:
            x_BCHW = reflect(x_BCHW, self.border)
        return F.conv2d(x_BCHW, weight, self.bias)


def _active(x_BCHW: Tensor) -> Tensor:
    return F.leaky_relu(x_BCHW, 0.2) * math.sqrt(2)


class LocalBlock(nn.Module):
    """(x + act(conv(act(conv(x))))) / sqrt(2), optionally resampled between the convolutions and in the skip path.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        resample: ``halve``, ``double`` or empty.
        demodulate: As in :class:`EqualisedConv2d`.
    """

    def __init__(self, in_channels: int, out_channels: int, *, resample: str = "", demodulate: bool) -> None:
        super().__init__()
        self.conv1 = EqualisedConv2d(in_channels, in_channels, 3, demodulate=demodulate)
        self.conv2 = EqualisedConv2d(in_channels, out_channels, 3, demodulate=demodulate)
        self.short_cut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.short_cut = EqualisedConv2d(in_channels, out_channels, 1, demodulate=demodulate)
        self.resample = resample
        if resample == "halve":
            self.blur = BlurDownsample(in_channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        hidden = _active(self.conv1(x_BCHW))
        if self.resample == "halve":
            hidden, x_BCHW = self.blur(hidden), self.blur(x_BCHW)
        elif self.resample == "double":
            hidden, x_BCHW = blur_upsample(hidden), blur_upsample(x_BCHW)
        return (_active(self.conv2(hidden)) + self.short_cut(x_BCHW)) * math.sqrt(0.5)


class LocalGenerator(nn.Module):
    """G of SinCUT: 1 x 1 stem, anti-aliased downsampling, residual blocks, upsampling, 1 x 1 head, Tanh.

    The receptive field of an output pixel is bounded. The encoder ends after the first half of the blocks; its taps are
    ``input``, ``stem``, ``down`` and ``block1`` ... ``blockN``.

    Args:
        in_channels: Channels of the input image.
        out_channels: Channels of the output image.
        base_channels: Width at full resolution; the blocks have twice as many channels.
        blocks: Residual blocks, at least 2; the first half, rounded down, belongs to the encoder.
    """

    def __init__(
        self, in_channels: int = 3, out_channels: int = 3, *, base_channels: int = 80, blocks: int = 6
    ) -> None:
        super().__init__()
        width, encoding = base_channels, blocks // 2
        self.stem = EqualisedConv2d(in_channels, width, 1)
        self.down = LocalBlock(width, 2 * width, resample="halve", demodulate=False)
        self.blocks = nn.ModuleList(
            LocalBlock(2 * width, 2 * width, demodulate=number >= encoding) for number in range(blocks)
        )
        self.up = LocalBlock(2 * width, width, resample="double", demodulate=True)
        self.head = EqualisedConv2d(width, out_channels, 1)
        self.encoder_blocks = encoding
        self.tap_channels: dict[str, int] = {
            "input": in_channels,
            "stem": width,
            "down": 2 * width,
            **{f"block{number}": 2 * width for number in range(1, encoding + 1)},
        }

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Translate images: (B, C_in, H, W) in [-1, 1] -> (B, C_out, 2 ceil(H / 2), 2 ceil(W / 2)) in [-1, 1]."""
        return self.translate_and_encode(x_BCHW, ())[0]

    def translate_and_encode(self, x_BCHW: Tensor, taps: Sequence[str]) -> tuple[Tensor, list[Tensor]]:
        """One full pass that also returns the features at ``taps``, in their order."""
        return run_stages(self._stages(), x_BCHW, taps)

    def encode(self, x_BCHW: Tensor, taps: Sequence[str]) -> list[Tensor]:
        """The features at ``taps``, in their order, computed up to the last tap. Raises ``KeyError``."""
        stages = self._stages()
        last = max((number for number, (name, _) in enumerate(stages) if name in taps), default=0)
        return run_stages(stages[: last + 1], x_BCHW, taps)[1]

    def _stages(self) -> list[Stage]:
        """Stages in order."""
        return [
            ("input", lambda x: x),
            ("stem", lambda x: _active(self.stem(x))),
            ("down", self.down),
            *((f"block{number}", block) for number, block in enumerate(self.blocks, start=1)),
            ("up", self.up),
            ("image", lambda x: torch.tanh(self.head(x))),
        ]


class LocalDiscriminator(nn.Module):
    """D of SinCUT: 1 x 1 stem, residual downsampling blocks, a 3 x 3 convolution and one score per location.

    Args:
        in_channels: Channels of the image.
        base_channels: Width of the stem; it doubles with each downsampling, up to twelve-fold.
        layers: Number of downsampling blocks; 4 give 4 x 4 scores for a crop of 64 pixels.
        spectral_norm: Divide each weight by its largest singular value (Miyato et al., 2018).
    """

    def __init__(
        self, in_channels: int = 3, *, base_channels: int = 32, layers: int = 4, spectral_norm: bool = False
    ) -> None:
        super().__init__()
        widths = [min(base_channels * 2**number, 12 * base_channels) for number in range(layers + 1)]
        self.stem = EqualisedConv2d(in_channels, widths[0], 1)
        self.blocks = nn.ModuleList(
            LocalBlock(narrow, wide, resample="halve", demodulate=False) for narrow, wide in pairwise(widths)
        )
        self.before_last = EqualisedConv2d(widths[-1], widths[-1], 3)
        self.last = EqualisedConv2d(widths[-1], 1, 1)
        self.smallest_image = 2 ** (layers + 1)  # reflection padding needs two pixels at every scale
        if spectral_norm:
            normalise_spectrally(self)

    def forward(self, x_BCHW: Tensor, seeds_B: Tensor | None = None) -> Tensor:
        """(B, C, H, W) images in [-1, 1] -> (B, 1, h, w) scores, unbounded; seeds are ignored."""
        hidden = _active(self.stem(x_BCHW))
        for block in self.blocks:
            hidden = block(hidden)
        return self.last(_active(self.before_last(hidden)))
