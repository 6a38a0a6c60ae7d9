"""Any rows of any step are those of the whole map, every row is computed once, statistics are exact, plans sound."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from large import lively
from torch import Tensor

from unpaired.inference.large_images import trace
from unpaired.inference.large_images.passes import rounds, stripe_rows, whole, working_set
from unpaired.inference.large_images.plan import make_plan
from unpaired.inference.large_images.program import Program
from unpaired.inference.large_images.rearrangements import DepthToSpace, SpaceToDepth
from unpaired.inference.large_images.statistics import Statistics
from unpaired.inference.large_images.steps import (
    ChannelNorm,
    Concatenation,
    Convolution,
    Enlargement,
    Norm,
    Pad,
    Pointwise,
    Step,
    TransposedConvolution,
)

HEIGHT, WIDTH = 11, 9
MAP = torch.randn(1, 4, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))


def weight(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


STEPS: dict[str, tuple[Step, Tensor]] = {
    "reflect": (Pad((0,), 4, "reflect", 3, 2, 1, 4), F.pad(MAP, (3, 2, 1, 4), mode="reflect")),
    "replicate": (Pad((0,), 4, "replicate", 1, 2, 3, 0), F.pad(MAP, (1, 2, 3, 0), mode="replicate")),
    "constant": (Pad((0,), 4, "constant", 1, 1, 2, 3, 0.5), F.pad(MAP, (1, 1, 2, 3), value=0.5)),
    "convolution": (
        Convolution((0,), 6, weight(6, 4, 3, 3), weight(6)), F.conv2d(MAP, weight(6, 4, 3, 3), weight(6)),
    ),
    "strided": (
        Convolution((0,), 6, weight(6, 4, 4, 4), None, (2, 2)), F.conv2d(MAP, weight(6, 4, 4, 4), stride=2),
    ),
    "grouped": (
        Convolution((0,), 4, weight(4, 1, 3, 3), None, (2, 2), groups=4),
        F.conv2d(MAP, weight(4, 1, 3, 3), stride=2, groups=4),
    ),
    "dilated": (
        Convolution((0,), 2, weight(2, 4, 3, 3), None, dilation=(2, 2)), F.conv2d(MAP, weight(2, 4, 3, 3), dilation=2),
    ),
    "transposed": (
        TransposedConvolution((0,), 2, weight(4, 2, 3, 3), weight(2), (2, 2), (1, 1), (1, 1)),
        F.conv_transpose2d(MAP, weight(4, 2, 3, 3), weight(2), 2, 1, 1),
    ),
    "transposed by 4": (
        TransposedConvolution((0,), 2, weight(4, 2, 4, 4), None, (2, 2), (1, 1), (0, 0)),
        F.conv_transpose2d(MAP, weight(4, 2, 4, 4), None, 2, 1),
    ),
    "bilinear": (
        Enlargement((0,), 4, "bilinear", (2, 2)), F.interpolate(MAP, scale_factor=2, mode="bilinear"),
    ),
    "bilinear by 3": (
        Enlargement((0,), 4, "bilinear", (3, 3)), F.interpolate(MAP, scale_factor=3, mode="bilinear"),
    ),
    "nearest": (Enlargement((0,), 4, "nearest", (2, 2)), F.interpolate(MAP, scale_factor=2)),
    "depth to space": (DepthToSpace((0,), 1, 2), F.pixel_shuffle(MAP, 2)),
    "norm of pixels": (
        ChannelNorm((0,), 4, weight(4), weight(4), 1e-5),
        (MAP - MAP.mean(1, keepdim=True)) / (MAP.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
        * weight(4).view(1, 4, 1, 1) + weight(4).view(1, 4, 1, 1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
def test_any_rows_are_those_of_the_whole_map(name: str) -> None:
    step, expected = STEPS[name]
    assert step.size(HEIGHT, WIDTH) == tuple(expected.shape[2:])
    height = expected.shape[2]
    for start in range(height):
        for stop in range(start + 1, height + 1):
            first, last = step.reach(start, stop, HEIGHT)
            assert 0 <= first < last <= HEIGHT
            found = step.run([MAP[:, :, first:last]], first, start, stop, HEIGHT)
            torch.testing.assert_close(found, expected[:, :, start:stop], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("factor", [2, 3])
def test_any_rows_of_blocks_laid_into_channels_are_those_of_the_whole_map(factor: int) -> None:
    whole_map = MAP[:, :, : HEIGHT // factor * factor, : WIDTH // factor * factor]
    step, expected = SpaceToDepth((0,), 4 * factor**2, factor), F.pixel_unshuffle(whole_map, factor)
    assert step.size(*whole_map.shape[2:]) == tuple(expected.shape[2:])
    for start in range(expected.shape[2]):
        for stop in range(start + 1, expected.shape[2] + 1):
            first, last = step.reach(start, stop, whole_map.shape[2])
            found = step.run([whole_map[:, :, first:last]], first, start, stop, whole_map.shape[2])
            assert torch.equal(found, expected[:, :, start:stop])


def test_maps_are_joined_in_their_order() -> None:
    step = Concatenation((0, 1), 6)
    assert step.reach(3, 5, HEIGHT) == (3, 5)
    found = step.run([MAP[:, :, 3:5], MAP[:, 2:, 3:5]], 3, 3, 5, HEIGHT)
    assert torch.equal(found, torch.cat([MAP, MAP[:, 2:]], 1)[:, :, 3:5])


def test_padding_joins_what_was_padded_before() -> None:
    step, expected = STEPS["reflect"]
    assert isinstance(step, Pad)
    first, last = step.reach(4, 9, HEIGHT)
    joined = step.append(expected[:, :, 1:4], MAP[:, :, first:last], first, 4, 9, HEIGHT)
    assert torch.equal(joined, expected[:, :, 1:9])


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
    scale, shift = statistics.scale_and_shift(Norm((0,), 6, groups, gamma, beta, 1e-5))
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
    for stage in plan.stages:
        done = dict.fromkeys((*stage.work.sources, *stage.work.computed), 0)
        for jobs in rounds(program, sizes, stage.work, rows):
            for job in jobs:
                assert job.start == done[job.step] < job.stop
                done[job.step] = job.stop
        for number in (stage.work.target, *stage.work.stored):
            assert done[number] == sizes[number][0]
        assert all(done[number] <= sizes[number][0] for number in done)


def test_stripes_take_a_bounded_memory_whatever_the_height(program: Program) -> None:
    """The part of memory that stripes take grows with the width alone; that of whole maps grows with both."""
    plan = make_plan(program, program.sizes(512, 64), 10**9, 0)
    assert plan is not None
    for stage in plan.stages:
        low, middle, high = (working_set(program, program.sizes(side, 64), stage.work, 8) for side in (64, 256, 2048))
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
    assert [stage.work.norm for stage in plan.stages] == [*norms, None]
    there, known = {0}, set[int]()
    for stage in plan.stages:
        assert set(stage.work.sources) <= there
        assert {number for number in stage.work.computed if number in norms} <= known
        known.add(stage.work.norm if stage.work.norm is not None else -1)
        there = {0, *stage.kept}
        assert there - {0} <= {*stage.work.sources, *stage.work.stored, *there}


def test_what_does_not_depend_on_the_image_is_no_step(program: Program) -> None:
    assert all(step.channels > 1 for step in program.steps)
    sums = [step for step in program.steps if isinstance(step, Pointwise) and len(step.inputs) == 2]
    assert len(sums) >= 4, "the residual blocks"
