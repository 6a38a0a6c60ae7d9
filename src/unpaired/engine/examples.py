"""Translations of held-out examples during training."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from unpaired.data import Formats, average_copies, pictures, preview_note, repeat_channels
from unpaired.engine.callbacks import Samples
from unpaired.engine.ema import EMA
from unpaired.grids import image_grid
from unpaired.methods.base import DEFAULT_REQUEST, Method, TranslateRequest


class Examples:
    """Held-out images that are translated during training, and how.

    Args:
        method: What translates them.
        ema: Its averaged weights.
        images: Source images, (n, c, H, W) in [-1, 1], in the channels of their own domain; n may be 0.
        formats: What images of both domains are made of.
        device: Where the networks are.
        autocast: Opens the context in which they run.
        request: What the translations should be.
    """

    def __init__(
        self,
        method: Method,
        ema: EMA,
        images: Tensor,
        formats: Formats,
        device: torch.device,
        *,
        autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
        request: TranslateRequest = DEFAULT_REQUEST,
    ) -> None:
        self.images = images
        self._ema, self._formats, self._device, self._autocast = ema, formats, device, autocast
        # A method that supports no field of a request need not take one.
        self._made = (
            method.translate if request is DEFAULT_REQUEST else functools.partial(method.translate, request=request)
        )

    @torch.no_grad()
    def translate(self, x_BCHW: Tensor) -> Tensor:
        """Translate images (B, c, H, W) in [-1, 1] with the weights that are in place now.

        They have the channels of their own domain, and what comes out those of the other one.
        """
        counts = [pixels.channels for pixels in self._formats]
        with self._autocast():
            made = self._made(repeat_channels(x_BCHW.to(self._device), max(counts)))
            return average_copies(made, counts[1]).float().clamp(-1, 1).cpu()

    def sample(self) -> tuple[Samples, float | None]:
        """Translate the examples by the averaged and by the live weights.

        Returns:
            The pictures, and by how much the latter differ from their inputs, in levels of 255; ``None`` where both
            domains have not the same channels.
        """
        source, target = self._formats
        with self._ema.applied():
            averaged = [self.translate(x[None])[0] for x in self.images]
        last = [self.translate(x[None])[0] for x in self.images]
        change = None
        if source.channels == target.channels:
            differences = (mean_difference(a, b) for a, b in zip(self.images, last, strict=True))
            change = round(sum(differences) / len(last), 3)
        inputs = repeat_channels(self.images, max(source.channels, target.channels))
        shown = [pictures(*each) for each in ((list(self.images), source), (averaged, target), (last, target))]
        note = preview_note(target)
        heads = (f"input{preview_note(source)}", f"average (EMA){note}", f"last{note}")
        before, by_average, by_last = shown
        return Samples(inputs, before, by_average, by_last, image_grid(dict(zip(heads, shown, strict=True)))), change


def mean_difference(image: Tensor, other: Tensor) -> float:
    """Mean absolute difference, in levels of 255, of an image (C, H, W) and one that may go on to the right and below.

    Both are rounded to 8 bits first.
    """
    height, width = image.shape[-2:]
    levels = ((x.float().cpu().clamp(-1, 1) + 1).mul(127.5).round() for x in (image, other[..., :height, :width]))
    return float((next(levels) - next(levels)).abs().mean())
