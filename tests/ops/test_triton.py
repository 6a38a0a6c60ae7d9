"""The ``triton`` backend: in the interpreter, compiled for a GPU that is not there, and on one where there is.

The first two need no GPU. What the interpreter runs is in ``triton_interpreted.py``.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ops_parity import assert_near, assert_ranked, random_features, reference_key
from torch import Tensor

from unpaired.errors import BackendError
from unpaired.ops import query_selected_attention, triton_requirements
from unpaired.ops.query_selection import BACKENDS

SHARED_MEMORY = 227 * 1024  # bytes that one program can have on sm_90
NAMES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.int64: "*i64"}


# ---------------------------------------------------------------------------------------------------------------------
# in the interpreter
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_equals_the_reference_in_the_interpreter() -> None:
    """In a process of its own: TRITON_INTERPRET changes Triton for good, and torch.compile with it."""
    here = Path(__file__)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore::RuntimeWarning"]
    answer = subprocess.run(
        [*command, str(here.with_name("triton_interpreted.py"))],
        cwd=here.parents[2],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout[-6000:] + answer.stderr[-2000:]
    assert " passed" in answer.stdout
    assert " skipped" not in answer.stdout


# ---------------------------------------------------------------------------------------------------------------------
# the row of the table
# ---------------------------------------------------------------------------------------------------------------------
def test_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(BackendError, match=r"'triton' cannot run: .*pip install triton.*; there is no CUDA device"):
        query_selected_attention(torch.zeros(1, 2, 3, 4), [], backend="triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert [reason for reason in triton_requirements.missing() if "CUDA" in reason] == []


def test_refuses_tensors_elsewhere_and_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    reasons = BACKENDS["triton"].refusals(torch.zeros(1, dtype=torch.float64), "published")
    assert len(reasons) == 3
    for reason, words in zip(reasons, ("published", "float64", "CUDA device, not on cpu"), strict=True):
        assert words in reason
    assert "ask for it by name" in BACKENDS["triton"].only_by_name()[0]


# ---------------------------------------------------------------------------------------------------------------------
# compiled for a GPU, without one
# ---------------------------------------------------------------------------------------------------------------------
Launch = tuple[Any, tuple[Any, ...], dict[str, Any]]


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[Launch]:
    """The launches are noted, not made: (kernel, arguments, constants)."""
    if triton_requirements.interpreting():
        pytest.skip("TRITON_INTERPRET is set: nothing can be compiled")
    pytest.importorskip("triton")
    from unpaired.ops import triton_routing_operators, triton_selection_operators, triton_windows_operators

    noted: list[Launch] = []
    for module in (triton_routing_operators, triton_selection_operators, triton_windows_operators):
        monkeypatch.setattr(
            module, "launch", lambda kernel, grid, *arguments, **constants: noted.append((kernel, arguments, constants))
        )
    return noted


def run_all(dtype: torch.dtype, channels: int, height: int, width: int, num_queries: int) -> None:
    """Every operator, as the backend calls it, on features of this size and kind."""
    from unpaired.ops.triton_routing_operators import (
        route_rows,
        route_rows_delta,
        route_rows_maps_gradient,
        route_rows_queries_gradient,
    )
    from unpaired.ops.triton_selection_operators import global_key, local_key
    from unpaired.ops.triton_windows_operators import window_products, window_scatter, window_sums

    features = torch.zeros(1, channels, height * width, dtype=dtype)
    rows = torch.zeros(1, num_queries, channels, dtype=dtype)
    statistics, norms = torch.zeros(1, 2, num_queries), torch.zeros(1, height * width)
    for inverse_norms, entropy in ((None, True), (norms, True), (None, False)):
        global_key(features, inverse_norms, 1.0, entropy)
        local_key(features, inverse_norms, height, width, 3, 3, 1.0, entropy)
    route_rows(rows, features, features, 1.0)
    common = (rows, features, features, rows.float(), statistics)
    route_rows_delta(*common, 1.0)
    route_rows_queries_gradient(*common, statistics[:, 0], 1.0)
    for need_keys, need_values in ((True, True), (True, False), (False, True)):
        route_rows_maps_gradient(*common, statistics[:, 0], 1.0, need_keys, need_values)
    window = (torch.zeros(1, num_queries, dtype=torch.int64), height, width, 3, 3)
    weights = torch.zeros(1, num_queries, 49)
    window_products(rows, features, *window, 0.0)
    window_sums(weights, features, *window)
    window_scatter(weights, rows, *window)


def compile_ahead(kernel: Any, arguments: tuple[Any, ...], constants: dict[str, Any]) -> Any:
    """What the launch would compile on an H100: divisibility by 16 and the value 1 are known to the compiler."""
    import triton
    from triton.backends.compiler import GPUTarget

    options = {name: constants[name] for name in ("num_warps", "num_stages") if name in constants}
    fixed = {name: value for name, value in constants.items() if name not in options}
    signature: dict[str, str] = {}
    facts: dict[tuple[int], list[Any]] = {}
    for i, (name, value) in enumerate(zip(kernel.arg_names, arguments, strict=False)):
        if value is None or (isinstance(value, int) and value == 1):
            fixed[name] = value
        elif isinstance(value, Tensor):
            signature[name] = NAMES[value.dtype]
        else:
            signature[name] = "fp32" if isinstance(value, float) else "i32"
        if isinstance(value, Tensor) or (isinstance(value, int) and value % 16 == 0):
            facts[(i,)] = [["tt.divisibility", 16]]
    source = triton.compiler.ASTSource(
        fn=kernel,
        signature={name: signature.get(name, "constexpr") for name in kernel.arg_names},
        constexprs=fixed,
        attrs=facts,
    )
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)


def registers_and_spills(binary: bytes, folder: Path) -> tuple[int, int]:
    """Registers and bytes of stack of a thread, read from the binary by the tool that comes with Triton."""
    import triton

    path = folder / "kernel.cubin"
    path.write_bytes(binary)
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    answer = subprocess.run([tool, "-res-usage", path], capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", answer)
    assert found, answer
    return int(found[1]), int(found[2])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        (torch.float32, (256, 64, 64)),  # the attention taps at 256 px
        (torch.bfloat16, (256, 64, 64)),
        (torch.float32, (3, 262, 262)),  # the padded input: neither channels nor positions fill a block
    ],
    ids=str,
)
def test_compiles_for_sm_90(
    dtype: torch.dtype,
    shape: tuple[int, int, int],
    launches: list[Launch],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every launch of the backend, by the ptxas that comes with Triton: shared memory suffices, registers nearly do.

    Of the stack only selection from the padded input uses any, 40 bytes.
    """
    from triton import knobs

    try:
        assert knobs.nvidia.ptxas.path
    except RuntimeError as error:
        pytest.skip(f"no ptxas: {error}")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    run_all(dtype, *shape, num_queries=256)
    assert len({kernel.__name__ for kernel, *_ in launches}) == 11
    for kernel, arguments, constants in launches:
        compiled = compile_ahead(kernel, arguments, constants)
        registers, stack = registers_and_spills(compiled.asm["cubin"], tmp_path)
        switches = [name for name, value in constants.items() if value is True]
        print(f"{kernel.__name__} {switches}: {compiled.metadata.shared} B shared, {registers} registers, {stack} B")
        assert compiled.metadata.shared <= SHARED_MEMORY, kernel.__name__
        assert stack <= 40, kernel.__name__


