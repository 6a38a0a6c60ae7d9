"""A generator as one ONNX file: recorded by PyTorch's own exporter, tidied, completed and checked."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unpaired.inference.export.exported import Exported, ExportedGenerator, Precision, Target, check_and_write
from unpaired.inference.export.onnx_packages import package, session_of
from unpaired.networks.padding import MULTIPLE

OPSET = 18


def write_onnx(
    generator: ExportedGenerator,
    path: Path,
    facts: dict[str, str],
    *,
    precision: Precision = "float32",
    target: Target = "cpu",
) -> Exported:
    """Write one ONNX file, free in batch and sides (from 16 pixels on), and compare it with PyTorch first.

    Args:
        generator: What to write; ``precision="float16"`` rounds its weights in place.
        path: The file.
        facts: What the file says of itself, see :func:`unpaired.inference.export.exported.describe`.
        precision: ``float16`` stores the weights in half as many bytes; inputs, outputs and sums stay float32.
        target: Where it is to run fast.

    Raises:
        BackendError: onnx, onnxscript or onnxruntime is not installed.
        CheckpointError: It differs from PyTorch, or cannot be written; what was there stays.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        package(name)
    rounding = generator.round_weights() if precision == "float16" else 0.0
    model = _recorded(generator, target)
    _tidy(model.graph)
    _take_any_sides(model.graph)
    if precision == "float16":
        _halve(model.graph)
    if generator.style is not None:  # an input that may be left out is an initializer of the same name
        model.graph.initializer.append(package("onnx.numpy_helper").from_array(generator.style.numpy(), "style"))
    for key, value in facts.items():
        model.metadata_props.add(key=key, value=value)
    content = model.SerializeToString()
    session = session_of(content, path)

    def run(*inputs: Tensor) -> Tensor:
        fed = dict(zip(("image", "style"), (each.numpy() for each in inputs), strict=False))
        return torch.from_numpy(session.run(None, fed)[0])

    return Exported(path, check_and_write(generator, run, path, content), rounding)


def _recorded(generator: ExportedGenerator, target: Target) -> Any:
    """The model as PyTorch's exporter writes it, quietly."""
    names = ["image", "style"][: 1 if generator.style is None else 2]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            generator.record(target), dynamo=True, opset_version=OPSET, verbose=False, input_names=names,
            output_names=["translation"],
        )  # fmt: skip
    assert program is not None, "the exporter of torch.export returns a program"
    return program.model_proto


def _tidy(graph: Any) -> None:
    """Take out the flattening and the scale of ones with which the exporter surrounds each instance norm."""
    to_array = package("onnx.numpy_helper").to_array
    values = {each.name: each for each in graph.initializer}
    made = {name: node for node in graph.node for name in node.output}
    users: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)

    def only(node: Any, kind: str) -> Any:
        found = users.get(node.output[0], []) if node is not None else []
        return found[0] if len(found) == 1 and found[0].op_type == kind else None

    def constant(node: Any, number: float) -> bool:
        arrays = [to_array(values[name]) for name in node.input if name in values]
        return len(arrays) == 1 and bool((arrays[0] == number).all())

    for norm in [node for node in graph.node if node.op_type == "InstanceNormalization"]:
        flat, back = made.get(norm.input[0]), only(norm, "Reshape")
        scale = only(back, "Mul")
        shift = only(scale, "Add")
        if flat is None or flat.op_type != "Reshape" or shift is None or flat.input[1] not in values:
            continue
        one_group_per_channel = to_array(values[flat.input[1]]).tolist() == [0, values[norm.input[1]].dims[0], -1]
        if one_group_per_channel and constant(scale, 1.0) and constant(shift, 0.0):
            norm.input[0], norm.output[0] = flat.input[0], shift.output[0]
            for node in (flat, back, scale, shift):
                graph.node.remove(node)
    del graph.value_info[:]  # shapes of what is gone
    _drop_unused(graph)


def _drop_unused(graph: Any) -> None:
    """Remove nodes and initializers whose results are not used."""
    kept = {each.name for each in graph.output}
    for node in reversed(list(graph.node)):
        if kept.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            kept.update(node.input)
    for each in [each for each in graph.initializer if each.name not in kept]:
        graph.initializer.remove(each)


def _take_any_sides(graph: Any) -> None:
    """Mirror images at the right and below to multiples of 4, and cut the translation again."""
    onnx = package("onnx")
    node, to_tensor = onnx.helper.make_node, onnx.numpy_helper.from_array
    for each in graph.node:
        each.input[:] = ["padded" if name == "image" else name for name in each.input]
        each.output[:] = ["padded_translation" if name == "translation" else name for name in each.output]
    integers = {"zeros_6": [0] * 6, "multiple": [MULTIPLE], "no_start": [0, 0], "axes_hw": [2, 3]}
    graph.initializer.extend(to_tensor(np.array(value, np.int64), name) for name, value in integers.items())
    before = [
        node("Shape", ["image"], ["sides"], start=2, end=4),
        node("Neg", ["sides"], ["negative_sides"]),
        node("Mod", ["negative_sides", "multiple"], ["missing"]),
        node("Concat", ["zeros_6", "missing"], ["pads"], axis=0),
        node("Pad", ["image", "pads"], ["padded"], mode="reflect"),
    ]
    after = node("Slice", ["padded_translation", "no_start", "sides", "axes_hw"], ["translation"])
    nodes = [*before, *graph.node, after]
    del graph.node[:]
    graph.node.extend(nodes)
    for each in (*graph.input, *graph.output):
        if each.name in ("image", "translation"):
            for axis, name in ((0, "batch"), (2, "height"), (3, "width")):
                each.type.tensor_type.shape.dim[axis].dim_param = name


def _halve(graph: Any) -> None:
    """Store rounded weights in float16, and cast them back in the graph; what would lose something stays as it is."""
    onnx = package("onnx")
    casts = []
    for each in graph.initializer:
        if each.data_type != onnx.TensorProto.FLOAT or len(each.dims) < 2:
            continue
        array = onnx.numpy_helper.to_array(each)
        with np.errstate(over="ignore"):
            half = array.astype(np.float16)
        if np.array_equal(half, array):
            name = each.name
            each.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}_float16"))
            casts.append(onnx.helper.make_node("Cast", [each.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
