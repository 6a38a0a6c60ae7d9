"""What the processes of a benchmark do, and the slots of this machine that they run in."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
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
from unpaired.run_folder import images_in_weights
from unpaired.training import RunConfig, train

_STOPPED = 130
"""Exit code of a worker that was asked to end and saved."""
_PATIENCE = 120.0
"""Seconds that the worker of a benchmark that was killed gets to save and end."""


def order_of(run: Run, options: EvaluationOptions) -> dict[str, Any]:
    """What a worker has to know to train and evaluate a run, as plain values."""
    return {
        "name": run.name, "folder": str(run.folder), "config": run.config.to_mapping(), "data": run.cell.data,
        "evaluate": to_dict(options),
    }  # fmt: skip


def measuring_order_of(cell: Cell) -> dict[str, Any]:
    """What a worker has to know to measure the speed of a cell, as plain values."""
    return {"name": f"measure-{cell.name}", "folder": None, "config": cell.config.to_mapping()}


def carry_out(order: Mapping[str, Any], device: str, threads: int) -> int:
    """Train and evaluate a run, going on where it is, or measure a speed; in any process, with one device to be seen.

    Args:
        order: Of ``order_of`` or ``measuring_order_of``.
        device: cpu, cuda or mps.
        threads: CPU threads.

    Returns:
        0 done, 130 asked to end: what was trained is saved.

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
    request = {} if dataset.domains is None else {"domain": dataset.scored_pair()[1]}
    print(f"evaluating on {order['data']}", flush=True)
    weights = {name: Path(file) for name, _, file in (entry.partition("=") for entry in options.weights)}
    evaluation = evaluate_run(
        folder, find_held_out(dataset), device=device, batch_size=options.batch_size, request=request,
        networks=ScoringNetworks(weights, device, download=options.download), names=options.metrics or None,
        paired=options.paired, seed=options.seed, intervals=options.intervals, report=print,
    )  # fmt: skip
    _end_last_line(folder / "evaluations.jsonl")
    append_record(folder, evaluation, data=order["data"], images_seen=images_in_weights(folder))
    return 0


def _end_last_line(path: Path) -> None:
    """End a line that a power loss cut short, so that the next one stands alone."""
    if path.exists() and (content := path.read_bytes()) and not content.endswith(b"\n"):
        with path.open("ab") as file:
            file.write(b"\n")


def _measure(config: RunConfig) -> int:
    """Print the seconds per image of some steps with their loading, trained in a folder that is thrown away."""
    batch, steps = config.training.batch_size, 32
    training = replace(
        config.training, images=1000 * steps * batch, stop_after=steps * batch, log_every=4 * batch,
        sample_every=2000 * steps * batch, checkpoint_every=2000 * steps * batch, score_every=0,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="unpaired-speed-") as folder:
        if train(replace(config, training=training), Path(folder) / "run", quiet=True).interrupted:
            return _STOPPED
        lines = json_lines(Path(folder) / "run" / "log.jsonl")[2:]  # the first ones warm up
    print(statistics.median(float(line["seconds_per_image"]) for line in lines), flush=True)
    return 0


def main() -> int:
    """What a slot starts: read an order from standard input, and end with the process that wrote it."""
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    try:
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
    """Wait for the end of standard input, which only the parent holds open; then ask for a clean end."""
    while os.read(0, 1):  # not sys.stdin, whose lock this thread would hold when the process ends
        pass
    os.kill(os.getpid(), signal.SIGTERM)


# ---------------------------------------------------------------------------------------------------------------------
# workers on this machine
# ---------------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class WorkerExit:
    """How a worker ended: its exit code, negative where a signal ended it, and the last line that it printed."""

    code: int
    last_line: str = ""

    @property
    def stopped(self) -> bool:
        """Whether it was asked to end."""
        return self.code in (_STOPPED, -signal.SIGTERM)

    @property
    def words(self) -> str:
        """Why it failed."""
        if self.code < 0:
            return f"killed by signal {-self.code}{' (out of memory?)' if self.code == -9 else ''}; {self.last_line}"
        return self.last_line.removeprefix("error: ") or f"ended with code {self.code} and no word"


