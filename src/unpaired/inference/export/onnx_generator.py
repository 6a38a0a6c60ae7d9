"""An exported ONNX file in the place of a method, run by onnxruntime on the CPU."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unpaired.data import repeat_channels
from unpaired.errors import BackendError, CheckpointError, ConfigError, DataError
from unpaired.files import contents, parse_json
from unpaired.inference.export.exported import FORMAT, styles_of
from unpaired.inference.large_images import taken_memory
from unpaired.inference.loading import check_description
from unpaired.methods.base import DEFAULT_REQUEST, Method, TranslateRequest
from unpaired.networks.padding import SMALLEST

_MAPS = 7
"""A translation takes at most so many maps of the largest size (measured, docs/export.md)."""


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
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError(f"{path} is not an ONNX model that runs here ({reason}); export the run again") from error


class OnnxGenerator(Method):
    """A file that ``unpaired export`` wrote, served by onnxruntime.

    It holds one direction: what was exported in reverse translates plainly here, and offers no reverse.

    Args:
        path: The file.

    Raises:
        BackendError: onnxruntime is not installed.
        CheckpointError: The file is missing, damaged, or not one of this package.

    Attributes:
        facts: Metadata of the file, text by name.
        description: What the run's ``model.json`` holds, with source and target as this file takes and makes them.
    """

    served = ()

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        path = Path(path)
        try:
            content = contents(path)
        except OSError as error:
            raise CheckpointError(f"cannot read {path}: {error.strerror or error}; give an .onnx file") from error
        self._session: Any = session_of(content, path)
        facts: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        if facts.get("unpaired_format") != FORMAT:
            raise CheckpointError(
                f"{path} is an ONNX model, but not one of this version's 'unpaired export'; export the run again"
            )
        try:
            self.description: dict[str, Any] = parse_json(facts["description"])
            check_description(self.description, path)
            self._channels, self._largest = self.description["channels"], float(facts["largest_map"])
            self._taken, made = (self.description[name]["channels"] for name in ("source", "target"))
            if not 0 < self._largest < 1e6:
                raise ValueError(f"largest_map is {self._largest}")
            self.title = f"{facts['title']} as ONNX"  # type: ignore[misc]
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: its metadata is incomplete ({error}); export the run again") from error
        self.facts = facts
        styles = [each for each in self._session.get_overridable_initializers() if each.name == "style"]
        self.supports = frozenset({"style"} if styles else ())
        try:
            self.style_channels = int(styles[0].shape[1]) if styles else 0
            blank = self._session.run(None, {"image": np.zeros((1, self._taken, SMALLEST, SMALLEST), np.float32)})[0]
        except Exception as error:  # onnxruntime has one class of errors per kind of damage, and no common one
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise CheckpointError(
                f"{path} does not translate a blank image ({reason}); export the run again"
            ) from error
        if np.shape(blank) != (1, made, SMALLEST, SMALLEST) or np.asarray(blank).dtype != np.float32:
            raise CheckpointError(f"{path} does not make what its metadata says; export the run again")
        if not np.isfinite(blank).all():
            raise CheckpointError(
                f"{path} holds weights that are not finite; export other weights of the run (--weights)"
            )

    def translate_within(
        self, x_BCHW: Tensor, memory_bytes: int, request: TranslateRequest = DEFAULT_REQUEST
    ) -> Tensor:
        """:meth:`translate`, refused (``DataError``) where it would take more than so many bytes in all."""
        batch, _, height, width = x_BCHW.shape
        needed = taken_memory(x_BCHW.device) + int(_MAPS * 4 * self._largest) * batch * height * width
        if needed > memory_bytes:
            several = f"{batch} images of " if batch > 1 else ""
            raise DataError(
                f"memory_gib: {several}{width} x {height} pixels may take {needed / 2**30:.1f} GiB by ONNX Runtime, "
                f"more than the {memory_bytes / 2**30:.1f} GiB allowed; use a smaller size, or the run itself, which "
                "translates large images in stripes"
            )
        return self.translate(x_BCHW, request)

    def translate(self, x_BCHW: Tensor, request: TranslateRequest = DEFAULT_REQUEST) -> Tensor:
        """(B, C, H, W) in [-1, 1], in the networks' channels -> the same; see :class:`unpaired.methods.Method`.

        Raises:
            ConfigError: A style of an image is asked for, whose encoder is not in the file, or several in one batch.
        """
        if request.style_reference is not None:
            raise ConfigError(
                "a style reference needs the style encoder, which an ONNX file does not hold; use a style seed"
            )
        fed = {"image": np.ascontiguousarray(x_BCHW[:, : self._taken].numpy())}
        if request.style_seeds is not None:
            seeds = request.style_seeds.unique()
            if len(seeds) > 1:
                raise ConfigError("an ONNX file takes one style for all images of a batch; translate them one by one")
            fed["style"] = styles_of(seeds, self.style_channels).numpy()
        return repeat_channels(torch.from_numpy(self._session.run(None, fed)[0]), self._channels)

    def forward_train(self, batch: Any) -> Any:
        """Refused: ``ConfigError``."""
        raise ConfigError("an ONNX file cannot be trained; train the run that it came from")

    def encode(self, x_BCHW: Tensor, taps: Sequence[str]) -> list[Tensor]:
        """Refused: ``ConfigError``."""
        raise ConfigError("an ONNX file has no taps; load the run that it came from")
