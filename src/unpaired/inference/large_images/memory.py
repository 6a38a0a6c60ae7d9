"""How much memory there is, and how much is taken."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from unpaired.errors import ConfigError


def free_memory(device: torch.device | str = "cpu") -> int:
    """Bytes that can still be taken on a device: of the machine, and of the container where one bounds it.

    Where the system does not say (not on Linux), 4 GiB.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found = [4 * 2**30]
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")] or found
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        if limit != "max":
            found.append(int(limit) - int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii")))
    except (OSError, ValueError):
        pass
    return max(0, min(found))


def taken_memory(device: torch.device | str = "cpu") -> int:
    """Bytes that this process has in memory; of a GPU, those of its tensors.

    Where the system does not say (not on Linux), 0.5 GiB.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 2**29


def memory_bound(gib: float | None, device: torch.device | str = "cpu") -> int:
    """Bytes that this process may take in all on a device: ``gib`` GiB; unset, what it has and half of what is free.

    Raises:
        ConfigError: The number is not above 0.
    """
    if gib is None:
        return taken_memory(device) + free_memory(device) // 2
    if not 0 < gib < float("inf"):
        raise ConfigError(f"memory_gib must be above 0 and finite, not {gib}")
    return int(gib * 2**30)
