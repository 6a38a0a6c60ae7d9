"""Every backend against the float64 reference: indices, significance, routed features and every gradient."""

from __future__ import annotations

import itertools
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ops_parity import (
    CASES,
    KEY_TOLERANCE,
    TOLERANCE,
    USABLE_BACKENDS,
    assert_near,
    assert_ranked,
    random_features,
    reference_key,
    run_with_gradients,
)
from torch import Tensor

from unpaired.ops import query_selected_attention
from unpaired.ops.backends import blocked, routing

BACKENDS_TO_COMPARE = [name for name in USABLE_BACKENDS if name != "reference"]
ATTENTIONS = ["global", "local", "local_global"]
TEMPERATURE = {"dot": 1.0, "scaled": 1.0, "cosine": 0.1}


def compare(source: Tensor, dtype: torch.dtype, backend: str, num_queries: int, **options: object) -> None:
    target = random_features(*source.shape, seed=99)
    seeds = torch.arange(source.shape[0])
    actual, gradients = run_with_gradients(
        source, [target], dtype, num_queries=num_queries, random_seeds=seeds, backend=backend, **options
    )
    # The reference gets the rows that the backend chose: a trade between near ties must not count as a routing error.
    expected, expected_gradients = run_with_gradients(
        source, [target], indices=actual.indices, backend="reference", **options
    )
    assert actual.indices.shape == (source.shape[0], min(num_queries, source[0, 0].numel()))
    for name, got, want in zip(
        ("source", "target", "source gradient", "target gradient"),
        (actual.source, actual.targets[0], *gradients),
        (expected.source, expected.targets[0], *expected_gradients),
        strict=True,
    ):
        assert got.dtype == dtype
        assert_near(got, want, TOLERANCE[dtype], name)

    chosen = query_selected_attention(
        source, [], num_queries, random_seeds=seeds, backend="reference", **{**options, "routing": "none"}
    )
    if options["significance"] == "random":
        assert torch.equal(actual.indices, chosen.indices)
        return
    assert_near(actual.significance, chosen.significance, max(KEY_TOLERANCE[dtype], 1e-10), "significance")
    key = reference_key(
        source,
        str(options["significance"]),
        local=options["attention"] != "global",
        window=options["window"],
        similarity=options["similarity"],
        temperature=TEMPERATURE[str(options["similarity"])],
    )
    assert_ranked(actual.indices, key, KEY_TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("similarity", ["dot", "scaled", "cosine"])
@pytest.mark.parametrize("significance", ["entropy", "max_mean", "random"])
@pytest.mark.parametrize(
    ("case", "attention"),  # the large map is there for the shifts of local attention only
    [(case, attention) for case in CASES for attention in ATTENTIONS if "shifts" not in case or attention == "local"],
)
@pytest.mark.parametrize("backend", BACKENDS_TO_COMPARE)
def test_backend_equals_reference(
    backend: str, case: str, attention: str, significance: str, similarity: str, dtype: torch.dtype
) -> None:
    for how, num_queries in (("cross", 13), ("self", 1), ("none", 10_000)):
        compare(
            CASES[case],
            dtype,
            backend,
            num_queries,
            attention=attention,
            significance=significance,
            routing=how,
            similarity=similarity,
            window=3,
        )


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("backend", BACKENDS_TO_COMPARE)
def test_half_precision_ranks_and_routes_in_float32(backend: str, attention: str) -> None:
    for case, similarity, significance in itertools.product(
        ("odd_7x5", "saturated", "wide_3x11_batch2"), ("dot", "cosine"), ("entropy", "max_mean")
    ):
        options = {"attention": attention, "similarity": similarity, "significance": significance, "routing": "cross"}
        compare(CASES[case], torch.bfloat16, backend, 9, window=3, **options)


@pytest.mark.parametrize("name", ["all_equal", "duplicates", "one_hot_gaps"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("backend", USABLE_BACKENDS)
def test_ties_go_to_the_smaller_position(backend: str, dtype: torch.dtype, name: str) -> None:
    source = CASES[name].to(dtype)
    selected = query_selected_attention(source, [], 10_000, backend=backend)
    significance = query_selected_attention(CASES[name], [], backend="reference").significance[0].tolist()
    if name == "all_equal":
        assert selected.indices[0].tolist() == list(range(20))
    elif name == "one_hot_gaps":  # most entropies are 0 in float32: only the log-domain key tells them apart
        assert selected.indices[0].tolist() == [1, 4, 6, 5, 2, 3, 7, 0]
    else:
        order = sorted(range(len(significance)), key=lambda i: (round(significance[i], 9), i))
        assert selected.indices[0].tolist() == order


@settings(max_examples=100, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 9), st.integers(1, 9)),
    num_queries=st.integers(1, 100),
    window=st.sampled_from([1, 3, 5, 21]),
    attention=st.sampled_from(ATTENTIONS),
    significance=st.sampled_from(["entropy", "max_mean", "random"]),
    routing=st.sampled_from(["cross", "self", "none"]),
    similarity=st.sampled_from(["dot", "scaled", "cosine"]),
    gain=st.sampled_from([0.0, 0.1, 1.0, 10.0]),
    seed=st.integers(0, 1000),
    tile_logits=st.sampled_from([1, 1 << 20]),
    small_map=st.sampled_from([0, 1024]),
)
def test_any_shape(
    shape: tuple[int, int, int, int],
    num_queries: int,
    gain: float,
    seed: int,
    tile_logits: int,
    small_map: int,
    **options: object,
) -> None:
    source = random_features(*shape, seed=seed, gain=gain)
    with (
        mock.patch.object(blocked, "_TILE_LOGITS_CPU", tile_logits),
        mock.patch.object(routing, "SMALL_MAP", small_map),
    ):
        compare(source, torch.float64, "blocked", num_queries, **options)


@pytest.mark.parametrize("small_map", [0, 1024], ids=["windows", "masked_rows"])
@pytest.mark.parametrize("similarity", ["dot", "cosine"])
@pytest.mark.parametrize("routing", ["cross", "self"])
@pytest.mark.parametrize("attention", ["global", "local"])
@pytest.mark.parametrize("backend", USABLE_BACKENDS)
def test_gradcheck(
    backend: str, attention: str, routing: str, similarity: str, small_map: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unpaired.ops.backends.routing.SMALL_MAP", small_map)
    inputs = [random_features(2, 2, 7, 6, seed=i, gain=0.5).requires_grad_() for i in range(2)]
    indices = torch.tensor([[0, 23, 41], [7, 7, 40]])

    def routed(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        selected = query_selected_attention(
            source,
            [target],
            attention=attention,  # type: ignore[arg-type]
            routing=routing,  # type: ignore[arg-type]
            similarity=similarity,  # type: ignore[arg-type]
            indices=indices,
            window=3,
            backend=backend,
        )
        return selected.source, selected.targets[0]

    assert torch.autograd.gradcheck(routed, inputs, fast_mode=True)


@pytest.mark.parametrize("similarity", ["dot", "scaled", "cosine"])
@pytest.mark.parametrize("significance", ["entropy", "max_mean"])
def test_equal_features_get_equal_keys_wherever_they_lie(
    significance: Any, similarity: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flat background is a tie. Tiles must not break it by the order of their sums."""
    few = torch.randn(1, 24, 40, generator=torch.Generator().manual_seed(3))
    which = torch.randint(40, (36 * 36,), generator=torch.Generator().manual_seed(4))
    source = few[:, :, which].unflatten(2, (36, 36))
    for tile_logits in (1 << 20, 200 * 200):  # 2 and 7 tiles a side
        monkeypatch.setattr(blocked, "_TILE_LOGITS_CPU", tile_logits)
        selected = query_selected_attention(source, [], 2000, similarity=similarity, significance=significance)
        shown = selected.significance[0]
        for feature in range(40):
            assert shown[which == feature].unique().numel() == 1
        order = selected.indices[0]
        tied = shown[order[1:]] == shown[order[:-1]]
        assert tied.sum() >= 36 * 36 - 40
        assert (order[1:] > order[:-1])[tied].all()
