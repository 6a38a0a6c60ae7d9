"""Running one pass in stripes, holding only the rows that the next stripe needs; and the maps it reads and writes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from unpaired.errors import DataError
from unpaired.inference.large_images.plan import Job, Pass, Size, stripes
from unpaired.inference.large_images.program import Program
from unpaired.inference.large_images.steps import Norm, row_bytes

_CHUNK = 2**18  # numbers looked at together: they stay in the cache


class StoredMap:
    """A float32 map that is written and read by rows: the upper ones in memory, the others in a scratch file.

    The file has no name and vanishes with the process. It is read and written, not mapped into memory, so that it does
    not count as memory of the process.

    Args:
        top_CHW: The rows in memory, (C, rows, W).
        below: How many rows lie in a file.
        folder: Where the file is made.

    Raises:
        DataError: The folder cannot be written, or the disk is full.
    """

    def __init__(self, top_CHW: Tensor, below: int = 0, folder: Path | None = None) -> None:
        self.top_CHW, self._folder = top_CHW, folder
        if below:
            try:
                self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - it lives as long as the map
            except OSError as error:
                raise self._failure(error) from error

    def write(self, start: int, rows_1CHW: Tensor) -> None:
        """Put rows, (1, C, rows, W), at ``start`` and below."""
        channels, height, width = self.top_CHW.shape
        inside = max(0, min(height - start, rows_1CHW.shape[2]))
        self.top_CHW[:, start : start + inside] = rows_1CHW[0, :, :inside]
        if inside == rows_1CHW.shape[2]:
            return
        left = rows_1CHW[0, :, inside:].transpose(0, 1).float().contiguous().cpu().numpy().data.cast("B")
        try:
            self._file.seek((start + inside - height) * row_bytes(channels, width))
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            raise self._failure(error) from error

    def read(self, start: int, stop: int) -> Tensor:
        """Rows ``start`` to ``stop - 1``: (1, C, rows, W), a copy."""
        channels, height, width = self.top_CHW.shape
        above = self.top_CHW[None, :, start:stop].clone()
        if stop <= height:
            return above
        rows_HCW = torch.empty(stop - max(start, height), channels, width)
        left = rows_HCW.numpy().data.cast("B")
        try:
            self._file.seek((max(start, height) - height) * row_bytes(channels, width))
            while left:
                if not (count := self._file.readinto(left)):
                    raise OSError("it ends too early")
                left = left[count:]
        except OSError as error:
            raise self._failure(error) from error
        below = rows_HCW.transpose(0, 1).contiguous()[None].to(self.top_CHW.device)
        return torch.cat([above, below], 2) if start < height else below

    def _failure(self, error: OSError) -> DataError:
        return DataError(
            f"the scratch file in {self._folder} failed ({error.strerror or error}); free some space there, name "
            "another folder by the environment variable TMPDIR, or allow more memory (--memory-gib)"
        )


class Statistics:
    """Count, mean and squared deviations per channel of rows that come piece by piece, joined in float64 as by Chan,
    Golub and LeVeque (1979).

    Within a piece they are float32 sums of the differences to the mean of its first row, so that a mean far from zero
    costs no digits: 1e-7 of the variance were lost on a million numbers with a mean of 1.7 deviations (measured).
    """

    def __init__(self) -> None:
        self._count = 0
        self._mean_C = self._squares_C = torch.zeros((), dtype=torch.float64)

    def add(self, rows_1CHW: Tensor) -> None:
        """Take in some rows of the map, (1, C, rows, W)."""
        rows_CHW = rows_1CHW[0].float()
        count = rows_CHW[0].numel()
        shift_C11 = rows_CHW[:, :1].mean((1, 2), keepdim=True)
        sums, squares = [], []
        step = max(1, _CHUNK // count)
        for chunk_CHW, shift in zip(rows_CHW.split(step), shift_C11.split(step), strict=True):
            differences = chunk_CHW - shift
            sums.append(differences.sum((1, 2)))
            squares.append(differences.square_().sum((1, 2)))
        self._device = rows_CHW.device
        offset_C = _wide(torch.cat(sums)) / count
        squares_C = (_wide(torch.cat(squares)) - count * offset_C.square()).clamp(min=0)
        total = self._count + count
        apart_C = _wide(shift_C11.flatten()) + offset_C - self._mean_C
        self._squares_C = self._squares_C + squares_C + apart_C.square() * (self._count * count / total)
        self._mean_C = self._mean_C + apart_C * (count / total)
        self._count = total

    def scale_and_shift(self, norm: Norm) -> tuple[Tensor, Tensor]:
        """What the norm does to each channel, (C, 1, 1) each: x -> x * scale + shift."""
        mean_GC = self._mean_C.view(norm.groups, -1)
        variance_GC = (self._squares_C / self._count).view(norm.groups, -1)
        mean_G1 = mean_GC.mean(1, keepdim=True)
        variance_G1 = (variance_GC + (mean_GC - mean_G1).square()).mean(1, keepdim=True)
        scale_C = torch.rsqrt(variance_G1 + norm.eps).expand_as(mean_GC).flatten()
        if norm.weight is not None:
            scale_C = scale_C * _wide(norm.weight)
        shift_C = -mean_G1.expand_as(mean_GC).flatten() * scale_C
        if norm.bias is not None:
            shift_C = shift_C + _wide(norm.bias)
        scale_C, shift_C = (each.float().to(self._device) for each in (scale_C, shift_C))
        return scale_C[:, None, None], shift_C[:, None, None]


def _wide(tensor: Tensor) -> Tensor:
    """As float64, of which mps has none."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


