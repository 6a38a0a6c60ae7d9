"""The light generator's last doubling draws no grid of two pixels; its first one can draw one of four.

That one is what the stripes of the quick recipe are made of: without it none were learned in its time (docs/quick.md).
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unpaired.networks import LightGenerator

BORDER = 16  # of which reflected borders change what is drawn


class ShuffledGenerator(LightGenerator):
    """What draws checkerboards: the same blocks, and each of their pixels becomes 4 x 4 of the image."""

    def __init__(self, in_channels: int, out_channels: int, *, base_channels: int, blocks: int) -> None:
        super().__init__(in_channels, out_channels, base_channels=base_channels, blocks=blocks)
        self.shuffled = nn.Conv2d(4 * base_channels, 16 * out_channels, 3, padding=1, padding_mode="reflect")

    def forward(self, x_BCHW: Tensor) -> Tensor:
        (blocks,) = self.encode(x_BCHW, (list(self.tap_channels)[-1],))
        return x_BCHW + F.pixel_shuffle(self.shuffled(blocks), 4)


def change(network: type[LightGenerator], x_BCHW: Tensor, seed: int) -> Tensor:
    """What a network of random weights adds to images."""
    torch.manual_seed(seed)
    channels = x_BCHW.shape[1]
    generator = network(channels, channels, base_channels=8, blocks=2)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.01 if parameter is generator.head.weight else 0.1))
        return generator(x_BCHW) - x_BCHW


def grid(images_BCHW: Tensor, period: int) -> float:
    """Root mean square of what repeats with a period in both directions, away from the borders."""
    inside = images_BCHW[:, :, BORDER:-BORDER, BORDER:-BORDER].double()
    inside = inside - inside.mean((2, 3), keepdim=True)
    height, width = (side // period for side in inside.shape[2:])
    repeated = inside.unflatten(2, (height, period)).unflatten(4, (width, period)).mean((2, 4))
    return float(repeated.square().mean().sqrt())


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_flat_picture_gets_hardly_any_grid_of_two_pixels(channels: int, seed: int) -> None:
    flat = (torch.rand(6, channels, 1, 1) * 2 - 1).expand(-1, -1, 64, 64).contiguous()
    light, shuffled = (change(network, flat, seed) for network in (LightGenerator, ShuffledGenerator))
    assert light.abs().mean() > 0.005, "colours are changed"
    spread = {which: float(made.std()) for which, made in (("light", light), ("shuffled", shuffled))}
    assert grid(light, 2) / spread["light"] < 0.5 * grid(shuffled, 2) / spread["shuffled"]
    assert grid(light, 4) < grid(shuffled, 4)


class SmoothGenerator(LightGenerator):
    """The one for drawings."""

    def __init__(self, in_channels: int, out_channels: int, *, base_channels: int, blocks: int) -> None:
        super().__init__(in_channels, out_channels, base_channels=base_channels, blocks=blocks, smooth=True)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_flat_picture_stays_flat_where_both_doublings_are_bilinear(channels: int, seed: int) -> None:
    flat = (torch.rand(6, channels, 1, 1) * 2 - 1).expand(-1, -1, 64, 64).contiguous()
    smooth = change(SmoothGenerator, flat, seed)
    assert smooth.abs().mean() > 0.005, "colours are changed"
    for period in (2, 4):
        assert grid(smooth, period) < 1e-6
