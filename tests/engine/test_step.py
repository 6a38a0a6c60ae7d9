"""One step by hand: whose parameters move, by how much, in which order, and what is left as it was."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unpaired.engine import step as step_module
from unpaired.engine.step import (
    make_optimizers,
    only,
    random_batch,
    seconds_per_step,
    set_learning_rate,
    settle_optimizers,
    training_step,
)
from unpaired.methods.base import (
    DEFAULT_REQUEST,
    AdamSettings,
    ImageBatch,
    Method,
    OptimiserConfig,
    Phase,
    TranslateRequest,
    image_seeds,
)


class Toy(Method):
    """D's loss is 3 d + g, G's is 2 g d - 5 p: gradients are known numbers, whoever may have them."""

    def __init__(self, interval: int = 1) -> None:
        super().__init__()
        for name, value in (("discriminator", 2.0), ("generator", 4.0), ("projector", 7.0), ("kept", 1.0)):
            network = nn.Linear(1, 1, bias=False).double()
            nn.init.constant_(network.weight, value)
            setattr(self, name, network)
        self.kept.requires_grad_(False)
        self.seen: list[str] = []
        self.phases = (
            Phase("discriminator", ("discriminator",), self.discriminator_loss, interval=interval),
            Phase("generator", ("generator", "projector"), self.generator_loss, adam={"projector": AdamSettings(10.0)}),
        )

    def weights(self) -> list[float]:
        return [getattr(self, name).weight.item() for name in ("discriminator", "generator", "projector", "kept")]

    def forward_train(self, batch: ImageBatch) -> Tensor:
        self.seen.append("forward")
        return batch.source.mean()

    def discriminator_loss(self, outputs: Tensor) -> dict[str, Tensor]:
        self.seen.append("discriminator")
        d, g = self.discriminator.weight, self.generator.weight
        assert (d.requires_grad, g.requires_grad, self.projector.weight.requires_grad) == (True, False, False)
        return {"d": 3 * d.sum() * outputs, "rest": g.sum()}

    def generator_loss(self, outputs: Tensor) -> dict[str, Tensor]:
        self.seen.append("generator")
        d, g, p = self.discriminator.weight, self.generator.weight, self.projector.weight
        assert (d.requires_grad, g.requires_grad, p.requires_grad) == (False, True, True)
        return {"g": 2 * (g * d).sum(), "p": -5 * p.sum()}

    def translate(self, x_BCHW: Tensor, request: TranslateRequest = DEFAULT_REQUEST) -> Tensor:
        return x_BCHW

    def encode(self, x_BCHW: Tensor, taps: Sequence[str]) -> list[Tensor]:
        return []


def ones(images: int = 1) -> ImageBatch:
    pixels = torch.ones(images, 1, 2, 2, dtype=torch.float64)
    return ImageBatch(pixels, pixels, image_seeds(0, range(images)))


ADAM = OptimiserConfig(learning_rate=0.1, beta1=0.3, beta2=0.7, weight_decay=0.25)


def test_every_group_has_its_own_adam() -> None:
    toy = Toy()
    toy.kept.requires_grad_(True)
    toy.phases = (
        *toy.phases,
        Phase("rest", ("kept", "projector"), toy.generator_loss, adam={"kept": AdamSettings(0.5, (0.0, 0.9))}),
    )
    optimizers = make_optimizers(toy, ADAM)
    assert list(optimizers) == ["discriminator", "generator", "rest"]
    groups = {name: optimizer.param_groups for name, optimizer in optimizers.items()}
    found = {
        name: [([id(p) for p in g["params"]], g["lr"], g["betas"], g["learning_rate_factor"]) for g in each]
        for name, each in groups.items()
    }
    d, g, p, kept = ([id(getattr(toy, n).weight)] for n in ("discriminator", "generator", "projector", "kept"))
    assert found == {
        "discriminator": [(d, 0.1, (0.3, 0.7), 1.0)],
        "generator": [(g, 0.1, (0.3, 0.7), 1.0), (p, 1.0, (0.3, 0.7), 10.0)],
        "rest": [(kept, 0.05, (0.0, 0.9), 0.5), (p, 0.1, (0.3, 0.7), 1.0)],
    }
    for group in (group for each in groups.values() for group in each):
        assert (group["weight_decay"], group["eps"], group["amsgrad"], group["maximize"]) == (0.25, 1e-8, False, False)
        assert (group["fused"], group["foreach"], group["capturable"]) == (None, True, False)


def test_networks_of_equal_settings_share_a_group() -> None:
    toy = Toy()
    toy.phases = (Phase("all", ("discriminator", "generator", "projector"), toy.generator_loss),)
    ((group,),) = (optimizer.param_groups for optimizer in make_optimizers(toy, ADAM).values())
    assert [p.item() for p in group["params"]] == [2.0, 4.0, 7.0]


def test_recorded_steps_read_their_rate_from_a_tensor() -> None:
    optimizers = make_optimizers(Toy(), ADAM)
    settle_optimizers(optimizers, recorded=True)
    group, slow = optimizers["generator"].param_groups
    assert isinstance(group["lr"], Tensor)
    assert (group["lr"].item(), slow["lr"].item()) == (pytest.approx(0.1), pytest.approx(1.0))
    assert (group["fused"], group["foreach"], group["capturable"]) == (None, False, False)  # a CPU records nothing
    place = group["lr"].data_ptr()
    set_learning_rate(optimizers, 0.02)
    assert group["lr"].data_ptr() == place
    assert (group["lr"].item(), slow["lr"].item()) == (pytest.approx(0.02), pytest.approx(0.2))
    settle_optimizers(optimizers)
    assert (type(group["lr"]), group["foreach"]) == (float, True)


def test_the_rate_is_set_times_each_factor() -> None:
    optimizers = make_optimizers(Toy(), ADAM)
    del optimizers["discriminator"].param_groups[0]["learning_rate_factor"]  # as in checkpoints of older versions
    set_learning_rate(optimizers, 0.03)
    rates = [group["lr"] for optimizer in optimizers.values() for group in optimizer.param_groups]
    assert rates == [0.03, 0.03, pytest.approx(0.3)]


def test_the_count_of_steps_lies_on_the_cpu_there() -> None:
    toy = Toy()
    optimizers = make_optimizers(toy, ADAM)
    training_step(toy, optimizers, ones())
    state = optimizers["generator"].state[toy.generator.weight]
    state["step"] = torch.empty((), device="meta")  # from a checkpoint of somewhere else
    with pytest.raises(NotImplementedError, match="meta"):  # torch cannot copy out of nowhere: it was asked to
        settle_optimizers(optimizers)
    state["step"] = torch.tensor(1.0)
    settle_optimizers(optimizers)
    assert state["step"].device.type == "cpu"


def test_a_step_moves_each_phases_parameters_down_its_own_loss() -> None:
    """Adam's first step is the rate times the sign of the gradient."""
    toy = Toy()
    optimizers = make_optimizers(toy, OptimiserConfig(learning_rate=0.1))
    terms = training_step(toy, optimizers, ones())
    assert toy.seen == ["forward", "discriminator", "generator"]
    assert toy.weights() == pytest.approx([1.9, 3.9, 8.0, 1.0])
    # D's loss saw the weights before the step, G's saw D after its own.
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(
        {"d": 6.0, "rest": 4.0, "g": 2 * 4 * 1.9, "p": -35.0}
    )
    gradients = [getattr(toy, name).weight.grad.item() for name in ("discriminator", "generator", "projector")]
    assert gradients == pytest.approx([3.0, 2 * 1.9, -5.0])
    assert toy.kept.weight.grad is None
    assert [p.requires_grad for p in toy.parameters()] == [True, True, True, False]


