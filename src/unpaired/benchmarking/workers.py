"""The worker processes of a benchmark: training and scoring one run, and starting and stopping them here."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from unpaired.benchmarking.matrix import Cell, EvaluationOptions, find_held_out
from unpaired.benchmarking.runs import Run, is_trained
from unpaired.config import from_dict, to_dict
from unpaired.errors import ConfigError, UserError
from unpaired.evaluation import ScoringNetworks, append_record, evaluate_run
from unpaired.files import json_lines
from unpaired.plugins import load_plugins
from unpaired.run_folder import images_in_weights
from unpaired.training import RunConfig, train

_STOPPED = 130
"""Exit code of a worker that was asked to stop and saved."""
PAUSE = 0.1
"""Seconds between two polls of the workers."""
_PATIENCE = 120.0
"""Seconds to wait for a worker that a killed benchmark left behind, while it saves."""


def order_of(run: Run, options: EvaluationOptions) -> dict[str, Any]:
    """The job to train and evaluate a run, as plain values."""
    return {
        "name": run.name, "folder": str(run.folder), "config": run.config.to_mapping(), "data": run.cell.data,
        "evaluate": to_dict(options),
    }  # fmt: skip


def measuring_order_of(cell: Cell) -> dict[str, Any]:
    """The job to measure the speed of a cell, as plain values."""
    return {"name": f"measure-{cell.name}", "folder": None, "config": cell.config.to_mapping()}


def carry_out(order: Mapping[str, Any], device: str, threads: int) -> int:
    """Train (or resume) and evaluate a run, or measure a speed, in this process.

    Returns:
        0 done; 130 asked to stop, progress saved.

    Raises:
        UserError: As of training and evaluation.
    """
    config = RunConfig.from_mapping(order["config"], order["name"])
    config = replace(config, training=replace(config.training, accelerator=device, threads=threads))  # type: ignore[arg-type]
    if order["folder"] is None:
        return _measure(config)
    folder = Path(order["folder"])
    if not is_trained(folder, config.training.images):
        result = train(config, folder)
        if result.interrupted or not result.finished:
            return _STOPPED
    options = from_dict(EvaluationOptions, order["evaluate"], "evaluate")
    dataset = config.dataset
    request = {"domain": dataset.shown_domain} if dataset.domains is not None else {}
    print(f"evaluating on {order['data']}", flush=True)
    weights = {name: Path(file) for name, _, file in (entry.partition("=") for entry in options.weights)}
    evaluation = evaluate_run(
        folder, find_held_out(dataset), device=device, batch_size=options.batch_size, request=request,
        networks=ScoringNetworks(weights, device, download=options.download), names=options.metrics or None,
        paired=options.paired, seed=options.seed, intervals=options.intervals, report=print,
    )  # fmt: skip
    append_record(folder, evaluation, data=order["data"], images_seen=images_in_weights(folder))
    return 0


def _measure(config: RunConfig) -> int:
    """Print the seconds per image, loading included, of a short training in a temporary folder."""
    batch, steps = config.training.batch_size, 32
    training = replace(
        config.training, images=1000 * steps * batch, stop_after=steps * batch, log_every=4 * batch,
        sample_every=2000 * steps * batch, checkpoint_every=2000 * steps * batch, score_every=0,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="unpaired-speed-") as folder:
        if train(replace(config, training=training), Path(folder) / "run", quiet=True).interrupted:
            return _STOPPED
        lines = json_lines(Path(folder) / "run" / "log.jsonl")[2:]  # without the warm-up
    print(statistics.median(float(line["seconds_per_image"]) for line in lines), flush=True)
    return 0


def main() -> int:
    """Entry point of a worker: read a job from standard input, and stop when the process that wrote it ends."""
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    try:
        load_plugins()
        with FileLock(order.pop("lock"), timeout=_PATIENCE):
            return carry_out(order, order["device"], order["threads"])
    except Timeout:
        print(f"error: another process is still at work on {order['name']}; end it, then run this again")
        return 1
    except UserError as error:
        print(f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        return _STOPPED


def _end_with_the_parent() -> None:
    """Wait for the end of standard input, which only the parent holds open; then ask for a clean stop."""
    while os.read(0, 1):  # not sys.stdin, whose lock this thread would hold at exit
        pass
    os.kill(os.getpid(), signal.SIGTERM)


# ---------------------------------------------------------------------------------------------------------------------
# workers on this machine
# ---------------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class WorkerExit:
    """How a worker ended: its exit code, negative after a signal, and the last line that it printed."""

    code: int
    last_line: str = ""

    @property
    def stopped(self) -> bool:
        """Whether it was asked to stop."""
        return self.code in (_STOPPED, -signal.SIGTERM)

    @property
    def words(self) -> str:
        """The reason of the failure."""
        if self.code < 0:
            return f"killed by signal {-self.code}{' (out of memory?)' if self.code == -9 else ''}; {self.last_line}"
        return self.last_line.removeprefix("error: ") or f"exited with code {self.code} without a message"


@dataclass(frozen=True)
class LocalSlots:
    """Where workers run: one process per device at a time."""

    devices: Sequence[str]
    """cpu, cuda:N or mps, one per slot."""
    threads: int
    """CPU threads of each worker."""
    logs: Path
    """Folder for the output of workers."""
    say: Callable[[str], None]
    """Called when a worker starts."""

    @property
    def words(self) -> str:
        """Where, for messages."""
        return ", ".join(self.devices)

    def start(self, order: Mapping[str, Any], device: str) -> Any:
        """Start a job on a device; returns a :class:`Worker` or an object with its methods."""
        return Worker(self, order, device)


class Worker:
    """A process that does one job on one device."""

    def __init__(self, slots: LocalSlots, order: Mapping[str, Any], device: str) -> None:
        self.name, self.device = str(order["name"]), device
        self._log = slots.logs / f"{self.name}.log"
        lock = str(self._log.with_suffix(".lock"))
        told = {**order, "lock": lock, "device": device.partition(":")[0], "threads": slots.threads}
        slots.logs.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._start = log.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "unpaired.benchmarking.workers", self.name],
                stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, text=True,
                env=worker_environment(device, slots.threads), start_new_session=True,  # Ctrl-C is not theirs
            )  # fmt: skip
        slots.say(f"{self.name}: at work on {device}")
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # its exit will say why
            self.process.stdin.write(json.dumps(told) + "\n")
            self.process.stdin.flush()

    def exit(self) -> WorkerExit | None:
        """How it ended; ``None`` while it runs."""
        if (code := self.process.poll()) is None:
            return None
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        lines = self._log.read_bytes()[self._start :].decode("utf-8", "replace").splitlines()
        return WorkerExit(code, next((line.strip() for line in reversed(lines) if line.strip()), ""))

    def stop(self) -> None:
        """Let it save and end."""
        self.process.terminate()

    def wait(self) -> None:
        """Return when it has ended."""
        self.process.wait()

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()


def worker_environment(device: str, threads: int) -> dict[str, str]:
    """Environment of a worker: its threads, and only its own GPU visible."""
    kind, _, number = device.partition(":")
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if kind == "cuda" and given is not None:
        devices = [one.strip() for one in given.split(",") if one.strip()]
        if int(number) >= len(devices):
            raise ConfigError(f"slots: there is no {device}: CUDA_VISIBLE_DEVICES is '{given}'")
        number = devices[int(number)]
    limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    return {**os.environ, "CUDA_VISIBLE_DEVICES": number, **limits}


def work(
    slots: LocalSlots,
    orders: Sequence[Mapping[str, Any]],
    on_exit: Callable[[str, WorkerExit], None],
    on_tick: Callable[[], None],
) -> bool:
    """Do all jobs in this order; Ctrl-C lets the workers save.

    Args:
        slots: Where.
        orders: The jobs.
        on_exit: Called with the name of each job and how it ended.
        on_tick: Called several times a second.

    Returns:
        Whether the user interrupted.
    """
    waiting, free, workers = list(orders), list(slots.devices), list[Any]()
    with _signals_are_ctrl_c():
        try:
            while waiting or workers:
                while waiting and free:
                    order, device = waiting.pop(0), free.pop(0)
                    try:
                        workers.append(slots.start(order, device))
                    except (OSError, UserError) as error:
                        free.append(device)
                        on_exit(order["name"], WorkerExit(1, str(error)))
                for worker in list(workers):
                    if (how := worker.exit()) is not None:
                        workers.remove(worker)
                        free.append(worker.device)
                        on_exit(worker.name, how)
                on_tick()
                time.sleep(PAUSE)
        except KeyboardInterrupt:
            print(
                "Stopping: the runs at work save and end (Ctrl-C again ends them at once).", file=sys.stderr, flush=True
            )
            for worker in workers:
                worker.stop()
            with contextlib.suppress(KeyboardInterrupt):
                for worker in workers:
                    worker.wait()
            return True
        finally:
            for worker in workers:  # no effect on those that have ended
                worker.kill()
    return False


@contextlib.contextmanager
def _signals_are_ctrl_c() -> Iterator[None]:
    """Treat SIGTERM (a job manager) and SIGHUP (a closed terminal) like Ctrl-C."""
    previous = {}
    if threading.current_thread() is threading.main_thread():
        for name in {"SIGTERM", "SIGHUP"} & set(dir(signal)):
            previous[getattr(signal, name)] = signal.signal(getattr(signal, name), signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a benchmark's folder. Raises ``ConfigError`` if another benchmark holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "lock", timeout=0):
            yield
    except Timeout:
        raise ConfigError(
            f"{folder}: another benchmark is at work there; wait for it, or choose another --out"
        ) from None


if __name__ == "__main__":
    sys.exit(main())
