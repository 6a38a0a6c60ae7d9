"""``unpaired export``, and what serves its files: the Python API and ``unpaired translate``."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tiny import tiny_run, write_images
from unpaired import cli
from unpaired.config import to_dict
from unpaired.data import PixelFormat, ValueMapping
from unpaired.errors import ConfigError
from unpaired.inference import Origin, Translator
from unpaired.inference.export import OnnxGenerator
from unpaired.inference.export.write import TOLERANCE
from unpaired.training import train

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("export_command") / "data"
    for number, split in enumerate(("trainA", "trainB", "testA", "testB")):
        write_images(root / split, 2, size=(41, 35), seed=number)
    return root


@pytest.fixture(scope="module")
def munit(data: Path) -> Path:
    """A run with two directions and styles."""
    train(tiny_run(data, "munit", images=2, checkpoint_every=2, sample_every=100), data.parent / "munit", quiet=True)
    return data.parent / "munit"


@pytest.fixture(scope="module")
def file(munit: Path) -> Path:
    assert cli.main(["export", str(munit), "--data-licence", "CC0"]) == 0
    return munit / "model.onnx"


def pictures(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: np.asarray(Image.open(path)).astype(int) for path in sorted(folder.glob("*.png"))}


def test_the_file_serves_as_the_run_does(munit: Path, file: Path) -> None:
    own, made = Translator.from_pretrained(munit, device="cpu"), Translator.from_onnx(file)
    image = torch.rand(2, 3, 37, 5) * 2 - 1
    for style_seed in (None, 7):
        wanted = own.translate(image, style_seed=style_seed)
        torch.testing.assert_close(made.translate(image, style_seed=style_seed), wanted, rtol=0, atol=TOLERANCE)
    assert not torch.equal(made.translate(image), made.translate(image, style_seed=7))


def test_what_it_says_of_itself(munit: Path, file: Path) -> None:
    facts = OnnxGenerator(file).facts
    assert facts["data_licence"] == "CC0"
    assert facts["weights"] == "ema"
    assert facts["weights_sha256"] == hashlib.sha256((munit / "weights" / "ema.safetensors").read_bytes()).hexdigest()
    assert (facts["method"], facts["channels"], facts["direction"]) == ("munit", "3 to 3", "source to target")
    assert '"uint8"' in facts["description"]


@pytest.mark.parametrize("how", ["file", "runtime"])
def test_translate_takes_the_file_or_exports_on_the_way(
    how: str, munit: Path, file: Path, data: Path, tmp_path: Path
) -> None:
    options = [str(file)] if how == "file" else [str(munit), "--runtime", "onnx"]
    command = [str(data / "testA"), "--style-seed", "3", "--out"]
    assert cli.main(["translate", *options, *command, str(tmp_path / "onnx")]) == 0
    assert cli.main(["translate", str(munit), *command, str(tmp_path / "torch")]) == 0
    made, wanted = pictures(tmp_path / "onnx"), pictures(tmp_path / "torch")
    assert made.keys() == wanted.keys() == {"image0.png", "image1.png"}
    for name, image in made.items():
        assert image.shape == (35, 41, 3)
        assert abs(image - wanted[name]).max() <= 1


def test_reverse_is_chosen_when_the_file_is_written(
    munit: Path, file: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "reverse.onnx"
    assert cli.main(["export", str(munit), "--reverse", "--out", str(path)]) == 0
    assert "largest difference from PyTorch" in capsys.readouterr().out
    image = torch.rand(1, 3, 20, 24) * 2 - 1
    wanted = Translator.from_pretrained(munit, device="cpu").translate(image, reverse=True)
    torch.testing.assert_close(Translator.from_onnx(path).translate(image), wanted, rtol=0, atol=TOLERANCE)
    assert cli.main(["translate", str(file), str(data / "testB"), "--out", str(tmp_path / "out"), "--reverse"]) == 2
    assert "give --reverse to 'unpaired export'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--format", "torch", "--precision", "float16"], "float16 is for the format onnx"),
        (["--out", "model.pt2"], "should end in .onnx"),
        (["--domain", "zebra"], "MUNIT does not offer a choice of domains"),
        (["--weights", "best"], "best"),
    ],
)
def test_what_does_not_go_together(
    arguments: list[str], words: str, munit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(munit.iterdir())
    assert cli.main(["export", str(munit), *arguments]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert words in message
    assert sorted(munit.iterdir()) == before


@pytest.mark.parametrize(
    ("run", "words"), [("nothing", "nothing is not a trained run"), ("owner/name", "name the file with --out")]
)
def test_a_run_that_is_not_there(run: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", run]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--device", "cuda"], "ONNX Runtime is used on the CPU"), (["--style-reference", "{image}"], "style encoder")],
)
def test_what_a_file_cannot_do(
    arguments: list[str], words: str, file: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled = [each.format(image=data / "testB" / "image0.png") for each in arguments]
    assert cli.main(["translate", str(file), str(data / "testA"), "--out", str(tmp_path / "out"), *filled]) == 2
    assert words in capsys.readouterr().err
    with pytest.raises(ConfigError, match="has no taps"):
        Translator.from_onnx(file).significance(torch.zeros(3, 16, 16), "block1")
    with pytest.raises(ConfigError, match="export the run"):
        Translator.from_onnx(file).export(tmp_path / "again.onnx")


def test_a_model_of_other_images_keeps_their_kind(munit: Path, tmp_path: Path) -> None:
    """One 16-bit channel in, three 8-bit channels out, with the mapping in the file."""
    plain = Translator.from_pretrained(munit, device="cpu")
    gray = PixelFormat(1, "uint16", ValueMapping("range", (100.0,), (5000.0,)))
    kinds = {"source": to_dict(gray), "target": to_dict(PixelFormat(3))}
    own = Translator(plain.method, {**plain.description, **kinds}, origin=Origin(munit / "weights", "ema", "0" * 64))
    own.export(tmp_path / "gray.onnx")
    made = Translator.from_onnx(tmp_path / "gray.onnx")
    image = np.random.default_rng(0).integers(0, 6000, (30, 21), dtype=np.uint16)
    assert made.source == gray
    result = made.translate(image)
    assert (result.dtype, result.shape) == (np.uint8, (30, 21, 3))
    assert abs(result.astype(int) - own.translate(image).astype(int)).max() <= 1


def test_the_example_of_the_page_needs_nothing_of_this_package(
    munit: Path, file: Path, data: Path, tmp_path: Path
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert "unpaired" not in code
    shutil.copy(file, tmp_path / "model.onnx")
    shutil.copy(data / "testA" / "image0.png", tmp_path / "photo.png")
    answer = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "'low': [0.0]" in answer.stdout
    own = Translator.from_pretrained(munit, device="cpu").translate(Image.open(tmp_path / "photo.png").convert("RGB"))
    made = np.asarray(Image.open(tmp_path / "translation.png")).astype(int)
    assert abs(made - np.asarray(own).astype(int)).max() <= 1
