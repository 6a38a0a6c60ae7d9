"""The published generators in plain torch, written from their description: what ``unpaired import`` must understand.

Their state dicts have the names of the authors' files, as ``shared/golden`` lists them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Halving(nn.Module):
    """[1, 2, 1] x [1, 2, 1] / 16 at every second place, reflected borders."""

    filt: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("filt", (row[:, None] * row / 16).expand(channels, 1, 3, 3).clone())

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), self.filt, stride=2, groups=x.shape[1])


class Doubling(nn.Module):
    """Zeros between the pixels, then [1, 3, 3, 1] x [1, 3, 3, 1] / 16; replicated borders."""

    filt: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        row = torch.tensor([1.0, 3.0, 3.0, 1.0])
        self.register_buffer("filt", (row[:, None] * row / 16).expand(channels, 1, 4, 4).clone())

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
        return F.conv_transpose2d(padded, self.filt, stride=2, groups=x.shape[1])[..., 3:-3, 3:-3]


class Block(nn.Module):
    def __init__(self, channels: int, *, dropout: bool, old_torch: bool) -> None:
        super().__init__()

        def half() -> Iterator[nn.Module]:
            yield nn.ReflectionPad2d(1)
            yield nn.Conv2d(channels, channels, 3)
            yield nn.InstanceNorm2d(channels, track_running_stats=old_torch)

        between = (nn.ReLU(), nn.Dropout(0.5)) if dropout else (nn.ReLU(),)
        self.conv_block = nn.Sequential(*half(), *between, *half())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class Published(nn.Module):
    """The generator; ``blur`` as CUT has it, strided and transposed convolutions as CycleGAN does."""

    def __init__(
        self,
        *,
        halve: str = "blur",
        double: str = "blur",
        width: int = 8,
        blocks: int = 9,
        channels: int = 3,
        out_channels: int | None = None,
        dropout: bool = False,
        affine: bool = False,
        old_torch: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        torch.manual_seed(seed)

        def normed(count: int) -> Iterator[nn.Module]:
            yield nn.InstanceNorm2d(count, affine=affine, track_running_stats=old_torch)
            yield nn.ReLU()

        modules: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(channels, width, 7), *normed(width)]
        for wide in (width, 2 * width):
            stride = 1 if halve == "blur" else 2
            modules += [nn.Conv2d(wide, 2 * wide, 3, stride=stride, padding=1), *normed(2 * wide)]
            modules += [Halving(2 * wide)] if halve == "blur" else []
        modules += [Block(4 * width, dropout=dropout, old_torch=old_torch) for _ in range(blocks)]
        for wide in (4 * width, 2 * width):
            if double == "blur":
                modules += [Doubling(wide), nn.Conv2d(wide, wide // 2, 3, padding=1)]
            else:
                modules += [nn.ConvTranspose2d(wide, wide // 2, 3, stride=2, padding=1, output_padding=1)]
            modules += normed(wide // 2)
        modules += [nn.ReflectionPad2d(3), nn.Conv2d(width, out_channels or channels, 7), nn.Tanh()]
        self.model = nn.Sequential(*modules)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=(1.5 / parameter[0].numel()) ** 0.5)
            else:
                nn.init.normal_(parameter, std=0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def cut(**options: Any) -> Published:
    return Published(halve="blur", double="blur", **options)


def cyclegan(**options: Any) -> Published:
    return Published(halve="stride", double="transposed", **options)
