"""The command line end to end: what each command makes, and what each mistake says and exits with."""

from __future__ import annotations

import base64
import errno
import html.parser
import io
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tiny import write_images
from unpaired import __version__
from unpaired.cli import COMMANDS, main
from unpaired.cli import evaluation as evaluate_command
from unpaired.data import EmbeddedDataset, UnpairedFiles, embedded_dataset
from unpaired.engine import checkpoint
from unpaired.engine.trainer import FitResult
from unpaired.evaluation import METRICS
from unpaired.methods import METHODS
from unpaired.methods.cut import CUT
from unpaired.ops import backend_report
from unpaired.recipes import demo as demo_run
from unpaired.training import RunConfig

TINY = (
    "--image-size", "32", "--base-channels", "4", "--blocks", "5", "--num-queries", "16", "--projector-width", "8",
    "--num-workers", "0", "--accelerator", "cpu", "--sample-every", "1000", "--score-every", "0",
)  # fmt: skip
Capture = pytest.CaptureFixture[str]


class Answer:
    """What one command answered."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err
        self.said = re.sub(r"[\s│╭╰─╮╯]+", " ", err)  # one line, without the boxes

    def __repr__(self) -> str:
        return f"exit code {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


Unpaired = Callable[..., Answer]


@pytest.fixture
def unpaired(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> Unpaired:
    """Run ``unpaired`` with these words in this process; a traceback fails the test."""
    monkeypatch.setenv("COLUMNS", "400")

    def run(*words: object) -> Answer:
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as end:
            code = int(end.code or 0)
        answer = Answer(code, *capsys.readouterr())
        assert "Traceback" not in answer.out + answer.err
        return answer

    return run


@pytest.fixture
def refused(unpaired: Unpaired) -> Callable[..., None]:
    """Run ``unpaired`` with words that are wrong: it must exit with ``code`` and say every one of ``words``."""

    def run(*arguments: object, words: list[str], code: int = 2) -> None:
        answer = unpaired(*arguments)
        assert answer.code == code, answer
        for word in words:
            assert word in answer.said, f"{word!r} is not in: {answer.said}"

    return run


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``data`` (paired test names), and ``run``: QS-Attn Local trained on it through the command line."""
    root = tmp_path_factory.mktemp("home")
    for split, count, seed in (("trainA", 4, 1), ("trainB", 3, 2), ("testA", 3, 3), ("testB", 3, 4)):
        write_images(root / "data" / split, count, seed=seed)
    options = ("--method", "qs_attn", "--attention", "local", "--images", "6", "--batch-size", "2", "--seed", "3")
    code = main(["train", str(root / "data"), "--out", str(root / "run"), *options, *TINY, "--checkpoint-every", "2"])
    assert code == 0
    return root


@pytest.fixture
def run(home: Path, tmp_path: Path) -> Path:
    """A copy of the trained run, to be damaged."""
    return shutil.copytree(home / "run", tmp_path / "run")


def weights(run: Path) -> bytes:
    return (run / "weights" / "ema.safetensors").read_bytes()


# ---------------------------------------------------------------------------------------------------------------------
# the front door
# ---------------------------------------------------------------------------------------------------------------------
def test_help_answers_at_once_and_loads_no_torch() -> None:
    code = (
        "import sys; from unpaired.cli import main; assert main(['--help']) == 0;"
        "heavy = {'torch', 'numpy', 'PIL', 'rich', 'tyro', 'yaml'} & sys.modules.keys(); assert not heavy, heavy"
    )
    for command in ([sys.executable, "-c", code], [sys.executable, "-m", "unpaired", "--help"]):
        seconds = []
        for _ in range(2):  # the first may read from a cold disk
            started = time.perf_counter()
            answer = subprocess.run(command, capture_output=True, text=True, check=False)
            seconds.append(time.perf_counter() - started)
        assert answer.returncode == 0, answer.stderr
        assert "usage: unpaired COMMAND" in answer.stdout
        assert min(seconds) < 1


@pytest.mark.parametrize("words", [*sorted(COMMANDS.keys() - {"data", "train"}), "data check", "data prepare"])
def test_help_of_a_command_and_a_wrong_option_load_no_torch(words: str) -> None:
    """But train's, whose options are the settings of every method."""
    code = (
        "import sys; from unpaired.cli import main; words = sys.argv[1:]; "
        "assert main([*words, '--no-such-option']) == 2; sys.exit('torch' in sys.modules or main([*words, '--help']))"
    )
    done = subprocess.run([sys.executable, "-c", code, *words.split()], capture_output=True, text=True)
    assert (done.returncode, "no-such-option" in done.stderr) == (0, True), done.stderr


def test_overview_version_and_no_command(unpaired: Unpaired) -> None:
    for word in ("--help", "-h", "help"):
        answer = unpaired(word)
        assert answer.code == 0
        assert all(f"  {name} " in answer.out for name in COMMANDS)
    assert unpaired("--version").out == f"unpaired {__version__}\n"
    assert unpaired().code == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(unpaired: Unpaired, command: str) -> None:
    answer = unpaired(command, "--help")
    assert answer.code == 0
    assert f"usage: unpaired {command}" in answer.out
    assert f"Example: unpaired {command} " in re.sub(r"\s+", " ", answer.out) + " "
    assert "{None}" not in answer.out
    positionals = answer.out.partition("positional arguments")[2].partition("╰")[0]
    assert not re.search(r"│ \[?(STR|PATH)\b", positionals)  # they have names


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("data", "info")])
def test_help_fits_the_terminal(unpaired: Unpaired, command: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = unpaired(command, "--help").out.splitlines()
    assert not [line for line in lines if len(line) > width and not line.startswith("Example: ")]
    example = next(line for line in lines if line.startswith("Example: "))
    assert example.startswith(f"Example: unpaired {command}")


@pytest.mark.parametrize("command", ["train", "translate", "evaluate", "report", "study", "studio", "data prepare"])
def test_long_help_is_grouped_and_its_paragraphs_are_whole(
    unpaired: Unpaired, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    out = unpaired(*command.split(), "--help").out
    lines = [re.sub(r"[│╭╰╮╯─]", " ", line).rstrip() for line in out.splitlines()]
    assert len([line for line in lines if line.endswith(" options")]) >= 2
    assert "(default: )" not in out
    texts = [line for line in lines if line.startswith(" " * 3) and not line.strip().startswith("-")]
    inner = max(map(len, texts), default=0)
    for line, following in itertools.pairwise(texts):
        if not line.endswith((")", "exit")):  # the end of one option's text is its default
            assert len(line) + 1 + len(following.split()[0]) >= inner, line


@pytest.mark.parametrize("method", METHODS)
def test_help_shows_the_options_of_the_method(unpaired: Unpaired, method: str) -> None:
    answer = unpaired("train", "--method", method, "--help")
    assert answer.code == 0
    known = METHODS[method].Config.__dataclass_fields__
    for option in ("base_channels", "contrastive_weight", "cycle_weight", "attention_taps"):
        assert (f"--{option.replace('_', '-')}" in answer.out) == (option in known), option


@pytest.mark.parametrize(("word", "meant"), [("trian", "train"), ("evalute", "evaluate"), ("transalte", "translate")])
def test_an_unknown_command_suggests_the_nearest(refused: Callable[..., None], word: str, meant: str) -> None:
    refused(word, words=[f"there is no command '{word}' (did you mean '{meant}'?)", "unpaired --help"])


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "error: interrupted"),
        (OSError(errno.ENOSPC, "No space left on device", "/out/log.jsonl"), 3, "/out/log.jsonl: No space left"),
        (OSError(errno.ENOSPC, "No space left on device"), 3, "error: No space left on device"),
    ],
)
def test_errors_of_the_machine_are_one_line(
    unpaired: Unpaired, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, words: str
) -> None:
    def fail(argv: Any) -> int:
        raise error

    monkeypatch.setattr("unpaired.cli.info.main", fail)
    answer = unpaired("info")
    assert (answer.code, answer.err.count("\n")) == (code, 1)
    assert words in answer.err