def stream(
    program: Program,
    sizes: Sequence[Size],
    work: Pass,
    rows: int,
    *,
    norms: Mapping[int, tuple[Tensor, Tensor]],
    maps: Mapping[int, StoredMap],
    advance: Callable[[float], None],
) -> Statistics:
    """Run a pass.

    Args:
        program: The steps.
        sizes: Height and width of each.
        work: The pass.
        rows: Rows of the image in a stripe.
        norms: Scale and shift of every norm that is computed, (C, 1, 1) each.
        maps: Where the sources are read and the maps to be stored are written, by step. Two may be one place: the new
            rows then come after the old ones have been read.
        advance: Told the work of every job, once it is done.

    Returns:
        The statistics of the pass's target; empty in a pass without a norm.
    """
    held: dict[int, tuple[int, Tensor]] = {}  # map -> the number of its first row at hand, and the rows
    statistics = Statistics()
    taken = [number for user in work.computed for number in program.steps[user].inputs]
    # A map that one step takes may be written over by it; what is read of a stored map is a copy.
    spent = {number for number in taken if taken.count(number) == 1}

    def compute(job: Job) -> Tensor:
        if job.step in work.sources:
            return maps[job.step].read(job.start, job.stop)
        step, parts, begin = program.steps[job.step], list[Tensor](), 0
        height = sizes[step.inputs[0]][0]
        for number in step.inputs:
            begin, end = step.reach(job.start, job.stop, height)
            first, lines = held[number]
            parts.append(lines[:, :, begin - first : end - first])
        overwrite = step.inputs[0] in spent
        if isinstance(step, Norm):
            scale, shift = norms[job.step]
            if overwrite and parts[0].dtype == scale.dtype:
                return parts[0].mul_(scale).add_(shift)
            return torch.addcmul(shift, parts[0], scale).to(parts[0].dtype)  # bf16 is rounded to once
        if step.in_place is not None and overwrite:
            return step.in_place(parts[0])
        return step.run(parts, begin, job.start, job.stop, height)

    for jobs in stripes(program, sizes, work, rows):
        for job in jobs:
            new = compute(job)
            is_target = job.step == work.target
            if is_target and work.norm is not None:
                statistics.add(new)
            if job.step in work.stored or (is_target and work.norm is None):
                maps[job.step].write(job.start, new)
            first, before = held.get(job.step, (job.start, None))
            held[job.step] = first, new if before is None else torch.cat([before, new], 2)
            for number, cut in job.cuts:
                first, lines = held[number]
                if cut >= first + lines.shape[2]:
                    del held[number]
                elif cut > first:
                    held[number] = cut, lines[:, :, cut - first :].clone()
            advance(program.steps[job.step].work(job.stop - job.start, sizes[job.step][1]))
    return statistics
