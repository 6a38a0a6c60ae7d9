"""What the ``triton`` backend needs; asked without importing Triton, which only exists for some machines."""

from __future__ import annotations

import importlib.util
import os

import torch
from torch import Tensor

from unpaired.ops.checks import Formulation

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def interpreting() -> bool:
    """Whether Triton runs its kernels in Python, on any device: TRITON_INTERPRET, set before Triton is imported."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")


def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None


def _lacking_device() -> list[str]:
    if torch.version.cuda is None or not torch.cuda.is_available():
        return ["there is no CUDA device"]
    if torch.cuda.get_device_capability() < (8, 0):
        return [f"{torch.cuda.get_device_name()} is too old: compute capability 8.0 is needed"]
    return []


def missing() -> list[str]:
    """Reasons why it cannot run on this machine at all."""
    reasons = [] if _installed() else ["Triton is missing: pip install triton (Linux, NVIDIA)"]
    return reasons + ([] if interpreting() else _lacking_device())


def refusals(source: Tensor, formulation: Formulation) -> list[str]:
    """Reasons why it cannot run this request."""
    reasons = []
    if formulation == "published":
        reasons.append("formulation='published' needs the whole attention matrix, which only 'reference' keeps")
    if source.dtype not in _DTYPES:
        reasons.append(f"source must be float32, bfloat16 or float16, not {source.dtype}")
    if source.device.type != "cuda" and not interpreting():
        reasons.append(f"source must be on a CUDA device, not on {source.device}")
    return reasons


def only_by_name() -> list[str]:
    """Reasons why it is not chosen for those who name no backend."""
    if interpreting():
        return ["TRITON_INTERPRET is set, and the interpreter is for tests"]
    # Compiled for sm_90 and interpreted, but we had no GPU so far: benchmarks/gpu_session.py has to pass there first.
    return ["its kernels have not been run on a GPU by us yet; ask for it by name"]
