"""A network that a loss looks through: no optimizer, no checkpoint and no average ever sees it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Frozen:
    """Holds a pretrained module beside a method instead of inside it.

    As it is no submodule, its weights are not saved with every checkpoint and not counted among the method's
    parameters; it moves to the device of the first tensor that it sees.

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
