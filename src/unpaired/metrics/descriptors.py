"""A bag of patch descriptors that stays small in memory: chunks of float32, and a temporary file for what is more."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from typing import IO

import numpy as np
import torch
from torch import Tensor

_ROWS_PER_BLOCK = 1 << 15


class DescriptorStore:
    """Descriptors of one set and level: append all, then project; normalised per channel over the whole set.

    float32 is storage only (relative error 6e-8); statistics and projections are float64.
    """

    def __init__(self, channels: int, values_per_channel: int, memory_bytes: int = 1 << 28) -> None:
        self.channels = channels
        self.length = channels * values_per_channel
        self.count = 0
        self._memory_bytes = memory_bytes
        self._chunks: list[np.ndarray] = []
        self._held_bytes = 0
        self._file: IO[bytes] | None = None
        self._filed_rows = 0
        self._reading = threading.Lock()
        self._statistics: tuple[Tensor, Tensor] | None = None

    def append(self, descriptors: Tensor) -> None:
        """Add rows of shape (N, length)."""
        chunk = descriptors.to("cpu", torch.float32).numpy()
        self._statistics = None
        self._chunks.append(chunk)
        self._held_bytes += chunk.nbytes
        self.count += len(chunk)
        if self._held_bytes > self._memory_bytes:
            self._spill()

    def _spill(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="unpaired-swd-")  # noqa: SIM115 - lives as long as the store
        self._file.seek(0, 2)
        for chunk in self._chunks:
            self._file.write(chunk.tobytes())
            self._filed_rows += len(chunk)
        self._chunks, self._held_bytes = [], 0

    def blocks(self) -> Iterator[Tensor]:
        """Yield all rows in order, float64, a bounded number at a time; any number of threads may do so at once."""
        if self._file is not None:
            for start in range(0, self._filed_rows, _ROWS_PER_BLOCK):
                rows = min(_ROWS_PER_BLOCK, self._filed_rows - start)
                with self._reading:
                    self._file.seek(start * self.length * 4)
                    flat = np.frombuffer(self._file.read(rows * self.length * 4), dtype=np.float32)
                yield torch.from_numpy(flat.astype(np.float64).reshape(rows, self.length))
        for chunk in self._chunks:
            for start in range(0, len(chunk), _ROWS_PER_BLOCK):
                yield torch.from_numpy(chunk[start : start + _ROWS_PER_BLOCK]).double()

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and (population) standard deviation per channel, over every number of every descriptor: two (C,)."""
        if self._statistics is None:
            per_channel = self.count * self.length / self.channels
            total, squares = torch.zeros(2, self.channels, dtype=torch.float64)
            for block in self.blocks():
                total += block.view(len(block), self.channels, -1).sum((0, 2))
            mean = total / per_channel
            for block in self.blocks():
                squares += (block.view(len(block), self.channels, -1) - mean[:, None]).square().sum((0, 2))
            self._statistics = mean, (squares / per_channel).sqrt()
        return self._statistics

    def _scale(self) -> tuple[Tensor, Tensor]:
        """What the normalisation subtracts and multiplies by, per channel: two (C,).

        A channel that is constant over the whole set has no contrast to normalise and becomes zero.
        """
        mean, deviation = self.statistics()
        # A spread at the rounding of [-1, 1] images or of float32 storage: dividing would turn rounding into a signal.
        constant = deviation <= torch.clamp(1e-6 * mean.abs(), min=1e-9)
        return mean, torch.where(constant, 0.0, 1.0 / torch.where(constant, 1.0, deviation))

    def moments(self, rows_per_image: int) -> tuple[Tensor, Tensor]:
        """Means of each image's normalised numbers and of their squares, per channel: two (images, C), float64.

        The rows of one image must have been appended together and in order.
        """
        mean, scale = self._scale()
        first, second = [], []
        held: list[Tensor] = []  # rows of an image that a block cuts in two
        for block in self.blocks():
            rows = torch.cat([*held, block])
            whole = len(rows) // rows_per_image * rows_per_image
            held = [rows[whole:]]
            per_image = rows[:whole].view(-1, rows_per_image, self.channels, self.length // self.channels)
            normalised = (per_image - mean[:, None]) * scale[:, None]
            first.append(normalised.mean((1, 3)))
            second.append(normalised.square().mean((1, 3)))
        return torch.cat(first), torch.cat(second)

    def project(self, directions: Tensor, device: torch.device) -> Tensor:
        """Project the normalised descriptors on directions (length, D), float64: returns (D, count) on ``device``."""
        mean, scale = self._scale()
        values = self.length // self.channels
        scaled = (directions * scale.repeat_interleave(values)[:, None]).T.contiguous().to(device)
        offset = (scaled @ mean.repeat_interleave(values).to(device))[:, None]
        projected = torch.empty(len(scaled), self.count, dtype=torch.float64, device=device)
        start = 0
        for block in self.blocks():
            projected[:, start : start + len(block)] = scaled @ block.to(device).T - offset
            start += len(block)
        return projected
