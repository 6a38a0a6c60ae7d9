"""Code in a child process that may take so much more memory than it has, for files that would take all of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_CHILD = """
import contextlib, json, resource, sys

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024

def tried(work):
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak begins anew
    before = peak()
    try:
        said = str(work())
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    return said, peak() - before

items = json.loads(sys.argv[2])
EXTRA
with open("/proc/self/statm") as file:
    taken = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + int(sys.argv[1]),) * 2)
print(json.dumps([tried(lambda: work(item)) for item in items]))
"""


def limited(setup: str, items: list[Any], mebibytes: int = 500, timeout: float = 120) -> list[tuple[str, float]]:
    """What ``work(item)`` returns or raises, as text, and the MiB by which it raises the peak of memory, per item.

    Args:
        setup: Python that defines ``work``, and has imported and called once whatever it needs.
        items: Plain values.
        mebibytes: That may be taken.
        timeout: Seconds for all together.
    """
    if sys.platform != "linux":
        pytest.skip("needs the limits of Linux")
    command = [sys.executable, "-c", _CHILD.replace("EXTRA", setup), str(mebibytes << 20), json.dumps(items)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stderr
    return [(said, grown) for said, grown in json.loads(done.stdout)]


def files(folder: Path, contents: dict[str, bytes]) -> list[str]:
    """Write files, and name them as text."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [str(folder / name) for name in contents]
