"""Common layers: instance normalisation, anti-aliased resampling, initialisation."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from unpaired.ops.blur import blur_halve
from unpaired.ops.half_precision import own_type, reflect
from unpaired.ops.winograd import Padding, conv2d


def instance_norm(x_BCHW: Tensor, eps: float = 1e-5) -> Tensor:
    """Instance normalisation without affine parameters (Ulyanov et al., 2016).

    Implemented as a group norm with one channel per group: ``F.instance_norm`` with batch size 1 on the CPU returns a
    wrong input gradient if the incoming gradient has channels-last strides (torch 2.13 and 2.14), as it has after
    reading a feature map as tokens (gradchecked in ``tests/networks/test_networks.py``).

    In bf16 on the CPU it is a batch norm of each image: the same function, with a much faster backward pass for
    channels-last maps. Scale and shift in float32, though they change nothing, make it keep its statistics in float32;
    without them means would be rounded to bf16, and ReLU's gradient be wrong by 8 % where they are three deviations.
    """
    if x_BCHW.dtype == torch.bfloat16 and x_BCHW.device.type == "cpu":
        scale_C, shift_C = (x_BCHW.new_full((x_BCHW.shape[1],), value, dtype=torch.float32) for value in (1, 0))
        norms = [
            F.batch_norm(x_1CHW, None, None, scale_C, shift_C, training=True, eps=eps) for x_1CHW in x_BCHW.split(1)
        ]
        return norms[0] if len(norms) == 1 else torch.cat(norms)
    return F.group_norm(x_BCHW, x_BCHW.shape[1], eps=eps)


def channel_norm(x_BCHW: Tensor, eps: float = 1e-5) -> Tensor:
    """Layer norm over the channels of each pixel, without affine parameters (Ba et al., 2016).

    Each pixel is normalised independently, so an image and a crop of it give the same values; efficient for
    channels-last maps.
    """
    return F.layer_norm(x_BCHW.permute(0, 2, 3, 1), x_BCHW.shape[1:2], eps=eps).permute(0, 3, 1, 2)


class Conv2d(nn.Conv2d):
    """``nn.Conv2d`` of stride 1 with the faster algorithm on the CPU (:func:`unpaired.ops.winograd.conv2d`).

    ``padding_mode`` is ``zeros`` or ``reflect``. (B, I, H, W) -> (B, O, H + 2 padding - r + 1, W + 2 padding - r + 1).
    """

    def __init__(
        self, in_channels: int, out_channels: int, taps: int, padding: int = 0, padding_mode: Padding = "zeros"
    ) -> None:
        super().__init__(in_channels, out_channels, taps, padding=padding, padding_mode=padding_mode)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        mode: Padding = "reflect" if self.padding_mode == "reflect" else "zeros"
        return conv2d(x_BCHW, self.weight, self.bias, int(self.padding[0]), mode)


class BlurDownsample(nn.Module):
    """Downsample by 2 with the binomial filter [1, 2, 1] x [1, 2, 1] / 16 (Zhang, 2019), reflected borders.

    (B, C, H, W) -> (B, C, ceil(H / 2), ceil(W / 2)). The filter is a buffer that is not saved.
    """

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        row = torch.tensor([0.25, 0.5, 0.25], device="cpu")  # also where networks are built without memory
        self.register_buffer("kernel", torch.outer(row, row).repeat(channels, 1, 1, 1), persistent=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if x_BCHW.device.type == "cpu" and not torch.compiler.is_compiling():
            return blur_halve(x_BCHW)
        padded = reflect(x_BCHW, 1)
        if torch.compiler.is_exporting():  # one operation instead of two, and supported by every runtime
            return F.conv2d(padded, self.kernel.to(padded.dtype), stride=2, groups=padded.shape[1])
        return F.avg_pool2d(F.avg_pool2d(padded, 2, stride=1), 2)  # [1, 1] twice is [1, 2, 1]


def blur_upsample(x_BCHW: Tensor) -> Tensor:
    """Upsample by 2 with the filter [1, 3, 3, 1] x [1, 3, 3, 1] / 16, replicated borders: bilinear interpolation.

    (B, C, H, W) -> (B, C, 2 H, 2 W).
    """
    with own_type(x_BCHW):
        return F.interpolate(x_BCHW, scale_factor=2, mode="bilinear", align_corners=False)


Initialisation = Literal["xavier", "normal"]
"""Xavier normal weights with gain 0.02 (CUT), or normal weights with deviation 0.02 (CycleGAN)."""
Resampling = Literal["blur", "strided"]
"""Anti-aliased resampling (CUT), or strided and transposed convolutions (CycleGAN)."""


def initialise(module: nn.Module, how: Initialisation = "xavier") -> None:
    """Initialise every convolution and linear layer in place, with zero biases."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            if how == "xavier":
                nn.init.xavier_normal_(layer.weight, gain=0.02)
            else:
                nn.init.normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def normalise_spectrally(module: nn.Module) -> None:
    """Apply spectral normalisation to every convolution and linear layer, in place.

    Miyato et al., "Spectral Normalization for Generative Adversarial Networks", ICLR 2018: one power iteration per
    forward pass in training; its vectors are buffers, so a resumed run continues bitwise.
    """
    for layer in list(module.modules()):
        if isinstance(layer, nn.Conv2d | nn.Linear):
            spectral_norm(layer)
