"""The Triton kernels in Triton's interpreter, on CPU tensors; ``test_triton.py`` runs this file in its own process.

TRITON_INTERPRET must be set before Triton is imported and changes it for good, so this file is not collected with the
others. Sizes are small: the interpreter is slow.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ops_parity import CASES, assert_near, random_features, run_with_gradients
from test_backend_parity import TEMPERATURE, compare
from torch import Tensor
from torch.library import opcheck

from unpaired.errors import BackendError
from unpaired.ops import (
    attention,
    blocked,
    query_selected_attention,
    query_selection,
    triton_backend,
    triton_launch,
    triton_requirements,
    triton_routing_operators,
    triton_selection_operators,
    triton_windows_operators,
)

ATTENTIONS = ["global", "local", "local_global"]
OPERATOR_FILES = [triton_routing_operators, triton_selection_operators, triton_windows_operators]

if not triton_requirements.interpreting():
    pytest.skip("needs TRITON_INTERPRET=1; test_triton.py sets it", allow_module_level=True)


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[Tensor]]]:
    """Every launch from here on: the kernel's name and the tensors it gets."""
    seen: list[tuple[str, list[Tensor]]] = []

    def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
        seen.append((kernel.__name__, [each for each in arguments if isinstance(each, Tensor)]))
        triton_launch.launch(kernel, grid, *arguments, **constants)

    for module in OPERATOR_FILES:
        monkeypatch.setattr(module, "launch", launch)
    return seen


@pytest.mark.parametrize(
    ("case", "attention"),
    [("odd_7x5", "local_global")]
    + [(case, attention) for case in CASES for attention in ("global", "local") if "shifts" not in case],
)
def test_equals_the_reference(case: str, attention: str) -> None:
    for significance, similarity, routing in (
        ("entropy", "dot", "cross"),
        ("max_mean", "scaled", "self"),
        ("entropy", "cosine", "cross"),
    ):
        options = {"significance": significance, "similarity": similarity, "routing": routing, "window": 3}
        compare(CASES[case], torch.float32, "triton", 13, attention=attention, **options)


@pytest.mark.parametrize(("programs", "significance"), [(256, "entropy"), (4, "entropy"), (4, "max_mean")])
def test_many_blocks_and_splits_equal_the_reference(
    programs: int, significance: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """n = 351 is 3 blocks of keys for selection and 6 for routing, N = 40 is 2 of rows, C = 70 is 3 of channels.

    Each split is one block with 256 programs; with 4 it is all of them for selection and up to 6 for routing.
    """
    monkeypatch.setattr(triton_launch, "_PROGRAMS", programs)
    options = {"significance": significance, "similarity": "scaled", "routing": "cross", "window": 3}
    compare(random_features(1, 70, 27, 13), torch.float32, "triton", 40, attention="global", **options)


@pytest.mark.parametrize("attention", ["global", "local"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision(dtype: torch.dtype, attention: str) -> None:
    options = {"attention": attention, "significance": "entropy", "routing": "cross", "window": 3}
    source, target = CASES["wide_3x11_batch2"], random_features(2, 8, 3, 11, seed=1)
    for similarity in ("dot", "cosine"):
        half = {"similarity": similarity, "backend": "triton"}
        ours, gradients = run_with_gradients(source, [target], dtype, num_queries=9, **options, **half)
        exact, expected = run_with_gradients(
            source, [target], indices=ours.indices, similarity=similarity, **{**options, "backend": "reference"}
        )
        for got, want in zip(
            (ours.source, *ours.targets, *gradients), (exact.source, *exact.targets, *expected), strict=True
        ):
            assert got.dtype == dtype
            assert_near(got, want, 2e-2, similarity)
        wide = query_selected_attention(source, [], 9, **options, similarity=similarity, backend="reference")
        assert_near(ours.significance, wide.significance, 1e-5, "significance")


def test_values_may_have_another_dtype() -> None:
    source = random_features(1, 6, 5, 7)
    for mode in ("global", "local"):
        routed = [
            query_selected_attention(source.to(a), [source.to(b)], 5, attention=mode, window=3, backend=name).targets[0]
            for a, b, name in (
                (torch.bfloat16, torch.float32, "triton"),
                (torch.float32, torch.bfloat16, "triton"),
                (torch.float64, torch.float64, "reference"),
            )
        ]
        assert [each.dtype for each in routed] == [torch.float32, torch.bfloat16, torch.float64]
        assert_near(routed[0], routed[2], 1e-5, "float32 values")
        assert_near(routed[1], routed[2], 1e-2, "bfloat16 values")


@pytest.mark.parametrize("name", ["all_equal", "duplicates", "one_hot_gaps"])
def test_ties_go_to_the_smaller_position(name: str) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        got = query_selected_attention(CASES[name].to(dtype), [], 10_000, backend="triton").indices
        wanted = query_selected_attention(CASES[name].to(dtype), [], 10_000, backend="blocked").indices
        assert torch.equal(got, wanted)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 40), st.integers(1, 9), st.integers(1, 8)),
    num_queries=st.integers(1, 100),
    window=st.sampled_from([1, 3, 5, 101]),
    attention=st.sampled_from(ATTENTIONS),
    significance=st.sampled_from(["entropy", "max_mean"]),
    routing=st.sampled_from(["cross", "self"]),
    similarity=st.sampled_from(["dot", "scaled", "cosine"]),
    gain=st.sampled_from([0.0, 0.1, 1.0]),
    seed=st.integers(0, 1000),
)
def test_any_shape(
    shape: tuple[int, int, int, int], num_queries: int, gain: float, seed: int, **options: object
) -> None:
    source = random_features(*shape, seed=seed, gain=gain)
    compare(source, torch.float32, "triton", num_queries, **options)


