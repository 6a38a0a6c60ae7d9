"""Any rows of any step are those of the whole map, every row is computed once, statistics are exact, plans sound."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from large import in_stripes, lively
from torch import Tensor, nn

from unpaired.inference.large_images import UnsuitableNetworkError, trace
from unpaired.inference.large_images.plan import make_plan, stripe_rows, stripes, whole, working_set
from unpaired.inference.large_images.program import Program
from unpaired.inference.large_images.steps import Norm
from unpaired.inference.large_images.stream import Statistics


@functools.cache
def weight(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def layer_norm(x: Tensor) -> Tensor:
    return F.layer_norm(x.permute(0, 2, 3, 1), (4,), weight(4), weight(4)).permute(0, 3, 1, 2)


OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "reflect": lambda x: F.pad(x, (3, 2, 1, 4), mode="reflect") * 2,
    "replicate": lambda x: F.pad(x, (1, 2, 3, 0), mode="replicate") * 2,
    "constant": lambda x: F.pad(x, (1, 1, 2, 3), value=0.5) * 2,
    "padded twice": lambda x: F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), weight(2, 4, 3, 3), padding=2),
    "convolution": lambda x: F.conv2d(x, weight(6, 4, 3, 3), weight(6)),
    "strided": lambda x: F.conv2d(x, weight(6, 4, 4, 4), stride=2),
    "strided and padded": lambda x: F.conv2d(F.pad(x, (3, 3, 3, 3), mode="reflect"), weight(6, 4, 4, 4), stride=3),
    "grouped": lambda x: F.conv2d(x, weight(4, 1, 3, 3), stride=2, groups=4),
    "dilated": lambda x: F.conv2d(x, weight(2, 4, 3, 3), dilation=2, padding=(2, 1)),
    "transposed": lambda x: F.conv_transpose2d(x, weight(4, 2, 3, 3), weight(2), 2, 1, 1),
    "transposed by 4": lambda x: F.conv_transpose2d(x, weight(4, 2, 4, 4), None, 2, 1),
    "bilinear": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "bilinear by 3": lambda x: F.interpolate(x, scale_factor=3, mode="bilinear"),
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "depth to space": lambda x: F.pixel_shuffle(x, 2),
    "space to depth": lambda x: F.pixel_unshuffle(x, 4),
    "norm of pixels": layer_norm,
    "norm": lambda x: F.group_norm(x, 2, weight(4), weight(4)),
    "concatenation": lambda x: torch.cat([x, F.relu(x)], 1),
    "constants": lambda x: x * weight(4, 1, 1) + weight(1, 4, 1, 1),
}


def traced(operation: Callable[[Tensor], Tensor]) -> Program:
    """The program of a method that does nothing else."""

    class Method(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(1))

        def translate(self, x: Tensor) -> Tensor:
            return operation(x)

    operation(torch.zeros(1, 4, 32, 48))  # its weights are made now, as those of a module are
    method: Any = Method()
    return trace(method, 4)


@pytest.mark.parametrize("name", OPERATIONS)
def test_stripes_of_any_height_give_the_whole_map(name: str, tmp_path: Path) -> None:
    program, operation = traced(OPERATIONS[name]), OPERATIONS[name]
    for height in (8, 12, 24):
        x = torch.randn(1, 4, height, 12, generator=torch.Generator().manual_seed(0))
        assert program.sizes(height, 12)[-1] == tuple(operation(x).shape[2:])
        for rows in (1, 2, 3, 5, 8, 24):
            found = in_stripes(program, x, tmp_path, memory=0, rows=rows)
            torch.testing.assert_close(found, operation(x), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("operation", "said"),
    [
        (lambda x: x * x.mean((2, 3), keepdim=True), "mean"),
        (lambda x: F.interpolate(x, (64, 64)), "not a whole-number enlargement"),
        (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True), "aligned corners"),
        (lambda x: x + torch.ones(48), "a constant of shape"),
        (lambda x: x + x[:, :1], "slice"),
        (lambda x: F.layer_norm(x, x.shape[1:]), "layer_norm"),
        (lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (48, 4)).permute(0, 3, 1, 2), "more than the channels"),
        (lambda x: F.pad(x, (-1, -1, -1, -1)) * 1, "padding by"),
        (lambda x: F.conv_transpose2d(x, weight(4, 2, 3, 3), dilation=2), "with dilation"),
        (lambda x: torch.cat([x, x], 2), "along axis 2"),
        (lambda x: F.conv2d(weight(1, 4, 9, 9), x[:, :, :3, :3]), "slice"),
        (lambda x: x.half() * 2, "float32"),
        (lambda x: (x * 2, x)[1], "last operation"),
    ],
)
def test_what_cannot_be_computed_on_some_rows_is_refused(operation: Callable[[Tensor], Tensor], said: str) -> None:
    with pytest.raises(UnsuitableNetworkError, match=said):
        traced(operation)


@pytest.mark.parametrize("mean", [0.0, 3.0, 1000.0])
@pytest.mark.parametrize("groups", [6, 2, 1])
def test_statistics_of_pieces_are_those_of_the_whole(mean: float, groups: int) -> None:
    x = torch.randn(1, 6, 300, 40, generator=torch.Generator().manual_seed(2)) + mean
    x[:, :, :50] *= 5  # pieces differ
    x[:, 3] += 20
    statistics = Statistics()
    for piece in x.split([1, 7, 200, 92], dim=2):
        statistics.add(piece)
    gamma, beta = weight(6) + 2, weight(6)
    scale, shift = statistics.scale_and_shift(Norm((0,), 6, groups=groups, weight=gamma, bias=beta))
    expected = F.group_norm(x.double(), groups, gamma.double(), beta.double())
    found = x.double() * scale + shift
    assert (found - expected).abs().max() < 2e-6 * (1 + mean)  # float32 scale and shift of numbers that large


NORMED = ["qs_attn", "cyclegan", "munit"]


@pytest.fixture(scope="module", params=[*NORMED, "light"])
def program(request: pytest.FixtureRequest) -> Program:
    if request.param == "light":
        return trace(lively("cut", generator="light"), 3)
    return trace(lively(request.param), 3)


of_whole_maps = pytest.mark.parametrize("program", NORMED, indirect=True)
"""Programs whose norms need the statistics of whole maps, so that there is something to plan."""


@pytest.mark.parametrize("rows", [4, 12, 100])
def test_every_row_of_every_map_is_computed_once_and_in_order(program: Program, rows: int) -> None:
    sizes = program.sizes(68, 40)
    plan = make_plan(program, sizes, 10**6, 10**9)
    assert plan is not None
    for work in plan.passes:
        done = dict.fromkeys((*work.sources, *work.computed), 0)
        for jobs in stripes(program, sizes, work, rows):
            for job in jobs:
                assert job.start == done[job.step] < job.stop
                done[job.step] = job.stop
        for number in (work.target, *work.stored):
            assert done[number] == sizes[number][0]
        assert all(done[number] <= sizes[number][0] for number in done)


def test_stripes_take_a_bounded_memory_whatever_the_height(program: Program) -> None:
    """The part of memory that stripes take grows with the width alone; that of whole maps grows with both."""
    plan = make_plan(program, program.sizes(512, 64), 10**9, 0)
    assert plan is not None
    for work in plan.passes:
        low, middle, high = (working_set(program, program.sizes(side, 64), work, 8) for side in (64, 256, 2048))
        assert low == middle == high
    low, high = (working_set(program, program.sizes(side, 64), whole(program), side) for side in (256, 512))
    assert high > 1.9 * low


def test_stripes_grow_with_the_budget_and_give_convolutions_whole_tiles(program: Program) -> None:
    sizes, work = program.sizes(512, 512), whole(program)
    found = [stripe_rows(program, sizes, work, budget, 2**40) for budget in (2 * 10**6, 10**7, 10**8)]
    assert found == sorted(found)
    assert found[0] < found[-1] <= 512
    assert all(rows % 16 == 0 for rows in found[1:])
    for rows, budget in zip(found[1:], (10**7, 10**8), strict=True):
        assert working_set(program, sizes, work, rows) <= budget


@of_whole_maps
def test_plans_keep_within_their_space_and_cost_more_the_less_there_is(program: Program) -> None:
    sizes = program.sizes(256, 256)
    plans = [make_plan(program, sizes, memory, 0) for memory in (10**9, 2 * 10**6, 500_000)]
    prices = []
    for plan, memory in zip(plans, (10**9, 2 * 10**6, 500_000), strict=True):
        assert plan is not None
        assert plan.stored_bytes <= memory
        prices.append(plan.price)
    assert prices == sorted(prices)
    assert prices[0] < prices[-1]
    assert make_plan(program, sizes, 1000, 0) is None


@of_whole_maps
def test_a_plan_gathers_every_norm_once_and_only_reads_what_is_kept(program: Program) -> None:
    plan = make_plan(program, program.sizes(64, 64), 10**6, 10**9)
    assert plan is not None
    norms = [number for number, step in enumerate(program.steps) if isinstance(step, Norm)]
    assert [work.norm for work in plan.passes] == [*norms, None]
    there, known = {0}, set[int]()
    for work in plan.passes:
        assert set(work.sources) <= there
        assert {number for number in work.computed if number in norms} <= known
        known.add(work.norm if work.norm is not None else -1)
        there = {0, *work.kept}
        assert there - {0} <= {*work.sources, *work.stored, *there}


def test_what_does_not_depend_on_the_image_is_no_step(program: Program) -> None:
    assert all(step.channels > 1 for step in program.steps)
    assert sum(len(step.inputs) == 2 for step in program.steps) >= 4, "the sums of the residual blocks"
