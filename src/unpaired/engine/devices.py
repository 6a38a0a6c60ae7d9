"""The one choice of a device, for training, translating and scoring."""

from __future__ import annotations

import torch

from unpaired.errors import BackendError


def choose_device(device: str | torch.device, setting: str = "device") -> torch.device:
    """Resolve ``"auto"`` (CUDA, else Apple's mps, else the CPU), and check that a named device exists.

    Args:
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        setting: Where it was given, for messages.

    Raises:
        BackendError: It does not, or the name is unknown.
    """
    if str(device) == "auto":
        mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise BackendError(f"{setting}: '{device}' is not a device; use auto, cpu, cuda, cuda:N or mps") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise BackendError(f"{setting}: '{device}' was asked for, but this machine has no usable CUDA device; use cpu")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise BackendError(
            f"{setting}: '{device}' was asked for, but the last GPU here is cuda:{torch.cuda.device_count() - 1}"
        )
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise BackendError(f"{setting}: '{device}' was asked for, but this machine has no usable Apple GPU; use cpu")
    if chosen.type not in ("cpu", "cuda", "mps"):
        raise BackendError(f"{setting}: '{device}' cannot be used here; use auto, cpu, cuda, cuda:N or mps")
    return chosen
