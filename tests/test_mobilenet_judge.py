"""The offline judge beside the benchmarks equals its TensorFlow graph, and is a scoring network once registered."""

from __future__ import annotations

import importlib.util
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unpaired.errors import BackendError
from unpaired.evaluation import METRICS, ScoringNetworks
from unpaired.networks.pretrained import PRETRAINED

FILE = Path(__file__).parents[1] / "benchmarks" / "mobilenet_judge.py"


@pytest.fixture(scope="module")
def judge() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mobilenet_judge", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mobilenet_judge"] = module
    spec.loader.exec_module(module)
    return module


def convolve_same(x: Tensor, weight: Tensor, stride: int, groups: int = 1) -> Tensor:
    """TensorFlow's definition: total = (ceil(n / stride) - 1) stride + taps - n, half of it, rounded down, in front."""
    taps, borders = weight.shape[-1], []
    for size in (x.shape[3], x.shape[2]):
        total = max((-(-size // stride) - 1) * stride + taps - size, 0)
        borders += [total // 2, total - total // 2]
    return F.conv2d(F.pad(x, borders), weight, stride=stride, groups=groups)


def frozen_graph(path: Path, **changes: Tensor | None) -> dict[str, Tensor]:
    """Write a frozen MobileNet-v1 with random weights as TensorFlow would; return its constants."""
    from tensorboard.compat.proto import graph_pb2

    generator = torch.Generator().manual_seed(5)
    widths = [32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024]
    constants: dict[str, Tensor] = {}

    def layer(name: str, kind: str, shape: tuple[int, ...], fan: int, channels: int) -> None:
        constants[f"MobilenetV1/{name}/{kind}"] = torch.randn(shape, generator=generator) * (3 / fan) ** 0.5
        for part, low, high in (
            ("gamma", 0.8, 1.2),
            ("beta", -0.1, 0.6),
            ("moving_mean", -0.2, 0.2),
            ("moving_variance", 0.5, 1.5),
        ):
            value = low + (high - low) * torch.rand(channels, generator=generator)
            constants[f"MobilenetV1/{name}/BatchNorm/{part}"] = value
        constants[f"MobilenetV1/MobilenetV1/{name}/BatchNorm/batchnorm/add/y"] = torch.tensor(0.001)

    layer("Conv2d_0", "weights", (3, 3, 3, 32), 27, 32)
    for number, (inputs, outputs) in enumerate(pairwise(widths), start=1):
        layer(f"Conv2d_{number}_depthwise", "depthwise_weights", (3, 3, inputs, 1), 9, inputs)
        layer(f"Conv2d_{number}_pointwise", "weights", (1, 1, inputs, outputs), inputs, outputs)
    constants["MobilenetV1/Logits/Conv2d_1c_1x1/weights"] = torch.randn(1, 1, 1024, 1001, generator=generator) / 32
    constants["MobilenetV1/Logits/Conv2d_1c_1x1/biases"] = torch.randn(1001, generator=generator)
    constants.update({name: value for name, value in changes.items() if value is not None})
    graph = graph_pb2.GraphDef()
    for name, value in constants.items():
        if name in changes and changes[name] is None:
            continue
        node = graph.node.add(name=name, op="Const")
        tensor: Any = node.attr["value"].tensor
        tensor.dtype = 1
        for size in value.shape:
            tensor.tensor_shape.dim.add(size=size)
        if value.ndim:
            tensor.tensor_content = value.contiguous().numpy().astype("<f4").tobytes()
        else:
            tensor.float_val.append(float(value))
    path.write_bytes(graph.SerializeToString())
    return constants


def test_it_equals_the_frozen_graph_to_1e_5(judge: ModuleType, tmp_path: Path) -> None:
    constants = {name: x.double() for name, x in frozen_graph(tmp_path / "g.pb").items()}
    network = judge.load(tmp_path / "g.pb")
    images = torch.rand(2, 3, 224, 224) * 2 - 1

    def norm(x: Tensor, name: str) -> Tensor:
        gamma, beta, mean, variance = (
            constants[f"MobilenetV1/{name}/BatchNorm/{part}"].view(1, -1, 1, 1)
            for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return F.relu6((x - mean) / (variance + 0.001).sqrt() * gamma + beta)

    x = convolve_same(images.double(), constants["MobilenetV1/Conv2d_0/weights"].permute(3, 2, 0, 1), 2)
    x = norm(x, "Conv2d_0")
    for number, stride in enumerate((1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1), start=1):
        weight = constants[f"MobilenetV1/Conv2d_{number}_depthwise/depthwise_weights"].permute(2, 3, 0, 1)
        x = norm(convolve_same(x, weight, stride, groups=len(weight)), f"Conv2d_{number}_depthwise")
        weight = constants[f"MobilenetV1/Conv2d_{number}_pointwise/weights"].permute(3, 2, 0, 1)
        x = norm(F.conv2d(x, weight), f"Conv2d_{number}_pointwise")
    features = x.mean((2, 3))
    logits = features @ constants["MobilenetV1/Logits/Conv2d_1c_1x1/weights"][0, 0]
    logits = logits + constants["MobilenetV1/Logits/Conv2d_1c_1x1/biases"]
    with torch.no_grad():
        found = network(images), network.logits(images)
    assert [x.shape for x in found] == [(2, 1024), (2, 1001)]
    assert features.std() > 1e-3, "a reference that is all zeros or saturated proves nothing"
    for value, reference in zip(found, (features, logits), strict=True):
        assert (value - reference).norm() < 1e-5 * reference.norm()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("MobilenetV1/Conv2d_3_pointwise/weights", None, "no constant 'MobilenetV1/Conv2d_3_pointwise/weights'"),
        ("MobilenetV1/Conv2d_0/BatchNorm/beta", torch.zeros(31), r"beta' of the size \(32,\)"),
        ("MobilenetV1/Conv2d_0/BatchNorm/beta", torch.full((32,), float("inf")), "'.*beta' is damaged"),
    ],
)
def test_another_graph_is_one_clear_error(
    judge: ModuleType, name: str, value: Tensor | None, words: str, tmp_path: Path
) -> None:
    frozen_graph(tmp_path / "g.pb", **{name: value})
    with pytest.raises(BackendError, match=rf"g\.pb: not the weights of MobileNet-v1.*{words}.*nudity==0\.2\.3"):
        judge.load(tmp_path / "g.pb")
    whole = (tmp_path / "g.pb").read_bytes()
    (tmp_path / "g.pb").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BackendError, match="cannot be read as a TensorFlow graph"):
        judge.load(tmp_path / "g.pb")


def test_it_is_found_by_name_once_registered(
    judge: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen_graph(tmp_path / "g.pb")
    monkeypatch.setenv("UNPAIRED_MOBILENET", str(tmp_path / "g.pb"))
    try:
        judge.register()
        networks = ScoringNetworks()
        calls = networks.callables(["kid_mobilenet_x1e3"])
        assert calls["mobilenet"](torch.zeros(1, 3, 32, 32)).shape == (1, 1024)
        assert METRICS["kid_mobilenet_x1e3"].label == "KID (MobileNet)"
        assert networks.used()["mobilenet"]["title"] == "MobileNet-v1, ImageNet"
    finally:
        PRETRAINED.pop("mobilenet", None)
        METRICS.pop("kid_mobilenet_x1e3", None)
