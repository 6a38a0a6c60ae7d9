"""Attacks, each seeded and bounded, with counts of what was tried and what failed.

python benchmarks/faults.py kills               # at every event of a short scored run of 8-bit pictures
python benchmarks/faults.py kills --every 7 --kind microscopy
python benchmarks/faults.py kills --every 13 --batch-size 2 --image-pool 2 --methods cyclegan munit
python benchmarks/faults.py models              # damaged model folders; also checkpoints, exports, folders, images, web
python benchmarks/faults.py arguments --each 2  # every option of every command
python benchmarks/faults.py disk                # full disks, where mounting is allowed
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import functools
import hashlib
import http.client
import importlib
import io
import json
import math
import os
import random
import re
import resource
import select
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile
import torch
import torch.utils.tensorboard  # loaded here, so that no child has to
import tyro
from lightning_fabric.loggers import TensorBoardLogger  # noqa: F401  # the same
from PIL import Image

from unpaired.cli import COMMANDS, main, module_of
from unpaired.cli.options import option_names
from unpaired.config import load_yaml, save_yaml
from unpaired.data import IMAGE_SUFFIXES, PixelFormat, can_hold, encode, read_picture
from unpaired.engine.checkpoint import _FOOTER, read_checkpoint
from unpaired.errors import CheckpointError, UserError
from unpaired.inference import Translator
from unpaired.methods import METHODS
from unpaired.run_config import DatasetConfig, RunConfig
from unpaired.study.records import QUESTIONS
from unpaired.study.store import Store
from unpaired.training import train

Kind = Literal["pictures", "microscopy"]
_TIMES = ("images_per_second", "seconds_per_image", "peak_memory_gib", "seconds")
_OF_A_SESSION = (".lock", ".lock.json", "sessions.jsonl", "tensorboard")
_SMALL: dict[str, Any] = {
    "base_channels": 4, "blocks": 5, "num_queries": 8, "projector_width": 4, "discriminator_channels": 4,
    "discriminator_layers": 2, "perceptron_width": 16, "feature_network": "vgg16_untrained", "domains": ("A", "B"),
}  # fmt: skip
"""Settings of a model that trains in milliseconds, for every method that has them."""


def small_run(
    folder: Path,
    kind: Kind = "pictures",
    seed: int = 0,
    processes: int = 1,
    precision: str = "32",
    method: str = "cut",
    batch_size: int = 1,
    image_pool: int = 0,
) -> RunConfig:
    """A run of half a second that logs, samples, scores and saves several times; its images are made in ``folder``."""
    rng = np.random.default_rng(seed)
    domains = "domain" in METHODS[method].supports
    for split in ("train/A", "train/B", "test/A", "test/B") if domains else ("trainA", "trainB", "testA", "testB"):
        (folder / split).mkdir(parents=True)
        for number in range(3):  # bright targets, so that scores get better and the best weights change
            low = 0.75 * split.endswith("B")
            if kind == "pictures":
                pixels = rng.integers(int(256 * low), 256, (36, 36, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / f"{number}.png")
            else:
                pixels = rng.integers(int(4096 * low), 4096, (36, 36), dtype=np.uint16)
                tifffile.imwrite(folder / split / f"{number}.tif", pixels)
    fields = METHODS[method].Config.__dataclass_fields__
    return RunConfig.from_mapping({
        "method": method, "dataset": {"domains" if domains else "folder": str(folder)},
        "data": METHODS[method].data_defaults | {"image_size": 32, "num_workers": 0}
        | ({"channels": 1} if kind == "microscopy" else {}),
        "model": {key: value for key, value in _SMALL.items() if key in fields}
        | ({"image_pool": image_pool} if "image_pool" in fields and not domains else {}),
        "training": {
            "images": 5 * batch_size, "log_every": 3, "checkpoint_every": 2 * batch_size, "keep_checkpoints": 2,
            "sample_every": 2 * batch_size, "score_every": 2 * batch_size, "accelerator": "cpu", "threads": 1,
            "devices": processes, "batch_size": processes * batch_size, "precision": precision,
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


def kills(
    every: int = 1,
    first: int = 1,
    kind: Kind = "pictures",
    seed: int = 0,
    processes: int = 1,
    precision: Literal["32", "bf16-mixed"] = "32",
    methods: tuple[str, ...] = ("cut",),
    batch_size: int = 1,
    image_pool: int = 0,
    work: Path | None = None,
) -> None:
    """Kill runs at each file event, carry on, and compare all files with an uninterrupted run.

    Args:
        every: Only every so many-th event.
        first: The first event.
        kind: 8-bit colour pictures, or 16-bit gray TIFF files.
        seed: Of the images.
        processes: That train together; the first one is killed.
        precision: Of the networks.
        methods: Those that train, one after the other.
        batch_size: Images of each process at a step.
        image_pool: Earlier translations kept for the discriminator, for the methods that have a pool.
        work: Folder to work in; unset takes a temporary one.
    """
    torch.set_num_threads(1)
    wrong = list[str]()
    for method in methods:
        small = functools.partial(small_run, kind=kind, seed=seed, processes=processes, precision=precision,
                                  method=method, batch_size=batch_size, image_pool=image_pool)  # fmt: skip
        wrong += _kills(small, range(first, sys.maxsize, every), work)
    if wrong:
        raise SystemExit("\n".join(wrong))


def _kills(small: functools.partial[RunConfig], events: range, work: Path | None) -> list[str]:
    """Kill one run at each of these events. Returns the wrong ends."""
    with tempfile.TemporaryDirectory(dir=work) as temporary:
        folder, started = Path(temporary), time.monotonic()
        config = small(folder / "data")
        save_yaml(folder / "run.yaml", config.to_mapping())

        def run_once(run: Path, event: int = 0) -> int:
            def action() -> None:
                words = ["train", "--config", str(folder / "run.yaml"), "--out", str(run), "--quiet"]
                # The other processes are started by the command of this one.
                sys.argv, sys.modules["__main__"].__spec__ = ["", *words], find_spec("unpaired.__main__")
                assert main(words) == 0

            return killed_at(event, action, run)

        count = run_once(folder / "whole")
        expected, wrong, refused = content(folder / "whole"), list[str](), 0
        assert "weights/best.safetensors" in expected
        killed = range(events.start, count + 1, events.step)
        for event in killed:
            run = folder / f"killed{event}"
            run_once(run, event)
            pause, time.sleep = time.sleep, lambda seconds: None
            refused += check_readers(run)
            time.sleep = pause
            run_once(run)
            found = content(run)
            if found != expected:
                names = [name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)]
                wrong.append(f"{config.method}, event {event}: {', '.join(sorted(names))}")
            shutil.rmtree(run)
            print(f"event {event}, {len(wrong)} wrong ends so far", file=sys.stderr, flush=True)
        print(
            f"{config.method}, {small.keywords}: {count} events, {len(killed)} kills, "
            f"{len(wrong)} wrong ends, {refused} refusals to load, {time.monotonic() - started:.0f} s",
            flush=True,
        )
        return wrong


# ---------------------------------------------------------------------------------------------------------------------
# hostile input: each attempt in a process of its own
# ---------------------------------------------------------------------------------------------------------------------
_GIB = 4
"""Memory that an attempt may take beyond what this process has."""
_SECONDS = 60.0


class Campaign:
    """Counts attempts. One fails where it ends in anything but success or one line for the person.

    Args:
        name: For the line that is printed.
        seed: Of what is drawn.
    """

    def __init__(self, name: str, seed: int) -> None:
        self.name, self.seed, self.started = name, seed, time.monotonic()
        self.rng = random.Random(seed)
        self.done, self.refused, self.at_work, self.failed = 0, 0, list[str](), list[str]()

    def attempt(
        self, what: str, action: Callable[[], object], seconds: float = _SECONDS, working_seconds: int = 0
    ) -> str:
        """Carry out ``action`` in a forked process: ``done``, ``refused``, or what went wrong.

        ``at work`` where it used so many seconds of the processor.
        """
        reading, writing = os.pipe()
        if (child := os.fork()) == 0:
            os.close(reading)
            if working_seconds:
                resource.setrlimit(resource.RLIMIT_CPU, (working_seconds, working_seconds + 5))
            os.write(writing, _verdict(action).encode("utf-8", "backslashreplace")[-4000:])
            os._exit(0)
        os.close(writing)
        with open(reading, "rb") as pipe:
            ended = select.select([pipe], [], [], seconds)[0]
            if not ended:
                os.kill(child, signal.SIGKILL)
            verdict = pipe.read().decode() if ended else f"took longer than {seconds:g} s"
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        verdict = verdict or ("at work" if code == -signal.SIGXCPU else f"died: {code}")
        self.count(what, verdict)
        return verdict

    def count(self, what: str, verdict: str) -> None:
        """Count an attempt that ended so."""
        self.done += verdict == "done"
        self.refused += verdict == "refused"
        if verdict == "at work":
            self.at_work.append(what)
        elif verdict not in ("done", "refused"):
            self.failed.append(f"{what}: {verdict}")
            print(self.failed[-1], file=sys.stderr, flush=True)

    def end(self) -> None:
        """Print the counts. Raises ``SystemExit`` if an attempt failed."""
        tried = self.done + self.refused + len(self.at_work) + len(self.failed)
        print(
            f"{self.name}, seed {self.seed}: {tried} tried, {self.done} done, {self.refused} refused in one line, "
            f"{len(self.at_work)} still at work, {len(self.failed)} failed, {time.monotonic() - self.started:.0f} s",
            *self.at_work,
            sep="\n",
            flush=True,
        )
        if self.failed:
            raise SystemExit(1)


def _verdict(action: Callable[[], object]) -> str:
    """``done``, ``refused`` (by one line), or a traceback."""
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (taken + _GIB * 2**30,) * 2)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            code = action()
    except UserError as error:
        return "refused" if "\n" not in str(error) else f"more than one line: {error}"
    except SystemExit as error:
        code = error.code
    except BaseException:
        return traceback.format_exc()
    lines = [line for line in said.getvalue().splitlines() if line.startswith("error: ")]
    if type(code) is int and code >= 2:
        return "refused" if len(lines) == 1 else f"exit code {code} without a reason: {said.getvalue()[-400:]}"
    return "done"


AWKWARD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 3, 10**6, 10**12, 10**23, -(10**23), 0.5, -0.5, 1e23, "", "x", "\0", "é" * 300, [], [1], {},
    {"a": 1}, [[[]]], "9" * 400, [0] * 1000,
)  # fmt: skip
"""Values of JSON that no field expects, and some that it does."""


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to everything in nested dictionaries and lists, the whole excepted."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield (*path, key)
        yield from places(each, (*path, key))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy of nested values with another one at a path; ``...`` takes it out."""
    value = copy.deepcopy(value)
    within = functools.reduce(lambda whole, key: whole[key], path[:-1], value)
    if new is ...:
        del within[path[-1]]
    else:
        within[path[-1]] = new
    return value


