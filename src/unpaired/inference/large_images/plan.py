"""Which maps to keep between the passes and which to compute again: the cheapest way to all statistics and the result.

Each norm needs the statistics of a map that itself lies behind other norms, so the image is gone through once per norm.
Between two passes some maps must be kept, a *cut* through the program: everything behind it can be computed from them.
A cut late in the program saves computing, a cut through small maps saves memory. With prices for both, the cheapest
sequence of cuts is a shortest path, which is found exactly, norm by norm.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from unpaired.inference.large_images.passes import Pass, Size, make_pass
from unpaired.inference.large_images.program import Program
from unpaired.inference.large_images.steps import Enlargement, Norm, Pad, row_bytes

_MEMORY_PRICE = 10.0
_FILE_PRICE = 500.0
"""Price of writing or reading one byte, in operations of a convolution: 100 GFLOP/s beside 10 GB/s and 0.2 GB/s, which
is a slow disk, so that files stay small."""
_PASSES_BACK = 6
"""How many norms behind the last stored cut is looked for; computing more than that again never pays."""


class Stage(NamedTuple):
    """One pass, and what becomes of the maps.

    Attributes:
        work: The pass.
        places: For each map that it stores, the old map whose place it takes, if there is one.
        kept: The maps that are needed after it.
    """

    work: Pass
    places: dict[int, int]
    kept: frozenset[int]


@dataclass(frozen=True)
class Plan:
    """Passes in order and what they cost.

    Attributes:
        stages: One per norm, and the last one.
        price: Of all, by which plans are compared.
        stored_bytes: The most that stored maps take at a time.
    """

    stages: tuple[Stage, ...] = ()
    price: float = 0.0
    stored_bytes: int = 0


def make_plan(program: Program, sizes: Sequence[Size], memory: int, disk: int) -> Plan | None:
    """The cheapest plan whose stored maps fit into ``memory`` and ``disk`` bytes; None if there is none."""
    return _Planner(program, sizes, memory, disk).plan()


class _Planner:
    def __init__(self, program: Program, sizes: Sequence[Size], memory: int, disk: int) -> None:
        self._program, self._steps, self._memory, self._disk = program, program.steps, memory, disk
        self._sizes = sizes
        self._last_user = [max(program.consumers(number), default=number) for number in range(len(self._steps))]
        self._bytes = [
            0 if not number else height * row_bytes(step.channels, width)  # the image is there anyway
            for number, (step, (height, width)) in enumerate(zip(self._steps, sizes, strict=True))
        ]
        self._work = [step.work(*size) for step, size in zip(self._steps, sizes, strict=True)]
        self.frontier = functools.cache(self._frontier)

    def plan(self) -> Plan | None:
        norms = [number for number, step in enumerate(self._steps) if isinstance(step, Norm)]
        paths = {0: Plan()}
        for count, norm in enumerate(norms):
            earliest = norms[count - _PASSES_BACK] if count >= _PASSES_BACK else 0
            found: dict[int, Plan] = {}
            for cut, path in paths.items():
                for later in (cut, *self._cuts(max(cut + 1, earliest), norm)):
                    longer = self._extend(path, cut, later, self._steps[norm].inputs[0], norm)
                    if later >= earliest and longer and (later not in found or longer.price < found[later].price):
                        found[later] = longer
            paths = found
        ends = [self._extend(path, cut, cut, len(self._steps) - 1, None) for cut, path in paths.items()]
        return min((end for end in ends if end), key=lambda end: end.price, default=None)

    def _cuts(self, first: int, norm: int) -> list[int]:
        """Places between ``first`` and a norm that are worth cutting: padded and enlarged maps never are."""
        return [
            cut
            for cut in range(first, norm)
            if not any(isinstance(self._steps[number], Pad | Enlargement) for number in self.frontier(cut))
        ]

    def _frontier(self, cut: int) -> frozenset[int]:
        """The maps up to a cut that are needed behind it."""
        return frozenset(number for number in range(cut + 1) if self._last_user[number] > cut)

    def _extend(self, path: Plan, cut: int, later: int, target: int, norm: int | None) -> Plan | None:
        """The path and one more pass from ``cut`` to the target, which leaves behind what ``later`` needs."""
        ready, kept = self.frontier(cut), self.frontier(later)
        stored = sorted(kept - ready) if later != cut else []
        work = make_pass(self._program, ready, target, norm, stored)
        places = self._places(work, ready - kept if later != cut else frozenset())
        held = sum(self._bytes[n] for n in ready) + sum(self._bytes[n] for n in stored if n not in places)
        if held > self._memory + self._disk:
            return None
        in_memory = min(1.0, self._memory / held) if held else 1.0
        price = in_memory * _MEMORY_PRICE + (1 - in_memory) * _FILE_PRICE
        moved = sum(self._bytes[number] for number in (*work.sources, *stored))
        cost = sum(self._work[number] for number in work.computed) + price * moved
        stage = Stage(work, places, kept if norm is not None else frozenset())
        return Plan((*path.stages, stage), path.price + cost, max(path.stored_bytes, held))

    def _places(self, work: Pass, outgoing: frozenset[int]) -> dict[int, int]:
        """New maps that can take the place of old ones: of one shape, and made of them, so that rows are read first."""
        free, places = sorted(outgoing - {0}), dict[int, int]()
        for new in work.stored:
            for old in free:
                same = (self._sizes[old], self._steps[old].channels) == (self._sizes[new], self._steps[new].channels)
                if same and old in make_pass(self._program, work.sources, new).sources:
                    places[new] = old
                    free.remove(old)
                    break
        return places
