"""The translator: pictures of any kind in, the same kind out, through the networks of a trained run."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unpaired.data import PixelFormat, Size, as_size, average_copies, height_width, repeat_channels, tensor_of
from unpaired.engine.checkpoint import load_weights
from unpaired.engine.devices import choose_device
from unpaired.errors import BackendError, CheckpointError, ConfigError, DataError, ValueRangeWarning, nearest
from unpaired.inference.conversion import (
    as_array,
    as_picture,
    checked,
    floats_of_one,
    has_picture,
    read_one,
    read_place,
)
from unpaired.inference.export import Exported, FileFormat, OnnxGenerator, Precision, Target, write_generator
from unpaired.inference.hub import Bundle, Licences, fetch, is_repo_id, upload, write_bundle
from unpaired.inference.hub.bundle import check_digests
from unpaired.inference.large_images import memory_bound, taken_memory, translate_within
from unpaired.inference.loading import (
    Origin,
    build_method,
    check_offered,
    check_weights,
    formats_of,
    kind_of_weights,
    load_into,
    networks_of,
    origin_of,
    read_description,
)
from unpaired.inference.packaged import folder_of
from unpaired.inference.precision import Arithmetic, InferencePrecision
from unpaired.inference.significance import Significance, significance_of
from unpaired.methods import DEFAULT_REQUEST, Method, TranslateRequest
from unpaired.networks.padding import pad

Picture = TypeVar("Picture", Tensor, np.ndarray, Image.Image)
File = str | Path


class Translator:
    """A trained translation from the source to the target domain.

    Args:
        method: A method with its weights.
        description: What ``model.json`` holds: method, settings, channels and formats, training image size.
        device: Where to run: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        origin: Where its weights came from.
        precision: ``32``: float32. ``bf16``: the networks compute in bf16, results are float32; how far they lie from
            float32's is in docs/results.md. ``auto``: bf16 where it is faster here, which the first translation finds
            out.

    Attributes:
        memory_gib: Most memory that the process may take, in GiB; unset means half of what is free. What does not fit
            whole is translated in stripes, with the same result (docs/large_images.md).
        scratch: Folder for maps that do not fit into that; unset takes the system's for temporary files.
        progress: Told the share of an image that is done, from 0 to 1, while it is translated in stripes.
        arithmetic: The precision, and what the machine made of ``auto``.
    """

    memory_gib: float | None = None
    scratch: Path | None = None
    progress: Callable[[float], None] | None = None

    def __init__(
        self,
        method: Method,
        description: dict[str, Any],
        device: torch.device | str = "cpu",
        origin: Origin | None = None,
        precision: InferencePrecision = "32",
    ) -> None:
        self.device = torch.device(device)
        self.method = method.to(self.device).eval().requires_grad_(False)
        self.description = description
        self.source, self.target = formats_of(description)
        self.origin = origin
        self.arithmetic = Arithmetic(precision)

    @staticmethod
    def from_pretrained(
        path: str | Path,
        *,
        weights: Literal["ema", "last", "best"] = "ema",
        device: str | torch.device = "auto",
        revision: str | None = None,
        offline: bool = False,
        precision: InferencePrecision = "32",
    ) -> Translator:
        """Load a run folder, the ``weights`` folder of one, a model of the package, or one from the Hub.

        Only safetensors are read; nothing that is loaded can run code.

        Args:
            path: A run folder, a folder with ``model.json`` and ``ema.safetensors`` / ``last.safetensors``, or, where
                no such folder exists, the name of a model that comes with the package, ``"owner/name"`` or
                ``"owner/name@revision"`` on the Hub (``unpaired[hub]``).
            weights: Averaged (of imported models, which have none: the last), last, or best scored in training.
            device: ``"auto"`` takes CUDA where there is one, else Apple's ``"mps"``, else the CPU.
            revision: Branch, tag or commit on the Hub; unset takes the newest.
            offline: Do not ask the Hub, take what its local cache holds. Without a network the cache is used anyway.
            precision: As of :class:`Translator`.

        Raises:
            CheckpointError: Nothing usable lies there.
            BackendError: The device is not on this machine, or the Hub's client is not installed.
        """
        snapshot = fetch(str(path), weights, revision=revision, offline=offline) if is_repo_id(path) else None
        folder = folder_of(path) if snapshot is None else snapshot.folder
        if (folder / "weights" / "model.json").exists():
            folder = folder / "weights"
        description = read_description(folder)
        kind = kind_of_weights(description, weights)
        check_weights(folder, kind)
        method = build_method(folder, description)
        digest = check_digests(folder, kind)
        file = folder / f"{kind}.safetensors"
        load_into(method, load_weights(file), file, networks_of(description, method))
        origin = origin_of(folder, kind, digest, snapshot)
        return Translator(method, description, choose_device(device), origin, precision)

    @staticmethod
    def from_onnx(path: str | Path) -> Translator:
        """Load a file of :meth:`export`, run by onnxruntime on the CPU: one direction, whole images, no taps.

        Raises:
            CheckpointError: The file is missing, damaged, or not one of this package.
            BackendError: onnxruntime is not installed (``unpaired[onnx]``).
        """
        generator = OnnxGenerator(Path(path))
        return Translator(generator, generator.description)

    def export(
        self,
        path: str | Path,
        *,
        format: FileFormat = "onnx",
        precision: Precision = "float32",
        target: Target = "cpu",
        reverse: bool = False,
        domain: str | None = None,
        data_licence: str | None = None,
    ) -> Exported:
        """Write the generator as one file that runs without this package, compared with PyTorch on the spot.

        Args:
            path: The file.
            format: ``onnx``, or ``torch`` for a program of ``torch.export`` (.pt2).
            precision: ``float16`` stores the weights in half as many bytes and computes in float32; ONNX only.
            target: Where an ONNX file is to be fast: on the ``cpu``, or on ``any`` hardware with fast convolutions.
            reverse: As for :meth:`translate`.
            domain: As for :meth:`translate`.
            data_licence: Of the training images; stored in the file.

        Raises:
            ConfigError: The method does not offer what is asked for, or this model cannot be exported.
            CheckpointError: The file would differ from PyTorch by more than 1e-4, or cannot be written.
            BackendError: The packages of ``unpaired[onnx]`` are not installed.
        """
        if self.origin is None:
            raise ConfigError("this model was not loaded from a run; export the run that it came from")
        request = self.request(reverse, None, None, domain)
        licence = {"data_licence": data_licence} if data_licence else {}
        facts = {"weights": self.origin.weights, "weights_sha256": self.origin.sha256, **licence}
        formats = self.source, self.target
        options: dict[str, Any] = {"format": format, "precision": precision, "target": target, "facts": facts}
        return write_generator(self.method, self.description, formats, Path(path), request, **options)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        weights: Sequence[str] = (),
        licences: Licences | None = None,
        private: bool = False,
        token: str | None = None,
        keep: str | Path | None = None,
        samples: bool = False,
    ) -> str:
        """Upload the model with a generated card: scores with their protocol, data, licence, how to use it.

        Args:
            repo_id: ``owner/name``; the page is made if it does not exist.
            weights: Kinds of weights to upload; unset takes the one that was loaded.
            licences: Of the weights and of the training images; what is not given is said to be unknown.
            private: Whether a new page is private.
            token: Of an account that may write; unset takes the one of ``hf auth login`` or ``HF_TOKEN``.
            keep: A new folder in which what was uploaded stays.
            samples: Whether the last sample grid is uploaded, which shows images of the training sets.

        Returns:
            The commit on the Hub, 40 hex digits.

        Raises:
            CheckpointError: The model has no files, or the Hub refuses or cannot be reached.
            BackendError: The Hub's client is not installed.
        """
        with tempfile.TemporaryDirectory(prefix="unpaired-hub-") as temporary:
            out = keep or Path(temporary) / "model"
            bundle = self.bundle(out, repo_id, weights=weights, licences=licences, samples=samples)
            return upload(bundle, repo_id, private=private, token=token)

    def bundle(
        self,
        out: str | Path,
        repo_id: str,
        *,
        weights: Sequence[str] = (),
        licences: Licences | None = None,
        samples: bool = False,
    ) -> Bundle:
        """Write the folder that :meth:`push_to_hub` uploads, and upload nothing. Arguments and errors as there."""
        if self.origin is None:
            raise CheckpointError("this model was not loaded from files; train it into a run folder first")
        return write_bundle(
            self.origin.folder,
            Path(out),
            repo_id,
            self.description,
            title=self.method.title,
            citation=self.method.citation,
            weights=tuple(kind_of_weights(self.description, one) for one in weights) or (self.origin.weights,),
            licences=licences,
            samples=samples,
        )

    def __repr__(self) -> str:
        place = "" if self.origin is None else f", {self.origin.weights} of {self.origin.repo_id or self.origin.folder}"
        kinds = f"{self.source.words} to {self.target.words}"
        return f"Translator({self.method.title}, {kinds}, on {self.device}{place})"

    def to(self, device: str | torch.device) -> Translator:
        """Move the networks to a device, as ``from_pretrained`` takes it; returns this translator.

        Raises:
            BackendError: The device is not on this machine, or this is an ONNX file, which runs on the CPU.
        """
        chosen = choose_device(device)
        if isinstance(self.method, OnnxGenerator) and chosen.type != "cpu":
            raise BackendError(f"device: ONNX Runtime is used on the CPU here, not on '{device}'; load the run instead")
        self.device, self.method = chosen, self.method.to(chosen)
        self.arithmetic = Arithmetic(self.arithmetic.name)  # its copy of the weights lies on the other device
        return self

    def free_bytes(self) -> int:
        """Bytes that reading an image may take within ``memory_gib``."""
        return memory_bound(self.memory_gib) - taken_memory()

    @property
    def channels(self) -> int:
        """Channels of the source images."""
        return self.source.channels

    @property
    def target_channels(self) -> int:
        """Channels of the target images."""
        return self.target.channels

    def sides(self, reverse: bool = False) -> tuple[PixelFormat, PixelFormat]:
        """What images it takes and makes are made of, in either direction."""
        return (self.target, self.source) if reverse else (self.source, self.target)

    @property
    def image_size(self) -> Size:
        """Size of the crops it was trained on, pixels: one side of a square, or height and width."""
        return as_size(*height_width(self.description["image_size"]))

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
    def translate(  # type: ignore[overload-overlap]  # a str is a sequence of them
        self, images: File, *, reverse: bool = ..., style_seed: int | None = ..., style_reference: Any = ...,
        domain: str | None = ...,
    ) -> Image.Image: ...  # fmt: skip
    @overload
    def translate(
        self, images: Sequence[File], *, reverse: bool = ..., style_seed: int | None = ..., style_reference: Any = ...,
        domain: str | None = ...,
    ) -> list[Image.Image]: ...  # fmt: skip
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

        Channels and types are those of the two domains (``source`` and ``target``, the other way round in reverse).

        Args:
            images: One of: a tensor (C, H, W) or (B, C, H, W), float in [-1, 1]; an array (H, W), (H, W, C) or
                (B, H, W, C) of the values that files hold, of any type that a file may have, masked or not; a tensor
                (C, H, W) or (B, C, H, W) of such integers; a PIL image of any mode, turned as its EXIF data says; the
                path or the http(s) address of an image file, which comes back as a PIL image, or as an array where PIL
                has none such; or a list of any of them, sizes free. Arrays, integers and PIL images are read as files
                are and come back in the other domain's type. Float tensors may overshoot a little, as resizing makes
                them, but not beyond [-2, 2]; those in [0, 1] are taken as they are, with a
                :class:`~unpaired.errors.ValueRangeWarning`.
            reverse: From the target to the source domain, for methods that go both ways (CycleGAN, DCLGAN, MUNIT).
            style_seed: Draws the style of all the images, for methods with styles (MUNIT); unset takes style 0.
            style_reference: One image of the wanted domain, of any of the kinds above, whose style is taken instead.
            domain: Name of the wanted domain, for methods that know several.

        Raises:
            ConfigError: The method does not offer what is asked for, or the domain is unknown.
            DataError: Channels, type or range do not fit, a file cannot be read, or the result is not finite.
        """
        return self._translate(images, self.request(reverse, style_seed, style_reference, domain))

    __call__ = translate

    def _translate(self, images: Any, request: TranslateRequest) -> Any:
        if isinstance(images, Tensor) and images.is_floating_point():
            return self._translate_tensor(images, request)
        if isinstance(images, Tensor) and images.ndim in (3, 4):
            values = self._translate_array(images.movedim(-3, -1).cpu().numpy(), request)
            return torch.from_numpy(values).movedim(-1, -3).to(images.device)
        if isinstance(images, np.ndarray):
            return self._translate_array(images, request)
        if isinstance(images, str | Path):
            taken, wanted = self.sides(request.reverse)
            given = read_place(images, taken, self.free_bytes)
            result = self._run(taken.to_floats(tensor_of(given.values))[None], request)[0]
            return as_picture(result, wanted, given) if has_picture(wanted) else as_array(result, wanted, given)
        if isinstance(images, Image.Image):
            taken, made = self.sides(request.reverse)
            floats, given = read_one(images, taken)
            return as_picture(self._run(floats, request)[0], made, given)
        if isinstance(images, Sequence) and not isinstance(images, bytes):
            return [self._translate(image, request) for image in images]
        raise DataError(
            f"translate takes tensors, arrays, PIL images, paths or lists of them, not {type(images).__name__}"
        )

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
        padded = pad(self._checked(image[None], self.source))
        count = self.description["model"].get("num_queries", 256) if num_queries is None else num_queries
        return significance_of(self.method, padded, tap, count)

    def request(
        self,
        reverse: bool = False,
        style_seed: int | None = None,
        style_reference: Any = None,
        domain: str | None = None,
    ) -> TranslateRequest:
        """What is asked for, if this method offers it; arguments and errors as of :meth:`translate`."""
        asked = {
            "reverse": reverse,
            "style": style_seed is not None or style_reference is not None,
            "domain": domain is not None,
        }
        check_offered(self.method, [name for name, wanted in asked.items() if wanted])
        if style_seed is not None and style_reference is not None:
            raise ConfigError("give either a style seed or a style reference, not both")
        if style_seed is not None and not 0 <= style_seed < 2**63:
            raise ConfigError(f"style_seed is {style_seed}: it must be from 0 to 2**63 - 1")
        seeds = None if style_seed is None else torch.tensor([style_seed], device=self.device)
        reference = None
        if style_reference is not None:
            made = self.sides(reverse)[1]
            if isinstance(style_reference, str | Path):
                style_reference = read_place(style_reference, made, self.free_bytes).values
            reference = pad(self._checked(floats_of_one(style_reference, made), made))
        position = None
        if domain is not None:
            known = self.method.domains
            if domain not in known:
                raise ConfigError(
                    f"domain: this model has no domain '{domain}'{nearest(domain, known)}; it has {', '.join(known)}"
                )
            position = known.index(domain)
        return TranslateRequest(reverse, seeds, reference, position) if any(asked.values()) else DEFAULT_REQUEST

    def _translate_tensor(self, images: Tensor, request: TranslateRequest) -> Tensor:
        if images.ndim not in (3, 4):
            raise DataError(
                f"a tensor must be float (C, H, W) or (B, C, H, W) in [-1, 1], not {images.dtype} {tuple(images.shape)}"
            )
        if images.numel() and 0 <= images.min() < images.max() <= 1:
            words = "no value of this tensor is below 0: black is -1 here, not 0; scale [0, 1] to [-1, 1] by * 2 - 1"
            warnings.warn(words, ValueRangeWarning, stacklevel=4)
        batch = images if images.ndim == 4 else images[None]
        translated = self._run(batch, request).to(images.device, images.dtype)
        return translated if images.ndim == 4 else translated[0]

    def _translate_array(self, images: np.ndarray, request: TranslateRequest) -> np.ndarray:
        if images.ndim not in (2, 3, 4):
            raise DataError(f"an array must be (H, W), (H, W, C) or (B, H, W, C), not {images.shape}")
        if 0 in images.shape:
            raise DataError(f"there is nothing to translate in an array of shape {images.shape}")
        taken, made = self.sides(request.reverse)
        given = [read_one(image, taken) for image in (images if images.ndim == 4 else images[None])]
        masked = isinstance(images, np.ma.MaskedArray)
        made_BCHW = self._run(torch.cat([floats for floats, _ in given]), request)
        batch = ((x, one) for x, (_, one) in zip(made_BCHW, given, strict=True))
        values = (np.ma if masked else np).stack([as_array(x, made, one, masked=masked) for x, one in batch])
        if images.ndim == 4:
            return values
        return values[0, :, :, 0] if images.ndim == 2 and made.channels == 1 else values[0]

    @torch.no_grad()
    def _run(self, x_BCHW: Tensor, request: TranslateRequest) -> Tensor:
        """Images of one domain in its own channels, any size, as images of the other one."""
        height, width = x_BCHW.shape[-2:]
        if request.style_seeds is not None:
            request = replace(request, style_seeds=request.style_seeds.expand(len(x_BCHW)))
        taken, wanted = self.sides(request.reverse)
        made = self.run_network(pad(self._checked(x_BCHW, taken)), request)
        if not made.isfinite().all():
            raise DataError("the translation is not finite: use other weights of the run, or another precision")
        return average_copies(made[..., :height, :width].float().clamp(-1, 1), wanted.channels).cpu()

    def run_network(self, x_BCHW: Tensor, request: TranslateRequest = DEFAULT_REQUEST) -> Tensor:
        """The networks and nothing else, within the bound on memory; what runs a model differently replaces this.

        Args:
            x_BCHW: float32 on ``device`` in [-1, 1], in the networks' channels, padded: sides are multiples of 4 and
                at least 16.
            request: Direction, style, domain.

        Returns:
            The same shape; not yet cropped or clamped.
        """
        bound = memory_bound(self.memory_gib, self.device)
        if isinstance(self.method, OnnxGenerator):
            return self.method.translate_within(x_BCHW, bound, request)
        half = self.arithmetic.half(self.method, x_BCHW, request)
        return translate_within(
            self.method, x_BCHW, bound, request, half=half, scratch=self.scratch, progress=self.progress
        )

    def _checked(self, x_BCHW: Tensor, pixels: PixelFormat) -> Tensor:
        """Images of one domain in float32 on the device, in the networks' channels, if they fit this model."""
        return repeat_channels(checked(x_BCHW, pixels, self.device), self.description["channels"])
