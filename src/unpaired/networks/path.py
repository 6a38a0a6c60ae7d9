"""The generator of SANTA: one decoder for every place on the path between two domains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unpaired.networks.conditional import ConditionedGenerator
from unpaired.networks.generators import run_stages
from unpaired.networks.layers import initialise, instance_norm


class CodeNorm(nn.Module):
    """Instance norm, then a scale and a shift per channel, each a linear function of a code (AdaIN).

    (B, C, H, W) and codes (B, S) -> (B, C, H, W). 2 C (S + 1) parameters.
    """

    def __init__(self, channels: int, code_channels: int) -> None:
        super().__init__()
        self.affine = nn.Linear(code_channels, 2 * channels)

    def forward(self, x_BCHW: Tensor, codes_BS: Tensor) -> Tensor:
        normed = instance_norm(x_BCHW)
        scale, shift = self.affine(codes_BS).to(normed.dtype)[:, :, None, None].chunk(2, dim=1)
        return torch.addcmul(shift, normed, 1 + scale)


class PathGenerator(ConditionedGenerator):
    """G(x, t) of SANTA: t = 0 writes the source domain, t = 1 the target domain, values between lie on the path.

    Each end of the path has a learned code; the code of a place is interpolated between them and steers the norms of
    the decoder. At the defaults it has 11,427,731 parameters: those of the ResNet generator, 2 x 8 for the codes and
    18 (10 x 256 for the norms of five blocks + 128 + 64 for the doublings).

    Args:
        in_channels: Channels of the input image.
        out_channels: Channels of the output image.
        blocks: Residual blocks, at least 2; the first half of them, rounded down, belongs to the encoder.
        code_channels: S, dimension of the codes.
        options: Further ones of :class:`unpaired.networks.ResnetGenerator`.
    """

    def __init__(
        self, in_channels: int = 3, out_channels: int = 3, *, blocks: int = 9, code_channels: int = 8, **options: Any
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            norm=lambda channels: CodeNorm(channels, code_channels),
            taps=(f"block{blocks // 2}",),
            blocks=blocks,
            **options,
        )
        self.ends_2S = nn.Parameter(torch.empty(2, code_channels))
        initialise(self)
        nn.init.xavier_normal_(self.ends_2S, gain=0.02)

    def forward(self, x_BCHW: Tensor, places_B: Tensor) -> Tensor:
        """Images (B, C_in, H, W) in [-1, 1] and places (B,) in [0, 1] -> (B, C_out, 4 ceil(H / 4), 4 ceil(W / 4))."""
        return self.decode(self.encode(x_BCHW, [self.last_tap])[0], self.codes(places_B))

    def codes(self, places_B: Tensor) -> Tensor:
        """Places (B,) on the path, 0 to 1 -> their codes (B, S)."""
        return torch.lerp(self.ends_2S[0], self.ends_2S[1], places_B[:, None].to(self.ends_2S.dtype))

    def decode_along(
        self, hidden_BCHW: Tensor, places_K: Tensor, of_K: Tensor, taps: Sequence[str]
    ) -> tuple[Tensor, list[Tensor]]:
        """Images at K places, and what the decoder computes on the way; what no place changes is computed once.

        Args:
            hidden_BCHW: Encodings, as :meth:`encode` gives them at the last tap.
            places_K: (K,) in [0, 1].
            of_K: (K,) int64, the number of the encoding that each place belongs to.
            taps: Stages of the decoder.

        Returns:
            (K, C_out, H, W) in [-1, 1], and the features at ``taps``, each of K images.
        """
        return run_stages(self._decoder_stages(self.codes(places_K), of_K), hidden_BCHW, taps)
