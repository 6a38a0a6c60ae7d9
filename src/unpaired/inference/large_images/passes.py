"""One pass over the image, from top to bottom in stripes: which rows of which step are computed when.

Every row of every map is computed once in a pass. What the next stripe will need of this one is kept: two rows for a
3 x 3 convolution. All of it is worked out on whole numbers first, so that the memory of a pass is known before it runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from unpaired.inference.large_images.program import Program
from unpaired.inference.large_images.steps import Convolution, Norm, Source, row_bytes

Size = tuple[int, int]


@dataclass(frozen=True)
class Pass:
    """A part of the program that is run over the whole height.

    Attributes:
        sources: Steps whose outputs lie ready: the image or maps that an earlier pass stored.
        computed: Steps that are run.
        target: The step that the pass is for: the last one, or the input of a norm.
        norm: The norm whose statistics are gathered on the target; None in the last pass.
        stored: Steps whose outputs are written down for later passes.
    """

    sources: tuple[int, ...]
    computed: tuple[int, ...]
    target: int
    norm: int | None = None
    stored: tuple[int, ...] = ()


class Job(NamedTuple):
    """Rows of one step to compute (of a source: to read), and what is not needed any more once that is done.

    Attributes:
        step: Number of the step.
        start: Its first row.
        stop: The row behind its last.
        cuts: Maps and their first rows that are still needed, where some no longer are.
    """

    step: int
    start: int
    stop: int
    cuts: tuple[tuple[int, int], ...]


def make_pass(
    program: Program, ready: Iterable[int], target: int, norm: int | None = None, stored: Sequence[int] = ()
) -> Pass:
    """The pass that computes the target and the maps to be stored from what lies ready."""
    ready, wanted = set(ready), {target, *stored}
    sources, computed = set[int](), set[int]()
    for number in reversed(range(len(program.steps))):
        if number in wanted and number in ready:
            sources.add(number)
        elif number in wanted:
            computed.add(number)
            wanted.update(program.steps[number].inputs)
    return Pass(tuple(sorted(sources)), tuple(sorted(computed)), target, norm, tuple(stored))


def whole(program: Program) -> Pass:
    """The whole translation as one pass, as if statistics were no matter."""
    return make_pass(program, [0], len(program.steps) - 1)


def rounds(program: Program, sizes: Sequence[Size], work: Pass, rows: int) -> Iterator[list[Job]]:
    """The jobs of one stripe after the other; a stripe is ``rows`` rows of the image and as much of the targets."""
    steps, order = program.steps, sorted({*work.sources, *work.computed})
    heights = [height for height, _ in sizes]
    users = {number: [user for user in work.computed if number in steps[user].inputs] for number in order}
    done = dict.fromkeys(order, 0)
    for position in range(rows, heights[0] + rows, rows):
        need = dict(done)
        for number in reversed(order):
            if number == work.target or number in work.stored:
                need[number] = -(-heights[number] * min(position, heights[0]) // heights[0])
            for user in users[number]:
                if need[user] > done[user]:
                    reach = steps[user].reach(done[user], need[user], heights[number])
                    need[number] = max(need[number], reach[1])
        running = [number for number in order if need[number] > done[number]]
        cuts: dict[int, list[tuple[int, int]]] = {number: [] for number in running}
        for number in order:
            last = max((user for user in users[number] if user in cuts), default=number)
            if last in cuts:
                left = [
                    steps[user].reach(need[user], heights[user], heights[number])[0]
                    for user in users[number]
                    if need[user] < heights[user]
                ]
                cuts[last].append((number, min([*left, need[number]])))
        yield [Job(number, done[number], need[number], tuple(cuts[number])) for number in running]
        done = need


def working_set(program: Program, sizes: Sequence[Size], work: Pass, rows: int) -> int:
    """Most bytes that the stripes of a pass take at a time.

    All stripes between the first and the last ones are alike, so a shorter image is looked at, with the same end.
    """
    height, width = sizes[0]
    if height > 9 * rows:
        sizes = program.sizes(8 * rows + height % rows, width)
    held, most = dict[int, Size](), 0  # map -> its rows in memory, from and to

    def size(number: int) -> int:
        first, behind = held.get(number, (0, 0))
        return (behind - first) * row_bytes(program.steps[number].channels, sizes[number][1])

    for jobs in rounds(program, sizes, work, rows):
        for job in jobs:
            step, width = program.steps[job.step], sizes[job.step][1]
            carried = size(job.step)
            held[job.step] = (held.get(job.step, (job.start, 0))[0], job.stop)
            extra = step.workspace(job.stop - job.start, width)
            most = max(most, sum(map(size, held)) + carried + extra)
            for number, first in job.cuts:
                held[number] = (first, held[number][1])
                if first >= held[number][1]:
                    del held[number]
    return most


def stripe_rows(program: Program, sizes: Sequence[Size], work: Pass, budget: int, largest: int) -> int:
    """Rows of a stripe: as many as the budget allows, until its largest map has ``largest`` bytes; at least 4.

    They are a multiple of what gives each convolution whole tiles of 4 rows, so that none is computed for nothing.
    """
    image_height = sizes[0][0]
    halvings = [
        max(1, round(image_height / sizes[number][0]))
        for number in work.computed
        if isinstance(program.steps[number], Convolution)
    ]
    widest = max(
        row_bytes(program.steps[number].channels, sizes[number][1]) * sizes[number][0] / image_height
        for number in (*work.computed, *work.sources)
        if not isinstance(program.steps[number], Source | Norm) or number == work.target
    )
    rows = 4 * max(halvings, default=4)
    while rows > 4 and working_set(program, sizes, work, rows) > budget:
        rows //= 2
    while (
        2 * rows * widest <= largest and rows < image_height and working_set(program, sizes, work, 2 * rows) <= budget
    ):
        rows *= 2
    return rows