def spoilt(content: bytes, rng: random.Random) -> bytes:
    """Bytes flipped, cut off, left out, repeated or put in."""
    content, place = bytearray(content), rng.randrange(len(content))
    match rng.randrange(5):
        case 0:
            for _ in range(rng.choice((1, 1, 4, 64))):
                content[rng.randrange(min(len(content), rng.choice((64, 1024, len(content)))))] = rng.randrange(256)
        case 1:
            del content[place:]
        case 2:
            del content[place : place + rng.randrange(1, 64)]
        case 3:
            content[place:place] = content[place : place + 64]
        case _:
            content[place : place + 4] = rng.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4), b"NaN "))
    return bytes(content)


def in_place_of(path: Path, rng: random.Random) -> str:
    """Put something that is no file where a file was; what it is."""
    path.unlink()
    kind = rng.choice(("pipe", "folder", "device", "nothing", "link to itself", "brackets"))
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "device":
            path.symlink_to("/dev/zero")
        case "link to itself":
            path.symlink_to(path.name)
        case "brackets":
            path.write_bytes(b"[" * 200_000)
    return kind


def _trained(folder: Path, images: int = 2) -> tuple[RunConfig, Path]:
    config = small_run(folder / "data")
    config = replace(config, training=replace(config.training, images=images, score_every=0))
    train(config, folder / "run", quiet=True)
    return config, folder / "run"


def _translates(path: Path) -> None:
    """In a process of its own."""
    time.sleep = lambda seconds: None  # readers wait for a training that may be writing
    translator = (
        Translator.from_onnx(path) if path.suffix == ".onnx" else Translator.from_pretrained(path, device="cpu")
    )
    translator.memory_gib = 8.0
    made = translator.translate(torch.zeros(translator.channels, 32, 32))
    assert made.isfinite().all()


@contextlib.contextmanager
def _campaign(name: str, seed: int) -> Iterator[tuple[Campaign, Path]]:
    torch.set_num_threads(1)
    campaign = Campaign(name, seed)
    folder = tempfile.mkdtemp()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield campaign, Path(folder)
    except KeyboardInterrupt:
        print("ended early:", end=" ")
    finally:
        subprocess.run(["rm", "-rf", folder], check=False)  # Python's own way cannot remove what is nested too deep
    campaign.end()


def models(count: int = 150, seed: int = 0) -> None:
    """Damage model.json field by field, then the files of the folder at random, and translate with it."""
    with _campaign("model folders", seed) as (campaign, folder):
        weights = _trained(folder)[1] / "weights"
        description = json.loads((weights / "model.json").read_bytes())
        fields = list(places(description))
        campaign.rng.shuffle(fields)
        for number in range(count):
            case = Path(shutil.copytree(weights, folder / "case"))
            if number % 3 < 2:
                path = fields[number % len(fields)]
                new = campaign.rng.choice((*AWKWARD, ...))
                what = f"{'.'.join(map(str, path))} = {new!r:.40}"
                (case / "model.json").write_text(json.dumps(changed(description, path, new)))
            else:
                file = case / campaign.rng.choice(("model.json", "ema.safetensors"))
                if campaign.rng.random() < 0.3:
                    what = f"{in_place_of(file, campaign.rng)} for {file.name}"
                else:
                    file.write_bytes(spoilt(file.read_bytes(), campaign.rng))
                    what = f"{file.name} spoilt, {number}"
                    if file.suffix == ".safetensors":  # as if somebody had made it so
                        digest = {"sha256": {file.name: hashlib.sha256(file.read_bytes()).hexdigest()}}
                        (case / "model.json").write_text(json.dumps(description | digest))
            campaign.attempt(what, lambda case=case: _translates(case))
            shutil.rmtree(case)


