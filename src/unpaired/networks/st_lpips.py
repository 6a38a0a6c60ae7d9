"""ST-LPIPS: a learned perceptual distance that tolerates imperceptible shifts.

Ghildyal and Liu, "Shift-tolerant Perceptual Similarity Metric", ECCV 2022; the distance is that of Zhang et al., "The
Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018, the anti-aliasing that of Zhang, "Making
Convolutional Networks Shift-Invariant Again", ICML 2019. Written from the papers; the names are those of the published
state dict, whose indices give the positions of the blur filters: before the first ReLU and after both max poolings.

Strides and paddings are not in the file. They were observed on the authors' package at runtime, without reading its
source. Distances on synthetic images agree to 1e-6; ``tests/networks/test_st_lpips.py`` holds the package's values, and
their example value (0.7777554988861084 for ex_p0.png and ex_ref.png of their repository), checked where the images are.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unpaired.networks.weights import WeightsFile, find_in_package

WIDTHS = (64, 192, 384, 256, 256)
_EPS = 1e-10


class BlurPool(nn.Module):
    """Filter with ``filt`` (binomial, 3 x 3), reflected borders, and keep every second pixel."""

    filt: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        row = torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer("filt", torch.outer(row, row).repeat(channels, 1, 1, 1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        padded = F.pad(x_BCHW, (2, 2, 2, 2), mode="reflect")
        return F.conv2d(padded, self.filt, stride=2, groups=padded.shape[1])


class Trunk(nn.Module):
    """Anti-aliased AlexNet: (B, 3, H, W) -> its five maps after the ReLUs; the first has half the resolution.

    Blur filters replace strides: the first convolution has stride 1 and a blur of stride 2 instead of stride 4; max
    poolings likewise.
    """

    def __init__(self) -> None:
        super().__init__()
        one, two, three, four, five = WIDTHS
        layers: tuple[dict[int, nn.Module], ...] = (
            {0: nn.Conv2d(3, one, 11, stride=1, padding=2), 1: BlurPool(one), 2: nn.ReLU()},
            {3: nn.MaxPool2d(3, stride=1), 4: BlurPool(one), 5: nn.Conv2d(one, two, 5, padding=2), 6: nn.ReLU()},
            {7: nn.MaxPool2d(3, stride=1), 8: BlurPool(two), 9: nn.Conv2d(two, three, 3, padding=1), 10: nn.ReLU()},
            {11: nn.Conv2d(three, four, 3, padding=1), 12: nn.ReLU()},
            {13: nn.Conv2d(four, five, 3, padding=1), 14: nn.ReLU()},
        )
        for number, part in enumerate(layers, start=1):
            slice_ = nn.Sequential()
            for index, layer in part.items():
                slice_.add_module(str(index), layer)
            self.add_module(f"slice{number}", slice_)

    def forward(self, x_BCHW: Tensor) -> list[Tensor]:
        maps = []
        for slice_ in self.children():
            x_BCHW = slice_(x_BCHW)
            maps.append(x_BCHW)
        return maps


class Scaling(nn.Module):
    """(x - shift) / scale per channel, with the file's values."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("shift", "scale"):
            self.register_buffer(name, torch.ones(1, 3, 1, 1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return (x_BCHW - self.shift) / self.scale


class Weighting(nn.Module):
    """Learned non-negative channel weights; index 0 of ``model`` was dropout in training."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Identity(), nn.Conv2d(channels, 1, 1, bias=False))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.model(x_BCHW)


class STLPIPS(nn.Module):
    """Two batches of images (B, 3, H, W) in [-1, 1] -> their distances (B,); 0 for equal images.

    Per map: features normalised at each pixel, squared differences, weighted over channels, averaged over pixels; the
    five values are summed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scaling_layer = Scaling()
        self.net = Trunk()
        for number, channels in enumerate(WIDTHS):
            self.add_module(f"lin{number}", Weighting(channels))

    def forward(self, one_BCHW: Tensor, other_BCHW: Tensor) -> Tensor:
        pairs = zip(self._unit_maps(one_BCHW), self._unit_maps(other_BCHW), strict=True)
        parts = [self.get_submodule(f"lin{n}")((a - b).square()).mean((1, 2, 3)) for n, (a, b) in enumerate(pairs)]
        return torch.stack(parts).sum(0)

    def _unit_maps(self, x_BCHW: Tensor) -> list[Tensor]:
        maps = self.net(self.scaling_layer(x_BCHW))
        return [x / (x.square().sum(1, keepdim=True).sqrt() + _EPS) for x in maps]


WEIGHTS = WeightsFile(
    "ST-LPIPS (AlexNet, vST0.0)",
    "Get them with: pip install --no-deps stlpips-pytorch==0.0.2, or pass --network st_lpips=PATH "
    "(alex_shift_tolerant.pth).",
    lambda: find_in_package("stlpips_pytorch", "weights", "vST0.0", "alex_shift_tolerant.pth"),
)
PROTOCOL = (
    "images at their own size in [-1, 1]; AlexNet with anti-aliasing, five maps, weights vST0.0; equal to the authors' "
    "package on synthetic images"
)


def find_st_lpips() -> Path | None:
    """The weights in the installed package ``stlpips_pytorch``, without importing it; ``None`` if it is missing."""
    return WEIGHTS.find()


def load_st_lpips(path: Path | None = None) -> STLPIPS:
    """The distance with the weights of ``path``, or of the installed package ``stlpips_pytorch``.

    Raises:
        BackendError: They are missing or do not fit.
    """
    found = WEIGHTS.locate(path)
    network = STLPIPS()
    WEIGHTS.load_into(network, found)
    return network.requires_grad_(False).eval()
