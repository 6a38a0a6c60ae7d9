"""The kinds of step a network may consist of, each computed on any rows of its output.

A step maps whole-width rows of its inputs to rows of its output. Rows are counted on the map of the whole image, and
borders are treated as on the whole image: real neighbours inside, the network's own padding at the edges. Padding is a
step of its own (:class:`Pad`), so that no other step has borders.

Legend: all maps are (1, C, rows, W) float32, or bf16 behind a convolution whose weights are. ``start`` and ``stop``
count rows of an output, ``height`` is that of the whole input.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from unpaired.ops.winograd import conv2d

Rows = tuple[int, int]
"""First row and the one behind the last."""

_TOUCH = 30
"""Work of reading and writing one number, in operations of a convolution: both take some nanoseconds."""
_WINOGRAD_SHARE = 0.45
"""Time of a 3 x 3 convolution by Winograd's algorithm, as a share of the direct one's (benchmarks, 256 channels)."""
_WINOGRAD_CHANNELS = 60.0
_WINOGRAD_TILE = 36 / 4


class Step(ABC):
    """One operation of the network.

    Attributes:
        inputs: Numbers of the steps whose outputs it takes.
        channels: Channels of its output.
    """

    inputs: tuple[int, ...]
    channels: int

    @abstractmethod
    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the whole output."""

    @abstractmethod
    def reach(self, start: int, stop: int, height: int) -> Rows:
        """The rows of the inputs that output rows ``start`` to ``stop - 1`` need; never empty."""

    @abstractmethod
    def run(self, parts: Sequence[Tensor], first: int, start: int, stop: int, height: int) -> Tensor:
        """Output rows from the input rows that :meth:`reach` names, which begin at ``first``."""

    def in_half(self) -> Step:
        """The same step with bf16 weights, if it is a convolution."""
        return self

    def work(self, rows: int, width: int) -> float:
        """Cost of so many output rows, in floating point operations of a direct convolution."""
        return float(_TOUCH * self.channels * rows * width)

    def workspace(self, rows: int, width: int) -> int:
        """Bytes that it needs beside its inputs and outputs."""
        return 0


@dataclass(frozen=True)
class Source(Step):
    """The image; also stands for any map that lies ready."""

    channels: int
    inputs: tuple[int, ...] = ()

    def size(self, height: int, width: int) -> tuple[int, int]:
        return height, width

    def reach(self, start: int, stop: int, height: int) -> Rows:
        return start, stop

    def run(self, parts: Sequence[Tensor], first: int, start: int, stop: int, height: int) -> Tensor:
        raise AssertionError("a source is read, not computed")

    def work(self, rows: int, width: int) -> float:
        return 0.0


@dataclass(frozen=True)
class Pad(Step):
    """Add rows and columns: ``constant`` (of ``value``), ``reflect`` or ``replicate``."""

    inputs: tuple[int, ...]
    channels: int
    mode: str
    left: int
    right: int
    top: int
    bottom: int
    value: float = 0.0

    def size(self, height: int, width: int) -> tuple[int, int]:
        return height + self.top + self.bottom, width + self.left + self.right

    def _sources(self, start: int, stop: int, height: int) -> list[int]:
        """Input row of each output row; -1 where there is none."""
        found = []
        for row in range(start - self.top, stop - self.top):
            if 0 <= row < height:
                found.append(row)
            elif self.mode == "constant":
                found.append(-1)
            elif self.mode == "replicate":
                found.append(0 if row < 0 else height - 1)
            else:
                found.append(-row if row < 0 else 2 * (height - 1) - row)
        return found

    def reach(self, start: int, stop: int, height: int) -> Rows:
        # Between the borders rows map to themselves: only the ends are looked at one by one.
        edge = max(self.top, self.bottom) + 1
        ends = {*range(start, min(stop, start + 2 * edge)), *range(max(start, stop - 2 * edge), stop)}
        rows = [row for each in ends for row in self._sources(each, each + 1, height) if row >= 0]
        return (min(rows), max(rows) + 1) if rows else (height - 1, height) if start else (0, 1)

    def run(self, parts: Sequence[Tensor], first: int, start: int, stop: int, height: int) -> Tensor:
        return self.append(None, parts[0], first, start, stop, height)

    def append(self, before: Tensor | None, part: Tensor, first: int, start: int, stop: int, height: int) -> Tensor:
        """The rows ``before``, which are padded already, and the new ones below them, in one tensor."""
        kept = 0 if before is None else before.shape[2]
        width = part.shape[3]
        joined = part.new_empty(1, self.channels, kept + stop - start, width + self.left + self.right)
        if before is not None:
            joined[:, :, :kept] = before
        new = joined[:, :, kept:]
        inside = new[:, :, :, self.left : self.left + width]
        sources = self._sources(start, stop, height)
        top = min(max(self.top - start, 0), len(sources))  # rows above the map; then its own; then those below
        bottom = max(min(height + self.top - start, len(sources)), top)
        if bottom > top:
            row = sources[top] - first
            inside[:, :, top:bottom] = part[:, :, row : row + bottom - top]
        for number in (*range(top), *range(bottom, len(sources))):
            inside[:, :, number] = self.value if sources[number] < 0 else part[:, :, sources[number] - first]
        self._columns(new, width)
        return joined

    def _columns(self, new: Tensor, width: int) -> None:
        end = self.left + width
        if self.mode == "constant":
            new[..., : self.left] = self.value
            new[..., end:] = self.value
        elif self.mode == "replicate":
            new[..., : self.left] = new[..., self.left : self.left + 1]
            new[..., end:] = new[..., end - 1 : end]
        else:
            for k in range(1, self.left + 1):
                new[..., self.left - k] = new[..., self.left + k]
            for k in range(self.right):
                new[..., end + k] = new[..., end - 2 - k]


