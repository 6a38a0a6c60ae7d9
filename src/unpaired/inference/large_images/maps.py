"""Where maps wait between two passes: in memory, or in a scratch file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from unpaired.errors import DataError
from unpaired.inference.large_images.steps import row_bytes


class MapInMemory:
    """A map that is a tensor (C, H, W)."""

    def __init__(self, map_CHW: Tensor) -> None:
        self.map_CHW = map_CHW

    def write(self, start: int, rows_1CHW: Tensor) -> None:
        """Put rows, (1, C, rows, W), at ``start`` and below."""
        self.map_CHW[:, start : start + rows_1CHW.shape[2]] = rows_1CHW[0]

    def read(self, start: int, stop: int) -> Tensor:
        """Rows ``start`` to ``stop - 1``: (1, C, rows, W), a copy."""
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
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - it lives as long as the map
        except OSError as error:
            raise self._failure(error) from error

    def write(self, start: int, rows_1CHW: Tensor) -> None:
        rows_HCW = rows_1CHW[0].transpose(0, 1).contiguous().cpu()
        left = rows_HCW.numpy().data.cast("B")
        try:
            self._file.seek(start * self._row_bytes)
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            raise self._failure(error) from error

    def read(self, start: int, stop: int) -> Tensor:
        channels, width = self._shape
        rows_HCW = torch.empty(stop - start, channels, width)
        left = rows_HCW.numpy().data.cast("B")
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


class SplitMap:
    """A map whose upper rows lie in memory and whose lower ones in a file."""

    def __init__(self, top: MapInMemory, bottom: MapInFile) -> None:
        self.top, self._bottom = top, bottom
        self._rows = top.map_CHW.shape[1]

    def write(self, start: int, rows_1CHW: Tensor) -> None:
        above = max(0, min(self._rows - start, rows_1CHW.shape[2]))
        if above:
            self.top.write(start, rows_1CHW[:, :, :above])
        if above < rows_1CHW.shape[2]:
            self._bottom.write(start + above - self._rows, rows_1CHW[:, :, above:])

    def read(self, start: int, stop: int) -> Tensor:
        if stop <= self._rows:
            return self.top.read(start, stop)
        if start >= self._rows:
            return self._bottom.read(start - self._rows, stop - self._rows)
        return torch.cat([self.top.read(start, self._rows), self._bottom.read(0, stop - self._rows)], 2)


StoredMap = MapInMemory | SplitMap
"""A map of float32 that is written and read by rows."""


class StoredMaps:
    """The maps of a translation: in memory as far as it goes, the rest in files.

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
        if instead_of is not None:
            self.maps[number] = self.maps[instead_of]
            return
        height, width = size
        rows = min(height, self._memory // row_bytes(channels, width))
        self._memory -= rows * row_bytes(channels, width)
        top = MapInMemory(torch.empty(channels, rows, width, device=self._device))
        if rows == height:
            self.maps[number] = top
        else:
            self.maps[number] = SplitMap(top, MapInFile(channels, width, self._folder, self._device))

    def keep(self, numbers: Iterable[int]) -> None:
        """Let go of all other maps."""
        before = {id(each): each for each in self.maps.values()}
        self.maps = {number: self.maps[number] for number in numbers}
        left = {id(each) for each in self.maps.values()}
        for key, each in before.items():
            if key not in left:
                self._memory += (each.top if isinstance(each, SplitMap) else each).map_CHW.nbytes
