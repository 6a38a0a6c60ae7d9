"""Images in bounded memory, files read as the protocol says, and the cache of features."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from tiny import write_images
from unpaired.data import DataConfig, list_images, load_for_protocol
from unpaired.errors import DataError, TrainingError
from unpaired.evaluation import FeatureCache, image_files, in_colour
from unpaired.evaluation.image_files import StoredImages, read_files
from unpaired.evaluation.scoring_networks import cache_folder

DATA = DataConfig(image_size=32)


# ---------------------------------------------------------------------------------------------------------------------
# images
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("held_bytes", [1 << 26, 1000])
@pytest.mark.parametrize("channels", [1, 3])
def test_stored_images_come_back_in_8_bits(channels: int, held_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "_HELD_BYTES", held_bytes)  # in memory, or in a file after the first
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
    (image,) = in_colour(stored)[:]
    assert image.shape == (3, 8, 8)
    assert torch.equal(image[0], image[2])


def test_files_are_read_and_identified_by_content(tmp_path: Path) -> None:
    write_images(tmp_path / "a", 4)
    paths = list_images(tmp_path / "a")
    calls: list[int] = []
    found = read_files(paths, DATA, progress=calls.append)
    assert found.paths == tuple(paths)
    assert calls == [1, 2, 3, 4]
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
def test_features_come_back_to_the_bit_and_those_used_last_stay(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "new", limit_bytes=10_000)
    assert cache.get("0") is None
    given = {str(number): torch.randn(5, 100) for number in range(6)}  # 2,128 bytes a file
    for number, (key, features) in enumerate(given.items()):
        cache.put(key, features)
        os.utime(cache._path(key), (number, number))
    assert torch.equal(FeatureCache(cache.folder).get("2"), given["2"])  # type: ignore[arg-type]
    cache.put("6", torch.zeros(5, 100))
    assert [key for key in (*given, "6") if cache.get(key) is not None] == ["2", "4", "5", "6"]


def test_what_cannot_be_read_or_written_is_no_error(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    cache.put("a", torch.ones(2, 3))
    for content in (b"", b"no array", np.array([{}]).dumps()):
        cache._path("a").write_bytes(content)
        assert cache.get("a") is None
    cache.put("a", torch.ones(2, 3))
    assert cache.get("a") is not None
    (tmp_path / "file").write_bytes(b"")
    for nowhere in (FeatureCache(None), FeatureCache(tmp_path / "file" / "features")):
        nowhere.put("a", torch.ones(3))
        assert nowhere.get("a") is None


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNPAIRED_CACHE", str(tmp_path / "named"))
    assert cache_folder() == tmp_path / "named"
    monkeypatch.delenv("UNPAIRED_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "unpaired"
