"""The averaged weights by their closed form: ramp, half-life, and what applying and restoring them does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unpaired.engine.ema import EMA


def network(value: float) -> nn.Linear:
    made = nn.Linear(2, 1, bias=False).double()
    nn.init.constant_(made.weight, value)
    return made


def fill(module: nn.Linear, value: float) -> None:
    nn.init.constant_(module.weight, value)


def test_ema_halves_a_difference_after_its_half_life() -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(network.weight)
    ema = EMA({"net": network}, half_life_images=100)
    torch.nn.init.ones_(network.weight)
    for image in range(5000, 5100, 10):
        ema.update(image, 10)
    assert ema.weights()["net.weight"].item() == pytest.approx(0.5, abs=1e-6)
    with ema.applied():
        assert network.weight.item() == pytest.approx(0.5, abs=1e-6)
    assert network.weight.item() == 1


@pytest.mark.parametrize(
    ("seen", "batch", "half_life"),
    [(8, 1, 0.8), (8, 4, 0.8), (300, 4, 30.0), (999, 1, 99.9), (1000, 1, 100.0), (1001, 4, 100.0), (10**6, 7, 100.0)],
)
def test_half_life_is_a_tenth_of_the_images_seen_and_at_most_its_own(seen: int, batch: int, half_life: float) -> None:
    """What is left of the old average after a step is 0.5 ** (batch / half-life); torch takes it in float32."""
    live = network(0.0)
    ema = EMA({"net": live}, half_life_images=100)
    fill(live, 1.0)
    ema.update(seen, batch)
    left = 0.5 ** (batch / half_life)
    torch.testing.assert_close(ema.weights()["net.weight"], torch.full((1, 2), 1 - left).double(), rtol=1e-7, atol=0)
    fill(live, 3.0)
    ema.update(seen, batch)
    expected = 3 + (1 - left - 3) * left
    torch.testing.assert_close(ema.weights()["net.weight"], torch.full((1, 2), expected).double(), rtol=1e-7, atol=0)


def test_before_the_first_image_the_average_is_the_live_weights() -> None:
    live = network(0.0)
    ema = EMA({"net": live}, half_life_images=100)
    fill(live, 1.0)
    ema.update(0, 1)
    assert ema.weights()["net.weight"].tolist() == [[1.0, 1.0]]


def test_the_average_has_a_memory_and_no_graph_of_its_own() -> None:
    live = network(1.0)
    ema = EMA({"net": live}, half_life_images=100)
    fill(live, 2.0)
    assert ema.weights()["net.weight"].tolist() == [[1.0, 1.0]]
    ema.update(10, 1)
    (live.weight.sum() ** 2).backward()  # a step's graph holds live weights: averaging must not have touched them
    for tensors in (ema.weights(), ema.live_weights(), ema.state_dict()):
        assert list(tensors) == ["net.weight"]
        assert not tensors["net.weight"].requires_grad
    assert ema.live_weights()["net.weight"].tolist() == [[2.0, 2.0]]
    assert live.weight.requires_grad


def test_applied_exchanges_for_the_block_and_even_where_it_fails() -> None:
    live = network(1.0)
    ema = EMA({"net": live}, half_life_images=100)
    fill(live, 2.0)
    seen = []

    def fail_inside() -> None:
        with ema.applied():
            seen.append((live.weight.tolist(), ema.weights()["net.weight"].tolist()))
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail_inside()
    assert seen == [([[1.0, 1.0]], [[2.0, 2.0]])]
    assert live.weight.tolist() == [[2.0, 2.0]]
    assert ema.weights()["net.weight"].tolist() == [[1.0, 1.0]]


def test_a_state_is_copied_and_one_of_other_networks_refused() -> None:
    live = network(1.0)
    ema = EMA({"net": live}, half_life_images=100)
    state = {"net.weight": torch.full((1, 2), 5.0, dtype=torch.float64, requires_grad=True)}
    ema.load_state_dict(state)
    ema.update(10, 1)
    assert state["net.weight"].tolist() == [[5.0, 5.0]]
    torch.testing.assert_close(ema.state_dict()["net.weight"], torch.full((1, 2), 3.0).double())
    assert not ema.state_dict()["net.weight"].requires_grad
    with pytest.raises(KeyError, match="other parameters"):
        ema.load_state_dict({"other.weight": torch.zeros(1, 2)})
