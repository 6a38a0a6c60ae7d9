"""A light generator that starts at the identity and computes mostly at a quarter of the resolution."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unpaired.networks.layers import Conv2d, blur_upsample, channel_norm

_SLOPE = 0.1
"""Slope of the leaky ReLUs."""
_DETAIL_CHANNELS = 16
"""Width at full resolution."""


class LightBlock(nn.Module):
    """x + conv(act(conv(act(norm(x))))), 3 x 3 convolutions with reflected borders. (B, C, H, W) -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _convolution(channels, channels, gain=1.4)
        self.conv2 = _convolution(channels, channels, gain=0.3)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW + self.conv2(_active(self.conv1(_normed(x_BCHW))))


class LightGenerator(nn.Module):
    """G(x) = x + d(x) with d = 0 initially, so unchanged content does not have to be learned.

    Two space-to-depth layers, residual blocks at a quarter of the resolution, depth-to-space and bilinear upsampling,
    and two final convolutions on the input and the decoder's output, the last one initialised to zero. Each norm is a
    layer norm over the channels of a pixel, so the receptive field of an output pixel is bounded. The last upsampling
    is an interpolation and leaves no 2-pixel grid; the first one can synthesise texture on a 4-pixel grid, stripes for
    example, which a ``smooth`` generator cannot learn within the quick recipe (docs/quick.md).

    With the defaults it has 2.1 million parameters and 4.7 GFLOP (multiply and add) at 128 x 128. Its taps are named
    like those of :class:`unpaired.networks.ResnetGenerator`: ``padded_input`` (the input, reflected to multiples of 4),
    ``down1`` and ``down2`` (the first convolutions at a half and a quarter of the resolution, before their norm),
    ``stem`` (before the second downsampling) and ``block1`` ... ``blockN``; those of the decoder are ``up1`` and, with
    the size of ``stem``, ``doubled2``.

    Args:
        in_channels: Channels of the input image.
        out_channels: Channels of the output image, the same number.
        base_channels: Width at half the resolution; the blocks have four times as many channels.
        blocks: Number of residual blocks.
        smooth: Use bilinear upsampling throughout: no grid and no synthesised texture, for drawings.

    Raises:
        ValueError: The numbers of channels differ.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        *,
        base_channels: int = 32,
        blocks: int = 6,
        smooth: bool = False,
    ) -> None:
        super().__init__()
        if in_channels != out_channels:
            raise ValueError(f"x + d(x) needs as many channels out as in, not {in_channels} in and {out_channels} out")
        width = base_channels
        self.down1 = _convolution(4 * in_channels, width)
        self.conv1 = _convolution(width, width, gain=1.4)
        self.down2 = _convolution(4 * width, 4 * width)
        self.blocks = nn.ModuleList(LightBlock(4 * width) for _ in range(blocks))
        self.smooth = smooth
        self.up1 = _convolution(4 * width, width if smooth else 4 * width, gain=1.4)
        self.up2 = _convolution(width, width, gain=1.4)
        self.last_block = LightBlock(width)
        self.narrow = nn.Conv2d(width, _DETAIL_CHANNELS, 1)
        self.detail = _convolution(_DETAIL_CHANNELS + in_channels, _DETAIL_CHANNELS, gain=1.4)
        self.head = _convolution(_DETAIL_CHANNELS, out_channels, gain=0.0)
        _initialise(self.narrow, 1.0)
        self.tap_channels: dict[str, int] = {
            "padded_input": in_channels,
            "down1": width,
            "stem": width,
            "down2": 4 * width,
            **{f"block{number}": 4 * width for number in range(1, blocks + 1)},
        }

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Translate images: (B, C, H, W) in [-1, 1] -> (B, C, 4 ceil(H / 4), 4 ceil(W / 4)), clamped to [-1, 1]."""
        return self.translate_and_encode(x_BCHW, ())[0].clamp(-1, 1)

    def translate_and_encode(self, x_BCHW: Tensor, taps: Sequence[str]) -> tuple[Tensor, list[Tensor]]:
        """One full pass that also returns the features at ``taps`` of encoder and decoder, in their order.

        The translation is not clamped, which would stop its gradient. Raises ``KeyError`` for unknown taps.
        """
        features = self._encode(x_BCHW, None)
        features["up1"] = self.up1(_normed(features["last"]))
        double = blur_upsample if self.smooth else functools.partial(F.pixel_shuffle, upscale_factor=2)
        features["doubled2"] = _active(double(features["up1"]))
        hidden = self.last_block(self.up2(features["doubled2"]) + features["down1"])
        delta = self.narrow(_normed(hidden))
        beside = torch.cat([blur_upsample(delta), features["padded_input"].to(delta.dtype)], dim=1)
        delta = self.head(_active(self.detail(beside)))
        return features["padded_input"] + delta, [features[tap] for tap in taps]

    def encode(self, x_BCHW: Tensor, taps: Sequence[str]) -> list[Tensor]:
        """E: the features at ``taps``, in their order, without the residual blocks behind the last tap."""
        features = self._encode(x_BCHW, max((list(self.tap_channels).index(tap) for tap in taps), default=0))
        return [features[tap] for tap in taps]

    def _encode(self, x_BCHW: Tensor, last: int | None) -> dict[str, Tensor]:
        """Features by name up to index ``last`` (all if None); the key ``last`` is the final one."""
        height, width = x_BCHW.shape[2:]
        below, right = -height % 4, -width % 4
        x_BCHW = F.pad(x_BCHW, (0, right, 0, below), mode="reflect") if below or right else x_BCHW
        features = {"padded_input": x_BCHW}
        names = list(self.tap_channels)[: None if last is None else last + 1]
        hidden = x_BCHW
        for name in names[1:]:
            if name == "down1":
                hidden = self.down1(F.pixel_unshuffle(hidden, 2))
            elif name == "stem":
                hidden = _active(self.conv1(_normed(hidden)))
            elif name == "down2":
                hidden = self.down2(F.pixel_unshuffle(hidden, 2))
            else:
                hidden = self.blocks[int(name.removeprefix("block")) - 1](hidden)
            features[name] = hidden
        features["last"] = hidden
        return features


def _active(x_BCHW: Tensor) -> Tensor:
    return F.leaky_relu(x_BCHW, _SLOPE)


def _normed(x_BCHW: Tensor) -> Tensor:
    return _active(channel_norm(x_BCHW))


def _convolution(in_channels: int, out_channels: int, gain: float = 1.0) -> Conv2d:
    layer = Conv2d(in_channels, out_channels, 3, padding=1, padding_mode="reflect")
    _initialise(layer, gain)
    return layer


def _initialise(layer: nn.Conv2d, gain: float) -> None:
    """Normal weights with deviation gain / sqrt(fan-in), zero biases."""
    nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
    assert layer.bias is not None
    with torch.no_grad():
        layer.weight.mul_(gain)
        layer.bias.zero_()
