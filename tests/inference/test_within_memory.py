"""The bound on memory from the outside: the command, the Translator, a photograph, the memory of a process."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from large import TOLERANCE, lively, picture
from PIL import Image
from rich.console import Console

from tiny import shared_data, tiny_run, write_images
from unpaired import cli
from unpaired.cli.translation_bar import tracked
from unpaired.data import image_to_tensor, read_image
from unpaired.errors import ConfigError
from unpaired.inference import Translator
from unpaired.inference.large_images import free_memory, memory_bound, trace, translate, translate_in_stripes
from unpaired.inference.large_images import memory as memory_module
from unpaired.inference.large_images.memory import taken_memory
from unpaired.training import train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("large")
    for number, split in enumerate(("trainA", "trainB")):
        write_images(root / "data" / split, 2, seed=number)
    train(tiny_run(root / "data", "cut", images=1, sample_every=100), root / "run", quiet=True)
    return root / "run"


def test_the_command_gives_the_same_picture_within_little_memory(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = write_images(tmp_path / "in", 1, size=(150, 333)) / "image0.png"
    assert cli.main(["translate", str(run), str(photo), "--out", str(tmp_path / "whole")]) == 0
    monkeypatch.setattr(translate, "taken_memory", lambda device: 0)
    asked: list[int] = []
    inner = translate.translate_in_stripes
    monkeypatch.setattr(translate, "translate_in_stripes", lambda *a, **k: asked.append(a[2]) or inner(*a, **k))
    arguments = ["translate", str(run), str(photo), "--out", str(tmp_path / "stripes"), "--memory-gib", "0.003"]
    assert cli.main(arguments) == 0
    assert asked == [int(0.003 * 2**30)]
    whole, stripes = (
        np.asarray(Image.open(tmp_path / name / "image0.png")).astype(int) for name in ("whole", "stripes")
    )
    assert whole.shape == (333, 150, 3)
    assert np.abs(whole - stripes).max() <= 1
    assert (whole != stripes).mean() < 0.01


def test_the_translator_takes_a_bound_and_tells_how_far_it_is(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    translator, x = Translator.from_pretrained(run, device="cpu"), picture(201, 98)
    expected = translator.translate(x)
    monkeypatch.setattr(translate, "taken_memory", lambda device: 0)
    told: list[float] = []
    translator.memory_gib, translator.progress = 0.002, told.append
    assert (translator.translate(x) - expected).abs().max() < TOLERANCE
    assert told == sorted(told)
    assert told[-1] == 1.0


@pytest.mark.parametrize("gib", ["0", "-1", "nan"])
def test_a_bound_that_is_none_is_refused(
    run: Path, gib: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path / "in", 1)
    arguments = ["translate", str(run), str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--memory-gib", gib]
    assert cli.main(arguments) == 2
    assert (
        f"memory_gib must be {'a finite number' if gib == 'nan' else 'above 0'}, not {gib}" in capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


def test_a_bar_shows_the_share_of_a_large_image(run: Path) -> None:
    translator, out = Translator.from_pretrained(run, device="cpu"), io.StringIO()
    console = Console(file=out, force_terminal=True, width=100)
    for item in tracked(["a", "b"], 2, translator, console):
        assert translator.progress is not None
        for share in (0.25, 0.5, 1.0):
            translator.progress(share)
            if (item, share) == ("b", 0.5):
                deadline = time.monotonic() + 60
                while "this image" not in out.getvalue() and time.monotonic() < deadline:
                    time.sleep(0.05)  # another thread draws the bars
    assert translator.progress is None
    assert "translating" in out.getvalue()
    assert "this image" in out.getvalue()


def test_free_memory_is_that_of_the_machine_or_of_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < taken_memory() < 64 * 2**30
    assert 0 < free_memory() < 2**50
    assert memory_bound(1.5) == 3 * 2**29
    assert taken_memory() < memory_bound(None) < taken_memory() + free_memory()
    files = {
        "/proc/meminfo": "MemTotal: 9\nMemAvailable:    2000 kB\n",
        "/sys/fs/cgroup/memory.max": "1000000\n", "/sys/fs/cgroup/memory.current": "400000\n",
    }  # fmt: skip
    monkeypatch.setattr(memory_module.Path, "read_text", lambda path, encoding: files[str(path)])
    assert free_memory() == 600_000
    files["/sys/fs/cgroup/memory.max"] = "max\n"
    assert free_memory() == 2000 * 1024
    with pytest.raises(ConfigError, match="memory_gib must be above 0 and finite, not inf"):
        memory_bound(float("inf"))


@pytest.mark.slow
def test_a_photograph_of_1024_pixels_is_the_same_to_a_hundred_thousandth() -> None:
    photo = sorted((shared_data("horse2zebra") / "testA").glob("*.jpg"))[0]
    x = image_to_tensor(read_image(photo, 3).resize((1024, 1024), Image.Resampling.BICUBIC))[None].clamp(-1, 1)
    method = lively("qs_attn", base_channels=16, blocks=9)
    expected = method.translate(x)
    assert expected.std() > 0.1
    found = translate_in_stripes(trace(method, 3), x, taken_memory() + 400 * 2**20)
    assert (found - expected).abs().max() <= 1e-5


_WITHIN = """
import sys
sys.path.insert(0, {tests!r})
import torch
from large import lively, picture
from unpaired.inference.large_images import translate_within
method, x = lively("cut", base_channels=16), picture(1536, 1024)
translate_within(method, x, {bound})
status = open("/proc/self/status").read()  # ru_maxrss would be that of the parent where it is larger
print(int(status.partition("VmHWM:")[2].split()[0]) * 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read as Linux counts it")
def test_a_process_stays_within_its_bound() -> None:
    """Whole, this image takes 0.7 GiB more than the interpreter with torch does."""
    bound = int(1.1 * 2**30)
    code = _WITHIN.format(tests=str(Path(__file__).parent), bound=bound)
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n" + code
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(answer.stdout) < bound
