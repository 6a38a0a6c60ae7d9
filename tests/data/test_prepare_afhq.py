"""AFHQ in both versions: two classes as A and B, or all as domains."""

from __future__ import annotations

from pathlib import Path

import pytest
from official_archives import afhq, contents, quiet, write_folder, write_zip

from unpaired.data import find_domains, find_test_images, find_training_images
from unpaired.data.prepare import Prepared, PrepareSettings, prepare
from unpaired.errors import ConfigError


def run(archive: Path, out: Path, settings: PrepareSettings = PrepareSettings()) -> Prepared:  # noqa: B008 - frozen
    return prepare("afhq", [archive], out, settings, quiet)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("root", ["afhq/", ""])
def test_cats_and_dogs_become_a_and_b(version: int, root: str, tmp_path: Path) -> None:
    members = afhq(version, root=root)
    done = run(write_zip(tmp_path / "afhq.zip", members), tmp_path / "out")
    held_out = "val" if version == 1 else "test"
    assert contents(tmp_path / "out") == {
        f"{'test' if split == held_out else split}{letter}/{Path(name).name}": content
        for name, content in members.items()
        for split, domain in [name.removeprefix(root).split("/")[:2]]
        for letter in [{"cat": "A", "dog": "B"}.get(domain)]
        if letter
    }
    assert done.plan.classes == ("cat", "dog")
    assert done.report.name == ("afhq" if version == 1 else "afhq_v2")
    expected = [5153, 4739, 500, 500] if version == 1 else [5065, 4678, 493, 491]
    assert [part.official for part in done.report.parts] == expected
    assert find_training_images(tmp_path / "out")
    assert find_test_images(tmp_path / "out")


def test_other_classes_by_name(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "afhq.zip", afhq())
    done = run(archive, tmp_path / "out", PrepareSettings(source_class="wild", target_class="cat"))
    assert {path.name[:3] for path in (tmp_path / "out" / "trainA").iterdir()} == {"wil"}
    assert {path.name[:3] for path in (tmp_path / "out" / "testB").iterdir()} == {"cat"}
    assert [part.official for part in done.report.parts] == [4738, 5153, 500, 500]
    with pytest.raises(ConfigError, match=r"no class 'doge' \(did you mean 'dog'\?\); found cat, dog, wild"):
        run(archive, tmp_path / "other", PrepareSettings(target_class="doge"))


def test_all_classes_become_domains(tmp_path: Path) -> None:
    done = run(write_folder(tmp_path / "afhq", afhq(root="")), tmp_path / "out", PrepareSettings(domains=True))
    assert find_domains(tmp_path / "out").names == ("cat", "dog", "wild")
    assert len(contents(tmp_path / "out")) == 18
    assert (tmp_path / "out" / "test" / "wild").is_dir()
    assert not (tmp_path / "out" / "val").exists()
    assert {part.folder: part.official for part in done.report.parts}["train/wild"] == 4738
    with pytest.raises(ConfigError, match="give one"):
        PrepareSettings(domains=True, source_class="cat")


def test_val_images_on_top_of_a_test_split_that_is_called_val(tmp_path: Path) -> None:
    done = run(write_zip(tmp_path / "afhq.zip", afhq()), tmp_path / "out", PrepareSettings(val_count=1))
    assert {part.folder: len(part.images) for part in done.report.parts} == {
        "trainA": 3, "trainB": 3, "valA": 1, "valB": 1, "testA": 2, "testB": 2
    }  # fmt: skip
