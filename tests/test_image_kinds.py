"""Sets of any depth and channel count through the command line: trained, resumed to the bit, translated, scored."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from tiny import microscopy, smooth
from unpaired import cli
from unpaired.data import read_values, tensor_of
from unpaired.inference import Translator

MODEL = ["--base-channels", "4", "--blocks", "5", "--num-queries", "16", "--projector-width", "8"]
TINY = [*MODEL, "--image-size", "32", "--num-workers", "0", "--images", "6", "--log-every", "1", "--sample-every", "4",
        "--checkpoint-every", "2", "--accelerator", "cpu", "--score-every", "3"]  # fmt: skip


def remote_sensing(folder: Path) -> Path:
    """Five bands of float32 with ranges of their own: NPY in one domain, planar and tiled TIFF in the other."""
    for split, count in (("trainA", 3), ("trainB", 3), ("testA", 2), ("testB", 2)):
        (folder / split).mkdir(parents=True)
        for number in range(count):
            values = (smooth(37, 45, 5, number) * 10.0 ** np.arange(-2, 3) - 0.5).astype(np.float32)
            if split.endswith("A"):
                np.save(folder / split / f"scene{number}.npy", values)
            else:
                tifffile.imwrite(folder / split / f"scene{number}.tif", values.transpose(2, 0, 1), tile=(16, 16),
                                 photometric="minisblack", planarconfig="separate", compression="zlib")  # fmt: skip
    return folder


Sets = dict[str, tuple[Callable[[Path], Path], list[str]]]
SETS: Sets = {
    "microscopy": (microscopy, ["--channels", "1", "--target-channels", "3", "--value-range", "0", "4095"]),
    "remote_sensing": (remote_sensing, ["--channels", "5", "--value-range", "percentiles"]),
}


@pytest.fixture(scope="module", params=list(SETS))
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    """Name of the set, its folder, and a run of it."""
    root = tmp_path_factory.mktemp(request.param)
    make, settings = SETS[request.param]
    data = make(root / "data")
    assert cli.main(["train", str(data), "--out", str(root / "run"), *TINY, *settings]) == 0
    return request.param, data, root / "run"


def test_a_resumed_run_is_the_uninterrupted_one(trained: tuple[str, Path, Path], tmp_path: Path) -> None:
    name, data, run = trained
    for stop in (["--stop-after", "2"], []):
        assert cli.main(["train", str(data), "--out", str(tmp_path / "run"), *TINY, *SETS[name][1], *stop]) == 0
    last = "checkpoints/checkpoint_000000006.pt"
    one, other = ((folder / last).read_bytes() for folder in (run, tmp_path / "run"))
    assert one == other


def test_what_is_stored_with_the_run(trained: tuple[str, Path, Path]) -> None:
    name, _, run = trained
    stored = json.loads((run / "formats.json").read_text())
    served = json.loads((run / "weights" / "model.json").read_text())
    assert {side: served[side] for side in ("source", "target")} == stored
    counts = {"microscopy": (1, 3), "remote_sensing": (5, 5)}[name]
    assert (stored["source"]["channels"], stored["target"]["channels"], served["channels"]) == (*counts, max(counts))
    mapping = stored["target"]["mapping"]
    if name == "microscopy":
        assert mapping == {"name": "range", "low": [0.0], "high": [4095.0]}
    else:
        values = np.stack([tifffile.imread(path) for path in sorted((run.parent / "data" / "trainB").iterdir())])
        for band in range(5):
            low, high = np.percentile(values[:, band], (0.1, 99.9), method="inverted_cdf")
            assert (mapping["low"][band], mapping["high"][band]) == (low, high)
    assert (run / "samples" / "000000004.png").exists()
    assert json.loads((run / "scores.jsonl").read_text().splitlines()[0])["scores"]


def test_translations_have_the_type_of_the_target(trained: tuple[str, Path, Path], tmp_path: Path) -> None:
    name, data, run = trained
    arguments = ["translate", str(run), str(data / "testA"), "--out", str(tmp_path), "--device", "cpu"]
    assert cli.main(arguments) == 0
    translator = Translator.from_pretrained(run, device="cpu")
    for path in sorted((data / "testA").iterdir()):
        made = tmp_path / path.name
        given, got = read_values(path, translator.source), read_values(made, translator.target)
        if name == "microscopy":
            with tifffile.TiffFile(made) as tif:
                page: Any = tif.pages[0]
                assert (page.shape, page.dtype) == ((41, 50, 3), np.uint16)
                assert [page.tags[tag].value for tag in (282, 283, 296)] == [(300, 1), (150, 1), 3]
        else:
            assert (np.load(made).shape, np.load(made).dtype) == ((37, 45, 5), np.float32)
        floats = translator.translate(translator.source.to_floats(tensor_of(given)))
        assert np.array_equal(got, translator.target.to_values(floats))
        assert np.array_equal(translator.translate(given), got)
        assert got.std() > 0


def test_sizes_come_back_from_another_scale(trained: tuple[str, Path, Path], tmp_path: Path) -> None:
    name, data, run = trained
    arguments = ["translate", str(run), str(data / "testA"), "--out", str(tmp_path), "--size", "24", "--format", "tiff"]
    assert cli.main(arguments) == 0
    shapes = {tifffile.imread(path).shape for path in tmp_path.iterdir()}
    assert shapes == {(41, 50, 3) if name == "microscopy" else (37, 45, 5)}


def test_scores_that_need_colours_say_so(
    trained: tuple[str, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, data, run = trained
    assert cli.main(["evaluate", str(run), str(data), "--no-cache", "--out", str(tmp_path / "scores.json")]) == 0
    said = " ".join(capsys.readouterr().err.split())
    found = json.loads((tmp_path / "scores.json").read_text())["scores"]
    assert {"swd_progan_x1e3", "paired_l1_pm1"} <= {key.partition("_2v")[0] for key in found["ema"]}
    if name == "remote_sensing":
        assert "it needs colour or gray, and these images have 5 channels" in said
        assert not [key for key in found["ema"] if "lite0" in key or "lab" in key]
        code = cli.main(["evaluate", str(run), str(data), "--metrics", "colour_shift_lab"])
        assert code == 2
        assert "metric 'colour_shift_lab' cannot be computed: it needs colour or gray" in capsys.readouterr().err


def test_a_kind_of_file_that_cannot_hold_the_result_is_refused_at_once(
    trained: tuple[str, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, data, run = trained
    code = cli.main(["translate", str(run), str(data / "testA"), "--out", str(tmp_path), "--format", "jpg"])
    assert code == 2
    words = "3 channels of uint16" if name == "microscopy" else "5 channels of float32"
    kinds = "npy, png or tiff" if name == "microscopy" else "npy or tiff"
    assert f"a .jpg file cannot hold {words}, which this run makes; use {kinds} (--format" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    first = sorted((data / "testA").iterdir())[0]
    assert cli.main(["translate", str(run), str(first), "--out", str(tmp_path / "night.jpg")]) == 2
    assert f"{first}: a .jpg file cannot hold {words}, which this run makes; use {kinds} " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_file_whose_kind_cannot_hold_the_result_costs_no_other(
    trained: tuple[str, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, data, run = trained
    files = sorted((data / "testA").iterdir())
    for number, path in enumerate(files):
        (tmp_path / "in" / path.name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / f"{number}{path.suffix}").write_bytes(path.read_bytes())
    photo = Image.fromarray(np.full((40, 48), 90, np.uint8))
    photo.save(tmp_path / "in" / "photo.jpg")
    (tmp_path / "in" / "torn.jpg").write_bytes((tmp_path / "in" / "photo.jpg").read_bytes()[:-40])
    (tmp_path / "in" / "html.jpg").write_text("<html><body>Not found</body></html>")
    assert cli.main(["translate", str(run), str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    own = "photo.jpg: a .jpg file cannot hold" if name == "microscopy" else "photo.jpg: has 1 channel, but the images"
    assert own in said.err
    assert "html.jpg: the content is text, not an image" in said.err  # their faults, and not that of their suffix
    assert "torn.jpg: the image" in said.err
    assert {path.stem for path in (tmp_path / "out").iterdir()} == {str(number) for number in range(len(files))}
    assert f"{len(files)} of {len(files) + 3} images translated" in said.out
    assert "3 skipped" in said.out
    for path in (tmp_path / "in").glob("*"):
        if path.name not in ("torn.jpg", "html.jpg"):
            path.unlink()
    assert cli.main(["translate", str(run), str(tmp_path / "in" / "html.jpg"), "--out", str(tmp_path / "none")]) == 1
    said = capsys.readouterr().err
    assert "html.jpg: the content is text, not an image" in said
    assert "cannot hold" not in said


def test_a_run_without_formats_is_one_of_8_bit_images(trained: tuple[str, Path, Path], tmp_path: Path) -> None:
    """Runs of versions that stored none."""
    _, _, run = trained
    (tmp_path / "weights").mkdir()
    for path in (run / "weights").iterdir():
        (tmp_path / "weights" / path.name).write_bytes(path.read_bytes())
    description = json.loads((tmp_path / "weights" / "model.json").read_text())
    del description["source"], description["target"]
    (tmp_path / "weights" / "model.json").write_text(json.dumps(description))
    old = Translator.from_pretrained(tmp_path, device="cpu")
    assert (old.channels, old.target_channels, old.source.dtype) == (description["channels"],) * 2 + ("uint8",)
    made = old.translate(torch.zeros(old.channels, 16, 20))
    assert made.shape == (old.channels, 16, 20)


def test_floats_without_a_range_and_wrong_channels_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = remote_sensing(tmp_path / "data")
    command = ["train", str(data), "--out", str(tmp_path / "run"), *TINY]
    assert cli.main([*command, "--channels", "5"]) == 2
    assert "floating-point values have no range of their own; say which become -1 and 1" in capsys.readouterr().err
    assert cli.main([*command, "--value-range", "0", "1"]) == 2
    said = capsys.readouterr().err
    assert not (tmp_path / "run" / "run.yaml").exists()  # so the same folder will do for the right settings
    assert "scene0.npy: has 5 channels, but the images of this domain have 3 channels" in said
