"""Pretrained networks of losses, kept out of optimizers, checkpoints and averages."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Frozen:
    """Wraps a pretrained module so that it is not a submodule of the method that holds it.

    Its weights are in no checkpoint and not among the method's parameters; it moves to the device of its input.

    Args:
        module: The network, put into evaluation mode and frozen.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module.eval().requires_grad_(False)
        self._device = torch.device("cpu")

    def __call__(self, x: Tensor, *arguments: Any) -> Any:
        """The module's output; gradients flow through it to ``x``."""
        if x.device != self._device:
            self.module.to(x.device)
            self._device = x.device
        return self.module(x, *arguments)
