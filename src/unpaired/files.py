"""Writing files so that nothing already made is lost."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def write_atomically(path: Path, *parts: bytes | memoryview) -> None:
    """Write ``parts`` to ``path`` so that a reader sees the old file or the whole new one, never a piece.

    Raises:
        OSError: The write failed; ``path`` is as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
