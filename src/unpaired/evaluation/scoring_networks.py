"""The pretrained networks that metrics use, loaded once, and a cache of features on disk."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from unpaired.errors import BackendError, ConfigError, nearest
from unpaired.evaluation.image_files import ImageFiles, in_colour
from unpaired.evaluation.metrics.distances import register_kid
from unpaired.evaluation.registry import METRICS
from unpaired.files import write_atomically
from unpaired.networks.pretrained import PRETRAINED, LoadedNetwork, Pretrained, load_pretrained
from unpaired.networks.weights import WeightsFile

_CHUNK = {"features": 32, "distance": 16, "segmenter": 4}
"""Images that pass through a network at a time; no value depends on it beyond rounding."""


def cache_folder() -> Path:
    """``UNPAIRED_CACHE`` if it is set, else the user's cache folder (``XDG_CACHE_HOME`` or ~/.cache) / unpaired."""
    named = os.environ.get("UNPAIRED_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unpaired"


class FeatureCache:
    """Features of sets of files, one .npy file per set. Entries that cannot be read or written are recomputed.

    Args:
        folder: Where the files lie; ``None`` caches nothing.
        limit_bytes: Size beyond which the files that were not used for the longest time are removed.
    """

    def __init__(self, folder: str | Path | None, limit_bytes: int = 2 << 30) -> None:
        self.folder, self.limit_bytes = None if folder is None else Path(folder), limit_bytes

    def get(self, key: str) -> Tensor | None:
        """The features that were kept under a key."""
        with contextlib.suppress(OSError, ValueError, EOFError):
            if self.folder is not None:
                found = torch.from_numpy(np.load(self._path(key), allow_pickle=False))
                os.utime(self._path(key))
                return found
        return None

    def put(self, key: str, features: Tensor) -> None:
        """Keep features (N, D)."""
        with contextlib.suppress(OSError):
            if self.folder is None:
                return
            self.folder.mkdir(parents=True, exist_ok=True)
            content = io.BytesIO()
            np.save(content, features.numpy())
            write_atomically(self._path(key), content.getvalue())
            files = sorted(self.folder.glob("*.npy"), key=lambda path: path.stat().st_mtime)
            sizes = [path.stat().st_size for path in files]
            for index, path in enumerate(files[:-1]):
                if sum(sizes[index:]) > self.limit_bytes:
                    path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"


def register_network(name: str, module: ModuleType) -> None:
    """Register a user's feature network as a scoring network, with the metric ``kid_<name>_x1e3``.

    Args:
        name: Its name; a network that is registered already stays.
        module: Has ``TITLE`` and ``FEATURES`` (words for the protocol: which layer, how many features, at which size),
            ``load(path)``, which returns a module that maps (B, 3, H, W) in [-1, 1] to features (B, D); may have
            ``LABEL``, its name in tables, and ``find()``, which returns the file of its weights if it is there.

    Raises:
        ConfigError: One of them is missing, or ``find`` of a module that is no file.
    """
    if name in PRETRAINED:
        return
    file, has_weights = getattr(module, "__file__", None), hasattr(module, "find")
    own = Path(file or module.__name__)
    missing = [part for part in ("TITLE", "FEATURES", "load") if not hasattr(module, part)]
    if not missing and not has_weights and file is None:
        missing = ["find (it is no file, whose digest would identify the network)"]
    if missing:
        raise ConfigError(f"network {name}: {own} defines no {', '.join(missing)}; see docs/metrics.md")
    PRETRAINED[name] = Pretrained(
        # Without weights of its own the Python file's digest identifies the network.
        WeightsFile(module.TITLE, f"It is loaded by {own}.", module.find if has_weights else lambda: own),
        "features",
        getattr(module, "PROTOCOL", module.FEATURES),
        module.load if has_weights else lambda path: module.load(None),
    )
    register_kid(name, getattr(module, "LABEL", name), module.FEATURES)


class ScoringNetworks:
    """Pretrained networks by name, loaded on first use.

    Args:
        paths: Name -> file of its weights, or a Python file for ``register_network``, which is run. Other networks
            are loaded from their default locations, if their weights are there.
        device: Where they run.
        download: Whether libraries may fetch weights that are not on this machine.
        cache: Where features of files are kept; unset: the user's cache folder.

    Raises:
        ConfigError: There is no network of that name.
    """

    def __init__(
        self,
        paths: Mapping[str, str | Path] | None = None,
        device: torch.device | str = "cpu",
        *,
        download: bool = False,
        cache: FeatureCache | None = None,
    ) -> None:
        self.paths = {name: Path(path) for name, path in (paths or {}).items()}
        for name, path in list(self.paths.items()):
            if path.suffix == ".py":
                register_network(name, _run_file(self.paths.pop(name)))
            elif name not in PRETRAINED:
                raise ConfigError(
                    f"network: there is no network '{name}'{nearest(name, PRETRAINED)}; known: {', '.join(PRETRAINED)}"
                    "; a network of your own is given as a Python file (docs/metrics.md)"
                )
        self.device = torch.device(device)
        self.download = download
        self.cache = cache if cache is not None else FeatureCache(cache_folder() / "features")
        self._loaded: dict[str, LoadedNetwork] = {}
        self._features: dict[str, Tensor] = {}

    def at_hand(self, name: str) -> bool:
        """Whether the network can be loaded: its weights are here, or may be downloaded."""
        row = PRETRAINED[name]
        return name in self.paths or row.weights.find() is not None or (self.download and row.download is not None)

    def load(self, name: str) -> LoadedNetwork:
        """Load a network, once.

        Raises:
            BackendError: Its weights are missing, damaged or not the published ones; the message says what to do.
        """
        if name not in self._loaded:
            found = load_pretrained(name, self.paths.get(name), device=self.device, allow_download=self.download)
            if not found.digest.startswith(PRETRAINED[name].published):
                raise BackendError(
                    f"{self.paths.get(name, name)}: these are not the published weights of {found.title} (the "
                    f"SHA-256 begins with {found.digest[:8]}, not {PRETRAINED[name].published}), so scores under its "
                    f"name could not be compared with any others. {PRETRAINED[name].weights.how_to_get}"
                )
            self._loaded[name] = found
        return self._loaded[name]

    def used(self) -> dict[str, dict[str, str]]:
        """What identifies the networks that were loaded so far."""
        return {name: {"title": net.title, "digest": net.digest} for name, net in self._loaded.items()}

    def callables(self, names: Sequence[str] | None) -> dict[str, Callable[..., Tensor]]:
        """The networks of the metrics ``names``; ``None``: all networks at hand.

        Raises:
            BackendError: A named row needs a network whose weights are missing.
        """
        rows = METRICS if names is None else {name: METRICS[name] for name in names}
        wanted = dict.fromkeys(network for row in rows.values() for network in row.networks)
        found: dict[str, Callable[..., Tensor]] = {}
        for network in wanted:
            base = network.partition(".")[0]
            if names is not None:
                self.load(base)  # missing weights are reported before any work
            if names is not None or self.at_hand(base):
                found[network] = self._callable(network)
        return found

    def _callable(self, network: str) -> Callable[..., Tensor]:
        base, _, method = network.partition(".")

        def call(*images: Tensor) -> Tensor:
            loaded = self.load(base)
            chunk = _CHUNK[loaded.kind]
            run = getattr(loaded.module, method) if method else loaded.module
            with torch.no_grad():
                parts = [
                    run(*(x[i : i + chunk].to(self.device) for x in images)) for i in range(0, len(images[0]), chunk)
                ]
            return torch.cat(parts).cpu()

        return call

    def file_features(self, name: str, files: ImageFiles) -> Tensor:
        """Features (N, D) of the images of files, computed once per set of files and cached on disk."""
        loaded = self.load(name)
        # What features depend on: the files, the network, and how a file became what the network is shown.
        key = ":".join((*files.digests, loaded.digest, loaded.protocol, files.how))
        if key not in self._features:
            found = self.cache.get(key)
            if found is None:
                run, images, size = self._callable(name), in_colour(files.images), _CHUNK["features"]
                found = torch.cat([run(torch.stack(images[i : i + size])) for i in range(0, len(images), size)])
                self.cache.put(key, found)
            self._features[key] = found
        return self._features[key]


def _run_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"{path}: cannot be run ({type(error).__name__}: {error})") from error
    return module
