"""The Triton kernel of selection: in the interpreter, compiled for a GPU that is not there, and on one where there is.

TRITON_INTERPRET must be set before Triton is imported and changes it for good, so one test runs this file again in a
process of its own. Sizes are small there: the interpreter is slow.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ops_parity import CASES, TOLERANCE, assert_near, assert_ranked, random_features, reference_key, run_with_gradients
from test_backend_parity import TEMPERATURE, compare
from torch import Tensor
from torch.library import opcheck

from unpaired.errors import BackendError
from unpaired.ops import query_selected_attention, query_selection
from unpaired.ops.attention import Attention
from unpaired.ops.backends import BACKENDS, triton_selection

INTERPRETING = triton_selection.interpreting()
TRITON = BACKENDS["triton"]
SHARED_MEMORY = 227 * 1024  # bytes that one program can have on sm_90
interpreted = pytest.mark.skipif(not INTERPRETING, reason="needs TRITON_INTERPRET=1; the first test sets it")
needs_cuda = pytest.mark.skipif(bool(TRITON.missing()) or INTERPRETING, reason="; ".join(TRITON.missing()))


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETING, reason="this is the process of its own")
def test_equals_the_reference_in_the_interpreter() -> None:
    pytest.importorskip("triton")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore::RuntimeWarning", __file__]
    answer = subprocess.run(
        [*command, "-k", "interpreted"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout[-6000:] + answer.stderr[-2000:]
    assert " passed" in answer.stdout
    assert " skipped" not in answer.stdout


@interpreted
@pytest.mark.parametrize("case", [case for case in CASES if "shifts" not in case])
def test_interpreted_equals_the_reference(case: str) -> None:
    for significance, similarity, routing in (
        ("entropy", "dot", "cross"),
        ("max_mean", "scaled", "self"),
        ("entropy", "cosine", "cross"),
    ):
        options = {"significance": significance, "similarity": similarity, "routing": routing, "window": 3}
        for attention in ("global", "local_global"):
            compare(CASES[case], torch.float32, "triton", 13, attention=attention, **options)


@interpreted
@pytest.mark.parametrize(("programs", "significance"), [(256, "entropy"), (4, "entropy"), (4, "max_mean")])
def test_interpreted_blocks_and_splits(programs: int, significance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """n = 351 is 3 blocks of keys, C = 70 is 3 of channels; each block is a split with 256 programs, none with 4."""
    monkeypatch.setattr(triton_selection, "_PROGRAMS", programs)
    options = {"significance": significance, "similarity": "scaled", "routing": "cross", "window": 3}
    compare(random_features(1, 70, 27, 13), torch.float32, "triton", 40, attention="global", **options)


@interpreted
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_interpreted_half_precision(dtype: torch.dtype) -> None:
    source, target = CASES["wide_3x11_batch2"], random_features(2, 8, 3, 11, seed=1)
    for similarity in ("dot", "cosine"):
        ours, gradients = run_with_gradients(
            source, [target], dtype, num_queries=9, similarity=similarity, backend="triton"
        )
        exact, expected = run_with_gradients(
            source, [target], indices=ours.indices, similarity=similarity, backend="reference"
        )
        for got, want in zip((*ours.targets, *gradients), (*exact.targets, *expected), strict=True):
            assert got.dtype == dtype
            assert_near(got, want, TOLERANCE[torch.bfloat16], similarity)
        wide = query_selected_attention(source, [], 9, similarity=similarity, backend="reference")
        assert_near(ours.significance, wide.significance, 1e-5, "significance")


@interpreted
def test_interpreted_ties_saturated_rows_and_batches() -> None:
    for name in ("all_equal", "duplicates", "one_hot_gaps"):
        for dtype in (torch.float32, torch.bfloat16):
            found = [
                query_selected_attention(CASES[name].to(dtype), [], 10_000, backend=backend).indices
                for backend in ("triton", "blocked")
            ]
            assert torch.equal(*found)
    saturated = random_features(1, 80, 17, 17, gain=4.0)
    expected = query_selected_attention(saturated, [], 150, backend="reference").indices
    assert torch.equal(query_selected_attention(saturated.float(), [], 150, backend="triton").indices, expected)
    batch = random_features(2, 20, 12, 13).float()
    together = query_selected_attention(batch, [], 20, backend="triton").significance
    apart = [query_selected_attention(part, [], 20, backend="triton").significance for part in batch.split(1)]
    assert torch.equal(together, torch.cat(apart)), "the bits depend on the batch"


@interpreted
def test_interpreted_operator_can_be_compiled() -> None:
    features = random_features(2, 5, 12).float()
    opcheck(triton_selection.global_key, (features, None, 0.5, True))
    opcheck(triton_selection.global_key, (features.bfloat16(), torch.rand(2, 12), 0.5, False))
    for height, width, local in ((3, 4, False), (35, 33, True)):  # the kernel; the shifts, which are plain torch
        settings = Attention(height, width, local, 3, "scaled", 1.0)
        features = random_features(2, 5, height * width).float()

        def select(source: Tensor, settings: Attention = settings) -> Tensor:
            return triton_selection.significance(source, settings, "entropy")[0].sort(dim=1, stable=True).indices

        compiled = torch.compile(select, backend="aot_eager", fullgraph=True)
        assert torch.equal(compiled(features), select(features))


@interpreted
def test_interpreted_only_by_name() -> None:
    source = torch.zeros(1, 2, 3, 4)
    assert query_selection._choose_backend(None, source, "equations") == BACKENDS["blocked"].formulations["equations"]
    assert query_selection._choose_backend("triton", source, "equations") == TRITON.formulations["equations"]
    with pytest.raises(BackendError, match=r"must be float32, bfloat16 or float16, not torch\.float64"):
        query_selected_attention(source.double(), [], backend="triton")
    assert TEMPERATURE == query_selection._DEFAULT_TEMPERATURE


def test_says_what_is_missing_and_what_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    reasons = TRITON.refusals(torch.zeros(1, dtype=torch.float64))
    assert "float64" in reasons[0]
    assert "CUDA device, not on cpu" in reasons[1]
    assert "ask for it by name" in TRITON.only_by_name()[0]
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(BackendError, match=r"'triton' cannot run: .*pip install triton.*; there is no CUDA device"):
        query_selected_attention(torch.zeros(1, 2, 3, 4), [], backend="triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert [reason for reason in TRITON.missing() if "CUDA" in reason] == []


def compile_ahead(kernel: Any, arguments: tuple[Any, ...], constants: dict[str, Any]) -> Any:
    """What the launch would compile on an H100: divisibility by 16 and the value 1 are known to the compiler."""
    import triton
    from triton.backends.compiler import GPUTarget

    types = {torch.float32: "*fp32", torch.bfloat16: "*bf16"}
    options = {name: constants[name] for name in ("num_warps", "num_stages") if name in constants}
    fixed = {name: value for name, value in constants.items() if name not in options}
    signature: dict[str, str] = {}
    attributes: dict[tuple[int], list[Any]] = {}
    for i, (name, value) in enumerate(zip(kernel.arg_names, arguments, strict=False)):
        if value is None or (isinstance(value, int) and value == 1):
            fixed[name] = value
        elif isinstance(value, Tensor):
            signature[name] = types[value.dtype]
        else:
            signature[name] = "fp32" if isinstance(value, float) else "i32"
        if isinstance(value, Tensor) or (isinstance(value, int) and value % 16 == 0):
            attributes[(i,)] = [["tt.divisibility", 16]]
    source = triton.compiler.ASTSource(
        fn=kernel,
        signature={name: signature.get(name, "constexpr") for name in kernel.arg_names},
        constexprs=fixed,
        attrs=attributes,
    )
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETING, reason="nothing can be compiled")
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
    dtype: torch.dtype, shape: tuple[int, int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every launch, by the ptxas that comes with Triton: shared memory suffices, and registers nearly do.

    Of the stack only selection from the padded input uses any, 40 bytes.
    """
    triton = pytest.importorskip("triton")
    try:
        assert triton.knobs.nvidia.ptxas.path
    except RuntimeError as error:
        pytest.skip(f"no ptxas: {error}")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    launches: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []
    monkeypatch.setattr(
        triton_selection,
        "launch",
        lambda kernel, grid, *arguments, **constants: launches.append((kernel, arguments, constants)),
    )
    channels, height, width = shape
    features, norms = torch.zeros(1, channels, height * width, dtype=dtype), torch.zeros(1, height * width)
    for inverse_norms, entropy in ((None, True), (norms, True), (None, False)):
        triton_selection.global_key(features, inverse_norms, 1.0, entropy)
    assert len(launches) == 3
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    for kernel, arguments, constants in launches:
        compiled = compile_ahead(kernel, arguments, constants)
        binary = tmp_path / "kernel.cubin"
        binary.write_bytes(compiled.asm["cubin"])
        usage = subprocess.run([tool, "-res-usage", binary], capture_output=True, text=True, check=True).stdout
        stack = re.search(r"STACK:(\d+)", usage)
        assert compiled.metadata.shared <= SHARED_MEMORY, kernel.__name__
        assert stack, usage
        assert int(stack[1]) <= 40, kernel.__name__


