"""The operations of a network, each computable on any rows of its output.

Rows are counted on the map of the whole image. Padding belongs to the step behind it and is applied at the edges of the
image only; inside the image a step sees the real neighbouring rows.

Legend: maps are (1, C, rows, W) float32, or bf16 behind a convolution with bf16 weights. ``start`` and ``stop`` count
rows of an output, ``height`` is that of the whole input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

_READ_WRITE = 30.0
"""Cost of reading and writing one number, in floating point operations of a convolution."""
_WINOGRAD_SHARE = 0.45
"""Time of a 3 x 3 convolution by Winograd's algorithm, as a share of the direct one's (benchmarks, 256 channels)."""
_WINOGRAD_TILES = 256


@dataclass(frozen=True)
class Padding:
    """Rows and columns around a map: ``constant`` (of ``value``), ``reflect`` or ``replicate``."""

    mode: str
    left: int
    right: int
    top: int
    bottom: int
    value: float = 0.0

    def reach(self, start: int, stop: int, height: int) -> tuple[int, int]:
        """The rows of the map that padded rows ``start`` to ``stop - 1`` need, the range that ``rows`` expects."""
        first, last = start - self.top, stop - self.top
        if first < 0:
            first, last = 0, max(last, self.top + 1)
        if last > height:
            first, last = min(first, height - 1 - self.bottom), height
        return max(first, 0), min(last, height)

    def rows(self, part: Tensor, first: int, start: int, stop: int, height: int) -> Tensor:
        """Padded rows ``start`` to ``stop - 1`` from the map's own rows, which begin at ``first``."""
        top = self.top if start < self.top else 0
        bottom = self.bottom if stop > height + self.top else 0
        constant = {"value": self.value} if self.mode == "constant" else {}
        padded = F.pad(part, (self.left, self.right, top, bottom), self.mode, **constant)
        begin = first + self.top - top
        return padded[:, :, start - begin : stop - begin]


