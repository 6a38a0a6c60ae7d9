"""The optional packages of ONNX, and sessions of its runtime."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch

from unpaired.errors import BackendError, CheckpointError

_LONGEST_REASON = 200


def package(name: str) -> Any:
    """An optional package, or a module of one. Raises ``BackendError`` where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise BackendError(f"ONNX needs the package {name.split('.')[0]}: pip install 'unpaired[onnx]'") from None


def session_of(content: bytes, path: Path) -> Any:
    """A session of onnxruntime on the CPU with as many threads as PyTorch has.

    Args:
        content: Of an ONNX file.
        path: Its name, for the message.

    Raises:
        BackendError: onnxruntime is not installed.
        CheckpointError: This is no ONNX model, or one that does not run here.
    """
    runtime = package("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what is wrong comes as an exception, too
    try:
        return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has one class of errors per kind of damage, and no common one
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:_LONGEST_REASON]
        raise CheckpointError(f"{path} is not an ONNX model that runs here ({reason}); export the run again") from error
