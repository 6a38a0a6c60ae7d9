"""What several training processes do together, and how they end together."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from unpaired.errors import TrainingError, UserError

if TYPE_CHECKING:
    from lightning_fabric import Fabric  # its import takes seconds where torchmetrics is installed

T = TypeVar("T")


def mean_over_processes(value: Tensor, fabric: Fabric) -> Tensor:
    """The mean of a tensor over all processes; the same tensor with one. No barrier, so the host does not wait.

    ``Fabric.all_reduce`` would put a barrier before each message.
    """
    if fabric.world_size > 1:
        torch.distributed.all_reduce(value)
        value = value / fabric.world_size
    return value


def on_rank_zero(fabric: Fabric, action: Callable[[], T]) -> T:
    """What ``action`` returns in the first process, in all of them; if it fails there, all of them end.

    Raises:
        UserError: What ``action`` raised, in the first process; the others leave quietly with its exit code.
    """
    error: UserError | None = None
    result: Any = None
    if fabric.is_global_zero:
        try:
            result = action()
        except UserError as raised:
            error = raised
    code, result = fabric.broadcast((error.exit_code if error is not None else 0, result))
    if error is not None:
        raise error
    if code:
        raise SystemExit(code)
    return result


@contextmanager
def ends_with_the_others(fabric: Fabric) -> Iterator[None]:
    """Turn the noise of a lost peer into one line: the process that failed has said why.

    Raises:
        TrainingError: Another process is gone.
    """
    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, torch.distributed.DistError) or "gloo" in str(error)
        if fabric.world_size == 1 or not lost:
            raise
        raise TrainingError("another training process stopped, so this one does too; see its message") from error


def leave_process_group() -> None:
    """End the threads that carry messages between the processes. For the exit of a process, while Python still runs.

    Gloo's threads hold tensors for a moment after a message has arrived. One that lets go of a tensor only when the
    interpreter has been finalized is ended within its destructor, and the whole process aborts.
    """
    gc.collect()  # parallel modules in reference cycles hold the group
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
