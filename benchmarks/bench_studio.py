"""Latency and memory of the studio: a picture through HTTP as a browser sends it, many times over.

    python benchmarks/bench_studio.py runs/demo --requests 200 --side 256 --out benchmarks/results/studio_cpu2_202611

Starts ``unpaired studio RUN`` in a process of its own, and per request uploads a new picture, joins the queue, waits
for the result and fetches the translation. Memory is the resident set of the server, from /proc, so this runs on Linux.
All requests come from one page; with --reload each comes from a page of its own. Writes OUT.md and OUT.json.
"""

from __future__ import annotations

import io
import json
import os
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from PIL import Image
from tyro.conf import Positional

from unpaired.environment import environment

PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Options:
    """What to measure."""

    run: Positional[Annotated[Path, "A run folder."]]
    out: Path
    """Prefix of the files written."""
    requests: int = 200
    """Requests that are timed."""
    warm_up: int = 10
    """Requests before them; memory is compared from then on."""
    side: int = 256
    """Side of the pictures in pixels."""
    reload: bool = False
    """Each request from a page of its own, as if it had been loaded again; else all from one page."""


class Browser:
    """Speaks with the page as its script does."""

    def __init__(self, address: str, reload: bool) -> None:
        self.address, self._reload = address, reload
        self._session = secrets.token_hex(8)
        config = json.loads(self._ask("config"))
        ids = {part["props"].get("elem_id"): part["id"] for part in config["components"]}
        (self._event,) = [
            event for event in config["dependencies"] if [ids["translate"], "click"] in map(list, event["targets"])
        ]
        values = {part["id"]: part["props"].get("value") for part in config["components"]}
        self._inputs = [values.get(number) for number in self._event["inputs"]]
        self._slider = self._event["outputs"].index(ids["slider"])

    def _ask(self, path: str, **options: Any) -> bytes:
        with urllib.request.urlopen(urllib.request.Request(self.address + path, **options), timeout=600) as answer:
            return answer.read()

    def translate(self, picture: bytes) -> bytes:
        """Upload, translate, fetch."""
        edge = secrets.token_hex(8)
        head = f'--{edge}\r\nContent-Disposition: form-data; name="files"; filename="picture.png"\r\n'
        body = f"{head}Content-Type: image/png\r\n\r\n".encode() + picture + f"\r\n--{edge}--\r\n".encode()
        kind = {"Content-Type": f"multipart/form-data; boundary={edge}"}
        (path,) = json.loads(self._ask("gradio_api/upload", data=body, headers=kind, method="POST"))
        file = {"path": path, "meta": {"_type": "gradio.FileData"}, "orig_name": "picture.png"}
        session = secrets.token_hex(8) if self._reload else self._session
        wanted = {
            "data": [[{"image": file, "caption": None}], *self._inputs[1:]],
            "fn_index": self._event["id"],
            "session_hash": session,
        }
        self._ask(
            "gradio_api/queue/join", data=json.dumps(wanted).encode(), method="POST",
            headers={"Content-Type": "application/json"},
        )  # fmt: skip
        made = self._result(session)["data"][self._slider][1]["path"]
        return self._ask(f"gradio_api/file={made}")

    def _result(self, session: str) -> dict[str, Any]:
        """Read the stream to its end: one left open would take the messages of the page's next request."""
        found: dict[str, Any] = {}
        address = f"{self.address}gradio_api/queue/data?session_hash={session}"
        with urllib.request.urlopen(address, timeout=600) as lines:
            for line in lines:
                told = json.loads(line[5:]) if line.startswith(b"data:") else {}
                if told.get("msg") == "process_completed":
                    found = told
        if not found.get("success"):
            raise SystemExit(f"the studio answered {found.get('output', 'nothing')}")
        return found["output"]


def resident_mib(process: int) -> float:
    """Resident memory of a process in MiB."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * PAGE / 2**20


def picture(side: int, seed: int) -> bytes:
    """A smooth random picture as PNG."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    held = io.BytesIO()
    Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(held, "PNG")
    return held.getvalue()


def measure(options: Options, process: subprocess.Popen[str], address: str) -> dict[str, Any]:
    """Time the requests and watch the server's memory."""
    browser = Browser(address, options.reload)
    seconds, memory = [], []
    for number in range(options.warm_up + options.requests):
        sent = picture(options.side, number)
        begun = time.perf_counter()
        with Image.open(io.BytesIO(browser.translate(sent))) as made:
            assert min(made.size) >= options.side
        seconds.append(time.perf_counter() - begun)
        memory.append(round(resident_mib(process.pid), 1))
    timed = seconds[options.warm_up :]
    return {
        "requests": options.requests,
        "side": options.side,
        "reload": options.reload,
        "median_seconds": statistics.median(timed),
        "p95_seconds": float(np.quantile(timed, 0.95)),
        "memory_mib_before": memory[options.warm_up - 1],
        "memory_mib_after": memory[-1],
        "memory_mib_largest": max(memory),
        "seconds": [round(value, 4) for value in timed],
        "memory_mib": memory,
    }


def main() -> None:
    """Start a studio, measure, write the record."""
    options = tyro.cli(Options)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "unpaired", "studio", str(options.run.resolve()), "--port", "0"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder)
        try:
            assert process.stdout is not None
            process.stdout.readline()
            address = process.stdout.readline().split()[1]
            found = measure(options, process, address)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)
    description = json.loads((options.run / "weights" / "model.json").read_text())
    record = {"run": description, "load_average": load, **found, "environment": environment()}
    options.out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    grown = found["memory_mib_after"] - found["memory_mib_before"]
    options.out.with_suffix(".md").write_text(
        f"# Studio: {found['requests']} pictures of {options.side} x {options.side} pixels through HTTP\n\n"
        f"{description['method']}, {os.cpu_count()} cores, load average at the start {load:.1f}. A request is upload, "
        f"queue, translation and download; {'a page each' if options.reload else 'all from one page'}.\n\n"
        "| median | 95 % | memory before | after | grown | largest |\n|---|---|---|---|---|---|\n"
        f"| {found['median_seconds']:.2f} s | {found['p95_seconds']:.2f} s | {found['memory_mib_before']:.0f} MiB "
        f"| {found['memory_mib_after']:.0f} MiB | {grown:+.1f} MiB | {found['memory_mib_largest']:.0f} MiB |\n"
    )
    print(options.out.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