def test_gradients_are_of_one_step_times_its_weight_and_are_averaged_before_it() -> None:
    toy, given = Toy(), []

    def average(gradients: Sequence[Tensor]) -> None:
        given.append([g.item() for g in gradients])
        for gradient in gradients:
            gradient.mul_(-1)

    optimizers = make_optimizers(toy, OptimiserConfig(learning_rate=0.1))
    for _ in range(2):
        given.clear()
        terms = training_step(toy, optimizers, ones(), weight=0.25, average=average)
    # Averaging turned every gradient round, so D and G went up and the projector down, twice.
    assert given == [[pytest.approx(0.75)], [pytest.approx(0.5 * 2.2, abs=1e-3), pytest.approx(-1.25)]]
    assert toy.weights() == pytest.approx([2.2, 4.2, 5.0, 1.0], abs=2e-3)
    assert terms["p"].item() == pytest.approx(-30.0, abs=0.01)


def test_parameters_without_a_gradient_are_not_averaged() -> None:
    toy = Toy()
    toy.phases = (Phase("generator", ("generator", "projector"), lambda outputs: {"g": toy.generator.weight.sum()}),)
    given: list[int] = []
    training_step(toy, make_optimizers(toy, ADAM), ones(), average=lambda gradients: given.append(len(gradients)))
    assert given == [1]


