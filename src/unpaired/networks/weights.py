"""Files of pretrained weights: locating, reading them without running code, clear errors."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import pickletools
import zipfile
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from unpaired.errors import BackendError
from unpaired.files import open_file

_COUNTER = "num_batches_tracked"
"""Buffers of batch normalisation that old files lack and inference ignores."""
_LARGEST_RATIO, _SMALL = 20, 2**20
"""How many times its size, or this many bytes if it is smaller, a file of torch may unpack to; torch packs nothing."""
_GROWING = {"bytearray", "_rebuild_device_tensor_from_cpu_tensor", "_rebuild_device_tensor_from_numpy"}
"""What plain pickles may call that takes memory for the asking."""
_LEGACY_PICKLES = 5
"""That a file of torch before version 1.6 begins with: magic number, version, system, content, keys of storages."""


def find_in_package(package: str, *parts: str) -> Path | None:
    """A file inside an installed package, without importing it; ``None`` if either is missing.

    >>> find_in_package("no_such_package", "weights.pth") is None
    True
    """
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    folders = spec.submodule_search_locations if spec is not None else None
    found = (Path(folder, *parts) for folder in folders or ())
    return next((path for path in found if path.is_file()), None)


def nowhere() -> Path | None:
    """For weights without a default path."""
    return None


def file_digest(path: Path) -> str:
    """The first 16 hex digits of the SHA-256 of a file."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def load_plain(file: Path | IO[bytes]) -> Any:
    """What ``torch.save`` wrote, read without running code, and without taking far more memory than the file.

    Expanded tensors come as they are: their shape is checked before their values are copied.

    Raises:
        ValueError: It unpacks to far more than its size, or asks for memory.
        Exception: Whatever torch raises at files that are damaged, or no plain tensors.
    """
    with open_file(file) if isinstance(file, Path) else nullcontext(file) as content:
        if zipfile.is_zipfile(content):
            archive = zipfile.ZipFile(content)
            members, size = archive.infolist(), content.seek(0, io.SEEK_END)
            if sum(member.file_size for member in members) > _LARGEST_RATIO * max(size, _SMALL):
                raise ValueError("it unpacks to far more than its size")
            pickles = [member for member in members if member.filename.endswith(".pkl")]
            for member in pickles:
                with archive.open(member) as pickled:
                    _check_pickle(io.BytesIO(pickled.read(member.file_size)), 1)
        else:
            content.seek(0)
            _check_pickle(content, _LEGACY_PICKLES)
        content.seek(0)
        return torch.load(content, map_location="cpu", weights_only=True)


def _check_pickle(file: IO[bytes], count: int) -> None:
    """Raise ``ValueError`` where one of the pickles in a row names what takes memory for the asking."""
    named: set[str] = set()
    with suppress(ValueError):  # damaged: torch gets no further, either, and says so
        for _ in range(count):
            texts = (argument for _, argument, _ in pickletools.genops(file) if isinstance(argument, str))
            named.update(text.rpartition(" ")[2] for text in texts)
    if found := named & _GROWING:
        raise ValueError(f"it calls {min(found)}, which takes memory for the asking")


def _what_is_wrong(x: Tensor) -> str:
    """Why a tensor of a file is not one of plain, finite values, without copying those that are expanded; or empty."""
    if x.layout != torch.strided or x.is_meta or x.is_nested or x.is_quantized:
        return "is no plain tensor"
    if x.is_complex():
        return "has complex values"
    once = x[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in x.stride())]
    if once.numel() * once.element_size() > x.untyped_storage().nbytes():
        return "has values that overlap"
    values = once.float() if x.is_floating_point() and x.element_size() == 1 else once  # torch.float8_*
    return "" if not x.is_floating_point() or values.isfinite().all() else "has values that are not finite"


@dataclass(frozen=True)
class WeightsFile:
    """The weights file of a network."""

    title: str
    """The network, in words."""
    how_to_get: str
    """A sentence on how to get the file."""
    find: Callable[[], Path | None] = nowhere
    """Returns the default path if the file exists."""

    def locate(self, path: Path | None) -> Path:
        """``path``, or the default path. Raises ``BackendError`` if there is no such file."""
        found = path if path is not None else self.find()
        if found is None:
            raise BackendError(f"the weights of {self.title} are not on this machine. {self.how_to_get}")
        if not found.is_file():
            what = "is a folder" if found.is_dir() else "does not exist"
            raise BackendError(f"{found} {what}; it should hold the weights of {self.title}. {self.how_to_get}")
        return found

    def wrong(self, path: Path, reason: str) -> BackendError:
        """The error for a file with other content."""
        return BackendError(f"{path}: not the weights of {self.title}: {reason}. {self.how_to_get}")

    def read(self, path: Path) -> dict[str, Tensor]:
        """The state dict of a ``torch.save`` or ``.safetensors`` file, read without running code.

        A checkpoint with the key ``state_dict`` is unwrapped, and the prefix ``module.`` of parallel training removed.

        Raises:
            BackendError: It is not such a file, unpacks to far more than its size, or values are not finite.
        """
        try:
            safe = path.suffix == ".safetensors"
            state: Any = load_file(path) if safe else load_plain(path)
        except Exception as error:  # damaged files raise many types
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise self.wrong(path, f"it cannot be read as plain tensors ({first.split('. ')[0][:160]})") from error
        if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
            state = state["state_dict"]
        if not isinstance(state, Mapping) or not state or not all(isinstance(x, Tensor) for x in state.values()):
            raise self.wrong(path, "it holds no state dict (names with tensors)")
        for name, x in state.items():
            if reason := _what_is_wrong(x):
                raise self.wrong(path, f"'{name}' {reason}")
        return {str(name).removeprefix("module."): x for name, x in state.items()}

    def check(self, path: Path, state: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> None:
        """Compare names and shapes with the network's, ignoring counters of batch normalisation.

        Raises:
            BackendError: Some are missing, unknown or have another shape.
        """
        names, wanted = ({name for name in x if not name.endswith(_COUNTER)} for x in (state, shapes))
        reshaped = sorted(name for name in names & wanted if state[name].shape != shapes[name])
        reasons = [
            f"{len(found)} {what} ({', '.join(map(repr, found[:3]))}{', ...' if found[3:] else ''})"
            for what, found in (
                (f"of {len(wanted)} names missing", sorted(wanted - names)),
                ("unknown names", sorted(names - wanted)),
                ("tensors of another shape", reshaped),
            )
            if found
        ]
        if reasons:
            raise self.wrong(path, "; ".join(reasons))

    def download(self, url: str, path: Path, digest: str) -> Path:
        """Download the file, whose SHA-256 begins with ``digest``, to ``path``. Raises ``BackendError``."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=digest)
        except (OSError, RuntimeError) as error:  # no network, no space, or another digest
            reason = f"the weights of {self.title} could not be downloaded ({error})"
            raise BackendError(f"{path}: {reason}. {self.how_to_get}") from error
        return path

    def load_into(self, module: nn.Module, path: Path, optional: Collection[str] = ()) -> None:
        """Load a file into ``module``; only ``optional`` names may be missing. Raises ``BackendError``."""
        state = self.read(path)
        shapes = {name: x.shape for name, x in module.state_dict().items()}
        self.check(path, state, {name: x for name, x in shapes.items() if name in state or name not in optional})
        module.load_state_dict(state, strict=False)  # checked above; only counters can differ
