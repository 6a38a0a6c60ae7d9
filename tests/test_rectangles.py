"""Crops that are no squares, in both orientations, from training to scores, and one picture per domain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from tiny import equal, microscopy, tiny_run, trained, write_images
from unpaired import cli
from unpaired.data import UnpairedFiles, read_image
from unpaired.errors import ConfigError, DataError
from unpaired.evaluation import evaluate, evaluate_run
from unpaired.inference import Translator
from unpaired.methods import METHODS
from unpaired.training import train

WIDE, TALL = (32, 48), (48, 32)


def files_of(dataset: Path) -> UnpairedFiles:
    return UnpairedFiles(*(tuple(sorted((dataset / split).iterdir())) for split in ("testA", "testB")))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_resumes_translates_and_is_scored(method: str, dataset: Path, tmp_path: Path) -> None:
    size = (WIDE, TALL)[sorted(METHODS).index(method) % 2]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    settings: dict[str, Any] = {"images": 4, "image_size": size}
    train(tiny_run(dataset, method, **settings), whole, quiet=True)
    train(tiny_run(dataset, method, **settings, stop_after=1), parts, quiet=True)
    train(tiny_run(dataset, method, **settings), parts, quiet=True)
    assert equal(trained(parts), trained(whole))
    translator = Translator.from_pretrained(whole)
    assert translator.image_size == size
    assert translator.translate(torch.zeros(3, 36, 52)).shape == (3, 36, 52)
    request = {"domain": "b"} if method == "multi_domain_qs_attn" else None
    scores = evaluate(
        {"ema": translator}, files_of(dataset), names=("swd_progan_x1e3", "paired_l1_pm1"), request=request
    )
    assert scores.translations["ema"][0].shape == scores.sources[0].shape == (3, *size)
    assert scores.data["image_size"] == size
    assert all(np.isfinite(score.value) for score in scores.scores["ema"].values())


@pytest.mark.parametrize("size", [WIDE, TALL])
def test_the_commands_from_training_to_the_report(
    size: tuple[int, int], dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def unpaired(*words: object) -> str:
        assert cli.main([str(word) for word in words]) == 0
        answer = capsys.readouterr()
        return answer.out + answer.err

    run, made = tmp_path / "run", tmp_path / "made"
    tiny = ("--base-channels", 4, "--blocks", 5, "--num-queries", 16, "--projector-width", 8, "--images", 4,
            "--accelerator", "cpu", "--num-workers", 0, "--image-size", *size, "--load-size", 60, 70)  # fmt: skip
    unpaired("train", dataset, "--out", run, "--resize", "scale_shorter_side", *tiny, "--score-every", 2)
    assert json.loads((run / "weights" / "model.json").read_text())["image_size"] == list(size)
    unpaired("translate", run, dataset / "testA", "--out", made, "--size", "training")
    names = sorted(path.name for path in (dataset / "testA").iterdir())
    assert [read_image(made / name).size for name in names] == [(40, 36)] * 3
    unpaired("evaluate", run, dataset, "--no-intervals")
    record = json.loads((run / "evaluations.jsonl").read_text().splitlines()[-1])
    assert record["data"]["image_size"] == list(size)
    assert "swd_progan_x1e3" in str(record["scores"]["ema"])
    assert f"{size[0]} x {size[1]} px" in " ".join(unpaired("compare", run).split())
    other = tmp_path / "folder"
    other.mkdir()
    for name in names:
        read_image(dataset / "testA" / name).resize(size[::-1]).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(
            other / name
        )
    assert cli.main(["evaluate", str(other), str(dataset)]) == 2  # rectangles may be files of any training size
    assert "with --image-size, one side or height and width" in capsys.readouterr().err
    unpaired("evaluate", other, dataset, "--no-intervals", "--image-size", *size)
    assert json.loads((other / "evaluations.jsonl").read_text())["data"]["image_size"] == list(size)
    unpaired("evaluate", other, dataset, "--no-intervals", "--image-size", 64, 32)
    assert json.loads((other / "evaluations.jsonl").read_text().splitlines()[-1])["data"]["image_size"] == [64, 32]
    page = tmp_path / "report.html"
    unpaired("report", run, "--out", page)
    assert page.exists()


def test_sixteen_bits_and_rectangles(tmp_path: Path) -> None:
    data, run = microscopy(tmp_path / "cells"), tmp_path / "run"
    config = tiny_run(data, "cut", image_size=WIDE, target_channels=3, channels=1, value_range=(0.0, 4095.0),
                      resample="area", flip="both", images=2)  # fmt: skip
    train(config, run, quiet=True)
    made = Translator.from_pretrained(run).translate(tifffile.imread(data / "testA" / "cell0.tif"))
    assert made.dtype == np.uint16
    assert made.shape == (41, 50, 3)
    assert evaluate_run(run, files_of(data), names=("swd_progan_x1e3",)).scores["ema"]


def test_a_rectangle_whose_shorter_side_is_too_small_for_the_discriminator(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"crops of at least \d+ pixels, not 16 x 256"):
        train(tiny_run(dataset, "cut", image_size=(16, 256)), tmp_path / "run", quiet=True)


# ---------------------------------------------------------------------------------------------------------------------
# one picture per domain
# ---------------------------------------------------------------------------------------------------------------------
@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for folder, seed in (("trainA", 1), ("trainB", 2)):
        write_images(tmp_path / "two" / folder, 1, size=(150, 100), seed=seed)
    return tmp_path / "two"


def test_one_picture_of_each_domain_trains_and_resumes(pictures: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"resize": "zoom_and_crop", "load_size": 120, "images_per_epoch": 3, "images": None}
    config = tiny_run(pictures, "cut", **settings, optimiser=METHODS["cut"].Config().optimiser.__class__(epochs=2))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(config, whole, quiet=True).images_seen == 6
    stopped = tiny_run(pictures, "cut", **settings, optimiser=config.model.optimiser, stop_after=2, num_workers=1)
    assert train(stopped, parts, quiet=True).images_seen == 2
    assert train(config, parts, quiet=True).finished
    assert equal(trained(parts), trained(whole))
    made = Translator.from_pretrained(whole).translate(read_image(pictures / "trainA" / "image0.png"))
    assert made.size == (150, 100)


def test_one_picture_is_too_few_without_zooms(pictures: Path, tmp_path: Path) -> None:
    for resize in ("resize_and_crop", "scale_shorter_side", "crop_only"):
        with pytest.raises(DataError, match=r"trainA: holds only one image; .*--resize zoom_and_crop"):
            train(tiny_run(pictures, "cut", resize=resize), tmp_path / "run", quiet=True)


def test_one_picture_of_sixteen_bits(tmp_path: Path) -> None:
    data = tmp_path / "cells"
    rng = np.random.default_rng(0)
    for folder in ("trainA", "trainB"):
        (data / folder).mkdir(parents=True)
        tifffile.imwrite(data / folder / "a.tif", rng.integers(0, 65536, (70, 90), dtype=np.uint16))
    config = tiny_run(data, "cut", resize="zoom_and_crop", channels=1, images=2, image_size=WIDE)
    assert train(config, tmp_path / "run", quiet=True).finished
    made = Translator.from_pretrained(tmp_path / "run").translate(tifffile.imread(data / "trainA" / "a.tif"))
    assert (made.dtype, made.shape[:2]) == (np.uint16, (70, 90))
