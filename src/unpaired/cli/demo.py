"""``unpaired demo``: the main job on the embedded drawings, from nothing to a report a person can open."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from unpaired.cli.options import parse
from unpaired.config import Count, Seed, settings


@settings
class Demo:
    """Train QS-Attn from scratch by the quick recipe on the embedded drawings (black line drawings -> colour),
    translate the 120 test drawings, score them against the ground truth, and write a report. Scores during training use
    100 of the 200 validation drawings, which also select the best weights; nothing is selected on the test drawings.

    Run it again to resume. For better results train longer: 'unpaired demo --minutes 60'.

    Example: unpaired demo --minutes 10
    """

    out: Path | None = None
    """The run folder; unset means runs/demo, with what differs from the defaults added to its name."""
    minutes: Annotated[float, Field(gt=0, le=10_000)] = 5.0
    """Time for everything; the number of training images is set by this machine's measured speed."""
    images: Count | None = None
    """Train on exactly this many images instead (the same result on every run of one machine)."""
    seed: Seed = 0
    """Seed of everything random."""


def main(argv: Sequence[str]) -> int:
    """Train, translate, score, report."""
    options = parse(Demo, argv, "unpaired demo")
    from unpaired.cli.demonstration import demonstrate

    return demonstrate(options)
