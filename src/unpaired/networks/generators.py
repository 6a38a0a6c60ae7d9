"""The ResNet generator of CycleGAN and CUT, whose first part is the encoder of the contrastive loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unpaired.errors import ConfigError, nearest
from unpaired.networks.layers import (
    BlurDownsample,
    Conv2d,
    Initialisation,
    Resampling,
    blur_upsample,
    initialise,
    instance_norm,
)
from unpaired.ops.half_precision import reflect

Stage = tuple[str, Callable[[Tensor], Tensor]]
"""A named part of a network, with the name of its output."""

DEFAULT_TAPS = ("padded_input", "down1", "down2", "block1", "block5")
"""Encoder layers of the paper's contrastive loss (method.md, section 1): modules 0, 4, 8, 12, 16 in its code."""


class ResidualBlock(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))), 3 x 3 convolutions with reflected borders. (B, C, H, W) -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = Conv2d(channels, channels, 3, padding=1, padding_mode="reflect")
        self.conv2 = Conv2d(channels, channels, 3, padding=1, padding_mode="reflect")

    def forward(self, x_BCHW: Tensor) -> Tensor:
        hidden = F.relu(instance_norm(self.conv1(x_BCHW)), inplace=True)
        return x_BCHW + instance_norm(self.conv2(hidden))


class ResnetGenerator(nn.Module):
    """G of the paper (Appendix D.1): 7 x 7 stem, two downsampling layers, residual blocks, two upsampling layers, Tanh.

    With the defaults it has 11,378,179 parameters. Its taps are named layers whose features a loss can use:
    ``padded_input`` (the input with reflection padding 3), ``stem``, ``down1`` and ``down2`` (outputs of the
    convolutions before norm and downsampling), ``halved1`` and ``halved2`` (after them) and ``block1`` ... ``blockN``.
    Those of the decoder are ``up1``, ``up2`` and ``head`` (outputs of its convolutions), ``doubled1`` and ``doubled2``
    (after norm and ReLU).

    Args:
        in_channels: Channels of the input image.
        out_channels: Channels of the output image.
        base_channels: Width of the stem; the blocks have four times as many channels.
        blocks: Number of residual blocks.
        resampling: ``blur``, or ``strided`` with strided and transposed convolutions (CycleGAN).
        initialisation: Of the weights.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        *,
        base_channels: int = 64,
        blocks: int = 9,
        resampling: Resampling = "blur",
        initialisation: Initialisation = "xavier",
    ) -> None:
        super().__init__()
        width = base_channels
        self.stem = Conv2d(in_channels, width, 7)
        if resampling == "blur":
            self.down1: nn.Module = Conv2d(width, 2 * width, 3, padding=1)
            self.down2: nn.Module = Conv2d(2 * width, 4 * width, 3, padding=1)
            self.blur1: nn.Module = BlurDownsample(2 * width)
            self.blur2: nn.Module = BlurDownsample(4 * width)
            self.enlarge: Callable[[Tensor], Tensor] = blur_upsample
        else:
            self.down1 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
            self.down2 = nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1)
            self.blur1, self.blur2, self.enlarge = nn.Identity(), nn.Identity(), nn.Identity()
        self.blocks = nn.ModuleList(ResidualBlock(4 * width) for _ in range(blocks))
        if resampling == "blur":
            self.up1: nn.Module = Conv2d(4 * width, 2 * width, 3, padding=1)
            self.up2: nn.Module = Conv2d(2 * width, width, 3, padding=1)
        else:
            self.up1 = nn.ConvTranspose2d(4 * width, 2 * width, 3, stride=2, padding=1, output_padding=1)
            self.up2 = nn.ConvTranspose2d(2 * width, width, 3, stride=2, padding=1, output_padding=1)
        self.head = Conv2d(width, out_channels, 7)
        self.tap_channels: dict[str, int] = {
            "padded_input": in_channels,
            "stem": width,
            "down1": 2 * width,
            "halved1": 2 * width,
            "down2": 4 * width,
            "halved2": 4 * width,
            **{f"block{i + 1}": 4 * width for i in range(blocks)},
        }
        initialise(self, initialisation)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Translate images: (B, C_in, H, W) in [-1, 1] -> (B, C_out, 4 ceil(H / 4), 4 ceil(W / 4)) in [-1, 1]."""
        return self.translate_and_encode(x_BCHW, ())[0]

    def translate_and_encode(self, x_BCHW: Tensor, taps: Sequence[str]) -> tuple[Tensor, list[Tensor]]:
        """One full pass that also returns the features at ``taps`` of encoder and decoder, in their order."""
        return run_stages([*self._encoder_stages(), *self._decoder_stages()], x_BCHW, taps)

    def encode(self, x_BCHW: Tensor, taps: Sequence[str]) -> list[Tensor]:
        """E of the paper: the features at ``taps``, in their order, computed up to the last tap."""
        stages = self._encoder_stages()
        last = max((number for number, (name, _) in enumerate(stages) if name in taps), default=0)
        return run_stages(stages[: last + 1], x_BCHW, taps)[1]

    def _encoder_stages(self) -> list[Stage]:
        """Stages of the encoder, in order."""
        return [
            ("padded_input", lambda x: reflect(x, 3)),
            ("stem", lambda x: F.relu(instance_norm(self.stem(x)), inplace=True)),
            ("down1", self.down1),
            ("halved1", lambda x: self.blur1(F.relu(instance_norm(x), inplace=True))),
            ("down2", self.down2),
            ("halved2", lambda x: self.blur2(F.relu(instance_norm(x), inplace=True))),
            *((f"block{number}", block) for number, block in enumerate(self.blocks, start=1)),
        ]

    def _decoder_stages(self) -> list[Stage]:
        """Stages of the decoder, in order."""
        return [
            ("up1", lambda x: self.up1(self.enlarge(x))),
            ("doubled1", lambda x: F.relu(instance_norm(x), inplace=True)),
            ("up2", lambda x: self.up2(self.enlarge(x))),
            ("doubled2", lambda x: F.relu(instance_norm(x), inplace=True)),
            ("head", lambda x: self.head(reflect(x, 3))),
            ("image", torch.tanh),
        ]


def channels_at(tap_channels: Mapping[str, int], taps: Sequence[str]) -> dict[str, int]:
    """Channels at ``taps``. Raises ``ConfigError`` unless all are among ``tap_channels``, once each, in its order."""
    known = list(tap_channels)
    for tap in taps:
        if tap not in known:
            raise ConfigError(
                f"taps: the generator has no '{tap}'{nearest(tap, known)}; it has {', '.join(known)} "
                "(the setting 'blocks' is the number of residual blocks)"
            )
    if not taps or list(taps) != sorted(set(taps), key=known.index):
        raise ConfigError(f"taps must name layers once each, in this order: {', '.join(known)}")
    return {tap: tap_channels[tap] for tap in taps}


def run_stages(stages: Sequence[Stage], hidden: Tensor, taps: Sequence[str]) -> tuple[Tensor, list[Tensor]]:
    """Run ``stages``; the last output and those at ``taps``, in that order. Raises ``KeyError`` for unknown taps."""
    features = {}
    for name, stage in stages:
        hidden = stage(hidden)
        if name in taps:
            features[name] = hidden
    return hidden, [features[tap] for tap in taps]
