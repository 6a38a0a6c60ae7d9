"""The table of pretrained networks for metrics, and their loading.

Images are always (B, 3, H, W) in [-1, 1]; each network resizes and normalises them, as ``protocol`` describes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from unpaired.errors import ConfigError, nearest
from unpaired.networks import drn, efficientnet_lite, espnet, inception, st_lpips
from unpaired.networks.weights import WeightsFile, file_digest

Kind = Literal["features", "segmenter", "distance"]


@dataclass(frozen=True)
class Pretrained:
    """One row of the table."""

    weights: WeightsFile
    kind: Kind
    """``features``: images -> (B, D). ``segmenter``: images -> labels (B, H, W). ``distance``: two batches -> (B,)."""
    protocol: str
    """In words: size and resizing of the images, normalisation, layer."""
    load: Callable[[Path | None], nn.Module]
    """Loads a file; ``None`` means its default path."""
    download: Callable[[], Path] | None = None
    """Downloads the file to its default path, where a library offers it."""
    published: str = ""
    """First digits of the SHA-256 of the published file, if known; standard score names are for these weights only."""


PRETRAINED: dict[str, Pretrained] = {
    "lite0": Pretrained(efficientnet_lite.WEIGHTS, "features", efficientnet_lite.PROTOCOL, efficientnet_lite.load,
                        published="57934424"),
    "inception": Pretrained(inception.WEIGHTS, "features", inception.PROTOCOL, inception.load, inception.download,
                            published="6726825d"),
    "espnet": Pretrained(espnet.WEIGHTS, "segmenter", espnet.PROTOCOL, espnet.load_espnet, published="343b0e77"),
    "drn_d_22": Pretrained(drn.WEIGHTS, "segmenter", drn.PROTOCOL, drn.load_drn_d_22),
    "st_lpips": Pretrained(st_lpips.WEIGHTS, "distance", st_lpips.PROTOCOL, st_lpips.load_st_lpips,
                           published="b356b382"),
}  # fmt: skip


@dataclass(frozen=True)
class LoadedNetwork:
    """A network in evaluation mode, without gradients, on its device."""

    name: str
    title: str
    kind: Kind
    protocol: str
    digest: str
    """The first 16 hex digits of the SHA-256 of the file that it was loaded from."""
    module: nn.Module

    def __call__(self, images_BCHW: Tensor, *more: Tensor) -> Tensor:
        """Output according to ``kind``, without autograd. The caller splits large sets into batches."""
        with torch.no_grad():
            return self.module(images_BCHW, *more)


def load_pretrained(
    name: str, path: Path | None = None, device: torch.device | str = "cpu", allow_download: bool = False
) -> LoadedNetwork:
    """Load a network of the table.

    Args:
        path: Its weights; ``None`` means their default path.
        allow_download: Download missing weights, where a library offers them.

    Raises:
        ConfigError: There is no network of that name.
        BackendError: A package or the weights are missing or do not fit; the message says what to do.
    """
    if name not in PRETRAINED:
        known = ", ".join(PRETRAINED)
        raise ConfigError(f"there is no pretrained network '{name}'{nearest(name, PRETRAINED)}; known: {known}")
    row = PRETRAINED[name]
    path = Path(path) if path is not None else row.weights.find()
    if path is None and allow_download and row.download is not None:
        path = row.download()
    module = row.load(path).requires_grad_(False).eval().to(device)
    assert path is not None  # else load() has raised, with a better message
    return LoadedNetwork(name, row.weights.title, row.kind, row.protocol, file_digest(path), module)
