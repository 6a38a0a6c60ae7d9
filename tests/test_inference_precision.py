"""Translation in bf16: through every path, near float32 and of the same kinds, sizes and types; and ``auto``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tiny import forget_digests, microscopy, tiny_run, tiny_settings, write_images
from unpaired.cli import main
from unpaired.data import read_image
from unpaired.errors import ConfigError
from unpaired.inference import Translator, precision
from unpaired.inference.large_images import trace, translate_in_stripes
from unpaired.methods import METHODS
from unpaired.studio.limits import Limits
from unpaired.studio.runs import open_runs
from unpaired.studio.translating import translate_uploads
from unpaired.training import train

LEVEL = 1 / 127.5
"""One of 256 levels on the [-1, 1] scale."""
NEAR = 8 * LEVEL
"""Of tiny networks whose weights are multiplied, between bf16 and float32."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs in colour, in gray and of 16-bit images, and ``data`` with held-out images."""
    root = tmp_path_factory.mktemp("home")
    for split, seed in (("trainA", 1), ("trainB", 2), ("testA", 3), ("testB", 4)):
        write_images(root / "data" / split, 2, seed=seed)
    options: dict[str, Any] = {"images": 2, "checkpoint_every": 2, "sample_every": 100}
    train(tiny_run(root / "data", **options), root / "colour", quiet=True)
    train(tiny_run(root / "data", **options, channels=1), root / "gray", quiet=True)
    microscopy(root / "cells")
    wide = {"channels": 1, "target_channels": 3, "value_range": (0, 4095)}
    train(tiny_run(root / "cells", **options, **wide), root / "sixteen", quiet=True)
    for run in ("colour", "gray", "sixteen"):
        brighten(root / run)
    return root


def brighten(run: Path) -> None:
    """Multiply weights, so that translations use the range of [-1, 1]."""
    forget_digests(run / "weights")
    for name in ("ema", "last"):
        file = run / "weights" / f"{name}.safetensors"
        save_file({key: weight * (20.0 if "head" in key else 4.0) for key, weight in load_file(file).items()}, file)


def both(run: Path) -> Iterator[Translator]:
    return (Translator.from_pretrained(run, device="cpu", precision=each) for each in ("32", "bf16"))


@pytest.mark.parametrize("run", ["colour", "gray"])
@pytest.mark.parametrize("size", [(32, 32), (37, 50), (5, 7), (1, 1)])
def test_bf16_is_near_float32_at_any_size(home: Path, run: str, size: tuple[int, int]) -> None:
    single, half = both(home / run)
    x = torch.rand(2, single.channels, *size) * 2 - 1
    expected, found = single.translate(x), half.translate(x)
    assert (found.dtype, found.shape) == (torch.float32, expected.shape)
    assert found.is_contiguous()
    assert (found - expected).abs().max() < NEAR
    assert size == (1, 1) or not torch.equal(found, expected)
    assert torch.equal(found, half.translate(x))  # a function of the image alone
    assert torch.equal(expected, Translator.from_pretrained(home / run, device="cpu").translate(x))


@pytest.mark.parametrize("name", ["cyclegan", "munit", "multi_domain_qs_attn", "sincut", "enco"])
def test_other_networks_too(name: str) -> None:
    torch.manual_seed(1)
    method = METHODS[name](METHODS[name].Config(**tiny_settings(name)), channels=3)
    description = {"channels": 3, "background": (255, 255, 255), "model": {}, "image_size": 32}
    domain = {"domain": "b"} if method.domains else {}
    x = torch.rand(1, 3, 20, 37) * 2 - 1
    found = [Translator(method, description, precision=each).translate(x, **domain) for each in ("32", "bf16")]
    apart = (found[0] - found[1]).abs()
    assert 0 < apart.mean() < 2 * LEVEL
    assert apart.max() < 2 * NEAR


def test_files_and_folders(home: Path, tmp_path: Path) -> None:
    photos = write_images(tmp_path / "in", 2, size=(41, 27))
    half = Translator.from_pretrained(home / "colour", device="cpu", precision="bf16")
    for given, out in ((photos, tmp_path / "folder"), (photos / "image0.png", tmp_path / "file")):
        assert main(["translate", str(home / "colour"), str(given), "--out", str(out), "--precision", "bf16"]) == 0
        for file in out.iterdir():
            assert Image.open(file).size == (41, 27)
            assert read_image(file).tobytes() == half.translate(read_image(photos / file.name)).tobytes()


def test_sixteen_bits(home: Path, tmp_path: Path) -> None:
    made = {}
    for each in ("32", "bf16"):
        words = ["translate", str(home / "sixteen"), str(home / "cells" / "testA"), "--out", str(tmp_path / each)]
        assert main([*words, "--precision", each]) == 0
        made[each] = tifffile.imread(tmp_path / each / "cell0.tif")
    assert made["bf16"].dtype == np.uint16
    assert made["bf16"].shape == made["32"].shape == (41, 50, 3)
    apart = np.abs(made["bf16"].astype(int) - made["32"]).max()
    assert 0 < apart < 4095 / 2 * NEAR


