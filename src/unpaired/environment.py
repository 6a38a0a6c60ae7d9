"""The machine and this process: facts for records, memory, stop signals, and ending together with the parent."""

from __future__ import annotations

import ctypes
import datetime
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Ctrl-C, a job manager, a closed terminal."""


def end_with_parent(parent: int) -> None:
    """End this process when the one that started it is gone, however that ended: at once on Linux, else only now."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Context in which freed memory stays with this process, for the next step, instead of going back to the system.

    Otherwise every map of more than 32 MB is fetched page by page, some 100,000 page faults or a twentieth of a
    training step at 256 px on the CPU. Does nothing where the C library is not glibc.
    """
    library = ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
    trim_threshold, most_mappings = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h
    if library is not None:
        library.mallopt(trim_threshold, 2**31 - 1)
        library.mallopt(most_mappings, 0)
    try:
        yield
    finally:
        if library is not None:
            library.mallopt(trim_threshold, 128 << 10)  # glibc's own values
            library.mallopt(most_mappings, 65536)
            library.malloc_trim(0)


def environment() -> dict[str, Any]:
    """Versions, hardware, command and git state, as plain values."""
    packages = ("unpaired", "torch", "lightning-fabric", "numpy", "pillow", "safetensors")
    here = Path(__file__).parent
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join(sys.argv),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in packages},
        "git": {"commit": _git(here, "rev-parse", "HEAD"), "changed": _git(here, "status", "--porcelain", "--", ".")},
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def has_fast_bf16() -> bool:
    """Whether this processor has bf16 units: AMX or AVX512-BF16."""
    if hasattr(torch.cpu, "get_capabilities"):
        found = torch.cpu.get_capabilities()
        return bool(found.get("amx_bf16") or found.get("avx512_bf16"))
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()  # earlier versions of torch


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()[:2000]
