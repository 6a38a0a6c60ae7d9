"""Training on datasets, weighted folders and transforms: resumed == uninterrupted, and the same images == folders."""

from __future__ import annotations

import json
import linecache
import random
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision.transforms import v2

from doc_pages import DOCS, run_examples
from tiny import tiny_run, write_images
from unpaired import cli
from unpaired.benchmarking.matrix import compose, load_matrix
from unpaired.config import save_yaml
from unpaired.data import DataConfig, DatasetConfig, UnpairedFiles, UnpairedStream, names_digest, sets
from unpaired.data.sets import Several
from unpaired.errors import ConfigError, DataError, UserError
from unpaired.plugins import load_plugin
from unpaired.run_config import RunConfig
from unpaired.training import train

Images = list[Path]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("any")
    for name, count, seed in (("trainA", 5, 1), ("trainB", 4, 2), ("more", 3, 3)):
        write_images(root / "data" / name, count, seed=seed)
    return root


def run_of(root: Path, dataset: DatasetConfig | None = None, **changes: Any) -> RunConfig:
    config = tiny_run(root / "data", "cut", images=4, checkpoint_every=1, sample_every=9, score_every=0, **changes)
    return config if dataset is None else replace(config, dataset=dataset)


def trained(config: RunConfig, out: Path, *, in_two: bool, **given: Any) -> dict[str, torch.Tensor]:
    if in_two:
        train(replace(config, training=replace(config.training, stop_after=2)), out, quiet=True, **given)
    assert train(config, out, quiet=True, **given).finished
    return load_file(out / "weights" / "last.safetensors")


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def by_folders(root: Path) -> dict[str, torch.Tensor]:
    return trained(run_of(root), root / "by_folders", in_two=False)


class Given(torch.utils.data.Dataset[Any]):
    def __init__(self, folder: Path, make: Callable[[Image.Image], Any]) -> None:
        self.files, self.make = sorted(folder.iterdir()), make

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> Any:
        with Image.open(self.files[number]) as image:
            return self.make(image.copy())


def tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).movedim(-1, 0)


ITEMS: dict[str, Callable[[Image.Image], Any]] = {
    "pil": lambda image: image,
    "labelled": lambda image: (image, 7),
    "mapping": lambda image: {"label": 1, "image": image},
    "array": np.array,
    "bytes": tensor,
    "floats": lambda image: tensor(image).float() / 127.5 - 1,
}


@pytest.mark.parametrize("kind", ITEMS)
def test_datasets_train_as_folders_do(root: Path, tmp_path: Path, by_folders: Any, kind: str) -> None:
    a, b = (Given(root / "data" / name, ITEMS[kind]) for name in ("trainA", "trainB"))
    config = run_of(root, DatasetConfig(), num_workers=int(kind == "pil"))
    assert equal(trained(config, tmp_path / "run", in_two=True, source=a, target=b), by_folders)
    first, last = (json.loads(line) for line in (tmp_path / "run" / "sessions.jsonl").read_text().splitlines())
    assert first["datasets"] == last["datasets"]
    assert list(first["datasets"].values()) == [5, 4]
    with pytest.raises(ConfigError, match=r"was given in Python; call unpaired\.train"):
        train(RunConfig.load(tmp_path / "run" / "run.yaml"), tmp_path / "run", quiet=True)
    b.files[0] = root / "data" / "more" / "image0.png"
    with pytest.raises(DataError, match="differ from those that the run in"):
        trained(config, tmp_path / "run", in_two=False, source=a, target=b)


