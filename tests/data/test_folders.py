"""Finding images: order, hidden files, patterns, and what each missing or odd folder says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unpaired.data import UnpairedFiles, find_test_images, find_training_images, list_images, pair_by_name
from unpaired.errors import ConfigError, DataError


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def names(paths: list[Path], root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in paths]


def test_folder_is_sorted_and_skips_hidden_and_other_files(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "b.JPG",
        "a.png",
        "C.tiff",
        ".hidden.png",
        "._a.png",
        "notes.txt",
        "Thumbs.db",
        "sub/d.png",
        ".x/e.png",
    )
    (tmp_path / "folder.png").mkdir()
    assert names(list_images(tmp_path), tmp_path) == ["C.tiff", "a.png", "b.JPG"]
    (tmp_path / "sub" / "again").symlink_to(tmp_path)  # a loop
    assert names(list_images(tmp_path, recursive=True), tmp_path) == ["C.tiff", "a.png", "b.JPG", "sub/d.png"]


def test_file_and_pattern(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png", "c.jpg", ".d.png", "sub/e.png", "n.txt", "odd[1].png", "photo.raw")
    assert list_images(tmp_path / "a.png") == [tmp_path / "a.png"]
    assert list_images(str(tmp_path / "photo.raw")) == [tmp_path / "photo.raw"]
    assert list_images(tmp_path / "odd[1].png") == [tmp_path / "odd[1].png"]
    assert names(list_images(tmp_path / "[ab]*"), tmp_path) == ["a.png", "b.png"]
    assert names(list_images(tmp_path / "**" / "e*"), tmp_path) == ["sub/e.png"]
    with pytest.raises(DataError, match=r"\*\.txt: the pattern matches no image \(1 other"):
        list_images(tmp_path / "*.txt")


def test_missing_folder_names_the_nearest(tmp_path: Path) -> None:
    touch(tmp_path, "horses/a.png")
    with pytest.raises(DataError, match=r"hores: there is no such file or folder \(did you mean 'horses'\?\)"):
        list_images(tmp_path / "hores")
    with pytest.raises(DataError, match=r"did you mean 'horses'"):
        list_images(tmp_path / "horse" / "deep" / "er")


def test_empty_and_imageless_folders(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: the folder is empty; put images there \(\.npy \.jpg"):
        list_images(tmp_path / "empty")
    touch(tmp_path, "outer/zebras/a.png")
    with pytest.raises(DataError, match=r"outer: the folder is empty; it holds only the folders zebras"):
        list_images(tmp_path / "outer")
    touch(tmp_path, "text/a.txt", "text/b.heic")
    with pytest.raises(DataError, match=r"text: none of its 2 files is an image \(found .*; these suffixes are read"):
        list_images(tmp_path / "text")


def test_dead_link(tmp_path: Path) -> None:
    os.symlink(tmp_path / "gone.png", tmp_path / "link.png")
    with pytest.raises(DataError, match=r"link\.png: the link points to nothing"):
        list_images(tmp_path)


def test_living_links_are_followed(tmp_path: Path) -> None:
    touch(tmp_path, "real/a.png")
    (tmp_path / "links").mkdir()
    os.symlink(tmp_path / "real" / "a.png", tmp_path / "links" / "b.png")
    assert names(list_images(tmp_path / "links"), tmp_path) == ["links/b.png"]


def test_unreadable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        list_images(tmp_path)


def test_training_layout(tmp_path: Path) -> None:
    touch(tmp_path, "trainA/1.png", "trainA/2.png", "trainB/1.png", "trainB/3.png", "trainB/2.png")
    files = find_training_images(tmp_path)
    assert names(list(files.source), tmp_path) == ["trainA/1.png", "trainA/2.png"]
    assert names(list(files.target), tmp_path) == ["trainB/1.png", "trainB/2.png", "trainB/3.png"]
    assert find_training_images(None, tmp_path / "trainA", tmp_path / "trainB") == files
    assert find_training_images(None, str(tmp_path / "train[A]" / "*"), tmp_path / "trainB") == files
    assert files.swapped() == UnpairedFiles(files.target, files.source)


def test_training_needs_one_way_to_say_where(tmp_path: Path) -> None:
    for arguments, words in (
        ((None,), "DATA is missing: expected DATA/trainA"),
        ((None, tmp_path), "--target is missing"),
        ((None, None, tmp_path), "--source is missing"),
        ((tmp_path, tmp_path, tmp_path), "either DATA or --source and --target"),
        ((tmp_path, None, tmp_path), "either DATA or --source and --target"),
    ):
        with pytest.raises(ConfigError, match=words):
            find_training_images(*arguments)


def test_training_folder_errors(tmp_path: Path) -> None:
    data = tmp_path / "horses"
    with pytest.raises(
        DataError, match=r"horses: there is no such file or folder; expected DATA/trainA and DATA/trainB"
    ):
        find_training_images(data)
    touch(data, "train_A/1.png", "train_A/2.png", "trainB/1.png")
    with pytest.raises(DataError, match=r"trainA: there is no such .*\(did you mean 'train.*expected DATA/trainA"):
        find_training_images(data)
    touch(tmp_path, "mine/horse/1.png", "mine/zebra/1.png")
    with pytest.raises(DataError, match=r"mine/trainA.*; 'unpaired data prepare .*mine --out OUT' makes this layout"):
        find_training_images(tmp_path / "mine")
    (data / "train_A").rename(data / "trainA")
    with pytest.raises(DataError, match=r"trainB: holds only one image; training needs at least 2"):
        find_training_images(data)
    with pytest.raises(DataError, match=r"1\.png: is a file, not a folder"):
        find_training_images(data / "trainA" / "1.png")


def test_test_images(tmp_path: Path) -> None:
    assert find_test_images(None) is None
    touch(tmp_path, "trainA/1.png")
    assert find_test_images(tmp_path) is None
    touch(tmp_path, "testA/1.png")
    with pytest.raises(DataError, match="has testA but no testB; scores need both: add testB or rename testA"):
        find_test_images(tmp_path)
    touch(tmp_path, "testB/7.png")
    files = UnpairedFiles((tmp_path / "testA" / "1.png",), (tmp_path / "testB" / "7.png",))
    assert find_test_images(tmp_path) == files  # one image is enough for a test
    assert find_test_images(None, tmp_path / "testA", tmp_path / "testB") == files
    with pytest.raises(ConfigError, match="--target is missing"):
        find_test_images(None, tmp_path / "testA")
    with pytest.raises(DataError, match="there is no such file or folder"):
        find_test_images(tmp_path / "none")


def test_pair_by_name() -> None:
    a = [Path("a/2.png"), Path("a/1.jpg"), Path("a/x.y.png")]
    b = [Path("b/1.png"), Path("b/2.png"), Path("b/3.png"), Path("b/x.y.jpg")]
    pairs = pair_by_name(a, b)
    assert pairs == [(a[0], b[1]), (a[1], b[0]), (a[2], b[3])]
    assert pair_by_name(a, [Path("b/9.png")]) == []
    with pytest.raises(DataError, match=r"a/1\.tif and 1\.jpg have the same name"):
        pair_by_name([*a, Path("a/1.tif")], b)
