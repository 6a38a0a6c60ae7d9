"""``unpaired studio`` in a process of its own, in an empty folder, and the limits that these tests use."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path

MEGAPIXELS = 0.5


class ServedStudio:
    """``unpaired studio RUN... --port 0``; ``here``: working folder, ``temporary``: for temporary files."""

    def __init__(self, here: Path, *words: str) -> None:
        self.here, self.temporary = here / "here", here / "temporary"
        for folder in (self.here, self.temporary):
            folder.mkdir(parents=True)
        code = "import sys; from unpaired.cli.studio import main; sys.exit(main(sys.argv[1:]))"
        limits = ["--megapixels", str(MEGAPIXELS), "--megabytes", "1", "--batch", "5", "--refresh-seconds", "0.5"]
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *words, "--port", "0", "--device", "cpu", *limits],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.here,
            env={**os.environ, "TMPDIR": str(self.temporary)},
        )
        assert self.process.stdout is not None
        self.said = [self.process.stdout.readline(), self.process.stdout.readline()]
        assert self.said[1].startswith("open http"), self.process.communicate(timeout=60)
        self.address = self.said[1].split()[1]

    def end(self) -> tuple[int, str]:
        """Ctrl-C; the exit code and what was said on stderr."""
        self.process.send_signal(signal.SIGINT)
        _, err = self.process.communicate(timeout=60)
        return self.process.returncode, err


def png_claiming(width: int, height: int) -> bytes:
    """The header of a PNG of that size, and almost no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )
