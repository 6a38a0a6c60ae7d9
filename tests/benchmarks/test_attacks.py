"""Short forms of the attacks of ``benchmarks/faults.py``, and the bounds that every number has."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from PIL import Image

import faults
from tiny import tiny_run
from unpaired.cli import COMMANDS, main
from unpaired.data import PixelFormat, read_picture
from unpaired.data.reading import describe as describe_file
from unpaired.data.reading import one_large_image
from unpaired.errors import CheckpointError, DataError, UserError
from unpaired.inference import Translator
from unpaired.inference.large_images.memory import taken_memory
from unpaired.methods import METHODS
from unpaired.training import describe, train


@pytest.mark.parametrize(
    ("attack", "size"),
    [("models", 18), ("checkpoints", 5), ("images", 20), ("exports", 6), ("folders", 12)],
)
def test_a_short_attack_finds_nothing(attack: str, size: int, capsys: pytest.CaptureFixture[str]) -> None:
    if attack == "exports":
        pytest.importorskip("onnxruntime")
    getattr(faults, attack)(count=size, seed=7)
    assert f"{size} tried" in capsys.readouterr().out


@pytest.mark.parametrize(("page", "needs"), [("study", "starlette"), ("serve", "fastapi"), ("studio", "gradio")])
def test_fifty_users_of_a_page_find_nothing(page: faults.Page, needs: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip(needs)
    pytest.importorskip("uvicorn")
    faults.web(count=150, seed=7, page=page)
    assert "152 tried" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["data", "compare", "runs", "serve"])
def test_awkward_arguments_are_done_or_refused(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    if command == "serve":
        pytest.importorskip("fastapi")
    faults.arguments(each=1, seed=7, only=(command,))
    assert " 0 failed" in capsys.readouterr().out


COMMANDS_WITH_OPTIONS = [name for name in COMMANDS if name != "data"] + ["data prepare", "data check"]


def numbers(kind: Any, bounds: frozenset[str] = frozenset()) -> Iterator[frozenset[str]]:
    """The bounds of each number in an annotation."""
    if hasattr(kind, "__metadata__"):
        found = [item for each in kind.__metadata__ for item in (each, *getattr(each, "metadata", ()))]
        names = {name for item in found for name in ("ge", "gt", "le", "lt") if getattr(item, name, None) is not None}
        yield from numbers(get_args(kind)[0], bounds | names)
    elif kind in (int, float):
        yield bounds
    elif dataclasses.is_dataclass(kind):
        for name, inner in get_type_hints(kind, include_extras=True).items():
            if name in {field.name for field in dataclasses.fields(kind)}:
                yield from numbers(inner)
    elif get_origin(kind) in (Union, types.UnionType, tuple):
        for inner in get_args(kind):
            yield from numbers(inner)


@pytest.mark.parametrize("kind", [*COMMANDS_WITH_OPTIONS, *(f"method {name}" for name in METHODS)])
def test_every_number_has_two_bounds(kind: str) -> None:
    options = METHODS[kind.split()[1]].Config if kind.startswith("method ") else faults.options_of(kind)
    for field in dataclasses.fields(options):
        hint = get_type_hints(options, include_extras=True)[field.name]
        for bounds in numbers(hint):
            assert len(bounds) == 2, f"{kind}: {field.name}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "DATA", "--threads", "1000000"], "threads must be at most 1024"),
        (["train", "DATA", "--load-size", "1" + "0" * 23], "load_size must be at most 16384"),
        (["translate", "RUN", "IMAGE", "--styles", "9" * 19], "styles must be at most 1000"),
        (["translate", "RUN", "/dev/null"], "is a pipe or a device"),
        (["translate", "RUN", "PIPE"], "is a pipe or a device"),
        (["translate", "PIPE", "IMAGE"], "is not a trained run"),
        (["translate", "RUN", "NESTED", "--recursive"], "nested too deep"),
        (["data", "check", "NESTED"], "NESTED"),
        (["data", "prepare", "PIPE"], "is a pipe or a device"),
        (["train", "DATA", "--config", "PIPE"], "is a pipe or a device"),
        (["serve", "RUN", "--token-file", "PIPE"], "is a pipe or a device"),
        (["serve", "RUN", "--port", "0", "--host", "../.."], "is not an address of this machine (not a valid host"),
        (["data", "check", "DATA", "--json", ""], "Is a directory"),
        (["data", "check", "DATA", "--json", "PIPE"], "is a pipe or a device"),
    ],
)
def test_what_is_no_sensible_argument_is_refused_in_one_line(
    words: list[str], said: str, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    os.mkfifo("PIPE")
    if "NESTED" in words:
        faults.nest(tmp_path / "NESTED")
    if "RUN" in words:
        train(tiny_run(dataset, images=1), "RUN", quiet=True)
    words = [{"DATA": str(dataset), "IMAGE": str(dataset / "testA" / "image0.png")}.get(word, word) for word in words]
    assert main(words if words[1] == "check" or words[0] == "serve" else [*words, "--out", "OUT"]) >= 1
    err = capsys.readouterr().err.strip()
    assert Path("PIPE").is_fifo()
    subprocess.run(["rm", "-rf", "NESTED"], check=False)  # pytest cannot
    assert said in err
    assert "Traceback" not in err


def test_only_what_is_served_is_built(dataset: Path, tmp_path: Path) -> None:
    train(tiny_run(dataset, "cut", images=1), tmp_path / "run", quiet=True)
    path = tmp_path / "run" / "weights" / "model.json"
    description = json.loads(path.read_text())
    description["model"]["discriminator_channels"] = 4096
    path.write_text(json.dumps(description))
    method = Translator.from_pretrained(tmp_path / "run", device="cpu").method
    assert [name for name, net in method.named_children() if any(True for _ in net.parameters())] == ["generator"]
    description["model"] |= {"base_channels": 4096, "blocks": 64}
    path.write_text(json.dumps(description))
    with pytest.raises(CheckpointError, match=r"does not fit model\.json"):
        Translator.from_pretrained(tmp_path / "run", device="cpu")


def test_an_onnx_file_that_makes_nan_is_named_in_one_line(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, file = onnx.helper, tmp_path / "model.onnx"
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["b", 3, "h", "w"]) for name in ("image", "made")
    ]
    weight = helper.make_tensor("weight", onnx.TensorProto.FLOAT, [], [float("nan")])
    graph = helper.make_graph(
        [helper.make_node("Mul", ["image", "weight"], ["made"])], "g", ends[:1], ends[1:], [weight]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    facts = {"unpaired_format": "1", "title": "CUT", "largest_map": "64"}
    facts["description"] = json.dumps(describe(tiny_run(dataset, "cut")))
    for key, value in facts.items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, file)
    assert main(["translate", str(file), str(dataset / "testA"), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == (
        f"error: {file} holds weights that are not finite; export other weights of the run (--weights)\n"
    )


def test_decoding_counts_towards_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.fromarray(np.zeros((3000, 4000), np.uint8)).save(path)
    with pytest.raises(DataError, match=r"large\.png: decoding 4,000 x 3,000 pixels takes 0\.2 GiB, and memory_gib"):
        read_picture(path, PixelFormat(), free=lambda: 2**27)
    assert read_picture(path, PixelFormat(), free=lambda: 2**28).values.shape == (3000, 4000, 3)


def test_one_large_image_is_decoded_at_a_time_however_many_threads_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    for number in range(16):
        folder = tmp_path / "data" / ("trainA", "trainB")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((3000, 4000, 3), number, np.uint8)).save(folder / f"{number}.png", compress_level=1)

    def growth() -> None:
        before = taken_memory()
        assert main(["data", "check", str(tmp_path / "data")]) == 0
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
        assert grown < 400e6, grown  # one takes 216 MB at most

    assert faults.Campaign("memory", 0).attempt("data check", growth) == "done"


@pytest.mark.skipif(sys.platform != "linux", reason="loading processes are forked on Linux")
def test_loading_processes_wait_for_each_other_with_large_images(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.fromarray(np.zeros((3000, 4000, 3), np.uint8)).save(path)
    done = multiprocessing.get_context("fork").Event()
    other = multiprocessing.get_context("fork").Process(
        target=lambda: (read_picture(path, PixelFormat()), done.set()), daemon=True
    )
    with one_large_image(describe_file(path)):
        other.start()
        assert not done.wait(1.5)
    assert done.wait(60)
    other.join()


@pytest.mark.skipif(sys.platform != "linux", reason="loading processes are forked on Linux")
def test_a_loading_process_killed_with_a_large_image_in_hand_keeps_no_other_waiting(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.fromarray(np.zeros((3000, 4000, 3), np.uint8)).save(path)
    context = multiprocessing.get_context("fork")
    begun = context.Event()

    def hold() -> None:
        with one_large_image(describe_file(path)), one_large_image(describe_file(path)):  # one within the other
            begun.set()
            time.sleep(600)

    with one_large_image(describe_file(path)):  # what the parent holds at the fork is not the child's
        other = context.Process(target=hold, daemon=True)
        other.start()
        assert not begun.wait(0.5)
    assert begun.wait(60)
    other.kill()
    started = time.monotonic()
    read_picture(path, PixelFormat())
    assert time.monotonic() - started < 60
    other.join()


def test_a_checkpoint_beyond_the_end_does_not_count_as_finished(dataset: Path, tmp_path: Path) -> None:
    config = tiny_run(dataset, images=2)
    train(config, tmp_path / "run", quiet=True)
    file = max((tmp_path / "run" / "checkpoints").glob("*.pt"))
    payload = faults.read_checkpoint(file)
    file.write_bytes(faults.checkpoint_bytes({**payload, "images_seen": 10**12}))
    with pytest.raises(UserError, match="says that 1,000,000,000,000 images were seen, but this run has 2"):
        train(config, tmp_path / "run", quiet=True)
