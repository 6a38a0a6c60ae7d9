"""The processes of a training: how they start, what they do together, and how they end together."""

from __future__ import annotations

import atexit
import datetime
import gc
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from unpaired.engine.devices import choose_device
from unpaired.environment import end_with_parent
from unpaired.errors import BackendError, TrainingError, UserError

if TYPE_CHECKING:
    from lightning_fabric import Fabric  # its import takes seconds where torchmetrics is installed

    from unpaired.engine.training_config import TrainingConfig

_RENDEZVOUS = datetime.timedelta(seconds=120)
"""How long processes wait for each other when they start."""
_FIRST_PROCESS = "UNPAIRED_FIRST_PROCESS"
"""Environment variable of the processes that the first one starts: its number."""
T = TypeVar("T")


def make_fabric(config: TrainingConfig) -> Fabric:
    """Fabric for the devices and processes that ``config`` asks for; precision is the loop's own affair.

    Raises:
        BackendError: The accelerator is not on this machine, or several machines are asked for and nothing started
            the processes of all of them.
    """
    device = choose_device(config.accelerator, "accelerator").type
    if config.cuda_graph and device != "cuda":
        raise BackendError("cuda_graph needs a CUDA device, and this run has none; use --no-cuda-graph")
    if device != "cpu" and config.devices > (here := torch.cuda.device_count() if device == "cuda" else 1):
        raise BackendError(f"devices: {config.devices} asked for, this machine has {here}")
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
    from lightning_fabric.strategies import DDPStrategy

    for name in ("lightning.fabric", "lightning_fabric"):  # their banners repeat what the run folder says
        logging.getLogger(name).setLevel(logging.WARNING)
    asked = f"--nodes {config.nodes} --devices {config.devices}"
    if TorchElasticEnvironment.detect():
        if (started := TorchElasticEnvironment().world_size()) != config.processes:
            each = int(os.environ["LOCAL_WORLD_SIZE"])
            raise BackendError(
                f"nodes: torchrun started {started} training processes, but {asked} makes {config.processes}; use "
                f"--nodes {started // each} --devices {each}"
            )
    elif config.nodes > 1 and not SLURMEnvironment.detect():
        raise BackendError(
            f"nodes: {config.nodes} asked for, but neither torchrun nor srun started this process; start the command "
            f"on each machine with 'torchrun --nnodes {config.nodes}', see docs/clusters.md"
        )
    strategy = DDPStrategy(timeout=_RENDEZVOUS) if config.processes > 1 else "auto"
    try:
        return Fabric(
            accelerator=device,
            devices=config.devices,
            num_nodes=config.nodes,
            strategy=strategy,
            precision="32-true",
        )
    except RuntimeError as error:  # SLURM's variables contradict each other
        raise BackendError(f"nodes: {error}") from error


def launch(fabric: Fabric) -> None:
    """Start the other processes, which end when this one is gone, and wait until all have met.

    Raises:
        BackendError: They do not meet in time, or are more or fewer than asked for.
    """
    if first := os.environ.get(_FIRST_PROCESS):  # this is one of the others
        end_with_parent(int(first))
    elif "TORCHELASTIC_RUN_ID" in os.environ:
        end_with_parent(os.getppid())
    os.environ[_FIRST_PROCESS] = str(os.getpid())
    try:
        fabric.launch()
    except torch.distributed.DistError as error:
        raise BackendError(
            f"devices: the training processes did not meet within {_RENDEZVOUS.seconds} seconds; run the same command "
            "again (on every machine), or use --devices 1"
        ) from error
    except ValueError as error:  # SLURM started another number of them
        raise BackendError(f"nodes: {error}") from error
    finally:
        os.environ.pop(_FIRST_PROCESS, None)
    if fabric.world_size > 1:  # from now on they wait for each other as long as scoring takes
        atexit.register(leave_process_group)
        former: Any = torch.distributed.distributed_c10d
        set_timeout = getattr(torch.distributed, "set_timeout", None) or former._set_pg_timeout
        set_timeout(datetime.timedelta(days=1))


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
