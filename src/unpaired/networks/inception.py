"""The Inception network of FID, from torch-fidelity: 2048 features of the 2015 TensorFlow graph."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path

import torch
from torch import Tensor, nn

from unpaired.errors import BackendError
from unpaired.networks.weights import WeightsFile

URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
FILES = ("weights-inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05-6726825d.pth")
"""File names of torch-fidelity and pytorch-fid, for the same file."""
_DIGEST = "6726825d"


def cached() -> Path:
    """Path of torch-fidelity's download."""
    return Path(torch.hub.get_dir()) / "checkpoints" / FILES[0]


def _find() -> Path | None:
    if importlib.util.find_spec("torch_fidelity") is None:
        return None  # the weights are useless without the package
    return next((path for path in (cached().with_name(name) for name in FILES) if path.is_file()), None)


WEIGHTS = WeightsFile(
    "Inception-v3 of FID",
    f"Download {URL} and pass --network inception=PATH, or put it where torch-fidelity and torchmetrics look "
    f"({cached()}), or allow it with --download.",
    _find,
)
PROTOCOL = (
    "images rounded to 8 bits, resized to 299 x 299 as TensorFlow 1 does (bilinear, no anti-aliasing), by "
    "torch-fidelity; 2048 pooled features of the graph of 2015-12-05"
)


class Inception(nn.Module):
    """Images (B, 3, H, W) in [-1, 1] -> pooled features (B, 2048).

    Args:
        extractor: ``FeatureExtractorInceptionV3`` of torch-fidelity, which takes uint8 and resizes.
    """

    def __init__(self, extractor: nn.Module) -> None:
        super().__init__()
        self.extractor = extractor

    def forward(self, images_BCHW: Tensor) -> Tensor:
        levels = ((images_BCHW.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        return self.extractor(levels)[0]


def load(path: Path | None = None) -> Inception:
    """The network with the weights of ``path``, or of torch hub's cache.

    Raises:
        BackendError: torch-fidelity is not installed, or the weights are missing or do not fit.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise BackendError(
            f"{WEIGHTS.title} is run by torch-fidelity, which cannot be imported ({error}); "
            'pip install "unpaired[metrics]"'
        ) from error
    found = WEIGHTS.locate(path)
    # torch-fidelity unpickles arbitrary objects, so it gets tensors that were read safely.
    safe = io.BytesIO()
    torch.save(WEIGHTS.read(found), safe)
    safe.seek(0)
    try:
        return Inception(FeatureExtractorInceptionV3("unpaired", ["2048"], feature_extractor_weights_path=safe)).eval()
    except RuntimeError as error:  # load_state_dict found other names or shapes
        lines = [line.strip() for line in str(error).splitlines()[1:3]]
        raise WEIGHTS.wrong(found, f"other names or shapes ({' '.join(lines)[:200]})") from error


def download() -> Path:
    """Download the weights into torch-fidelity's cache. Raises ``BackendError``."""
    return WEIGHTS.download(URL, cached(), _DIGEST)