def test_the_example_of_the_page(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = run_of(root)
    a, b = (Given(root / "data" / name, ITEMS["pil"]) for name in ("trainA", "trainB"))
    sections = {name: getattr(config, name) for name in ("data", "model", "training")}
    _, printed = run_examples(DOCS / "data.md", day=a, night=b, jitter=TORCHVISION, **sections)
    assert printed[-1].endswith("4")


def test_held_out_datasets_are_scored(root: Path, tmp_path: Path) -> None:
    a, b = (Given(root / "data" / name, ITEMS["pil"]) for name in ("trainA", "trainB"))
    config = run_of(root, DatasetConfig())
    config = replace(config, training=replace(config.training, score_every=2))
    with pytest.raises(ConfigError, match="there are no held-out images to score"):
        train(config, tmp_path / "none", quiet=True, source=a, target=b)
    train(config, tmp_path / "run", quiet=True, source=a, target=b, held_out=(b, a))
    assert (tmp_path / "run" / "scores.jsonl").read_text().count("\n") >= 2


def noise(values: np.ndarray) -> np.ndarray:
    shift = random.randint(-9, 9) + int(torch.randint(9, ()))
    return np.clip(values.astype(int) + np.random.randint(-30, 30, values.shape) + shift, 0, 255).astype(values.dtype)


YAML = "[{ColorJitter: {brightness: 0.4, hue: 0.1}}, RandomGrayscale]"
TORCHVISION = v2.Compose([v2.ColorJitter(brightness=0.4, hue=0.1), v2.RandomGrayscale()])


def albumentation() -> Any:
    library = pytest.importorskip("albumentations", reason="needs pip install albumentations")
    return library.Compose([library.RandomBrightnessContrast(p=0.9), library.GaussNoise(p=0.9)])


@pytest.mark.parametrize(
    ("given", "named"),
    [(lambda: noise, f"{__name__}:noise"), (lambda: TORCHVISION, YAML), (albumentation, f"{__name__}:albumentation()")],
    ids=["function", "torchvision", "albumentations"],
)
def test_transforms_are_seeded_and_resume_bitwise(
    root: Path, tmp_path: Path, by_folders: Any, given: Any, named: str, forget_plugins: Any
) -> None:
    load_plugin(__name__)
    transform, state = given(), torch.get_rng_state()
    whole = trained(run_of(root), tmp_path / "whole", in_two=False, transform=transform)
    halves = trained(run_of(root, num_workers=2), tmp_path / "halves", in_two=True, transform=transform)
    assert equal(whole, halves)
    assert not equal(whole, by_folders)
    assert state is not None
    if not named.endswith("()"):
        assert equal(trained(run_of(root, transform=named), tmp_path / "named", in_two=True), whole)
        assert RunConfig.load(tmp_path / "named" / "run.yaml").data.transform == named
    with pytest.raises(ConfigError, match=r"was given in Python; call unpaired\.train"):
        train(RunConfig.load(tmp_path / "whole" / "run.yaml"), tmp_path / "whole", quiet=True)


def test_a_transform_whose_code_has_changed_is_refused(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], forget_plugins: Any
) -> None:
    """By name, from the command line, and as an object; runs of earlier versions, which have no digest, go on."""
    monkeypatch.chdir(tmp_path)
    config, out = tmp_path / "tiny.yaml", tmp_path / "run"
    save_yaml(config, run_of(root).to_mapping())
    words = ["train", "--config", str(config), "--out", str(out), "--quiet", "--transform", "mine:change"]
    plugin = ["--plugin", "mine.py"]

    def write(factor: int) -> None:
        forget_plugins()
        (tmp_path / "mine.py").write_text("from beside import FACTOR\ndef change(x):\n    return x // FACTOR")
        (tmp_path / "beside.py").write_text(f"FACTOR = {factor}")

    write(2)
    assert cli.main([*words, *plugin, "--stop-after", "1"]) == 0
    write(2)
    assert cli.main([*words, *plugin, "--stop-after", "2"]) == 0
    write(3)
    capsys.readouterr()
    assert cli.main([*words, *plugin]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "(code of the transform: mine:change (sha256 " in line
    assert "restore them, add --data-changed to continue" in line
    assert cli.main([*words, *plugin, "--data-changed", "--stop-after", "3"]) == 0
    assert cli.main(["translate", str(out), str(root / "data" / "more"), "--out", "made"]) == 0  # without that code
    forget_plugins()
    assert cli.main([*words[:-2], "--out", str(out)]) == 2  # the run's own file names code, which is not run for that
    sessions = [json.loads(line) for line in (out / "sessions.jsonl").read_text().splitlines()]
    assert "code of the transform" in sessions[-1]["data_changed"]

    def made(code: str) -> Any:
        (tmp_path / "given.py").write_text(code)
        linecache.clearcache()
        found: dict[str, Any] = {"__name__": "given"}
        exec(compile(code, str(tmp_path / "given.py"), "exec"), found)
        return found["change"]

    first = run_of(root, stop_after=1)
    train(first, tmp_path / "python", quiet=True, transform=made("def change(x):\n    return x // 2"))
    other = made("def change(x):\n    return x // 3")
    with pytest.raises(DataError, match=r"code of the transform: python:given:change \(sha256"):
        train(run_of(root), tmp_path / "python", quiet=True, transform=other)
    record = tmp_path / "python" / "sessions.jsonl"
    record.write_text(json.dumps({k: v for k, v in json.loads(record.read_text()).items() if k != "transform"}) + "\n")
    assert train(run_of(root), tmp_path / "python", quiet=True, transform=other).finished


def test_a_list_in_a_run_file_is_a_transform() -> None:
    mapping = {"method": "cut", "data": {"transform": [{"ColorJitter": {"hue": 0.1}}, "RandomGrayscale"]}}
    assert RunConfig.from_mapping(mapping).data.transform == "[{ColorJitter: {hue: 0.1}}, RandomGrayscale]"


LAUGHS = "[" + ", ".join(
    ["&a0 [ha, ha, ha, ha, ha, ha, ha, ha]"]
    + [f"&a{n} [{', '.join([f'*a{n - 1}'] * 8)}]" for n in range(1, 9)]
) + "]"  # fmt: skip
"""A list of some lines that stands for 150 million words."""


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"transform": "nowhere"}, "neither package.module:name nor a YAML list"),
        ({"transform": "no.module:x"}, "is code that is run only if you name it: add --plugin no.module.py"),
        ({"transform": "torchvision.nowhere:x"}, "cannot be imported"),
        ({"transform": "torch:float32"}, "which is not callable"),
        ({"transform": "[{ColorJiter: {}}]"}, "did you mean 'ColorJitter'"),
        ({"transform": "[{ColorJitter: {bright: 2}}]"}, "ColorJitter: "),
        ({"transform": "[{"}, "is not YAML"),
        ({"transform": "[" * 2000}, "is not YAML"),
        ({"transform": LAUGHS}, "its aliases (*name) stand for far more than the file holds"),
        ({"python": lambda x: x[:4]}, "at least 32 x 32 pixels"),
        ({"python": lambda x: x / 255}, "has to return the same type and channels"),
        ({"python": lambda x: 1 / 0}, "ZeroDivisionError"),
        ({"source": [1, 2], "target": [1, 2]}, "is int, not a PIL image"),
        ({"source": [torch.ones(3, 40, 40) * 255] * 2, "target": [0]}, "must lie in [-1, 1]"),
        ({"source": [], "target": [1]}, "the dataset is empty"),
        ({"source": iter([1]), "target": [1]}, "not a map-style dataset"),
        ({"source": [1, 2]}, "give both datasets"),
        ({"source": [{"picture": 1}] * 2, "target": [1, 2]}, "no 'image'"),
        ({"dataset": {"source": ("trainA", "more"), "target": "trainB", "source_weights": (1.0,)}}, "1 numbers for 2"),
        ({"dataset": {"source": ("trainA", "nowhere"), "target": "trainB"}}, "no such file or folder"),
    ],
)
def test_what_cannot_be_used_is_one_line(root: Path, tmp_path: Path, given: dict[str, Any], words: str) -> None:
    places = {key: value if "weights" in key else tuple(root / "data" / v for v in np.atleast_1d(value))
              for key, value in given.get("dataset", {}).items()}  # fmt: skip

    def attempt() -> None:
        dataset = DatasetConfig(**places) if places or "source" in given else None
        train(
            run_of(root, dataset, num_workers=0, transform=given.get("transform")), tmp_path / "run", quiet=True,
            source=given.get("source"), target=given.get("target"), transform=given.get("python"),
        )  # fmt: skip

    with pytest.raises(UserError) as error:
        attempt()
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_folders_are_shown_by_their_weights(root: Path, tmp_path: Path) -> None:
    source = (root / "data" / "trainA", root / "data" / "more")
    dataset = DatasetConfig(source=source, target=root / "data" / "trainB", source_weights=(3.0, 1.0))
    images = dataset.training_images()
    data = DataConfig(image_size=32, num_workers=0)
    shown = Counter(images.stream(data, 0).choose(k).source for k in range(4000))
    assert [sum(shown[n] for n in part) for part in (range(5), range(5, 8))] == [3000, 1000]
    assert all(abs(shown[n] - 600) <= 1 for n in range(5))
    plain = replace(dataset, source_weights=()).training_images().stream(data, 0)
    assert Counter(plain.choose(k).source for k in range(80)) == dict.fromkeys(range(8), 10)
    whole = trained(run_of(root, dataset), tmp_path / "whole", in_two=False)
    assert equal(trained(run_of(root, dataset), tmp_path / "halves", in_two=True), whole)


