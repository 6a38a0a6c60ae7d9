"""The training loop: one for every method, any number of processes, resumable to the bit."""

from __future__ import annotations

import atexit
import datetime
import functools
import itertools
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unpaired.config import BatchSize, Count, CountOrZero, Positive, Seed, Threads, settings
from unpaired.data import Batch, SampleStream, batches
from unpaired.engine.acceleration import RecordedSteps, compile_networks
from unpaired.engine.callbacks import Callback, Ending, Training, tell
from unpaired.engine.checkpoint import CheckpointFolder, Stateful, export_weights
from unpaired.engine.devices import choose_device
from unpaired.engine.ema import EMA
from unpaired.engine.examples import Examples
from unpaired.engine.loss_log import LossLog
from unpaired.engine.monitors import Monitor, StopSignal
from unpaired.engine.precision import autocast_for, half_layout
from unpaired.engine.processes import leave_process_group, mean_over_processes, on_rank_zero
from unpaired.engine.selection import Scorer, Selection
from unpaired.engine.step import make_optimizers, set_learning_rate, settle_optimizers, training_step
from unpaired.environment import end_with_parent
from unpaired.errors import BackendError, CheckpointError, ConfigError
from unpaired.length import TrainingLength
from unpaired.methods.base import (
    DEFAULT_REQUEST,
    ImageBatch,
    Method,
    OptimiserConfig,
    TranslateRequest,
    derive_seeds,
    image_seeds,
)
from unpaired.ops.winograd import direct_convolutions

if TYPE_CHECKING:
    from lightning_fabric import Fabric  # its import takes seconds where torchmetrics is installed


_RENDEZVOUS = datetime.timedelta(seconds=120)
"""How long processes wait for each other when they start."""
_FIRST_PROCESS = "UNPAIRED_FIRST_PROCESS"
"""Environment variable of the processes that the first one starts: its number."""
LoggerName = Literal["tensorboard", "csv", "wandb", "mlflow"]
"""Where a training is logged beside ``log.jsonl``."""


@settings
class TrainingConfig:
    """Length, seeds, precision, processes and bookkeeping of a training run. Intervals count images."""

    images: Count | None = None
    """Length of training in images; unset means the method's published number of epochs."""
    batch_size: BatchSize = 1
    """Images per step over all processes."""
    seed: Seed = 0
    """Seed of initial weights, sample order, augmentation and every random draw."""
    precision: Literal["32", "bf16-mixed", "auto"] = "32"
    """Arithmetic of the networks; selection and losses stay in float32. auto: bf16-mixed on a GPU that has bf16, and on
    a processor with AMX or AVX512-BF16 where a measurement of ten seconds says that it pays; run.yaml keeps the choice,
    so that a resumed run uses it, too."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Kind of device."""
    devices: Threads = 1
    """Number of processes on each machine, one device each (on the CPU: gloo)."""
    nodes: Threads = 1
    """Number of machines; on more than one, start this command on each of them with torchrun, or with srun in SLURM."""
    threads: Threads | None = None
    """CPU threads of each process; unset leaves torch's choice."""
    fast_convolutions: bool = True
    """On the CPU in float32, take Winograd's algorithm where it is faster; it rounds about five times as coarsely."""
    compile: bool = False
    """Compile the networks with torch.compile: minutes at the start, then faster steps on a GPU."""
    channels_last: bool = False
    """Keep images and weights with their channels side by side in memory, which half precision on a GPU likes; on the
    CPU half precision always does."""
    cuda_graph: bool = False
    """On a GPU, record the training step once and replay it, which saves launching its kernels one by one."""
    ema_half_life_images: Positive = 1000.0
    """Half-life, in images, of the averaged weights that are served."""
    log_every: Count = 100
    """Images between two lines of the log."""
    sample_every: Count | None = None
    """Images between two sample grids; unset means a twentieth of training."""
    checkpoint_every: Count | None = None
    """Images between two checkpoints; unset means a twentieth of training, at most 5000."""
    logger: tuple[LoggerName, ...] = ("tensorboard",)
    """Where scalars, images and settings go beside log.jsonl, any number of: tensorboard and csv (in the run folder),
    wandb and mlflow (their own environment variables decide where; pip install 'unpaired[wandb]' or [mlflow])."""
    keep_checkpoints: Count = 3
    """How many checkpoints stay on disk."""
    score_every: CountOrZero | None = None
    """Images between two scorings of held-out images, if there are any; unset means a tenth of training, at least 100;
    0 never."""
    score_images: Annotated[int, Field(ge=2, le=10**9)] = 200
    """Most held-out images of each domain that are scored during training, evenly spaced by name."""
    score_by: str = "auto"
    """Score that chooses the best weights, a name as 'unpaired evaluate' prints it without counts; auto takes KID
    (Lite0), and SWD where there are too few images for that."""
    stop_after: Count | None = None
    """End this session once this many images are seen (the schedule still spans all of them); resume later."""

    @property
    def processes(self) -> int:
        """Number of processes on all machines."""
        return self.nodes * self.devices

    def __post_init__(self) -> None:
        if self.cuda_graph and self.processes > 1:
            raise ConfigError("cuda_graph records the step of one process: use --devices 1 or --no-cuda-graph")


