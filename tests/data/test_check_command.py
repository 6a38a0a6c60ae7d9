"""``unpaired data`` end to end: what it prints, what it exits with."""

from __future__ import annotations

from pathlib import Path

import pytest
from official_archives import horse2zebra, write_folder, write_zip

from unpaired.cli import main
from unpaired.data import DatasetConfig

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "mine", horse2zebra(root=""))


def test_check_prints_a_table_and_ends_well(folder: Path, capsys: Capture) -> None:
    assert main(["data", "check", str(folder)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"{folder}:"
    assert out[1].split() == ["folder", "images", "MB", "pixels", "modes", "formats"]
    assert out[2].split() == ["trainA", "6", "0.0", "40", "x", "36", "RGB", "JPEG"]
    assert out[-1].endswith("s: 0 errors, 0 warnings, 0 notes.") or "note" in out[-1]
    assert not any("─" in line or "\x1b" in line for line in out)  # plain when piped


def test_errors_and_with_strict_warnings_end_in_1(folder: Path, capsys: Capture) -> None:
    (folder / "testA" / "leak.jpg").write_bytes((folder / "trainA" / "n0.jpg").read_bytes())
    assert main(["data", "check", str(folder)]) == 0
    assert "warning: 1 picture of testA is in trainA, too: testA/leak.jpg = trainA/n0.jpg" in capsys.readouterr().out
    assert main(["data", "check", str(folder), "--strict"]) == 1
    (folder / "trainA" / "bad.png").write_bytes(b"")
    assert main(["data", "check", str(folder)]) == 1
    assert "error: 1 of 7 images of trainA cannot be used: trainA/bad.png: the file is empty" in capsys.readouterr().out


def test_prepare_goes_from_archive_to_training_images(tmp_path: Path, capsys: Capture) -> None:
    archive = write_zip(tmp_path / "horse2zebra.zip", horse2zebra())
    out = tmp_path / "data"
    arguments = ["data", "prepare", "horse2zebra", str(archive), "--out", str(out), "--val-count", "2"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{out}: 16 images written in ")
    assert "trainA holds 4 images (and 2 in val); the published horse2zebra has 1,067" in said
    assert main(arguments) == 0
    assert f"{out}: 0 images written" in (said := capsys.readouterr().out)
    assert "16 existed already" in said
    assert main([*arguments, "--strict"]) == 1
    dataset = DatasetConfig(folder=out)
    assert len(dataset.training_files().source) == 4
    found = dataset.held_out_files()
    assert found is not None
    assert len(found[0].target) == 2


def test_images_that_were_left_out_end_in_1(tmp_path: Path, capsys: Capture) -> None:
    members = horse2zebra() | {f"horse2zebra/trainA/bad{i}.jpg": b"<html>" for i in range(7)}
    archive = write_zip(tmp_path / "a.zip", members)
    assert main(["data", "prepare", "horse2zebra", str(archive), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().out
    assert "error: 7 images were left out:\n" in said
    assert "bad0.jpg: the content is text, not an image" in said
    assert "and 2 more, listed in preparation.json" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["prepare", "horse2zebra"], "get it from http://efrosgans"),
        (["prepare", "afhq", "--out", "x"], "https://github.com/clovaai/stargan-v2"),
        (
            ["prepare", "cityscapes", "--out", "x"],
            "https://www.cityscapes-dataset.com/downloads/ (after a registration)",
        ),
        (["prepare", "photos"], "--out is missing"),
        (["prepare", "photos", "--out", "x"], "is neither a folder nor a known set"),
        (["check", "photos"], "there is no such file or folder"),
        (["check", "photos", "--published", "horse2zebr"], "did you mean 'horse2zebra'?"),
        (["check", "photos", "--near", "40"], "near must be at most 16, not 40"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", *arguments]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