def hugging_face(root: Path, out: Path) -> dict[str, DatasetConfig]:
    """The images of the folders in every form that the library knows, and the settings that name it."""
    library = pytest.importorskip("datasets", reason='needs pip install "unpaired[datasets]"')
    library.disable_progress_bars()
    files = {name: sorted(map(str, (root / "data" / name).iterdir())) for name in ("trainA", "trainB")}
    image = library.Features({"image": library.Image()})
    sets = {name: library.Dataset.from_dict({"image": found}, image) for name, found in files.items()}
    library.DatasetDict(sets).save_to_disk(str(out / "saved"))
    both = [*files["trainA"], *files["trainB"]]
    labels = library.Features({"image": library.Image(), "label": library.ClassLabel(names=["day", "night"])})
    library.Dataset.from_dict({"image": both, "label": [0] * 5 + [1] * 4}, labels).to_parquet(out / "labels.parquet")
    for name, found in files.items():
        sets[name].to_parquet(out / f"{name}.parquet")
        with tarfile.open(out / f"{name}-0.tar", "w") as shard:
            for number, file in enumerate(found):
                shard.add(file, f"{number:03}.png")
        for file in found:
            (out / "classes" / "train" / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, out / "classes" / "train" / name / Path(file).name)

    def pair(pattern: str) -> DatasetConfig:
        return DatasetConfig(source=Path(pattern.format("A")), target=Path(pattern.format("B")))

    return {
        "saved": DatasetConfig(folder=Path(f"hf:{out}/saved")),
        "labels": DatasetConfig(folder=Path(f"hf:{out}/labels.parquet")),
        "classes": DatasetConfig(folder=Path(f"hf:{out}/classes")),
        "parquet": pair(f"hf:{out}/train{{}}.parquet"),
        "shards": pair(f"hf:{out}/train{{}}-*.tar"),
        "one label": DatasetConfig(source=Path(f"hf:{out}/labels.parquet?label=day"), target=root / "data" / "trainB"),
    }