def checkpoint_bytes(payload: Any) -> bytes:
    """A checkpoint file of any content, with the checksum of that."""
    buffer = io.BytesIO()
    torch.save(payload, buffer)
    return buffer.getvalue() + _FOOTER + hashlib.sha256(buffer.getvalue()).digest()


def checkpoints(count: int = 100, seed: int = 0) -> None:
    """Change what checkpoints hold, checksum included, or their bytes, and go on with the run."""
    with _campaign("checkpoints", seed) as (campaign, folder):
        config, run = _trained(folder, images=3)
        longer = replace(config, training=replace(config.training, images=3))
        newest = max((run / "checkpoints").glob("*.pt"))
        payload = read_checkpoint(newest)
        fields = list(places(payload))
        campaign.rng.shuffle(fields)
        tensors = (torch.zeros(()), torch.full((3,), math.nan), torch.zeros(2, 2, dtype=torch.int64), torch.zeros(0))
        for number in range(count):
            case = Path(shutil.copytree(run, folder / "case"))
            file = case / "checkpoints" / newest.name
            for other in (case / "checkpoints").iterdir():
                if other != file:
                    other.unlink()
            if number % 5:
                path = fields[number % len(fields)]
                new = campaign.rng.choice((*AWKWARD, *tensors, ...))
                what = f"{'.'.join(map(str, path))} = {new!r:.40}"
                file.write_bytes(checkpoint_bytes(changed(payload, path, new)))
            else:
                what = f"bytes, {number}"
                file.write_bytes(spoilt(file.read_bytes(), campaign.rng))
            campaign.attempt(what, lambda case=case: train(longer, case, extend_to=5, quiet=True))
            shutil.rmtree(case)


def exports(count: int = 60, seed: int = 0) -> None:
    """Change the metadata of an ONNX file, exchange nodes of its graph, spoil its bytes; translate with it."""
    import onnx

    with _campaign("ONNX files", seed) as (campaign, folder):
        file = folder / "model.onnx"
        Translator.from_pretrained(_trained(folder)[1], device="cpu").export(file)
        whole = onnx.load(file)
        facts = {entry.key: entry.value for entry in whole.metadata_props}
        description = json.loads(facts["description"])
        fields = [("description", *path) for path in places(description)] + [(name,) for name in facts]
        campaign.rng.shuffle(fields)
        for number in range(count):
            model, what = onnx.ModelProto(), f"bytes, {number}"
            model.CopyFrom(whole)
            if number % 3 < 2:
                path, new = fields[number % len(fields)], campaign.rng.choice((*AWKWARD, ...))
                what = f"{'.'.join(map(str, path))} = {new!r:.40}"
                held = changed({**facts, "description": description}, path, new)
                del model.metadata_props[:]
                for key, value in held.items():
                    text = value if isinstance(value, str) else json.dumps(value)
                    model.metadata_props.add(key=key, value=text)
                content = model.SerializeToString()
            elif number % 2:
                what = f"another graph, {number}"
                node = campaign.rng.choice(list(model.graph.node))
                node.op_type = campaign.rng.choice(("Relu", "Shape", "Identity", "Neg", "Nonsense"))
                content = model.SerializeToString()
            else:
                content = spoilt(file.read_bytes(), campaign.rng)
            case = folder / "case.onnx"
            case.write_bytes(content)
            campaign.attempt(what, lambda case=case: _translates(case))


def images(count: int = 200, seed: int = 0) -> None:
    """Spoil images of every kind that is written, and read them; headers that claim gigapixels are among them."""
    with _campaign("images", seed) as (campaign, folder):
        draw = np.random.default_rng(seed)
        colour = draw.integers(0, 256, (40, 36, 3), dtype=np.uint8)
        whole = []
        for suffix in IMAGE_SUFFIXES:
            whole.append((suffix, bytes(encode([colour], suffix))))
            if can_hold(suffix, "uint16", 1):
                whole.append((suffix, bytes(encode([colour[:, :, :1].astype(np.uint16) * 257], suffix))))
        for number in range(count):
            suffix, content = whole[number % len(whole)]
            case = folder / f"case{suffix}"
            case.write_bytes(spoilt(content, campaign.rng))
            campaign.attempt(f"{suffix}, {number}", lambda case=case: read_picture(case, PixelFormat()))


