"""The networks that scores ask for: found, loaded once, and wrapped in the cache of features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from unpaired.errors import BackendError, ConfigError, nearest
from unpaired.metrics import METRICS
from unpaired.networks.pretrained import PRETRAINED, LoadedNetwork, load_pretrained
from unpaired.scoring.cache import FeatureCache, cache_folder
from unpaired.scoring.images import ColourImages, ImageFiles

_CHUNK = {"features": 32, "distance": 16, "segmenter": 4}
"""Images that pass through a network at a time; no value depends on it beyond rounding."""


class ScoringNetworks:
    """Pretrained networks by name, loaded on first use.

    Args:
        weights: Name -> file of its weights; those not named are taken where they usually lie, if they lie there.
        device: Where they run.
        download: Whether libraries may fetch weights that are not on this machine.
        cache: Where features of files are kept.
    """

    def __init__(
        self,
        weights: Mapping[str, Path] | None = None,
        device: torch.device | str = "cpu",
        *,
        download: bool = False,
        cache: FeatureCache | None = None,
    ) -> None:
        self.weights = dict(weights or {})
        for name in self.weights:
            if name not in PRETRAINED:
                raise ConfigError(
                    f"weights: there is no network '{name}'{nearest(name, PRETRAINED)}; known: {', '.join(PRETRAINED)}"
                )
        self.device = torch.device(device)
        self.download = download
        self.cache = cache if cache is not None else FeatureCache(cache_folder() / "features.sqlite")
        self._loaded: dict[str, LoadedNetwork] = {}

    def at_hand(self, name: str) -> bool:
        """Whether the network can be loaded without asking anybody."""
        row = PRETRAINED[name]
        return name in self.weights or row.find() is not None or (self.download and row.download is not None)

    def load(self, name: str) -> LoadedNetwork:
        """Load a network, once.

        Raises:
            BackendError: Its weights are missing, damaged or not the published ones; the message says what to do.
        """
        if name not in self._loaded:
            found = load_pretrained(name, self.weights.get(name), device=self.device, allow_download=self.download)
            if not found.digest.startswith(PRETRAINED[name].published):
                raise BackendError(
                    f"{self.weights.get(name, name)}: these are not the published weights of {found.title} (the "
                    f"SHA-256 begins with {found.digest[:8]}, not {PRETRAINED[name].published}), so scores by its name "
                    f"would compare with nobody's. {PRETRAINED[name].how_to_get}"
                )
            self._loaded[name] = found
        return self._loaded[name]

    def used(self) -> dict[str, dict[str, str]]:
        """What identifies the networks that were loaded so far."""
        return {name: {"title": net.title, "digest": net.digest} for name, net in self._loaded.items()}

    def callables(self, names: Sequence[str] | None) -> dict[str, Callable[..., Tensor]]:
        """What the rows ``names`` of ``METRICS`` ask for; ``None``: what can be had without asking anybody.

        Raises:
            BackendError: A named row needs a network whose weights are missing.
        """
        rows = METRICS if names is None else {name: METRICS[name] for name in names}
        wanted = dict.fromkeys(network for row in rows.values() for network in row.networks)
        found: dict[str, Callable[..., Tensor]] = {}
        for network in wanted:
            base = network.partition(".")[0]
            if names is not None:
                self.load(base)  # so that a person hears of missing weights at once
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
        """Features (N, D) of the images of files; only those that the cache does not know are computed."""
        loaded = self.load(name)
        # What a feature depends on: the file, the network, and how the file became what the network is shown.
        keys = [f"{digest}:{loaded.digest}:{loaded.protocol}:{files.how}" for digest in files.digests]
        known = self.cache.get(keys)
        missing = [index for index, key in enumerate(keys) if key not in known]
        run, images = self._callable(name), ColourImages(files.images)
        size = _CHUNK["features"]
        for start in range(0, len(missing), size):
            part = missing[start : start + size]
            fresh = dict(zip((keys[i] for i in part), run(torch.stack([images[i] for i in part])), strict=True))
            self.cache.put(fresh)
            known |= fresh
        return torch.stack([known[key] for key in keys])