def test_the_library_datasets_in_every_form(
    root: Path, tmp_path: Path, by_folders: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("datasets", reason='needs pip install "unpaired[datasets]"')
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache", raising=False)
    for name, dataset in hugging_face(root, tmp_path).items():
        run = tmp_path / "runs" / name
        assert equal(trained(run_of(root, dataset), run, in_two=True), by_folders), name
        first, last = (json.loads(line) for line in (run / "sessions.jsonl").read_text().splitlines())
        assert first["datasets"] == last["datasets"], name
    for query, words in (
        ("?splt=x", "did you mean 'split'"),
        ("?label=da", "label"),
        ("/none.parquet", "cannot be loaded"),
    ):
        with pytest.raises(UserError, match=words.replace("'", ".")):
            DatasetConfig(folder=Path(f"hf:{tmp_path}/saved{query}")).training_images()


def test_commands_find_held_out_images_in_datasets(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """evaluate and report, of a folder's and of named datasets; and a benchmark, relative to its file."""
    library = pytest.importorskip("datasets", reason='needs pip install "unpaired[datasets]"')
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache", raising=False)
    monkeypatch.chdir(tmp_path)
    image = library.Features({"image": library.Image()})
    places = {"trainA": "trainA", "trainB": "trainB", "testA": "more", "testB": "trainB"}
    files = {
        split: [str(path) for path in sorted((root / "data" / place).iterdir())] for split, place in places.items()
    }
    splits = {split: library.Dataset.from_dict({"image": found}, features=image) for split, found in files.items()}
    library.DatasetDict(splits).save_to_disk("sets/saved")
    for split, rows in splits.items():
        rows.to_parquet(f"sets/{split}.parquet")
    held_out = {f"held_out_{role}": Path(f"hf:{tmp_path}/sets/test{side}.parquet")
                for role, side in (("source", "A"), ("target", "B"))}  # fmt: skip
    folder = DatasetConfig(folder=Path(f"hf:{tmp_path}/sets/saved"))
    named = DatasetConfig(
        source=Path(f"hf:{tmp_path}/sets/trainA.parquet"), target=root / "data" / "trainB", **held_out
    )
    for name, dataset in (("folder", folder), ("named", named)):
        train(run_of(root, dataset), Path(name), quiet=True)
        for words in (["evaluate", name], ["evaluate", name, "hf:sets/saved"], ["report", name, "--show", "2"]):
            options = ["--metrics", "swd_progan_x1e3"] if words[0] == "evaluate" else ["--out", "report.html"]
            assert cli.main([*words, *options]) == 0, (words, capsys.readouterr())
    records = [json.loads(line)["data"] for line in Path("named/evaluations.jsonl").read_text().splitlines()]
    assert {(one["source_digest"], one["source_images"], one["paired"]) for one in records} == {
        (records[0]["source_digest"], 3, False)
    }
    save_yaml(Path("sets/matrix.yaml"), {
        "budget": {"images": 4}, "contenders": {"cut": {"method": "cut"}},
        "data": {"saved": {"folder": "hf:saved"},
                 "several": {"source": ["hf:trainA.parquet", "hf:saved?split=trainA"], "target": "hf:trainB.parquet",
                             "held_out_source": "hf:testA.parquet", "held_out_target": "hf:testB.parquet"}},
    })  # fmt: skip
    cells, _ = compose(load_matrix(Path("sets/matrix.yaml")), Path("sets/matrix.yaml"))
    assert [len(cell.held_out.source) for cell in cells] == [3, 3]
    assert cells[0].digests[0] == records[0]["source_digest"]
    capsys.readouterr()
    assert cli.main(["translate", "folder", "hf:sets/saved?split=testA", "--out", "made"]) == 2
    assert "is a dataset, and files are needed here" in capsys.readouterr().err


def test_large_sets_are_sampled_and_damaged_images_stood_in_for(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sets, "WHOLE", 4)
    monkeypatch.setattr(sets, "SAMPLE", 2)
    shutil.copytree(root / "data", tmp_path / "data")
    (tmp_path / "data" / "trainA" / "image1.png").write_bytes(b"damaged")  # not among the sample: 0 and 2
    config = run_of(tmp_path)
    with pytest.raises(DataError, match=r"image1\.png"):
        train(config, tmp_path / "run", quiet=True)
    halves = trained(config, tmp_path / "halves", in_two=True, skip_bad=True)
    assert equal(trained(config, tmp_path / "whole", in_two=False, skip_bad=True), halves)
    capsys.readouterr()


def test_the_same_files_have_the_same_digests_however_they_are_listed(root: Path) -> None:
    listed = DatasetConfig(folder=root / "data").training_files()
    as_tuples = UnpairedFiles(tuple(listed.source), tuple(listed.target))
    assert listed == as_tuples
    assert listed.source[-1] == listed.source[len(listed.source) - 1]
    digests = {names_digest(Several((files.source, files.target))) for files in (listed, as_tuples)}
    assert len(digests) == 1
    data = DataConfig(image_size=32, num_workers=0)
    one, other = (UnpairedStream(files, data, 3)[7] for files in (listed, as_tuples))
    assert torch.equal(one["source"], other["source"])


def test_direction_and_weights_are_refused_where_they_mean_nothing(root: Path) -> None:
    data = root / "data"
    for place in ({"source": data / "trainA", "target": data / "trainB"}, {"source": (data / "trainA", data / "more")}):
        with pytest.raises(ConfigError, match="direction: applies to DATA only; with source and target, swap these"):
            DatasetConfig(**place, direction="BtoA").training_images()
    for place in ({"folder": data}, {"domains": data}, {"source": data / "trainA", "target": data / "trainB"}):
        for role in ("source", "target"):
            with pytest.raises(ConfigError, match=rf"{role}_weights: 2 numbers for [01] folders of {role}; give one"):
                DatasetConfig(**place, **{f"{role}_weights": (1.0, 2.0)})


def test_a_transform_may_keep_images_that_are_smaller_than_the_crop(tmp_path: Path) -> None:
    """zoom_and_crop takes them: it scales up to the crop."""
    for name in ("trainA", "trainB"):
        write_images(tmp_path / name, 2, size=(20, 28))
    data = DataConfig(image_size=32, num_workers=0, resize="zoom_and_crop", load_size=None)
    images = DatasetConfig(folder=tmp_path).training_images()
    plain, same = images.stream(data, 0), replace(images, transform=lambda x: x).stream(data, 0)
    for k in range(4):
        assert all(torch.equal(plain[k][role], same[k][role]) for role in ("source", "target"))
    with pytest.raises(DataError, match=r"at least 28 x 20 pixels"):
        replace(images, transform=lambda x: x[:10]).stream(data, 0)[0]
