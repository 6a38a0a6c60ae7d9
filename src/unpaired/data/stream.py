"""The endless sequence of training samples, a function of (seed, k) alone, and its batches over processes."""

from __future__ import annotations

import dataclasses
import functools
import multiprocessing
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from unpaired.data.cache import SHARED_BY_FORK
from unpaired.data.folders import UnpairedFiles
from unpaired.data.samples import AS_THEY_ARE, Choice, ImageChanges, SampleStream, permutation
from unpaired.data.sets import Several
from unpaired.data.settings import DataConfig, Formats
from unpaired.environment import STOP_SIGNALS, end_with_parent
from unpaired.errors import ConfigError, DataError, UserError
from unpaired.plugins import load_plugins

_SOURCE_ORDER, _TARGET_ORDER = 0, 1
_PART_ORDER = 7
_BLOCK = 1000
"""Samples of which each part of a domain gets its share exactly."""


class UnpairedStream(SampleStream):
    """Sample ``k`` of an endless, reproducible sequence: ``stream[k]``.

    Each domain is walked in passes. A pass is a permutation of its own that uses every image once; when the smaller
    domain is through, its next pass begins with a fresh permutation. So one epoch of ``images_per_epoch`` samples
    shows every image of the larger domain once. Parts of a domain that have weights are walked so, too, each in passes
    of its own. The number of processes, the batch size and where a run was interrupted cannot change what
    ``stream[k]`` is.
    """

    def __init__(
        self,
        files: UnpairedFiles,
        config: DataConfig,
        seed: int,
        formats: Formats | None = None,
        turns: Sequence[int] = (),
        changes: ImageChanges = AS_THEY_ARE,
    ) -> None:
        """Prepare the sequence; no image is read yet.

        Args:
            files: At least one file in each domain.
            config: How images are read and cropped.
            seed: 0 or greater.
            formats: What source and target images are made of; unset: 8-bit images, whatever the files are.
            turns: As :class:`SampleStream` has it.
            changes: As :class:`SampleStream` has it.

        Raises:
            ConfigError: The seed is negative.
            DataError: A domain has no file.
        """
        for domain in ("source", "target"):
            if not getattr(files, domain):
                raise DataError(f"the {domain} domain has no image")
        super().__init__((files.source, files.target), config, seed, formats, turns, changes)
        self.files = files

    @property
    def samples_per_pass(self) -> int:
        """Samples after which every image was used at least once: the size of the larger domain, unless weights show
        some images less often."""
        return max(
            self._first_pass(self.files.source, _SOURCE_ORDER), self._first_pass(self.files.target, _TARGET_ORDER)
        )

    def file_numbers(self, k: int) -> tuple[int, int]:
        """Return which source file and which target file sample ``k`` shows."""
        if k < 0:
            raise IndexError(f"samples are numbered from 0, got {k}")
        return (
            self._number_in(self.files.source, k, _SOURCE_ORDER),
            self._number_in(self.files.target, k, _TARGET_ORDER),
        )

    def _number_in(self, images: Sequence[Any], k: int, purpose: int) -> int:
        """Which image of a domain sample ``k`` shows.

        Where parts have weights, each block of :data:`_BLOCK` samples is dealt out to them in a new order, and each
        part is walked in passes of its own.
        """
        if not isinstance(images, Several) or not images.weights:
            return self._file_number(k, len(images), purpose)
        block, position = divmod(k, _BLOCK)
        dealt = self._dealt(images, purpose, block)
        part = int(dealt[position])
        use = block * _shares_of(images.weights)[part] + int(np.count_nonzero(dealt[:position] == part))
        return images.first_of(part) + self._file_number(use, len(images.parts[part]), purpose, _PART_ORDER, part)

    def _dealt(self, images: Several, purpose: int, block: int) -> np.ndarray:
        """The part that each sample of a block shows."""
        order = permutation(_BLOCK, self.seed, purpose, _PART_ORDER, block)
        return np.repeat(np.arange(len(images.parts)), _shares_of(images.weights))[order]

    def _first_pass(self, images: Sequence[Any], purpose: int) -> int:
        """Samples after which every image of a domain was used at least once."""
        if not isinstance(images, Several) or not images.weights:
            return len(images)
        last = 0
        for part, (share, files) in enumerate(zip(_shares_of(images.weights), images.parts, strict=True)):
            block, before = divmod(len(files) - 1, share)
            position = np.flatnonzero(self._dealt(images, purpose, block) == part)[before]
            last = max(last, block * _BLOCK + int(position) + 1)
        return last

    def choose(self, k: int) -> Choice:
        source, target = self.file_numbers(k)
        return Choice(source, len(self.files.source) + target)


