"""A method's translation as a list of steps, read off the networks by ``torch.export``.

What :meth:`unpaired.methods.Method.translate` computes on a small image is recorded as a graph, and every operation of
the graph must be one that can be computed on some rows of a map. What does not depend on the image (a style, a domain's
scales and shifts) is computed at once.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.utils._pytree import tree_leaves

from unpaired.inference.large_images.steps import Convolution, Norm, Padding, Step
from unpaired.methods.base import DEFAULT_REQUEST, Method, TranslateRequest
from unpaired.ops.winograd import conv2d

_TRACED = (32, 48)  # any sides that are multiples of 4 would do
_WINOGRAD_CHANNELS = 60.0  # inputs * outputs / (inputs + outputs) from which the algorithm pays (ops/winograd.py)
_ATEN = torch.ops.aten

_IN_PLACE: dict[Any, Callable[[Tensor], Tensor]] = {_ATEN.relu.default: torch.relu_, _ATEN.tanh.default: torch.tanh_}
_POINTWISE = {
    *_IN_PLACE,
    _ATEN.add.Tensor, _ATEN.sub.Tensor, _ATEN.mul.Tensor, _ATEN.div.Tensor, _ATEN.neg.default, _ATEN.addcmul.default,
    _ATEN.lerp.Scalar, _ATEN.lerp.Tensor, _ATEN.leaky_relu.default, _ATEN.sigmoid.default, _ATEN.silu.default,
    _ATEN.clamp.default, _ATEN.hardtanh.default, _ATEN.relu_.default,
}  # fmt: skip
_SAME = {
    _ATEN.alias.default, _ATEN.clone.default, _ATEN.contiguous.default, _ATEN.detach.default, _ATEN.dropout.default,
    _ATEN._to_copy.default, _ATEN.to.dtype, _ATEN.lift_fresh_copy.default, _ATEN._assert_tensor_metadata.default,
}  # fmt: skip


class UnsuitableNetworkError(Exception):
    """The network does something that cannot be computed in pieces; the message says what."""


@dataclass(frozen=True)
class Program:
    """The steps of a translation.

    Attributes:
        steps: In order; the first is the image, the last the translation.
    """

    steps: tuple[Step, ...]
    _sizes: dict[tuple[int, int], list[tuple[int, int]]] = field(default_factory=dict, repr=False, compare=False)

    def in_half(self) -> Program:
        """The same steps with convolutions in bf16; what lies between them has the type that they give it."""
        return Program(tuple(step.in_half() for step in self.steps))

    def sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Height and width of every step's output, for an image of this size."""
        found = self._sizes.setdefault((height, width), [(height, width)])
        for step in self.steps[len(found) :]:
            found.append(step.size(self.steps[step.inputs[0]].channels, *found[step.inputs[0]]))
        return found


class _Translation(nn.Module):
    """``method.translate`` as a module, which is what can be exported."""

    def __init__(self, method: Method, request: TranslateRequest) -> None:
        super().__init__()
        self.method, self.request = method, request

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.method.translate(x_BCHW, *([] if self.request is DEFAULT_REQUEST else [self.request]))


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


@dataclass(frozen=True)
class _Map:
    """What stands for a map while a graph is read: the output of a step, perhaps padded, or with its channels last."""

    number: int
    padding: Padding | None = None
    channels_last: bool = False


