"""What a person sees while images are translated: how many are done, and how far a large one is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from unpaired.inference import Translator

Item = TypeVar("Item")


def tracked(
    items: Iterable[Item], total: int, translator: Translator, console: Console | None = None
) -> Iterator[Item]:
    """The items, with a bar on the terminal (nothing elsewhere); a second one for an image translated in stripes.

    Args:
        items: What is translated, one after the other.
        total: How many there will be.
        translator: Its ``progress`` is taken.
        console: Where to draw; unset takes the error stream.
    """
    with _bar(console) as bar:
        stripes = bar.add_task("this image", total=1.0, visible=False)

        def show(share: float) -> None:
            if share < bar.tasks[stripes].completed:
                bar.reset(stripes)
            bar.update(stripes, completed=share, visible=share < 1.0)

        translator.progress = show
        try:
            yield from bar.track(items, total, description="translating")
        finally:
            translator.progress = None


@contextmanager
def frame_bar(name: str) -> Iterator[Callable[[int, int], None]]:
    """A bar over the frames of a video on the terminal; yields what is told how many are done, and of how many."""
    with _bar(None) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)


def _bar(console: Console | None) -> Progress:
    console = Console(stderr=True) if console is None else console
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)
