"""The training images of a run: moved, removed, added, replaced, damaged, and of any name."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import faults
from tiny import tiny_run, write_images
from unpaired.cli import main
from unpaired.errors import DataError
from unpaired.training import RunConfig, train

NAMES = (
    b"plain.png",
    b"\xff\xfe latin \xe9.png",
    "\N{SLICE OF PIZZA} \xfcber.png".encode(),
    b"two\nlines.png",
    b"quote\"s and 's.png",
    b"-o.png",
    b"--data-changed.png",
    b"  spaces  .png",
    b"a" * 240 + b".png",
    b"<b>&amp;.png",
    b"%s {} \\ *[x]?.png",
)


def sessions(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "sessions.jsonl").read_text().splitlines()]


def begun(dataset: Path, run: Path, **options: Any) -> RunConfig:
    config = tiny_run(dataset)
    train(replace(config, training=replace(config.training, stop_after=2)), run, quiet=True, **options)
    return config


def test_a_moved_folder_goes_on_to_the_same_end(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = begun(dataset, tmp_path / "moved")
    train(config, tmp_path / "whole", quiet=True)
    elsewhere = tmp_path / "elsewhere"
    dataset.rename(elsewhere)
    train(replace(config, dataset=replace(config.dataset, folder=elsewhere)), tmp_path / "moved")
    assert f"{elsewhere} (before: {dataset})" in capsys.readouterr().err
    assert RunConfig.load(tmp_path / "moved" / "run.yaml").dataset.folder == elsewhere
    one, two = (faults.content(tmp_path / name) for name in ("moved", "whole"))
    assert {name for name in one.keys() | two.keys() if one.get(name) != two.get(name)} == {"run.yaml"}


def remove(folder: Path) -> None:
    (folder / "image1.png").unlink()


def add(folder: Path) -> None:
    shutil.copy(folder / "image1.png", folder / "new.png")


def swap(folder: Path) -> None:
    write_images(folder, 1, (50, 50), seed=9)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (remove, {"removed": ["image1.png"]}),
        (add, {"added": ["new.png"]}),
        (swap, {"changed": ["image0.png"]}),
    ],
)
@pytest.mark.parametrize("earlier", [False, True])
def test_other_images_need_a_word_and_are_recorded(
    change: Any, found: dict[str, list[str]], earlier: bool, dataset: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    config = begun(dataset, run)
    if earlier:  # versions before kept a digest of the names alone
        (run / "files.json").unlink()
        if change is swap:
            return
        found = {"changed": ["names or number"]}
    change(dataset / "trainA")
    (word, names) = next(iter(found.items()))
    with pytest.raises(DataError, match=r"differ from those that the run .* --data-changed") as refused:
        train(config, run, quiet=True)
    assert earlier or f"{word}: {names[0]}" in str(refused.value)
    assert train(config, run, quiet=True, data_changed=True).finished
    assert sessions(run)[-1]["data_changed"] == found
    assert train(config, run, quiet=True).finished  # these are its images now
    assert "data_changed" not in sessions(run)[-1]


def test_damaged_images_are_found_at_the_start_and_left_out_when_asked(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = dataset / "trainB" / "image2.png"
    damaged.write_bytes(damaged.read_bytes()[:300])
    (dataset / "trainA" / "image0.png").write_bytes(b"")
    words = r"image0\.png.*Of 9 training images 2 cannot be used \(trainA/image0\.png, trainB/image2\.png\).*--skip-bad"
    with pytest.raises(DataError, match=words):
        train(tiny_run(dataset), tmp_path / "run", quiet=True)
    config = begun(dataset, tmp_path / "run", skip_bad=True)
    assert sessions(tmp_path / "run")[-1]["images"] == [4, 3]
    assert sessions(tmp_path / "run")[-1]["skipped"] == ["trainA/image0.png", "trainB/image2.png"]
    monkeypatch.setattr("unpaired.session.look_over", None)  # nothing has changed, so nothing is decoded again
    assert train(config, tmp_path / "run", skip_bad=True).finished
    assert "Left out (--skip-bad): trainA/image0.png, trainB/image2.png" in capsys.readouterr().err
    monkeypatch.undo()
    write_images(dataset / "trainA", 1, seed=1)  # mended: it belongs to the images again
    with pytest.raises(DataError, match=r"added: image0\.png"):
        train(config, tmp_path / "run", skip_bad=True, quiet=True)


@pytest.mark.slow
def test_names_are_bytes_in_every_command(
    dataset: Path, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    for split in ("trainA", "trainB", "testA", "testB"):
        images = sorted((dataset / split).iterdir())
        for number, name in enumerate(NAMES):
            shutil.copy(images[number % 3], os.fsencode(dataset / split) + b"/" + name)
    dataset = dataset.rename(tmp_path / os.fsdecode(b"data \xfe"))
    run, out = tmp_path / os.fsdecode(b"run \xff"), tmp_path / "out"
    options = ("--image-size", "32", "--base-channels", "4", "--blocks", "5", "--num-queries", "16", "--images", "4",
               "--projector-width", "8", "--num-workers", "0", "--accelerator", "cpu", "--score-every", "2",
    )  # fmt: skip
    for command in (
        ["train", str(dataset), "--out", str(run), *options],
        ["train", str(dataset), "--out", str(run), *options],
        ["data", "check", str(dataset)],
        ["translate", str(run), str(dataset / "testA"), "--out", str(out), "--device", "cpu"],
        ["evaluate", str(run), str(dataset), "--device", "cpu"],
        ["compare", str(run)],
        ["runs", str(tmp_path)],
        ["report", str(run), "--out", str(tmp_path / "report.html"), "--device", "cpu"],
    ):
        code = main(command)
        said = capsysbinary.readouterr().err.decode(errors="replace")
        assert code == 0, (command[:2], said)
        assert "Traceback" not in said
    assert {os.fsencode(path.name) for path in out.iterdir()} >= set(NAMES)
