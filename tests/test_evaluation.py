"""Evaluation of a run: what is scored, against which truth, read in which way, and what is kept of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from tiny import tiny_run, write_images
from unpaired.data import DataConfig, UnpairedFiles, find_test_images
from unpaired.errors import ConfigError, DataError, TrainingError
from unpaired.evaluation import INPUT, append_record, evaluate, evaluate_run, image_set_scores
from unpaired.inference import Translator
from unpaired.metrics import METRICS
from unpaired.training import load_for_protocol, train

PAIRED = {name for name, row in METRICS.items() if row.needs_pairs}
BACKGROUND = (10, 200, 30)


class Identity:
    """Translates nothing: what comes in goes out."""

    channels, image_size, background = 3, 32, (255, 255, 255)

    def translate(self, images: torch.Tensor) -> torch.Tensor:
        return images


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("evaluation")
    for split, count, seed in (("trainA", 3, 1), ("trainB", 3, 2), ("testA", 3, 3), ("testB", 4, 4)):
        write_images(root / "data" / split, count, seed=seed)
    return root


@pytest.fixture(scope="module")
def run(root: Path) -> Path:
    config = tiny_run(root / "data", images=2, checkpoint_every=2, sample_every=100, background=BACKGROUND)
    train(config, root / "run", quiet=True)
    return root / "run"


@pytest.fixture
def files(root: Path) -> UnpairedFiles:
    found = find_test_images(root / "data")
    assert found is not None
    return found


def test_a_perfect_translation_scores_perfectly(files: UnpairedFiles) -> None:
    found = evaluate({"same": Identity()}, UnpairedFiles(files.source, files.source))
    assert list(found.scores) == [INPUT, "same"]
    for row in found.scores.values():
        assert set(row) == set(METRICS)
        assert row["paired_l1_pm1"].value == 0
        assert row["paired_ssim_gauss11"].value == pytest.approx(1)
    assert found.names == ["image0", "image1", "image2"]


def test_truths_are_found_by_stem_not_by_place(files: UnpairedFiles, tmp_path: Path) -> None:
    for number, source in enumerate(reversed(files.source)):  # other order, other suffix, one more
        Image.open(source).save(tmp_path / f"{source.stem}.{('bmp', 'png', 'tiff')[number]}")
    write_images(tmp_path / "more", 1)
    extra = (tmp_path / "more" / "image0.png").rename(tmp_path / "a_first.png")
    targets = (extra, *sorted(set(tmp_path.glob("image*")), reverse=True))
    found = evaluate({"same": Identity()}, UnpairedFiles(files.source, targets))
    assert found.scores["same"]["paired_l1_pm1"].value == 0
    assert found.scores["same"]["paired_l1_pm1"].images == 3
    assert found.scores["same"]["swd_progan_x1e3"].reference_images == 4
    assert all(torch.equal(truth, source) for truth, source in zip(found.truths, found.sources, strict=True))


@pytest.mark.parametrize("why", ["one name differs", "a name occurs twice"])
def test_without_a_truth_for_each_image_there_are_no_paired_scores(
    files: UnpairedFiles, tmp_path: Path, why: str
) -> None:
    write_images(tmp_path, 3)
    if why == "one name differs":
        (tmp_path / "image1.png").rename(tmp_path / "other.png")
    else:
        Image.open(tmp_path / "image1.png").save(tmp_path / "image1.bmp")
    found = evaluate({"same": Identity()}, UnpairedFiles(files.source, tuple(sorted(tmp_path.iterdir()))))
    assert found.truths == []
    assert all(set(row) == set(METRICS) - PAIRED for row in found.scores.values())


def test_a_run_is_scored_with_both_weights_and_batches_change_nothing(run: Path, files: UnpairedFiles) -> None:
    calls: list[tuple[int, int]] = []
    found = evaluate_run(run, files, device="cpu", batch_size=2, progress=lambda *at: calls.append(at))
    assert list(found.scores) == [INPUT, "average (EMA)", "last"]
    assert calls == [(2, 6), (3, 6), (5, 6), (6, 6)]
    single = evaluate_run(run, files, device="cpu", batch_size=1)
    for row, scores in found.scores.items():
        for name, score in scores.items():
            assert score.value == pytest.approx(single.scores[row][name].value, rel=1e-4)
    last = Translator.from_pretrained(run, weights="last", device="cpu").translate(found.sources[1])
    torch.testing.assert_close(found.translations["last"][1], last)
    assert found.scores[INPUT]["paired_l1_pm1"].per_image[0] == pytest.approx(
        float((found.sources[0] - found.truths[0]).abs().mean()), rel=1e-5
    )


def test_images_are_read_as_the_run_read_them(run: Path, root: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        Image.new("RGBA", (50, 20), (0, 0, 0, 0)).save(tmp_path / f"{name}.png")
    empty = tuple(sorted(tmp_path.iterdir()))
    found = evaluate_run(run, UnpairedFiles(empty, empty), device="cpu")
    assert found.sources[0].shape == (3, 32, 32)
    expected = torch.tensor(BACKGROUND) / 127.5 - 1
    torch.testing.assert_close(found.sources[0], expected[:, None, None].expand(3, 32, 32))


def test_gray_runs_are_scored(root: Path, files: UnpairedFiles) -> None:
    config = tiny_run(root / "data", images=1, sample_every=100, channels=1)
    train(config, root / "gray", quiet=True)
    found = evaluate_run(root / "gray", files, device="cpu")
    assert found.sources[0].shape == (1, 32, 32)
    assert set(found.scores["last"]) == set(METRICS)


def test_the_seed_decides_the_random_projections(files: UnpairedFiles) -> None:
    def swd(seed: int) -> float:
        return evaluate({"same": Identity()}, files, seed=seed).scores["same"]["swd_progan_x1e3"].value

    assert swd(0) == swd(0) != swd(1)
    assert swd(0) == pytest.approx(swd(1), rel=0.2)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"batch_size": 0}, "batch_size must be at least 1, not 0"), ({"seed": -1}, "seed must be 0 or greater, not -1")],
)
def test_impossible_options(files: UnpairedFiles, options: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        evaluate({"same": Identity()}, files, **options)


def test_a_broken_image_is_named(files: UnpairedFiles, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(files.source[0].read_bytes()[:100])
    with pytest.raises(DataError, match=r"broken\.png.*(truncated|damaged)"):
        evaluate({"same": Identity()}, UnpairedFiles((tmp_path / "broken.png",), files.target))


def test_scores_between_two_sets_of_files(files: UnpairedFiles) -> None:
    data = DataConfig(image_size=32)
    found = image_set_scores(files.source, files.target, data)
    assert set(found) == set(METRICS) - PAIRED
    assert found["swd_progan_x1e3"].full_name == "swd_progan_x1e3_3v4"
    same = image_set_scores(files.source, files.source, data)
    assert same["swd_progan_x1e3"].value < found["swd_progan_x1e3"].value
    gray = image_set_scores(files.source, files.target, DataConfig(image_size=32, channels=1))
    assert gray["swd_progan_x1e3"].value > 0


def test_the_protocol_resizes_to_the_training_square(files: UnpairedFiles) -> None:
    x = load_for_protocol(files.source[0], DataConfig(image_size=32))
    assert (x.shape, x.dtype) == ((3, 32, 32), torch.float32)
    assert x.abs().max() <= 1


def test_every_evaluation_is_kept(run: Path, files: UnpairedFiles) -> None:
    found = evaluate_run(run, files, device="cpu")
    for seed in (0, 1):
        append_record(run, found, data="here", seed=seed, images_seen=2)
    records = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    assert [record["seed"] for record in records] == [0, 1]
    assert (records[0]["data"], records[0]["images_seen"]) == ("here", 2)
    assert set(records[0]["scores"]) == {INPUT, "average (EMA)", "last"}
    score = records[0]["scores"]["last"]["swd_progan_x1e3_3v4"]
    assert score["value"] == found.scores["last"]["swd_progan_x1e3"].value
    assert (score["images"], score["reference_images"]) == (3, 4)
    assert score["protocol"] == METRICS["swd_progan_x1e3"].protocol
    assert "paired_l1_pm1_3v3" in records[0]["scores"]["last"]
    assert {"unpaired", "torch"} <= records[0]["environment"]["versions"].keys()
    with pytest.raises(TrainingError, match=r"cannot write .*evaluations\.jsonl"):
        append_record(run / "run.yaml", found, data="here", seed=0, images_seen=2)
