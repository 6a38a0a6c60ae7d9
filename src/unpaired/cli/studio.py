"""``unpaired studio``: translate pictures in the browser, compare runs, watch a training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from tyro.conf import Positional, arg

from unpaired.cli.options import parse
from unpaired.config import InferencePrecision, Port, settings
from unpaired.errors import require_packages
from unpaired.studio.limits import Limits, Megabytes, Megapixels, Pictures, Requests

DEMO = Path("runs") / "demo"
"""Where ``unpaired demo`` leaves its run."""


@settings
class Studio:
    """Open a page in the browser of this machine: translate pictures with one or several runs, side by side, see what
    their encoders find significant, and watch a training, also one that runs elsewhere and writes to this disk.

    Without RUN it shows the embedded drawings, and the run of 'unpaired demo' where runs/demo holds one. Nothing is
    written outside a temporary folder, which is removed at the end. Needs the extra: pip install "unpaired[studio]".

    Example: unpaired studio runs/mine
    """

    run: Positional[
        Annotated[
            tuple[str, ...],
            arg(
                metavar="[RUN [RUN ...]]",
                help="Run folders, finished or in training, folders of weights alone, folders of several runs, or "
                "models of the Hub (owner/name).",
            ),
        ]
    ] = ()
    weights: Literal["ema", "last", "best"] = "ema"
    """The averaged weights, those of the last step, or those that scored best on held-out images during training."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    precision: InferencePrecision = "32"
    """Arithmetic of the networks; auto uses bf16 where it is faster on this machine; bf16 always uses it."""
    host: str = "127.0.0.1"
    """Address to serve at; the default is reached from this machine alone. There is no password and no encryption."""
    port: Port = 7860
    """Port to serve at; 0 takes any free one."""
    megapixels: Megapixels = Limits.megapixels
    """Most pixels of one picture, in millions."""
    megabytes: Megabytes = Limits.megabytes
    """Most bytes of one file, in millions."""
    batch: Pictures = Limits.batch
    """Most pictures at a time."""
    queue: Requests = Limits.queue
    """Most waiting requests; further ones are told to try again later."""
    refresh_seconds: Annotated[float, Field(ge=0.5, le=3600)] = 5.0
    """Seconds between two updates of the training page."""
    option_groups: ClassVar[dict[str, tuple[str, ...]]] = {
        "model": ("weights", "device", "precision"),
        "server": ("host", "port", "refresh_seconds"),
        "limit": ("megapixels", "megabytes", "batch", "queue"),
    }


def main(argv: Sequence[str]) -> int:
    """Load the runs and serve the page until Ctrl-C."""
    options = parse(Studio, argv, "unpaired studio")
    limits = Limits(options.megapixels, options.megabytes, options.batch, options.queue)
    require_packages("the studio", "studio", "gradio", "uvicorn")
    from unpaired.studio.runs import open_runs
    from unpaired.studio.serving import serve

    paths, note = options.run, ""
    if not paths and (DEMO / "weights" / "model.json").is_file():
        paths, note = (str(DEMO),), f"No run was named, so this is {DEMO}, the run of 'unpaired demo'."
    runs = open_runs(paths, options.weights, options.device, options.precision)
    print(", ".join(f"{run.name}: {run.title}" for run in runs) or "no run: the embedded drawings are shown")
    serve(
        runs,
        options.host,
        options.port,
        limits,
        refresh_seconds=options.refresh_seconds,
        note=note,
        ready=lambda address: print(f"open {address} in a browser; Ctrl-C ends it", flush=True),
    )
    return 0
