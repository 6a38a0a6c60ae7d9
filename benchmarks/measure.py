"""What the benchmarks share: works timed in turns, peak memory, the machine's peak, and the record of a measurement.

A script says what to measure and adds rows to a :class:`Record`; OUT.json and OUT.md are written after each of them.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from unpaired.environment import environment
from unpaired.methods import METHODS, Method
from unpaired.ops.winograd import direct_convolutions

SHARED = Path(os.environ.get("SHARED", Path(__file__).resolve().parents[2] / "shared")) / "data"


@dataclass
class Times:
    """Wall and CPU seconds of each call."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        return {"seconds": statistics.median(self.wall), "cpu_seconds": statistics.median(self.cpu),
                "times": len(self.wall)}  # fmt: skip

    def ratio(self, other: Times) -> float:
        """How many times as long ``other`` takes: the median over calls that were neighbours in time."""
        return statistics.median(b / a for a, b in zip(self.wall, other.wall, strict=True))


def wait(device: str = "cpu") -> None:
    """Wait for the work of a GPU."""
    if device != "cpu":
        torch.cuda.synchronize()


def in_turns(
    works: Mapping[str, Callable[[], object]], rounds: int, *, device: str = "cpu", warm_up: int = 1
) -> dict[str, Times]:
    """Time works in turns, so that other load meets all of them alike."""
    for work in works.values():
        for _ in range(warm_up):
            work()
    found = {name: Times() for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            wait(device)
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            wait(device)
            found[name].wall.append(time.perf_counter() - wall)
            found[name].cpu.append(time.process_time() - cpu)
    return found


def peak_gib(work: Callable[[], object], device: str = "cpu") -> float:
    """Memory that ``work`` takes at its peak beyond what was there before; on the CPU in Linux with glibc only."""
    wait(device)
    if device != "cpu":
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return (torch.cuda.max_memory_allocated() - before) / 2**30
    ctypes.CDLL(None).malloc_trim(0)  # pages that were freed would be used again unseen
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident_gib("VmRSS:")
    work()
    return _resident_gib("VmHWM:") - before


def _resident_gib(name: str) -> float:
    return int(Path("/proc/self/status").read_text().partition(name)[2].split()[0]) / 2**20


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function in a process of its own, with this one's threads."""
    with multiprocessing.get_context("spawn").Pool(1, torch.set_num_threads, (torch.get_num_threads(),)) as pool:
        return pool.apply(function, arguments)


def gemm_tflops(dtype: torch.dtype = torch.float32, size: int = 2048, device: str = "cpu") -> float:
    """The machine's matrix product of this dtype at the present threads and precision settings, the best of nine."""
    a, b = torch.randn(2, size, size, device=device).to(dtype)
    return 2 * size**3 / min(in_turns({"": lambda: a @ b}, 9, device=device)[""].wall) / 1e12


def gflop(work: Callable[[], object]) -> float:
    """What ``work`` computes with direct convolutions; a multiplication and an addition are two."""
    with FlopCounterMode(display=False) as counter, direct_convolutions():
        work()
    return counter.get_total_flops() / 1e9


@contextmanager
def products(tf32: bool) -> Iterator[None]:
    """TF32 in matrix products and convolutions, or full float32."""
    before = torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = before


def untrained(name: str, **settings: Any) -> Method:
    """A method with random weights, always the same; settings that it does not have are left out."""
    torch.manual_seed(0)
    settings = {"domains": ("a", "b", "c"), "feature_network": "vgg16_untrained", **settings}
    config = METHODS[name].Config
    return METHODS[name](config(**{k: value for k, value in settings.items() if k in config.__dataclass_fields__}))


class Record:
    """Rows by table, the machine, its load and what was asked for, in OUT.json and OUT.md."""

    def __init__(self, out: Path, title: str, **facts: Any) -> None:
        self.out, self.title, self.facts = out, title, facts
        self.tables: dict[str, list[dict[str, Any]]] = {}
        self._load, self._started = os.getloadavg()[0], time.perf_counter()
        out.parent.mkdir(parents=True, exist_ok=True)

    def add(self, table: str, **row: Any) -> None:
        """Add a row, print it, and write everything."""
        self.tables.setdefault(table, []).append(row)
        print(table, {key: shown(value) for key, value in row.items()}, flush=True)
        facts = {"minutes": (time.perf_counter() - self._started) / 60, "processor": processor(),
                 "load_average": [self._load, os.getloadavg()[0]], "threads": torch.get_num_threads()}  # fmt: skip
        result = {"title": self.title, **self.facts, **facts, "environment": environment(), "tables": self.tables}
        self.out.with_suffix(".json").write_text(json.dumps(result, indent=1, default=str) + "\n")
        lines = [f"# {self.title}", ""]
        for name, rows in self.tables.items():
            lines += [f"## {name}", "", *markdown(rows), ""]
        written = {**self.facts, **facts, "command": result["environment"]["command"],
                   "commit": result["environment"]["git"]["commit"], "torch": torch.__version__}  # fmt: skip
        lines += [f"- {key}: {shown(value)}" for key, value in written.items()]
        self.out.with_suffix(".md").write_text("\n".join(lines) + "\n")


def markdown(rows: list[dict[str, Any]]) -> list[str]:
    """Lines of a table with a column for every key."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[shown(row.get(key, "")) for key in keys] for row in rows]
    return ["| " + " | ".join(line) + " |" for line in (keys, ["---"] * len(keys), *cells)]


def shown(value: Any) -> str:
    """A value in a table: four digits, lists and intervals in words."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value))
    return "" if value is None else str(value).replace("|", "\\|")


def processor() -> str:
    """The processor's name and its widest instructions, or the GPU's name."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    name = text.partition("model name")[2].partition("\n")[0].strip("\t: ")
    flags = [word for word in ("avx2", "avx512f", "amx_bf16") if f" {word} " in text]
    return f"{name or 'unknown'} ({', '.join(flags)})"