def folders(count: int = 100, seed: int = 0) -> None:
    """Damage a file of a run, a prepared set or a study, by fields or by bytes, and give it to a command that reads it.

    Lines of JSON Lines and entries of a study's database are damaged by fields, too.
    """
    with _campaign("folders", seed) as (campaign, folder):
        made = folder / "made"
        made.mkdir()
        config = small_run(folder / "data")
        train(config, made / "run", quiet=True)
        data, case, out = str(folder / "data"), folder / "case", str(folder / "out")
        for words in (
            ["evaluate", str(made / "run"), "--metrics", "colour_shift_lab"],
            ["data", "prepare", data, "--out", str(made / "set")],
            ["study", str(made / "run"), f"{data}/testA", "--data", data, "--out", str(made / "study"), "--no-serve"],
        ):
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                assert main(words) == 0, words
        store = Store(made / "study")
        methods = [method.id for method in store.study.methods]
        store.vote(store.enter(None)[0].id, min(store.study.images), next(iter(QUESTIONS)), methods[0], methods)
        run, prepared, study = (str(case / name) for name in ("run", "set", "study"))
        readers: dict[str, list[tuple[str, ...]]] = {
            "run": [
                ("runs", str(case)), ("compare", run), ("report", run, "--out", out), ("info", run),
                ("evaluate", run, "--metrics", "colour_shift_lab"), ("push", run, "a/b", "--dry-run", out),
                ("translate", run, f"{data}/testA", "--out", out), ("train", "--config", f"{run}/run.yaml", "--out",
                run, "--quiet"), ("study", run, f"{data}/testA", "--data", data, "--out", out, "--no-serve"),
            ],
            "set": [
                ("data", "check", prepared), ("data", "prepare", data, "--out", prepared),
                ("train", prepared, "--method", "cut", "--images", "1", "--image-size", "32", "--base-channels", "4",
                 "--num-queries", "8", "--projector-width", "4", "--accelerator", "cpu", "--out", out, "--quiet"),
            ],
            "study": [("study", study, "--table"), ("study", study, "--export", out), ("study", study, "--no-serve")],
        }  # fmt: skip
        files = [
            path.relative_to(made) for path in sorted(made.rglob("*"))
            if path.is_file() and not path.is_symlink() and "tensorboard" not in path.parts
            and path.suffix not in (".pt", ".safetensors") and (path.suffix != ".png" or path.parts[-2] != "samples")
        ]  # fmt: skip
        told = [path for path in files if path.suffix in (".json", ".jsonl", ".yaml", ".sqlite")]
        for number in range(count):
            shutil.copytree(made, case, symlinks=True)
            name = campaign.rng.choice(files if number % 4 == 0 else told)
            what = f"{name}: {_damaged(case / name, campaign.rng, fields=number % 4 > 1)}"
            words = list(campaign.rng.choice(readers[name.parts[0]]))
            campaign.attempt(f"{what}: {' '.join(words)}", lambda words=words: main(words), 120)
            subprocess.run(["rm", "-rf", str(case), out], check=True)


def _damaged(path: Path, rng: random.Random, *, fields: bool) -> str:
    """Change a value that a file of facts holds, else bytes of it, else what lies there; what was done."""
    held: Any = None
    if fields and path.suffix == ".jsonl":
        held = [json.loads(line) for line in path.read_text().splitlines()]
    elif fields and path.suffix == ".json":
        held = json.loads(path.read_text())
    elif fields and path.suffix == ".yaml":
        held = load_yaml(path)
    elif fields and path.suffix == ".sqlite":
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            table = rng.choice(tables)[0]
            column = rng.choice([row[1] for row in connection.execute(f"PRAGMA table_info({table})")])
            new = rng.choice((None, -1, 10**12, 0.5, "", "x", "[" * 2000, b"\xff"))
            try:
                connection.execute(f"UPDATE {table} SET {column} = ?", (new,))
            except sqlite3.Error as error:
                return f"{table}.{column} = {new!r:.40}: {error}"
            return f"{table}.{column} = {new!r:.40}"
    if held:
        where, new = rng.choice(list(places(held))), rng.choice((*AWKWARD, ...))
        held = changed(held, where, new)
        lines = [json.dumps(each) for each in held] if path.suffix == ".jsonl" else [json.dumps(held)]  # JSON is YAML
        path.write_text("".join(f"{line}\n" for line in lines))
        return f"{'.'.join(map(str, where))} = {new!r:.40}"
    if path.stat().st_size and rng.random() < 0.7:
        path.write_bytes(spoilt(path.read_bytes(), rng))
        return "spoilt"
    return in_place_of(path, rng)


WORDS = (
    "", "x", "-1", "0", "1", "3", "1000000", "9e18", "1e23", "9" * 400, "nan", "inf", "-inf", "0.5", "DEVICE",
    "PIPE", "NESTED", "x" * 5000, "../..", "\udcff", "unset", "*",
)  # fmt: skip
"""Words on a command line; DEVICE is a link to a device, PIPE a pipe, NESTED 1,500 folders within each other."""