@dataclass(frozen=True, eq=False)
class Step:
    """One operation: the rows of its inputs -> the same rows of its output, unless the geometry says otherwise.

    Output row r depends on rows ``(r * down + low) // up`` to ``(r * down + high) // up`` of the padded input.

    Attributes:
        inputs: Numbers of the steps whose outputs it takes.
        channels: Channels of its output.
        function: Computes output rows from input rows; None for the image and for norms.
        in_place: The same function of one map, written over its input, if there is one.
        crop: Rows that ``function`` computes above those of the output.
        padding: What is put around the input first.
        padded_channels: Channels of the input where it is padded.
        scratch: Numbers that ``function`` holds beside inputs and outputs: per output number, and per column.
    """

    inputs: tuple[int, ...]
    channels: int
    function: Callable[..., Tensor] | None = None
    in_place: Callable[[Tensor], Tensor] | None = None
    up: int = 1
    down: int = 1
    low: int = 0
    high: int = 0
    crop: int = 0
    padding: Padding | None = None
    padded_channels: int = 0
    scratch: tuple[float, float] = (0.0, 0.0)

    def _window(self, start: int, stop: int, height: int) -> tuple[int, int]:
        """The rows of the padded input that some output rows depend on."""
        if self.padding is not None:
            height += self.padding.top + self.padding.bottom
        first = min(max((start * self.down + self.low) // self.up, 0), height - 1)
        return first, max(first + 1, min(((stop - 1) * self.down + self.high) // self.up + 1, height))

    def reach(self, start: int, stop: int, height: int) -> tuple[int, int]:
        """The input rows that ``run`` needs for output rows ``start`` to ``stop - 1``, never none."""
        first, last = self._window(start, stop, height)
        return (first, last) if self.padding is None else self.padding.reach(first, last, height)

    def compute(self, parts: Sequence[Tensor]) -> Tensor:
        """``function`` of the rows of the inputs."""
        assert self.function is not None, "the image is read, and norms need the statistics of the whole map"
        return self.function(*parts)

    def run(self, parts: Sequence[Tensor], first: int, start: int, stop: int, height: int) -> Tensor:
        """Output rows from the input rows that ``reach`` names, which begin at ``first``."""
        if self.padding is not None:
            window = self._window(start, stop, height)
            parts, first = [self.padding.rows(parts[0], first, *window, height)], window[0]
        above = start - (first * self.up // self.down - self.crop)
        return self.compute(parts)[:, :, above : above + stop - start]

    def size(self, channels: int, height: int, width: int) -> tuple[int, int]:
        """Height and width of the whole output, for an input of this size."""
        if self.padding is None and (self.up, self.down, self.low, self.high) == (1, 1, 0, 0):
            return height, width
        whole = torch.empty(1, channels, height, width, device="meta")
        if self.padding is not None:
            whole = self.padding.rows(whole, 0, 0, height + self.padding.top + self.padding.bottom, height)
        made = self.compute([whole])
        return made.shape[2] - 2 * self.crop, made.shape[3]

    @property
    def operations(self) -> float:
        """Floating point operations per pixel of the output."""
        return _READ_WRITE * self.channels * bool(self.inputs)

    def work(self, rows: int, width: int) -> float:
        """Floating point operations of so many output rows."""
        return self.operations * rows * width

    def workspace(self, rows: int, width: int) -> int:
        """Bytes held beside inputs and outputs."""
        padded = self.padded_channels * rows * self.down * width * self.down // self.up**2
        return int(4 * (self._held(rows, width) + padded))

    def _held(self, rows: int, width: int) -> float:
        per_number, per_column = self.scratch
        return (per_number * self.channels * rows + per_column) * width

    def in_half(self) -> Step:
        """The same step with bf16 weights, if it is a convolution."""
        return self


@dataclass(frozen=True, eq=False)
class Norm(Step):
    """Group normalisation (instance normalisation: one channel per group) by the statistics of the whole map."""

    groups: int = 1
    weight: Tensor | None = None
    bias: Tensor | None = None
    eps: float = 1e-5


@dataclass(frozen=True, eq=False, kw_only=True)
class Convolution(Step):
    """A convolution or transposed convolution: ``function(map, weight, bias)``.

    Attributes:
        area: Outputs that share the weights of one input, ``up`` squared in a transposed convolution.
        tiled: Whether Winograd's algorithm computes it in float32 on the CPU.
    """

    weight: Tensor
    bias: Tensor | None = None
    area: int = 1
    tiled: bool = False

    def compute(self, parts: Sequence[Tensor]) -> Tensor:
        assert self.function is not None
        weight, bias = self.weight, self.bias
        if parts[0].is_meta:
            weight, bias = weight.to("meta"), bias if bias is None else bias.to("meta")
        return self.function(parts[0].to(weight.dtype), weight, bias)

    @property
    def _by_tiles(self) -> bool:
        return self.tiled and self.weight.device.type == "cpu" and self.weight.dtype == torch.float32

    @property
    def operations(self) -> float:
        share = _WINOGRAD_SHARE if self._by_tiles else 1.0
        return share * 2 * self.weight.numel() / self.area + super().operations

    def _held(self, rows: int, width: int) -> float:
        if not self._by_tiles:
            return super()._held(rows, width)
        outputs, inputs = self.weight.shape[:2]  # transformed tiles before and behind the product, and the filters
        return 36 * (2 * max(_WINOGRAD_TILES, width // 4 + 1) * (inputs + outputs) + inputs * outputs)

    def in_half(self) -> Step:
        """Weights are rounded once, and lie channels last, as products in bf16 want them."""
        weight = self.weight.to(torch.bfloat16, memory_format=torch.channels_last)
        return replace(self, weight=weight, bias=None if self.bias is None else self.bias.to(torch.bfloat16))


def row_bytes(channels: int, width: int) -> int:
    """Bytes of one row of a map."""
    return torch.float32.itemsize * channels * width
