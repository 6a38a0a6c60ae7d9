"""Translation with trained weights: one class for the command line, the metrics and anybody's own script."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, overload

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unpaired.config import from_dict
from unpaired.data import image_to_tensor, tensor_to_image, to_mode
from unpaired.engine.checkpoint import load_weights
from unpaired.errors import BackendError, CheckpointError, ConfigError, DataError, nearest
from unpaired.large_images import memory_bound, translate_within
from unpaired.methods import METHODS, PLAIN, Method, Wish
from unpaired.methods.contrast import pooled
from unpaired.ops import query_selected_attention

Picture = TypeVar("Picture", Tensor, np.ndarray, Image.Image)

_MULTIPLE = 4  # the generators halve twice
_SMALLEST = 16  # below this, reflected borders would be wider than the feature maps
_LARGEST = 2.0  # of a tensor's values: beyond this it is not an overshoot, it is another scale
_ENTRIES = {"method": str, "model": dict, "channels": int, "image_size": int, "background": list}


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

    Attributes:
        memory_gib: Most memory that the process may take, in GiB; unset means half of what is free. What does not fit
            whole is translated in stripes, with the same result (docs/large_images.md).
        scratch: Folder for maps that do not fit into that; unset takes the system's for temporary files.
        progress: Told the share of an image that is done, from 0 to 1, while it is translated in stripes.
    """

    memory_gib: float | None = None
    scratch: Path | None = None
    progress: Callable[[float], None] | None = None

    def __init__(self, method: Method, description: dict[str, Any], device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.method = method.to(self.device).eval().requires_grad_(False)
        self.description = description

    @staticmethod
    def from_pretrained(
        path: str | Path, *, weights: Literal["ema", "last", "best"] = "ema", device: str | torch.device = "auto"
    ) -> Translator:
        """Load a run folder, or the ``weights`` folder of one.

        Args:
            path: A run folder or a folder with ``model.json`` and ``ema.safetensors`` / ``last.safetensors``.
            weights: The averaged weights, those of the last step, or those that scored best during training.
            device: ``"auto"`` takes CUDA where there is one, else the CPU.

        Raises:
            CheckpointError: Nothing usable lies there.
            BackendError: The device is not on this machine.
        """
        folder = Path(path)
        if (folder / "weights" / "model.json").exists():
            folder = folder / "weights"
        description = _read_description(folder)
        if weights == "best" and not (folder / "best.safetensors").exists():
            raise CheckpointError(
                f"{folder} holds no best weights: they are kept when held-out images are scored during training "
                "(--score-every); use ema or last"
            )
        name = description["method"]
        if name not in METHODS:
            raise CheckpointError(
                f"{folder / 'model.json'}: unknown method '{name}'{nearest(str(name), METHODS)}; "
                f"this version knows {', '.join(METHODS)}"
            )
        config: Any = from_dict(METHODS[name].Config, description["model"], f"{folder / 'model.json'}: model")
        method = METHODS[name](config, channels=description["channels"])
        _load(method, load_weights(folder / f"{weights}.safetensors"), folder / f"{weights}.safetensors")
        return Translator(method, description, choose_device(device))

    @property
    def channels(self) -> int:
        """Channels of the images it takes and makes."""
        return self.description["channels"]

    @property
    def image_size(self) -> int:
        """Side, in pixels, of the crops it was trained on."""
        return self.description["image_size"]

    @property
    def background(self) -> tuple[int, int, int]:
        """Red, green, blue (0 to 255) that were put behind transparent pixels in training."""
        red, green, blue = self.description["background"]
        return red, green, blue

    @overload
    def translate(
        self,
        images: Picture,
        *,
        reverse: bool = ...,
        style_seed: int | None = ...,
        style_reference: Any = ...,
        domain: str | None = ...,
    ) -> Picture: ...
    @overload
    def translate(
        self, images: Sequence[Picture], *, reverse: bool = ..., style_seed: int | None = ...,
        style_reference: Any = ..., domain: str | None = ...,
    ) -> list[Picture]: ...  # fmt: skip
    def translate(
        self,
        images: Any,
        *,
        reverse: bool = False,
        style_seed: int | None = None,
        style_reference: Any = None,
        domain: str | None = None,
    ) -> Any:
        """Translate an image or a batch; what comes out is of the kind that went in, at the same size.

        Args:
            images: One of: a tensor (C, H, W) or (B, C, H, W), float in [-1, 1]; an array (H, W), (H, W, C) or
                (B, H, W, C), uint8 in 0..255; an 8-bit PIL image of any mode (out comes RGB or L); or a list of any
                of them, sizes free. Tensors may overshoot a little, as resizing makes them, but not beyond [-2, 2].
            reverse: From the target to the source domain, for methods that go both ways (CycleGAN, DCLGAN, MUNIT).
            style_seed: Draws the style of all the images, for methods with styles (MUNIT); unset takes style 0.
            style_reference: One image of the wanted domain, of any of the kinds above, whose style is taken instead.
            domain: Name of the wanted domain, for methods that know several.

        Raises:
            ConfigError: The method does not offer what is asked for, or the domain is unknown.
            DataError: Channels, type or range do not fit.
        """
        wish = self._wish(reverse, style_seed, style_reference, domain)
        return self._translate(images, wish)

    def _translate(self, images: Any, wish: Wish) -> Any:
        if isinstance(images, Tensor):
            return self._translate_tensor(images, wish)
        if isinstance(images, np.ndarray):
            return self._translate_array(images, wish)
        if isinstance(images, Image.Image):
            return tensor_to_image(self._run(self._tensor(images), wish)[0])
        if isinstance(images, Sequence) and not isinstance(images, str | bytes):
            return [self._translate(image, wish) for image in images]
        raise DataError(f"translate takes tensors, arrays, PIL images or lists of them, not {type(images).__name__}")

    @torch.no_grad()
    def significance(self, image: Tensor, tap: str, num_queries: int | None = None) -> Significance:
        """How significant each location of one image is to this model's encoder, and which are selected (Figure 2).

        Args:
            image: (C, H, W) float in [-1, 1].
            tap: Place of the encoder, for example ``block5``.
            num_queries: N; unset takes the model's own setting.

        Raises:
            DataError: The image does not fit.
            ConfigError: There is no such tap.
        """
        if image.ndim != 3:
            raise DataError(f"significance takes one image (C, H, W), not {tuple(image.shape)}")
        padded = _pad(self._checked(image[None]))
        try:
            (features,) = self.method.encode(padded, [tap])
        except (KeyError, ValueError) as error:
            raise ConfigError(f"this model has no tap '{tap}'; its blocks are called block1, block2, ...") from error
        count = self.description["model"].get("num_queries", 256) if num_queries is None else num_queries
        options = {"attention": "global", **self.method.selection(tap), "routing": "none"}
        own = options.pop("significance")
        features = pooled(features, options.pop("pool_to", None))
        options.pop("backend", None)  # the one of the machine that trained need not run here
        measure: Any = "entropy" if own == "random" else own  # a method without selection is seen through the paper's
        selected = query_selected_attention(features, [], count, significance=measure, **options)
        entropy = selected.significance
        if measure != "entropy":
            entropy = query_selected_attention(features, [], 1, **options).significance
        height, width = features.shape[2:]
        return Significance(selected.indices[0].cpu(), entropy[0].view(height, width).cpu())

    def _wish(self, reverse: bool, style_seed: int | None, style_reference: Any, domain: str | None) -> Wish:
        """What is asked for, if this method offers it."""
        asked = {
            "reverse": reverse,
            "style": style_seed is not None or style_reference is not None,
            "domain": domain is not None,
        }
        words = {"reverse": "the reverse direction", "style": "styles", "domain": "a choice of domains"}
        for name, wanted in asked.items():
            if wanted and name not in self.method.offers:
                able = ", ".join(key for key, row in METHODS.items() if name in row.offers)
                raise ConfigError(f"{self.method.title} does not offer {words[name]}; methods that do: {able}")
        if style_seed is not None and style_reference is not None:
            raise ConfigError("give either a style seed or a style reference, not both")
        if style_seed is not None and not 0 <= style_seed < 2**63:
            raise ConfigError(f"style_seed is {style_seed}: it must be from 0 to 2**63 - 1")
        seeds = None if style_seed is None else torch.tensor([style_seed], device=self.device)
        reference = None
        if style_reference is not None:
            reference = _pad(self._checked(self._tensor(style_reference)))
        position = None
        if domain is not None:
            known = self.method.domains
            if domain not in known:
                raise ConfigError(
                    f"domain: this model knows no '{domain}'{nearest(domain, known)}; it knows {', '.join(known)}"
                )
            position = known.index(domain)
        return Wish(reverse, seeds, reference, position) if any(asked.values()) else PLAIN

    def _tensor(self, image: Any) -> Tensor:
        """One picture of any kind as (1, C, H, W) in [-1, 1]."""
        if isinstance(image, Image.Image):
            return image_to_tensor(self._opaque(image))[None]
        if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim in (2, 3):
            pixels = torch.from_numpy(np.atleast_3d(image).transpose(2, 0, 1).copy())
            return pixels[None].float() / 127.5 - 1.0
        if isinstance(image, Tensor) and image.is_floating_point() and image.ndim == 3:
            return image[None]
        raise DataError(
            "a style reference is one image: a PIL image, a uint8 array (H, W, C) or a float tensor (C, H, W)"
        )

    def _translate_tensor(self, images: Tensor, wish: Wish) -> Tensor:
        if images.ndim not in (3, 4) or not images.is_floating_point():
            raise DataError(
                f"a tensor must be float (C, H, W) or (B, C, H, W) in [-1, 1], not {images.dtype} {tuple(images.shape)}"
            )
        batch = images if images.ndim == 4 else images[None]
        translated = self._run(batch, wish).to(images.device, images.dtype)
        return translated if images.ndim == 4 else translated[0]

    def _translate_array(self, images: np.ndarray, wish: Wish) -> np.ndarray:
        if images.dtype != np.uint8 or images.ndim not in (2, 3, 4):
            raise DataError(
                f"an array must be uint8 (H, W), (H, W, C) or (B, H, W, C), not {images.dtype} {images.shape}"
            )
        if images.ndim == 2:
            return self._translate_array(images[None, :, :, None], wish)[0, :, :, 0]
        if images.ndim == 3:
            return self._translate_array(images[None], wish)[0]
        tensor = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float() / 127.5 - 1.0
        translated = ((self._run(tensor, wish) + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return np.ascontiguousarray(translated.permute(0, 2, 3, 1).numpy())

    @torch.no_grad()
    def _run(self, x_BCHW: Tensor, wish: Wish) -> Tensor:
        height, width = x_BCHW.shape[-2:]
        if wish.style_seeds is not None:
            wish = replace(wish, style_seeds=wish.style_seeds.expand(len(x_BCHW)))
        made = self.run_network(_pad(self._checked(x_BCHW)), wish)
        return made[..., :height, :width].float().clamp(-1, 1).cpu()

    def run_network(self, x_BCHW: Tensor, wish: Wish = PLAIN) -> Tensor:
        """The networks and nothing else, within the bound on memory.

        Args:
            x_BCHW: float32 on ``device`` in [-1, 1], padded: sides are multiples of 4 and at least 16.
            wish: Direction, style, domain.

        Returns:
            The same shape; not yet cropped or clamped.
        """
        bound = memory_bound(self.memory_gib, self.device)
        return translate_within(self.method, x_BCHW, bound, wish, scratch=self.scratch, progress=self.progress)

    def _checked(self, x_BCHW: Tensor) -> Tensor:
        """The images in float32 on the device, if they fit this model."""
        channels = x_BCHW.shape[1]
        if channels != self.channels:
            raise DataError(
                f"this model takes images with {self.channels} channel(s), but the input has {channels}: "
                f"{tuple(x_BCHW.shape)}"
            )
        if 0 in x_BCHW.shape:
            raise DataError(f"there is nothing to translate in a tensor of shape {tuple(x_BCHW.shape)}")
        x_BCHW = x_BCHW.to(self.device).float()
        largest = max(float(-x_BCHW.amin()), float(x_BCHW.amax()))  # without a copy: images may be large
        if not largest <= _LARGEST:  # NaN as well
            raise DataError(f"a tensor must lie in [-1, 1], but this one holds {largest:g}; scale it, or pass uint8")
        return x_BCHW

    def _opaque(self, image: Image.Image) -> Image.Image:
        """A picture of any mode in the model's own mode, as ``read_image`` makes it."""
        try:
            return to_mode(image, "L" if self.channels == 1 else "RGB", self.background)
        except ValueError as error:
            raise DataError(f"a PIL image of mode {image.mode}: {error}; convert it to 8 bits") from error


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
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise BackendError(
            f"device: '{device}' was asked for, but the last one here is {torch.cuda.device_count() - 1}"
        )
    if chosen.type not in ("cpu", "cuda") and not (chosen.type == "mps" and torch.backends.mps.is_available()):
        raise BackendError(f"device: '{device}' is not one that can be used here; use auto, cpu, cuda or cuda:N")
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
        found = description.get("format") if isinstance(description, dict) else None
        raise CheckpointError(f"{path} has format {found}, but this version of unpaired reads 1; install a newer one")
    for key, kind in _ENTRIES.items():
        if not isinstance(description.get(key), kind):
            raise CheckpointError(f"{path} lacks a usable '{key}'; copy the weights folder of the run again")
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
