"""What a person is told when a training begins: what is trained on what, how long it takes, and what looks wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from unpaired.data import DataConfig, SampleStream, height_width, size_words
from unpaired.length import duration
from unpaired.methods.base import Method

_FIRST_LINE, _LINE_EVERY = 25.0, 300.0  # seconds
_WORTH_SAYING, _LONG = 120.0, 86_400.0  # seconds
_STEPS = 3
"""Steps before speed is estimated; the first one warms up."""


def opening_lines(
    method: Method, config: Any, data: DataConfig, stream: SampleStream, device: torch.device, images: int, batch: int
) -> list[str]:
    """The lines before the first step.

    Args:
        method: What is trained.
        config: Its settings.
        data: How images are read.
        stream: The training images.
        device: Where it is trained.
        images: Length in images.
        batch: Images of a step.
    """
    sizes = {name: sum(p.numel() for p in network.parameters()) for name, network in method.named_children()}
    networks = ", ".join(f"{name} {size / 1e6:.2g} M" for name, size in sizes.items() if size)
    counts = " + ".join(f"{count:,}" for count in stream.domain_sizes)
    threads = torch.get_num_threads()
    where = f"{device}, {threads} thread{'s' * (threads != 1)}" if device.type == "cpu" else str(device)
    lines = [
        f"{method.title} on {where}: {counts} images in crops of {size_words(data.image_size)} pixels, {images:,} "
        f"images to see in batches of {batch}. Parameters: {networks}."
    ]
    return lines + _without_selection(method, config, data)


def _without_selection(method: Method, config: Any, data: DataConfig) -> list[str]:
    """Where N is not below the number of locations, all of them are queries, and nothing is selected."""
    queries, taps = getattr(config, "num_queries", None), list(getattr(config, "attention_taps", ()))
    if not queries or not taps:
        return []
    with torch.no_grad():
        maps = method.encode(torch.zeros(1, max(data.domain_channels), *height_width(data.image_size)), taps)
    few = {
        tap: one.shape[2] * one.shape[3] for tap, one in zip(taps, maps, strict=True) if one[0, 0].numel() <= queries
    }
    if not few:
        return []
    least = min(few.values())
    return [
        f"Warning: num_queries is {queries}, but crops of {size_words(data.image_size)} pixels have "
        f"{', '.join(f'{count} locations at {tap}' for tap, count in few.items())}: all of them are queries, so "
        f"nothing is selected there. Use --num-queries below {least}; {max(1, least // 16)} is 1/16, as in the paper."
    ]


class Pace:
    """Tells the time that is left after the first steps, and by the clock where nobody watches a bar.

    Args:
        say: Prints a line.
        seen: Images seen before.
        total: Images to see in all.
        by_clock: Whether to print lines by time.
    """

    def __init__(self, say: Callable[[str], None], seen: int, total: int, *, by_clock: bool) -> None:
        self._say, self._total, self._by_clock = say, total, by_clock
        self._times: list[tuple[int, float]] = [(seen, time.perf_counter())]
        self._estimated = False
        self.next_line = self._times[0][1] + _FIRST_LINE

    def printed(self) -> None:
        """A line about progress was printed by another: the next one by the clock is due later."""
        self.next_line = time.perf_counter() + _LINE_EVERY

    def step(self, seen: int) -> None:
        """Note that so many images are seen."""
        now = time.perf_counter()
        if not self._estimated:
            self._times.append((seen, now))
            if len(self._times) > _STEPS or now - self._times[0][1] > _FIRST_LINE:
                self._estimated = True
                self._estimate(self._times)
        if self._by_clock and now > self.next_line:
            first, start = self._times[0]
            left = (now - start) / max(1, seen - first) * (self._total - seen)
            self._say(f"{seen:>9,} / {self._total:,} images  about {duration(left)} left")
            self.printed()

    def _estimate(self, times: Sequence[tuple[int, float]]) -> None:
        (first, start), (seen, now) = times[1 if len(times) > 2 else 0], times[-1]
        speed = (now - start) / max(1, seen - first)
        left = speed * (self._total - seen)
        if left > _WORTH_SAYING:
            self._say(f"About {duration(left)} at {speed:.3g} s an image, measured on the first steps.")
        if left > _LONG:
            self._say(
                "Warning: that is more than a day. For a first result within minutes use --recipe quick; to shorten "
                "this training use --images N, a smaller --image-size, or a GPU."
            )
