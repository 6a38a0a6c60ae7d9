"""Evaluation of a run: what is scored, against which truth, read in which way, and what is kept of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from PIL import Image

from tiny import tiny_run, write_images
from unpaired.cli import evaluation as evaluation_command
from unpaired.data import (
    DataConfig,
    Formats,
    PixelFormat,
    UnpairedFiles,
    find_test_images,
    list_images,
    tensor_to_image,
)
from unpaired.errors import BackendError, ConfigError, DataError, TrainingError, UserError
from unpaired.evaluation import (
    METRICS,
    FeatureCache,
    HeldOutScorer,
    ImageSets,
    ScoringNetworks,
    append_record,
    evaluate,
    evaluate_images,
    evaluate_made,
    evaluate_run,
    register_network,
)
from unpaired.inference import Translator
from unpaired.networks.pretrained import PRETRAINED
from unpaired.training import train

PAIRED = {name for name, row in METRICS.items() if row.against == "truth" and not row.networks}
FEW = {"swd_progan_x1e3", "structure_lite0", "identity_percent", "diversity_lite0", "colour_shift_lab"}
"""What can be computed from three unpaired images without the weights that a user has to fetch."""
BACKGROUND = (10, 200, 30)


class Identity:
    """Translates nothing: what comes in goes out."""

    channels, image_size, background, device = 3, 32, (255, 255, 255), torch.device("cpu")
    description: ClassVar[dict[str, Any]] = {"method": "cut", "model": {}}
    arithmetic = SimpleNamespace(name="32")

    def sides(self, reverse: bool = False) -> Formats:
        return (PixelFormat(self.channels, background=self.background),) * 2

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


def test_a_perfect_translation_scores_perfectly(files: UnpairedFiles, tmp_path: Path) -> None:
    copies = same_pictures(files, tmp_path)
    found = evaluate({"same": Identity()}, UnpairedFiles(files.source, copies))
    assert list(found.scores) == ["input", "same"]
    for row in found.scores.values():
        assert set(row) == PAIRED | FEW
        assert row["paired_l1_pm1"].value == 0
        assert row["paired_ssim_gauss11"].value == pytest.approx(1)
        assert row["identity_percent"].value == 100
        assert row["structure_lite0"].value == pytest.approx(0, abs=1e-6)
        assert row["diversity_lite0"].value == pytest.approx(1)
        assert row["colour_shift_lab"].value == pytest.approx(0, abs=1e-9)
    assert found.names == ["image0", "image1", "image2"]
    assert found.data["paired"]
    assert found.left_out["kid_lite0_x1e3"] == "it needs at least 10 images in each set, and there are 3"


def same_pictures(files: UnpairedFiles, folder: Path) -> tuple[Path, ...]:
    """Copies with the same pixels in other bytes, since a folder is not compared with itself."""
    for source in files.source:
        Image.open(source).save(folder / f"{source.stem}.bmp")
    return tuple(sorted(folder.iterdir()))


def test_truths_are_found_by_stem_not_by_place(files: UnpairedFiles, tmp_path: Path) -> None:
    for number, source in enumerate(reversed(files.source)):  # other order, other suffix, one more
        Image.open(source).save(tmp_path / f"{source.stem}.{('bmp', 'png', 'tiff')[number]}")
    write_images(tmp_path / "more", 1, seed=9)
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
    write_images(tmp_path, 3, seed=9)
    if why == "one name differs":
        (tmp_path / "image1.png").rename(tmp_path / "other.png")
    else:
        Image.open(tmp_path / "image1.png").save(tmp_path / "image1.bmp")
    places = UnpairedFiles(files.source, tuple(sorted(tmp_path.iterdir())))
    found = evaluate({"same": Identity()}, places)
    assert len(found.truths) == 0
    assert all(set(row) == FEW for row in found.scores.values())
    with pytest.raises(DataError, match=r"image1|same name"):
        evaluate({"same": Identity()}, places, paired="yes")
    with pytest.raises(ConfigError, match="'paired_l1_pm1' cannot be computed: it needs the true partner"):
        evaluate({"same": Identity()}, places, names=["paired_l1_pm1"])


def test_a_run_is_scored_with_both_weights_and_batches_change_nothing(run: Path, files: UnpairedFiles) -> None:
    calls: list[tuple[str, int, int]] = []
    found = evaluate_run(run, files, device="cpu", batch_size=2, progress=lambda *at: calls.append(at))
    assert list(found.scores) == ["input", "real", "ema", "last"]
    translated = [at for at in calls if at[0].startswith("translating")]
    assert [at[1:] for at in translated] == [(2, 3), (3, 3), (2, 3), (3, 3)]
    single = evaluate_run(run, files, device="cpu", batch_size=1)
    for row, scores in found.scores.items():
        for name, score in scores.items():
            assert score.value == pytest.approx(single.scores[row][name].value, rel=1e-3, abs=1e-3)
    last = Translator.from_pretrained(run, weights="last", device="cpu").translate(found.sources[1])
    torch.testing.assert_close(found.translations["last"][1], last, atol=0.5 / 127.5, rtol=0)  # of 8 bits
    assert found.scores["input"]["paired_l1_pm1"].per_image[0] == pytest.approx(
        float((found.sources[0] - found.truths[0]).abs().mean()), rel=1e-5
    )
    assert found.scores["real"].keys() == FEW - {"structure_lite0", "identity_percent"}


def test_images_are_read_as_the_run_read_them(run: Path, files: UnpairedFiles, tmp_path: Path) -> None:
    for name in ("a", "b"):
        Image.new("RGBA", (50, 20), (0, 0, 0, 0)).save(tmp_path / f"{name}.png")
    empty = tuple(sorted(tmp_path.iterdir()))
    found = evaluate_run(run, UnpairedFiles(empty, files.target), device="cpu", names=["colour_shift_lab"])
    assert found.sources[0].shape == (3, 32, 32)
    expected = torch.tensor(BACKGROUND) / 127.5 - 1
    torch.testing.assert_close(found.sources[0], expected[:, None, None].expand(3, 32, 32))


def test_gray_runs_are_scored(root: Path, files: UnpairedFiles) -> None:
    config = tiny_run(root / "data", images=1, sample_every=100, channels=1)
    train(config, root / "gray", quiet=True)
    found = evaluate_run(root / "gray", files, device="cpu")
    assert found.sources[0].shape == (1, 32, 32)
    assert set(found.scores["last"]) == PAIRED | FEW


def test_the_seed_decides_the_random_projections(files: UnpairedFiles) -> None:
    def swd(seed: int) -> float:
        found = evaluate({"same": Identity()}, files, seed=seed, names=["swd_progan_x1e3"], intervals=False)
        return found.scores["same"]["swd_progan_x1e3"].value

    assert swd(0) == swd(0) != swd(1)
    assert swd(0) == pytest.approx(swd(1), rel=0.2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"seed": -1}, "seed must be 0 or greater, not -1"),
        ({"names": ["swd"]}, r"unknown metric 'swd'"),
        ({"names": ["kid_lite0_x1e3"]}, "it needs at least 10 images in each set, and there are 3"),
        ({"names": ["miou_espnet_percent"]}, "espnet|label maps"),
    ],
)
def test_impossible_options(files: UnpairedFiles, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        evaluate({"same": Identity()}, files, **options)


def test_missing_weights_are_named_with_the_way_to_get_them(files: UnpairedFiles, tmp_path: Path) -> None:
    networks = ScoringNetworks({"inception": tmp_path / "inception.pth"})
    with pytest.raises(BackendError, match=r"inception\.pth"):
        evaluate({"same": Identity()}, files, names=["fid_torchfidelity"], networks=networks)
    from unpaired.networks.efficientnet_lite import WEIGHTS

    others = torch.load(WEIGHTS.locate(None), weights_only=True)
    others["_fc.bias"] += 1
    torch.save(others, tmp_path / "others.pth")
    with pytest.raises(BackendError, match=r"others\.pth: these are not the published weights .* not 57934424"):
        evaluate(
            {"same": Identity()},
            files,
            names=["diversity_lite0"],
            networks=ScoringNetworks({"lite0": tmp_path / "others.pth"}),
        )
    with pytest.raises(ConfigError, match=r"no network 'incepton' \(did you mean 'inception'\?\)"):
        ScoringNetworks({"incepton": tmp_path / "inception.pth"})


@pytest.fixture
def own_network(tmp_path: Path) -> Iterator[Path]:
    """A Python file with a feature network of one's own."""
    path = tmp_path / "own.py"
    path.write_text(
        "from torch import nn\nTITLE, LABEL = 'mean colours', 'colours'\nFEATURES = '12 mean colours'\n\n\n"
        "def load(path):\n    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())\n"
    )
    yield path
    for table in (METRICS, PRETRAINED):
        for name in ("own", "kid_own_x1e3"):
            table.pop(name, None)  # type: ignore[attr-defined]


