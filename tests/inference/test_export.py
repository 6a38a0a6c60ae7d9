"""Exported generators compute what PyTorch computes, for every method, at sizes they were not recorded with."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tiny import tiny_settings
from unpaired.data import PixelFormat
from unpaired.errors import BackendError, CheckpointError, ConfigError, DataError
from unpaired.inference.export import OnnxGenerator, write, write_generator
from unpaired.inference.export.exported import ExportedGenerator, on_any_sides
from unpaired.inference.export.write import TOLERANCE
from unpaired.methods import METHODS, Method, TranslateRequest

onnxruntime = pytest.importorskip("onnxruntime")
RGB, GRAY = PixelFormat(3), PixelFormat(1)


def method_of(name: str, *, channels: int = 3, **settings: Any) -> Method:
    """Tiny networks whose outputs use their range: initial ones hardly change an image."""
    torch.manual_seed(0)
    method = METHODS[name](METHODS[name].Config(**{**tiny_settings(name), **settings}), channels=channels).eval()
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return method


def description_of(name: str, **more: Any) -> dict[str, Any]:
    return {"method": name, "channels": 3, "image_size": 32, "background": [255, 255, 255], "model": {}, **more}


def session_run(path: Path, **inputs: Tensor) -> Tensor:
    """As somebody does it who has onnxruntime and nothing else."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {name: value.numpy() for name, value in inputs.items()})[0])


def ways() -> list[tuple[str, bool]]:
    return [
        (name, way) for name, row in METHODS.items() for way in (False, True) if not way or "reverse" in row.supports
    ]


_WRITTEN: dict[str, Path] = {}
"""Graph of a recorded generator -> its file: methods that share a generator need not be converted again."""