def test_a_phase_runs_at_the_multiples_of_its_interval() -> None:
    toy = Toy(interval=3)
    optimizers = make_optimizers(toy, ADAM)
    ran = []
    for number in range(7):
        toy.seen.clear()
        terms = training_step(toy, optimizers, ones(), number=number)
        ran.append("discriminator" in toy.seen)
        assert toy.seen[-1] == "generator"
        assert ("d" in terms) == ran[-1]
    assert ran == [True, False, False, True, False, False, True]
    toy.seen.clear()
    training_step(toy, optimizers, ones())  # a step without a number is the first
    assert "discriminator" in toy.seen


def test_forward_and_losses_run_in_the_given_context_and_backward_does_not() -> None:
    toy, inside = Toy(), []

    @contextmanager
    def autocast() -> Any:
        inside.append("in")
        toy.seen.append("open")
        yield
        toy.seen.append("close")

    training_step(toy, make_optimizers(toy, ADAM), ones(), autocast=autocast)
    assert toy.seen == [
        "open", "forward", "close", "open", "discriminator", "close", "open", "generator", "close",
    ]  # fmt: skip


def test_only_thaws_what_it_froze_even_after_an_error() -> None:
    toy = Toy()

    def fail() -> None:
        with only(toy, ["projector"]):
            assert [p.requires_grad for p in toy.parameters()] == [False, False, True, False]
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert [p.requires_grad for p in toy.parameters()] == [True, True, True, False]


def test_a_step_takes_the_mean_time_without_the_first_two(monkeypatch: pytest.MonkeyPatch) -> None:
    durations = [100.0, 50.0, 7.0, 1.0, 3.0, 2.0, 9.0]
    moments = iter([moment for took in durations for moment in (0.0, took)])
    monkeypatch.setattr(time, "perf_counter", lambda: next(moments))
    taken: list[tuple[tuple[int, ...], int]] = []

    def count(method: Method, optimizers: Any, images: ImageBatch, *, number: int, autocast: Any) -> None:
        assert set(optimizers) == {"discriminator", "generator"}
        assert images.source.min() < -0.5
        assert images.target.max() > 0.5
        assert images.source.abs().max() <= 1
        assert not torch.equal(images.source, images.target)
        taken.append((tuple(images.source.shape), number))

    monkeypatch.setattr(step_module, "training_step", count)
    toy = Toy()
    prepared: list[bool] = []
    monkeypatch.setattr(toy, "prepare", lambda: prepared.append(True))
    assert seconds_per_step(toy, ADAM, 2, (8, 4), batch_size=3, steps=5) == (7 + 1 + 3 + 2 + 9) / 5
    assert prepared == [True]
    assert taken == [((3, 2, 8, 4), number) for number in range(7)]


def test_seconds_are_those_of_a_single_image_by_twelve_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(step_module, "training_step", lambda m, o, images, **_: sizes.append(len(images.source)))
    assert 0 <= seconds_per_step(Toy(), ADAM, 1, (4, 4)) < 60
    assert sizes == [1] * 14


def test_a_random_batch_has_the_domains_that_a_method_knows() -> None:
    toy, (source, target) = Toy(), torch.rand(2, 3, 1, 4, 4)
    plain = random_batch(toy, source, target)
    assert torch.equal(plain.seeds, image_seeds(0, range(3)))
    assert (plain.source is source, plain.target is target) == (True, True)
    assert (plain.source_domains, plain.target_domains) == (None, None)
    toy.domains = ("a", "b")
    several = random_batch(toy, source, target)
    assert torch.equal(several.seeds, plain.seeds)
    assert (several.source is source, several.target is target) == (True, True)
    assert (several.source_domains.tolist(), several.target_domains.tolist()) == ([0, 0, 0], [1, 1, 1])
    assert several.source_domains.dtype == several.target_domains.dtype == torch.int64
