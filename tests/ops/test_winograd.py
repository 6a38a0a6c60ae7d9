"""The fast convolution is a convolution: values and gradients against the library's in float64, for any shape."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unpaired.ops import winograd
from unpaired.ops.winograd import conv2d, conv2d_by_products, convolutions_by_products, direct_convolutions


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the fast algorithm for any number of channels and tiles."""
    _take_everywhere(monkeypatch)


def _take_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "_FEWEST_CHANNELS", {False: 0.0, True: 0.0})
    monkeypatch.setattr(winograd, "_FEWEST_TILES", 0)


def with_gradients(leaves: list[Tensor], padding: int, mode: Any) -> list[Tensor]:
    leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    result = conv2d(*leaves, padding, mode)  # type: ignore[arg-type]
    weights = torch.linspace(-1, 1, result.numel(), dtype=result.dtype).view(result.shape).sin()
    return [result, *torch.autograd.grad((result * weights).sum(), leaves)]


def compare(shape: tuple[int, int, int, int], channels: int, taps: int, padding: int, mode: str) -> None:
    generator = torch.Generator().manual_seed(sum(shape))
    x = torch.randn(*shape, generator=generator)
    leaves = [x, torch.randn(channels, shape[1], taps, taps, generator=generator), torch.randn(channels)]
    assert winograd._pays(x, leaves[1].requires_grad_(), padding) == (
        min(shape[2:]) + 2 * padding - taps + 1 >= 7 - taps
    )
    actual = with_gradients(leaves, padding, mode)
    expected = with_gradients([leaf.double() for leaf in leaves], padding, mode)
    for name, got, want in zip(("value", "x", "weight", "bias"), actual, expected, strict=True):
        assert got.shape == want.shape
        assert got.is_contiguous(), name
        # A gradient of the parameters sums over all places, and what it sums may cancel.
        summed = actual[0].numel() / channels if name in ("weight", "bias") else 1
        error = ((got - want).abs().max() / want.abs().max().clamp(min=summed**0.5)).item()
        assert error < 1e-5, f"{name}: {error:.1e}"


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(4, 23), st.integers(4, 23)),
    channels=st.integers(1, 5),
    taps=st.sampled_from([3, 4]),
    padding=st.integers(0, 2),
    mode=st.sampled_from(["zeros", "reflect"]),
    chunk=st.sampled_from([1, 3, 256]),
)
def test_any_shape(
    shape: tuple[int, int, int, int], channels: int, taps: int, padding: int, mode: str, chunk: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        _take_everywhere(patch)
        patch.setattr(winograd, "_CHUNK_TILES", chunk)
        compare(shape, channels, taps, padding, mode)


def test_the_networks_own_layers_are_as_exact_as_stated() -> None:
    """A residual block's convolution at 128 px: rounding of about five times the library's, in root mean square."""
    x, weight = torch.randn(2, 256, 32, 32).relu(), 0.02 * torch.randn(256, 256, 3, 3)
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    fast = conv2d(x, weight, None, 1)
    assert not torch.equal(fast, F.conv2d(x, weight, padding=1)), "the fast algorithm was not taken"
    assert ((fast - exact).std() / exact.std()).item() < 2e-6


@pytest.mark.usefixtures("everywhere")
def test_only_what_is_asked_for_is_computed() -> None:
    x, weight = torch.randn(1, 4, 12, 12), torch.randn(4, 4, 3, 3)
    assert conv2d(x, weight).grad_fn is None
    (gradient,) = torch.autograd.grad(conv2d(x.requires_grad_(), weight).sum(), x)
    assert gradient.shape == x.shape
    (gradient,) = torch.autograd.grad(conv2d(x.detach(), weight.requires_grad_()).sum(), weight)
    assert gradient.shape == weight.shape


@pytest.mark.usefixtures("everywhere")
def test_more_reflection_than_there_is_image_is_refused_as_by_the_library() -> None:
    with pytest.raises(RuntimeError, match=r"[Pp]adding size should be less than"):
        conv2d(torch.randn(1, 2, 2, 9), torch.randn(2, 2, 3, 3), None, 2, "reflect")


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("format_", [torch.contiguous_format, torch.channels_last])
def test_any_memory_layout(format_: torch.memory_format) -> None:
    x = torch.randn(2, 3, 13, 12).contiguous(memory_format=format_)
    weight = torch.randn(5, 3, 3, 3).contiguous(memory_format=format_)
    torch.testing.assert_close(conv2d(x, weight, None, 1), F.conv2d(x, weight, padding=1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("dtype", "taps", "channels"), [(torch.float64, 3, 256), (torch.bfloat16, 3, 256), (torch.float32, 7, 256),
                                    (torch.float32, 3, 8)],
)  # fmt: skip
def test_elsewhere_it_is_the_library_to_the_bit(dtype: torch.dtype, taps: int, channels: int) -> None:
    x, weight = torch.randn(1, channels, 32, 32, dtype=dtype), torch.randn(channels, channels, taps, taps, dtype=dtype)
    assert torch.equal(conv2d(x, weight, None, 1), F.conv2d(x, weight, padding=1))


def test_it_can_be_turned_off_and_comes_back() -> None:
    x, weight = torch.randn(1, 256, 32, 32), torch.randn(256, 256, 3, 3)
    fast, library = conv2d(x, weight, None, 1), F.conv2d(x, weight, padding=1)
    with direct_convolutions():
        assert torch.equal(conv2d(x, weight, None, 1), library)
    with torch.autocast("cpu", torch.bfloat16):
        assert conv2d(x, weight, None, 1).dtype == torch.bfloat16
    assert torch.equal(conv2d(x, weight, None, 1), fast)
    assert not torch.equal(fast, library)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(4, 19), st.integers(4, 19)),
    channels=st.integers(1, 5),
    mode=st.sampled_from(["zeros", "reflect"]),
    with_bias=st.booleans(),
)
def test_products_of_a_graph_are_the_convolution(
    shape: tuple[int, int, int, int], channels: int, mode: Any, with_bias: bool
) -> None:
    generator = torch.Generator().manual_seed(sum(shape))
    x, weight = torch.randn(*shape, generator=generator), torch.randn(channels, shape[1], 3, 3, generator=generator)
    bias = torch.randn(channels, generator=generator) if with_bias else None
    with direct_convolutions():
        wanted = conv2d(x.double(), weight.double(), None if bias is None else bias.double(), 1, mode)
    made = conv2d_by_products(x, weight, bias, mode)
    assert made.shape == wanted.shape
    assert float((made - wanted).abs().max() / wanted.abs().max()) < 1e-5


def test_only_wide_3_by_3_convolutions_become_products() -> None:
    wide, narrow = torch.randn(128, 128, 3, 3), torch.randn(64, 64, 3, 3)
    for weight, padding, expected in ((wide, 1, True), (wide, 0, False), (narrow, 1, False)):
        x = torch.randn(1, weight.shape[1], 8, 8)
        with direct_convolutions():
            direct = conv2d(x, weight, None, padding)
        with convolutions_by_products():
            made = conv2d(x, weight, None, padding)
        assert torch.equal(made, direct) is not expected
        torch.testing.assert_close(made, direct, rtol=0, atol=2e-3)
