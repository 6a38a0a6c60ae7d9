"""Where maps wait between two passes: in memory, or in a scratch file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from unpaired.errors import DataError
from unpaired.large_images.steps import row_bytes


class StoredMap(Protocol):
    """A map of (channels, height, width) float32 that is written and read by rows."""

    def write(self, start: int, rows_1CHW: Tensor) -> None:
        """Put rows at ``start`` and below."""

    def read(self, start: int, stop: int) -> Tensor:
        """Rows ``start`` to ``stop - 1``: (1, C, rows, W), a copy."""


class MapInMemory:
    """A map that is a tensor."""

    def __init__(self, map_CHW: Tensor) -> None:
        self.map_CHW = map_CHW

    def write(self, start: int, rows_1CHW: Tensor) -> None:
        self.map_CHW[:, start : start + rows_1CHW.shape[2]] = rows_1CHW[0]

    def read(self, start: int, stop: int) -> Tensor:
        return self.map_CHW[None, :, start:stop].clone()


class MapInFile:
    """A map in a file without a name, which vanishes with the process: row after row, all channels of each.

    It is read and written, not mapped into memory, so that it does not count as memory of the process.

    Raises:
        DataError: The folder cannot be written, or the disk is full.
    """

    def __init__(self, channels: int, width: int, folder: Path, device: torch.device) -> None:
        self._shape, self._device, self._folder = (channels, width), device, folder
        self._row_bytes = row_bytes(channels, width)
        try:
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)
        except OSError as error:
            raise self._failure(error) from error

    def write(self, start: int, rows_1CHW: Tensor) -> None:
        rows_HCW = rows_1CHW[0].transpose(0, 1).contiguous().cpu()
        left = memoryview(rows_HCW.numpy()).cast("B")
        try:
            self._file.seek(start * self._row_bytes)
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            raise self._failure(error) from error

    def read(self, start: int, stop: int) -> Tensor:
        channels, width = self._shape
        rows_HCW = torch.empty(stop - start, channels, width)
        left = memoryview(rows_HCW.numpy()).cast("B")
        try:
            self._file.seek(start * self._row_bytes)
            while left:
                count = self._file.readinto(left)
                if not count:
                    raise OSError("it ends too early")
                left = left[count:]
        except OSError as error:
            raise self._failure(error) from error
        return rows_HCW.transpose(0, 1).contiguous()[None].to(self._device)

    def _failure(self, error: OSError) -> DataError:
        return DataError(
            f"the scratch file in {self._folder} failed ({error.strerror or error}); free some space there, name "
            "another folder by the environment variable TMPDIR, or allow more memory (--memory-gib)"
        )


class Shelf:
    """The maps of a translation: in memory as far as it goes, then in files.

    Args:
        memory: Bytes that maps may take in memory.
        folder: Where files are made.
        device: Where tensors lie.
    """

    def __init__(self, memory: int, folder: Path, device: torch.device) -> None:
        self._memory, self._folder, self._device = memory, folder, device
        self.maps: dict[int, StoredMap] = {}

    def add(self, number: int, channels: int, size: tuple[int, int], instead_of: int | None = None) -> None:
        """Make room for a map, or let it take the place of another one of the same shape, row by row."""
        bytes_needed = size[0] * row_bytes(channels, size[1])
        if instead_of is not None:
            self.maps[number] = self.maps[instead_of]
        elif bytes_needed <= self._memory:
            self._memory -= bytes_needed
            self.maps[number] = MapInMemory(torch.empty(channels, *size, device=self._device))
        else:
            self.maps[number] = MapInFile(channels, size[1], self._folder, self._device)

    def keep(self, numbers: Iterable[int]) -> None:
        """Let go of all other maps."""
        before = {id(each): each for each in self.maps.values()}
        self.maps = {number: self.maps[number] for number in numbers}
        for key, each in before.items():
            if isinstance(each, MapInMemory) and key not in map(id, self.maps.values()):
                self._memory += each.map_CHW.nbytes