@pytest.mark.parametrize(("name", "reverse"), ways())
def test_every_generator_exports(name: str, reverse: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    method = method_of(name)
    generator = ExportedGenerator(method, (RGB, RGB), 3, reverse=reverse, domain=1 if method.domains else None)
    graph = generator.record().graph_module.code
    if graph not in _WRITTEN:
        path = tmp_path_factory.mktemp("onnx") / "model.onnx"
        done = write_generator(
            method_of(name), description_of(name), (RGB, RGB), path, TranslateRequest(reverse=reverse)
        )
        assert 0 < done.difference <= TOLERANCE
        _WRITTEN[graph] = path
    session = onnxruntime.InferenceSession(str(_WRITTEN[graph]), providers=["CPUExecutionProvider"])
    image = session.get_inputs()[0]
    assert (image.name, image.shape) == ("image", ["batch", 3, "height", "width"])
    assert [each.shape for each in session.get_outputs()] == [["batch", 3, "height", "width"]]


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 29, 70), (1, 130, 17)])
def test_sizes_that_nobody_checked(shape: tuple[int, int, int], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Also the bytes are used by a session of its own, so the file itself is right."""
    path = tmp_path_factory.getbasetemp() / "sizes.onnx"
    if not path.exists():
        write_generator(method_of("cut"), description_of("cut"), (RGB, RGB), path)
    batch, height, width = shape
    image = torch.rand(batch, 3, height, width) * 2 - 1
    wanted = on_any_sides(method_of("cut").translate, image)
    made = session_run(path, image=image)
    assert made.shape == image.shape
    torch.testing.assert_close(made, wanted, rtol=0, atol=TOLERANCE)
    assert float(wanted.detach().std()) > 0.1, "a network that says nothing would agree with anything"


@pytest.mark.parametrize(("channels", "target"), [(3, "cpu"), (1, "any"), (4, "any")])
def test_the_light_generator_at_sizes_that_nobody_checked(channels: int, target: Any, tmp_path: Path) -> None:
    """Wide enough for products of matrices in its blocks; no side is the one that it was recorded with."""
    onnx = pytest.importorskip("onnx")
    method, path, pixels = light_method(channels), tmp_path / "model.onnx", PixelFormat(channels)
    about = description_of("cut", channels=channels)
    done = write_generator(light_method(channels), about, (pixels, pixels), path, target=target)
    assert done.difference <= TOLERANCE
    kinds = {node.op_type for node in onnx.load(path).graph.node}
    assert ("MatMul" in kinds) == (target == "cpu")
    for batch, height, width in ((1, 16, 16), (3, 29, 70), (1, 130, 17), (2, 64, 64), (1, 63, 85)):
        image = torch.rand(batch, channels, height, width) * 2 - 1
        wanted = on_any_sides(method.translate, image).detach()
        assert float((wanted - image).std()) > 0.1, "at its start it is the identity"
        torch.testing.assert_close(session_run(path, image=image), wanted, rtol=0, atol=TOLERANCE)


def light_method(channels: int) -> Method:
    kind = "light_smooth" if channels == 4 else "light"
    return method_of("cut", channels=channels, generator=kind, base_channels=32, blocks=1, taps=("down1", "block1"))


def test_a_program_of_torch_of_the_light_generator(tmp_path: Path) -> None:
    method, path = light_method(3), tmp_path / "model.pt2"
    assert write_generator(method, description_of("cut"), (RGB, RGB), path, format="torch").difference <= TOLERANCE
    program = torch.export.load(path).module()
    for shape in ((3, 3, 28, 40), (1, 3, 16, 132)):
        image = torch.rand(shape) * 2 - 1
        torch.testing.assert_close(program(image), method.translate(image), rtol=0, atol=TOLERANCE)


def test_channels_of_both_domains_are_those_of_the_file(tmp_path: Path) -> None:
    """One channel in, three out: repeating and averaging lie inside the file."""
    method, image = method_of("cyclegan"), torch.rand(1, 3, 24, 20) * 2 - 1
    write_generator(method, description_of("cyclegan"), (GRAY, RGB), tmp_path / "a.onnx")
    made = session_run(tmp_path / "a.onnx", image=image[:, :1])
    torch.testing.assert_close(made, method.translate(image[:, :1].expand(-1, 3, -1, -1)), rtol=0, atol=TOLERANCE)
    write_generator(
        method, description_of("cyclegan"), (GRAY, RGB), tmp_path / "b.onnx", TranslateRequest(reverse=True)
    )
    made = session_run(tmp_path / "b.onnx", image=image)
    wanted = method.translate(image, TranslateRequest(reverse=True)).mean(1, keepdim=True)
    torch.testing.assert_close(made, wanted, rtol=0, atol=TOLERANCE)


def test_a_domain_is_the_one_that_was_asked_for(tmp_path: Path) -> None:
    method, image = method_of("multi_domain_qs_attn"), torch.rand(1, 3, 20, 16) * 2 - 1
    name = "multi_domain_qs_attn"
    write_generator(method, description_of(name), (RGB, RGB), tmp_path / "c.onnx", TranslateRequest(domain=2))
    made = session_run(tmp_path / "c.onnx", image=image)
    torch.testing.assert_close(made, method.translate(image, TranslateRequest(domain=2)), rtol=0, atol=TOLERANCE)
    assert float((made - method.translate(image, TranslateRequest(domain=0)).detach()).abs().max()) > 100 * TOLERANCE


@pytest.mark.parametrize("target", ["cpu", "any"])
def test_wide_convolutions_are_products_where_the_cpu_is_the_target(target: Any, tmp_path: Path) -> None:
    """128 channels in the residual blocks; at 4 there is nothing to gain and all graphs are plain."""
    torch.manual_seed(0)
    wider = {"base_channels": 32, "blocks": 2, "taps": ("padded_input", "block1")}
    config = METHODS["cut"].Config(**tiny_settings("cut") | wider)
    method, path = METHODS["cut"](config, channels=3).eval(), tmp_path / "model.onnx"
    with torch.no_grad():
        for parameter in method.generator.parameters():
            parameter.mul_(10)
    done = write_generator(method, description_of("cut"), (RGB, RGB), path, target=target)
    assert done.difference <= TOLERANCE
    onnx = pytest.importorskip("onnx")
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    products = 3 * 2 * config.blocks  # the filters' transform, the sums over channels, the outputs' transform
    assert kinds.count("MatMul") == (0 if target == "any" else products)
    image = torch.rand(2, 3, 45, 66) * 2 - 1
    wanted = on_any_sides(method.translate, image).detach()
    assert float(wanted.std()) > 0.1
    torch.testing.assert_close(session_run(path, image=image), wanted, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", ["qs_attn", "munit"])
def test_a_program_of_torch(name: str, tmp_path: Path) -> None:
    method, path = method_of(name), tmp_path / "model.pt2"
    done = write_generator(
        method, description_of(name), (RGB, RGB), path, format="torch", facts={"data_licence": "CC0"}
    )
    assert done.difference <= TOLERANCE
    extra = {"unpaired_facts.json": ""}
    program = torch.export.load(path, extra_files=extra)
    facts = json.loads(extra["unpaired_facts.json"])
    assert (facts["method"], facts["data_licence"]) == (name, "CC0")
    image = torch.rand(3, 3, 28, 40) * 2 - 1
    style = () if name == "qs_attn" else (torch.zeros(1, method.style_channels),)
    made = program.module()(image, *style)
    wanted = method.translate(image, TranslateRequest(style=style[0] if style else None))
    torch.testing.assert_close(made, wanted, rtol=0, atol=TOLERANCE)
    kept = {key.split(".")[1] for key in program.state_dict}
    assert kept == ({"generator"} if name == "qs_attn" else {"content_encoder_a", "decoder_b"})


def test_weights_of_half_the_size(tmp_path: Path) -> None:
    method, done = method_of("cut"), {}
    for precision in ("float32", "float16"):
        path = tmp_path / f"{precision}.onnx"
        done[precision] = write_generator(method, description_of("cut"), (RGB, RGB), path, precision=precision)
    assert done["float32"].rounding == 0 < done["float16"].rounding < 0.05
    sizes = [done[precision].path.stat().st_size for precision in ("float16", "float32")]
    weights = sum(weight.numel() for weight in method.generator.parameters() if weight.ndim > 1)
    assert sizes[1] - sizes[0] > 1.8 * weights
    image = torch.rand(1, 3, 32, 32) * 2 - 1
    difference = (session_run(done["float16"].path, image=image) - method.translate(image)).abs().max().detach()
    assert 0 < float(difference) < 2 * done["float16"].rounding + TOLERANCE
    with pytest.raises(ConfigError, match="float16"):
        write_generator(
            method, description_of("cut"), (RGB, RGB), tmp_path / "x.pt2", format="torch", precision="float16"
        )


def test_only_what_float16_holds_exactly_is_stored_in_it() -> None:
    """The transforms of products are not weights: rounding them would change what is computed."""
    onnx = pytest.importorskip("onnx")
    arrays = {"weight": [[0.5, -2.0]], "transform": [[1 / 3, 1.0]], "bias": [0.5], "large": [[1e9, 1.0]]}
    made = [onnx.numpy_helper.from_array(np.array(value, np.float32), name) for name, value in arrays.items()]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["weight"], ["y"])], "graph", [], [], made)
    write._halve(graph)
    assert [each.name for each in graph.initializer] == ["weight_float16", "transform", "bias", "large"]
    assert [(node.op_type, *node.output) for node in graph.node] == [("Cast", "weight"), ("Relu", "y")]


def test_a_file_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"an earlier file")
    monkeypatch.setattr(write, "TOLERANCE", 1e-12)
    with pytest.raises(CheckpointError, match=r"model\.onnx was not written.*differs"):
        write_generator(method_of("cut"), description_of("cut"), (RGB, RGB), path)
    assert path.read_bytes() == b"an earlier file"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"no model", bytes(1000)])
def test_a_damaged_file_is_named_in_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"broken\.onnx") as caught:
        OnnxGenerator(path)
    assert "\n" not in str(caught.value)


def test_a_foreign_model_is_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper, tensor = onnx.helper, onnx.TensorProto
    ends = [helper.make_tensor_value_info(name, tensor.FLOAT, [1]) for name in ("image", "translation")]
    graph = helper.make_graph([helper.make_node("Relu", ["image"], ["translation"])], "other", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(CheckpointError, match="not one of this version's 'unpaired export'"):
        OnnxGenerator(tmp_path / "other.onnx")
    with pytest.raises(CheckpointError, match=r"missing\.onnx"):
        OnnxGenerator(tmp_path / "missing.onnx")


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_says_how_to_get_it(missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(BackendError, match=r"unpaired\[onnx\]"):
        write_generator(method_of("cut"), description_of("cut"), (RGB, RGB), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_more_than_the_memory_allows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    write_generator(method_of("cut"), description_of("cut"), (RGB, RGB), path)
    generator = OnnxGenerator(path)
    image = torch.rand(1, 3, 16, 20) * 2 - 1
    assert generator.translate_within(image, 2**40).shape == image.shape
    with pytest.raises(DataError, match=r"memory_gib: 20 x 16 pixels may"):
        generator.translate_within(image, 2**20)
    with pytest.raises(DataError, match=r"memory_gib: 2 images of 20 x 16 pixels may"):
        generator.translate_within(torch.cat([image, image]), 2**20)
    assert np.isfinite(generator.translate(image).numpy()).all()