def test_saturated_rows_are_ranked_as_in_float64() -> None:
    source = random_features(1, 80, 17, 17, gain=4.0)
    for mode in ("global", "local"):
        settings = {"num_queries": 150, "attention": mode, "window": 3}
        expected = query_selected_attention(source, [], backend="reference", **settings).indices
        got = query_selected_attention(source.float(), [], backend="triton", **settings).indices
        assert torch.equal(got, expected)


def test_repeated_indices_add_their_gradients() -> None:
    source, target = random_features(2, 5, 6, 7, gain=0.5), random_features(2, 5, 6, 7, seed=1)
    indices = torch.tensor([[0, 23, 41, 23], [7, 7, 40, 7]])
    for mode in ("global", "local"):
        settings = {"indices": indices, "attention": mode, "window": 3}
        _, got = run_with_gradients(source, [target], torch.float32, backend="triton", **settings)
        _, expected = run_with_gradients(source, [target], backend="reference", **settings)
        for a, b in zip(got, expected, strict=True):
            assert_near(a, b, 1e-5, mode)


@pytest.mark.parametrize("mode", ["global", "local"])
def test_the_bits_do_not_depend_on_the_batch(mode: Any) -> None:
    source = random_features(2, 20, 12, 13).float().requires_grad_()

    def run(part: Tensor) -> tuple[Tensor, ...]:
        selected = query_selected_attention(part, [part], 20, attention=mode, window=3, backend="triton")
        loss = (selected.targets[0] ** 2).sum()
        return selected.indices, selected.significance, selected.targets[0], *torch.autograd.grad(loss, part)

    together = run(source)
    apart = [run(source[i : i + 1].detach().requires_grad_()) for i in range(2)]
    for whole, *parts in zip(together, *apart, strict=True):
        assert torch.equal(whole, torch.cat(parts))


def test_only_what_needs_a_gradient_is_computed(launches: list[tuple[str, list[Tensor]]]) -> None:
    source, target = random_features(1, 4, 5, 5).float(), random_features(1, 4, 5, 5, seed=1).float().requires_grad_()
    selected = query_selected_attention(source, [target], 5, backend="triton")
    assert not selected.source.requires_grad
    launches.clear()
    selected.targets[0].sum().backward()
    assert [name for name, _ in launches] == ["maps_gradient_kernel"]
    source.requires_grad_()
    selected = query_selected_attention(source, [target], 5, backend="triton")
    launches.clear()
    torch.autograd.grad(selected.targets[0].sum(), source)  # of the two values, only the target's rows
    names = ["delta_kernel", "queries_gradient_kernel", "maps_gradient_kernel"]
    assert [name for name, _ in launches] == names


@pytest.mark.parametrize("mode", ["global", "local"])
def test_neither_n_by_n_nor_rows_are_made_or_kept(mode: Any, launches: list[tuple[str, list[Tensor]]]) -> None:
    channels, positions, num_queries = 4, 20 * 20, 96
    source, target = (torch.randn(1, channels, 20, 20, requires_grad=True) for _ in range(2))
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        selected = query_selected_attention(
            source, [target], num_queries, attention=mode, window=3, similarity="scaled", backend="triton"
        )
        (selected.source.sum() + selected.targets[0].sum()).backward()
    largest = max(each.numel() for _, tensors in launches for each in tensors)
    assert largest <= 4 * 4 * positions < num_queries * positions  # four numbers per row and split
    kept = 2 * channels * positions + num_queries * (channels + 2 * 2 + 2 * 2 + channels + 3 * 9)
    assert sum(saved.values()) <= 4 * kept < 4 * num_queries * positions


