"""Operations that keep bf16 maps as they are under autocast on the CPU, and their gradients against float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unpaired.networks.generators import ResidualBlock
from unpaired.networks.layers import BlurDownsample, Conv2d, blur_upsample, instance_norm
from unpaired.ops import query_selected_attention
from unpaired.ops.half_precision import own_type, reflect
from unpaired.ops.winograd import conv2d

OPERATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "pad by 1": (lambda x: reflect(x, 1), lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect")),
    "pad by 3": (lambda x: reflect(x, 3), lambda x: F.pad(x, (3, 3, 3, 3), mode="reflect")),
    "double": (blur_upsample, lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)),
    "blur and halve": (BlurDownsample(8), lambda x: F.avg_pool2d(F.avg_pool2d(reflect(x, 1), 2, stride=1), 2)),
    "norm": (instance_norm, lambda x: F.group_norm(x, 8)),
    "norm and relu": (lambda x: F.relu(instance_norm(x)), lambda x: F.relu(F.group_norm(x, 8))),
}


SHAPES = [(name, shape) for name in OPERATIONS for shape in ((1, 8, 12, 9), (2, 8, 12, 9), (1, 8, 32, 32))]


@pytest.mark.parametrize(("name", "shape"), [*SHAPES, ("norm", (1, 8, 7, 6)), ("norm", (2, 8, 7, 6))])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_bf16_stays_bf16_and_lies_near_float64(name: str, layout: torch.memory_format, shape: tuple[int, ...]) -> None:
    own, plain = OPERATIONS[name]
    x = (torch.randn(shape) + 3).bfloat16().contiguous(memory_format=layout).requires_grad_()  # a mean of 3 deviations
    exact = x.detach().double().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = own(x)
    expected = plain(exact)
    assert found.dtype == torch.bfloat16
    assert found.is_contiguous(memory_format=layout)
    torch.testing.assert_close(found.double(), expected, rtol=0.01, atol=0.02)
    gradient = torch.randn_like(found)
    for incoming in (gradient.contiguous(), gradient.contiguous(memory_format=torch.channels_last)):
        (of_own,) = torch.autograd.grad(found, x, incoming, retain_graph=True)
        (of_plain,) = torch.autograd.grad(expected, exact, gradient.double().contiguous(), retain_graph=True)
        assert of_own.dtype == torch.bfloat16
        assert (of_own.double() - of_plain).norm() < 0.01 * of_plain.norm()
        assert (of_own.double() - of_plain).abs().max() < 0.1


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 8), (8, 3), (1, 1), (8, 8)])
@pytest.mark.parametrize(("taps", "size"), [(7, (12, 9)), (4, (5, 8)), (1, (3, 4))])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("batch", [1, 2])
def test_convolutions_of_few_channels_have_the_gradients_of_float64(
    inputs: int, outputs: int, taps: int, size: tuple[int, int], layout: torch.memory_format, batch: int
) -> None:
    x = torch.randn(batch, inputs, *size).bfloat16().contiguous(memory_format=layout).requires_grad_()
    weight = torch.randn(outputs, inputs, taps, taps).bfloat16().float().requires_grad_()
    leaves = (x, weight, torch.randn(outputs).bfloat16().float().requires_grad_())
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    with torch.autocast("cpu", torch.bfloat16):
        found = conv2d(*leaves)
    expected = F.conv2d(*exact)
    assert found.dtype == torch.bfloat16
    assert (found - expected).norm() < 0.01 * expected.norm()
    gradient = torch.randn_like(expected).bfloat16()
    for incoming in (gradient, gradient.contiguous(memory_format=torch.channels_last)):
        own = torch.autograd.grad(found, leaves, incoming, retain_graph=True)
        plain = torch.autograd.grad(expected, exact, gradient.double(), retain_graph=True)
        for got, want in zip(own, plain, strict=True):
            assert got.shape == want.shape
            assert (got - want).norm() < 0.01 * want.norm()
    (only,) = torch.autograd.grad(found, leaves[1], gradient)
    assert torch.equal(only, own[1])


def test_a_block_under_autocast_hands_on_bf16_maps_channels_last() -> None:
    block = ResidualBlock(16).to(memory_format=torch.channels_last)
    x = torch.randn(1, 16, 10, 14).bfloat16().contiguous(memory_format=torch.channels_last)
    types: list[tuple[torch.dtype, bool]] = []
    for layer in block.modules():
        if isinstance(layer, Conv2d):
            layer.register_forward_hook(
                lambda module, given, made: types.append(
                    (given[0].dtype, made.is_contiguous(memory_format=torch.channels_last))
                )
            )
    with torch.autocast("cpu", torch.bfloat16):
        made = block(x)
    assert made.dtype == torch.bfloat16
    assert types == [(torch.bfloat16, True)] * 2


def test_outside_autocast_nothing_is_changed() -> None:
    x = torch.randn(1, 2, 5, 6)
    with own_type(x):
        assert not torch.is_autocast_enabled("cpu")
    with torch.autocast("cpu", torch.bfloat16):
        with own_type(x):
            assert not torch.is_autocast_enabled("cpu")
        assert torch.is_autocast_enabled("cpu")
    assert torch.equal(reflect(x, 2), F.pad(x, (2, 2, 2, 2), mode="reflect"))


@pytest.mark.parametrize("routing", ["cross", "none"])
def test_gradients_of_selected_features_lie_as_the_maps_do(routing: str) -> None:
    """And they are those of the same map in the plain layout."""
    x = torch.randn(2, 8, 6, 5).bfloat16().contiguous(memory_format=torch.channels_last).requires_grad_()
    y = torch.randn(2, 8, 6, 5).bfloat16().contiguous(memory_format=torch.channels_last).requires_grad_()
    found = []
    for source, target in (
        (x, y),
        (x.detach().contiguous().requires_grad_(), y.detach().contiguous().requires_grad_()),
    ):
        selected = query_selected_attention(source, [target], 7, routing=routing)  # type: ignore[arg-type]
        loss = selected.source.float().square().sum() + selected.targets[0].float().sin().sum()
        found.append(torch.autograd.grad(loss, (source, target)))
    for last, plain in zip(*found, strict=True):
        assert last.is_contiguous(memory_format=torch.channels_last)
        assert plain.is_contiguous()
        torch.testing.assert_close(last, plain.contiguous(memory_format=torch.channels_last), rtol=0.02, atol=0.02)
