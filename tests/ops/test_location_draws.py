"""Draws belong to (seed, position): golden values, and no dependence on batch or map size."""

from __future__ import annotations

import torch

from unpaired.ops import location_draws
from unpaired.ops.location_draws import location_keys

MASK = (1 << 64) - 1


def splitmix64_finaliser(value: int) -> int:
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def test_equals_the_hash_in_python_integers() -> None:
    golden = 0x9E3779B97F4A7C15
    seeds = [0, 1, -1, 2**63 - 1, -(2**63), 123456789]
    keys = location_keys(torch.tensor(seeds), 50)
    for row, seed in zip(keys.tolist(), seeds, strict=True):
        stream = splitmix64_finaliser((seed + golden) & MASK)
        assert row == [splitmix64_finaliser((stream + (i + 1) * golden) & MASK) >> 11 for i in range(50)]


def test_golden_values() -> None:
    draws = location_draws(torch.tensor([0, 7]), 3)
    assert draws.dtype == torch.float64
    assert draws.tolist() == [
        [0.6524484863740322, 0.7012121095215252, 0.3871241409757855],
        [0.7215081806049702, 0.6497043364684557, 0.5493743249193239],
    ]


def test_independent_of_batch_and_map_size() -> None:
    seeds = torch.tensor([5, 6, 7, 8])
    together = location_draws(seeds, 100)
    apart = torch.cat([location_draws(each, 100) for each in seeds.split([1, 3])])
    assert torch.equal(together, apart)
    assert torch.equal(together[:, :40], location_draws(seeds, 40))


def test_uniform_and_uncorrelated() -> None:
    draws = location_draws(torch.arange(200), 1000)
    assert draws.min() >= 0
    assert draws.max() < 1
    counts = torch.histc(draws, 20, 0, 1)
    assert ((counts - 10_000).abs() < 500).all()  # five standard deviations
    assert torch.corrcoef(draws[:50]).fill_diagonal_(0).abs().max() < 0.15
    assert torch.corrcoef(draws[:, :50].T).fill_diagonal_(0).abs().max() < 0.35
