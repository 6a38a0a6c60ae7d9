"""What the tests of the methods share: a tiny method, a batch, and the terms of its losses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tiny import tiny_settings
from unpaired.methods import METHODS, ImageBatch, Method, image_seeds
from unpaired.networks import LightGenerator


def make(name: str, channels: int = 3, **changes: Any) -> Any:
    """A method with tiny networks, always the same."""
    torch.manual_seed(0)
    method = METHODS[name](METHODS[name].Config(**{**tiny_settings(name), **changes}), channels)
    for network in method.children():
        if isinstance(network, LightGenerator):  # as after some training: it starts at the identity
            torch.nn.init.normal_(network.head.weight, std=0.05)
    method.prepare()
    return method


def batch(
    images: int = 2, size: int = 32, first: int = 0, *, channels: int = 3, dtype: torch.dtype = torch.float32,
    progress: float = 0.0,
) -> ImageBatch:  # fmt: skip
    """Images ``first``, ``first + 1``, ... of eight; only methods of several domains look at the domains."""
    generator = torch.Generator().manual_seed(7)
    pairs = torch.rand(2, 8, channels, size, size, generator=generator) * 2 - 1
    source, target = pairs[:, first : first + images].to(dtype)
    here, done = torch.arange(first, first + images) % 3, torch.tensor(progress, dtype=torch.float64)
    seeds = image_seeds(0, range(first, first + images))
    return ImageBatch(source, target, seeds, here, (here + 1) % 3, progress=done)


def losses(method: Method, images: ImageBatch) -> dict[str, Tensor]:
    """Every term of every phase."""
    outputs = method.forward_train(images)
    return {name: term for phase in method.phases for name, term in phase.loss(outputs).items()}
