"""ESPNet (p = 2, q = 8), a small segmentation network for street scenes with 20 Cityscapes classes.

Mehta et al., "ESPNet: Efficient Spatial Pyramid of Dilated Convolutions for Semantic Segmentation", ECCV 2018. Written
from the paper; the names are those of the published state dict. The order in which maps are concatenated is not in the
paper: with any two swapped, mean IoU falls from 33 % to about 2 % or less (14 training pairs).

The input size was chosen on 40 training pairs of the 256 x 256 Cityscapes set. Mean IoU in %: 256 x 256 17.4, 512 x 256
30.2, 512 x 512 27.5, 640 x 320 33.0, 768 x 384 34.4 (pixel accuracy 84.2 %), 896 x 448 32.7, and 1024 x 512, the size
of the published training, 28.5. At 768 x 384, RGB instead of BGR scores 21.0, no division by 255 2.9, bicubic resizing
33.4.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unpaired.networks.weights import WeightsFile

INPUT_SIZE = (384, 768)
"""Height and width that images are resized to."""
EVALUATED = 19
"""The first 19 of the 20 classes are the Cityscapes train ids; the last one is "ignored"."""
_MEAN = (73.15835921, 82.90891754, 72.39239876)
_STD = (44.91483137, 46.15292812, 45.31922104)
_EPS = 1e-3
_RATES = (1, 2, 4, 8, 16)


class Convolution(nn.Module):
    """A convolution without bias that keeps the size at stride 1 and halves it at stride 2."""

    def __init__(self, inputs: int, outputs: int, taps: int, stride: int = 1, rate: int = 1) -> None:
        super().__init__()
        padding = rate * (taps // 2)
        self.conv = nn.Conv2d(inputs, outputs, taps, stride, padding, dilation=rate, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.conv(x_BCHW)


class NormAct(nn.Module):
    """Batch normalisation and PReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, eps=_EPS)
        self.act = nn.PReLU(channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.act(self.bn(x_BCHW))


class ConvNormAct(NormAct):
    """Convolution, batch normalisation, PReLU."""

    def __init__(self, inputs: int, outputs: int, taps: int, stride: int = 1) -> None:
        super().__init__(outputs)
        self.conv = nn.Conv2d(inputs, outputs, taps, stride, taps // 2, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return super().forward(self.conv(x_BCHW))


class SpatialPyramid(nn.Module):
    """Core of an ESP module: c1 -> five dilated convolutions -> hierarchical feature fusion.

    The outputs of rates 2, 4, 8 and 16 are summed step by step before they are concatenated, which removes gridding.
    """

    def __init__(self, inputs: int, outputs: int, taps: int, stride: int = 1) -> None:
        super().__init__()
        narrow = outputs // len(_RATES)
        self.c1 = Convolution(inputs, narrow, taps, stride)
        for rate in _RATES:
            width = outputs - 4 * narrow if rate == 1 else narrow
            self.add_module(f"d{rate}", Convolution(narrow, width, 3, rate=rate))

    def pyramid(self, x_BCHW: Tensor) -> Tensor:
        reduced = self.c1(x_BCHW)
        first, *others = (self.get_submodule(f"d{rate}")(reduced) for rate in _RATES)
        sums = [others[0]]
        for other in others[1:]:
            sums.append(sums[-1] + other)
        return torch.cat([first, *sums], dim=1)


class Downsampler(SpatialPyramid):
    """ESP module of stride 2."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, stride=2)
        self.bn = nn.BatchNorm2d(outputs, eps=_EPS)
        self.act = nn.PReLU(outputs)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.act(self.bn(self.pyramid(x_BCHW)))


class PyramidBlock(SpatialPyramid):
    """ESP module of stride 1; ``residual`` adds the input before the normalisation."""

    def __init__(self, inputs: int, outputs: int, *, residual: bool = True) -> None:
        super().__init__(inputs, outputs, 1)
        self.bn = NormAct(outputs)
        self.residual = residual

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y = self.pyramid(x_BCHW)
        return self.bn(x_BCHW + y if self.residual else y)


class Encoder(nn.Module):
    """ESPNet-C: the map at half size, and the concatenated maps at a quarter and an eighth."""

    def __init__(self, classes: int, p: int, q: int) -> None:
        super().__init__()
        self.level1 = ConvNormAct(3, 16, 3, stride=2)
        self.b1 = NormAct(16 + 3)
        self.level2_0 = Downsampler(16 + 3, 64)
        self.level2 = nn.ModuleList([PyramidBlock(64, 64) for _ in range(p)])
        self.b2 = NormAct(128 + 3)
        self.level3_0 = Downsampler(128 + 3, 128)
        self.level3 = nn.ModuleList([PyramidBlock(128, 128) for _ in range(q)])
        self.b3 = NormAct(256)
        self.classifier = Convolution(256, classes, 1)

    def forward(self, x_B3HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        half_image = F.avg_pool2d(x_B3HW, 3, stride=2, padding=1)
        quarter_image = F.avg_pool2d(half_image, 3, stride=2, padding=1)
        half = self.level1(x_B3HW)
        first = self.level2_0(self.b1(torch.cat([half, half_image], dim=1)))
        last = first
        for block in self.level2:
            last = block(last)
        quarter = self.b2(torch.cat([last, first, quarter_image], dim=1))
        first = self.level3_0(quarter)
        last = first
        for block in self.level3:
            last = block(last)
        return half, quarter, self.b3(torch.cat([first, last], dim=1))


class ESPNet(nn.Module):
    """Images (B, 3, H, W) in [-1, 1] -> Cityscapes train ids 0 ... 18, int64 (B, H, W).

    Images are resized to 768 x 384 (bilinear), converted to BGR, normalised by the mean and deviation of the published
    training and divided by 255; the 19 evaluated scores are resized to the input's size (bilinear), and the largest is
    taken. One image at a time, which bounds memory.
    """

    mean: Tensor
    std: Tensor
    input_size = INPUT_SIZE

    def __init__(self, classes: int = EVALUATED + 1, p: int = 2, q: int = 8) -> None:
        super().__init__()
        self.encoder = Encoder(classes, p, q)
        self.level3_C = Convolution(128 + 3, classes, 1)
        self.br = nn.BatchNorm2d(classes, eps=_EPS)
        self.up_l3 = nn.Sequential(nn.ConvTranspose2d(classes, classes, 2, stride=2, bias=False))
        self.combine_l2_l3 = nn.Sequential(NormAct(2 * classes), PyramidBlock(2 * classes, classes, residual=False))
        self.up_l2 = nn.Sequential(nn.ConvTranspose2d(classes, classes, 2, stride=2, bias=False), NormAct(classes))
        self.conv = ConvNormAct(16 + classes, classes, 3)
        self.classifier = nn.ConvTranspose2d(classes, classes, 2, stride=2, bias=False)
        for name, values in (("mean", _MEAN), ("std", _STD)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def scores(self, x_B3HW: Tensor) -> Tensor:
        """Prepared images (B, 3, H, W), both sides multiples of 8 -> scores of the 20 classes (B, 20, H, W)."""
        half, quarter, eighth = self.encoder(x_B3HW)
        from_eighth = self.up_l3(self.br(self.encoder.classifier(eighth)))
        merged = self.combine_l2_l3(torch.cat([self.level3_C(quarter), from_eighth], dim=1))
        return self.classifier(self.conv(torch.cat([self.up_l2(merged), half], dim=1)))

    def prepare(self, images_BCHW: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] -> input of the network, (B, 3, 384, 768), BGR."""
        resized = F.interpolate(images_BCHW, self.input_size, mode="bilinear", align_corners=False)
        return ((resized * 127.5 + 127.5 - self.mean) / self.std / 255).flip(1)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        size = images_BCHW.shape[-2:]
        scores = [self.scores(self.prepare(image)) for image in images_BCHW.split(1)]
        sized = [F.interpolate(x[:, :EVALUATED], size, mode="bilinear", align_corners=False) for x in scores]
        return torch.cat([x.argmax(dim=1) for x in sized])


WEIGHTS = WeightsFile(
    "ESPNet (p=2, q=8), Cityscapes",
    "Get espnet_p_2_q_8.pth from the release of its authors (github.com/sacmehta/ESPNet; trained on Cityscapes, so for "
    "research only) and pass --network espnet=PATH.",
)
PROTOCOL = (
    "images resized to 768 x 384 (bilinear), BGR, mean (72.39, 82.91, 73.16) and deviation (45.32, 46.15, 44.91) of "
    "the release, / 255; largest of the 19 evaluated scores, resized bilinearly to the image's size"
)


def load_espnet(path: Path | None = None) -> ESPNet:
    """The network with the weights of ``path``.

    Raises:
        BackendError: They are missing or do not fit.
    """
    found = WEIGHTS.locate(path)
    network = ESPNet()
    WEIGHTS.load_into(network, found)
    return network.requires_grad_(False).eval()
