"""Our step and the published schedule are the same mathematics: equal losses and gradients in float64."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from unpaired.methods import ImageBatch, image_seeds
from unpaired.methods.qs_attn import QSAttn, QSAttnConfig

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import bench_training_step

    yield bench_training_step
    for name in ("bench_training_step", "published_step", "published_attention"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("attention", ["global", "local_global"])
def test_losses_and_gradients_are_equal(bench: Any, attention: Any) -> None:
    method = QSAttn(
        QSAttnConfig(
            base_channels=4, blocks=5, num_queries=16, projector_width=8, attention=attention, similarity="dot"
        )
    ).double()
    source, target = torch.rand(2, 1, 3, 48, 48, dtype=torch.float64) * 2 - 1
    batch = ImageBatch(source, target, image_seeds(0, [0]))
    indices = bench.our_selection(method, batch)
    ours, published = (bench.gradients(name, method, batch, indices) for name in ("ours", "published"))
    for key, value in published.items():
        assert value.norm() > 0
        assert ((ours[key] - value).norm() / value.norm()).item() < 1e-9, key


def test_the_published_schedule_costs_what_was_counted(bench: Any) -> None:
    """1,877 GFLOP at 256 px (method.md, section 3): 482 more than ours for the encodings, the rest for attention."""
    with FakeTensorMode():  # shapes only: nothing is computed
        method = QSAttn(QSAttnConfig())
        source, target = torch.empty(2, 1, 3, 256, 256)
        batch = ImageBatch(source, target, torch.zeros(1, dtype=torch.int64))
        with FlopCounterMode(display=False) as counter:
            bench.published_step(method, bench.published_optimizers(method), batch)
    assert counter.get_total_flops() / 1e9 == pytest.approx(1877, abs=15)
