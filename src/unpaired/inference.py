"""Translation with trained weights: one class for the command line, the metrics and anybody's own script."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, overload

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unpaired.config import from_dict
from unpaired.data import image_to_tensor, tensor_to_image
from unpaired.engine.checkpoint import load_weights
from unpaired.errors import BackendError, CheckpointError, DataError, nearest
from unpaired.methods import METHODS, Method
from unpaired.ops import query_selected_attention

Picture = TypeVar("Picture", Tensor, np.ndarray, Image.Image)

_MULTIPLE = 4  # the generators halve twice
_SMALLEST = 16  # below this, reflected borders would be wider than the feature maps


class Significance(NamedTuple):
    """Significance of the locations of one feature map.

    Attributes:
        indices: (N,) int64, selected locations as y * W + x, most significant first.
        entropy: (H, W) float32, nats; small means significant.
    """

    indices: Tensor
    entropy: Tensor


class Translator:
    """A trained translation from the source to the target domain.

    Args:
        method: A method with its weights.
        description: What ``model.json`` holds: method, settings, channels, training image size.
        device: Where to run.
    """

    def __init__(self, method: Method, description: dict[str, Any], device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.method = method.to(self.device).eval().requires_grad_(False)
        self.description = description

    @staticmethod
    def from_pretrained(
        path: str | Path, *, weights: Literal["ema", "last"] = "ema", device: str | torch.device = "auto"
    ) -> Translator:
        """Load a run folder, or the ``weights`` folder of one.

        Args:
            path: A run folder or a folder with ``model.json`` and ``ema.safetensors`` / ``last.safetensors``.
            weights: The averaged weights or those of the last step.
            device: ``"auto"`` takes CUDA where there is one, else the CPU.

        Raises:
            CheckpointError: Nothing usable lies there.
            BackendError: The device is not on this machine.
        """
        folder = Path(path)
        if (folder / "weights" / "model.json").exists():
            folder = folder / "weights"
        description = _read_description(folder)
        name = description.get("method")
        if name not in METHODS:
            raise CheckpointError(
                f"{folder / 'model.json'}: unknown method '{name}'{nearest(str(name), METHODS)}; "
                f"this version knows {', '.join(METHODS)}"
            )
        try:
            config: Any = from_dict(METHODS[name].Config, description["model"], f"{folder / 'model.json'}: model")
            method = METHODS[name](config, channels=int(description["channels"]))
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{folder / 'model.json'} lacks a usable entry {error}") from error
        _load(method, load_weights(folder / f"{weights}.safetensors"), folder / f"{weights}.safetensors")
        return Translator(method, description, choose_device(device))

    @property
    def channels(self) -> int:
        """Channels of the images it takes and makes."""
        return int(self.description["channels"])

    @property
    def image_size(self) -> int:
        """Side, in pixels, of the crops it was trained on."""
        return int(self.description["image_size"])

    @overload
    def translate(self, images: Picture) -> Picture: ...
    @overload
    def translate(self, images: Sequence[Picture]) -> list[Picture]: ...
    def translate(self, images: Any) -> Any:
        """Translate an image or a batch; what comes out is of the kind that went in, at the same size.

        Args:
            images: One of: a tensor (C, H, W) or (B, C, H, W), float in [-1, 1]; an array (H, W), (H, W, C) or
                (B, H, W, C), uint8 in 0..255; a PIL image; or a list of any of them, sizes free.

        Raises:
            DataError: Channels, type or range do not fit.
        """
        if isinstance(images, Tensor):
            return self._translate_tensor(images)
        if isinstance(images, np.ndarray):
            return self._translate_array(images)
        if isinstance(images, Image.Image):
            mode = "L" if self.channels == 1 else "RGB"
            return tensor_to_image(self._run(image_to_tensor(images.convert(mode))[None])[0])
        if isinstance(images, Sequence) and not isinstance(images, str | bytes):
            return [self.translate(image) for image in images]
        raise DataError(f"translate takes tensors, arrays, PIL images or lists of them, not {type(images).__name__}")

    @torch.inference_mode()
    def significance(self, image: Tensor, tap: str, num_queries: int | None = None) -> Significance:
        """How significant each location of one image is to this model's encoder, and which are selected (Figure 2).

        Args:
            image: (C, H, W) float in [-1, 1].
            tap: Place of the encoder, for example ``block5``.
            num_queries: N; unset takes the model's own setting.
        """
        (features,) = self.method.encode(_pad(image[None].float().to(self.device)), [tap])
        count = num_queries or int(self.description["model"].get("num_queries", 256))
        options = self.method.selection(tap)
        if options.get("significance") != "entropy":
            options = {
                "significance": "entropy",
                "attention": "global",
            }  # a method without selection, seen through ours
        selected = query_selected_attention(features, [], count, **{**options, "routing": "none"})
        height, width = features.shape[2:]
        return Significance(selected.indices[0].cpu(), selected.significance[0].view(height, width).cpu())

    def _translate_tensor(self, images: Tensor) -> Tensor:
        if images.ndim not in (3, 4) or not images.is_floating_point():
            raise DataError(
                f"a tensor must be float (C, H, W) or (B, C, H, W) in [-1, 1], not {images.dtype} {tuple(images.shape)}"
            )
        batch = images if images.ndim == 4 else images[None]
        translated = self._run(batch).to(images.device, images.dtype)
        return translated if images.ndim == 4 else translated[0]

    def _translate_array(self, images: np.ndarray) -> np.ndarray:
        if images.dtype != np.uint8 or images.ndim not in (2, 3, 4):
            raise DataError(
                f"an array must be uint8 (H, W), (H, W, C) or (B, H, W, C), not {images.dtype} {images.shape}"
            )
        if images.ndim == 2:
            return self._translate_array(images[None, :, :, None])[0, :, :, 0]
        if images.ndim == 3:
            return self._translate_array(images[None])[0]
        tensor = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1.0
        translated = ((self._run(tensor) + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return np.ascontiguousarray(translated.permute(0, 2, 3, 1).numpy())

    @torch.inference_mode()
    def _run(self, x_BCHW: Tensor) -> Tensor:
        channels, height, width = x_BCHW.shape[1:]
        if channels != self.channels:
            raise DataError(
                f"this model takes images with {self.channels} channel(s), but the input has {channels}: "
                f"{tuple(x_BCHW.shape)}"
            )
        padded = _pad(x_BCHW.float().to(self.device))
        return self.method.translate(padded)[..., :height, :width].float().clamp(-1, 1).cpu()


def choose_device(device: str | torch.device) -> torch.device:
    """Resolve ``"auto"`` and check that a named device exists.

    Raises:
        BackendError: It does not, or the name is unknown.
    """
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise BackendError(f"device: '{device}' is not a device; use auto, cpu, cuda or cuda:N") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise BackendError(f"device: '{device}' was asked for, but this machine has no usable CUDA device; use cpu")
    return chosen


def _pad(x_BCHW: Tensor) -> Tensor:
    """Extend right and bottom to a multiple of 4 and at least 16 pixels, mirrored where the image is large enough."""
    height, width = x_BCHW.shape[-2:]
    bottom = max(_SMALLEST, -(-height // _MULTIPLE) * _MULTIPLE) - height
    right = max(_SMALLEST, -(-width // _MULTIPLE) * _MULTIPLE) - width
    if not bottom and not right:
        return x_BCHW
    mode = "reflect" if bottom < height and right < width else "replicate"
    return F.pad(x_BCHW, (0, right, 0, bottom), mode=mode)


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / "model.json"
    if not path.exists():
        missing = "no such folder" if not folder.exists() else "it has no weights/model.json and no model.json"
        raise CheckpointError(f"{folder} is not a trained run: {missing}; give the --out folder of 'unpaired train'")
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error})") from error
    if not isinstance(description, dict) or description.get("format") != 1:
        raise CheckpointError(f"{path} has a format that this version cannot read (it reads format 1)")
    return description


def _load(method: Method, tensors: dict[str, Tensor], path: Path) -> None:
    """Copy the served networks' weights, all of them and nothing else."""
    expected = {
        f"{name}.{key}": value
        for name, net in method.served_networks().items()
        for key, value in net.named_parameters()
    }
    for key in expected.keys() | tensors.keys():
        if key not in tensors or key not in expected:
            where = "lacks" if key not in tensors else "has the unknown tensor"
            raise CheckpointError(f"{path} does not fit model.json: it {where} '{key}'")
        if tensors[key].shape != expected[key].shape:
            raise CheckpointError(
                f"{path} does not fit model.json: '{key}' is {tuple(tensors[key].shape)}, "
                f"expected {tuple(expected[key].shape)}"
            )
    with torch.no_grad():
        for key, value in expected.items():
            value.copy_(tensors[key])
