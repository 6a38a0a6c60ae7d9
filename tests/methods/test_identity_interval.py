"""The identity pass at every few steps: what such steps compute, and that nothing else depends on the interval."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.test_training import assert_same, final_state
from methods.steps import batch, losses, make
from tiny import tiny_run
from unpaired.engine.acceleration import RecordedSteps
from unpaired.engine.step import make_optimizers, settle_optimizers, training_step
from unpaired.methods import METHODS
from unpaired.training import train

WITH_INTERVAL = [name for name, row in METHODS.items() if "identity_interval" in row.Config.__dataclass_fields__]
"""All that inherit CUT's settings."""
ALWAYS = {"fastcut": {"identity_weight": 1.0}}
"""What else gives a method an identity term."""


def numbered(number: int, images: int = 2) -> Any:
    return replace(batch(images), number=number)


def test_the_family_of_cut_has_it() -> None:
    assert {"qs_attn", "cut", "monce", "hneg_src", "multi_domain_qs_attn"} <= set(WITH_INTERVAL)


@pytest.mark.parametrize("name", WITH_INTERVAL)
def test_steps_with_and_without_the_identity_pass(name: str) -> None:
    """Only whole multiples have it; the other terms of a step are the same with it and without it."""
    extra = ALWAYS.get(name, {})
    every, rare = make(name, **extra), make(name, **extra, identity_interval=3)
    assert (every.cycle, rare.cycle) == (1, 3)
    usual = losses(every, numbered(0))
    identity = {term for term in usual if "identity" in term}
    assert "identity" in identity
    for number in (0, 3, 6):
        found = losses(make(name, **extra, identity_interval=3), numbered(number))
        assert found.keys() == usual.keys()
        assert all(torch.equal(found[term], usual[term]) for term in usual)
    without = losses(make(name, **extra, identity_interval=3), numbered(4))
    assert without.keys() == usual.keys() - identity
    for term, value in without.items():
        torch.testing.assert_close(value, usual[term], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["cut", "qs_attn", "monce", "hneg_src", "multi_domain_qs_attn"])
def test_the_contrast_keeps_its_share_at_steps_without(name: str) -> None:
    alone = losses(make(name, identity_weight=0.0), numbered(1))["contrastive"]
    for reduction, share in (("mean", 0.5), ("sum", 1.0)):
        found = losses(make(name, identity_interval=2, contrastive_reduction=reduction), numbered(1))["contrastive"]
        torch.testing.assert_close(found, share * alone, rtol=1e-4, atol=1e-5)


def test_without_an_identity_term_there_is_no_cycle() -> None:
    assert make("cut", identity_weight=0.0, identity_interval=4).cycle == 1
    assert make("fastcut", identity_interval=4).cycle == 1


def test_half_as_many_images_pass_the_generator() -> None:
    method: Any = make("cut", identity_interval=2)
    counted: list[int] = []
    method.generator.head.register_forward_hook(lambda module, inputs, made: counted.append(len(made)))
    for number in range(4):
        method.forward_train(numbered(number))
    assert counted == [4, 2, 4, 2]


def test_a_batch_gives_the_mean_of_its_images_at_any_step() -> None:
    method = make("qs_attn", identity_interval=2)
    for number in (0, 1):
        together = losses(method, numbered(number, images=3))
        apart = [losses(method, replace(batch(1, first=i), number=number)) for i in range(3)]
        for term, value in together.items():
            torch.testing.assert_close(value, torch.stack([x[term] for x in apart]).mean(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("method", ["qs_attn", "multi_domain_qs_attn"])
def test_a_run_resumes_to_the_bit_between_two_identity_steps(
    method: str, batch_size: int, dataset: Path, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {"identity_interval": 3, "batch_size": batch_size, "images": 7 * batch_size}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(tiny_run(dataset, method, **changes), whole, quiet=True)
    for stop in (2 * batch_size, 4 * batch_size, None):
        train(tiny_run(dataset, method, **changes, stop_after=stop), parts, quiet=True)
    assert_same(final_state(whole), final_state(parts))
    for run in (whole, parts):
        logged = [json.loads(line)["terms"] for line in (run / "log.jsonl").read_text().splitlines()]
        assert ["identity" in each for each in logged] == [True, False, False, True, False, False, True]


def test_the_log_gives_the_mean_over_the_steps_that_have_the_term(dataset: Path, tmp_path: Path) -> None:
    for name, every in (("fine", 1), ("coarse", 4)):
        train(tiny_run(dataset, images=4, identity_interval=2, log_every=every), tmp_path / name, quiet=True)
    fine, coarse = (
        [json.loads(line)["terms"] for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("fine", "coarse")
    )
    (found,) = coarse
    assert found["identity"] == pytest.approx((fine[0]["identity"] + fine[2]["identity"]) / 2, rel=1e-5)
    assert found["contrastive"] == pytest.approx(sum(each["contrastive"] for each in fine) / 4, rel=1e-5)


def test_recorded_steps_are_of_two_kinds() -> None:
    method, other = make("cut", identity_interval=3), make("cut", identity_interval=3)
    optimizers = make_optimizers(method, method.config.optimiser)
    settle_optimizers(optimizers, recorded=True)
    plain = make_optimizers(other, other.config.optimiser)
    recorded: list[Callable[[], None]] = []

    def record(step: Callable[[], None]) -> Callable[[], None]:
        recorded.append(step)
        return step

    steps = RecordedSteps(method, optimizers, eager_steps=1, record=record)
    for number in range(7):
        images = replace(batch(1, first=number), number=number)
        found = {term: value.item() for term, value in steps(images, number=number).items()}
        expected = {term: value.item() for term, value in training_step(other, plain, images, number=number).items()}
        assert found.keys() == expected.keys()
        assert found == pytest.approx(expected, rel=1e-3), number
        assert ("identity" in found) == (number % 3 == 0)
    assert len(recorded) == 2