@functools.lru_cache
def _shares_of(weights: tuple[float, ...]) -> list[int]:
    """Samples of a block that each part gets, in proportion to its weight, none of them 0."""
    shares = np.cumsum(weights) / np.sum(weights)
    ends = [0, *(round(float(share) * _BLOCK) for share in shares)]
    for part in range(1, len(ends)):
        ends[part] = min(max(ends[part], ends[part - 1] + 1), _BLOCK - (len(ends) - 1 - part))
    return np.diff(ends).tolist()


@dataclass(frozen=True)
class Batch:
    """The part of one global batch that one process trains on."""

    source: torch.Tensor
    """(b, C, H, W) float32 in [-1, 1], b >= 1."""
    target: torch.Tensor
    """(b, C, H, W) float32 in [-1, 1]."""
    index: torch.Tensor
    """(b,) int64 on the CPU: the number of each sample in the stream."""
    weight: float
    """Factor for the mean loss of this batch; the mean over processes of ``weight * loss`` is the global mean."""
    global_size: int
    """Images in the batch of all processes together."""
    source_domains: torch.Tensor | None = None
    """(b,) int64 on the CPU, the domain of each source image, where there are several domains."""
    target_domains: torch.Tensor | None = None
    """(b,) int64 on the CPU, the domain of each target image."""

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch with its images on ``device``; from pinned memory the copy does not wait."""
        source, target = (x.to(device, non_blocking=True) for x in (self.source, self.target))
        return dataclasses.replace(self, source=source, target=target)


@dataclass(frozen=True)
class _Share:
    indices: list[int]
    weight: float
    global_size: int


def _shares(batch_size: int, rank: int, world_size: int, start: int, stop: int) -> Iterator[_Share]:
    """Yield what process ``rank`` gets of each global batch of samples ``start`` to ``stop - 1``."""
    for first in range(start, stop, batch_size):
        last = min(first + batch_size, stop)
        indices = list(range(first + rank, last, world_size))
        weight = len(indices) * world_size / (last - first)
        # A process must take part in every step; without a share it computes one image that counts for nothing.
        yield _Share(indices or [first], weight, last - first)


def batches(
    stream: SampleStream,
    start: int,
    stop: int,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Yield the batches of samples ``start`` to ``stop - 1``, in order.

    Global batches of ``batch_size`` samples are dealt out to the processes one image at a time. The last batch may be
    short, and ``batch_size`` need not be a multiple of ``world_size``: ``Batch.weight`` keeps the mean right. Images
    are prepared by ``stream.config.num_workers`` processes, which end when the iterator is exhausted, closed or
    dropped; where the stream turns, between two batches, others take their place with an empty cache.

    Args:
        stream: The samples; decoded images stay in its cache between calls.
        start: The first sample (the images seen so far).
        stop: One past the last sample.
        batch_size: Images per step over all processes, at least 1.
        rank: This process, from 0.
        world_size: The number of processes.
        pin_memory: Put batches into pinned memory, for copies to a GPU that do not wait.

    Raises:
        ConfigError: ``batch_size`` is less than 1.
        ValueError: ``rank`` is not in [0, world_size), or ``start`` is negative.
        DataError: An image cannot be used, or a loading process died.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}: it must be 1 or greater")
    if not 0 <= rank < world_size or start < 0:
        raise ValueError(f"rank {rank} of {world_size} processes, start {start}: out of range")
    return _parts(stream, start, stop, functools.partial(_shares, batch_size, rank, world_size), batch_size, pin_memory)


def _parts(
    stream: SampleStream, start: int, stop: int, shares: Any, batch_size: int, pin_memory: bool
) -> Iterator[Batch]:
    """All batches; at each turn of the stream, after the batch that straddles it, with an empty cache."""
    while start < stop:
        turn = next((turn for turn in stream.turns if turn > start), stop)
        end = min(stop, start + -(-(turn - start) // batch_size) * batch_size)
        stream.cache_for(decay=stream.in_decay(start))
        yield from _batches(stream, functools.partial(shares, start, end), pin_memory)
        start = end


def _batches(stream: SampleStream, shares: Any, pin_memory: bool) -> Iterator[Batch]:
    workers = stream.config.num_workers
    loader: Any = DataLoader(
        stream,
        batch_sampler=_IndexLists(shares),
        collate_fn=_as_it_is,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        generator=torch.Generator(),  # else each call would draw from the global one, and resumed runs would differ
        worker_init_fn=_leave_signals_to_the_parent if workers else None,
        multiprocessing_context="fork" if workers and SHARED_BY_FORK else None,
    )
    loaded = _start(loader)
    try:
        for share in shares():
            result = _next(loaded)
            if isinstance(result, UserError):
                raise result
            source, target = (
                stream.to_floats(values, role, pin_memory) for role, values in enumerate((result.source, result.target))
            )
            domains = () if result.domains is None else result.domains.unbind(1)
            yield Batch(source, target, result.index, share.weight, share.global_size, *domains)
    finally:
        # Dropping the loader ends its processes, but an exception on its way up (Ctrl-C) may hold frames that hold it.
        getattr(loaded, "_shutdown_workers", bool)()
        del loaded, loader


def _start(loader: Any) -> Iterator[Any]:
    """Start the loading processes, and keep torch from raising a dead one's error in the midst of other code.

    Its SIGCHLD handler would do that wherever the training loop happens to be. Without it the death is noticed when
    the next batch is due, within 5 seconds, and explained.
    """
    with _signals_held_back():
        if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
            return iter(loader)
        before = signal.getsignal(signal.SIGCHLD)
        try:
            return iter(loader)
        finally:
            signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Hold back the signals that loading processes leave to their parent while these are started.

    A forked process inherits that, so none reaches it before it can ignore them; the parent gets its own afterwards.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _next(loaded: Iterator[Any]) -> Any:
    try:
        return next(loaded)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            f"a process that prepares images died ({str(error).splitlines()[0]}); most often memory ran out: "
            "lower num_workers or cache_gib, or set num_workers to 0"
        ) from error


class _IndexLists:
    """What DataLoader calls a batch sampler."""

    def __init__(self, shares: Any) -> None:
        self._shares = shares

    def __iter__(self) -> Iterator[list[int]]:
        return (share.indices for share in self._shares())


def _as_it_is(result: Any) -> Any:
    return result


def _leave_signals_to_the_parent(worker_id: int) -> None:
    # Signals reach the whole group. The training process decides (it may want to save first); the loading processes
    # follow when it closes the loader, and end when it is gone.
    if (parent := multiprocessing.parent_process()) is not None and parent.pid is not None:
        end_with_parent(parent.pid)
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    sys.excepthook = _unless_the_parent_left
    load_plugins()  # a process that was not forked has none yet


def _unless_the_parent_left(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an error of a loading process, but not that the parent went away while it was being handed a batch.

    An interrupted parent may close the connection half way; the thread that hands over would print a traceback.
    """
    if not isinstance(error, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)
