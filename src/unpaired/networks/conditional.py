"""One generator and one discriminator for several domains: only what must differ between domains does.

The generator is told its target domain by a learned scale and shift per channel and domain after each instance norm of
its later half (conditional instance normalisation: Dumoulin, Shlens and Kudlur, "A Learned Representation For Artistic
Style", ICLR 2017). Maps of the code beside the features, the other usual way (StarGAN, Choi et al., CVPR 2018), would
say nothing here: a constant map adds a constant to each channel, and the instance norm after the convolution, which has
no shift of its own, takes it away again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unpaired.networks.discriminators import PatchDiscriminator
from unpaired.networks.generators import DEFAULT_TAPS, ResidualBlock, ResnetGenerator
from unpaired.networks.layers import instance_norm


class DomainNorm(nn.Module):
    """Instance norm, then a scale and a shift per channel that each domain has learned; 1 and 0 at the start.

    (B, C, H, W) and the (B,) numbers of the domains -> (B, C, H, W). 2 C parameters per domain.
    """

    def __init__(self, channels: int, domains: int) -> None:
        super().__init__()
        self.scale_DC = nn.Parameter(torch.ones(domains, channels))
        self.shift_DC = nn.Parameter(torch.zeros(domains, channels))

    def forward(self, x_BCHW: Tensor, domains_B: Tensor) -> Tensor:
        normed = instance_norm(x_BCHW)
        scale, shift = (
            F.embedding(domains_B, code_DC)[:, :, None, None].to(normed.dtype)
            for code_DC in (self.scale_DC, self.shift_DC)
        )
        return torch.addcmul(shift, normed, scale)


class DomainBlock(nn.Module):
    """A residual block, with its own convolutions and the norms of :class:`DomainNorm`."""

    def __init__(self, block: ResidualBlock, domains: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = block.conv1, block.conv2
        self.norm1, self.norm2 = (DomainNorm(conv.out_channels, domains) for conv in (self.conv1, self.conv2))

    def forward(self, x_BCHW: Tensor, domains_B: Tensor) -> Tensor:
        hidden = F.relu(self.norm1(self.conv1(x_BCHW), domains_B), inplace=True)
        return x_BCHW + self.norm2(self.conv2(hidden), domains_B)


class ConditionalGenerator(nn.Module):
    """G(x, domain): the family's ResNet generator whose later half knows which domain to write.

    Up to the last of ``taps`` nothing depends on the domain, so that one encoding of an image serves all translations
    of it, and what is contrasted does not depend on where an image is going. At the start, before any scale and shift
    has been learned, it is :class:`ResnetGenerator`. At the defaults and with three domains it has 11,391,619
    parameters: those of that generator and 3 x 2 x (8 x 256 for the norms of four blocks + 128 + 64 for the doublings).

    Args:
        in_channels: Channels of the input image.
        out_channels: Channels of the output image.
        domains: How many domains there are, at least 2.
        taps: Places of the encoder whose features are asked for; the first residual block is shared in any case.
        options: Further ones of :class:`ResnetGenerator`.

    Raises:
        ConfigError: The taps are not places of the encoder, once each and in its order.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        *,
        domains: int,
        taps: Sequence[str] = DEFAULT_TAPS,
        **options: Any,
    ) -> None:
        super().__init__()
        self.resnet = ResnetGenerator(in_channels, out_channels, **options)
        self.resnet.check_taps(taps)
        places = list(self.resnet.tap_channels)
        last = max(places.index("block1"), places.index(taps[-1]))
        self.last_tap = places[last]
        self.tap_channels = {tap: self.resnet.tap_channels[tap] for tap in places[: last + 1]}
        shared = last - places.index("block1") + 1
        later = [block for block in self.resnet.blocks[shared:] if isinstance(block, ResidualBlock)]
        self.resnet.blocks = self.resnet.blocks[:shared]
        self.blocks = nn.ModuleList(DomainBlock(block, domains) for block in later)
        width = self.resnet.head.in_channels
        self.norm1, self.norm2 = DomainNorm(2 * width, domains), DomainNorm(width, domains)

    def forward(self, x_BCHW: Tensor, domains_B: Tensor) -> Tensor:
        """Translate images: (B, C_in, H, W) in [-1, 1], and (B,) int64, the domain wanted for each.

        Returns:
            (B, C_out, 4 ceil(H / 4), 4 ceil(W / 4)) in [-1, 1].
        """
        return self.decode(self.encode(x_BCHW, [self.last_tap])[0], domains_B)

    def translate_and_encode(
        self, x_BCHW: Tensor, taps: Sequence[str], domains_B: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """One full pass that also returns the features at ``taps``, in their order, at no extra cost."""
        features = self.encode(x_BCHW, [*taps, self.last_tap])
        return self.decode(features[-1], domains_B), features[: len(taps)]

    def encode(self, x_BCHW: Tensor, taps: Sequence[str]) -> list[Tensor]:
        """The features at ``taps``, in their order, which no domain changes. Raises ``KeyError`` for taps behind."""
        return self.resnet.encode(x_BCHW, taps)

    def decode(self, hidden_BCHW: Tensor, domains_B: Tensor) -> Tensor:
        """The features at the last tap, ``tap_channels`` of them -> the image in the domain wanted for each."""
        hidden = hidden_BCHW
        for block in self.blocks:
            hidden = block(hidden, domains_B)
        enlarge = self.resnet.enlarge
        hidden = F.relu(self.norm1(self.resnet.up1(enlarge(hidden)), domains_B), inplace=True)
        hidden = F.relu(self.norm2(self.resnet.up2(enlarge(hidden)), domains_B), inplace=True)
        return torch.tanh(self.resnet.head(F.pad(hidden, (3, 3, 3, 3), mode="reflect")))


class MultiTaskDiscriminator(nn.Module):
    """D with one output per domain: is this a real image of that domain?

    The multi-task discriminator of StarGAN v2 (Choi, Uh, Yoo and Ha, CVPR 2020, section 3.1): all domains share what
    comes before the last convolution, and each learns to tell its own real images from translations into it.

    Args:
        in_channels: Channels of the image.
        domains: How many domains there are.
        options: Further ones of :class:`PatchDiscriminator`.
    """

    def __init__(self, in_channels: int = 3, *, domains: int, **options: Any) -> None:
        super().__init__()
        self.patches = PatchDiscriminator(in_channels, out_channels=domains, **options)
        self.smallest_image = self.patches.smallest_image

    def forward(self, x_BCHW: Tensor, domains_B: Tensor) -> Tensor:
        """Images (B, C, H, W) in [-1, 1], and (B,) int64 -> (B, 1, h, w), the scores of each image's own domain."""
        scores_BDhw = self.patches(x_BCHW)
        return scores_BDhw[torch.arange(len(x_BCHW), device=x_BCHW.device), domains_B][:, None]
