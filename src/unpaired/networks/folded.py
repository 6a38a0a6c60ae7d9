"""What the ImageNet classifiers share: convolutions with batch normalisation folded in, padded as TensorFlow pads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Layer = tuple[Tensor, Tensor]
"""Weight (O, I / groups, k, k) and bias (O,) of one convolution."""


def fold_batch_norm(weight: Tensor, norm: Sequence[Tensor], eps: float) -> Layer:
    """The convolution that equals a bias-free one followed by batch normalisation with fixed statistics.

    Computed in float64, returned in the dtype of ``weight``.

    Args:
        norm: Scale, shift, mean and variance, (O,) each.
    """
    scale, shift, mean, variance = norm
    factor = scale.double() * torch.rsqrt(variance.double() + eps)
    folded = weight.double() * factor[:, None, None, None]
    return folded.to(weight.dtype), (shift.double() - mean.double() * factor).to(weight.dtype)


class SamePaddedConv2d(nn.Conv2d):
    """Convolution with TensorFlow's ``SAME`` padding, then ReLU6 unless ``linear``.

    The output has ceil(H / stride) x ceil(W / stride) pixels. Odd padding has its larger half at the bottom and right,
    which no symmetric padding does: at stride 2 and even sizes it is (0, 1) for 3 taps and (1, 2) for 5.
    """

    def __init__(
        self, inputs: int, outputs: int, taps: int, stride: int = 1, groups: int = 1, *, linear: bool = False
    ) -> None:
        super().__init__(inputs, outputs, taps, stride=stride, groups=groups)
        self.linear = linear

    def forward(self, x_BCHW: Tensor) -> Tensor:
        taps, stride = self.kernel_size[0], self.stride[0]
        padding = self.padding
        if taps > 1:
            top, bottom = _same_padding(x_BCHW.shape[2], taps, stride)
            left, right = _same_padding(x_BCHW.shape[3], taps, stride)
            if (top, left) == (bottom, right):
                padding = (top, left)
            else:
                x_BCHW = F.pad(x_BCHW, (left, right, top, bottom))
        y = F.conv2d(x_BCHW, self.weight, self.bias, self.stride, padding, groups=self.groups)
        return y if self.linear else F.relu6(y, inplace=True)

    def set(self, layer: Layer) -> None:
        """Take weight and bias, whose shapes must be this layer's.

        Raises:
            ValueError: They are not.
        """
        for parameter, value in zip((self.weight, self.bias), layer, strict=True):
            assert parameter is not None
            if parameter.shape != value.shape:
                raise ValueError(f"a layer has shape {tuple(value.shape)} instead of {tuple(parameter.shape)}")
            parameter.data.copy_(value)


def _same_padding(size: int, taps: int, stride: int) -> tuple[int, int]:
    total = max((-(-size // stride) - 1) * stride + taps - size, 0)
    return total // 2, total - total // 2


def resize_square(images_BCHW: Tensor, side: int) -> Tensor:
    """Resize to ``side`` x ``side`` (anti-aliased bicubic), clamped to [-1, 1]; images of that size are kept."""
    if images_BCHW.shape[-2:] == (side, side):
        return images_BCHW
    resized = F.interpolate(images_BCHW, (side, side), mode="bicubic", antialias=True, align_corners=False)
    return resized.clamp(-1, 1)