def test_a_network_of_ones_own_is_one_python_file(own_network: Path) -> None:
    networks = ScoringNetworks({"own": own_network})
    calls = networks.callables(["kid_own_x1e3"])
    images = list(torch.rand(24, 3, 16, 16) * 2 - 1)
    (score,) = evaluate_images(ImageSets(images[:12], images[12:], networks=calls), ["kid_own_x1e3"]).values()
    assert (score.label, score.full_name) == ("KID (colours)", "kid_own_x1e3_12v12")
    assert score.protocol.endswith("features: 12 mean colours")
    assert networks.used()["own"]["digest"] == hashlib.sha256(own_network.read_bytes()).hexdigest()[:16]
    ScoringNetworks({"own": own_network})  # again: it stays
    own_network.write_text("TITLE = 'no network'\n")
    with pytest.raises(ConfigError, match=r"network other: .*own\.py defines no FEATURES, load"):
        ScoringNetworks({"other": own_network})
    own_network.write_text("import nothing_of_that_name\n")
    with pytest.raises(ConfigError, match=r"own\.py: cannot be run \(ModuleNotFoundError"):
        ScoringNetworks({"other": own_network})


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([], "network x: mine defines no TITLE, FEATURES, load"),
        (["TITLE", "load"], "network x: mine defines no FEATURES"),
        (["TITLE", "FEATURES", "load"], "network x: mine defines no find"),  # nothing would identify it
        (["TITLE", "FEATURES", "load", "find"], ""),
    ],
)
@pytest.mark.parametrize("file", ["absent", None])
def test_a_network_of_ones_own_need_not_be_a_file(parts: list[str], words: str, file: str | None) -> None:
    module = ModuleType("mine")
    if file is None:
        module.__file__ = None
    for part in parts:
        setattr(module, part, (lambda *_: None) if part in ("load", "find") else part)
    try:
        with pytest.raises(ConfigError, match=words) if words else nullcontext():
            register_network("x", module)
        assert ("x" in PRETRAINED) == (not words)
    finally:
        PRETRAINED.pop("x", None)
        METRICS.pop("kid_x_x1e3", None)


