"""Exponential moving average of the networks that translate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class EMA:
    """Average of parameters whose half-life is counted in images (edm2's rule).

    Early on the half-life is a tenth of the images seen, so that the average forgets the initial weights.

    Args:
        networks: Modules to average, by name.
        half_life_images: Images after which a parameter's weight in the average has halved.
    """

    def __init__(self, networks: Mapping[str, nn.Module], half_life_images: float) -> None:
        self.half_life_images = half_life_images
        self._live = {
            f"{name}.{key}": value for name, network in networks.items() for key, value in network.named_parameters()
        }
        self._average = {key: value.detach().clone() for key, value in self._live.items()}

    @torch.no_grad()
    def update(self, images_seen: int, batch_images: int) -> None:
        """Move the average towards the live weights after a step that saw ``batch_images`` images."""
        half_life = min(self.half_life_images, 0.1 * images_seen)
        weight = 1.0 - 0.5 ** (batch_images / max(half_life, 1e-8))
        torch._foreach_lerp_(list(self._average.values()), list(self._live.values()), weight)

    def weights(self) -> dict[str, Tensor]:
        """The averaged tensors, named ``network.parameter``."""
        return self._average

    def live_weights(self) -> dict[str, Tensor]:
        """The live tensors under the same names."""
        return {key: value.detach() for key, value in self._live.items()}

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average in the place of the live weights for the duration of a ``with`` block."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def state_dict(self) -> dict[str, Any]:
        return dict(self._average)

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state.keys() != self._average.keys():
            raise KeyError("the averaged networks have other parameters")
        if any(value.shape != self._average[key].shape for key, value in state.items()):
            raise ValueError("the averaged networks have parameters of other shapes")
        for key, value in state.items():
            self._average[key].copy_(value)

    @torch.no_grad()
    def _exchange(self) -> None:
        for key, live in self._live.items():
            kept = live.detach().clone()
            live.copy_(self._average[key])
            self._average[key].copy_(kept)