@dataclass(frozen=True)
class Convolution(Step):
    """A convolution without padding."""

    inputs: tuple[int, ...]
    channels: int
    weight: Tensor
    bias: Tensor | None
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def _span(self) -> tuple[int, int]:
        """Rows and columns that one output sees."""
        taps = self.weight.shape[2:]
        return self.dilation[0] * (taps[0] - 1) + 1, self.dilation[1] * (taps[1] - 1) + 1

    @property
    def minimal(self) -> bool:
        """Whether :func:`unpaired.ops.winograd.conv2d` computes it."""
        taps = self.weight.shape[2:]
        return self.groups == 1 and taps[0] == taps[1] and self.stride == self.dilation == (1, 1)

    def size(self, height: int, width: int) -> tuple[int, int]:
        rows, columns = self._span
        return (height - rows) // self.stride[0] + 1, (width - columns) // self.stride[1] + 1

    def reach(self, start: int, stop: int, height: int) -> Rows:
        return start * self.stride[0], (stop - 1) * self.stride[0] + self._span[0]

    def in_half(self) -> Step:
        return _with_half_weights(self)

    def run(self, parts: Sequence[Tensor], first: int, start: int, stop: int, height: int) -> Tensor:
        map_1CHW = parts[0].to(self.weight.dtype)
        if self.minimal:
            return conv2d(map_1CHW, self.weight, self.bias)
        return F.conv2d(map_1CHW, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)

    def _by_tiles(self) -> bool:
        outputs, inputs = self.weight.shape[:2]
        fits = self.weight.shape[2] in (3, 4) and inputs * outputs >= _WINOGRAD_CHANNELS * (inputs + outputs)
        return self.minimal and fits and self.weight.device.type == "cpu" and self.weight.dtype == torch.float32

    def work(self, rows: int, width: int) -> float:
        share = _WINOGRAD_SHARE if self._by_tiles() else 1.0
        return share * 2 * self.weight.numel() * rows * width + super().work(rows, width)

    def workspace(self, rows: int, width: int) -> int:
        outputs, inputs = self.weight.shape[0], self.weight.shape[1] * self.groups
        if self._by_tiles():  # transformed tiles, before and behind the product over the channels, and the filters
            tiles = max(256, width // 4 + 1)
            return 4 * (2 * 36 * tiles * (inputs + outputs) + 36 * inputs * outputs)
        # The library reorders both maps into blocks of channels.
        return 4 * (inputs * rows * self.stride[0] * width * self.stride[1] + outputs * rows * width)


@dataclass(frozen=True)
class TransposedConvolution(Step):
    """A transposed convolution with its own padding, which crops the output."""

    inputs: tuple[int, ...]
    channels: int
    weight: Tensor
    bias: Tensor | None
    stride: tuple[int, int]
    padding: tuple[int, int]
    output_padding: tuple[int, int]
    groups: int = 1

    def size(self, height: int, width: int) -> tuple[int, int]:
        taps = self.weight.shape[2:]
        rows, columns = (
            (side - 1) * self.stride[axis] - 2 * self.padding[axis] + taps[axis] + self.output_padding[axis]
            for axis, side in enumerate((height, width))
        )
        return rows, columns

    def reach(self, start: int, stop: int, height: int) -> Rows:
        stride, padding, taps = self.stride[0], self.padding[0], self.weight.shape[2]
        first = min(max(0, -((taps - 1 - start - padding) // stride)), height - 1)
        return first, max(first + 1, min(height, (stop - 1 + padding) // stride + 1))

    def in_half(self) -> Step:
        return _with_half_weights(self)

    def run(self, parts: Sequence[Tensor], first: int, start: int, stop: int, height: int) -> Tensor:
        map_1CHW = parts[0].to(self.weight.dtype)
        whole = F.conv_transpose2d(
            map_1CHW, self.weight, self.bias, self.stride, (0, self.padding[1]), self.output_padding, self.groups
        )
        top = start - (self.stride[0] * first - self.padding[0])
        return whole[:, :, top : top + stop - start]

    def work(self, rows: int, width: int) -> float:
        per_output = 2 * self.weight.numel() / math.prod(self.stride)
        return per_output * rows * width + super().work(rows, width)

    def workspace(self, rows: int, width: int) -> int:
        return 2 * 4 * self.channels * rows * width


@dataclass(frozen=True)
class Enlargement(Step):
    """Repeat pixels, or interpolate linearly between their centres, by a whole factor along each axis."""

    inputs: tuple[int, ...]
    channels: int
    mode: Literal["nearest", "bilinear"]
    factor: tuple[int, int]

    def size(self, height: int, width: int) -> tuple[int, int]:
        return height * self.factor[0], width * self.factor[1]

    def reach(self, start: int, stop: int, height: int) -> Rows:
        factor = self.factor[0]
        if self.mode == "nearest":
            return start // factor, (stop - 1) // factor + 1
        first, last = (math.floor((row + 0.5) / factor - 0.5) for row in (start, stop - 1))
        return max(first, 0), min(last + 2, height)

    def run(self, parts: Sequence[Tensor], first: int, start: int, stop: int, height: int) -> Tensor:
        corners = None if self.mode == "nearest" else False
        scale: Any = tuple(map(float, self.factor))
        whole = F.interpolate(parts[0], scale_factor=scale, mode=self.mode, align_corners=corners)
        top = start - self.factor[0] * first
        return whole[:, :, top : top + stop - start]

    def workspace(self, rows: int, width: int) -> int:
        return 4 * self.channels * 4 * width  # rows that are computed and cut off


class _RowByRow(Step):
    """A step whose output row depends on the same row of its inputs only."""

    def size(self, height: int, width: int) -> tuple[int, int]:
        return height, width

    def reach(self, start: int, stop: int, height: int) -> Rows:
        return start, stop


@dataclass(frozen=True)
class Norm(_RowByRow):
    """Group normalisation (instance normalisation: a group per channel); its statistics are the whole map's.

    They are gathered by another pass, so it is run by whoever has them
    (:func:`unpaired.inference.large_images.stream.stream`).
    """

    inputs: tuple[int, ...]
    channels: int
    groups: int
    weight: Tensor | None
    bias: Tensor | None
    eps: float

    def run(self, parts: Sequence[Tensor], first: int, start: int, stop: int, height: int) -> Tensor:
        raise AssertionError("a norm needs the statistics of the whole map")


@dataclass(frozen=True)
class ChannelNorm(_RowByRow):
    """Layer normalisation over the channels of each pixel, which needs no other pixel."""

    inputs: tuple[int, ...]
    channels: int
    weight: Tensor | None
    bias: Tensor | None
    eps: float

    def run(self, parts: Sequence[Tensor], first: int, start: int, stop: int, height: int) -> Tensor:
        rows_1HWC = parts[0].permute(0, 2, 3, 1)
        return F.layer_norm(rows_1HWC, (self.channels,), self.weight, self.bias, self.eps).permute(0, 3, 1, 2)

    def workspace(self, rows: int, width: int) -> int:
        return 4 * self.channels * rows * width  # the library lays the channels of a pixel side by side


@dataclass(frozen=True)
class Concatenation(_RowByRow):
    """The channels of several maps of one size, one map after the other."""

    inputs: tuple[int, ...]
    channels: int

    def run(self, parts: Sequence[Tensor], first: int, start: int, stop: int, height: int) -> Tensor:
        return torch.cat(list(parts), 1)


@dataclass(frozen=True)
class Pointwise(_RowByRow):
    """A function of single numbers, such as ReLU, or of several maps and constants per channel, such as a sum.

    Attributes:
        function: What is computed.
        arguments: Its positional arguments; None where the maps go, in the order of ``inputs``.
        options: Its keyword arguments.
        in_place: The same function of one map, written over its input, if there is one.
    """

    inputs: tuple[int, ...]
    channels: int
    function: Callable[..., Tensor]
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    in_place: Callable[[Tensor], Tensor] | None = None

    def run(self, parts: Sequence[Tensor], first: int, start: int, stop: int, height: int) -> Tensor:
        maps = iter(parts)
        arguments = [next(maps) if each is MAP else each for each in self.arguments]
        return self.function(*arguments, **self.options)


MAP = object()
"""Stands for a map among the arguments of :class:`Pointwise`."""


def _with_half_weights(step: Convolution | TransposedConvolution) -> Step:
    """Weights are rounded once, and lie channels last, as their products in bf16 want them."""
    weight = step.weight.to(torch.bfloat16, memory_format=torch.channels_last)
    return replace(step, weight=weight, bias=None if step.bias is None else step.bias.to(torch.bfloat16))


def row_bytes(channels: int, width: int) -> int:
    """Bytes of one row of a map."""
    return torch.float32.itemsize * channels * width
