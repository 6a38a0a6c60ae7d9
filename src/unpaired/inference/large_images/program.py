"""A method's translation as a list of steps, read off the networks themselves by ``torch.export``.

No network is written down a second time: what :meth:`unpaired.methods.Method.translate` computes on a small image is
recorded as a graph, and each operation of the graph must be one of the kinds of
:mod:`unpaired.inference.large_images.steps`. What does not depend on the image (a style, a domain's scales and shifts)
is computed once, right away.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Node

from unpaired.inference.large_images.rearrangements import DepthToSpace, SpaceToDepth
from unpaired.inference.large_images.steps import (
    MAP,
    ChannelNorm,
    Concatenation,
    Convolution,
    Enlargement,
    Norm,
    Pad,
    Pointwise,
    Source,
    Step,
    TransposedConvolution,
)
from unpaired.methods.base import DEFAULT_REQUEST, Method, TranslateRequest

_TRACED = (32, 48)  # any sides that are multiples of 4 would do
_ATEN = torch.ops.aten

_IN_PLACE: dict[Any, Callable[[Tensor], Tensor]] = {_ATEN.relu.default: torch.relu_, _ATEN.tanh.default: torch.tanh_}
_PURE: dict[Any, Any] = {_ATEN.relu_.default: _ATEN.relu.default}
"""What writes over its input, and the same without."""
_POINTWISE = {
    *_IN_PLACE,
    _ATEN.add.Tensor, _ATEN.sub.Tensor, _ATEN.mul.Tensor, _ATEN.div.Tensor, _ATEN.neg.default, _ATEN.addcmul.default,
    _ATEN.lerp.Scalar, _ATEN.lerp.Tensor, _ATEN.leaky_relu.default, _ATEN.sigmoid.default, _ATEN.silu.default,
    _ATEN.clamp.default, _ATEN.hardtanh.default,
}  # fmt: skip
_SAME = {
    _ATEN.alias.default, _ATEN.clone.default, _ATEN.contiguous.default, _ATEN.detach.default, _ATEN.dropout.default,
    _ATEN._to_copy.default, _ATEN.to.dtype, _ATEN.lift_fresh_copy.default,
}  # fmt: skip
_SILENT = {_ATEN._assert_tensor_metadata.default}
_CHANNELS_LAST, _CHANNELS_SECOND = [0, 2, 3, 1], [0, 3, 1, 2]
"""Orders of axes by which a map is turned for a layer norm, and back."""


class UnsuitableNetworkError(Exception):
    """The network does something that cannot be computed in pieces; the message says what."""


@dataclass(frozen=True)
class Program:
    """The steps of a translation.

    Attributes:
        steps: In order; the first is the image, the last the translation.
    """

    steps: tuple[Step, ...]

    def consumers(self, number: int) -> list[int]:
        """The steps that take the output of step ``number``."""
        return [later for later, step in enumerate(self.steps) if number in step.inputs]

    def in_half(self) -> Program:
        """The same steps with convolutions in bf16; what lies between them has the type that they give it."""
        return Program(tuple(step.in_half() for step in self.steps))

    def sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Height and width of every step's output, for an image of this size."""
        found: list[tuple[int, int]] = []
        for step in self.steps:
            found.append(step.size(*(found[step.inputs[0]] if step.inputs else (height, width))))
        return found


class _Translation(nn.Module):
    """``method.translate`` as a function of the image alone, and as a module, which is what can be exported."""

    def __init__(self, method: Method, request: TranslateRequest) -> None:
        super().__init__()
        self.method, self.request = method, request

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return (
            self.method.translate(x_BCHW)
            if self.request is DEFAULT_REQUEST
            else self.method.translate(x_BCHW, self.request)
        )


def trace(method: Method, channels: int, request: TranslateRequest = DEFAULT_REQUEST) -> Program:
    """Record what ``method.translate(x, request)`` does to one image.

    Args:
        method: With its weights, in evaluation mode.
        channels: Of the image.
        request: As for :meth:`unpaired.methods.Method.translate`, of one image.

    Raises:
        UnsuitableNetworkError: It does something that cannot be computed in pieces.
    """
    example = torch.zeros(1, channels, *_TRACED, device=next(method.parameters()).device)
    with torch.no_grad():
        try:
            exported = torch.export.export(_Translation(method, request), (example,), strict=False)
        except Exception as error:  # torch.export has no common class of errors
            reason = str(error).strip().partition("\n")[0]
            raise UnsuitableNetworkError(f"torch.export cannot record it ({reason})") from error
        return _Reader(exported, channels).program()


