"""Images in bounded memory, files read as the protocol says, and the cache of features."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from unpaired.scoring import ColourImages, FeatureCache, StoredImages, cache_folder, read_files
from unpaired.scoring import images as images_module

from tiny import write_images
from unpaired.data import DataConfig, list_images, load_for_protocol
from unpaired.errors import DataError, TrainingError

DATA = DataConfig(image_size=32)


# ---------------------------------------------------------------------------------------------------------------------
# images
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("held_bytes", [1 << 26, 1000])
@pytest.mark.parametrize("channels", [1, 3])
def test_stored_images_come_back_in_8_bits(channels: int, held_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images_module, "_HELD_BYTES", held_bytes)  # in memory, or in a file after the first
    given = torch.rand(7, channels, 12, 20) * 2.4 - 1.2
    stored = StoredImages()
    for image in given:
        stored.append(image)
    assert len(stored) == 7
    expected = ((given.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
    for index in (3, 0, 6, -1):
        assert torch.equal(stored[index], expected[index])
    assert torch.equal(torch.stack(stored[2:5]), expected[2:5])
    stored[0][:] = 5  # a copy: what is stored stays
    assert torch.equal(stored[0], expected[0])
    with pytest.raises(IndexError, match="image 7 of 7"):
        stored[7]
    with pytest.raises(DataError, match=r"image 7 has shape \(12, 16"):
        stored.append(given[0, :, :, :16])


def test_a_full_temporary_folder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = StoredImages()

    class Full:
        def seek(self, *_: int) -> None: ...

        def write(self, _: bytes) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(stored, "_file", Full())
    with pytest.raises(TrainingError, match=r"temporary folder .*No space left on device.*TMPDIR"):
        stored.append(torch.zeros(3, 8, 8))


def test_gray_images_are_shown_in_three_channels() -> None:
    stored = StoredImages()
    stored.append(torch.linspace(-1, 1, 64).view(1, 8, 8))
    (image,) = ColourImages(stored)[:]
    assert image.shape == (3, 8, 8)
    assert torch.equal(image[0], image[2])


def test_files_are_read_and_identified_by_content(tmp_path: Path) -> None:
    write_images(tmp_path / "a", 4)
    paths = list_images(tmp_path / "a")
    calls: list[int] = []
    found = read_files(paths, DATA, progress=lambda: calls.append(1))
    assert found.paths == tuple(paths)
    assert len(calls) == 4
    torch.testing.assert_close(found.images[2], load_for_protocol(paths[2], DATA))
    moved = [path.rename(tmp_path / f"other_{3 - i}.png") for i, path in enumerate(paths)]
    assert read_files(sorted(moved), DATA).digest == found.digest  # names and order are no content
    assert read_files(sorted(moved)[1:], DATA).digest != found.digest


def test_bad_files_are_named_and_left_out_only_when_asked(tmp_path: Path) -> None:
    write_images(tmp_path, 3)
    (tmp_path / "image1.png").write_bytes(b"no image")
    paths = list_images(tmp_path)
    with pytest.raises(DataError, match=r"image1\.png.*--skip-bad"):
        read_files(paths, DATA)
    words: list[str] = []
    found = read_files(paths, DATA, skip_bad=True, report=words.append)
    assert [path.name for path in found.paths] == ["image0.png", "image2.png"]
    assert len(words) == 1
    assert "image1.png" in words[0]
    with pytest.raises(DataError, match="none of the 1 images can be read"):
        read_files(paths[1:2], DATA, skip_bad=True)


# ---------------------------------------------------------------------------------------------------------------------
# cache
# ---------------------------------------------------------------------------------------------------------------------
def test_features_come_back_to_the_bit(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "new" / "features.sqlite")
    given = {f"key{i}": torch.randn(1280) for i in range(1100)}
    assert cache.get(["key1"]) == {}
    cache.put(given)
    found = FeatureCache(cache.path).get([*given, "unknown"])
    assert found.keys() == given.keys()
    assert all(torch.equal(found[key], given[key]) for key in given)


def test_the_cache_keeps_what_was_used_last(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "features.sqlite", limit_bytes=10 * 400)
    for i in range(10):
        cache.put({f"key{i}": torch.full((100,), float(i))})
    cache.get(["key0"])
    cache.put({"key10": torch.zeros(100)})
    assert cache.get(["key0", "key10"]).keys() == {"key0", "key10"}
    assert cache.get(["key1"]) == {}
    assert len(cache.get([f"key{i}" for i in range(11)])) == 8


@pytest.mark.parametrize("content", [b"", b"no database at all, but long enough to be looked at" * 100])
def test_a_damaged_cache_is_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "features.sqlite"
    path.write_bytes(content)
    cache = FeatureCache(path)
    assert cache.get(["a"]) == {}
    cache.put({"a": torch.ones(3)})
    assert torch.equal(cache.get(["a"])["a"], torch.ones(3))


def test_without_a_place_nothing_is_cached(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for cache in (FeatureCache(None), FeatureCache(tmp_path / "file" / "features.sqlite")):
        cache.put({"a": torch.ones(3)})
        assert cache.get(["a"]) == {}


def test_two_processes_write_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "features.sqlite"
    code = (
        "import sys, torch; from pathlib import Path; from unpaired.scoring import FeatureCache\n"
        f"cache = FeatureCache(Path({str(path)!r}))\n"
        "for i in range(40): cache.put({f'{sys.argv[1]}{i}': torch.full((8,), float(i))})"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, name]) for name in "ab"]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT COUNT(*) FROM features").fetchone() == (80,)


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNPAIRED_CACHE", str(tmp_path / "named"))
    assert cache_folder() == tmp_path / "named"
    monkeypatch.delenv("UNPAIRED_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "unpaired"
