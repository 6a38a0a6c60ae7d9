"""Counter-based random numbers: functions of a seed and a position instead of a generator's state.

The draw at a position is a hash of (seed, position), so it does not depend on the device, the process, the batch or the
size of the map.
"""

from __future__ import annotations

import torch
from torch import Tensor

_BITS = 53  # exact in float64, so that integers and floats have the same order


def _signed(value: int) -> int:
    """The int64 with the bits of an unsigned 64-bit number; torch has no arithmetic on uint64."""
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)


def _shift_right(value: Tensor, bits: int) -> Tensor:
    """Logical shift: int64 shifts copy the sign bit; the mask removes the copies."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def splitmix64(value: Tensor) -> Tensor:
    """One step of splitmix64 (Steele, Lea, Flood 2014) in wrapping int64 arithmetic: a hash of every number."""
    return _mix(value + _GOLDEN)


def _mix(value: Tensor) -> Tensor:
    """The finaliser of splitmix64."""
    value = (value ^ _shift_right(value, 30)) * _MIX_1
    value = (value ^ _shift_right(value, 27)) * _MIX_2
    return value ^ _shift_right(value, 31)


def location_keys(random_seeds: Tensor, positions: int) -> Tensor:
    """Draw one integer per image and position.

    Args:
        random_seeds: (B,) int64, one seed per image.
        positions: n, at least 1.

    Returns:
        (B, n) int64, uniform in [0, 2**53).
    """
    counters = torch.arange(1, positions + 1, device=random_seeds.device, dtype=torch.int64) * _GOLDEN
    streams = splitmix64(random_seeds)  # mixed first: seeds s and s + _GOLDEN must not share a stream
    return _shift_right(_mix(streams.unsqueeze(1) + counters), 64 - _BITS)


def location_draws(random_seeds: Tensor, positions: int) -> Tensor:
    """Draw one uniform number per image and position.

    Args:
        random_seeds: (B,) int64, one seed per image.
        positions: n, at least 1.

    Returns:
        (B, n) float64, uniform in [0, 1), with 53 random bits, on the device of the seeds (of mps: on the CPU).

    >>> location_draws(torch.tensor([0, 1]), 2).shape
    torch.Size([2, 2])
    """
    if random_seeds.device.type == "mps":  # has no float64
        random_seeds = random_seeds.cpu()
    return as_draws(location_keys(random_seeds, positions), torch.float64)


def as_draws(keys: Tensor, dtype: torch.dtype) -> Tensor:
    """Integers of :func:`location_keys` as numbers in [0, 1), rounded down so that none becomes 1.

    Args:
        keys: int64, any shape.
        dtype: ``torch.float64`` keeps all 53 bits, ``torch.float32`` the first 24 (some devices have no float64).
    """
    bits = _BITS if dtype == torch.float64 else 24
    return (keys >> (_BITS - bits)).to(dtype) * 2.0**-bits


def normal_draws(random_seeds: Tensor, positions: int) -> Tensor:
    """Draw one number from N(0, 1) per image and position: the normal quantiles of :func:`location_draws`.

    Args:
        random_seeds: (B,) int64, one seed per image.
        positions: n, at least 1.

    Returns:
        (B, n) float64, finite, on the device of :func:`location_draws`.
    """
    # A draw of 0, one in 2**53, has no finite quantile; a draw is never 1.
    return torch.special.ndtri(location_draws(random_seeds, positions).clamp(min=2.0**-54))