def run_on_gpu(dtype: torch.dtype, shape: tuple[int, ...], gain: float = 2.0, **settings: Any) -> Any:
    leaves = [random_features(*shape, seed=i, gain=gain).cuda().to(dtype).requires_grad_() for i in range(2)]
    selected = query_selected_attention(leaves[0], leaves[1:], **settings)
    return selected, torch.autograd.grad(selected.targets[0].square().mean(), leaves)


@needs_cuda
@pytest.mark.gpu
@pytest.mark.parametrize("similarity", ["dot", "cosine"])
@pytest.mark.parametrize("attention", ["global", "local", "local_global"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 3e-4), (torch.bfloat16, 2e-2)], ids=str)
@pytest.mark.parametrize("shape", [(1, 256, 64, 64), (2, 33, 35, 37)], ids=str)
def test_equals_the_reference_on_a_gpu(
    shape: tuple[int, ...], dtype: torch.dtype, tolerance: float, attention: str, similarity: str
) -> None:
    settings = {"attention": attention, "similarity": similarity, "num_queries": 256}
    got, gradients = run_on_gpu(dtype, shape, backend="triton", **settings)
    want, expected = run_on_gpu(torch.float64, shape, backend="reference", indices=got.indices, **settings)
    for actual, wanted in zip((*got.targets, *gradients), (*want.targets, *expected), strict=True):
        assert_near(actual, wanted, tolerance, "routed or gradient")
    spread = TEMPERATURE[similarity]
    of = {"local": attention != "global", "window": 7, "similarity": similarity, "temperature": spread}
    assert_ranked(got.indices, reference_key(random_features(*shape, gain=2.0).cuda(), "entropy", **of), 1e-4)
    again, gradients_again = run_on_gpu(dtype, shape, backend="triton", **settings)
    assert torch.equal(got.significance, again.significance)
    assert all(map(torch.equal, gradients, gradients_again))


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


@needs_cuda
@pytest.mark.gpu
@pytest.mark.parametrize("how", ["compiled", "recorded"])
@pytest.mark.parametrize("local", [False, True])
def test_torch_compile_and_cuda_graphs_on_a_gpu(local: bool, how: str) -> None:
    settings = Attention(64, 64, local, 7, "scaled", 1.0)
    features = random_features(1, 256, 64 * 64).float().cuda()

    def select() -> Tensor:
        return triton_selection.significance(features, settings, "entropy")[0]

    expected = select()  # compiles the kernels
    if how == "compiled":
        assert_near(torch.compile(select, fullgraph=True)(), expected, 1e-5, "key")
        return
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = select()
    features.mul_(0.5)
    graph.replay()
    assert_near(found, select(), 1e-5, "key")