@pytest.mark.parametrize("run", ["colour", "gray"])
def test_stripes_are_the_whole_image(home: Path, run: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    single, half = both(home / run)
    x = torch.rand(1, single.channels, 203, 90) * 2 - 1
    whole, exact = half.translate(x), single.translate(x)
    monkeypatch.setattr("unpaired.inference.large_images.translate.taken_memory", lambda device: 0)
    asked: list[bool] = []

    def in_stripes(program: Any, *arguments: Any, **options: Any) -> torch.Tensor:
        weights = [step.weight.dtype for step in program.steps if hasattr(step, "weight") and step.weight is not None]
        asked.append(set(weights) == {torch.bfloat16})
        return translate_in_stripes(program, *arguments, **options)

    monkeypatch.setattr("unpaired.inference.large_images.translate.translate_in_stripes", in_stripes)
    half.memory_gib, half.scratch = 0.0035, tmp_path
    stripes = half.translate(x)
    assert asked == [True]
    assert stripes.dtype == torch.float32
    assert (stripes - exact).abs().max() < NEAR
    assert (stripes - whole).abs().max() < NEAR
    assert (stripes - exact).abs().mean() < 2 * (whole - exact).abs().mean() + 0.1 * LEVEL


def test_a_program_in_half_is_another_program(home: Path) -> None:
    method = Translator.from_pretrained(home / "colour", device="cpu").method
    program = trace(method, 3)
    before = [step.weight.dtype for step in program.steps if getattr(step, "weight", None) is not None]
    program.in_half()
    assert set(before) == {torch.float32}
    assert all(weight.dtype == torch.float32 for weight in method.parameters())


def test_evaluation_says_in_which_precision_it_translated(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", str(home / "colour"), str(home / "data"), "--metrics", "swd_progan_x1e3", "--no-intervals"]
    (home / "colour" / "evaluations.jsonl").unlink(missing_ok=True)
    assert main(words) == 0
    assert "Translated in" not in capsys.readouterr().out
    assert main([*words, "--precision", "bf16"]) == 0
    assert "Translated in bf16." in capsys.readouterr().out
    single, half = map(json.loads, (home / "colour" / "evaluations.jsonl").read_text().splitlines())
    assert (single["precision"], half["precision"]) == ("32", "bf16")
    scores = [record["scores"]["ema"]["swd_progan_x1e3_2v2"]["value"] for record in (single, half)]
    assert scores[0] != scores[1]
    assert scores[0] == pytest.approx(scores[1], rel=0.05)


def test_the_studio_takes_it(home: Path, tmp_path: Path) -> None:
    root = write_images(tmp_path / "root", 1, size=(33, 26))
    runs = open_runs([home / "colour", home / "gray"], device="cpu", precision="bf16")
    results = translate_uploads(runs, [root / "image0.png"], root, Limits(megapixels=1, megabytes=1, batch=1))
    assert results.refused == ()
    for run in runs:
        assert run.translator is not None
        assert run.translator.arithmetic.name == "bf16"
        made = np.asarray(read_image(results.pictures[0].made[run.name])).astype(int)
        plain = Translator.from_pretrained(run.path, device="cpu")
        picture = read_image(root / "image0.png").convert("L" if plain.channels == 1 else "RGB")
        expected = np.asarray(plain.translate(picture).convert("RGB"))
        assert np.abs(made - expected.astype(int)).max() <= 8


@pytest.mark.parametrize(("ratio", "chosen"), [(0.3, "bf16"), (1.5, "32")])
def test_auto_is_decided_once_by_time(home: Path, monkeypatch: pytest.MonkeyPatch, ratio: float, chosen: str) -> None:
    clock, ran = [0.0], list[bool]()

    def run_whole(method: Any, x: torch.Tensor, request: Any, *, half: bool) -> None:
        ran.append(half)
        clock[0] += ratio if half else 1.0

    monkeypatch.setattr(precision, "has_fast_bf16", lambda: True)
    monkeypatch.setattr(precision, "run_whole", run_whole)
    monkeypatch.setattr(precision.time, "perf_counter", lambda: clock[0])
    translator = Translator.from_pretrained(home / "colour", device="cpu", precision="auto")
    assert (translator.arithmetic.name, ran) == ("auto", [])
    x = torch.rand(3, 24, 24) * 2 - 1
    found = translator.translate(x)
    assert translator.arithmetic.name == chosen
    count = len(ran)
    translator.translate(x)
    assert (len(ran), ran.count(True)) == (count, count // 2)
    fixed = Translator.from_pretrained(home / "colour", device="cpu", precision=chosen)
    assert torch.equal(found, fixed.translate(x))


def test_auto_without_instructions_is_float32_unmeasured(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_fast_bf16", lambda: False)
    monkeypatch.setattr(precision, "run_whole", None)
    translator = Translator.from_pretrained(home / "colour", device="cpu", precision="auto")
    translator.translate(torch.zeros(3, 16, 16))
    assert translator.arithmetic.name == "32"


def test_what_there_is_not_is_refused(home: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="precision is 'half': it must be one of 32, bf16, auto"):
        Translator.from_pretrained(home / "colour", device="cpu", precision="half")  # type: ignore[arg-type]
    words = ["translate", "model.onnx", str(home / "data" / "testA"), "--out", str(tmp_path), "--precision", "bf16"]
    assert main(words) != 0
    assert "precision: ONNX Runtime computes in float32" in capsys.readouterr().err