def test_info_says_which_backends_can_run_and_why_not(unpaired: Unpaired) -> None:
    answer = unpaired("info")
    assert answer.code == 0
    for name, available, reasons in backend_report():
        (line,) = [line for line in answer.out.splitlines() if line.startswith(f"│ {name} ")]
        assert all(reason in line for reason in (["available"] if available else reasons))
    for name in (*METHODS, *METRICS, torch.__version__.partition("+")[0], "cpu"):
        assert name in answer.out


# ---------------------------------------------------------------------------------------------------------------------
# train
# ---------------------------------------------------------------------------------------------------------------------
def test_options_are_kept_in_the_run_file(home: Path) -> None:
    kept = yaml.safe_load((home / "run" / "run.yaml").read_text())
    assert kept["method"] == "qs_attn"
    assert kept["dataset"] == {
        "folder": str(home / "data"), "source": None, "target": None, "direction": "AtoB",
        "source_weights": [], "target_weights": [], "held_out_source": None, "held_out_target": None, "domains": None,
        "scored_domains": None,
    }  # fmt: skip
    expected = {
        "model": {"attention": "local", "base_channels": 4, "blocks": 5, "num_queries": 16, "window": 7},
        "data": {"image_size": 32, "num_workers": 0},
        "training": {"images": 6, "batch_size": 2, "seed": 3, "accelerator": "cpu"},
    }
    for section, values in expected.items():
        assert values.items() <= kept[section].items()
    log = [json.loads(line) for line in (home / "run" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["images_seen"] == 6


def test_the_run_file_reproduces_the_run_and_options_beside_it_win(
    unpaired: Unpaired, home: Path, tmp_path: Path
) -> None:
    file = home / "run" / "run.yaml"
    answer = unpaired("train", "--config", file, "--out", tmp_path / "same")
    assert answer.code == 0, answer
    assert weights(tmp_path / "same") == weights(home / "run")
    assert (tmp_path / "same" / "run.yaml").read_text() == file.read_text()
    assert f"unpaired translate {tmp_path / 'same'} INPUT --out DIR" in answer.out

    answer = unpaired("train", f"--config={file}", "--out", tmp_path / "other", "--seed", "4", "--attention", "global")
    assert answer.code == 0, answer
    other, same = RunConfig.load(tmp_path / "other" / "run.yaml"), RunConfig.load(file)
    assert (other.training.seed, other.model.attention) == (4, "global")
    assert (other.training.images, other.model.blocks, other.dataset) == (6, 5, same.dataset)
    assert weights(tmp_path / "other") != weights(home / "run")


def test_a_finished_run_is_not_trained_again_and_a_stopped_one_goes_on(
    unpaired: Unpaired, home: Path, tmp_path: Path
) -> None:
    words = ("train", "--config", home / "run" / "run.yaml", "--out", tmp_path / "run")
    first = unpaired(*words, "--stop-after", "4")
    assert first.code == 0, first
    assert "Stopped and saved after 4 of 6 images" in first.err
    assert "translate:" not in first.out
    second = unpaired(*words)
    assert second.code == 0
    assert "Continuing after" in second.err
    assert "Finished after 6 of 6" in second.err
    written = (tmp_path / "run" / "log.jsonl").read_text()
    assert unpaired(*words).code == 0
    assert (tmp_path / "run" / "log.jsonl").read_text() == written


@pytest.mark.parametrize("name", ["run ü 6", "it's", "a;b"])
def test_the_closing_command_can_be_copied(unpaired: Unpaired, home: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    answer = unpaired("train", home / "data", "--out", out, *TINY, "--images", "1")
    command = answer.out.splitlines()[-1].removeprefix("translate: ")
    assert shlex.split(command) == ["unpaired", "translate", str(out), "INPUT", "--out", "DIR"]


def test_quiet_prints_nothing(unpaired: Unpaired, home: Path, tmp_path: Path) -> None:
    answer = unpaired("train", home / "data", "--out", tmp_path / "run", *TINY, "--images", "1", "--quiet")
    assert (answer.code, answer.out, answer.err) == (0, "", "")


def test_source_and_target_folders_are_the_layout_by_another_name(
    unpaired: Unpaired, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)  # relative folders are kept as absolute ones
    folders = ("--source", "data/trainA", "--target", "data/trainB")
    for name, places in (("layout", ("data",)), ("folders", folders)):
        answer = unpaired("train", *places, "--out", tmp_path / name, *TINY, "--images", "2", "--quiet")
        assert answer.code == 0, answer
    assert weights(tmp_path / "layout") == weights(tmp_path / "folders")
    kept = RunConfig.load(tmp_path / "folders" / "run.yaml").dataset
    assert (kept.folder, kept.source, kept.target) == (None, home / "data" / "trainA", home / "data" / "trainB")
    # beside a run file, one way of naming the images takes the place of the other
    for name, places in (("layout", folders), ("folders", ("data",))):
        file = tmp_path / name / "run.yaml"
        answer = unpaired("train", *places, "--config", file, "--out", tmp_path / f"{name}2", "--quiet")
        assert answer.code == 0, answer
        assert weights(tmp_path / f"{name}2") == weights(tmp_path / "layout")


def test_direction_exchanges_the_domains(unpaired: Unpaired, home: Path, tmp_path: Path) -> None:
    swapped = ("--source", home / "data" / "trainB", "--target", home / "data" / "trainA")
    for name, places in (("direction", (home / "data", "--direction", "BtoA")), ("swapped", swapped)):
        answer = unpaired("train", *places, "--out", tmp_path / name, *TINY, "--images", "2", "--quiet")
        assert answer.code == 0, answer
    assert weights(tmp_path / "direction") == weights(tmp_path / "swapped")


def test_the_last_of_two_options_counts(unpaired: Unpaired, home: Path, tmp_path: Path) -> None:
    words = ("--method", "qs_attn", "--method", "cut", "--images", "9", "--images", "1", "--quiet")
    answer = unpaired("train", home / "data", "--out", tmp_path / "run", *TINY, *words)
    assert answer.code == 0, answer
    kept = RunConfig.load(tmp_path / "run" / "run.yaml")
    assert (kept.method, type(kept.model), kept.training.images) == ("cut", METHODS["cut"].Config, 1)


# ---------------------------------------------------------------------------------------------------------------------
# translate
# ---------------------------------------------------------------------------------------------------------------------
def draw(size: tuple[int, int], seed: int = 0, mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 4), dtype=np.uint8), "RGBA")
    return coarse.resize(size, Image.Resampling.BICUBIC).convert(mode)


@pytest.fixture
def photos(tmp_path: Path) -> dict[str, tuple[int, int]]:
    """Images of many kinds in ``photos``; their names and upright sizes."""
    folder = tmp_path / "photos"
    folder.mkdir()
    kinds: dict[str, Image.Image] = {
        "wide.jpg": draw((61, 33)), "tall.png": draw((30, 57)), "tiny.png": draw((5, 7)), "one.webp": draw((1, 1)),
        "gray.bmp": draw((34, 22), mode="L"), "palette.png": draw((40, 41), mode="P"),
        "clear.png": draw((37, 35), mode="RGBA"),
        "stack.tiff": draw((32, 48)), "UPPER.JPG": draw((33, 32)), "dots.in.name.png": draw((20, 20), mode="1"),
    }  # fmt: skip
    sizes = {name: image.size for name, image in kinds.items()}
    for name, image in kinds.items():
        image.save(folder / name)
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    draw((50, 24)).save(folder / "turned.jpeg", exif=exif)
    return {**sizes, "turned.jpeg": (24, 50)}


def pictures(folder: Path) -> dict[str, np.ndarray]:
    return {str(p.relative_to(folder)): np.asarray(Image.open(p)) for p in folder.rglob("*") if p.is_file()}


def test_names_sizes_and_types_are_kept(
    unpaired: Unpaired, home: Path, tmp_path: Path, photos: dict[str, tuple[int, int]]
) -> None:
    answer = unpaired("translate", home / "run", tmp_path / "photos", "--out", tmp_path / "out")
    assert answer.code == 0, answer
    assert "11 of 11 images translated" in answer.out
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(photos)
    for name, size in photos.items():
        with Image.open(tmp_path / "out" / name) as made, Image.open(tmp_path / "photos" / name) as given:
            assert (made.size, made.format, made.mode) == (size, given.format, "RGB"), name


def test_batches_change_no_pixel(
    unpaired: Unpaired, home: Path, tmp_path: Path, photos: dict[str, tuple[int, int]]
) -> None:
    for number in range(7):  # runs of one size: two full batches and a rest
        draw((36, 28), seed=number).save(tmp_path / "photos" / f"same{number}.png")
    for size in ("1", "3"):
        words = ("--batch-size", size, "--format", "png", "--out", tmp_path / size)
        assert unpaired("translate", home / "run", tmp_path / "photos", *words).code == 0
    one, three = pictures(tmp_path / "1"), pictures(tmp_path / "3")
    assert one.keys() == three.keys()
    assert len(one) == 18
    for name, picture in one.items():
        assert np.array_equal(picture, three[name]), name


def test_a_file_and_a_pattern(
    unpaired: Unpaired, home: Path, tmp_path: Path, photos: dict[str, tuple[int, int]]
) -> None:
    answer = unpaired("translate", home / "run", tmp_path / "photos" / "tall.png", "--out", tmp_path / "file")
    assert answer.code == 0, answer
    assert [p.name for p in (tmp_path / "file").iterdir()] == ["tall.png"]
    answer = unpaired("translate", home / "run", tmp_path / "photos" / "t*.png", "--out", tmp_path / "pattern")
    assert answer.code == 0
    made = pictures(tmp_path / "pattern")
    assert made.keys() == {"tall.png", "tiny.png"}
    assert np.array_equal(made["tall.png"], pictures(tmp_path / "file")["tall.png"])
    last = ("--weights", "last", "--device", "cpu", "--out", tmp_path / "last")
    assert unpaired("translate", home / "run" / "weights", tmp_path / "photos" / "tall.png", *last).code == 0
    assert not np.array_equal(made["tall.png"], pictures(tmp_path / "last")["tall.png"])


def test_a_folder_of_folders_needs_recursive(unpaired: Unpaired, home: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_images(tmp_path / "tree" / name, 1)
    answer = unpaired("translate", home / "run", tmp_path / "tree", "--out", tmp_path / "flat")
    assert answer.code == 2
    assert "holds only the folders a, b" in answer.said


def test_sizes(unpaired: Unpaired, home: Path, tmp_path: Path, photos: dict[str, tuple[int, int]]) -> None:
    words = ("translate", home / "run", tmp_path / "photos", "--format", "png")
    made = {}
    for size in ("original", "training", "32", "48"):
        answer = unpaired(*words, "--size", size, "--out", tmp_path / size)
        assert answer.code == 0, answer
        made[size] = pictures(tmp_path / size)
        assert {n: p.shape[1::-1] for n, p in made[size].items()} == {
            f"{name.rpartition('.')[0]}.png": size for name, size in photos.items()
        }
    assert all(np.array_equal(made["training"][name], made["32"][name]) for name in made["32"])
    assert not np.array_equal(made["48"]["tall.png"], made["original"]["tall.png"])
    assert not np.array_equal(made["48"]["tall.png"], made["32"]["tall.png"])


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff", "bmp"])
def test_formats(unpaired: Unpaired, home: Path, tmp_path: Path, suffix: str) -> None:
    write_images(tmp_path / "in", 1)
    for image_format in {"png", suffix}:
        words = ("--format", image_format, "--out", tmp_path / image_format)
        assert unpaired("translate", home / "run", tmp_path / "in", *words).code == 0
    (path,) = (tmp_path / suffix).iterdir()
    assert path.name == f"image0.{suffix}"
    made, exact = pictures(tmp_path / suffix)[path.name], pictures(tmp_path / "png")["image0.png"]
    assert np.abs(made.astype(int) - exact).max() <= (12 if suffix == "jpg" else 0)


def huge_png(width: int, height: int) -> bytes:
    """A well-formed PNG whose header claims this size; its pixels are not there."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def truncated_jpeg() -> bytes:
    buffer = io.BytesIO()
    draw((64, 64)).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()[: len(buffer.getvalue()) // 2]


BROKEN = {
    "cut.jpg": (truncated_jpeg(), ["truncated or damaged", "copy or download it again, or move it elsewhere"]),
    "words.png": (b"dear diary, this is no picture", ["the content is text, not an image", "move it elsewhere"]),
    "bomb.png": (huge_png(100_000, 100_000), ["100,000 x 100,000 pixels are more than the limit", "scale it down"]),
    "film.png": (b"\0\0\0\x18ftypisom" + bytes(99), ["this is a video; extract its frames first"]),
    "scan.png": (bytes(128) + b"DICM" + bytes(99), ["this is DICOM, a medical image; save its slices"]),
    "empty.png": (b"", ["the file is empty (0 bytes)"]),
}


def test_unreadable_files_are_named_and_skipped_and_the_rest_is_written(
    unpaired: Unpaired, home: Path, tmp_path: Path
) -> None:
    folder = write_images(tmp_path / "in", 2)
    for name, (content, _) in BROKEN.items():
        (folder / name).write_bytes(content)
    answer = unpaired("translate", home / "run", folder, "--out", tmp_path / "out", "--batch-size", "2")
    assert answer.code == 1
    assert f"2 of {2 + len(BROKEN)} images translated" in answer.out
    assert f"{len(BROKEN)} skipped" in answer.out
    lines = answer.err.splitlines()
    for name, (_, words) in BROKEN.items():
        (line,) = [line for line in lines if line.startswith(f"skipped: {folder / name}: ")]
        assert all(word in line for word in words)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["image0.png", "image1.png"]


def test_inputs_are_never_replaced(refused: Callable[..., None], home: Path, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", 1)
    shutil.copytree(folder, folder / "sub")
    before = {path: path.read_bytes() for path in folder.rglob("*.png")}
    (tmp_path / "link").symlink_to(folder)
    words = ("translate", home / "run", folder)
    for out in (folder, tmp_path / "link", folder / "sub" / ".."):
        refused(*words, "--out", out, words=["image0.png would replace it", "choose another --out"])
    refused(
        *words,
        "--recursive",
        "--out",
        folder / "sub",
        words=["would replace", str(folder / "sub"), "which lies in INPUT"],
    )
    assert {path: path.read_bytes() for path in folder.rglob("*.png")} == before


def test_names_that_collide_are_refused_before_anything_is_written(
    refused: Callable[..., None], home: Path, tmp_path: Path
) -> None:
    folder = write_images(tmp_path / "in", 1)
    draw((20, 20)).save(folder / "image0.jpg")
    words = ["image0.jpg", "image0.png would both become", "different --out folders"]
    refused("translate", home / "run", folder, "--out", tmp_path / "out", "--format", "png", words=words)
    assert not (tmp_path / "out").exists()


def test_a_file_with_a_strange_suffix(
    unpaired: Unpaired, refused: Callable[..., None], home: Path, tmp_path: Path
) -> None:
    for name in ("scan.dat", "scan"):
        draw((20, 24)).save(tmp_path / name, "PNG")
        words = ("translate", home / "run", tmp_path / name, "--out", tmp_path / f"out-{name}")
        refused(*words, words=[str(tmp_path / name), "use --format png"])
        assert unpaired(*words, "--format", "png").code == 0
        assert pictures(tmp_path / f"out-{name}")["scan.png"].shape == (24, 20, 3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--size", "3"], ["size is '3'", "original, training, or a number of pixels from 4 on"]),
        (["--size", "big"], ["size is 'big'"]),
        (["--batch-size", "0"], ["batch_size must be at least 1, not 0"]),
        (["--device", "gpu"], ["device: 'gpu'", "use auto, cpu, cuda, cuda:N or mps"]),
        (["--weights", "worst"], ["invalid choice 'worst' for argument '--weights'", "ema"]),
        (["--weights", "best"], ["holds no best weights", "--score-every", "use ema or last"]),
        (["--formt", "png"], ["there is no option --formt (did you mean --format?)"]),
        (["--bs", "2"], ["there is no option --bs (did you mean --batch-size?)"]),
        (["--batch-size", "two"], ["--batch-size: 'two' is not a whole number; see unpaired translate --help"]),
        (["--memory-gib", "lots"], ["--memory-gib: 'lots' is not a number"]),
        (["--format", "gift"], ["'gift' is not written (did you mean 'gif'?)", "png"]),
    ],
)
def test_translate_refuses_options(
    refused: Callable[..., None], home: Path, tmp_path: Path, options: list[str], words: list[str]
) -> None:
    folder = home / "data" / "testA"
    refused("translate", home / "run", folder, "--out", tmp_path / "out", *options, words=words)
    assert not (tmp_path / "out").exists()


def test_translate_refuses_places(refused: Callable[..., None], home: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out")
    refused("translate", home / "rum", home / "data", *out, words=[str(home / "rum"), "is not a trained run"])
    refused("translate", home / "data", home / "data", *out, words=["is not a trained run", "--out folder"])
    missing = home / "data" / "testC"
    refused("translate", home / "run", missing, *out, words=[str(missing), "no such file or folder", "did you mean"])
    (tmp_path / "none").mkdir()
    refused("translate", home / "run", tmp_path / "none", *out, words=[str(tmp_path / "none"), "empty", "put images"])
    refused("translate", home / "run", tmp_path / "*.png", *out, words=["*.png", "the pattern matches no image"])
    (tmp_path / "file").write_text("")
    words = [f"cannot write to {tmp_path / 'file' / 'out'}", "choose another --out"]
    refused("translate", home / "run", home / "data" / "testA", "--out", tmp_path / "file" / "out", words=words)


def change_description(run: Path, **change: object) -> None:
    path = run / "weights" / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda run: (run / "weights" / "ema.safetensors").write_bytes(b"\0" * 50), ["ema.safetensors", "damaged"]),
        (lambda run: (run / "weights" / "ema.safetensors").unlink(), ["ema.safetensors", "No such file"]),
        (lambda run: (run / "weights" / "model.json").unlink(), ["not a trained run", "it has no weights/model.json"]),
        (lambda run: change_description(run, format=2), ["model.json has format 2", "install a newer one"]),
        (lambda run: change_description(run, method="gan"), ["model.json: unknown method 'gan'", "qs_attn"]),
    ],
)
@pytest.mark.parametrize("command", ["translate", "evaluate"])
def test_damaged_runs_are_refused(
    refused: Callable[..., None], run: Path, home: Path, tmp_path: Path, command: str, damage: Any, words: list[str]
) -> None:
    damage(run)
    places = (home / "data" / "testA", "--out", tmp_path / "out") if command == "translate" else (home / "data",)
    refused(command, run, *places, words=[str(run), *words])


WITH_DEVICE = {
    "translate": "translate RUN DATA/testA --out OUT --device", "evaluate": "evaluate RUN DATA --device",
    "report": "report RUN DATA --out OUT --device", "studio": "studio RUN --device", "serve": "serve RUN --device",
    "train": f"train DATA --out OUT {' '.join(TINY)} --accelerator",
}  # fmt: skip
PACKAGES = {"studio": "gradio", "serve": "fastapi"}


@pytest.mark.parametrize("device", ["cuda", "mps"])
@pytest.mark.parametrize("command", WITH_DEVICE)
def test_a_device_is_refused_where_there_is_none(
    command: str, device: str, refused: Callable[..., None], home: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    pytest.importorskip(PACKAGES.get(command, "torch"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    places = {
        "RUN": home / "run",
        "OUT": tmp_path / "out",
        "DATA": home / "data",
        "DATA/testA": home / "data" / "testA",
    }
    refused(*(places.get(word, word) for word in WITH_DEVICE[command].split()), device,
            words=[f"'{device}' was asked for, but this machine has no", "cpu"])  # fmt: skip
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("command", "words"),
    [("train DATA", "training calls it --accelerator"), ("export RUN", "an export is made on the CPU")],
)
def test_a_device_is_no_option_of_some(command: str, words: str, refused: Callable[..., None]) -> None:
    refused(*command.split(), "--device", "mps", words=[words])


# ---------------------------------------------------------------------------------------------------------------------
# evaluate
# ---------------------------------------------------------------------------------------------------------------------
def test_evaluate_prints_a_table_and_keeps_a_record(unpaired: Unpaired, run: Path, home: Path, tmp_path: Path) -> None:
    answer = unpaired("evaluate", run, home / "data")
    assert answer.code == 0, answer
    names = ("swd_progan_x1e3", "paired_l1_pm1", "paired_psnr_db", "paired_ssim_gauss11", "colour_shift_lab")
    for word in ("input (untranslated)", "real against real", "average (EMA)", "last", *(f"{n}_3v3" for n in names)):
        assert word in answer.out
    assert "Left out: " in answer.out
    assert "fid_torchfidelity (the network 'inception' is not available)" in answer.out
    options = ("--seed", "7", "--batch-size", "2", "--out", tmp_path / "record.json")
    assert unpaired("evaluate", run, home / "data", *options).code == 0
    first, second = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    assert (first["seed"], second["seed"], first["images_seen"]) == (0, 7, 6)
    assert json.loads((tmp_path / "record.json").read_text())["scores"] == second["scores"]
    assert first["data"]["name"] == str(home / "data")
    for row in ("input", "ema", "last"):
        for name in names:
            score = first["scores"][row][f"{name}_3v3"]
            protocol = METRICS[name].protocol
            assert (score["protocol"], score["images"], score["reference_images"]) == (protocol, 3, 3)
            assert evaluate_command.number(score["value"]) in answer.out


def test_evaluate_computes_what_is_asked_for(unpaired: Unpaired, refused: Any, run: Path, home: Path) -> None:
    words = ("--metrics", "swd_progan_x1e3", "paired_l1_pm1", "--no-intervals")
    assert unpaired("evaluate", run, home / "data", *words).code == 0
    (record,) = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    assert set(record["scores"]["ema"]) == {"swd_progan_x1e3_3v3", "paired_l1_pm1_3v3"}
    assert record["scores"]["ema"]["swd_progan_x1e3_3v3"]["interval"] is None
    assert record["networks"] == {}
    refused("evaluate", run, home / "data", "--metrics", "fid_torchfidelity", words=["inception", "--network"])
    refused("evaluate", run, home / "data", "--metrics", "swd", words=["unknown metric 'swd'"])
    refused("evaluate", run, home / "data", "--network", "lite0", words=["'lite0' must be NAME=PATH"])
    gone = ("--metrics", "kid_lite0_x1e3", "--network", "lite0=gone.pth")
    refused("evaluate", run, home / "data", *gone, words=["gone.pth"])


def test_evaluate_scores_what_must_not_change(
    unpaired: Unpaired, refused: Any, run: Path, home: Path, tmp_path: Path
) -> None:
    names = ("unchanged_colour_masks_de", "unchanged_detail_masks_de")
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps({"boxes": {"image0.png": [[0, 0, 20, 36]], "image1.png": []}}))
    words = ("evaluate", run, home / "data", "--metrics", *names, "--unchanged-masks")
    answer = unpaired(*words, boxes)
    assert answer.code == 0, answer
    assert "Masks: 2 of 3 source images have one; the others (image2.png)" in answer.err
    for part in ("colour changed outside masks (dE)", "detail changed outside masks (dE)", f"{names[0]}_2v2"):
        assert part in answer.out
    (record,) = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    for name in names:
        assert record["scores"]["input"][f"{name}_2v2"]["value"] == 0
        assert record["scores"]["ema"][f"{name}_2v2"]["value"] > 0
        assert record["scores"]["ema"][f"{name}_2v2"]["protocol"] == METRICS[name].protocol
    masks = tmp_path / "masks"
    masks.mkdir()
    for number in range(3):
        Image.new("L", (40, 36), 255 if number else 0).save(masks / f"image{number}.png")
    assert f"{names[0]}_1v1" in unpaired(*words, masks).out  # two masks cover everything
    Image.new("L", (40, 36), 1).save(masks / "image0.png")
    refused(*words, masks, words=["masks of what may change cover every image"])
    Image.new("L", (40, 35)).save(masks / "image0.png")
    refused(*words, masks, words=["image0.png: the mask is 40 x 35 pixels, its source image 40 x 36"])
    boxes.write_text(json.dumps({"boxes": {"image7.png": []}}))
    refused(*words, boxes, words=["boxes.json: there is no source image 'image7.png'"])
    refused(*words, tmp_path / "gone.json", words=["gone.json: there is no such file"])
    refused(*words[:-1], words=["metric 'unchanged_colour_masks_de' cannot be computed: there are no masks"])


def test_evaluate_takes_a_folder_of_made_images(
    unpaired: Unpaired, refused: Any, run: Path, home: Path, tmp_path: Path
) -> None:
    made = tmp_path / "made"
    assert unpaired("translate", run, home / "data" / "testA", "--out", made, "--size", "training").code == 0
    words = ("evaluate", made, home / "data", "--image-size", "32")
    answer = unpaired(*words)
    assert answer.code == 0, answer
    assert "generated images" in answer.out
    assert json.loads((made / "evaluations.jsonl").read_text())["rows"]["made"]["label"] == "generated images"
    refused("evaluate", made, home / "data", words=["--image-size"])
    testB = home / "data" / "testB"
    refused("evaluate", testB, home / "data", "--image-size", "32", words=["real target images themselves"])


def test_evaluate_leaves_bad_images_out_only_when_asked(
    unpaired: Unpaired, refused: Any, run: Path, home: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(home / "data", tmp_path / "data")
    (data / "testA" / "torn.png").write_bytes((data / "testA" / "image0.png").read_bytes()[:200])
    refused("evaluate", run, data, words=["torn.png", "--skip-bad"])
    answer = unpaired("evaluate", run, data, "--skip-bad", "--metrics", "colour_shift_lab")
    assert answer.code == 1  # done in part
    assert "left out: " in answer.err
    assert "torn.png" in answer.err
    refused("evaluate", run, "--source", data / "testB", "--target", data / "testB", words=["hold the same images"])


def test_paired_scores_appear_only_when_names_pair(unpaired: Unpaired, run: Path, home: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "real", 4)
    for path in (tmp_path / "real").iterdir():
        path.rename(path.with_name(f"real_{path.name}"))
    words = ("--source", home / "data" / "testA", "--target", tmp_path / "real")
    answer = unpaired("evaluate", run, *words)
    assert answer.code == 0, answer
    assert "swd_progan_x1e3_3v4" in answer.out
    assert not [name for name, row in METRICS.items() if row.against == "truth" and f"{name}_3v" in answer.out]


def test_evaluate_takes_the_direction_of_the_run(unpaired: Unpaired, home: Path, tmp_path: Path) -> None:
    run, data = tmp_path / "run", home / "data"
    words = ("--direction", "BtoA", "--images", "1", "--quiet")
    assert unpaired("train", data, "--out", run, *TINY, *words).code == 0
    turned = ("--source", data / "testB", "--target", data / "testA")
    quick = ("--metrics", "swd_progan_x1e3")
    for place in ((data,), (data, "--direction", "BtoA"), turned, (data, "--direction", "AtoB")):
        assert unpaired("evaluate", run, *place, *quick).code == 0
    records = [json.loads(line)["scores"] for line in (run / "evaluations.jsonl").read_text().splitlines()]
    assert records[0] == records[1] == records[2] != records[3]


def test_evaluate_refuses(refused: Callable[..., None], run: Path, home: Path, tmp_path: Path) -> None:
    data = home / "data"
    refused("evaluate", run, data / "trainA", words=[str(data / "trainA"), "no held-out images", "testA and testB"])
    refused("evaluate", run, home / "dat", words=[str(home / "dat"), "(did you mean 'data'?)"])
    refused("evaluate", run, "--source", data / "testA", words=["--target is missing"])
    refused("evaluate", run, data, "--batch-size", "0", words=["batch_size must be at least 1, not 0"])
    refused("evaluate", run, data, "--seed", "-1", words=["seed must be at least 0, not -1"])
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "words.png").write_bytes(BROKEN["words.png"][0])
    places = ("--source", tmp_path / "broken", "--target", data / "testB", "--metrics", "swd_progan_x1e3")
    refused("evaluate", run, *places, words=["words.png: the content is text, not an image"])
    assert not (run / "evaluations.jsonl").exists()


# ---------------------------------------------------------------------------------------------------------------------
# train: what a person can get wrong
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--bach-size", "2"], ["there is no option --bach-size (did you mean --batch-size?)"]),
        (["--images", "many"], ["'many'", "--images"]),
        (["--images", "0"], ["images must be at least 1, not 0"]),
        (["--seed", "-1"], ["seed must be at least 0, not -1"]),
        (["--seed", str(2**64)], [f"seed must be below {2**63}, not {2**64}"]),
        (["--method", "qs_atn"], ["--method: there is no 'qs_atn' (did you mean 'qs_attn'?)", "known: qs_attn, cut"]),
        (["--attention", "globl"], ["'globl'", "--attention", "'global'"]),
        (["--image-size", "30"], ["image_size is 30", "multiple of 4"]),
        (["--image-size", "16"], ["image_size", "QS-Attn needs crops of at least", "pixels, not 16"]),
        (["--load-size", "20"], ["image_size is 32, larger than load_size 20", "raise load_size or lower image_size"]),
        (
            ["--resize", "crop_only", "--image-size", "64"],
            ["40 x 36 pixels are smaller than image_size 64", "lower image_"],
        ),
        (["--window", "4"], ["window must be odd"]),
        (["--taps", "block1", "block77"], ["the generator has no 'block77'", "did you mean 'block", "'blocks'"]),
        (["--learning-rate", "-1"], ["learning_rate must be above 0, not -1"]),
        (["--batch-size", "0"], ["batch_size must be at least 1, not 0"]),
        (["--channels", "2"], ["has 3 channels, but the images of this domain have 2 channels", "--target-channels"]),
        (["--source", "x"], ["--source and --target, not both"]),
    ],
)
def test_train_refuses_options(
    refused: Callable[..., None], home: Path, tmp_path: Path, options: list[str], words: list[str]
) -> None:
    if "--method" in options:
        arguments: tuple[object, ...] = ("train", home / "data", "--out", tmp_path / "run", *options)
    else:
        arguments = ("train", home / "data", "--out", tmp_path / "run", *TINY, "--attention-taps", "block1", *options)
    refused(*arguments, words=words)
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("train data", "missing: --out PATH; see unpaired train --help"),
        ("train data --out x --metod cut", "there is no option --metod (did you mean --method?)"),
        ("train data --out x --lr 3", "there is no option --lr (did you mean --learning-rate?)"),
        ("train data --method cut --attention local", "CUT (cut) has no such setting; --method qs_attn or "),
        ("train data --out x --image-size big", "--image-size: 'big' is not INT|{INT INT}"),
        ("translate", "missing: RUN, --out PATH"),
        ("translate run --out x", "INPUT is missing"),
        ("evaluate run data more", "too many words: more; see unpaired evaluate --help"),
        ("train horses zebras --out x", "DATA is one folder; two are --source horses --target zebras"),
        ("evaluate run --direction up", "--direction: 'up' is not one of AtoB, BtoA"),
        ("data chek", "there is no 'unpaired data chek' (did you mean 'check'?)"),
        ("data prepare x --ot y", "there is no option --ot (did you mean --out?)"),
        ("push run owner/name --licence cc-by-5", "licence: 'cc-by-5' is not an SPDX name"),
    ],
)
def test_options_that_are_wrong_are_one_line(unpaired: Unpaired, line: str, words: str) -> None:
    answer = unpaired(*line.split())
    assert (answer.code, answer.err.count("\n"), answer.out) == (2, 1, "")
    assert words in answer.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("training: {bach_size: 2}", ["training: unknown setting 'bach_size' (did you mean 'batch_size'?)"]),
        ("trainning: {}", ["unknown key 'trainning' (did you mean 'training'?)"]),
        ("1: 2", ["unknown key '1'", "known: method"]),
        ("training: {batch_size: two}", ["batch_size must be a whole number, not 'two'"]),
        ("training: {batch_size: 2.5}", ["batch_size must be a whole number, not 2.5"]),
        ("data: 5", ["data: must hold named settings (key: value), but holds 5"]),
        ("data: false", ["data: must hold named settings (key: value), but holds false"]),
        ("method: qs_atn", ["method: there is no 'qs_atn' (did you mean 'qs_attn'?)", "known: qs_attn, cut"]),
        ("method: [cut]", ["method: there is no '['cut']'"]),
        (
            "model: {attention: globl}",
            ["'local' or 'local_global', not 'globl'", "(did you mean 'global'?)"],
        ),
        ("training: {seed: 1", ["line 1", "is not valid YAML"]),
        ("- a\n- b", ["must hold named settings"]),
    ],
)
def test_run_files_that_are_wrong(
    refused: Callable[..., None], home: Path, tmp_path: Path, text: str, words: list[str]
) -> None:
    (tmp_path / "run.yaml").write_text(text)
    arguments = ("train", home / "data", "--config", tmp_path / "run.yaml", "--out", tmp_path / "run")
    refused(*arguments, words=[str(tmp_path / "run.yaml"), *words])
    assert not (tmp_path / "run").exists()


def test_run_files_that_are_absent_or_contradicted(refused: Callable[..., None], home: Path, tmp_path: Path) -> None:
    words = ("train", "--out", tmp_path / "run", "--config")
    refused(*words, home / "run" / "run.yml", words=["run.yml: there is no such file (did you mean 'run.yaml'?)"])
    file = home / "run" / "run.yaml"
    refused(*words, file, "--method", "cut", words=["--method cut contradicts", str(file), "'qs_attn'", "drop one"])


def test_train_refuses_folders(refused: Callable[..., None], home: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "run", *TINY)
    refused("train", *out, words=["is missing", "trainA", "--source and --target"])
    refused("train", home / "dta", *out, words=[f"{home / 'dta'}: there is no such file or folder", "'data'", "trainA"])
    refused("train", home / "run" / "run.yaml", *out, words=["run.yaml: is a file, not a folder"])
    (tmp_path / "data" / "trainA").mkdir(parents=True)
    refused("train", tmp_path / "data", *out, words=[f"{tmp_path / 'data' / 'trainB'}", "did you mean 'trainA'"])
    write_images(tmp_path / "data" / "trainB", 2)
    refused("train", tmp_path / "data", *out, words=[f"{tmp_path / 'data' / 'trainA'}: the folder is empty"])
    (tmp_path / "data" / "trainA" / "notes.txt").write_text("mine")
    refused("train", tmp_path / "data", *out, words=["none of its 1 files is an image (found notes.txt)", ".png"])
    write_images(tmp_path / "data" / "trainA", 1)
    refused("train", tmp_path / "data", *out, words=["trainA: holds only one image", "at least 2 in each domain"])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_broken_training_image_ends_in_one_message_that_names_it(
    refused: Callable[..., None], tmp_path: Path, name: str, workers: str
) -> None:
    write_images(tmp_path / "data" / "trainA", 1)
    write_images(tmp_path / "data" / "trainB", 2)
    path = tmp_path / "data" / "trainA" / name
    path.write_bytes(BROKEN[name][0])
    write_images(tmp_path / "data" / "testA", 1)
    write_images(tmp_path / "data" / "testB", 1)
    words = ("train", tmp_path / "data", "--out", tmp_path / "run", *TINY, "--num-workers", workers, "--images", "4")
    refused(*words, words=[f"error: {path}: ", *BROKEN[name][1]])


def test_out_that_cannot_be_used(refused: Callable[..., None], home: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    words = ("train", home / "data", *TINY, "--images", "1", "--out")
    refused(*words, tmp_path / "file" / "run", words=["cannot write to the run folder", "file/run"], code=3)
    refused(*words, tmp_path / "file", words=["cannot write to the run folder", str(tmp_path / "file")], code=3)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    refused(*words, tmp_path / "full", words=[f"{tmp_path / 'full'} is not empty and holds no run", "another --out"])
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["thesis.txt"]


def test_another_run_in_out(refused: Callable[..., None], run: Path, home: Path) -> None:
    before = weights(run)
    again = ("train", "--config", home / "run" / "run.yaml", "--out", run)
    refused(*again, "--seed", "4", words=[f"{run} holds a run with other settings", "training.seed was 3, now 4"])
    refused(
        "train", home / "data", "--out", run, *TINY, "--method", "cut",
        words=[f"{run} holds a run of the method 'qs_attn', not 'cut'", "choose another --out"],
    )  # fmt: skip
    assert weights(run) == before


def test_a_run_whose_record_of_sessions_is_damaged_goes_on(unpaired: Unpaired, run: Path, home: Path) -> None:
    for content in ("", "{", "[]\n"):
        (run / "sessions.jsonl").write_text(content)
        answer = unpaired("train", "--config", home / "run" / "run.yaml", "--out", run)
        assert answer.code == 0, answer
    (run / "sessions.jsonl").unlink()
    assert unpaired("train", "--config", home / "run" / "run.yaml", "--out", run).code == 0


def test_damaged_and_foreign_checkpoints(
    unpaired: Unpaired, refused: Callable[..., None], run: Path, home: Path, tmp_path: Path
) -> None:
    again = ("train", "--config", home / "run" / "run.yaml", "--out", run)
    files = sorted((run / "checkpoints").iterdir())
    files[-1].write_bytes(files[-1].read_bytes()[:-1])
    answer = unpaired(*again)
    assert answer.code == 0, answer
    assert f"the checkpoint {files[-1]} is damaged" in answer.err
    assert "trying the one before it" in answer.err
    assert weights(run) == weights(home / "run")

    for path in (run / "checkpoints").iterdir():
        path.write_bytes(b"x" * 100)
    refused(*again, words=[f"every checkpoint in {run / 'checkpoints'} is damaged", "rename that folder"])

    cut = ("train", home / "data", "--out", tmp_path / "cut", *TINY, "--method", "cut", "--images", "7", "--quiet")
    assert unpaired(*cut).code == 0
    shutil.copytree(tmp_path / "cut" / "checkpoints", run / "checkpoints", dirs_exist_ok=True)
    refused(*again, words=["is a checkpoint of the method 'cut', not of 'qs_attn'", "choose another --out"])


@pytest.mark.parametrize("module", ["unpaired.engine.checkpoint", "unpaired.engine.monitors"])
def test_a_full_disk(
    refused: Callable[..., None], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    def full(path: Path, *parts: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(f"{module}.write_atomically", full)
    words = ["No space left on device"]
    if module == checkpoint.__name__:
        words += ["cannot save the checkpoint", "checkpoint_000000001.pt", "Make room"]
    arguments = ("train", home / "data", "--out", tmp_path / "run", *TINY, "--images", "2")
    refused(*arguments, "--sample-every", "1", "--checkpoint-every", "1", words=words, code=3)


def test_a_loss_that_is_not_finite(
    refused: Callable[..., None], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = CUT.generator_loss

    def broken(self: CUT, outputs: Any) -> dict[str, torch.Tensor]:
        return {
            key: value * (float("nan") if key == "adversarial" else 1) for key, value in original(self, outputs).items()
        }

    monkeypatch.setattr(CUT, "generator_loss", broken)
    words = ["the loss term 'adversarial' is not finite at image 1", "no checkpoint was saved yet", "--learning-rate"]
    refused("train", home / "data", "--out", tmp_path / "run", *TINY, "--images", "2", words=words, code=3)


# ---------------------------------------------------------------------------------------------------------------------
# demo
# ---------------------------------------------------------------------------------------------------------------------
class Page(html.parser.HTMLParser):
    """Collects everything a page would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if tag == "img" and name == "src":
                self.images.append(value or "")
            elif name in ("src", "href", "srcset", "xlink:href", "data", "action"):
                self.links.append(value or "")


@pytest.fixture
def small_demo(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo with a narrow network and few images, so that it takes a second."""

    def tiny(images: int = 2400, seed: int = 0) -> RunConfig:
        mapping = demo_run(images, seed).to_mapping()
        mapping["model"] |= {"base_channels": 4, "blocks": 5, "num_queries": 16, "projector_width": 8}
        mapping["data"]["image_size"] = 32
        mapping["training"] |= {"accelerator": "cpu", "score_every": 3}
        return RunConfig.from_mapping(mapping)

    root = home / "data"
    train, test = (
        UnpairedFiles(*(tuple(sorted((root / f"{split}{domain}").iterdir())) for domain in "BA"))
        for split in ("train", "test")
    )
    small = EmbeddedDataset("fluent", "drawing_to_colour", root, train, embedded_dataset().validation, test)
    monkeypatch.setattr("unpaired.cli.demonstration.demo", tiny)
    monkeypatch.setattr("unpaired.cli.demonstration.embedded_dataset", lambda *_: small)


def test_demo_makes_a_report_that_needs_nothing_else(
    unpaired: Unpaired, small_demo: None, home: Path, tmp_path: Path
) -> None:
    out = tmp_path / "demo"
    answer = unpaired("demo", "--images", "6", "--out", out)
    assert answer.code == 0, answer
    told = " ".join(re.findall(r"(?:Better|WORSE|Equal).* scores: (.*)", answer.out))
    (record,) = map(json.loads, (out / "evaluations.jsonl").read_text().splitlines())
    assert all(f"{score['label']} (" in told for score in record["scores"]["ema"].values())  # not only the good ones
    assert f"Open {out / 'report.html'}" in answer.out
    assert "3 test drawings against their true colours" in answer.out
    assert f"_{len(list((home / 'data' / 'testA').iterdir()))}v" in json.dumps(record)
    scored = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    assert {line["chosen_on"] for line in scored} == {f"valA and valB of {embedded_dataset().root}"}
    with Image.open(out / "grid.png") as grid:
        grid.load()
        assert min(grid.size) > 100

    text = (out / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.images) >= 12 * 5
    for source in page.images:
        kind, _, data = source.partition(",")
        assert kind in ("data:image/png;base64", "data:image/webp;base64")
        Image.open(io.BytesIO(base64.b64decode(data, validate=True))).verify()
    assert all(link.startswith(("data:", "#")) for link in page.links)
    assert not {"iframe", "link", "object"} & page.tags
    assert text.count("<script") == text.count("script-src 'sha256-") == 1
    assert text.count(': before"') == 12
    assert str(tmp_path) not in text
    assert not re.search(r"url\((?!#)|@import", text)
    assert "unpaired demo --images 6 --seed 0" in text

    before = (weights(out), (out / "log.jsonl").read_text())
    again = unpaired("demo", "--out", out)  # without --images: the run's own length
    assert again.code == 0, again
    assert (weights(out), (out / "log.jsonl").read_text()) == before
    assert len((out / "evaluations.jsonl").read_text().splitlines()) == 2


def test_demo_sizes_training_to_this_machine_and_tells_an_interruption(
    unpaired: Unpaired, small_demo: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[RunConfig] = []

    def interrupted(config: RunConfig, out: Path) -> FitResult:
        asked.append(config)
        return FitResult(images_seen=1, finished=False, interrupted=signal.SIGINT)

    monkeypatch.setattr("unpaired.cli.demonstration.train", interrupted)
    for minutes in ("0.001", "3"):
        answer = unpaired("demo", "--minutes", minutes, "--out", tmp_path / "demo")
        assert answer.code == 130, answer
        images = asked[-1].training.images
        assert f"training on {images:,} images fits into {minutes} minutes" in answer.out
    assert asked[0].training.images == 100
    assert (asked[1].training.images or 0) > 100
    assert not (tmp_path / "demo" / "report.html").exists()


def test_demo_refuses(refused: Callable[..., None], small_demo: None, home: Path, run: Path, tmp_path: Path) -> None:
    refused("demo", "--minutes", "0", "--out", tmp_path / "a", words=["minutes must be above 0, not 0"])
    refused("demo", "--images", "0", "--out", tmp_path / "a", words=["images must be at least 1, not 0"])
    refused("demo", "--out", run, words=[f"{run} holds another run", "choose another --out"])
    file = run / "run.yaml"
    file.write_text(file.read_text().replace("images: 6", "images: null"))
    refused("demo", "--out", run, words=[f"{run} holds another run", "choose another --out"])
    (tmp_path / "file").write_text("")
    refused("demo", "--images", "2", "--out", tmp_path / "file" / "x", words=["cannot write"], code=3)


def test_what_pillow_says_of_damaged_files_is_left_to_our_errors(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        main(["no-such-command"])
        for module in ("PIL.TiffImagePlugin", "PIL", "mine"):
            warnings.warn_explicit("Truncated File Read", UserWarning, f"{module}.py", 1, module)
    assert re.findall(r"(\S+)\.py:1: UserWarning", capsys.readouterr().err) == ["mine"]
