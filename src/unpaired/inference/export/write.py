"""Writing a method's generator as one file, compared with PyTorch first: ONNX, or a program of ``torch.export``."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unpaired.data import Formats
from unpaired.errors import CheckpointError, ConfigError
from unpaired.files import write_atomically
from unpaired.inference.export.exported import (
    ExportedGenerator,
    FileFormat,
    Precision,
    Target,
    describe,
    on_any_sides,
)
from unpaired.inference.export.onnx_generator import package, session_of
from unpaired.methods.base import DEFAULT_REQUEST, Method, TranslateRequest
from unpaired.networks.padding import MULTIPLE

OPSET = 18
TOLERANCE = 1e-4
"""Largest difference from PyTorch, of values in [-1, 1], with which a file is kept."""
CHECKED_SHAPES = ((1, 64, 64), (2, 64, 48), (1, 37, 101), (2, 19, 16), (1, 256, 192))
"""Batch, height and width of the images of the check."""
FACTS_FILE = "unpaired_facts.json"
"""Name of the file inside a program of ``torch.export`` that holds its metadata."""


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
        path: The file.
        difference: Largest difference from PyTorch over all checked images, of values in [-1, 1].
        rounding: Largest change of a translation by weights of float16; 0 in float32.
    """

    path: Path
    difference: float
    rounding: float = 0.0


def write_generator(
    method: Method,
    description: dict[str, Any],
    formats: Formats,
    path: Path,
    request: TranslateRequest = DEFAULT_REQUEST,
    *,
    format: FileFormat = "onnx",
    precision: Precision = "float32",
    target: Target = "cpu",
    facts: dict[str, str] | None = None,
) -> Exported:
    """Write one file that translates as ``method.translate(x, request)`` does, compared with PyTorch on the spot.

    Args:
        method: With its weights; it stays as it is.
        description: What ``model.json`` of the run holds.
        formats: Of the run's source and target images.
        path: The file.
        request: Direction and domain.
        format: ``onnx``, or ``torch`` for a program of ``torch.export``.
        precision: Of the stored weights; ``float16`` is for ``onnx``.
        target: Where an ONNX file is to run fast: ``cpu`` has wide convolutions as products of matrices (Winograd's
            minimal filtering), ``any`` plain ones, which GPUs, phones and browsers have faster code for.
        facts: Further metadata of the file.

    Raises:
        BackendError: The packages of ``unpaired[onnx]`` are not installed.
        CheckpointError: The file would differ from PyTorch by more than 1e-4, or cannot be written.
        ConfigError: The settings do not go together.
    """
    if format == "torch" and precision != "float32":
        raise ConfigError("precision: float16 is for the format onnx; leave it out")
    domain = request.domain if request.domain is not None or not method.domains else method.default_domain
    generator = ExportedGenerator(
        copy.deepcopy(method).cpu(), formats, description["channels"], reverse=request.reverse, domain=domain
    )
    told = describe(generator, description, formats) | {"precision": precision} | (facts or {})
    if format == "torch":
        run, content, rounding = _program(generator, told)
    else:
        run, content, rounding = _onnx(generator, told | {"target": target}, path, precision, target)
    return Exported(path, _check_and_write(generator, run, path, content), rounding)


_Written = tuple[Callable[..., Tensor], bytes | memoryview, float]
"""What runs a file, its content, and the largest change by rounded weights."""


def _program(generator: ExportedGenerator, facts: dict[str, str]) -> _Written:
    """A program of ``torch.export``, free in batch and sides (multiples of 4)."""
    buffer = io.BytesIO()
    torch.export.save(generator.record(), buffer, extra_files={FACTS_FILE: json.dumps(facts)})
    buffer.seek(0)
    program = torch.export.load(buffer).module()

    def run(*inputs: Tensor) -> Tensor:
        with torch.no_grad():
            return on_any_sides(program, *inputs)

    return run, buffer.getbuffer(), 0.0


def _onnx(
    generator: ExportedGenerator, facts: dict[str, str], path: Path, precision: Precision, target: Target
) -> _Written:
    """An ONNX file, free in batch and sides (from 16 pixels on)."""
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

    return run, content, rounding


def _check_and_write(
    generator: ExportedGenerator, run: Callable[..., Tensor], path: Path, content: bytes | memoryview
) -> float:
    """Compare what ``content`` computes with PyTorch over ``CHECKED_SHAPES``, then write it.

    Returns:
        The largest difference.

    Raises:
        CheckpointError: The difference is more than ``TOLERANCE``, or not a number, or the file cannot be written;
            what was there stays.
    """
    found = 0.0
    for batch, height, width in CHECKED_SHAPES:
        inputs = generator.inputs(batch, height, width)
        wanted, made = generator.translate(*inputs), run(*inputs)
        difference = float((made - wanted).abs().max()) if made.shape == wanted.shape else float("nan")
        if not difference <= TOLERANCE:
            raise CheckpointError(
                f"{path} was not written: at {batch} x {height} x {width} pixels the export differs from PyTorch by "
                f"{difference:.2g} (allowed: {TOLERANCE:g}); please report this with the versions of 'unpaired info'"
            )
        found = max(found, difference)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}; choose another --out") from error
    return found


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
    """Remove the reshapes, and the scale of ones, that the exporter puts around each instance norm."""
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
    """Pad images by reflection to multiples of 4 inside the graph, and crop the translation."""
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