class LocalSlots:
    """One worker process per device at a time. A cluster would offer the same: ``submit``, ``stop`` and ``kill``.

    Args:
        devices: cpu, cuda:N or mps, one per slot.
        threads: CPU threads of each worker.
        logs: Folder for what workers print.
        say: Told when a worker starts.
    """

    def __init__(self, devices: Sequence[str], threads: int, logs: Path, say: Callable[[str], None]) -> None:
        self._threads, self._logs, self._say = threads, logs, say
        self._devices = queue.SimpleQueue[str]()
        for device in devices:
            self._devices.put(device)
        self._pool = ThreadPoolExecutor(len(devices))  # a thread waits for each process
        self._lock, self._stopping, self._processes = threading.Lock(), False, set[subprocess.Popen[str]]()
        logs.mkdir(parents=True, exist_ok=True)

    def submit(self, order: Mapping[str, Any]) -> Future[WorkerExit]:
        """Carry out an order as soon as a device is free."""
        return self._pool.submit(self._run, order)

    def stop(self) -> None:
        """Start nothing more, and let the workers save and end."""
        with self._lock:
            self._stopping = True
            for process in self._processes:
                process.terminate()

    def kill(self) -> None:
        """End the workers at once."""
        self.stop()
        for process in list(self._processes):
            process.kill()

    def _run(self, order: Mapping[str, Any]) -> WorkerExit:
        device, path = self._devices.get(), self._logs / f"{order['name']}.log"
        told = {
            **order,
            "lock": str(path.with_suffix(".lock")),
            "device": device.partition(":")[0],
            "threads": self._threads,
        }
        try:
            with path.open("a+b") as log:
                start = log.seek(0, os.SEEK_END)
                with self._lock:
                    if self._stopping:
                        return WorkerExit(_STOPPED)
                    process = subprocess.Popen(
                        [sys.executable, "-m", "unpaired.benchmarking.workers", order["name"]],
                        stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, text=True,
                        env=worker_environment(device, self._threads), start_new_session=True,  # Ctrl-C is for us
                    )  # fmt: skip
                    self._processes.add(process)
                self._say(f"{order['name']}: at work on {device}")
                assert process.stdin is not None
                with contextlib.suppress(BrokenPipeError):  # its end says why
                    process.stdin.write(json.dumps(told) + "\n")
                    process.stdin.flush()
                code = process.wait()
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()
                with self._lock:
                    self._processes.remove(process)
                log.seek(start)
                lines = log.read().decode("utf-8", "replace").splitlines()
            return WorkerExit(code, next((line.strip() for line in reversed(lines) if line.strip()), ""))
        except (OSError, UserError) as error:
            return WorkerExit(1, str(error))
        finally:
            self._devices.put(device)


def worker_environment(device: str, threads: int) -> dict[str, str]:
    """Variables of a worker: its threads, and one device to be seen."""
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
    ended: Callable[[str, WorkerExit], None],
    look: Callable[[], None],
) -> bool:
    """Carry out all orders; a person's Ctrl-C lets the workers save.

    Args:
        slots: Where.
        orders: What, in this order.
        ended: Called with the name of each order and how it ended.
        look: Called every second.

    Returns:
        Whether a person interrupted.
    """
    names: dict[Future[WorkerExit], str] = {}
    with _signals_are_ctrl_c():
        try:
            names |= {slots.submit(order): order["name"] for order in orders}
            pending = set(names)
            while pending:
                done, pending = wait(pending, timeout=1, return_when=FIRST_COMPLETED)
                for future in done:
                    ended(names[future], future.result())
                look()
        except KeyboardInterrupt:
            print(
                "Stopping: the runs at work save and end (Ctrl-C again ends them at once).", file=sys.stderr, flush=True
            )
            slots.stop()
            try:
                wait(names)
            except KeyboardInterrupt:
                slots.kill()
            return True
        except BaseException:
            slots.kill()
            raise
    return False


@contextlib.contextmanager
def _signals_are_ctrl_c() -> Iterator[None]:
    """A job manager's SIGTERM and a closed terminal end a benchmark as Ctrl-C does."""
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
    """Hold a benchmark's folder. Raises ``ConfigError`` where another benchmark does."""
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
