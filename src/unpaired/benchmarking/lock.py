"""One benchmark at a time in one folder, its workers included."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from unpaired.errors import ConfigError

_PATIENCE = 60.0
"""Seconds that workers whose benchmark was killed get to save and end."""


@contextmanager
def locked(folder: Path, say: Callable[[str], None]) -> Iterator[int]:
    """Hold the folder; yields the descriptor of the lock file, to be inherited by workers.

    The lock is free once every process that holds the descriptor is gone: nothing stays behind after a crash, and a
    new benchmark cannot begin a run that a worker of a killed one is still saving.

    Args:
        folder: The benchmark's folder; made if missing.
        say: Told when there is something to wait for.

    Raises:
        ConfigError: Another benchmark is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        deadline, waiting = time.monotonic() + _PATIENCE, False
        while not _lock(descriptor):
            holder = _holder(path)
            if holder is None or _alive(holder) or time.monotonic() > deadline:
                who = f"process {holder}" if holder is not None and _alive(holder) else "a worker of a killed benchmark"
                raise ConfigError(
                    f"{folder}: another benchmark is at work there ({who}); wait for it, or choose another --out"
                )
            if not waiting:
                say("Waiting for the workers of a benchmark that was killed: they save and end.")
                waiting = True
            time.sleep(0.2)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _holder(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


if sys.platform == "win32":

    def _lock(descriptor: int) -> bool:
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:

    def _lock(descriptor: int) -> bool:
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