class _Reader(fx.Interpreter):
    """Runs an exported graph: operations on maps become steps, all others are computed."""

    def __init__(self, exported: ExportedProgram, channels: int) -> None:
        super().__init__(exported.graph_module)
        self.extra_traceback = False
        self._exported = exported
        self._steps = [Step((), channels)]

    def program(self) -> Program:
        signature = self._exported.graph_signature
        named = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        named |= signature.inputs_to_lifted_tensor_constants
        known = {**self._exported.state_dict, **self._exported.constants}
        names = [node.name for node in self._exported.graph.find_nodes(op="placeholder")]
        results = self.run(*(_Map(0) if name in signature.user_inputs else known[named[name]] for name in names))
        if results[0] != _Map(len(self._steps) - 1):
            raise UnsuitableNetworkError("its last operation is not its result")
        return Program(tuple(self._steps))

    def run_node(self, n: fx.Node) -> Any:
        self._node = n
        return super().run_node(n)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        maps = [each for each in tree_leaves([args, kwargs]) if isinstance(each, _Map)]
        if not maps:
            return super().call_function(target, args, kwargs)
        if maps[0].channels_last or (target is _ATEN.permute.default and args[1] == [0, 2, 3, 1]):
            return self._channels_last(target, args)
        if target in _SAME or (target is operator.getitem and args[1] == 0):
            return maps[0]
        if target in _POINTWISE:
            return self._pointwise(target, args, kwargs)
        if target in _READERS:
            if any(isinstance(each, _Map) for each in tree_leaves([args[1:], kwargs])):
                raise UnsuitableNetworkError(f"'{self._node}' depends on the image where a constant is needed")
            return _READERS[target](self, *args, **kwargs)
        raise UnsuitableNetworkError(f"'{target}' is not known to be computable on some rows of a map")

    def _add(self, step: Step) -> _Map:
        self._steps.append(step)
        return _Map(len(self._steps) - 1)

    def _plain(self, x: Any) -> tuple[int, int]:
        """Number and channels of a map, whose padding becomes a step of its own."""
        if not isinstance(x, _Map):
            raise UnsuitableNetworkError(f"'{self._node}' joins maps with what does not depend on the image")
        channels = self._steps[x.number].channels
        if x.padding is not None:
            x = self._add(Step((x.number,), channels, lambda part: part, padding=x.padding, padded_channels=channels))
        return x.number, channels

    def _channels_last(self, target: Any, args: Any) -> _Map:
        """A layer norm over the channels of each pixel, between two permutations."""
        x, number, channels = args[0], *self._plain(args[0])
        if target is _ATEN.permute.default and args[1] == ([0, 3, 1, 2] if x.channels_last else [0, 2, 3, 1]):
            return _Map(number, channels_last=not x.channels_last)
        if target is not _ATEN.layer_norm.default:
            raise UnsuitableNetworkError(f"'{target}' of a map whose channels come last is not known here")
        if args[1] != [channels]:
            raise UnsuitableNetworkError(f"a layer norm over {args[1]} sees more than the channels of a pixel")
        norm = partial(_norm_of_pixels, options=args[1:5])
        return replace(self._add(Step((number,), channels, norm, scratch=(1, 0))), channels_last=True)

    def _pointwise(self, target: Any, args: Any, kwargs: Any) -> _Map:
        nodes = [node for node in self._node.all_input_nodes if isinstance(self.env[node], _Map)]
        if target is _ATEN.relu_.default:
            target = _ATEN.relu.default
            if list(nodes[0].users)[-1] is not self._node:
                raise UnsuitableNetworkError(f"'{self._node}' writes over a map that is used again")
        for value in args:
            if isinstance(value, Tensor) and any(side > 1 for side in value.shape[-2:]):
                raise UnsuitableNetworkError(
                    f"'{self._node}' joins a map with a constant of shape {tuple(value.shape)}"
                )
        made = self._node.meta["val"]
        if any(node.meta["val"].dtype != torch.float32 for node in (self._node, *nodes)):
            raise UnsuitableNetworkError(f"'{self._node}' is not in float32")
        if (shapes := {tuple(node.meta["val"].shape) for node in nodes}) != {tuple(made.shape)}:
            raise UnsuitableNetworkError(f"'{self._node}' joins maps of the shapes {sorted(shapes)}")

        def function(*parts: Tensor) -> Tensor:
            rest = iter(parts)
            return target(*(next(rest) if isinstance(each, _Map) else each for each in args), **kwargs)

        inputs = tuple(self._plain(each)[0] for each in args if isinstance(each, _Map))
        return self._add(Step(inputs, made.shape[1], function, _IN_PLACE.get(target)))

    def _pad(self, x: _Map, pad: list[int], mode: str = "constant", value: float | None = None) -> _Map:
        if len(pad) > 4 or min(pad) < 0 or mode not in ("constant", "reflect", "replicate"):
            raise UnsuitableNetworkError(f"padding by {pad} ({mode}) is not known here")
        left, right, top, bottom = [*pad, 0, 0][:4]
        return _Map(self._plain(x)[0], Padding(mode, left, right, top, bottom, value or 0.0)) if any(pad) else x

    def _convolution(
        self, x: _Map, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
        groups: int = 1,
    ) -> _Map:  # fmt: skip
        stride, dilation, (down, right) = _pair(stride), _pair(dilation), _pair(padding)
        if down or right:
            x = self._pad(x, [right, right, down, down])
        channels = self._steps[x.number].channels
        outputs, inputs, taps, columns = weight.shape
        plain = groups == 1 and taps == columns and stride == dilation == (1, 1)
        return self._add(Convolution(
            (x.number,), outputs,
            conv2d if plain else partial(F.conv2d, stride=stride, dilation=dilation, groups=groups),
            down=stride[0], high=dilation[0] * (taps - 1), padding=x.padding,
            padded_channels=channels if x.padding else 0,
            scratch=(1 + channels * stride[0] * stride[1] / outputs, 0),  # the library reorders both maps by channels
            weight=weight, bias=bias,
            tiled=plain and taps in (3, 4) and inputs * outputs >= _WINOGRAD_CHANNELS * (inputs + outputs),
        ))  # fmt: skip

    def _transposed(
        self, x: _Map, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
        output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
    ) -> _Map:  # fmt: skip
        number, _ = self._plain(x)
        if _pair(dilation) != (1, 1):
            raise UnsuitableNetworkError("a transposed convolution with dilation is not known here")
        (up, right), (crop, columns), taps = _pair(stride), _pair(padding), weight.shape[2]
        function = partial(F.conv_transpose2d, stride=(up, right), padding=(0, columns),
                           output_padding=_pair(output_padding), groups=groups)  # fmt: skip
        return self._add(Convolution(
            (number,), weight.shape[1] * groups, function, up=up, low=crop - taps + up, high=crop, crop=crop,
            scratch=(2, 0), weight=weight, bias=bias, area=up * right,
        ))  # fmt: skip

    def _norm(
        self, x: _Map, groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5, *_: Any
    ) -> _Map:
        number, channels = self._plain(x)
        return self._add(Norm((number,), channels, groups=groups, weight=weight, bias=bias, eps=eps))

    def _concatenation(self, maps: list[_Map], dim: int = 0) -> _Map:
        if dim not in (1, -3):
            raise UnsuitableNetworkError(f"joining maps along axis {dim} is not known here")
        numbers, channels = zip(*map(self._plain, maps), strict=True)
        return self._add(Step(numbers, sum(channels), lambda *parts: torch.cat(parts, 1)))

    def _space_to_depth(self, x: _Map, factor: int) -> _Map:
        number, channels = self._plain(x)
        function = partial(F.pixel_unshuffle, downscale_factor=factor)
        return self._add(Step((number,), channels * factor**2, function, down=factor, high=factor - 1))

    def _depth_to_space(self, x: _Map, factor: int) -> _Map:
        number, channels = self._plain(x)
        function, made = partial(F.pixel_shuffle, upscale_factor=factor), channels // factor**2
        return self._add(Step((number,), made, function, up=factor, scratch=(0, 2 * made * (factor - 1))))

    def _nearest(self, x: _Map, output_size: Any, scale_factors: Any = None) -> _Map:
        return self._enlarge(x, output_size, scale_factors, mode="nearest")

    def _bilinear(self, x: _Map, output_size: Any, align_corners: bool, scale_factors: Any = None) -> _Map:
        if align_corners:
            raise UnsuitableNetworkError("interpolation with aligned corners depends on the size of the image")
        return self._enlarge(x, output_size, scale_factors, mode="bilinear", align_corners=False)

    def _enlarge(self, x: _Map, output_size: Any, factors: Any, **how: Any) -> _Map:
        number, channels = self._plain(x)
        if output_size is not None or any(factor != int(factor) for factor in factors):
            raise UnsuitableNetworkError(f"resizing to {output_size} or by {factors} is not a whole-number enlargement")
        f = int(factors[0])
        # Row r lies at (r + 1/2) / f - 1/2 of the input, between two of its rows.
        up, down, low, high = (f, 1, 0, 0) if how["mode"] == "nearest" else (2 * f, 2, 1 - f, 1 + f)
        function = partial(F.interpolate, scale_factor=tuple(map(float, factors)), **how)
        scratch = 0, 4 * channels
        return self._add(Step((number,), channels, function, up=up, down=down, low=low, high=high, scratch=scratch))


def _norm_of_pixels(rows_1CHW: Tensor, options: Any) -> Tensor:
    return F.layer_norm(rows_1CHW.permute(0, 2, 3, 1), *options).permute(0, 3, 1, 2)


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, str):
        raise UnsuitableNetworkError(f"padding '{value}' is not known here")
    both = [value] * 2 if isinstance(value, int) else list(value) * (2 if len(value) == 1 else 1)
    return both[0], both[1]


_READERS: dict[Any, Callable[..., _Map]] = {
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
