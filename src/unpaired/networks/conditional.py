"""Generators with a conditioned second half, and a discriminator for several domains.

The multi-domain generator is conditioned by a learned scale and shift per channel and domain after each instance norm
of its second half (conditional instance normalisation: Dumoulin, Shlens and Kudlur, "A Learned Representation For
Artistic Style", ICLR 2017). Concatenated label maps (StarGAN, Choi et al., CVPR 2018) would have no effect here: a
constant map adds a constant to each channel, which the following instance norm removes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unpaired.networks.discriminators import PatchDiscriminator
from unpaired.networks.generators import DEFAULT_TAPS, ResidualBlock, ResnetGenerator, Stage, channels_at, run_stages
from unpaired.networks.layers import instance_norm
from unpaired.ops.half_precision import reflect


class DomainNorm(nn.Module):
    """Instance norm with a learned scale and shift per channel and domain, initially 1 and 0.

    (B, C, H, W) and (B,) domain indices -> (B, C, H, W). 2 C parameters per domain.
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


class ConditionedBlock(nn.Module):
    """A residual block with conditioned norms, made from an unconditioned one."""

    def __init__(self, block: ResidualBlock, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.conv1, self.conv2 = block.conv1, block.conv2
        self.norm1, self.norm2 = (norm(conv.out_channels) for conv in (self.conv1, self.conv2))

    def forward(self, x_BCHW: Tensor, condition: Tensor, of: Tensor | None = None) -> Tensor:
        """Features and one condition for each; with ``of``, (K,) int64, the indices of the features of K conditions."""
        hidden = self.conv1(x_BCHW)  # independent of the condition
        if of is not None:
            x_BCHW, hidden = x_BCHW[of], hidden[of]
        hidden = F.relu(self.norm1(hidden, condition), inplace=True)
        return x_BCHW + self.norm2(self.conv2(hidden), condition)


class ConditionedGenerator(nn.Module):
    """The ResNet generator with conditioned norms in its second half, one condition per image.

    Features up to the last of ``taps`` do not depend on the condition, so one encoding of an image serves all its
    translations, and the contrastive loss is independent of the target.

    Args:
        in_channels: Channels of the input image.
        out_channels: Channels of the output image.
        norm: Creates a norm for a number of channels: (B, C, H, W) and the condition -> (B, C, H, W).
        taps: Encoder layers whose features are used; the first residual block is never conditioned.
        options: Further options of :class:`ResnetGenerator`.

    Raises:
        ConfigError: The taps are not encoder layers, once each and in order.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        *,
        norm: Callable[[int], nn.Module],
        taps: Sequence[str] = DEFAULT_TAPS,
        **options: Any,
    ) -> None:
        super().__init__()
        self.resnet = ResnetGenerator(in_channels, out_channels, **options)
        channels_at(self.resnet.tap_channels, taps)
        places = list(self.resnet.tap_channels)
        last = max(places.index("block1"), places.index(taps[-1]))
        self.last_tap = places[last]
        self.tap_channels = {tap: self.resnet.tap_channels[tap] for tap in places[: last + 1]}
        self.shared_blocks = last - places.index("block1") + 1
        later = [block for block in self.resnet.blocks[self.shared_blocks :] if isinstance(block, ResidualBlock)]
        self.resnet.blocks = self.resnet.blocks[: self.shared_blocks]
        self.blocks = nn.ModuleList(ConditionedBlock(block, norm) for block in later)
        width = self.resnet.head.in_channels
        self.norm1, self.norm2 = norm(2 * width), norm(width)

    def encode(self, x_BCHW: Tensor, taps: Sequence[str]) -> list[Tensor]:
        """The features at ``taps``, in order. Raises ``KeyError`` for taps behind the last one."""
        return self.resnet.encode(x_BCHW, taps)

    def decode(self, hidden_BCHW: Tensor, condition: Tensor) -> Tensor:
        """Features at the last tap and one condition for each -> images."""
        return run_stages(self._decoder_stages(condition), hidden_BCHW, ())[0]

    def _decoder_stages(self, condition: Tensor, of: Tensor | None = None) -> list[Stage]:
        """Stages of the conditioned half, in order, with the names of :class:`ResnetGenerator`.

        With ``of``, (K,) int64, there are K conditions, and ``of`` holds the index of the features of each.
        """
        resnet, first = self.resnet, self.shared_blocks + 1
        if of is not None and not self.blocks:
            raise ValueError("no residual block is conditioned: give features and conditions in equal number")

        def stage(number: int, block: nn.Module) -> Stage:
            return f"block{number}", lambda x: block(x, condition, of if number == first else None)

        return [
            *(stage(number, block) for number, block in enumerate(self.blocks, start=first)),
            ("up1", lambda x: resnet.up1(resnet.enlarge(x))),
            ("doubled1", lambda x: F.relu(self.norm1(x, condition), inplace=True)),
            ("up2", lambda x: resnet.up2(resnet.enlarge(x))),
            ("doubled2", lambda x: F.relu(self.norm2(x, condition), inplace=True)),
            ("head", lambda x: resnet.head(reflect(x, 3))),
            ("image", torch.tanh),
        ]


class ConditionalGenerator(ConditionedGenerator):
    """G(x, domain), with the second half conditioned on the target domain.

    Initially it equals :class:`ResnetGenerator`. With the defaults and three domains it has 11,391,619 parameters:
    those of that generator and 3 x 2 x (8 x 256 for the norms of four blocks + 128 + 64 for the upsampling layers).

    Args:
        in_channels: Channels of the input image.
        out_channels: Channels of the output image.
        domains: Number of domains, at least 2.
        options: Further options of :class:`ConditionedGenerator` and :class:`ResnetGenerator`.
    """

    def __init__(self, in_channels: int = 3, out_channels: int = 3, *, domains: int, **options: Any) -> None:
        super().__init__(in_channels, out_channels, norm=lambda channels: DomainNorm(channels, domains), **options)

    def forward(self, x_BCHW: Tensor, domains_B: Tensor) -> Tensor:
        """Translate images: (B, C_in, H, W) in [-1, 1] and (B,) int64, the target domain of each.

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


class MultiTaskDiscriminator(nn.Module):
    """D with one real/fake output per domain.

    The multi-task discriminator of StarGAN v2 (Choi, Uh, Yoo and Ha, CVPR 2020, section 3.1): the domains share
    everything but the last convolution.

    Args:
        in_channels: Channels of the image.
        domains: Number of domains.
        options: Further options of :class:`PatchDiscriminator`.
    """

    def __init__(self, in_channels: int = 3, *, domains: int, **options: Any) -> None:
        super().__init__()
        self.patches = PatchDiscriminator(in_channels, out_channels=domains, **options)
        self.smallest_image = self.patches.smallest_image

    def forward(self, x_BCHW: Tensor, domains_B: Tensor) -> Tensor:
        """Images (B, C, H, W) in [-1, 1], and (B,) int64 -> (B, 1, h, w), the scores of each image's own domain."""
        scores_BDhw = self.patches(x_BCHW)
        return scores_BDhw[torch.arange(len(x_BCHW), device=x_BCHW.device), domains_B][:, None]
