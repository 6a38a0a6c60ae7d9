"""One training step of any method: forward once, then each phase in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn

from unpaired.methods.base import AdamSettings, ImageBatch, Method, OptimiserConfig, image_seeds


def make_optimizers(method: Method, optimiser: OptimiserConfig) -> dict[str, torch.optim.Optimizer]:
    """One Adam per phase over the networks that it updates; networks with settings of their own are groups of it.

    Parameters that want no gradient stay as they are.
    """
    optimizers: dict[str, torch.optim.Optimizer] = {}
    for phase in method.phases:
        groups: dict[AdamSettings, list[nn.Parameter]] = {}
        for network in phase.networks:
            own = phase.adam.get(network, AdamSettings())
            groups.setdefault(own, []).extend(p for p in getattr(method, network).parameters() if p.requires_grad)
        optimizers[phase.name] = torch.optim.Adam(
            [
                {
                    "params": parameters,
                    "lr": optimiser.learning_rate * own.learning_rate_factor,
                    "betas": own.betas or (optimiser.beta1, optimiser.beta2),
                    "learning_rate_factor": own.learning_rate_factor,
                }
                for own, parameters in groups.items()
                if parameters
            ],
            weight_decay=optimiser.weight_decay,
        )
    settle_optimizers(optimizers)
    return optimizers


def settle_optimizers(optimizers: dict[str, torch.optim.Optimizer], *, recorded: bool = False) -> None:
    """Fit optimizers to the device of their parameters: Adam's fused kernel on CUDA, its list functions elsewhere.

    A checkpoint brings these choices along from where it was written, so this is called again after reading one.

    Args:
        optimizers: By phase name.
        recorded: Whether steps will be recorded as a CUDA graph: what changes between steps must lie on the device.
    """
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            device = group["params"][0].device
            fused, rate = device.type == "cuda", float(group["lr"])
            group.update(fused=fused or None, foreach=not (fused or recorded), capturable=recorded and fused)
            group["lr"] = torch.tensor(rate, device=device) if recorded else rate
            for parameter in group["params"]:
                state = optimizer.state.get(parameter, {})
                if "step" in state:
                    state["step"] = state["step"].to(device if fused else "cpu")


def set_learning_rate(optimizers: dict[str, torch.optim.Optimizer], rate: float) -> None:
    """Set the learning rate of the next step, times each group's factor, without synchronisation."""
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            own = rate * group.get("learning_rate_factor", 1.0)  # checkpoints of older versions have no factor
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(own)
            else:
                group["lr"] = own


def training_step(
    method: Method,
    optimizers: dict[str, torch.optim.Optimizer],
    images: ImageBatch,
    *,
    number: int = 0,
    weight: float = 1.0,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    average: Callable[[Sequence[Tensor]], None] | None = None,
) -> dict[str, Tensor]:
    """Update every network once.

    Args:
        method: The method.
        optimizers: By phase name.
        images: The batch, on the method's device.
        number: Which step this is; phases with an interval run at its multiples.
        weight: Factor for the losses; makes the mean over processes right when their shares of a batch differ.
        autocast: Opens the context in which the networks run.
        average: Replaces the gradients given to it by their means over all processes, in place.

    Returns:
        Every loss term by name, scalars on the device; nothing here synchronises.
    """
    terms: dict[str, Tensor] = {}
    with autocast():
        outputs = method.forward_train(images)
    for phase in method.phases:
        if number % phase.interval:
            continue
        with only(method, phase.networks), autocast():
            loss = phase.loss(outputs)
        terms |= loss
        optimizer = optimizers[phase.name]
        optimizer.zero_grad(set_to_none=True)
        (torch.stack(list(loss.values())).sum() * weight).backward()
        if average is not None:
            average([p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None])
        optimizer.step()
    return terms


@contextmanager
def only(method: nn.Module, networks: Iterable[str]) -> Iterator[None]:
    """Freeze everything but ``networks``: no gradient is computed that no optimizer of this phase would use."""
    trained = {id(p) for network in networks for p in getattr(method, network).parameters()}
    frozen = [p for p in method.parameters() if id(p) not in trained and p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


def seconds_per_step(
    method: Method,
    optimiser: OptimiserConfig,
    channels: int,
    crop_size: tuple[int, int],
    *,
    batch_size: int = 1,
    steps: int = 12,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    layout: torch.memory_format = torch.contiguous_format,
) -> float:
    """Mean time of a training step on the CPU, in seconds; ``method`` is used up by it. Crops are (height, width).

    The mean goes over whole cycles of the method, so that what it does at some steps only counts as often as it comes.
    """
    method.prepare()
    method.to(memory_format=layout)
    optimizers = make_optimizers(method, optimiser)
    generator = torch.Generator().manual_seed(0)
    times = []
    measured = -(-steps // method.cycle) * method.cycle
    for number in range(measured + 2):
        source, target = torch.rand(2, batch_size, channels, *crop_size, generator=generator) * 2 - 1
        maps = (images.contiguous(memory_format=layout) for images in (source, target))
        images = replace(random_batch(method, *maps), number=number)
        started = time.perf_counter()
        training_step(method, optimizers, images, number=number, autocast=autocast)
        times.append(time.perf_counter() - started)
    return sum(times[2:]) / measured  # the first two warm up


def random_batch(method: Method, source: Tensor, target: Tensor) -> ImageBatch:
    """The two sets of images as a batch that ``method`` can train on, whatever it knows of domains."""
    seeds = image_seeds(0, range(len(source)))
    if not method.domains:
        return ImageBatch(source, target, seeds)
    domains = torch.zeros(len(source), dtype=torch.int64, device=source.device)
    return ImageBatch(source, target, seeds, domains, domains + 1)