class _Reader:
    """Turns an exported graph into steps, node by node."""

    def __init__(self, exported: ExportedProgram, channels: int) -> None:
        self._graph = exported.graph
        self._steps: list[Step] = [Source(channels)]
        self._number: dict[Node, int] = {}
        self._turned: dict[Node, int] = {}  # maps as (1, H, W, C)
        self._value: dict[Node, Any] = {}
        signature = exported.graph_signature
        named = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        named |= signature.inputs_to_lifted_tensor_constants
        for node in self._graph.find_nodes(op="placeholder"):
            if node.name in signature.user_inputs:
                self._number[node] = 0
            else:
                key = named[node.name]
                self._value[node] = exported.state_dict.get(key, exported.constants.get(key))

    def program(self) -> Program:
        for node in self._graph.nodes:
            if node.op == "call_function":
                self._read(node)
        results: Any = self._graph.output_node().args[0]
        if self._number.get(results[0]) != len(self._steps) - 1:
            raise UnsuitableNetworkError("its last operation is not its result")
        return Program(tuple(self._steps))

    def _read(self, node: Node) -> None:
        if node.target in _SILENT:
            return
        maps = [each for each in node.all_input_nodes if each in self._number]
        if any(each in self._turned for each in node.all_input_nodes):
            self._read_turned(node)
        elif not maps:
            arguments, options = self._values(node.args), self._values(node.kwargs)
            self._value[node] = node.target(*arguments, **options)  # type: ignore[operator]
        elif node.target in _SAME or (node.target is operator.getitem and node.args[1] == 0):
            self._number[node] = self._number[maps[0]]
        elif node.target is _ATEN.permute.default and node.args[1] == _CHANNELS_LAST:
            self._turned[node] = self._number[maps[0]]
        elif node.target in _POINTWISE or node.target in _PURE:
            self._number[node] = self._pointwise(node)
        elif node.target in _READERS:
            self._number[node] = _READERS[node.target](self, *node.args, **node.kwargs)
        else:
            raise UnsuitableNetworkError(f"'{node.target}' is not known to be computable on some rows of a map")

    def _read_turned(self, node: Node) -> None:
        """What is done to a map whose channels come last: a layer norm over them, and the turn back."""
        x: Any = node.args[0]
        if x in self._turned and node.target is _ATEN.layer_norm.default:
            self._turned[node] = self._channel_norm(self._turned[x], *node.args[1:])
        elif x in self._turned and node.target is _ATEN.permute.default and node.args[1] == _CHANNELS_SECOND:
            self._number[node] = self._turned[x]
        else:
            raise UnsuitableNetworkError(f"'{node.target}' of a map whose channels come last is not known here")

    def _values(self, arguments: Any) -> Any:
        def value(node: Node) -> Any:
            if node not in self._value:
                raise UnsuitableNetworkError(f"'{node}' depends on the image where a constant is needed")
            return self._value[node]

        return torch.fx.node.map_arg(arguments, value)

    def _add(self, step: Step) -> int:
        self._steps.append(step)
        return len(self._steps) - 1

    def _map(self, node: Node) -> tuple[int, int]:
        """Number and channels of a map."""
        if node not in self._number:
            raise UnsuitableNetworkError(f"'{node}' would have to be a map, but does not depend on the image")
        number = self._number[node]
        return number, self._steps[number].channels

    def _pointwise(self, node: Node) -> int:
        maps = [each for each in node.all_input_nodes if each in self._number]
        function = _PURE.get(node.target, node.target)
        if function is not node.target and list(maps[0].users)[-1] is not node:
            raise UnsuitableNetworkError(f"'{node}' writes over a map that is used again")
        shapes = {tuple(each.meta["val"].shape) for each in maps}
        shape = tuple(node.meta["val"].shape)
        arguments, inputs = list[Any](), list[int]()
        for each in node.args:
            if isinstance(each, Node) and each in self._number:
                inputs.append(self._number[each])
                arguments.append(MAP)
            elif isinstance(each, Node):
                value = self._value[each]
                if isinstance(value, Tensor) and any(side > 1 for side in value.shape[-2:]):
                    raise UnsuitableNetworkError(f"'{node}' joins a map with a constant of shape {tuple(value.shape)}")
                arguments.append(value)
            else:
                arguments.append(each)
        if any(each.meta["val"].dtype != torch.float32 for each in (node, *maps)):
            raise UnsuitableNetworkError(f"'{node}' is not in float32")
        if shapes != {shape}:
            raise UnsuitableNetworkError(f"'{node}' joins maps of the shapes {sorted(shapes)}")
        options = self._values(node.kwargs)
        step = Pointwise(
            tuple(inputs),
            shape[1],
            function,
            tuple(arguments),
            options,
            _IN_PLACE.get(function),
        )
        return self._add(step)

    def _pad(self, x: Node, pad: list[int], mode: str = "constant", value: float | None = None) -> int:
        number, channels = self._map(x)
        if len(pad) > 4 or min(pad) < 0 or mode not in ("constant", "reflect", "replicate"):
            raise UnsuitableNetworkError(f"padding by {pad} ({mode}) is not known here")
        if not any(pad):
            return number
        left, right, top, bottom = [*pad, 0, 0][:4]
        return self._add(Pad((number,), channels, mode, left, right, top, bottom, value or 0.0))

    def _convolution(
        self,
        x: Node,
        weight: Node,
        bias: Node | None = None,
        stride: Any = (1, 1),
        padding: Any = (0, 0),
        dilation: Any = (1, 1),
        groups: int = 1,
    ) -> int:
        number, channels = self._map(x)
        kernel = self._values(weight)
        down, right = _pair(padding)
        if down or right:
            number = self._add(Pad((number,), channels, "constant", right, right, down, down))
        step = Convolution((number,), len(kernel), kernel, self._values(bias), _pair(stride), _pair(dilation), groups)
        return self._add(step)

    def _transposed(
        self,
        x: Node,
        weight: Node,
        bias: Node | None = None,
        stride: Any = (1, 1),
        padding: Any = (0, 0),
        output_padding: Any = (0, 0),
        groups: int = 1,
        dilation: Any = (1, 1),
    ) -> int:
        number, _ = self._map(x)
        kernel = self._values(weight)
        if _pair(dilation) != (1, 1):
            raise UnsuitableNetworkError("a transposed convolution with dilation is not known here")
        step = TransposedConvolution(
            (number,), kernel.shape[1] * groups, kernel, self._values(bias),
            _pair(stride), _pair(padding), _pair(output_padding), groups,
        )  # fmt: skip
        return self._add(step)

    def _norm(
        self, x: Node, groups: int, weight: Node | None = None, bias: Node | None = None, eps: float = 1e-5, *_: Any
    ) -> int:
        number, channels = self._map(x)
        return self._add(Norm((number,), channels, groups, self._values(weight), self._values(bias), eps))

    def _channel_norm(
        self, number: int, shape: Any, weight: Any = None, bias: Any = None, eps: Any = 1e-5, *_: Any
    ) -> int:
        channels = self._steps[number].channels
        if shape != [channels]:
            raise UnsuitableNetworkError(f"a layer norm over {shape} sees more than the channels of a pixel")
        return self._add(ChannelNorm((number,), channels, self._values(weight), self._values(bias), eps))

    def _concatenation(self, maps: list[Node], dim: int = 0) -> int:
        if dim not in (1, -3):
            raise UnsuitableNetworkError(f"joining maps along axis {dim} is not known here")
        numbers = [self._map(each) for each in maps]
        return self._add(Concatenation(tuple(number for number, _ in numbers), sum(each for _, each in numbers)))

    def _space_to_depth(self, x: Node, factor: int) -> int:
        number, channels = self._map(x)
        return self._add(SpaceToDepth((number,), channels * factor**2, factor))

    def _depth_to_space(self, x: Node, factor: int) -> int:
        number, channels = self._map(x)
        return self._add(DepthToSpace((number,), channels // factor**2, factor))

    def _nearest(self, x: Node, output_size: Any, scale_factors: Any = None) -> int:
        return self._enlarge("nearest", x, output_size, scale_factors)

    def _bilinear(self, x: Node, output_size: Any, align_corners: bool, scale_factors: Any = None) -> int:
        if align_corners:
            raise UnsuitableNetworkError("interpolation with aligned corners depends on the size of the image")
        return self._enlarge("bilinear", x, output_size, scale_factors)

    def _enlarge(self, mode: Any, x: Node, output_size: Any, scale_factors: Any) -> int:
        number, channels = self._map(x)
        if output_size is not None or any(factor != int(factor) for factor in scale_factors):
            raise UnsuitableNetworkError(f"resizing to {output_size} or by {scale_factors} is no whole enlargement")
        return self._add(Enlargement((number,), channels, mode, (int(scale_factors[0]), int(scale_factors[1]))))


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, str):
        raise UnsuitableNetworkError(f"padding '{value}' is not known here")
    both = [value] * 2 if isinstance(value, int) else list(value) * (2 if len(value) == 1 else 1)
    return both[0], both[1]


_READERS: dict[Any, Callable[..., int]] = {
    _ATEN.pad.default: _Reader._pad,
    _ATEN.conv2d.default: _Reader._convolution,
    _ATEN.conv_transpose2d.input: _Reader._transposed,
    _ATEN.group_norm.default: _Reader._norm,
    _ATEN.cat.default: _Reader._concatenation,
    _ATEN.pixel_unshuffle.default: _Reader._space_to_depth,
    _ATEN.pixel_shuffle.default: _Reader._depth_to_space,
    _ATEN.upsample_nearest2d.vec: _Reader._nearest,
    _ATEN.upsample_bilinear2d.vec: _Reader._bilinear,
}
