"""A device slot: at most one worker process, its log, and its end."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from unpaired.benchmarking.worker import STOPPED, Order
from unpaired.errors import ConfigError
from unpaired.files import write_atomically


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a worker ended.

    Attributes:
        code: Its exit code; negative where a signal ended it.
        last_line: Of what it printed.
        seconds: How long it took.
    """

    code: int
    last_line: str
    seconds: float

    @property
    def stopped(self) -> bool:
        """Whether it was asked to end."""
        return self.code in (STOPPED, -signal.SIGTERM)

    @property
    def words(self) -> str:
        """Why it failed."""
        if self.code < 0:
            killed = f"killed by signal {-self.code}" + (" (out of memory?)" if self.code == -9 else "")
            return f"{killed}; last line: {self.last_line}" if self.last_line else killed
        return self.last_line.removeprefix("error: ") or f"ended with code {self.code} and no word"


class Slot:
    """One device and the worker on it.

    Args:
        number: Of the slot, from 0.
        device: cpu, cuda:N or mps.
        threads: CPU threads of a worker.
        out: The benchmark's folder.
        lock: Descriptor that workers inherit; see ``lock.locked``.
    """

    def __init__(self, number: int, device: str, threads: int, out: Path, lock: int) -> None:
        self.number, self.device, self.threads, self.out, self._lock = number, device, threads, out, lock
        self._process: subprocess.Popen[bytes] | None = None
        self._log = out / "logs"
        self._began = 0.0

    @property
    def idle(self) -> bool:
        return self._process is None

    def start(self, name: str, order: Order) -> None:
        """Start a worker on this device; it outlives neither the benchmark nor its own task."""
        training = {**order.config["training"], "accelerator": self.device.partition(":")[0], "threads": self.threads}
        order = dataclasses.replace(
            order, config={**order.config, "training": training}, device=self.device.partition(":")[0]
        )
        orders = self.out / "orders"
        for folder in (orders, self._log):
            folder.mkdir(parents=True, exist_ok=True)
        write_atomically(orders / f"{name}.json", json.dumps(dataclasses.asdict(order), indent=1).encode())
        path = self._log / f"{name}.log"
        path.touch()
        self._written, self._path, self._began = path.stat().st_size, path, time.monotonic()
        with path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "unpaired.benchmarking", str(orders / f"{name}.json")],
                stdin=subprocess.PIPE,  # its end is how the worker learns of ours
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment(),
                start_new_session=True,  # Ctrl-C is for us; we ask the worker to end
                pass_fds=() if sys.platform == "win32" else (self._lock,),
            )

    def _environment(self) -> dict[str, str]:
        kind, _, number = self.device.partition(":")
        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        visible = "" if kind != "cuda" else number
        if kind == "cuda" and given is not None:
            devices = [device.strip() for device in given.split(",") if device.strip()]
            if int(number) >= len(devices):
                raise ConfigError(f"slots: there is no {self.device}: CUDA_VISIBLE_DEVICES is '{given}'")
            visible = devices[int(number)]
        threads = str(self.threads)
        return {**os.environ, "CUDA_VISIBLE_DEVICES": visible, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}

    def ended(self) -> Ended | None:
        """How the worker ended, once; ``None`` while it is at work."""
        if self._process is None or (code := self._process.poll()) is None:
            return None
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None
        return Ended(code, self._last_line(), time.monotonic() - self._began)

    def _last_line(self) -> str:
        with self._path.open("rb") as file:
            file.seek(max(self._written, self._path.stat().st_size - 10_000))
            lines = file.read().decode("utf-8", "replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def ask_to_end(self) -> None:
        """Let the worker save and end."""
        if self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        """End the worker at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
