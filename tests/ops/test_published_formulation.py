"""The published code's departures from the paper, each shown; and that the rest of it is the equations."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from ops_parity import assert_near, random_features, run_with_gradients
from torch import Tensor

from unpaired.ops import query_selected_attention, significance_map

WINDOW = 3


def padded_windows(features_CHW: Tensor) -> list[list[float]]:
    """Zero-padded window of every position, channel by channel, as a flat list each."""
    height, width = features_CHW.shape[1:]
    padded = torch.nn.functional.pad(features_CHW, (1, 1, 1, 1))
    return [padded[:, y : y + WINDOW, x : x + WINDOW].reshape(-1).tolist() for y in range(height) for x in range(width)]


def published_rows(features_CHW: Tensor) -> Tensor:
    """(n, S) attention rows: key s has, as its channel c, number s * C + c of the window."""
    channels = features_CHW.shape[0]
    tokens = features_CHW.flatten(1).T
    rows = []
    for token, window in zip(tokens, padded_windows(features_CHW), strict=True):
        keys = [[window[s * channels + c] for c in range(channels)] for s in range(WINDOW**2)]
        rows.append((torch.tensor(keys, dtype=torch.float64) @ token).softmax(0))
    return torch.stack(rows)


def published_local(rows: Tensor, features_CHW: Tensor, indices: list[int]) -> Tensor:
    """(N, C): the selected windows side by side as (C * S, N), then read number by number as (N, S, C)."""
    channels = features_CHW.shape[0]
    windows = padded_windows(features_CHW)
    numbers = [windows[i][k] for k in range(channels * WINDOW**2) for i in indices]
    routed = torch.zeros(len(indices), channels, dtype=torch.float64)
    for p, i in enumerate(indices):
        for s in range(WINDOW**2):
            for c in range(channels):
                routed[p, c] += rows[i, s] * numbers[(p * WINDOW**2 + s) * channels + c]
    return routed


@pytest.mark.parametrize("num_queries", [4, 5, 30])
def test_local_mode_number_by_number(num_queries: int) -> None:
    source, target = random_features(2, 4, 6, 5, gain=0.5), random_features(2, 4, 6, 5, seed=1)
    selected = query_selected_attention(
        source, [target], num_queries, attention="local", window=WINDOW, formulation="published"
    )
    for b in range(2):
        rows = published_rows(source[b])
        entropy = -(rows * rows.log()).sum(1)
        assert_near(selected.significance[b], entropy, 1e-12, "entropy")
        indices = selected.indices[b].tolist()
        assert indices == entropy.argsort()[:num_queries].tolist()
        assert_near(selected.source[b], published_local(rows, source[b], indices), 1e-12, "source")
        assert_near(selected.targets[0][b], published_local(rows, target[b], indices), 1e-12, "target")


def test_local_global_selects_at_random_but_routes_by_the_equations() -> None:
    noise = random_features(1, 64, 64, 64)
    source = torch.nn.functional.avg_pool2d(noise, 5, 1, 2).float()
    source = 4 * torch.nn.functional.normalize(
        source, dim=1
    )  # the norm of the query sharpens right and scrambled alike
    target = torch.randn(1, 64, 64, 64)
    published = query_selected_attention(source, [target], attention="local_global", formulation="published")
    equations = query_selected_attention(source, [target], attention="local_global")
    both = torch.stack([published.significance[0], equations.significance[0]])
    inside = torch.zeros(64, 64, dtype=torch.bool)
    inside[3:-3, 3:-3] = True  # without the border, where padding makes both of them special
    assert torch.corrcoef(both[:, inside.flatten()])[0, 1].abs() < 0.3
    in_common = set(published.indices[0].tolist()) & set(equations.indices[0].tolist())
    assert len(in_common) < 128  # 16 by chance, 256 if it were the same selection
    rerouted = query_selected_attention(source, [target], indices=published.indices, attention="global")
    assert_near(published.source, rerouted.source, 1e-5, "source")
    assert_near(published.targets[0], rerouted.targets[0], 1e-5, "target")


def test_zero_padding_enters_the_published_softmax_as_keys() -> None:
    constant = torch.full((1, 1, 6, 6), 0.5, dtype=torch.float64)  # one channel: nothing to scramble
    equations = significance_map(constant, attention="local", window=3)[0]
    published = significance_map(constant, attention="local", window=3, formulation="published")[0]
    assert equations[0, 0].item() == pytest.approx(math.log(4))
    assert equations[2, 2].item() == pytest.approx(math.log(9))
    assert published[2, 2].item() == pytest.approx(math.log(9))
    total = 4 * math.exp(0.25) + 5  # four real keys with logit 1/4, five of padding with logit 0
    assert published[0, 0].item() == pytest.approx(math.log(total) - 4 * math.exp(0.25) * 0.25 / total)


def test_global_mode_differs_in_the_entropy_only() -> None:
    source, target = random_features(1, 64, 12, 12, gain=3.0).float(), torch.randn(1, 64, 12, 12)
    published = query_selected_attention(source, [target], 20, formulation="published")
    tokens = source[0].flatten(1).T
    probabilities = (tokens @ tokens.T).softmax(1)
    naive = -(probabilities * probabilities.log().nan_to_num(neginf=0.0)).sum(1)
    assert torch.allclose(published.significance[0], naive, atol=1e-7)
    assert (published.significance == 0).sum() > 20  # so that the selection is a tie: why ours takes the logarithm
    rerouted = query_selected_attention(source, [target], indices=published.indices)
    assert_near(published.targets[0], rerouted.targets[0], 1e-5, "target")


@pytest.mark.parametrize("attention", ["global", "local", "local_global"])
@pytest.mark.parametrize("routing", ["cross", "self", "none"])
def test_gradients_reach_source_and_target(attention: str, routing: str) -> None:
    source, target = random_features(2, 3, 7, 6, gain=0.5), random_features(2, 3, 7, 6, seed=1, gain=0.5)
    indices = torch.tensor([[0, 23, 41], [7, 7, 40]])
    settings: dict[str, Any] = {"attention": attention, "routing": routing, "window": 3, "formulation": "published"}
    _, gradients = run_with_gradients(source, [target], indices=indices, **settings)
    assert all(gradient.abs().max() > 0 for gradient in gradients)

    def routed(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        selected = query_selected_attention(a, [b], indices=indices, **settings)
        return selected.source, selected.targets[0]

    assert torch.autograd.gradcheck(routed, (source.requires_grad_(), target.requires_grad_()), fast_mode=True)
