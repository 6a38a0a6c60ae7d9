"""Latency and memory of the studio: a picture through HTTP as a browser sends it, many times over.

    python benchmarks/bench_studio.py runs/demo --requests 200 --side 256 --out benchmarks/results/studio_cpu2_202611

Starts ``unpaired studio RUN`` in a process of its own, and per request uploads a new picture, joins the queue, waits
for the result and fetches the translation; all from one page, with --reload each from a page of its own. Memory is the
resident set of the server, from /proc, so this runs on Linux.
"""

from __future__ import annotations

import io
import json
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import tyro
from PIL import Image

from measure import Record


class Browser:
    """Speaks with the page as its script does."""

    def __init__(self, address: str, reload: bool) -> None:
        self._client = httpx.Client(base_url=address, timeout=600)
        self._reload, self._session = reload, secrets.token_hex(8)
        config = self._client.get("config").json()
        ids = {part["props"].get("elem_id"): part["id"] for part in config["components"]}
        (self._event,) = [
            event for event in config["dependencies"] if [ids["translate"], "click"] in map(list, event["targets"])
        ]
        values = {part["id"]: part["props"].get("value") for part in config["components"]}
        self._inputs = [values.get(number) for number in self._event["inputs"]]
        self._slider = self._event["outputs"].index(ids["slider"])

    def translate(self, picture: bytes) -> bytes:
        """Upload, translate, fetch."""
        (path,) = self._client.post("gradio_api/upload", files={"files": ("picture.png", picture, "image/png")}).json()
        file = {"path": path, "meta": {"_type": "gradio.FileData"}, "orig_name": "picture.png"}
        session = secrets.token_hex(8) if self._reload else self._session
        data = [[{"image": file, "caption": None}], *self._inputs[1:]]
        wanted = {"data": data, "fn_index": self._event["id"], "session_hash": session}
        self._client.post("gradio_api/queue/join", json=wanted)
        found: dict[str, Any] = {}
        with self._client.stream("GET", f"gradio_api/queue/data?session_hash={session}") as answer:
            for line in answer.iter_lines():  # to the end: it would take the messages of the page's next request
                told = json.loads(line[5:]) if line.startswith("data:") else {}
                found = told if told.get("msg") == "process_completed" else found
        if not found.get("success"):
            raise SystemExit(f"the studio answered {found.get('output', 'nothing')}")
        return self._client.get(f"gradio_api/file={found['output']['data'][self._slider][1]['path']}").content


def picture(side: int, seed: int) -> bytes:
    """A smooth random picture as PNG."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    held = io.BytesIO()
    Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(held, "PNG")
    return held.getvalue()


def main(run: Annotated[Path, tyro.conf.Positional], out: Path, requests: int = 200, warm_up: int = 10,
         side: int = 256, reload: bool = False) -> None:  # fmt: skip
    """Start a studio, measure and write OUT.json and OUT.md.

    Args:
        run: A run folder.
        out: Name of the result files, without suffix.
        requests: Requests that are timed.
        warm_up: Requests before them; memory is compared from then on.
        side: Side of the pictures in pixels.
        reload: Each request from a page of its own, as if it had been loaded again.
    """
    record = Record(out, f"Studio: {requests} pictures of {side} px through HTTP", reload=reload,
                    run=json.loads((run / "weights" / "model.json").read_text())["method"])  # fmt: skip
    seconds, memory = [], []
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "unpaired", "studio", str(run.resolve()), "--port", "0"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder)
        try:
            assert process.stdout is not None
            process.stdout.readline()
            browser = Browser(process.stdout.readline().split()[1], reload)
            for number in range(warm_up + requests):
                sent, begun = picture(side, number), time.perf_counter()
                with Image.open(io.BytesIO(browser.translate(sent))) as made:
                    assert min(made.size) >= side
                seconds.append(time.perf_counter() - begun)
                status = Path(f"/proc/{process.pid}/status").read_text()
                memory.append(int(status.partition("VmRSS:")[2].split()[0]) / 1024)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)
    timed = seconds[warm_up:]
    record.add("requests", requests=requests, median_seconds=statistics.median(timed),
               p95_seconds=float(np.quantile(timed, 0.95)), memory_mib_before=memory[warm_up - 1],
               memory_mib_after=memory[-1], memory_mib_largest=max(memory))  # fmt: skip


if __name__ == "__main__":
    tyro.cli(main)