def test_best_weights_are_chosen_by_a_network_that_training_does_not_look_through(
    own_network: Path, tmp_path: Path
) -> None:
    places = [list_images(write_images(tmp_path / name, 12, seed=seed)) for seed, name in enumerate("AB")]
    files = UnpairedFiles(*map(tuple, places))

    def chosen(*frozen_networks: str, by: str = "auto") -> str:
        return HeldOutScorer(files, DataConfig(image_size=32), 12, by, "here", frozen_networks=frozen_networks).best_by

    assert chosen() == "kid_lite0_x1e3_12v12"
    assert chosen("lite0") in ("swd_progan_x1e3_12v12", "kid_torchfidelity_x1e3_12v12")
    ScoringNetworks({"own": own_network})
    assert chosen("lite0") == "kid_own_x1e3_12v12"
    assert chosen("lite0", by="kid_lite0_x1e3") == "kid_lite0_x1e3_12v12"  # a person's choice stands


def test_a_folder_is_not_compared_with_itself(files: UnpairedFiles) -> None:
    with pytest.raises(DataError, match="hold the same images"):
        evaluate({"same": Identity()}, UnpairedFiles(files.source, tuple(reversed(files.source))))


def test_a_broken_image_is_named_and_left_out_when_asked(files: UnpairedFiles, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(files.source[0].read_bytes()[:100])
    places = UnpairedFiles((tmp_path / "broken.png", *files.source), files.target)
    with pytest.raises(DataError, match=r"broken\.png.*(truncated|damaged).*--skip-bad"):
        evaluate({"same": Identity()}, places)
    words: list[str] = []
    found = evaluate({"same": Identity()}, places, skip_bad=True, report=words.append, names=["colour_shift_lab"])
    assert found.scores["same"]["colour_shift_lab"].images == 3
    assert "broken.png" in words[0]
    with pytest.raises(DataError, match=r"broken\.png") as error:  # training has no such option for these images
        HeldOutScorer(places, DataConfig(image_size=32), 9, "auto", "here")
    assert "--skip-bad" not in str(error.value)


def test_a_folder_made_elsewhere_is_scored_like_a_run(run: Path, files: UnpairedFiles, tmp_path: Path) -> None:
    here = evaluate_run(run, files, device="cpu")
    for name, image in zip(here.names, here.translations["ema"], strict=True):
        tensor_to_image(image).save(tmp_path / f"{name}.png")
    data = DataConfig(image_size=32, background=BACKGROUND)
    found = evaluate_made(tmp_path, files, data)
    assert list(found.scores) == ["input", "made"]
    for name, score in found.scores["made"].items():
        assert score.value == pytest.approx(here.scores["ema"][name].value, abs=1e-9), name
    with pytest.raises(DataError, match="real target images themselves"):
        evaluate_made(files.target[0].parent, files, data)
    (tmp_path / "image1.png").unlink()
    with pytest.raises(DataError, match=r"no translation of image1\.png \(1 of 3"):
        evaluate_made(tmp_path, files, data)


def test_features_of_files_are_computed_once(
    files: UnpairedFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    original = ScoringNetworks._callable

    def counting(self: ScoringNetworks, network: str) -> Any:
        run = original(self, network)

        def call(*images: torch.Tensor) -> torch.Tensor:
            seen.append(len(images[0]))
            return run(*images)

        return call

    monkeypatch.setattr(ScoringNetworks, "_callable", counting)
    cache = FeatureCache(tmp_path / "features")
    first = evaluate({"same": Identity()}, files, names=["diversity_lite0"], networks=ScoringNetworks(cache=cache))
    assert sum(seen) == 3 + 4 + 3  # inputs, reals, made images
    seen.clear()
    again = evaluate({"same": Identity()}, files, names=["diversity_lite0"], networks=ScoringNetworks(cache=cache))
    assert sum(seen) == 3  # the made images only
    assert again.scores == first.scores


def test_every_evaluation_is_kept(run: Path, files: UnpairedFiles) -> None:
    for seed in (0, 1):
        found = evaluate_run(run, files, device="cpu", seed=seed)
        append_record(run, found, data="here", images_seen=2)
    records = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    assert [record["seed"] for record in records] == [0, 1]
    record = records[1]
    assert (record["format"], record["data"]["name"], record["images_seen"]) == (2, "here", 2)
    assert record["data"]["source_images"], record["data"]["target_images"] == (3, 4)
    assert list(record["rows"]) == list(record["scores"]) == ["input", "real", "ema", "last"]
    assert record["rows"]["input"] == {"label": "input (untranslated)", "reference": True}
    assert not record["rows"]["ema"]["reference"]
    score = record["scores"]["last"]["swd_progan_x1e3_3v4"]
    assert score["value"] == found.scores["last"]["swd_progan_x1e3"].value
    assert score["interval"] is None  # three images are too few for that
    low, high = record["scores"]["last"]["paired_l1_pm1_3v3"]["interval"]
    assert low < record["scores"]["last"]["paired_l1_pm1_3v3"]["value"] < high
    assert (score["images"], score["reference_images"]) == (3, 4)
    assert score["protocol"] == METRICS["swd_progan_x1e3"].protocol
    assert "paired_l1_pm1_3v3" in record["scores"]["last"]
    assert len(record["networks"]["lite0"]["digest"]) == 16
    assert {"unpaired", "torch"} <= record["environment"]["versions"].keys()
    with pytest.raises(TrainingError, match=r"cannot write .*evaluations\.jsonl"):
        append_record(run / "run.yaml", found, data="here", images_seen=2)


def test_progress_is_a_line_now_and_then_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(evaluation_command.time, "monotonic", lambda: clock[0])
    warnings: list[str] = []
    with evaluation_command.scoring_progress(warnings) as told:
        for seconds in (1, 9, 11, 15, 22):
            clock[0] = float(seconds)
            told["progress"]("translating: average", 100 * seconds, 3000)
        told["report"]("one image is damaged")
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line] == [
        "translating: average: 1,100 of 3,000", "translating: average: 2,200 of 3,000", "one image is damaged",
    ]  # fmt: skip
    assert warnings == ["one image is damaged"]
