"""Writing a method's generator in one of the formats."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from unpaired.data import Formats
from unpaired.errors import ConfigError
from unpaired.inference.export.exported import Exported, ExportedGenerator, FileFormat, Precision, Target, describe
from unpaired.inference.export.onnx_file import write_onnx
from unpaired.inference.export.torch_file import write_program
from unpaired.methods.base import DEFAULT_REQUEST, Method, TranslateRequest


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
        facts: More of what the file says of itself.

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
        return write_program(generator, path, told)
    return write_onnx(generator, path, told | {"target": target}, precision=precision, target=target)
