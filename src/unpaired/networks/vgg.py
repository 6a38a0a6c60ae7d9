"""VGG16, trained on ImageNet, for perceptual and self-similarity losses.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015
(configuration D), by torchvision, with torchvision's weights.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from unpaired.errors import ConfigError, nearest
from unpaired.networks.weights import WeightsFile

_DIGEST = "397923af"
FILE = f"vgg16-{_DIGEST}.pth"
URL = f"https://download.pytorch.org/models/{FILE}"
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and number of convolutions of each stage; stages are separated by pooling."""
LAYERS = {f"relu{stage}_{number}": width for stage, (width, count) in enumerate(_STAGES, 1)
          for number in range(1, count + 1)}  # fmt: skip
"""Layers ``relu1_1`` ... ``relu5_3``, in order, with their channels."""
_INDEX = {name: 2 * index + int(name[4]) for index, name in enumerate(LAYERS)}
"""Index of each ReLU in torchvision's list of convolutions, ReLUs, and a pooling after each stage."""


class VGG16Features(nn.Module):
    """Images (B, 3, H, W) in [-1, 1] -> maps of the given layers, after their ReLU.

    A layer of stage s has H // 2**(s - 1) rows. Images are normalised with the means and deviations of ImageNet, not
    resized. The network ends at the last given layer; weights are not initialised.

    Args:
        layers: Names among :data:`LAYERS`, in the network's order.

    Raises:
        ConfigError: There is no such layer, or they are not in order.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, layers: Sequence[str]) -> None:
        super().__init__()
        from torchvision.models import vgg16

        check_layers(layers, tuple(LAYERS), "VGG16")
        self.indices = [_INDEX[name] for name in layers]
        device = torch.empty(0).device
        with torch.device("meta"):  # the unused classifier has most of the weights
            features = vgg16().features[: self.indices[-1] + 1]
        self.features = features.to_empty(device=device)
        mean, deviation = (torch.tensor(values)[:, None, None] for values in (_MEAN, _DEVIATION))
        self.register_buffer("scale", 0.5 / deviation, persistent=False)
        self.register_buffer("shift", (0.5 - mean) / deviation, persistent=False)

    def forward(self, x_BCHW: Tensor) -> list[Tensor]:
        hidden, maps = x_BCHW * self.scale + self.shift, list[Tensor]()
        for index, layer in enumerate(self.features):
            hidden = layer(hidden)
            if index in self.indices:
                maps.append(hidden)
        return maps


def check_layers(layers: Sequence[str], known: Sequence[str], title: str) -> None:
    """Raise ``ConfigError`` unless every layer exists and they are in the network's order."""
    for layer in layers:
        if layer not in known:
            raise ConfigError(
                f"feature_layers: {title} has no '{layer}'{nearest(layer, known)}; it has {', '.join(known)}"
            )
    if not layers or list(layers) != sorted(set(layers), key=list(known).index):
        raise ConfigError(f"feature_layers must name layers of {title} once each, in this order: {', '.join(known)}")


def cached() -> Path:
    """Path of torchvision's download."""
    return Path(torch.hub.get_dir()) / "checkpoints" / FILE


WEIGHTS = WeightsFile(
    "VGG16, ImageNet (torchvision's IMAGENET1K_V1)",
    f"Get {FILE} (528 MB) with: curl --create-dirs -o {shlex.quote(str(cached()))} {URL} (torchvision's cache), or "
    "name your copy with the setting vgg16_weights, or turn on download_weights; without it, feature_network=lite0 is "
    "a substitute that comes with the package.",
    lambda: path if (path := cached()).is_file() else None,
)


def load(layers: Sequence[str], path: Path | None = None) -> VGG16Features:
    """The network with the weights of ``path``, or of torchvision's cache.

    The file is torchvision's state dict; weights behind the last layer may be missing.

    Raises:
        ConfigError: The layers are invalid.
        BackendError: The weights are missing or do not fit.
    """
    network = VGG16Features(layers)
    found = WEIGHTS.locate(path)
    state = WEIGHTS.read(found)
    shapes = {name: x.shape for name, x in network.state_dict().items()}
    used = {name: x for name, x in state.items() if name in shapes}
    WEIGHTS.check(found, used, shapes)
    network.load_state_dict(used)
    return network.eval()


def untrained(layers: Sequence[str], seed: int = 0) -> VGG16Features:
    """The network with seeded random weights of deviation sqrt(2 / fan_in) and zero biases."""
    network, generator = VGG16Features(layers), torch.Generator().manual_seed(seed)
    for layer in network.features:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return network.eval()


def download() -> Path:
    """Download the weights into torchvision's cache. Raises ``BackendError``."""
    return WEIGHTS.download(URL, cached(), _DIGEST)