def arguments(each: int = 2, seed: int = 0, only: tuple[str, ...] = ()) -> None:
    """Give every option of every command, as its definition has them, and every place for a file, awkward values.

    What is sensible after all and takes its time, such as a demo, is ended after a while and listed. Pages are not
    served.

    Args:
        each: Values per option.
        seed: Of which.
        only: Commands; unset takes all.
    """
    with _campaign("arguments", seed) as (campaign, folder):
        config, run = _trained(folder)
        data, matrix, pth = str(folder / "data"), folder / "matrix.yaml", folder / "latest_net_G.pth"
        save_yaml(folder / "run.yaml", config.to_mapping())
        settings = {name: config.to_mapping()[name] for name in ("data", "model")}
        save_yaml(matrix, {"budget": {"images": 1}, "common": settings, "data": {"a": {"folder": data}},
                           "contenders": {"cut": {"method": "cut"}}})  # fmt: skip
        torch.save({"weight": torch.zeros(1)}, pth)
        os.mkfifo(folder / "PIPE")
        (folder / "DEVICE").symlink_to("/dev/zero")  # never a device itself: a fault could replace it
        nest(folder / "NESTED")
        images, config_file = f"{data}/testA", str(folder / "run.yaml")
        scoring, out = (str(run), "--metrics", "colour_shift_lab"), ("--out", "OUT")
        assert campaign.attempt("evaluate", lambda: main(["evaluate", *scoring]), 300) == "done"
        lines: dict[str, tuple[str, ...]] = {
            "train": (data, "--config", config_file, "--stop-after", "1", *out, "--quiet"),
            "translate": (str(run), f"{images}/0.png", *out),
            "evaluate": scoring,
            "report": (str(run), *out),
            "compare": (str(run),),
            "data check": (data,),
            "data prepare": (data, *out),
            "import": (str(pth), "--method", "cut", *out),
            "export": (str(run), "--format", "torch", "--out", "OUT.pt2"),
            "runs": (str(folder),), "recipes": ("quick",), "info": (),
            "study": (str(run), images, "--data", data, *out, "--port", "0"),
            "demo": (), "studio": (str(run), "--port", "0"), "serve": (str(run), "--port", "0"),
            "push": (str(run), "a/b", "--dry-run", "OUT"),
            "benchmark": (str(matrix), *out, "--dry-run"),
        }  # fmt: skip
        assert {line.split()[0] for line in lines} == set(COMMANDS)
        here, special = folder / "a" / "b" / "here", {name: str(folder / name) for name in ("PIPE", "NESTED", "DEVICE")}

        def action(name: str, words: list[str]) -> object:
            """In a process of its own, which what is changed here ends with."""
            os.chdir(here)
            os.environ.update(HF_HUB_OFFLINE="1", RAY_ADDRESS="127.0.0.1:9")  # nothing is uploaded, no cluster started
            if name in ("serve", "studio", "study"):
                import uvicorn

                uvicorn.Server.run = lambda *_, **__: None  # type: ignore[method-assign]
            return main([name, *words])

        for line, given in lines.items():
            name, *sub = line.split()
            if only and name not in only:
                continue
            kind = options_of(line)
            drawn = lambda: (special.get(word, word) for word in campaign.rng.sample(WORDS, each))  # noqa: E731
            cases = [
                [*given],
                *([*given, f"--{option}={word}"] for option, _ in option_names(kind) for word in drawn()),
            ]
            for place, word in enumerate(given):
                if not word.startswith("--"):
                    cases += [[*given[:place], new, *given[place + 1 :]] for new in drawn()]
            for words in cases:
                here.mkdir(parents=True)
                what = f"{line} {' '.join(words)[-120:]}"
                ended = campaign.attempt(what, functools.partial(action, name, [*sub, *words]), 300, 20)
                assert words != [*given] or (ended == "refused") == (name == "import"), f"{what}: {ended}"
                subprocess.run(["rm", "-rf", str(here)], check=True)


def nest(folder: Path, depth: int = 1500) -> None:
    """Make so many folders within each other."""
    folder.mkdir()
    inner = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=inner)
        outer, inner = inner, os.open("d", os.O_RDONLY, dir_fd=inner)
        os.close(outer)
    os.close(inner)


def options_of(line: str) -> Any:
    """The class of options of a command."""
    name, *sub = line.split()
    module = importlib.import_module(module_of(name))
    if name == "train":
        return module._arguments(RunConfig("qs_attn", DatasetConfig()))
    return getattr(module, (sub[0] if sub else name).capitalize())


