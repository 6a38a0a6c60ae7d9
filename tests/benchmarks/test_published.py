"""The baselines of the speed claims compute what our reference and step do, gradients included; what a record has."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from unpaired.methods import ImageBatch, image_seeds
from unpaired.methods.qs_attn import QSAttn, QSAttnConfig
from unpaired.ops import query_selected_attention

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import bench_training_step

    yield bench_training_step
    for name in ("bench_training_step", "published_step", "published_attention", "measure"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("shape", [(1, 16, 12, 12), (2, 5, 9, 7)], ids=str)
@pytest.mark.parametrize("num_queries", [1, 16, 63])
@pytest.mark.parametrize("attention", ["global", "local", "local_global"])
def test_attention_equals_the_published_formulation(
    bench: Any, attention: Any, num_queries: int, shape: tuple[int, ...]
) -> None:
    from published_attention import published_qs_attention

    generator = torch.Generator().manual_seed(num_queries)
    leaves = [0.5 * torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2)]
    baseline = published_qs_attention(*leaves, num_queries, attention, window=5)
    selected = query_selected_attention(
        leaves[0], leaves[1:], num_queries, attention=attention, window=5, formulation="published"
    )
    assert torch.equal(baseline[0], selected.indices)
    weights = [torch.randn(*each.shape, generator=generator, dtype=torch.float64) for each in baseline[1:]]
    torch.testing.assert_close(baseline[1], selected.source, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(baseline[2], selected.targets[0], rtol=1e-10, atol=1e-12)
    gradients = torch.autograd.grad(baseline[1:], leaves, weights)
    expected = torch.autograd.grad([selected.source, *selected.targets], leaves, weights)
    torch.testing.assert_close(gradients, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("attention", ["global", "local_global"])
def test_losses_and_gradients_of_the_step_are_equal(bench: Any, attention: Any) -> None:
    tiny: dict[str, Any] = {"base_channels": 4, "blocks": 5, "num_queries": 16, "projector_width": 8}
    method = QSAttn(QSAttnConfig(attention=attention, similarity="dot", **tiny)).double()
    source, target = torch.rand(2, 1, 3, 48, 48, dtype=torch.float64) * 2 - 1
    batch = ImageBatch(source, target, image_seeds(0, [0]))
    indices = bench.our_selection(method, batch)
    ours, published = (bench.gradients(bench.CPU_WAYS[each], method, batch, indices) for each in ("ours", "published"))
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


def test_a_record_has_every_row_the_machine_and_the_command(bench: Any, tmp_path: Path) -> None:
    import json

    from measure import Record, in_turns

    times = in_turns({"slow": lambda: sum(range(10**6)), "fast": lambda: None}, 3)
    assert times["fast"].ratio(times["slow"]) > 10
    record = Record(tmp_path / "found" / "name", "A | title", asked=(1, 2.0))
    record.add("table", name="a|b", value=1 / 3, **times["slow"].row())
    record.add("table", name="c", more=None)
    written = json.loads((tmp_path / "found" / "name.json").read_text())
    assert written["tables"]["table"][0]["value"] == 1 / 3
    assert written["environment"]["command"]
    page = (tmp_path / "found" / "name.md").read_text()
    assert "| name | value | seconds | cpu_seconds | times | more |" in page
    assert "| a\\|b | 0.3333 |" in page
    assert "| c |  |" in page
    assert all(f"- {key}: " in page for key in ("asked", "processor", "load_average", "threads", "command", "commit"))
