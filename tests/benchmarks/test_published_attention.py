"""The baseline of the speed claims computes what ``ops/backends/reference.py`` defines, gradients included."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from unpaired.ops import query_selected_attention

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def load(name: str) -> ModuleType:
    """A script of ``benchmarks/`` as a module."""
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("shape", [(1, 16, 12, 12), (2, 5, 9, 7)], ids=str)
@pytest.mark.parametrize("num_queries", [1, 16, 63])
@pytest.mark.parametrize("attention", ["global", "local", "local_global"])
def test_equals_the_published_formulation(attention: Any, num_queries: int, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(num_queries)
    leaves = [0.5 * torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2)]
    baseline = load("published_attention").published_qs_attention(*leaves, num_queries, attention, window=5)
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
