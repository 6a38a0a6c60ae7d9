"""What a person sees while images are translated: how many are done, and how far a large one is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
    console = Console(stderr=True) if console is None else console
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
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
