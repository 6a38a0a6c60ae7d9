"""Every method takes its authors' own steps: losses, gradients and weights in float64 (tests/golden)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from methods.golden import (
    GOLDEN,
    Golden,
    build,
    enco_losses,
    images,
    make_optimizers,
    parameters_of,
    progress_of,
    read,
    replace_draws,
    take_step,
)

CASES = [
    pytest.param(name, number, id=f"{name}-{number}")
    for name in GOLDEN
    for number, case in enumerate(read(name)["cases"])
    if "as published" not in case["case"]  # MUNIT's own layer norm: a named deviation; the other case is ours
]


def check(found: Tensor, expected: dict[str, Any], what: str, relative: float, absolute: float = 0.0) -> None:
    """Length, sum and single entries; ``absolute`` is for entries whose gradient is zero but for rounding."""
    length = expected["l2"]
    assert abs(found.norm().item() - length) <= relative * length + absolute * len(found) ** 0.5, what
    assert abs(found.sum().item() - expected["sum"]) <= (relative * length + absolute) * len(found) ** 0.5, what
    for place, value in expected["at"].items():
        assert abs(found[int(place)].item() - value) <= relative * length + absolute, f"{what} at {place}"


@pytest.mark.parametrize(("name", "number"), CASES)
def test_a_golden_step(name: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    golden, file = GOLDEN[name], read(name)
    case = {"batch": 1, **file["cases"][number]}
    method = build(golden, file, case)
    optimizers = make_optimizers(method, method.config.optimiser)
    relative = golden.tolerance if case.get("normalise_epsilon") else 1e-9
    before = {ours: flat(golden, method, ours) for ours in golden.networks.values()}
    for count, step in enumerate(case["steps"]):
        epoch = step if "epoch" in step else case
        progress = progress_of(file, epoch) if "epoch" in epoch else 0.0
        with monkeypatch.context() as patch:
            replace_draws(patch, golden, step, count)
            taken = take_step(method, golden, optimizers, images(count, case, progress))
        losses = enco_losses(step["identity_term"]) if name == "enco" else golden.losses
        for theirs, (ours, factor) in losses.items():
            assert taken.terms[ours].item() == pytest.approx(factor * step["losses"][theirs], rel=relative), theirs
        if name == "enco":
            assert ("identity" in taken.terms) == step["identity_term"]
        for theirs, ours in golden.networks.items():
            expected = step["gradients"][theirs]
            gradients = taken.gradients[ours]
            joined = torch.cat([gradient.flatten() for gradient in gradients])
            check(joined, expected, f"gradient of {theirs}", relative)
            names = [key for key, _ in file["networks"][theirs]["tensors"]]
            for key, values in expected.get("tensors", {}).items():
                check(gradients[names.index(key)].flatten(), values, f"gradient of {theirs}.{key}", 10 * relative)
            after, weights = flat(golden, method, ours), step["weights_after"][theirs]
            check(after, weights, f"weights of {theirs}", relative, 1e-8)
            change = (after - before[ours]).norm().item()
            assert change == pytest.approx(weights["change_l2"], rel=1e-6), theirs
    assert len(case["steps"]) == count + 1


def flat(golden: Golden, method: Any, network: str) -> Tensor:
    return torch.cat([p.detach().flatten() for p in parameters_of(golden, method, network)])
