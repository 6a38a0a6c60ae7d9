"""What makes steps faster on a GPU without changing what they compute: compiled networks, and a step recorded once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unpaired.engine.step import training_step
from unpaired.methods.base import ImageBatch, Method

Replay = Callable[[], object]


def compile_networks(method: Method) -> None:
    """Put ``torch.compile`` around what the method names in ``compiled``; the first steps take minutes."""
    for path in method.compiled:
        network, _, function = path.partition(".")
        owner = getattr(method, network)
        setattr(owner, function, torch.compile(getattr(owner, function), dynamic=False))


class _Recording(NamedTuple):
    """A recorded step: the tensors it reads and writes, and how to run it again."""

    images: ImageBatch
    terms: dict[str, Tensor]
    replay: Replay


class RecordedSteps:
    """Training steps that are recorded as a CUDA graph and replayed: one launch instead of some thousands.

    A few steps run as they are first, so that everything that is set up on first use exists. Then each kind of step
    (shape of the batch, phases that run, weight of the loss) is recorded when it first comes. Recording computes
    nothing, so every batch is learned from exactly once. The optimizers must come from
    ``settle_optimizers(..., recorded=True)``: a learning rate that was a Python number would be recorded with the step.

    Args:
        method: On a CUDA device, with an empty ``not_recordable``.
        optimizers: By phase name.
        autocast: Opens the context in which the networks run.
        eager_steps: Steps that run as they are.
        record: Runs a function so that its work is recorded, and returns what replays it; a CUDA graph unless a test
            brings something that works without a GPU.
    """

    def __init__(
        self,
        method: Method,
        optimizers: dict[str, torch.optim.Optimizer],
        autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
        *,
        eager_steps: int = 3,
        record: Callable[[Callable[[], None]], Replay] | None = None,
    ) -> None:
        self._method, self._optimizers, self._autocast = method, optimizers, autocast
        self._left = eager_steps
        self._record = record or _record_cuda_graph
        self._recordings: dict[Any, _Recording] = {}

    def __call__(self, images: ImageBatch, *, number: int, weight: float = 1.0) -> dict[str, Tensor]:
        """Update every network once; arguments and result as :func:`unpaired.engine.step.training_step`.

        The terms are overwritten by the next step of the same kind: copy what must last.
        """
        device = images.source.device
        seeds, progress = (each.to(device, non_blocking=True) for each in (images.seeds, images.progress))
        images = ImageBatch(images.source, images.target, seeds, progress=progress, number=images.number)
        if self._left:
            self._left -= 1
            with _beside():
                return self._step(images, number, weight)
        kinds = (self._method.cycle, *(phase.interval for phase in self._method.phases))
        key = (images.source.shape, weight, *(number % interval == 0 for interval in kinds))
        if key not in self._recordings:
            self._recordings[key] = self._new(images, number, weight)
        recording = self._recordings[key]
        for own, given in zip(_tensors(recording.images), _tensors(images), strict=True):
            own.copy_(given, non_blocking=True)
        recording.replay()
        return recording.terms

    def _step(self, images: ImageBatch, number: int, weight: float) -> dict[str, Tensor]:
        return training_step(
            self._method, self._optimizers, images, number=number, weight=weight, autocast=self._autocast
        )

    def _new(self, images: ImageBatch, number: int, weight: float) -> _Recording:
        source, target, seeds, progress = (tensor.clone() for tensor in _tensors(images))
        own = ImageBatch(source, target, seeds, progress=progress, number=images.number)
        terms: dict[str, Tensor] = {}

        def step() -> None:
            found = self._step(own, number, weight)
            for name, value in found.items():  # replays write into the tensors of the recording
                terms.setdefault(name, torch.empty_like(value)).copy_(value.detach())

        return _Recording(own, terms, self._record(step))


def _tensors(images: ImageBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return images.source, images.target, images.seeds, images.progress


def _beside() -> AbstractContextManager[object]:
    """A stream of its own for the steps before a recording, as CUDA graphs ask for; nothing without CUDA."""
    return _SideStream() if torch.cuda.is_available() else nullcontext()


class _SideStream:
    """Work inside runs on another stream, after what came before and before what follows; the host does not wait."""

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()
        self._context = torch.cuda.stream(self._stream)

    def __enter__(self) -> None:
        self._stream.wait_stream(torch.cuda.current_stream())
        self._context.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._context.__exit__(*error)
        torch.cuda.current_stream().wait_stream(self._stream)


def _record_cuda_graph(step: Callable[[], None]) -> Replay:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay
