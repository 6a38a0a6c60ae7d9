"""The training loop: one for every method, any number of processes, resumable to the bit."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from unpaired.data import Batch, SampleStream, batches
from unpaired.engine.acceleration import RecordedSteps, compile_networks
from unpaired.engine.callbacks import Callback, Ending, Training, tell
from unpaired.engine.checkpoint import CheckpointFolder, Stateful, export_weights
from unpaired.engine.ema import EMA
from unpaired.engine.examples import Examples
from unpaired.engine.loss_log import LossLog
from unpaired.engine.monitors import Monitor, StopSignal
from unpaired.engine.precision import autocast_for, half_layout
from unpaired.engine.processes import mean_over_processes, on_rank_zero
from unpaired.engine.selection import Scorer, Selection
from unpaired.engine.step import make_optimizers, set_learning_rate, settle_optimizers, training_step
from unpaired.engine.training_config import TrainingConfig
from unpaired.errors import CheckpointError
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
