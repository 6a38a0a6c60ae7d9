"""The workers of a benchmark as tasks of a Ray cluster, in the same run folders on a shared file system."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from unpaired.benchmarking.workers import PAUSE, LocalSlots, Worker, WorkerExit
from unpaired.files import ignore

_RETRIES = 3
"""How often an order is begun again whose Ray worker or machine was lost; it goes on from its last checkpoint."""


class RaySlots(LocalSlots):
    """As many slots as the cluster that this process is connected to has room for."""

    @property
    def words(self) -> str:
        return f"a Ray cluster with room for {len(self.devices)} of them"

    def start(self, order: Mapping[str, Any], device: str) -> Any:
        return _RayWorker(self, order, device)


class _RayWorker:
    """A task that carries out one order."""

    def __init__(self, slots: RaySlots, order: Mapping[str, Any], device: str) -> None:
        import ray

        self.name, self.device = str(order["name"]), device
        there = LocalSlots(slots.devices, slots.threads, slots.logs, ignore)
        task = ray.remote(_carry_out).options(
            name=self.name, num_cpus=slots.threads, num_gpus=int(device.startswith("cuda")), max_retries=_RETRIES
        )
        self._ray, self._task = ray, task.remote(there, dict(order), device, os.getcwd())

    def exit(self) -> WorkerExit | None:
        """How it ended; None while it runs."""
        if not self._ray.wait([self._task], timeout=0)[0]:
            return None
        try:
            return self._ray.get(self._task)
        except self._ray.exceptions.RayError as error:
            return WorkerExit(1, f"lost by Ray: {str(error).strip().partition(chr(10))[0]}")

    def stop(self) -> None:
        """Let it save and end."""
        self._ray.cancel(self._task)

    def wait(self) -> None:
        """Return when it has ended."""
        self._ray.wait([self._task])

    def kill(self) -> None:
        """End it at once."""
        self._ray.cancel(self._task, force=True)


def _carry_out(slots: LocalSlots, order: Mapping[str, Any], device: str, folder: str) -> WorkerExit:
    """In a Ray worker: a process as on one machine, which saves and ends where this one is interrupted or lost."""
    os.chdir(folder)
    worker = Worker(slots, order, device)
    try:
        while (how := worker.exit()) is None:
            time.sleep(PAUSE)
    except KeyboardInterrupt:
        worker.stop()
        worker.wait()
        raise
    return how
