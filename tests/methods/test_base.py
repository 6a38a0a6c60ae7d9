"""What all methods share: the schedule's values, the seeds of their draws, and what a method is without saying so."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import nn

from unpaired.methods import DEFAULT_REQUEST, ImageBatch, Method, OptimiserConfig, Phase, TranslateRequest, image_seeds
from unpaired.methods.base import AdamSettings, coin_flips, derive_seeds


@pytest.mark.parametrize(
    ("constant", "values"),
    [
        (0.5, {0.0: 1.0, 0.5: 1.0, 0.625: 0.75, 0.75: 0.5, 0.9: 0.2, 1.0: 0.0, 1.5: 0.0}),
        (0.75, {0.0: 1.0, 0.75: 1.0, 0.875: 0.5, 1.0: 0.0}),
        (0.0, {0.0: 1.0, 0.25: 0.75, 1.0: 0.0}),
        (1.0, {0.0: 1.0, 0.99: 1.0, 1.0: 1.0}),
    ],
)
def test_the_linear_schedule_is_constant_and_then_falls_to_zero(constant: float, values: dict[float, float]) -> None:
    optimiser = OptimiserConfig(constant_fraction=constant)
    assert [optimiser.factor(progress) for progress in values] == pytest.approx(list(values.values()), abs=1e-15)


def test_a_cosine_schedule_is_constant_then_half_a_cosine_to_zero() -> None:
    for constant in (0.0, 0.5):
        optimiser = OptimiserConfig(schedule="cosine", constant_fraction=constant)
        for progress in (0.1, 0.5, 0.6, 0.75, 0.9, 1.0):
            done = max(0.0, (progress - constant) / (1 - constant))  # of the falling part
            assert optimiser.factor(progress) == pytest.approx((1 + math.cos(math.pi * done)) / 2, abs=1e-12)
        assert (optimiser.factor(0.0), optimiser.factor(1.5)) == (1.0, 0.0)
        assert optimiser.constant_images(100) == 100 * constant
    assert OptimiserConfig(schedule="cosine", constant_fraction=1.0).factor(1.0) == 1.0


def test_the_halving_schedule_halves_after_each_tenth() -> None:
    optimiser = OptimiserConfig(schedule="halving")
    for tenth in range(10):
        for within in (0, 0.05, 0.0999):
            assert optimiser.factor(tenth / 10 + within) == 0.5**tenth, (tenth, within)
    # A tenth that division has put just below itself counts; one that is really not over does not.
    assert optimiser.factor(0.3 - 1e-11) == 0.125
    assert optimiser.factor(0.3 - 1e-6) == 0.25
    assert [optimiser.factor(progress) for progress in (1.0, 1.7)] == [2.0**-10, 2.0**-10]


MASK = 2**64 - 1


def splitmix64(value: int) -> int:
    """Steele, Lea and Flood's generator over unsigned 64-bit integers."""
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def derived(seed: int, *salts: int) -> int:
    for salt in salts:
        seed = splitmix64((seed & MASK) ^ splitmix64(salt & MASK))
    return seed


def signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def test_seeds_are_splitmix64_of_the_seed_and_each_salt() -> None:
    assert splitmix64(0) == 0xE220A8397B1DCDAF  # the published first output of seed 0
    seeds = torch.tensor([0, 1, -5, 2**62])
    for salts in ((), (0,), (1,), (-3, 7), (2**40, -(2**40))):
        assert derive_seeds(seeds, *salts).tolist() == [signed(derived(int(s), *salts)) for s in seeds]
    assert image_seeds(7, range(3)).tolist() == [signed(derived(place, 7)) for place in range(3)]
    assert torch.equal(image_seeds(7, torch.tensor([2, 0])), image_seeds(7, [2, 0]))
    assert image_seeds(7, [1]).dtype == torch.int64


def test_coins_are_the_highest_bit() -> None:
    seeds = image_seeds(3, range(64))
    expected = [splitmix64(int(seed) & MASK) >= 2**63 for seed in seeds]
    assert coin_flips(seeds) == expected
    assert 20 < sum(expected) < 44


class Plain(Method):
    """The least that a method is."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Linear(1, 1)

    def forward_train(self, batch: ImageBatch) -> Any:
        raise NotImplementedError

    def translate(self, x_BCHW: torch.Tensor, request: TranslateRequest = DEFAULT_REQUEST) -> torch.Tensor:
        raise NotImplementedError

    def encode(self, x_BCHW: torch.Tensor, taps: Any) -> list[torch.Tensor]:
        raise NotImplementedError


def test_what_a_method_is_that_says_nothing_more() -> None:
    method = Plain()
    method.prepare()
    assert method.served_networks() == {"generator": method.generator}
    assert method.selection("down1") == {"significance": "random", "routing": "none"}
    assert (method.domains, method.default_domain, method.style_channels, method.smallest_image) == ((), 1, 0, 8)
    assert (method.supports, method.compiled, method.not_recordable, method.one_process_only) == (
        frozenset(),
        (),
        "",
        "",
    )
    for needed in ("forward_train", "translate", "encode"):
        without = type("Without", (Plain,), {needed: getattr(Method, needed)})
        with pytest.raises(TypeError, match=needed):
            without()


def test_a_plain_wish_wants_nothing() -> None:
    assert dataclasses.asdict(DEFAULT_REQUEST) == {
        "reverse": False, "style_seeds": None, "style_reference": None, "domain": None, "style": None,
    }  # fmt: skip


def test_a_phase_runs_at_every_step_with_the_adam_of_the_run() -> None:
    phase = Phase("discriminator", ("discriminator",), lambda outputs: {})
    assert (phase.interval, dict(phase.adam)) == (1, {})
    assert AdamSettings() == AdamSettings(learning_rate_factor=1.0, betas=None)