def disk(seed: int = 0, steps: int = 8) -> None:
    """Train, prepare and translate on a disk that is full sooner or later; then the same where there is room.

    Args:
        seed: Of the images.
        steps: Sizes of the disk, from nothing to a little less than is needed.
    """
    with _campaign("full disk", seed) as (campaign, folder):
        config = small_run(folder / "data", seed=seed)
        train(config, folder / "whole", quiet=True)
        save_yaml(folder / "run.yaml", config.to_mapping())
        expected, mount = content(folder / "whole"), folder / "disk"
        size = sum(path.stat().st_size for path in (folder / "whole").rglob("*") if path.is_file())
        mount.mkdir()
        data = str(folder / "data")
        lines = {
            "train": ("train", data, "--config", str(folder / "run.yaml"), "--quiet", "--out"),
            "data prepare": ("data", "prepare", data, "--size", "32", "--out"),
            "translate": ("translate", str(folder / "whole"), f"{data}/testA", "--out"),
            "export": ("export", str(folder / "whole"), "--format", "torch", "--out"),
        }
        for what, words in lines.items():
            for step in range(steps):
                kib = 4 + (size if what == "train" else 300_000 if what == "export" else 20_000) * step // steps // 1024

                def action(words: tuple[str, ...] = words, kib: int = kib, what: str = what) -> object:
                    small_disk(mount, kib)
                    code = main([*words, str(mount / "out")])
                    if code in (0, 2):  # done, or refused before anything was written
                        return code
                    if what == "train":
                        subprocess.run(["mount", "-o", "remount,size=64m", str(mount)], check=True)
                        assert main([*words, str(mount / "out")]) == 0
                        assert content(mount / "out") == expected
                    return code

                campaign.attempt(f"{what}, {kib} KiB", action)