def test_windows_can_be_differentiated_twice() -> None:
    leaves = [random_features(1, 3, 4, 5, seed=i, gain=0.5).float().requires_grad_() for i in range(2)]
    found = []
    for name in ("triton", "reference"):
        selected = query_selected_attention(
            leaves[0], [leaves[1]], indices=torch.tensor([[3, 8]]), attention="local", window=3, backend=name
        )
        gradients = torch.autograd.grad((selected.targets[0] ** 2).sum(), leaves, create_graph=True)
        found.append(torch.autograd.grad(sum((each**2).sum() for each in gradients), leaves))
    for got, want in zip(*found, strict=True):
        assert_near(got, want, 1e-4, "second derivative")


def operator_samples() -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """Each operator with arguments as the backend gives them."""
    features, values = (random_features(2, 5, 12, seed=i).float().requires_grad_() for i in range(2))
    half = values.detach().bfloat16().requires_grad_()
    rows = random_features(2, 3, 5, seed=3).float().requires_grad_()
    weights = random_features(2, 3, 9, seed=4).float().requires_grad_()
    window = (torch.tensor([[0, 5, 11], [7, 7, 2]]), 3, 4, 1, 1)
    plain = tuple(each.detach() for each in (rows, features, values, rows))
    statistics = torch.ones(2, 2, 3)
    routing, windows = triton_routing_operators, triton_windows_operators
    return {
        "global_key": (triton_selection_operators.global_key, (features.detach(), None, 0.5, True)),
        "global_key, cosine": (
            triton_selection_operators.global_key,
            (half.detach(), torch.rand(2, 12), 0.5, False),
        ),
        "local_key": (triton_selection_operators.local_key, (features.detach(), None, 3, 4, 1, 1, 0.5, True)),
        "route_rows": (routing.route_rows, (rows, features, half, 0.5)),
        "route_rows_delta": (routing.route_rows_delta, (*plain, statistics, 0.5)),
        "route_rows_queries_gradient": (
            routing.route_rows_queries_gradient,
            (*plain, statistics, statistics[:, 0].clone(), 0.5),
        ),
        "route_rows_maps_gradient": (
            routing.route_rows_maps_gradient,
            (*plain, statistics, statistics[:, 0].clone(), 0.5, False, True),
        ),
        "window_products": (windows.window_products, (rows, features, *window, 0.0)),
        "window_sums": (windows.window_sums, (weights, features, *window)),
        "window_scatter": (windows.window_scatter, (weights, rows, *window)),
    }


@pytest.mark.parametrize("name", operator_samples())
def test_opcheck(name: str) -> None:
    operator, arguments = operator_samples()[name]
    opcheck(operator, arguments)


def test_every_operator_is_checked() -> None:
    checked = {name.partition(",")[0] for name in operator_samples()}
    for module in OPERATOR_FILES:
        source = Path(module.__file__).read_text(encoding="utf-8")
        names = re.findall(r'custom_op\("unpaired::(\w+)"', source)
        assert names
        assert set(names) <= checked


@pytest.mark.parametrize("mode", ["global", "local"])
def test_compiles_into_one_graph(mode: str) -> None:
    settings = attention.Attention(4, 5, mode == "local", 3, "scaled", 1.0)
    leaves = [random_features(2, 3, 20, seed=i).float().requires_grad_() for i in range(2)]

    def step(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        key, _ = triton_backend.significance(source, settings, "entropy")
        indices = key.sort(dim=1, stable=True).indices[:, :6].contiguous()
        routed = triton_backend.route(source, [source.detach(), target], indices, settings)
        return indices, (routed[0] * routed[1]).sum()

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    (indices, loss), (expected_indices, expected) = compiled(*leaves), step(*leaves)
    assert torch.equal(indices, expected_indices)
    assert torch.equal(loss, expected)
    for got, want in zip(torch.autograd.grad(loss, leaves), torch.autograd.grad(expected, leaves), strict=True):
        assert_near(got, want, 1e-6, "gradient")


def test_only_who_asks_by_name_is_interpreted() -> None:
    source = torch.zeros(1, 2, 3, 4)
    assert query_selection._choose_backend(None, source, "equations") is blocked
    assert query_selection._choose_backend("triton", source, "equations") is triton_backend


def test_refuses_what_it_cannot_do() -> None:
    with pytest.raises(BackendError, match=r"must be float32, bfloat16 or float16, not torch\.float64"):
        query_selected_attention(torch.zeros(1, 2, 3, 4, dtype=torch.float64), [], backend="triton")
    with pytest.raises(BackendError, match="formulation='published' needs the whole attention matrix"):
        query_selected_attention(torch.zeros(1, 2, 3, 4), [], formulation="published", backend="triton")


def test_temperatures_of_the_parity_table_are_the_defaults() -> None:
    assert TEMPERATURE == query_selection._DEFAULT_TEMPERATURE
