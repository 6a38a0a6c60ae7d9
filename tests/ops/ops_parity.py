"""Compare any backend with the float64 reference: feature maps that are hard to get right, and how near is near."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unpaired.ops import SelectedFeatures, query_selected_attention
from unpaired.ops.attention import Attention
from unpaired.ops.backends import BACKENDS, reference

# What runs here of its own accord; a backend that needs a device, or an interpreter, has tests of its own.
USABLE_BACKENDS = [
    name
    for name, backend in BACKENDS.items()
    if not (backend.reasons(torch.zeros(1, 1, 1, 1), "equations") or backend.only_by_name())
]

# One tolerance per dtype for every routed feature and gradient, relative to the largest entry of the expected one.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 3e-5, torch.bfloat16: 2e-2}
# Two positions may trade places only if their keys (log entropy, or the value of Eq. 6) are this close, relative.
# Half precision ranks as float32 does: its logits are float32.
KEY_TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-4, torch.bfloat16: 1e-4}


def random_features(*shape: int, seed: int = 0, gain: float = 1.0) -> Tensor:
    """Numbers that bfloat16 holds exactly, as float64: every dtype sees the same features."""
    generator = torch.Generator().manual_seed(seed)
    return (gain * torch.randn(*shape, generator=generator)).bfloat16().double()


def one_hot_features(gaps: list[float]) -> Tensor:
    """(1, k, 1, k): position i attends to itself, ``gaps[i]`` (nearly) ahead of every other position."""
    return torch.tensor(gaps).sqrt().diag().bfloat16().double().view(1, len(gaps), 1, len(gaps))


def duplicated_features() -> Tensor:
    """(1, 6, 4, 6) where each feature occurs twice."""
    half = random_features(1, 6, 4, 3)
    return torch.cat([half, half.flip(2)], dim=3)


# Awkward maps. "blocked" takes its small-map path for local attention except on the one with more than 1024 positions.
CASES: dict[str, Tensor] = {
    "odd_7x5": random_features(1, 5, 7, 5),
    "wide_3x11_batch2": random_features(2, 8, 3, 11, gain=2.0),
    "single_position": random_features(2, 4, 1, 1),
    "one_row": random_features(1, 4, 1, 9),
    "saturated": random_features(1, 64, 6, 6, gain=4.0),
    "shifts_33x32": random_features(1, 3, 33, 32),
    "all_equal": torch.full((1, 4, 5, 4), 0.75, dtype=torch.float64),
    "one_hot_gaps": one_hot_features([10, 10000, 100, 50, 3000, 200, 1000, 20]),
    "duplicates": duplicated_features(),
}


def run_with_gradients(
    source: Tensor, targets: list[Tensor], dtype: torch.dtype = torch.float64, **settings: Any
) -> tuple[SelectedFeatures, list[Tensor]]:
    """Run in ``dtype`` and pull a fixed random gradient back: the selection, and the gradient of every input."""
    inputs = [each.to(dtype).requires_grad_() for each in (source, *targets)]
    selected = query_selected_attention(inputs[0], inputs[1:], **settings)
    outputs = [selected.source, *selected.targets]
    weights = [random_features(*each.shape, seed=10 + i).to(dtype) for i, each in enumerate(outputs)]
    return selected, list(torch.autograd.grad(outputs, inputs, weights))


def reference_key(source: Tensor, measure: str, **settings: Any) -> Tensor:
    """(B, n) float64 ranking key by the reference, smallest first."""
    spec = Attention(*source.shape[2:], **settings)
    return reference.significance(source.double().flatten(2), spec, measure)[0]  # type: ignore[arg-type]


def assert_near(actual: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    scale = max(1.0, expected.abs().max().item())
    error = (actual.double() - expected.double()).abs().max().item()
    assert error <= tolerance * scale, f"{what}: error {error:.2e} at scale {scale:.2e}, tolerance {tolerance:.0e}"


def assert_ranked(indices: Tensor, key: Tensor, tolerance: float) -> None:
    """The positions are distinct and come in the order of the float64 key, up to trades between near ties."""
    assert all(row.unique().numel() == row.numel() for row in indices)
    wanted = key.sort(dim=1).values[:, : indices.shape[1]]
    got = key.gather(1, indices)
    both_infinite = (wanted == got) & wanted.isinf()
    excess = torch.where(both_infinite, 0.0, (got - wanted).abs() / wanted.abs().clamp(min=1.0))
    assert excess.max().item() <= tolerance, f"ranking off by {excess.max().item():.2e}, tolerance {tolerance:.0e}"
