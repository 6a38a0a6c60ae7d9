"""The PatchGAN discriminator (Isola et al., 2017), with anti-aliased or strided downsampling."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from unpaired.networks.layers import (
    BlurDownsample,
    Conv2d,
    Initialisation,
    Resampling,
    initialise,
    instance_norm,
    normalise_spectrally,
)


class PatchDiscriminator(nn.Module):
    """D of the paper (Appendix D.2): one real/fake score per overlapping patch.

    ``layers=3`` is the usual 70 x 70 PatchGAN, 2 the 34 x 34 one; the blurs enlarge the receptive fields to 84 and 40.
    With the defaults it has 2,764,737 parameters.

    Args:
        in_channels: Channels of the image.
        base_channels: Width of the first convolution.
        layers: Number of downsampling convolutions.
        out_channels: Scores per patch (one per domain in a multi-domain method).
        spectral_norm: Divide each weight by its largest singular value (Miyato et al., 2018).
        resampling: Downsampling by blur or by strided convolutions.
        initialisation: Of the weights.
    """

    def __init__(
        self,
        in_channels: int = 3,
        *,
        base_channels: int = 64,
        layers: int = 3,
        out_channels: int = 1,
        spectral_norm: bool = False,
        resampling: Resampling = "blur",
        initialisation: Initialisation = "xavier",
    ) -> None:
        super().__init__()
        widths = [base_channels * min(2**i, 8) for i in range(layers + 1)]
        halving = _strided if resampling == "strided" else Conv2d
        self.first = halving(in_channels, widths[0], 4, padding=1)
        self.middle = nn.ModuleList(halving(narrow, wide, 4, padding=1) for narrow, wide in pairwise(widths[:-1]))
        self.blurs = nn.ModuleList(
            BlurDownsample(width) if resampling == "blur" else nn.Identity() for width in widths[:-1]
        )
        self.before_last = Conv2d(widths[-2], widths[-1], 4, padding=1)
        self.last = Conv2d(widths[-1], out_channels, 4, padding=1)
        initialise(self, initialisation)
        if spectral_norm:
            normalise_spectrally(self)

    @property
    def smallest_image(self) -> int:
        """The smallest height and width, in pixels, with at least one score: 24 with 3 layers."""
        return 3 * 2 ** len(self.blurs)  # the last two convolutions need 3 pixels

    def forward(self, x_BCHW: Tensor, seeds_B: Tensor | None = None) -> Tensor:
        """(B, C, H, W) images in [-1, 1] -> (B, out_channels, h, w) scores, unbounded; seeds are ignored."""
        hidden = self.blurs[0](F.leaky_relu(self.first(x_BCHW), 0.2, inplace=True))
        for convolution, blur in zip(self.middle, self.blurs[1:], strict=True):
            hidden = blur(F.leaky_relu(instance_norm(convolution(hidden)), 0.2, inplace=True))
        hidden = F.leaky_relu(instance_norm(self.before_last(hidden)), 0.2, inplace=True)
        return self.last(hidden)


def _strided(in_channels: int, out_channels: int, taps: int, padding: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, taps, stride=2, padding=padding)
