"""The generator of SANTA: a decoder conditioned on the position along the path between two domains."""

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
    """G(x, t) of SANTA: t = 0 gives the source domain, t = 1 the target domain, values between lie on the path.

    Each end of the path has a learned code; the interpolated code conditions the norms of the decoder. With the
    defaults it has 11,427,731 parameters: those of the ResNet generator, 2 x 8 for the codes and
    18 (10 x 256 for the norms of five blocks + 128 + 64 for the upsampling layers).

    Args:
        in_channels: Channels of the input image.
        out_channels: Channels of the output image.
        blocks: Residual blocks, at least 2; the first half, rounded down, belongs to the encoder.
        code_channels: S, dimension of the codes.
        options: Further options of :class:`unpaired.networks.ResnetGenerator`.
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

    def forward(self, x_BCHW: Tensor, positions_B: Tensor) -> Tensor:
        """Images (B, C_in, H, W) and positions (B,) in [0, 1] -> (B, C_out, 4 ceil(H / 4), 4 ceil(W / 4))."""
        return self.decode(self.encode(x_BCHW, [self.last_tap])[0], self.codes(positions_B))

    def codes(self, positions_B: Tensor) -> Tensor:
        """Positions (B,) on the path, 0 to 1 -> codes (B, S)."""
        return torch.lerp(self.ends_2S[0], self.ends_2S[1], positions_B[:, None].to(self.ends_2S.dtype))

    def decode_along(
        self, hidden_BCHW: Tensor, positions_K: Tensor, of_K: Tensor, taps: Sequence[str]
    ) -> tuple[Tensor, list[Tensor]]:
        """Images at K positions and intermediate features; what does not depend on the position is computed once.

        Args:
            hidden_BCHW: Encodings, as :meth:`encode` returns them at the last tap.
            positions_K: (K,) in [0, 1].
            of_K: (K,) int64, the index of the encoding of each position.
            taps: Stages of the decoder.

        Returns:
            (K, C_out, H, W) in [-1, 1], and the features at ``taps``, each of K images.
        """
        return run_stages(self._decoder_stages(self.codes(positions_K), of_K), hidden_BCHW, taps)
