"""Decoded images in one block of memory that all loading processes of a training process share."""

from __future__ import annotations

import mmap
import multiprocessing
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

# The loading processes are forked, so that they inherit the cache; elsewhere each has its own (see __reduce__).
SHARED_BY_FORK = sys.platform.startswith("linux")

_TYPES = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.float32))
_CLAIMED = -1
"""In the place of an image's height while a process writes its pixels."""


class ImageCache:
    """Keeps up to ``budget_bytes`` of images of any pixel type; first come, first kept, nothing is evicted.

    The memory is anonymous and shared: a forked process reads and adds to the same images, and they outlive it. Pages
    are taken from the system only when an image is written. An image is announced after it is written, and a process
    that dies in between wastes its bytes, no more.
    """

    def __init__(self, count: int, budget_bytes: int, processes: int = 0) -> None:
        """Reserve room.

        Args:
            count: Images are numbered 0 to ``count - 1``.
            budget_bytes: Room for pixels; 0 keeps nothing.
            processes: How many other processes will use the cache.
        """
        self._arguments = (count, budget_bytes, processes)
        try:
            self._pixels = np.frombuffer(mmap.mmap(-1, max(budget_bytes, 1)), np.uint8)[:budget_bytes]
        except (OSError, ValueError, OverflowError):  # a machine that promises no more memory than it has
            self._pixels = np.empty(0, np.uint8)
        # per image: end of its bytes, height, width, channels, number of its type; an end of 0 means absent. The last
        # row: bytes in use.
        self._table = np.frombuffer(mmap.mmap(-1, (count + 1) * 5 * 8), np.int64).reshape(count + 1, 5)
        self._lock: Any = threading.Lock()
        if processes > 0 and SHARED_BY_FORK:
            self._lock = multiprocessing.get_context("fork").Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        """Where processes are spawned, each gets its own empty cache with its part of the budget."""
        count, budget_bytes, processes = self._arguments
        return ImageCache, (count, budget_bytes // max(1, processes), 0)

    @property
    def used_bytes(self) -> int:
        """Bytes of pixels that are kept."""
        return int(self._table[-1, 0])

    def get(self, number: int, load: Callable[[], np.ndarray]) -> np.ndarray:
        """Return image ``number`` as (H, W, C), read-only; ``load`` is called when it is not kept."""
        end, height, width, channels, kind = (int(x) for x in self._table[number])
        if end:
            size = height * width * channels * _TYPES[kind].itemsize
            # It may begin at any address, which numpy puts up with; crops are copies.
            pixels = self._pixels[end - size : end].view(_TYPES[kind]).reshape(height, width, channels)
        else:
            pixels = load()
            self._keep(number, pixels)
        pixels.flags.writeable = False  # of this view alone
        return pixels

    def _keep(self, number: int, pixels: np.ndarray) -> None:
        if self.used_bytes + pixels.nbytes > self._pixels.size:
            return
        if not self._lock.acquire(timeout=1.0):  # its holder was killed: go on without keeping
            return
        try:
            end = self.used_bytes + pixels.nbytes
            if self._table[number, 1] or end > self._pixels.size:  # kept, or another process is about to
                return
            self._table[-1, 0], self._table[number, 1] = end, _CLAIMED
        finally:
            self._lock.release()
        self._pixels[end - pixels.nbytes : end] = np.ascontiguousarray(pixels).reshape(-1).view(np.uint8)
        with self._lock:  # orders the pixels before their announcement, on every processor
            self._table[number, 1:] = (*pixels.shape, _TYPES.index(pixels.dtype))
            self._table[number, 0] = end