def small_disk(mount: Path, kib: int) -> None:
    """Mount an empty disk of so many KiB, for this process and its children alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(0x10000000 | 0x00020000):  # CLONE_NEWUSER | CLONE_NEWNS
        raise OSError(ctypes.get_errno(), "no mount is allowed here")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    if libc.mount(b"none", os.fsencode(mount), b"tmpfs", 0, f"size={kib}k".encode()):
        raise OSError(ctypes.get_errno(), "no mount is allowed here")


Page = Literal["study", "serve", "studio"]
PATHS: dict[Page, tuple[str, ...]] = {
    "study": ("/", "/api/study", "/api/enter", "/api/leave", "/api/vote", "/picture/x", "/picture/%00"),
    "serve": (
        "/health", "/translate", "/translate", "/batch", "/batch", "/translate?style_seed=9e18",
        "/translate?format=%00", "/translate?format=tif", "/translate?reverse=1", f"/translate?domain={'x' * 5000}",
    ),
    "studio": (
        "/", "/config", "/gradio_api/upload", "/gradio_api/upload?upload_id=x",
        "/gradio_api/upload_progress?upload_id=x", "/gradio_api/queue/join", "/gradio_api/queue/join",
        "/gradio_api/queue/data?session_hash=x", "/gradio_api/info",
        "/gradio_api/run/predict", "/gradio_api/call/on_translate", "/gradio_api/file=/etc/passwd", "/gradio_api/reset",
        "/gradio_api/component_server", "/gradio_api/cancel", "/gradio_api/file=%00", "/login",
    ),
}  # fmt: skip
"""Where the pages listen; what should not be there is asked of all: ``/openapi.json`` and others."""
_NOWHERE = ("/openapi.json", "/docs", "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", f"/{'x' * 70_000}", "*", "")
_ASKED = (
    "name", "resume", "rater", "source", "question", "choice", "fn_index", "data", "session_hash", "event_id",
    "event_data", "trigger_id", "component_id", "fn_name", "simple_format",
)  # fmt: skip
_HEADERS = (
    {"content-type": "\x7f"}, {"content-type": ""}, {"content-type": "multipart/form-data"}, {"host": "evil"},
    {"origin": "http://evil"}, {"cookie": "x" * 9000}, {"expect": "100-continue"}, {"authorization": "Bearer é"},
)  # fmt: skip


def web(count: int = 300, seed: int = 0, page: Page = "study", users: int = 50) -> None:
    """Send a page or a server requests of awkward paths, methods, headers and bodies, broken uploads among them.

    Each that arrives whole is answered, and not with a 500; clients that leave are no reason to say anything; the
    server ends as usual.

    Args:
        count: Requests.
        seed: Of what is asked.
        page: What serves.
        users: That ask at the same time.
    """
    with _campaign(f"web: {page}", seed) as (campaign, folder):
        run, made = str(_trained(folder)[1]), str(folder / "data" / "testA")
        words = (
            [run, made, "--data", str(folder / "data"), "--out", str(folder / "study")] if page == "study" else [run]
        )
        command = [sys.executable, "-m", "unpaired", page, *words, "--port", "0"]
        with (folder / "said").open("wb") as log:
            server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert server.stdout is not None
        port = next(int(found[1]) for line in server.stdout if (found := re.search(r"http://127.0.0.1:(\d+)", line)))
        asked = [Asked.drawn(campaign.rng, page, port) for _ in range(count)]
        with ThreadPoolExecutor(users) as pool:
            for each, verdict in zip(asked, pool.map(lambda each: each.verdict(port), asked), strict=True):
                campaign.count(repr(each.content[:200]), verdict)
        good = Asked("GET", f"GET / HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n\r\n".encode())
        campaign.count("a request like any other", good.verdict(port))
        memory = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{server.pid}/status").read_text())
        assert memory is not None
        print(f"{page}: {int(memory[1]) / 2**20:.1f} GiB at most")
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=120)
        said = (folder / "said").read_text()
        campaign.count("the end", "done" if (server.returncode, said) == (0, "") else f"{server.returncode}: {said}")


@dataclass(frozen=True)
class Asked:
    """A request as the bytes that are sent; ``whole``: the client waits for the answer to all of it."""

    method: str
    content: bytes
    whole: bool = True

    @staticmethod
    def drawn(rng: random.Random, page: Page, port: int) -> Asked:
        """Any request."""
        method, path = rng.choice(("GET", "POST", "POST", "POST", "PUT", "HEAD", "BREW")), rng.choice(PATHS[page])
        if rng.random() < 0.05:
            path = rng.choice(_NOWHERE)
        body, kind = _upload(rng) if page != "study" and rng.random() < 0.5 else _json(rng)
        head = {"host": f"127.0.0.1:{port}", "content-length": str(len(body)), "content-type": kind}
        if rng.random() < 0.3:
            head |= rng.choice(_HEADERS)
        whole = rng.random() < 0.7
        if not whole and rng.random() < 0.3:
            lengths: list[dict[str, str]] = [{"content-length": word} for word in ("-1", "9" * 30, "x", "10000000")]
            head |= rng.choice([*lengths, {"transfer-encoding": "chunked"}])
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items()), "", ""]
        content = "\r\n".join(lines).encode("utf-8") + body
        return Asked(method, content if whole else spoilt(content, rng), whole)

    def verdict(self, port: int) -> str:
        """``done``, ``refused``, or what went wrong."""
        try:
            with socket.create_connection(("127.0.0.1", port), 60) as connection:
                connection.sendall(self.content)
                if not self.whole:
                    connection.shutdown(socket.SHUT_WR)
                answer = http.client.HTTPResponse(connection, method=self.method)
                answer.begin()
                if answer.getheader("content-length") and b"Traceback" in answer.read():
                    return "a traceback"
        except (OSError, http.client.HTTPException) as error:
            return f"no answer: {error!r}" if self.whole or isinstance(error, TimeoutError) else "done"
        status = answer.status
        return f"status {status}" if status >= 500 and status != 503 else "done" if status < 400 else "refused"


def _json(rng: random.Random) -> tuple[bytes, str]:
    """The body of a request, and its type."""
    new = rng.choice(AWKWARD)
    text = rng.choice(
        (
            json.dumps(new),
            json.dumps(dict.fromkeys(_ASKED, new)),
            "[" * 100_000,
            "{",
            "\udcff",
            "",
            json.dumps({name: rng.choice(AWKWARD) for name in rng.sample(_ASKED, 5)}),
        )
    )
    return text.encode("utf-8", "surrogateescape"), "application/json"


def _upload(rng: random.Random) -> tuple[bytes, str]:
    """The same with an image: a whole one, a spoilt one, one whose header claims gigapixels; alone or in a form."""
    image = bytes(encode([np.zeros((40, 36, 3), np.uint8)], rng.choice((".png", ".jpg", ".tif", ".gif"))))
    if rng.random() < 0.3 and image.startswith(b"\x89PNG"):
        head = image[12:16] + struct.pack(">II", 60_000, 60_000) + image[24:29]
        image = image[:12] + head + struct.pack(">I", zlib.crc32(head)) + image[33:]
    elif rng.random() < 0.5:
        image = spoilt(image, rng)
    if rng.random() < 0.5:
        return image, "image/png"
    name = rng.choice(("a.png", "../../a.png", "", "é" * 300, "\x00"))
    parts = b"".join(
        b"--x\r\ncontent-disposition: form-data; name=%s; filename=%s\r\n\r\n%s\r\n"
        % (field, json.dumps(name).encode(), image)
        for field in (b'"images"', b'"files"')[: rng.randrange(1, 3)]
    )
    return parts + rng.choice((b"--x--\r\n", b"", b"--x")), "multipart/form-data; boundary=x"


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({
        "kills": kills, "models": models, "checkpoints": checkpoints, "exports": exports, "folders": folders,
        "images": images, "arguments": arguments, "disk": disk, "web": web,
    })  # fmt: skip
