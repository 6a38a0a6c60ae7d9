"""Pictures for people of images that no screen can show as they are, and the words that say what was done to them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from unpaired.data.images import tensor_to_image
from unpaired.data.pixels import PixelFormat

_TAILS = (0.01, 0.99)
_MOST_VALUES = 1 << 20


def pictures(images: Sequence[Tensor], pixels: PixelFormat) -> list[Image.Image]:
    """Images (C, H, W) in [-1, 1] of one format as 8-bit gray or colour.

    One or three channels are shown as they are, of two the first one as gray, of more the first three as red, green
    and blue. Formats with more than 8 bits are stretched, each channel from the 1st to the 99th percentile of all
    these images together: their content often fills a small part of the range.
    """
    shown = 3 if pixels.channels >= 3 else 1
    chosen = [image[:shown].detach().cpu().float() for image in images]
    if pixels.dtype != "uint8" and chosen:
        low, high = _tails(torch.cat([image.flatten(1) for image in chosen], dim=1))
        span = (high - low).clamp(min=1e-6)
        chosen = [(image - low[:, None, None]) / span[:, None, None] * 2.0 - 1.0 for image in chosen]
    return [tensor_to_image(image) for image in chosen]


def preview_note(pixels: PixelFormat) -> str:
    """What :func:`pictures` did to images of a format, in brackets, to follow a heading; empty where it did nothing.

    >>> preview_note(PixelFormat(channels=5))
    ' (channels 1-3 of 5)'
    """
    notes = []
    if pixels.channels not in (1, 3):
        notes.append(f"channel{'s 1-3' if pixels.channels > 3 else ' 1'} of {pixels.channels}")
    if pixels.dtype != "uint8":
        notes.append("stretched")
    return f" ({', '.join(notes)})" if notes else ""


def _tails(values_CN: Tensor) -> tuple[Tensor, Tensor]:
    """Low and high percentile of each channel, of evenly spaced values where there are many."""
    step = -(-values_CN.shape[1] // _MOST_VALUES)
    ends = torch.quantile(values_CN[:, ::step], torch.tensor(_TAILS), dim=1)
    return ends[0], ends[1]
