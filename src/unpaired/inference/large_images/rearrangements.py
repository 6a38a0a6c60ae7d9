"""Steps that move numbers between channels and pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from unpaired.inference.large_images.steps import Rows, Step


@dataclass(frozen=True)
class SpaceToDepth(Step):
    """Blocks of ``factor`` x ``factor`` pixels become channels of one."""

    inputs: tuple[int, ...]
    channels: int
    factor: int

    def size(self, height: int, width: int) -> tuple[int, int]:
        return height // self.factor, width // self.factor

    def reach(self, start: int, stop: int, height: int) -> Rows:
        return start * self.factor, stop * self.factor

    def run(self, parts: Sequence[Tensor], first: int, start: int, stop: int, height: int) -> Tensor:
        return F.pixel_unshuffle(parts[0], self.factor)


@dataclass(frozen=True)
class DepthToSpace(Step):
    """The channels of one pixel become blocks of ``factor`` x ``factor`` pixels."""

    inputs: tuple[int, ...]
    channels: int
    factor: int

    def size(self, height: int, width: int) -> tuple[int, int]:
        return height * self.factor, width * self.factor

    def reach(self, start: int, stop: int, height: int) -> Rows:
        return start // self.factor, (stop - 1) // self.factor + 1

    def run(self, parts: Sequence[Tensor], first: int, start: int, stop: int, height: int) -> Tensor:
        top = start - self.factor * first
        return F.pixel_shuffle(parts[0], self.factor)[:, :, top : top + stop - start]

    def workspace(self, rows: int, width: int) -> int:
        return 4 * self.channels * 2 * (self.factor - 1) * width  # rows that are computed and cut off
