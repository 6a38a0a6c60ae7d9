"""Frozen networks, by name, for losses on feature maps, and the projector learned on top of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from unpaired.networks import efficientnet_lite, vgg
from unpaired.networks.layers import initialise

FeatureNetwork = Literal["vgg16", "lite0", "vgg16_untrained"]
"""VGG16; EfficientNet-Lite0, whose weights come with a package, as its substitute; VGG16 with random weights."""
DEFAULT_LAYERS: dict[FeatureNetwork, tuple[str, ...]] = {
    "vgg16": ("relu3_1", "relu4_1", "relu4_3"),
    "lite0": ("stride4", "stride8"),
    "vgg16_untrained": ("relu3_1", "relu4_1", "relu4_3"),
}
"""The layers for self-similarity; those of the substitute have the same strides, 4 and 8."""


class Lite0Features(nn.Module):
    """Images (B, 3, H, W) in [-1, 1] -> maps of EfficientNet-Lite0 at the chosen strides; images keep their size."""

    def __init__(self, network: efficientnet_lite.EfficientNetLite0, layers: Sequence[str]) -> None:
        super().__init__()
        self.network, self.layers = network, tuple(layers)

    def forward(self, x_BCHW: Tensor) -> list[Tensor]:
        return self.network.pyramid(x_BCHW, self.layers)


def layer_channels(name: FeatureNetwork, layers: Sequence[str]) -> dict[str, int]:
    """Channels of each layer, without loading weights.

    Raises:
        ConfigError: The network has no such layer, or they are not in order.
    """
    title, known = (
        ("EfficientNet-Lite0", efficientnet_lite.PYRAMID_CHANNELS) if name == "lite0" else ("VGG16", vgg.LAYERS)
    )
    vgg.check_layers(layers, tuple(known), title)
    return {layer: known[layer] for layer in layers}


def load_feature_maps(
    name: FeatureNetwork, layers: Sequence[str], path: Path | None = None, *, allow_download: bool = False
) -> nn.Module:
    """A network that maps images (B, 3, H, W) in [-1, 1] to a list of maps, one per layer.

    Args:
        name: Which network.
        layers: Its layers, in order.
        path: The weights of ``vgg16``; ``None`` uses those in torchvision's cache.
        allow_download: Download the weights of ``vgg16`` if they are missing.

    Raises:
        ConfigError: The layers are invalid.
        BackendError: The weights are missing or do not fit; the message says what to do.
    """
    layer_channels(name, layers)
    if name == "lite0":
        return Lite0Features(efficientnet_lite.load(), layers).eval()
    if name == "vgg16_untrained":
        return vgg.untrained(layers)
    if path is None and allow_download and vgg.WEIGHTS.find() is None:
        path = vgg.download()
    return vgg.load(layers, path)


class MapProjector(nn.Module):
    """LSeSim's projector of frozen maps: two 1 x 1 convolutions with a ReLU between them per layer.

    184,960 parameters at relu3_1, relu4_1 and relu4_3 of VGG16.

    Args:
        channels: Channels of each layer, by name.
        width: Channels of the projected maps; unset means a quarter of the layer's, at least 32.
    """

    def __init__(self, channels: Mapping[str, int], width: int | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleDict()
        for layer, inputs in channels.items():
            outputs = width or max(32, inputs // 4)
            self.layers[layer] = nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.ReLU(), nn.Conv2d(outputs, outputs, 1))
        initialise(self, "normal")

    def forward(self, layer: str, features_BCHW: Tensor) -> Tensor:
        """Project the maps of one layer: (B, C, H, W) -> (B, width, H, W)."""
        return self.layers[layer](features_BCHW)
