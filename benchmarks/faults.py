"""Attacks on the folder of a training: it is killed at a file event, then the same command has to bring it to its end.

python benchmarks/faults.py kills               # every event of a short scored run of 8-bit pictures
python benchmarks/faults.py kills --every 7 --kind microscopy
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile
import torch
import torch.utils.tensorboard  # loaded here, so that no child has to
import tyro
from lightning_fabric.loggers import TensorBoardLogger  # noqa: F401  # the same
from PIL import Image

from unpaired.errors import CheckpointError
from unpaired.inference import Translator
from unpaired.run_config import RunConfig
from unpaired.training import train

Kind = Literal["pictures", "microscopy"]
_TIMES = ("images_per_second", "seconds_per_image", "peak_memory_gib", "seconds")
_OF_A_SESSION = (".lock", ".lock.json", "sessions.jsonl", "tensorboard")


def small_run(folder: Path, kind: Kind = "pictures", seed: int = 0) -> RunConfig:
    """A run of half a second that logs, samples, scores and saves several times; its images are made in ``folder``."""
    rng = np.random.default_rng(seed)
    for split in ("trainA", "trainB", "testA", "testB"):
        (folder / split).mkdir(parents=True)
        for number in range(3):  # bright targets, so that scores get better and the best weights change
            low = 0.75 * split.endswith("B")
            if kind == "pictures":
                pixels = rng.integers(int(256 * low), 256, (36, 36, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / f"{number}.png")
            else:
                pixels = rng.integers(int(4096 * low), 4096, (36, 36), dtype=np.uint16)
                tifffile.imwrite(folder / split / f"{number}.tif", pixels)
    return RunConfig.from_mapping({
        "method": "cut", "dataset": {"folder": str(folder)},
        "data": {"image_size": 32, "num_workers": 0} | ({"channels": 1} if kind == "microscopy" else {}),
        "model": {"base_channels": 4, "blocks": 5, "num_queries": 8, "projector_width": 4},
        "training": {
            "images": 5, "log_every": 3, "checkpoint_every": 2, "keep_checkpoints": 2, "sample_every": 2,
            "score_every": 2, "accelerator": "cpu", "threads": 1,
        },
    })  # fmt: skip


def killed_at(event: int, action: Callable[[], object], folder: Path) -> int:
    """Carry out ``action`` in a process of its own and kill that at a file event in ``folder``.

    Args:
        event: Counted from 1 over files opened to write, renamed, removed or flushed to the disk, and folders made.
        action: What to do.
        folder: Where events count.

    Returns:
        Events that there were.
    """
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.close(reading)
        count, here = 0, str(folder)

        def happens(what: str, arguments: tuple[Any, ...]) -> None:
            nonlocal count
            if what == "open" and not (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
                return
            if what in ("open", "os.rename", "os.mkdir", "os.remove", "fsync") and str(arguments[0]).startswith(here):
                count += 1
                os.write(writing, b".")
                if count == event:
                    os.kill(os.getpid(), signal.SIGKILL)

        real, os.fsync = os.fsync, lambda number: (happens("fsync", (here,)), real(number))[1]
        sys.addaudithook(happens)
        try:
            action()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        count = len(pipe.read())
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == (-signal.SIGKILL if 0 < event <= count else 0)
    return count


def content(run: Path) -> dict[str, Any]:
    """What must not depend on interruptions: every file of a run folder but records of sessions, without times."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in run.rglob("*") if path.is_file()):
        name = str(path.relative_to(run))
        if name.split("/")[0] in _OF_A_SESSION:
            continue
        found[name] = path.read_bytes()
        if path.suffix == ".jsonl":
            lines = [json.loads(line) for line in found[name].splitlines()]
            found[name] = [{key: value for key, value in line.items() if key not in _TIMES} for line in lines]
    return found


def check_readers(run: Path) -> int:
    """Load every kind of weights: whole ones, of one time, or a refusal. Returns how many were refused."""
    refused = 0
    for kind in ("ema", "last", "best"):
        try:
            Translator.from_pretrained(run, weights=kind, device="cpu")
        except CheckpointError:
            refused += 1
    return refused


def kills(every: int = 1, first: int = 1, kind: Kind = "pictures", seed: int = 0, work: Path | None = None) -> None:
    """Kill a run at each file event, carry on, and compare all files with an uninterrupted run.

    Args:
        every: Only every so many-th event.
        first: The first event.
        kind: 8-bit colour pictures, or 16-bit gray TIFF files.
        seed: Of the images.
        work: Folder to work in; unset takes a temporary one.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=work) as temporary:
        folder, started = Path(temporary), time.monotonic()
        config = small_run(folder / "data", kind, seed)
        events = killed_at(0, lambda: train(config, folder / "whole", quiet=True), folder / "whole")
        expected, wrong, refused = content(folder / "whole"), [], 0
        assert "weights/best.safetensors" in expected
        for event in range(first, events + 1, every):
            run = folder / f"killed{event}"
            killed_at(event, lambda run=run: train(config, run, quiet=True), run)
            pause, time.sleep = time.sleep, lambda seconds: None
            refused += check_readers(run)
            time.sleep = pause
            killed_at(0, lambda run=run: train(config, run, quiet=True), run)
            found = content(run)
            if found != expected:
                names = [name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)]
                wrong.append(f"event {event}: {', '.join(sorted(names))}")
        tried = len(range(first, events + 1, every))
        print(
            f"{kind}, seed {seed}: {events} events, {tried} kills, {len(wrong)} wrong ends, {refused} refusals to "
            f"load, {time.monotonic() - started:.0f} s"
        )
        if wrong:
            raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"kills": kills})
