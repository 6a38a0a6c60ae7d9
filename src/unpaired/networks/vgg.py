"""VGG16, trained on ImageNet: the features that perceptual and self-similarity losses look at.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015
(configuration D). The weights are those of torchvision, read from its file; torchvision itself is not needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unpaired.errors import BackendError, ConfigError, nearest
from unpaired.networks.weights import WeightsFile

_DIGEST = "397923af"
FILE = f"vgg16-{_DIGEST}.pth"
URL = f"https://download.pytorch.org/models/{FILE}"
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of the 3 x 3 convolutions, by stage; between stages the map is halved."""


def _plan() -> dict[str, tuple[int, int, int]]:
    """Layer -> number of its convolution in torchvision's list, channels in, channels out."""
    plan, position, channels = {}, 0, 3
    for stage, widths in enumerate(_WIDTHS, start=1):
        for number, width in enumerate(widths, start=1):
            plan[f"relu{stage}_{number}"] = (position, channels, width)
            position, channels = position + 2, width  # the convolution and its ReLU
        position += 1  # the pooling
    return plan


_PLAN = _plan()
LAYERS = {name: channels for name, (_, _, channels) in _PLAN.items()}
"""Layers whose output can be read, ``relu1_1`` ... ``relu5_3``, in order, with their channels."""


class VGG16Features(nn.Module):
    """Images (B, 3, H, W) in [-1, 1] -> maps of the chosen layers, after their ReLU.

    A layer of stage s has H // 2**(s - 1) rows. Images keep their size; they are only scaled to the means and
    deviations of ImageNet. Only what the last chosen layer needs exists.

    Args:
        layers: Names among :data:`LAYERS`, in the network's order.

    Raises:
        ConfigError: There is no such layer, or their order is another.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, layers: Sequence[str]) -> None:
        super().__init__()
        check_layers(layers, tuple(LAYERS), "VGG16")
        self.layers = tuple(layers)
        needed = list(_PLAN)[: list(_PLAN).index(layers[-1]) + 1]
        self.features = nn.ModuleDict(  # keys as in torchvision's state dict
            {str(_PLAN[name][0]): nn.Conv2d(*_PLAN[name][1:], 3, padding=1) for name in needed}
        )
        mean, deviation = (torch.tensor(values)[:, None, None] for values in (_MEAN, _DEVIATION))
        self.register_buffer("scale", 0.5 / deviation, persistent=False)
        self.register_buffer("shift", (0.5 - mean) / deviation, persistent=False)

    def forward(self, x_BCHW: Tensor) -> list[Tensor]:
        hidden, maps = x_BCHW * self.scale + self.shift, list[Tensor]()
        for name, (position, _, _) in _PLAN.items():
            if len(maps) == len(self.layers):
                break
            if name.endswith("_1") and name != "relu1_1":
                hidden = F.max_pool2d(hidden, 2)
            hidden = F.relu(self.features[str(position)](hidden), inplace=True)
            if name in self.layers:
                maps.append(hidden)
        return maps


def check_layers(layers: Sequence[str], known: Sequence[str], title: str) -> None:
    """Raise ``ConfigError`` unless every layer exists and they stand in the network's order."""
    for layer in layers:
        if layer not in known:
            raise ConfigError(
                f"feature_layers: {title} has no '{layer}'{nearest(layer, known)}; it has {', '.join(known)}"
            )
    if not layers or list(layers) != sorted(set(layers), key=list(known).index):
        raise ConfigError(f"feature_layers must name layers of {title} once each, in this order: {', '.join(known)}")


def cached() -> Path:
    """Where torchvision keeps its download."""
    return Path(torch.hub.get_dir()) / "checkpoints" / FILE


WEIGHTS = WeightsFile(
    "VGG16, ImageNet (torchvision's IMAGENET1K_V1)",
    f"Get {FILE} (528 MB) with: curl --create-dirs -o {cached()} {URL} (where torchvision would put it), or name "
    "your copy with the setting vgg16_weights, or turn on download_weights; without it, feature_network=lite0 is a "
    "stand-in that comes with the package.",
    lambda: path if (path := cached()).is_file() else None,
)


def load(layers: Sequence[str], path: Path | None = None) -> VGG16Features:
    """The network with the weights of ``path``, or of torchvision's usual place.

    The file is torchvision's state dict; what lies behind the last layer, classifier included, may be missing.

    Raises:
        ConfigError: The layers cannot be.
        BackendError: The weights are missing or are something else.
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
    """The network with random weights of deviation sqrt(2 / fan_in) and zero biases, a function of ``seed``."""
    network, generator = VGG16Features(layers), torch.Generator().manual_seed(seed)
    for layer in network.features.values():
        assert isinstance(layer, nn.Conv2d)
        assert layer.bias is not None
        nn.init.kaiming_normal_(layer.weight, generator=generator)
        nn.init.zeros_(layer.bias)
    return network.eval()


def download() -> Path:
    """Fetch the weights to where torchvision keeps them.

    Raises:
        BackendError: That failed.
    """
    path = cached()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(URL, str(path), hash_prefix=_DIGEST)
    except (OSError, RuntimeError) as error:  # no network or space; another file than the published one
        reason = f"the weights of {WEIGHTS.title} could not be downloaded ({error})"
        raise BackendError(f"{path}: {reason}. {WEIGHTS.how_to_get}") from error
    return path
