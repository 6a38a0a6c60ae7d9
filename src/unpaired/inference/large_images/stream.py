"""Running one pass: stripe by stripe, keeping only the rows that the next stripe needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from unpaired.inference.large_images.maps import StoredMap
from unpaired.inference.large_images.passes import Job, Pass, Size, rounds
from unpaired.inference.large_images.program import Program
from unpaired.inference.large_images.statistics import Statistics
from unpaired.inference.large_images.steps import Norm, Pad, Pointwise


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
    return _Stream(program, sizes, work, norms, maps).run(rows, advance)


class _Stream:
    def __init__(
        self,
        program: Program,
        sizes: Sequence[Size],
        work: Pass,
        norms: Mapping[int, tuple[Tensor, Tensor]],
        maps: Mapping[int, StoredMap],
    ) -> None:
        self._program, self._sizes, self._work, self._norms, self._maps = program, sizes, work, norms, maps
        self._lines: dict[int, tuple[int, Tensor]] = {}  # map -> the number of its first row at hand, and the rows
        self._statistics = Statistics()
        takers = [number for user in work.computed for number in program.steps[user].inputs]
        # A map that one step takes may be written over by it; what is read of a stored map is a copy.
        self._spent = {number for number in takers if takers.count(number) == 1}

    def run(self, rows: int, advance: Callable[[float], None]) -> Statistics:
        for jobs in rounds(self._program, self._sizes, self._work, rows):
            for job in jobs:
                self._run(job)
                for number, first in job.cuts:
                    self._cut(number, first)
                advance(job_work(self._program, self._sizes, job))
        return self._statistics

    def _run(self, job: Job) -> None:
        number, step = job.step, self._program.steps[job.step]
        first, before = self._lines.get(number, (job.start, None))
        if number in self._work.sources:
            new = self._maps[number].read(job.start, job.stop)
        elif isinstance(step, Pad):
            begin, (part,) = self._parts(job)
            height = self._sizes[step.inputs[0]][0]
            joined = step.append(before, part, begin, job.start, job.stop, height)
            self._lines[number] = (first, joined)
            self._deliver(job, joined[:, :, job.start - first :])
            return
        else:
            new = self._compute(job)
        self._deliver(job, new)
        self._lines[number] = (first, new if before is None else torch.cat([before, new], 2))

    def _compute(self, job: Job) -> Tensor:
        step = self._program.steps[job.step]
        begin, parts = self._parts(job)
        over = step.inputs[0] in self._spent
        if isinstance(step, Norm):
            scale, shift = self._norms[job.step]
            if parts[0].dtype != scale.dtype:  # bf16 is rounded to once
                return torch.addcmul(shift, parts[0], scale).to(parts[0].dtype)
            return parts[0].mul_(scale).add_(shift) if over else torch.addcmul(shift, parts[0], scale)
        if isinstance(step, Pointwise) and step.in_place and over:
            return step.in_place(parts[0])
        return step.run(parts, begin, job.start, job.stop, self._sizes[step.inputs[0]][0])

    def _parts(self, job: Job) -> tuple[int, list[Tensor]]:
        """The input rows that a job needs, and the number of their first."""
        step, parts, begin = self._program.steps[job.step], list[Tensor](), 0
        for number in step.inputs:
            begin, end = step.reach(job.start, job.stop, self._sizes[number][0])
            first, rows = self._lines[number]
            parts.append(rows[:, :, begin - first : end - first])
        return begin, parts

    def _deliver(self, job: Job, new: Tensor) -> None:
        gathered = self._work.norm is not None
        if job.step == self._work.target and gathered:
            self._statistics.add(new)
        if job.step in self._work.stored or (job.step == self._work.target and not gathered):
            self._maps[job.step].write(job.start, new)

    def _cut(self, number: int, first: int) -> None:
        begin, rows = self._lines[number]
        if first >= begin + rows.shape[2]:
            del self._lines[number]
        elif first > begin:
            self._lines[number] = (first, rows[:, :, first - begin :].clone())


def job_work(program: Program, sizes: Sequence[Size], job: Job) -> float:
    """The work of one job."""
    return program.steps[job.step].work(job.stop - job.start, sizes[job.step][1])
