"""The front door: what it returns, what it refuses, which backend runs, where gradients go and what is kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ops_parity import USABLE_BACKENDS, assert_near, random_features, run_with_gradients
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from unpaired.errors import BackendError, ConfigError
from unpaired.ops import backend_report, backends, query_selected_attention
from unpaired.ops.backends import BACKENDS, Backend
from unpaired.ops.query_selection import _choose_backend

MAP = torch.zeros(2, 3, 4, 5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": torch.zeros(3, 4, 5)}, r"source must be a \(B, C, H, W\) tensor.*\(3, 4, 5\)"),
        ({"source": MAP.long()}, "source must have a floating dtype, got torch.int64"),
        ({"source": torch.zeros(1, 3, 0, 5)}, "source must be .* without empty dimensions"),
        ({"targets": MAP}, "targets must be a list of tensors"),
        ({"targets": [MAP, MAP[:, :, :3]]}, r"targets\[1\] must be like source.*\(2, 3, 4, 5\).*\(2, 3, 3, 5\)"),
        ({"attention": "locale"}, r"attention must be one of.*'locale' \(did you mean 'local'\?\)"),
        ({"significance": "entropi"}, r"significance must be one of.*did you mean 'entropy'"),
        ({"routing": "both"}, "routing must be one of 'cross', 'self', 'none', got 'both'"),
        ({"similarity": "cos"}, "similarity must be one of"),
        ({"formulation": "paper"}, "formulation must be one of 'equations', 'published'"),
        ({"num_queries": 0}, "num_queries must be a whole number of at least 1, got 0"),
        ({"num_queries": 2.0}, "num_queries must be a whole number"),
        ({"window": 4}, "window must be an odd whole number.*got 4"),
        ({"window": -1}, "window must be an odd"),
        ({"temperature": 0}, "temperature must be a finite number above 0.*got 0"),
        ({"temperature": math.inf}, "temperature must be a finite number"),
        ({"significance": "random"}, "significance='random' needs random_seeds"),
        ({"significance": "random", "random_seeds": torch.tensor([1])}, r"random_seeds must be int64 of shape \(2,\)"),
        ({"significance": "random", "random_seeds": torch.rand(2)}, "random_seeds must be int64"),
        ({"significance": "random", "random_seeds": 3}, "random_seeds must be an int64 tensor"),
        ({"indices": torch.tensor([[20], [0]])}, r"indices must lie in \[0, 20\)"),
        ({"indices": torch.tensor([[-1], [0]])}, r"indices must lie in \[0, 20\)"),
        ({"indices": torch.tensor([0, 1])}, r"indices must be int64 of shape \(2, N\)"),
        ({"indices": [[0], [1]]}, "indices must be an int64 tensor"),
        ({"formulation": "published", "similarity": "cosine"}, "similarity='cosine' does not exist in the published"),
        ({"formulation": "published", "significance": "max_mean"}, "significance='max_mean' does not exist"),
        ({"formulation": "published", "temperature": 0.5}, "temperature=0.5 does not exist"),
    ],
)
def test_errors_name_the_setting(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        query_selected_attention(**{"source": MAP, "targets": [], **settings})


def test_a_backend_request_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match=r"'blockd' does not exist; there are .*'blocked', .*did you mean 'blocked'"):
        query_selected_attention(MAP, [], backend="blockd")
    with pytest.raises(BackendError, match="'blocked' cannot run: formulation='published' needs the whole"):
        query_selected_attention(MAP, [], backend="blocked", formulation="published")
    assert _choose_backend(None, MAP, "equations") == BACKENDS["blocked"].formulations["equations"]
    assert _choose_backend(None, MAP, "published") == BACKENDS["reference"].formulations["published"]
    functions = BACKENDS["reference"].formulations
    rows = [
        Backend("gone", 0, functions, missing=lambda: ["no device", "no driver"], refusals=lambda source: ["unread"]),
        Backend("unfit", 1, functions, refusals=lambda source: [f"no {source.dtype}"]),
        Backend("asked", 2, functions, only_by_name=lambda: ["slow"]),
    ]
    monkeypatch.setattr("unpaired.ops.query_selection.BACKENDS", {row.name: row for row in rows})
    with pytest.raises(BackendError) as caught:
        query_selected_attention(MAP, [])
    assert str(caught.value).splitlines() == [
        "backend 'gone' cannot run: no device; no driver",
        "backend 'unfit' cannot run: no torch.float32",
        "backend 'asked' cannot run: slow",
    ]
    assert backend_report() == [
        ("gone", False, ["no device", "no driver"]),
        ("unfit", True, []),
        ("asked", True, ["slow"]),
    ]
    with pytest.raises(BackendError, match="'gone' cannot run: no device; no driver"):
        query_selected_attention(MAP, [], backend="gone")
    query_selected_attention(MAP, [], backend="asked")


def test_a_new_file_is_a_new_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(BACKENDS) == ["triton", "blocked", "reference"]
    source = "from unpaired.ops.backends import Backend, blocked\n"
    (tmp_path / "mine.py").write_text(source + "BACKEND = Backend('mine', -1, blocked.BACKEND.formulations)\n")
    monkeypatch.setattr(backends, "__path__", [*backends.__path__, str(tmp_path)])
    assert list(backends._find()) == ["mine", "triton", "blocked", "reference"]


@pytest.mark.parametrize("attention", ["global", "local"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_shapes_and_dtypes(dtype: torch.dtype, attention: Any) -> None:
    source, target = torch.randn(2, 3, 4, 5, dtype=dtype), torch.randn(2, 3, 4, 5)
    selected = query_selected_attention(source, [target, source], 7, attention=attention, window=3)
    assert selected.indices.shape == (2, 7)
    assert selected.indices.dtype == torch.int64
    assert selected.significance.shape == (2, 20)
    assert selected.significance.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert [each.shape for each in (selected.source, *selected.targets)] == [(2, 7, 3)] * 3
    assert [each.dtype for each in (selected.source, *selected.targets)] == [dtype, torch.float32, dtype]
    assert torch.equal(selected.targets[1], selected.source)


class Recorder(TorchDispatchMode):
    """Notes the operators that run and the largest storage behind any tensor they return, in elements."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0
        self.operators: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.operators.add(function.overloadpacket.__name__)
        for each in tree_leaves(result):
            if isinstance(each, Tensor):
                self.largest = max(self.largest, each.untyped_storage().nbytes() // each.element_size())
        return result


def test_random_sampling_computes_no_attention() -> None:
    with Recorder() as recorder:
        query_selected_attention(
            torch.randn(1, 3, 8, 8), [], 6, significance="random", routing="none", random_seeds=torch.tensor([1])
        )
    assert not {"bmm", "baddbmm", "mm", "exp", "_softmax"} & recorder.operators


@pytest.mark.parametrize("attention", ["global", "local", "local_global"])
def test_nothing_n_by_n_is_made_or_kept(attention: Any) -> None:
    channels, side, num_queries = 16, 64, 64
    positions = side * side
    source, target = (torch.randn(1, channels, side, side, requires_grad=True) for _ in range(2))
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with Recorder() as recorder, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        selected = query_selected_attention(source, [target], num_queries, attention=attention)
        (selected.source.sum() + selected.targets[0].sum()).backward()
    assert recorder.largest <= 1 << 20 < positions**2 / 8
    # Kept for backward: A_g's rows, or the gathered windows of both maps; besides, the maps and a few (N, C).
    rows = 2 * num_queries * 49 * channels if attention == "local" else num_queries * positions
    assert sum(saved.values()) <= 4 * (1.2 * rows + 3 * channels * positions)


@pytest.mark.parametrize("attention", ["global", "local", "local_global"])
@pytest.mark.parametrize("routing", ["cross", "self"])
@pytest.mark.parametrize("backend", USABLE_BACKENDS)
def test_detached_attention_leaves_only_the_gradient_of_the_values(backend: str, routing: Any, attention: Any) -> None:
    source, target = random_features(1, 4, 7, 7), random_features(1, 4, 7, 7, seed=1)
    settings = {"num_queries": 5, "attention": attention, "window": 3, "backend": backend, "routing": routing}
    selected, gradients = run_with_gradients(source, [target], detach_attention=True, **settings)
    assert not selected.significance.requires_grad
    for i, gradient in enumerate(gradients):
        # With fixed rows the routed features are linear in the values, so sum(gradient * values) is the loss.
        routed = (selected.source, *selected.targets)[i].detach()
        loss = (routed * random_features(*routed.shape, seed=10 + i)).sum()
        assert_near((gradient * (source, target)[i]).sum(), loss, 1e-12, "loss")
    with_rows = run_with_gradients(source, [target], **settings)
    assert torch.equal(with_rows[0].source, selected.source)
    assert (with_rows[1][0] - gradients[0]).abs().max() > 1e-3


@pytest.mark.parametrize("backend", USABLE_BACKENDS)
def test_what_is_not_used_gets_no_gradient(backend: str) -> None:
    """The positives are detached in training: then only the target's output carries a gradient."""
    source, target, other = (random_features(2, 4, 5, 5, seed=i).requires_grad_() for i in range(3))
    settings: Any = {"similarity": "scaled", "indices": torch.tensor([[0, 3, 3], [7, 1, 24]]), "backend": backend}
    selected = query_selected_attention(source, [target, other], **settings)
    of_source, of_target, of_other = torch.autograd.grad(
        (selected.targets[0] ** 2).sum(), (source, target, other), allow_unused=True
    )
    assert of_other is None or not of_other.any()
    alone = query_selected_attention(source, [target], **settings)
    expected = torch.autograd.grad(((alone.targets[0] ** 2).sum() + 0 * alone.source.sum()), (source, target))
    assert_near(of_source, expected[0], 1e-12, "source")
    assert_near(of_target, expected[1], 1e-12, "target")


def test_a_gradient_of_a_gradient_is_refused_not_wrong() -> None:
    source = random_features(1, 4, 5, 5).requires_grad_()
    selected = query_selected_attention(source, [source], 5, backend="blocked")
    (gradient,) = torch.autograd.grad((selected.source**2).sum(), source, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("attention", ["global", "local", "local_global"])
@pytest.mark.parametrize("routing", ["cross", "self", "none"])
@pytest.mark.parametrize(
    ("backend", "formulation"), [*((name, "equations") for name in USABLE_BACKENDS), ("reference", "published")]
)
def test_gradients_are_never_channels_last(backend: str, formulation: Any, routing: Any, attention: Any) -> None:
    """instance_norm with batch 1 turns a channels-last gradient into a wrong one (CPU)."""
    leaves = [random_features(1, 5, 35, 33, seed=i).requires_grad_() for i in range(2)]
    norms = (torch.nn.functional.instance_norm, lambda x: torch.nn.functional.group_norm(x, x.shape[1]))
    gradients = []
    for norm in norms:
        selected = query_selected_attention(
            norm(leaves[0]),
            [norm(leaves[1]).contiguous(memory_format=torch.channels_last)],
            indices=torch.arange(0, 1000, 60).unsqueeze(0),
            attention=attention,
            routing=routing,
            formulation=formulation,
            window=3,
            backend=backend,
        )
        gradients.append(torch.autograd.grad((selected.source**3).sum() + (selected.targets[0] ** 3).sum(), leaves))
    for by_instance_norm, by_group_norm in zip(*gradients, strict=True):
        assert_near(by_instance_norm, by_group_norm, 1e-9, "gradient")


@pytest.mark.parametrize("attention", ["global", "local"])
def test_autocast_does_not_reach_the_logits(attention: Any) -> None:
    source = torch.randn(1, 32, 8, 8)
    plain = query_selected_attention(source, [source], 9, attention=attention)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = query_selected_attention(source, [source], 9, attention=attention)
    assert torch.equal(plain.significance, cast.significance)
    assert torch.equal(plain.targets[0], cast.targets[0])


def test_reduced_float32_products_do_not_reach_the_logits() -> None:
    source = torch.randn(1, 256, 32, 32)
    plain = query_selected_attention(source, [source])
    torch.set_float32_matmul_precision("medium")
    try:
        reduced = query_selected_attention(source, [source])
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(plain.significance, reduced.significance)
    assert torch.equal(plain.targets[0], reduced.targets[0])


def test_a_window_larger_than_the_map_is_global() -> None:
    source = random_features(1, 4, 5, 6)
    by_window: Callable[..., Any] = query_selected_attention(source, [source], 9, attention="local", window=101)
    by_all = query_selected_attention(source, [source], 9)
    assert torch.equal(by_window.indices, by_all.indices)  # type: ignore[attr-defined]
    assert_near(by_window.source, by_all.source, 1e-12, "routed")  # type: ignore[attr-defined]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("options", [{"significance": "random"}, {"indices": torch.tensor([[5, 0, 11], [3, 3, 7]])}])
def test_unrouted_features_are_read_where_they_lie(
    layout: torch.memory_format, options: dict[str, Any], dtype: torch.dtype
) -> None:
    """The features at the locations, and gradients there alone; in half precision they lie as the map does."""
    if "significance" in options:
        options = {**options, "random_seeds": torch.tensor([4, 9])}
    source, target = (
        torch.randn(2, 5, 3, 4, dtype=torch.float64).to(dtype).contiguous(memory_format=layout).requires_grad_()
        for _ in range(2)
    )
    found = query_selected_attention(source, [target], 3, routing="none", **options)
    assert found.significance.shape == (2, 0 if "indices" in options else 12)
    weights = torch.randint(-3, 4, (2, 3, 5)).to(dtype)  # sums of them are exact
    (gradient,) = torch.autograd.grad((weights * found.targets[0]).sum(), target)
    for image in range(2):
        expected = torch.zeros(5, 12, dtype=dtype)
        for number, place in enumerate(found.indices[image].tolist()):
            y, x = divmod(place, 4)
            assert torch.equal(found.source[image, number], source[image, :, y, x])
            assert torch.equal(found.targets[0][image, number], target[image, :, y, x])
            expected[:, place] += weights[image, number]
        torch.testing.assert_close(gradient[image].flatten(1), expected)
    assert gradient.is_contiguous(memory_format=layout if dtype == torch.bfloat16 else torch.contiguous_format)
