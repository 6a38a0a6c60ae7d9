"""Features on disk, by content of the file and of the network: a set that was scored once need not be seen again."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_LIMIT_BYTES = 2 << 30
_SCHEMA = """
CREATE TABLE IF NOT EXISTS features (
    key TEXT PRIMARY KEY, width INTEGER NOT NULL, used REAL NOT NULL, "values" BLOB NOT NULL
) WITHOUT ROWID
"""


def cache_folder() -> Path:
    """``UNPAIRED_CACHE`` if it is set, else the user's cache folder (``XDG_CACHE_HOME`` or ~/.cache) / unpaired."""
    named = os.environ.get("UNPAIRED_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unpaired"


class FeatureCache:
    """Features (D,) float32 under a text key, in one SQLite file that several processes may use at a time.

    A cache is a convenience: where its file cannot be opened, read or written it is empty, and nothing else changes.

    Args:
        path: The file; ``None`` caches nothing.
        limit_bytes: Size beyond which the features that were not used for the longest time are removed.
    """

    def __init__(self, path: Path | None, limit_bytes: int = _LIMIT_BYTES) -> None:
        self.path = path
        self.limit_bytes = limit_bytes

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection | None]:
        if self.path is None:
            yield None
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, timeout=10)
        except (OSError, sqlite3.Error):
            yield None
            return
        try:
            with contextlib.suppress(sqlite3.DatabaseError):
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute(_SCHEMA)
            yield connection
        finally:
            connection.close()

    def get(self, keys: Sequence[str]) -> dict[str, Tensor]:
        """Those of the keys that are known, with their features."""
        found: dict[str, Tensor] = {}
        with self._open() as connection:
            if connection is None:
                return found
            try:
                for start in range(0, len(keys), 500):
                    part = keys[start : start + 500]
                    marks = ",".join("?" * len(part))
                    query = f'SELECT key, width, "values" FROM features WHERE key IN ({marks})'
                    for key, width, values in connection.execute(query, part):
                        if len(values) == 4 * width:
                            found[key] = torch.from_numpy(np.frombuffer(values, dtype="<f4").astype(np.float32))
                    with connection:
                        connection.execute(f"UPDATE features SET used = ? WHERE key IN ({marks})", [time.time(), *part])
            except sqlite3.Error:  # damaged or locked: work without it
                return found
        return found

    def put(self, features: dict[str, Tensor]) -> None:
        """Keep features; a damaged file is replaced by a new one."""
        rows = [
            (key, len(value), time.time(), value.detach().cpu().float().numpy().astype("<f4").tobytes())
            for key, value in features.items()
        ]
        for attempt in range(2):
            with self._open() as connection:
                if connection is None:
                    return
                try:
                    with connection:
                        connection.executemany("INSERT OR REPLACE INTO features VALUES (?, ?, ?, ?)", rows)
                    self._shrink(connection)
                    return
                except sqlite3.OperationalError:  # locked, full or read-only
                    return
                except sqlite3.DatabaseError:
                    if attempt:
                        return
            self._remove()

    def _shrink(self, connection: sqlite3.Connection) -> None:
        (size,) = connection.execute('SELECT COALESCE(SUM(LENGTH("values")), 0) FROM features').fetchone()
        if size <= self.limit_bytes:
            return
        with connection:
            for key, bytes_ in connection.execute(
                'SELECT key, LENGTH("values") FROM features ORDER BY used'
            ).fetchall():
                if size <= 0.8 * self.limit_bytes:
                    break
                connection.execute("DELETE FROM features WHERE key = ?", (key,))
                size -= bytes_
        connection.execute("VACUUM")

    def _remove(self) -> None:
        if self.path is not None:
            for suffix in ("", "-wal", "-shm"):
                with contextlib.suppress(OSError):
                    self.path.with_name(self.path.name + suffix).unlink()