# ---------------------------------------------------------------------------------------------------------------------
# on a GPU
# ---------------------------------------------------------------------------------------------------------------------
needs_cuda = pytest.mark.skipif(
    bool(BACKENDS["triton"].missing()) or triton_requirements.interpreting(),
    reason="; ".join(BACKENDS["triton"].missing()) or "TRITON_INTERPRET is set",
)


# Wider than on the CPU: the logits are near 1,000 here, and tensor cores add up in another way.
GPU_TOLERANCE = {torch.float32: 3e-4, torch.bfloat16: 2e-2}


@needs_cuda
@pytest.mark.gpu
@pytest.mark.parametrize("similarity", ["dot", "cosine"])
@pytest.mark.parametrize("attention", ["global", "local", "local_global"])
@pytest.mark.parametrize("dtype", GPU_TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", [(1, 256, 64, 64), (2, 33, 35, 37)], ids=str)
def test_equals_the_reference_on_a_gpu(
    shape: tuple[int, ...], dtype: torch.dtype, attention: str, similarity: str
) -> None:
    source = random_features(*shape, gain=2.0).cuda()
    target = random_features(*shape, seed=1).cuda()
    settings = {"attention": attention, "similarity": similarity}
    got, gradients = run_on(source, [target], dtype, backend="triton", num_queries=256, **settings)
    expected, expected_gradients = run_on(
        source, [target], torch.float64, backend="reference", indices=got.indices, **settings
    )
    for actual, wanted in zip(
        (got.source, *got.targets, *gradients),
        (expected.source, *expected.targets, *expected_gradients),
        strict=True,
    ):
        assert_near(actual, wanted, GPU_TOLERANCE[dtype], "routed or gradient")
    key = reference_key(
        source,
        "entropy",
        local=attention != "global",
        window=7,
        similarity=similarity,
        temperature=0.1 if similarity == "cosine" else 1.0,
    )
    assert_ranked(got.indices, key, 1e-4)
    again, gradients_again = run_on(source, [target], dtype, backend="triton", num_queries=256, **settings)
    assert torch.equal(got.significance, again.significance)
    assert torch.equal(got.targets[0], again.targets[0])
    assert all(map(torch.equal, gradients, gradients_again))


def run_on(source: Tensor, targets: list[Tensor], dtype: torch.dtype, **settings: Any) -> Any:
    inputs = [each.detach().to(dtype).requires_grad_() for each in (source, *targets)]
    selected = query_selected_attention(inputs[0], inputs[1:], **settings)
    outputs = [selected.source, *selected.targets]
    weights = [random_features(*each.shape, seed=10 + i).to(source.device, dtype) for i, each in enumerate(outputs)]
    return selected, torch.autograd.grad(outputs, inputs, weights)


@needs_cuda
@pytest.mark.gpu
def test_saturated_rows_are_ranked_as_in_float64_on_a_gpu() -> None:
    source = random_features(1, 256, 64, 64, gain=12.0).cuda()  # self products near 37,000
    key = reference_key(source, "entropy", local=False, window=7, similarity="dot", temperature=1.0)
    expected = set(key.sort(dim=1).indices[0, :256].tolist())
    for dtype in (torch.float32, torch.bfloat16):
        indices = query_selected_attention(source.to(dtype), [], 256, backend="triton").indices
        assert_ranked(indices, key, 1e-5)
        assert len(expected & set(indices[0].tolist())) >= 254


def gpu_step(attention: str) -> tuple[list[Tensor], Callable[[Tensor, Tensor], Tensor]]:
    from unpaired.ops import triton_backend
    from unpaired.ops.attention import Attention

    settings = Attention(64, 64, attention == "local", 7, "scaled", 1.0)
    leaves = [random_features(1, 256, 64 * 64, seed=i).float().cuda().requires_grad_() for i in range(2)]

    def step(source: Tensor, target: Tensor) -> Tensor:
        key, _ = triton_backend.significance(source, settings, "entropy")
        indices = key.sort(dim=1, stable=True).indices[:, :256].contiguous()
        routed = triton_backend.route(source, [source.detach(), target], indices, settings)
        return (routed[0] * routed[1]).sum()

    return leaves, step


@needs_cuda
@pytest.mark.gpu
@pytest.mark.parametrize("attention", ["global", "local"])
def test_torch_compile_on_a_gpu(attention: str) -> None:
    leaves, step = gpu_step(attention)
    expected = torch.autograd.grad(step(*leaves), leaves)
    got = torch.autograd.grad(torch.compile(step, fullgraph=True)(*leaves), leaves)
    for actual, wanted in zip(got, expected, strict=True):
        assert_near(actual, wanted, 1e-4, "gradient")


@needs_cuda
@pytest.mark.gpu
@pytest.mark.parametrize("attention", ["global", "local"])
def test_cuda_graph_on_a_gpu(attention: str) -> None:
    leaves, step = gpu_step(attention)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # compiles the kernels
        torch.autograd.grad(step(*leaves), leaves)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        gradients = torch.autograd.grad(step(*leaves), leaves)
    with torch.no_grad():
        leaves[0].mul_(0.5)
    graph.replay()
    for actual, wanted in zip(gradients, torch.autograd.grad(step(*leaves), leaves), strict=True):
        assert_near(actual, wanted, 1e-5, "gradient")


@needs_cuda
@pytest.mark.gpu
def test_is_the_choice_on_a_gpu() -> None:
    from unpaired.ops import triton_backend
    from unpaired.ops.query_selection import _choose_backend

    assert _choose_backend(None, torch.zeros(1, 2, 3, 4, device="cuda"), "equations") is triton_backend
