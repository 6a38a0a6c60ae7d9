"""DRN-D-22, the segmentation network with which label -> photo translation is usually scored.

Yu, Koltun and Funkhouser, "Dilated Residual Networks", CVPR 2017. Variant D has no max pooling, and no residual
connections in its first three and last two levels; the stride is 8. Written from the paper; the names are those of the
published state dict (``base.0.0.weight`` ... ``seg.bias``, ``up.weight``).
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unpaired.networks.weights import WeightsFile

CLASSES = 19
STRIDE = 8
_MEAN = (0.290101, 0.328081, 0.286964)
_STD = (0.182954, 0.186566, 0.184475)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with a skip connection, a 1 x 1 convolution where shapes differ."""

    def __init__(self, inputs: int, outputs: int, stride: int, rate: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=rate, dilation=rate, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=rate, dilation=rate, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        if stride != 1 or inputs != outputs:
            self.downsample: nn.Module = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        else:
            self.downsample = nn.Identity()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x_BCHW)), inplace=True)
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(x_BCHW), inplace=True)


def _plain(inputs: int, outputs: int, taps: int = 3, stride: int = 1, rate: int = 1) -> nn.Sequential:
    padding = rate * (taps // 2)
    convolution = nn.Conv2d(inputs, outputs, taps, stride, padding, dilation=rate, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _residual(inputs: int, outputs: int, stride: int = 1, rate: int = 1) -> nn.Sequential:
    return nn.Sequential(ResidualBlock(inputs, outputs, stride, rate), ResidualBlock(outputs, outputs, 1, rate))


class DRND22(nn.Module):
    """Images (B, 3, H, W) in [-1, 1] -> Cityscapes train ids 0 ... 18, int64 (B, H, W).

    Images are normalised with the mean and deviation of the public release, RGB in [0, 1]. With ``input_size`` (height,
    width) they are resized to it (bilinear), and the scores back. The scores at stride 8 are upsampled bilinearly,
    cropped where sides are not multiples of 8, and the largest is taken. One image at a time, which bounds memory.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, input_size: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.input_size = input_size
        self.base = nn.Sequential(
            _plain(3, 16, taps=7),
            _plain(16, 16),
            _plain(16, 32, stride=2),
            _residual(32, 64, stride=2),
            _residual(64, 128, stride=2),
            _residual(128, 256, rate=2),
            _residual(256, 512, rate=4),
            _plain(512, 512, rate=2),
            _plain(512, 512),
        )
        self.seg = nn.Conv2d(512, CLASSES, 1)
        self.up = nn.ConvTranspose2d(CLASSES, CLASSES, 2 * STRIDE, STRIDE, STRIDE // 2, groups=CLASSES, bias=False)
        self.up.weight.data.copy_(bilinear_kernel(STRIDE).expand(CLASSES, 1, -1, -1))
        for name, values in (("mean", _MEAN), ("std", _STD)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def scores(self, x_B3HW: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) of any size -> scores (B, 19, H, W)."""
        height, width = x_B3HW.shape[-2:]
        return self.up(self.seg(self.base(x_B3HW)))[..., :height, :width]

    def prepare(self, images_BCHW: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] -> input of the network."""
        return (_resize(images_BCHW, self.input_size) / 2 + 0.5 - self.mean) / self.std

    def forward(self, images_BCHW: Tensor) -> Tensor:
        size = (images_BCHW.shape[2], images_BCHW.shape[3])
        scores = (self.scores(self.prepare(image)) for image in images_BCHW.split(1))
        return torch.cat([_resize(x, size).argmax(dim=1) for x in scores])


def _resize(x_BCHW: Tensor, size: tuple[int, int] | None) -> Tensor:
    if size is None or tuple(x_BCHW.shape[-2:]) == size:
        return x_BCHW
    return F.interpolate(x_BCHW, size, mode="bilinear", align_corners=False)


def bilinear_kernel(factor: int) -> Tensor:
    """The kernel (2 factor, 2 factor) of a transposed convolution that interpolates bilinearly.

    >>> bilinear_kernel(2)[0].tolist()
    [0.0625, 0.1875, 0.1875, 0.0625]
    """
    distance = (torch.arange(2 * factor) + 0.5 - factor).abs() / factor
    return torch.outer(1 - distance, 1 - distance)


WEIGHTS = WeightsFile(
    "DRN-D-22, Cityscapes",
    "Get drn_d_22_cityscapes.pth from the model zoo of its authors (github.com/fyu/drn; for research only) and pass "
    "--network drn_d_22=PATH.",
)
PROTOCOL = (
    "images at their own size, RGB, mean (0.290101, 0.328081, 0.286964) and deviation (0.182954, "
    "0.186566, 0.184475) of the release's info.json; largest of 19 scores, upsampled bilinearly to the image's size"
)


def load_drn_d_22(path: Path | None = None, input_size: tuple[int, int] | None = None) -> DRND22:
    """The network with the weights of ``path``; ``up.weight``, which is not learned, may be missing.

    Args:
        input_size: Height and width that images are resized to; ``None`` keeps theirs.

    Raises:
        BackendError: They are missing or do not fit.
    """
    found = WEIGHTS.locate(path)
    network = DRND22(input_size)
    WEIGHTS.load_into(network, found, optional=("up.weight",))
    return network.requires_grad_(False).eval()
