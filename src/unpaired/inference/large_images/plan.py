"""Which rows of which step are computed when, and which maps are kept between two passes over the image.

Every norm needs the statistics of a map that itself lies behind other norms, so the image is passed over once per norm,
from top to bottom in stripes. Within a pass every row is computed once: of each map the rows that the next stripe needs
are held, two for a 3 x 3 convolution. Between two passes some maps must be stored, a *cut* through the program from
which everything behind it can be computed. A late cut saves computing, a cut through small maps saves memory; with a
price for both, the cheapest sequence of cuts is a shortest path.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from unpaired.inference.large_images.program import Program
from unpaired.inference.large_images.steps import Convolution, Norm, row_bytes

Size = tuple[int, int]

_MEMORY_PRICE = 10.0
_FILE_PRICE = 500.0
"""Price of writing or reading one byte, in floating point operations of a convolution: 100 GFLOP/s beside 10 GB/s, and
0.2 GB/s for a slow disk, so that files stay small."""
_PASSES_BACK = 6
"""How many norms behind the last stored cut is looked for; computing more than that again never pays."""


@dataclass(frozen=True)
class Pass:
    """A part of the program that is run over the whole height.

    Attributes:
        sources: Steps whose outputs are read: the image, or maps that an earlier pass stored.
        computed: Steps that are run.
        target: The step that the pass is for: the last one, or the input of a norm.
        norm: The norm whose statistics are gathered on the target; None in the last pass.
        stored: Steps whose outputs are stored for later passes.
        places: Stored map -> the old map of the same shape whose place it takes, row by row.
        kept: The stored maps that are needed after the pass.
    """

    sources: tuple[int, ...]
    computed: tuple[int, ...]
    target: int
    norm: int | None = None
    stored: tuple[int, ...] = ()
    places: Mapping[int, int] = field(default_factory=dict)
    kept: frozenset[int] = frozenset()


class Job(NamedTuple):
    """Rows ``start`` to ``stop - 1`` of a step to compute (of a source: to read).

    ``cuts`` are maps and their first rows that are still needed afterwards.
    """

    step: int
    start: int
    stop: int
    cuts: tuple[tuple[int, int], ...]


def make_pass(
    program: Program, ready: Iterable[int], target: int, norm: int | None = None, stored: Iterable[int] = ()
) -> Pass:
    """The pass that computes the target and the maps to be stored from what is stored already."""
    ready, stored = set(ready), tuple(stored)
    wanted = {target, *stored}
    sources, computed = [], []
    for number in reversed(range(len(program.steps))):
        if number in wanted and number in ready:
            sources.append(number)
        elif number in wanted:
            computed.append(number)
            wanted.update(program.steps[number].inputs)
    return Pass(tuple(sources[::-1]), tuple(computed[::-1]), target, norm, stored)


def whole(program: Program) -> Pass:
    """The whole translation as one pass, as if statistics did not matter."""
    return make_pass(program, [0], len(program.steps) - 1)


# ---------------------------------------------------------------------------------------------------------------------
# within a pass: stripes
# ---------------------------------------------------------------------------------------------------------------------
def stripes(program: Program, sizes: Sequence[Size], work: Pass, rows: int) -> Iterator[list[Job]]:
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
                    need[number] = max(need[number], steps[user].reach(done[user], need[user], heights[number])[1])
        running = [number for number in order if need[number] > done[number]]
        cuts: dict[int, list[tuple[int, int]]] = {number: [] for number in running}
        for number in order:
            last = max((user for user in users[number] if user in cuts), default=number)
            if last in cuts:
                left = (
                    steps[user].reach(need[user], heights[user], heights[number])[0]
                    for user in users[number]
                    if need[user] < heights[user]
                )
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
    row = [row_bytes(step.channels, width) for step, (_, width) in zip(program.steps, sizes, strict=True)]
    held, most = dict[int, Size](), 0  # map -> its first row in memory and the one behind its last
    for jobs in stripes(program, sizes, work, rows):
        for number, start, stop, cuts in jobs:
            first, behind = held.get(number, (start, start))
            joined = (behind - first) * row[number]  # rows from before are copied in front of the new ones
            held[number] = first, stop
            extra = program.steps[number].workspace(stop - start, sizes[number][1])
            most = max(most, sum((b - a) * row[n] for n, (a, b) in held.items()) + joined + extra)
            for n, cut in cuts:
                held[n] = cut, max(cut, held[n][1])
    return most


def stripe_rows(program: Program, sizes: Sequence[Size], work: Pass, budget: int, largest: int) -> int:
    """Rows of a stripe: as many as the budget allows, until its largest map has ``largest`` bytes; at least 4.

    They are a multiple of what gives each convolution whole tiles of 4 rows, so that none is computed for nothing.
    """
    image_height = sizes[0][0]
    convolved = [number for number in work.computed if isinstance(program.steps[number], Convolution)]
    rows = 4 * max((max(1, round(image_height / sizes[number][0])) for number in convolved), default=4)
    widest = max(
        row_bytes(program.steps[number].channels, sizes[number][1]) * sizes[number][0] / image_height
        for number in {*work.computed, *work.sources}
        if number == work.target or not (number == 0 or isinstance(program.steps[number], Norm))
    )
    while rows > 4 and working_set(program, sizes, work, rows) > budget:
        rows //= 2
    while (
        2 * rows * widest <= largest and rows < image_height and working_set(program, sizes, work, 2 * rows) <= budget
    ):
        rows *= 2
    return rows


# ---------------------------------------------------------------------------------------------------------------------
# between passes: what to keep
# ---------------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Plan:
    """Passes in order, one per norm and the last one, and what they cost.

    Attributes:
        passes: In order.
        price: Of all, by which plans are compared.
        stored_bytes: The most that stored maps take at a time.
    """

    passes: tuple[Pass, ...] = ()
    price: float = 0.0
    stored_bytes: int = 0


def make_plan(program: Program, sizes: Sequence[Size], memory: int, disk: int) -> Plan | None:
    """The cheapest plan whose stored maps fit into ``memory`` and ``disk`` bytes; None if there is none."""
    steps = program.steps
    last_user = list(range(len(steps)))
    for number, step in enumerate(steps):
        for taken in step.inputs:
            last_user[taken] = number
    shapes = [(step.channels, *size) for step, size in zip(steps, sizes, strict=True)]
    nbytes = [0, *(row_bytes(channels, width) * height for channels, height, width in shapes[1:])]  # the image is there
    norms = [number for number, step in enumerate(steps) if isinstance(step, Norm)]

    @functools.cache
    def frontier(cut: int) -> frozenset[int]:
        """The maps up to a cut that are needed behind it."""
        return frozenset(number for number in range(cut + 1) if last_user[number] > cut)

    def enlarged(cut: int) -> bool:
        """Whether a map of the cut is a larger copy of another one, which is better stored itself."""
        return any(steps[number].up > 1 and not isinstance(steps[number], Convolution) for number in frontier(cut))

    def extend(path: Plan, cut: int, later: int, target: int, norm: int | None) -> Plan | None:
        """The path and one more pass from ``cut`` to the target, which leaves behind what ``later`` needs."""
        ready, kept = frontier(cut), frontier(later)
        work = make_pass(program, ready, target, norm, sorted(kept - ready))
        places, free = dict[int, int](), sorted(ready - kept - {0})
        for new in work.stored:
            for old in (each for each in free if shapes[each] == shapes[new]):
                if old in make_pass(program, work.sources, new).sources:  # so its rows are read before they are lost
                    places[new] = old
                    free.remove(old)
                    break
        held = sum(nbytes[n] for n in ready) + sum(nbytes[n] for n in work.stored if n not in places)
        if held > memory + disk:
            return None
        in_memory = min(1.0, memory / held) if held else 1.0
        moved = sum(nbytes[number] for number in (*work.sources, *work.stored))
        price = moved * (in_memory * _MEMORY_PRICE + (1 - in_memory) * _FILE_PRICE)
        price += sum(steps[number].work(*sizes[number]) for number in work.computed)
        work = replace(work, places=places, kept=kept if norm is not None else frozenset())
        return Plan((*path.passes, work), path.price + price, max(path.stored_bytes, held))

    paths = {0: Plan()}  # last cut -> the cheapest way there
    for count, norm in enumerate(norms):
        earliest = norms[count - _PASSES_BACK] if count >= _PASSES_BACK else 0
        found: dict[int, Plan] = {}
        for cut, path in paths.items():
            for later in (cut, *range(max(cut + 1, earliest), norm)):
                if later < earliest or (later != cut and enlarged(later)):
                    continue
                longer = extend(path, cut, later, steps[norm].inputs[0], norm)
                if longer and (later not in found or longer.price < found[later].price):
                    found[later] = longer
        paths = found
    ends = [extend(path, cut, cut, len(steps) - 1, None) for cut, path in paths.items()]
    return min((end for end in ends if end), key=lambda end: end.price, default=None)
