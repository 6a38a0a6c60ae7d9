"""How the values of a file become the [-1, 1] that networks see, and back: pure arithmetic, no files."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import torch
from torch import Tensor

from unpaired.config import Value, settings
from unpaired.errors import ConfigError

PixelType = Literal["uint8", "uint16", "float32"]
"""Types of pixels, from narrow to wide."""

LARGEST = {"uint8": 255, "uint16": 65535}
"""Integer type -> its largest value; the smallest is 0."""

_WIDEST_INTEGERS = 2.0**24
"""Range of integers beyond which float32 in [-1, 1] would lose more than one level."""


@settings
class ValueMapping:
    """A line through (low, -1) and (high, 1) for each channel; values beyond the two ends are taken for the ends.

    There and back loses at most one level: nothing at all with integers inside the range, and at most 2**-23 of the
    range with float32.
    """

    name: Literal["dtype", "range", "percentiles"] = "dtype"
    """Where the ends come from: the type's own range, two numbers that somebody gave, or the training images."""
    low: tuple[Value, ...] = (0.0,)
    """Value that becomes -1: one for all channels, or one per channel."""
    high: tuple[Value, ...] = (255.0,)
    """Value that becomes 1, in the same way."""

    def __post_init__(self) -> None:
        if len(self.low) != len(self.high) or not self.low:
            raise ConfigError(f"a mapping needs as many low ends as high ones, not {self.low} and {self.high}")
        for low, high in zip(self.low, self.high, strict=True):
            if low >= high:
                raise ConfigError(f"a range of values goes from a smaller to a larger number, not from {low} to {high}")

    @property
    def of_bytes(self) -> bool:
        """Whether it is the mapping of 8-bit images, 0..255."""
        return self.low == (0.0,) and self.high == (255.0,)

    def check(self, dtype: PixelType, channels: int) -> None:
        """Raise ``ConfigError`` if this mapping cannot work for such images."""
        if len(self.low) not in (1, channels):
            raise ConfigError(f"the mapping has {len(self.low)} ranges, but the images {channels} channels")
        widest = max(high - low for low, high in zip(self.low, self.high, strict=True))
        if dtype != "float32" and widest > _WIDEST_INTEGERS:
            raise ConfigError(
                f"a range of {widest:g} is too wide for {dtype} images: whole levels would be lost; "
                f"their values go from 0 to {LARGEST[dtype]}"
            )

    def to_floats(self, values: Tensor, pin_memory: bool = False) -> Tensor:
        """Values (..., C, H, W) of a pixel type as a new contiguous float32 tensor in [-1, 1]."""
        floats = torch.empty(values.shape, dtype=torch.float32, pin_memory=pin_memory)
        if values.dtype == torch.uint8 and self.of_bytes:
            return floats.copy_(values).div_(127.5).sub_(1.0)
        low, high = self._ends(values)
        return floats.copy_(values.double().sub_(low).mul_(2.0 / (high - low)).sub_(1.0).clamp_(-1.0, 1.0))

    def to_values(self, floats: Tensor, dtype: PixelType) -> Tensor:
        """The inverse: floats (..., C, H, W), clamped to [-1, 1], as values of ``dtype`` on the CPU.

        Raises:
            ValueError: A float is NaN.
        """
        floats = floats.detach().to("cpu", torch.float32)
        if floats.isnan().any():
            raise ValueError("the image tensor holds NaN")
        if dtype == "uint8" and self.of_bytes:
            return floats.add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
        low, high = self._ends(floats)
        values = floats.double().clamp_(-1.0, 1.0).add_(1.0).mul_((high - low) / 2.0).add_(low)
        if dtype == "float32":
            return values.float()
        values = values.round_().clamp_(0, LARGEST[dtype])
        return values.to(torch.uint8 if dtype == "uint8" else torch.uint16)

    def _ends(self, images: Tensor) -> tuple[Tensor, Tensor]:
        low, high = (torch.tensor(ends, dtype=torch.float64).view(-1, 1, 1) for ends in (self.low, self.high))
        if len(low) not in (1, images.shape[-3]):
            raise ValueError(f"a mapping of {len(low)} channels does not fit {tuple(images.shape)}")
        return low, high


BYTES = ValueMapping()
"""The mapping of 8-bit images."""


def own_range(dtype: PixelType) -> ValueMapping:
    """The mapping of an integer type's whole range. Raises ``ConfigError`` for float32, which has none."""
    if dtype == "float32":
        raise ConfigError(
            "floating-point values have no range of their own; say which become -1 and 1: --value-range LOW HIGH, or "
            "--value-range percentiles to take them from the images (--target-value-range for the target)"
        )
    return ValueMapping("dtype", (0.0,), (float(LARGEST[dtype]),))


def widest(stored: Collection[str]) -> PixelType:
    """The narrowest type that holds what files of these types (numpy's names) hold.

    >>> widest({"uint8", "uint16"}), widest({"int16"})
    ('uint16', 'float32')
    """
    if "uint8" in stored and len({*stored}) == 1:
        return "uint8"
    return "uint16" if LARGEST.keys() >= {*stored} else "float32"
