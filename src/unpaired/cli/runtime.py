"""Translators that run through ONNX Runtime: of a file, or of a run that is exported on the way."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Literal

from unpaired.errors import BackendError, ConfigError
from unpaired.inference import Translator

ONNX_SUFFIX = ".onnx"


def onnx_translator(
    run: str, weights: Literal["ema", "last", "best"], device: str, *, reverse: bool = False, domain: str | None = None
) -> Translator:
    """A translator through ONNX Runtime on the CPU; it translates plainly into what was asked for here.

    Args:
        run: An .onnx file of ``unpaired export``, or anything that ``Translator.from_pretrained`` takes.
        weights: Of a run; a file has its own.
        device: ``auto`` or ``cpu``.
        reverse: From the target to the source domain; a file has its own direction.
        domain: The wanted domain; a file has its own.

    Raises:
        BackendError: Another device, or the packages of ``unpaired[onnx]`` are not installed.
        CheckpointError: Nothing usable lies there.
        ConfigError: What is asked for is not in the file, or not offered by the method.
    """
    if device not in ("auto", "cpu"):
        raise BackendError(f"device: ONNX Runtime is used on the CPU here, not on '{device}'; leave --runtime out")
    if run.endswith(ONNX_SUFFIX):
        translator = Translator.from_onnx(run)
        if reverse or domain is not None:
            asked = "--reverse" if reverse else "--domain"
            raise ConfigError(f"{run} holds one direction and one domain; give {asked} to 'unpaired export' instead")
        return translator
    of_run = Translator.from_pretrained(run, weights=weights, device="cpu")
    with tempfile.TemporaryDirectory(prefix="unpaired-onnx-") as folder:
        path = Path(folder) / "model.onnx"
        print(
            "exporting for ONNX Runtime; to skip this step, run 'unpaired export' once and give its file as RUN",
            file=sys.stderr,
        )
        of_run.export(path, reverse=reverse, domain=domain)
        return Translator.from_onnx(path)