@dataclass(frozen=True)
class FitResult:
    """Where a call of ``fit`` ended.

    Attributes:
        images_seen: Images seen in all, earlier sessions included.
        finished: Whether training reached its full length.
        interrupted: Number of the signal that ended it; 0 if none did.
        first_process: Whether this is the process that talks to the person.
    """

    images_seen: int
    finished: bool
    interrupted: int
    first_process: bool = True


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


def fit(
    method: Method,
    stream: SampleStream,
    config: TrainingConfig,
    optimiser: OptimiserConfig,
    *,
    fabric: Fabric,
    run: Path,
    name: str,
    length: TrainingLength,
    examples: Tensor,
    description: Mapping[str, Any],
    scorer: Scorer | None = None,
    request: TranslateRequest = DEFAULT_REQUEST,
    callbacks: Sequence[Callback] = (),
    flat_settings: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> FitResult:
    """Train ``method`` until ``length.total`` images are seen, going on from the newest checkpoint in ``run``.

    Args:
        method: What to train, on any device.
        stream: The training images.
        config: Length, intervals, seeds, the precision in which it trains (resolved, not ``auto``).
        optimiser: Adam and its schedule.
        fabric: Devices and processes, already launched.
        run: The run folder.
        name: The method's name, written into checkpoints.
        length: Of training in images, and of the schedule at each of them.
        examples: Source images for the sample grids, (n, c, H, W) in [-1, 1], in the channels of their own domain.
        description: What ``Translator`` needs to rebuild the networks; stored beside the exported weights.
        scorer: Scores held-out translations at intervals; only the first process needs one.
        request: What the translations in the sample grids and for the scores should be.
        callbacks: Told of the training in the first process.
        flat_settings: Every setting of the run by its dotted name, for the callbacks.
        quiet: Print nothing.

    Raises:
        TrainingError: A loss is not finite, or a file cannot be written.
        CheckpointError: The run's checkpoints do not fit.
    """
    total = length.total
    autocast = autocast_for(config.precision, fabric.device)
    layout = torch.channels_last if config.channels_last else half_layout(config.precision, fabric.device)
    method.to(fabric.device).to(memory_format=layout)
    if config.compile:
        compile_networks(method)
    optimizers = make_optimizers(method, optimiser)
    ema = EMA(method.served_networks(), config.ema_half_life_images)
    checkpoints = CheckpointFolder(run / "checkpoints", name, config.keep_checkpoints)
    average = _average_over(fabric)
    shown = Examples(method, ema, examples, stream.formats, fabric.device, autocast=autocast, request=request)
    log, monitor = LossLog(run, fabric, config.log_every), Monitor(fabric, quiet=quiet)
    told = functools.partial(tell, [*callbacks, monitor] if fabric.is_global_zero else [])
    # All that has state; the rest is a function of the seed and of the images seen.
    stateful: dict[str, Stateful] = {"method": method, "ema": ema, "log": log}
    stateful |= {f"optimizer_{key}": value for key, value in optimizers.items()}
    seen = saved = checkpoints.restore(stateful, monitor.say, optional=("log",))
    if seen > total:
        raise CheckpointError(
            f"the newest checkpoint in {checkpoints.folder} says that {seen:,} images were seen, but this run has "
            f"{total:,}; it belongs to a longer run: choose another --out, or --extend-to {seen}"
        )
    settle_optimizers(optimizers, recorded=config.cuda_graph)
    take_step: Callable[..., dict[str, Tensor]] = (
        RecordedSteps(method, optimizers, autocast)
        if config.cuda_graph
        else functools.partial(training_step, method, optimizers, autocast=autocast, average=average)
    )
    # Whole steps only, so that a resumed run takes the very steps of an uninterrupted one.
    ranges = length.ranges(seen, config.stop_after or total, config.batch_size)
    stop_at = ranges[-1][1] if ranges else seen
    save_every = config.checkpoint_every or max(1, min(5000, total // 20))
    sample_every = config.sample_every or max(1, total // 20)

    score_every = max(100, total // 10) if config.score_every is None else config.score_every
    selection = None
    if scorer is not None and score_every:
        selection = Selection(run, scorer, ema, shown.translate, monitor, told)
    scores = bool(fabric.broadcast(selection is not None))

    def begin() -> None:
        if selection is not None:
            selection.restore(seen)
            if seen < stop_at:
                selection.measure_inputs()
        if seen:
            export()

    def export() -> None:
        weights = {"ema": ema.weights(), "last": ema.live_weights()}
        best = None if selection is None else selection.best
        export_weights(run / "weights", {**description, "images_seen": seen}, weights, best)

    def save() -> None:
        log.check(weights_are_finite=_finite(method))

        def write() -> None:
            path = checkpoints.save(stateful, seen)
            export()  # a kill before its end is mended at the next start
            told("on_checkpoint", seen, path)

        on_rank_zero(fabric, write)

    def sample() -> None:
        log.check(weights_are_finite=_finite(method))
        if fabric.is_global_zero and len(examples):
            samples, change = shown.sample()
            if change is not None:
                log.change = change
                monitor.warn_of_unchanged(seen, change)
            told("on_sample", seen, samples)

    on_rank_zero(fabric, begin)
    ending: Ending = "failed"
    arithmetic = nullcontext() if config.fast_convolutions else direct_convolutions()
    with arithmetic, StopSignal(fabric) as stop:
        try:
            told("on_start", Training(run, method, length, seen, flat_settings or {}))
            log.begin(seen, length, monitor.say)
            for batch in itertools.chain.from_iterable(
                batches(
                    stream, first, end, config.batch_size, fabric.global_rank, fabric.world_size,
                    pin_memory=fabric.device.type == "cuda",
                )
                for first, end in ranges
            ):  # fmt: skip
                number = seen // config.batch_size
                images = _to_device(batch, config.seed, fabric.device, layout, length.progress(seen), number)
                torch.manual_seed(int(derive_seeds(images.seeds[:1], -2)) >> 1)  # stray draws repeat on resume
                rate = optimiser.learning_rate * optimiser.factor(length.progress(seen))
                set_learning_rate(optimizers, rate)
                terms = take_step(images, number=number, weight=batch.weight)
                before, seen = seen, seen + batch.global_size
                ema.update(seen, batch.global_size)
                told("on_step", seen, terms, log.step(seen, batch, terms, rate))
                if seen // sample_every > before // sample_every:
                    sample()
                scored = scores and (seen // score_every > before // score_every or length.ends_between(before, seen))
                if scored:
                    log.check(weights_are_finite=_finite(method))
                    on_rank_zero(fabric, functools.partial(selection.score, seen) if selection is not None else bool)
                if (scored or seen // save_every > before // save_every) and seen < stop_at:
                    save()  # after scoring too, so that the best weights are never younger than the newest checkpoint
                    saved = seen
                if stop.requested():
                    break
            if seen > saved or not seen:
                save()
            ending = "finished" if seen >= total else "stopped"
        finally:
            told("on_end", seen, ending)
    if selection is not None and ending == "finished":
        selection.judge()
    return FitResult(seen, finished=seen >= total, interrupted=stop.number, first_process=fabric.is_global_zero)


def _average_over(fabric: Fabric) -> Callable[[Sequence[Tensor]], None] | None:
    """How gradients become their means over the processes: all of them in one message."""
    if fabric.world_size == 1:
        return None

    def average(gradients: Sequence[Tensor]) -> None:
        flat = mean_over_processes(torch.cat([g.flatten() for g in gradients]), fabric)
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    return average


def _to_device(
    batch: Batch, seed: int, device: torch.device, layout: torch.memory_format, progress: float, number: int
) -> ImageBatch:
    source, target = (x.to(device, non_blocking=True, memory_format=layout) for x in (batch.source, batch.target))
    source_domains, target_domains = (
        None if which is None else which.to(device, non_blocking=True)
        for which in (batch.source_domains, batch.target_domains)
    )
    return ImageBatch(
        source,
        target,
        image_seeds(seed, batch.index),
        source_domains,
        target_domains,
        progress=torch.tensor(progress, dtype=torch.float64),
        number=number,
    )


def _finite(method: nn.Module) -> bool:
    return bool(torch.stack([p.detach().isfinite().all() for p in method.parameters()]).all())
