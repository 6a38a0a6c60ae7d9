"""The study of these tests: its methods, and ``unpaired study STUDY`` in a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

METHODS = ("ours", "cut", "cyclegan")


class Served:
    """``unpaired study STUDY --port 0`` in a process of its own, and one rater who talks to it."""

    def __init__(self, folder: Path, *words: str) -> None:
        pytest.importorskip("uvicorn", reason='needs pip install "unpaired[study]"')
        code = "import sys; from unpaired.cli.study import main; sys.exit(main(sys.argv[1:]))"
        port = [] if "--port" in words else ["--port", "0"]
        command = [sys.executable, "-c", code, str(folder), *port, *words]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.said = [self.process.stdout.readline(), self.process.stdout.readline()]
        assert self.said[1].startswith("open http"), self.process.communicate(timeout=20)
        self.address = self.said[1].split()[1]
        self.port = self.address.rstrip("/").rpartition(":")[2]
        self.cookie = ""

    def ask(self, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(self.address + path, headers={"Cookie": self.cookie})
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=20) as answer:
            self.cookie = answer.headers.get("Set-Cookie", self.cookie).partition(";")[0]
            return json.load(answer)

    def end(self, how: int = signal.SIGINT) -> tuple[int, str, str]:
        self.process.send_signal(how)
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out, err
