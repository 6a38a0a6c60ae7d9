"""The reference, which defines query selection, and the front door before it, against loops over plain numbers."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from unpaired.errors import BackendError, ConfigError
from unpaired.ops import query_selected_attention, significance_map
from unpaired.ops.attention import Attention, Similarity
from unpaired.ops.backends.reference import attention_logits, log_entropy, route, significance
from unpaired.ops.checks import AttentionMode

CHANNELS, HEIGHT, WIDTH, WINDOW = 5, 3, 4, 3
PLACES = HEIGHT * WIDTH
TEMPERATURE = {"dot": 0.7, "scaled": 1.3, "cosine": 0.2}


def features(seed: int = 0, batch: int = 2, shape: tuple[int, int] = (HEIGHT, WIDTH)) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, CHANNELS, *shape, generator=generator, dtype=torch.float64)


def of_similarity(local: bool, similarity: Any) -> Attention:
    return Attention(HEIGHT, WIDTH, local, WINDOW, similarity, TEMPERATURE[similarity])


def logits_by_loops(
    features_CHW: Tensor, *, local: bool, similarity: str, temperature: float, window: int = WINDOW
) -> list[dict[int, float]]:
    """Per query, key -> logit, for its keys only."""
    width = features_CHW.shape[2]
    columns = features_CHW.flatten(1).T.tolist()
    rows = []
    for i, query in enumerate(columns):
        rows.append({})
        for j, key in enumerate(columns):
            if local and max(abs(i // width - j // width), abs(i % width - j % width)) > window // 2:
                continue
            value = sum(a * b for a, b in zip(query, key, strict=True))
            if similarity == "scaled":
                value /= math.sqrt(len(query))
            if similarity == "cosine":
                value /= math.hypot(*query) * math.hypot(*key)
            rows[i][j] = value / temperature
    return rows


def probabilities(row: dict[int, float]) -> dict[int, float]:
    total = sum(math.exp(value) for value in row.values())
    return {key: math.exp(value) / total for key, value in row.items()}


def entropy(row: dict[int, float]) -> float:
    return -sum(p * math.log(p) for p in probabilities(row).values())


def lead(row: dict[int, float]) -> float:
    return max(row.values()) - sum(row.values()) / len(row)


def routed_by_loops(rows: list[dict[int, float]], chosen: list[int], values_CHW: Tensor) -> list[list[float]]:
    columns = values_CHW.flatten(1).T.tolist()
    routed = []
    for i in chosen:
        weights = probabilities(rows[i])
        routed.append([sum(w * columns[j][c] for j, w in weights.items()) for c in range(len(columns[0]))])
    return routed


@pytest.mark.parametrize("similarity", get_args(Similarity))
@pytest.mark.parametrize("local", [False, True])
def test_logits_measures_and_routing_are_those_of_the_loops(local: bool, similarity: Any) -> None:
    attention, source, other = of_similarity(local, similarity), features(), features(1)
    found = attention_logits(source.flatten(2), attention)
    key, shown = significance(source.flatten(2), attention, "entropy")
    mean_key, mean_shown = significance(source.flatten(2), attention, "max_mean")
    indices = torch.tensor([[0, 7, 11], [5, 5, 2]])
    routed = route(source.flatten(2), [source.flatten(2), other.flatten(2)], indices, attention)
    for image in range(2):
        rows = logits_by_loops(source[image], local=local, similarity=similarity, temperature=TEMPERATURE[similarity])
        dense = [[row.get(j, -math.inf) for j in range(PLACES)] for row in rows]
        torch.testing.assert_close(found[image], torch.tensor(dense, dtype=torch.float64))
        entropies = torch.tensor([entropy(row) for row in rows], dtype=torch.float64)
        torch.testing.assert_close(shown[image], entropies)
        torch.testing.assert_close(key[image], entropies.log())
        # Eq. 6 divides raw products by sqrt(C): those that are not scaled yet.
        scale = CHANNELS**-0.5 if similarity == "dot" else 1.0
        leads = torch.tensor([scale * lead(row) for row in rows], dtype=torch.float64)
        torch.testing.assert_close(mean_shown[image], leads)
        torch.testing.assert_close(mean_key[image], -leads)
        for each, values in zip(routed, (source, other), strict=True):
            expected = routed_by_loops(rows, indices[image].tolist(), values[image])
            torch.testing.assert_close(each[image], torch.tensor(expected, dtype=torch.float64))


def test_entropy_of_rows_far_from_and_near_to_one_hot() -> None:
    rows = [[0.0, 0.0, 0.0], [2.0, 0.0, -1.0], [12.0, 0.0, -math.inf], [-math.inf, 1.0, 1.0]]
    expected = [math.log(entropy({j: v for j, v in enumerate(row) if v > -math.inf})) for row in rows]
    found = log_entropy(torch.tensor(rows, dtype=torch.float64))
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=0)
    # Where one key leads by g, H is (1 + g) e^-g to first order, far below what a sum of p log p can hold.
    gaps = torch.tensor([200.0, 5000.0], dtype=torch.float64)
    led = log_entropy(torch.stack([gaps, torch.zeros(2).double()], dim=1))
    torch.testing.assert_close(led, (1 + gaps).log() - gaps, rtol=1e-12, atol=0)
    assert log_entropy(torch.tensor([[3.0, -math.inf]])).tolist() == [-math.inf]


@pytest.mark.parametrize("similarity", get_args(Similarity))
@pytest.mark.parametrize("routing", ["cross", "self", "none"])
@pytest.mark.parametrize("attention", get_args(AttentionMode))
@pytest.mark.parametrize("measure", ["entropy", "max_mean"])
@pytest.mark.parametrize("backend", ["reference", None])
def test_the_front_door_selects_and_routes_as_the_loops(
    backend: str | None, measure: Any, attention: Any, routing: Any, similarity: Any
) -> None:
    """With a temperature left to its default: 1, and 0.1 for cosines."""
    source, target = features(), features(1)
    selected = query_selected_attention(
        source, [target], 4, attention=attention, significance=measure, routing=routing, similarity=similarity,
        window=WINDOW, backend=backend,
    )  # fmt: skip
    spread = 0.1 if similarity == "cosine" else 1.0
    for image in range(2):
        by = {
            local: [
                logits_by_loops(each[image], local=local, similarity=similarity, temperature=spread)
                for each in (source, target)
            ]
            for local in (False, True)
        }
        ranked = by[attention != "global"][0]
        values = [entropy(row) if measure == "entropy" else lead(row) for row in ranked]
        if measure == "max_mean" and similarity == "dot":
            values = [value / math.sqrt(CHANNELS) for value in values]
        torch.testing.assert_close(selected.significance[image], torch.tensor(values, dtype=torch.float64))
        order = sorted(range(PLACES), key=lambda i: values[i] if measure == "entropy" else -values[i])
        assert selected.indices[image].tolist() == order[:4]
        own = by[attention == "local"]
        for number, (made, given) in enumerate(((selected.source, source), (selected.targets[0], target))):
            expected = [given[image].flatten(1)[:, i].tolist() for i in order[:4]]
            if routing != "none":
                expected = routed_by_loops(own[number if routing == "self" else 0], order[:4], given[image])
            torch.testing.assert_close(made[image], torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("measure", ["entropy", "max_mean"])
def test_a_map_passes_every_option_on(measure: Any) -> None:
    source = features().requires_grad_()
    options: dict[str, Any] = {
        "attention": "local", "significance": measure, "similarity": "cosine", "temperature": 0.3, "window": 5,
        "backend": "reference",
    }  # fmt: skip
    found = significance_map(source, **options)
    assert (found.shape, found.requires_grad) == ((2, HEIGHT, WIDTH), False)
    for image in range(2):
        rows = logits_by_loops(source[image].detach(), local=True, similarity="cosine", temperature=0.3, window=5)
        values = [entropy(row) if measure == "entropy" else lead(row) for row in rows]
        torch.testing.assert_close(found[image].flatten(), torch.tensor(values, dtype=torch.float64))
    with pytest.raises(ConfigError, match="significance must be 'entropy' or 'max_mean' for a map, got 'random'"):
        significance_map(source, significance="random")  # type: ignore[arg-type]
    with pytest.raises(BackendError, match="cannot run"):
        significance_map(source, formulation="published", backend="blocked")
