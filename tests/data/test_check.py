"""Every thing that a check can find, made on purpose and found exactly."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from official_archives import picture, pixels, quiet, write_folder
from PIL import Image

from unpaired.data import find_test_images, find_training_images
from unpaired.data.check import Report, check_set, lines, parts_table, to_json
from unpaired.data.check import pixels as sizes_in_words
from unpaired.errors import DataError


def clean() -> dict[str, bytes]:
    """A set with nothing to say about: all pictures differ, no name is in A and in B."""
    return {
        f"{folder}/{folder}{i}.png": picture(100 * place + i)
        for place, folder in enumerate(("trainA", "trainB", "testA", "testB"))
        for i in range(4)
    }


def check(tmp_path: Path, members: dict[str, bytes], **options: object) -> Report:
    return check_set(write_folder(tmp_path / "set", members), quiet, **options)  # type: ignore[arg-type]


def told(report: Report) -> list[tuple[str, str, list[str]]]:
    return [(finding.level, finding.words, finding.files) for finding in report.findings]


def only(report: Report) -> tuple[str, str, list[str]]:
    (finding,) = told(report)
    return finding


def test_a_clean_set_has_nothing_to_say(tmp_path: Path) -> None:
    report = check(tmp_path, clean())
    assert told(report) == []
    assert report.images == 16
    assert report.passed(strict=True)
    assert list(lines(report))[-1].startswith("16 images checked in")
    assert parts_table(report).row_count == 4


def test_domains_are_checked_alike(tmp_path: Path) -> None:
    members = {
        f"{split}/{name}/{split}{name}{i}.png": picture(40 * s + 10 * n + i)
        for s, split in enumerate(("train", "test"))
        for n, name in enumerate(("cat", "dog", "wild"))
        for i in range(3)
    }
    assert told(check(tmp_path, members)) == []
    leak = members | {"test/dog/leak.png": members["train/dog/traindog0.png"]}
    assert only(check(tmp_path, leak)) == (
        "warning", "1 picture of test/dog is in train/dog, too", ["test/dog/leak.png = train/dog/traindog0.png"]
    )  # fmt: skip


def test_doubles_are_told_apart(tmp_path: Path) -> None:
    members = clean()
    members["trainA/double.bmp"] = picture(0, format="BMP")  # other bytes, the same pixels
    members["trainA/triple.tif"] = picture(0, format="TIFF")
    members["testB/leak.png"] = members["trainB/trainB1.png"]
    members["trainB/both.png"] = members["trainA/trainA2.png"]
    assert told(check(tmp_path, members)) == [
        ("warning", "1 picture of testB is in trainB, too", ["testB/leak.png = trainB/trainB1.png"]),
        ("warning", "1 picture is both in trainA and in trainB", ["trainB/both.png = trainA/trainA2.png"]),
        ("note", "1 picture of trainA is there more than once",
         ["trainA/double.bmp = trainA/trainA0.png = trainA/triple.tif"]),
    ]  # fmt: skip


def test_similar_pictures_are_a_hint(tmp_path: Path) -> None:
    members = clean()
    file = io.BytesIO()
    pixels(1).resize((80, 72), Image.Resampling.BICUBIC).save(file, "JPEG", quality=60)
    members["testA/recompressed.jpg"] = file.getvalue()
    assert only(check(tmp_path, members)) == (
        "note", "1 pair of similar pictures between testA and trainA: a hint, look at them",
        ["testA/recompressed.jpg ~ trainA/trainA1.png"],
    )  # fmt: skip
    assert told(check(tmp_path, {}, near=-1)) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (picture(1)[:-30], "truncated or damaged"),
        (b"hello there", "the content is text"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ],
)
def test_files_that_cannot_be_used_are_errors(content: bytes, words: str, tmp_path: Path) -> None:
    report = check(tmp_path, clean() | {"trainA/bad.png": content})
    level, said, files = only(report)
    assert (level, said) == ("error", "1 of 5 images of trainA cannot be used")
    assert files[0].startswith("trainA/bad.png: ")
    assert words in files[0]
    assert not report.passed(strict=False)


def test_values_that_are_no_8_bit_picture_are_told(tmp_path: Path) -> None:
    depth, bands = io.BytesIO(), io.BytesIO()
    Image.fromarray(np.arange(1600, dtype=np.float32).reshape(40, 40)).save(depth, "TIFF")
    np.save(bands, np.arange(8000, dtype=np.uint16).reshape(40, 40, 5))
    members = clean() | {"trainA/depth.tiff": depth.getvalue(), "trainB/bands.npy": bands.getvalue()}
    words = "(channels x type): see --channels, and --value-range for floats"
    (level, said), *notes = [(level, said) for level, said, _ in told(check(tmp_path, members))]
    assert level == "warning"
    assert said.startswith("1 of 9 images of trainA, testA has the type float32 among uint8, and other values")
    assert notes == [
        ("note", f"1 of 5 images of trainA has 1 x float32 {words}"),
        ("note", f"1 of 5 images of trainB has 5 x uint16 {words}"),
    ]


def test_modes_are_told(tmp_path: Path) -> None:
    deep = io.BytesIO()
    Image.fromarray((np.arange(1600, dtype=np.uint16) * 40).reshape(40, 40)).save(deep, "PNG")
    members = clean() | {
        "trainA/gray.png": picture(50, mode="L"),
        "trainA/deep.png": deep.getvalue(),
        "trainA/print.jpg": picture(51, mode="CMYK", format="JPEG"),
        "trainB/clear.png": picture(52, mode="RGBA"),
        "trainB/colours.png": picture(53, mode="P"),
    }
    assert told(check(tmp_path, members)) == [
        ("note", "1 of 7 images of trainA is CMYK", ["trainA/print.jpg"]),
        ("note", "1 of 7 images of trainA has 16 bits (mode I;16)", ["trainA/deep.png"]),
        ("note", "1 of 7 images of trainA is gray (mode L)", ["trainA/gray.png"]),
        ("note", "1 of 7 images of trainA is CMYK without a usable profile, converted by a simple formula",
         ["trainA/print.jpg"]),
        ("note", "1 of 6 images of trainB has a palette (mode P)", ["trainB/colours.png"]),
        ("note", "1 of 6 images of trainB has transparency; it is put over white, or --background",
         ["trainB/clear.png"]),
    ]  # fmt: skip


def test_orientation_frames_and_suffixes_are_told(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    film = io.BytesIO()
    pixels(60).save(film, "PNG", save_all=True, append_images=[pixels(61)])
    members = clean() | {
        "trainA/turned.jpg": picture(62, (60, 40), format="JPEG", exif=exif),
        "trainB/film.png": film.getvalue(),
        "testA/photo.png": picture(63, format="JPEG"),
    }
    report = check(tmp_path, members)
    assert told(report) == [
        ("note", "1 of 5 images of trainA is stored rotated or mirrored and is turned as its orientation tag says",
         ["trainA/turned.jpg"]),
        ("note", "1 of 5 images of trainB has several frames or pages, of which the first is used",
         ["trainB/film.png"]),
        ("note", "1 of 5 images of testA is of another format than its suffix says; the content counts",
         ["testA/photo.png is JPEG"]),
    ]  # fmt: skip
    info = report.parts[0].info["trainA/turned.jpg"]
    assert (info.facts.width, info.facts.height) == (40, 60)


def test_what_is_no_image_and_what_is_too_small_are_warnings(tmp_path: Path) -> None:
    members = clean() | {
        "trainA/notes.txt": b"x", "trainA/model.pth": b"x", "trainB/deeper/1.png": picture(1),
        "testA/icon.png": picture(64, (16, 90)),
    }  # fmt: skip
    assert told(check(tmp_path, members)) == [
        ("warning", "2 files of trainA are not images", ["trainA/model.pth", "trainA/notes.txt"]),
        ("warning", "trainB holds folders, whose images training does not read", ["trainB/deeper"]),
        ("warning", "1 of 5 images of testA has a side below 32 pixels", ["testA/icon.png"]),
    ]  # fmt: skip


def test_pairs_are_told(tmp_path: Path) -> None:
    members = {
        name.replace("testA/testA", "testA/").replace("testB/testB", "testB/"): content
        for name, content in clean().items()
    } | {"testB/alone.png": picture(70)}
    assert only(check(tmp_path, members)) == (
        "note",
        "testA and testB pair by name (4 names in both, 1 in one only); if these are true pairs, translations can be "
        "scored against the ground truth",
        ["testB/alone"],
    )


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    members = clean()
    report = check(tmp_path / "1", {name: x for name, x in members.items() if not name.startswith("trainB")})
    assert only(report)[:2] == ("error", "trainB is missing beside trainA")
    report = check(tmp_path / "2", {name: x for name, x in members.items() if not name.startswith("testB")})
    assert only(report)[:2] == ("error", "testB is missing beside testA")
    report = check(tmp_path / "3", {name: x for name, x in members.items() if name.startswith("train")})
    assert only(report)[:2] == ("warning", "there are no test images: scores need held-out images")
    few = {name: x for name, x in members.items() if not name.startswith("trainB") or name.endswith("0.png")}
    (tmp_path / "4" / "set" / "valA").mkdir(parents=True)
    (tmp_path / "4" / "set" / "extra").mkdir()
    report = check(tmp_path / "4", few)
    assert told(report) == [
        ("error", "valB is missing beside valA", []),
        ("error", "trainB holds fewer than 2 images that can be used", []),
        ("error", "valA holds no image", []),
        ("note", "1 folder that training does not read", ["extra"]),
    ]
    one = {f"train/cat/{i}.png": picture(i) for i in range(3)} | {f"test/dog/{i}.png": picture(9 + i) for i in range(2)}
    assert told(check(tmp_path / "5", one)) == [
        ("error", "there is only one domain (cat); two are needed at least", []),
        ("warning", "there are no test images: scores need held-out images", []),
        ("note", "1 folder that training does not read", ["test/dog"]),
    ]


def test_what_check_calls_an_error_training_refuses(tmp_path: Path) -> None:
    """And what it does not call an error, training takes."""
    members = clean()
    broken = {
        "no trainB": {name: x for name, x in members.items() if not name.startswith("trainB")},
        "one image": {
            name: x for name, x in members.items() if not name.startswith("trainB") or name.endswith("0.png")
        },
        "no testB": {name: x for name, x in members.items() if not name.startswith("testB")},
        "whole": members,
        "no test": {name: x for name, x in members.items() if name.startswith("train")},
        "odd": members | {"trainA/x.txt": b"", "trainA/y/z.png": b"", "trainA/w.png": picture(5, (3, 3), "1")},
    }
    for name, files in broken.items():
        folder = write_folder(tmp_path / name, files)
        try:
            find_training_images(folder)
            find_test_images(folder)
            taken = True
        except DataError:
            taken = False
        assert check_set(folder, quiet).passed(strict=False) == taken, name


def test_a_folder_without_a_layout_is_refused_with_advice(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "photos", {"cats/1.png": b"", "dogs/1.png": b""})
    with pytest.raises(
        DataError, match=r"expected trainA and trainB, or train/<domain>; found the folders cats, dogs; .*prepare"
    ):
        check_set(folder, quiet)
    with pytest.raises(DataError, match="found no folders"):
        check_set(folder / "cats", quiet)
    with pytest.raises(DataError, match="is a file, not a folder"):
        check_set(folder / "cats" / "1.png", quiet)
    with pytest.raises(DataError, match=r"no such file or folder \(did you mean 'photos'\?\)"):
        check_set(tmp_path / "photo", quiet)


def test_published_counts_go_by_the_name_of_the_folder_or_the_option(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "horse2zebra", clean())
    report = check_set(folder, quiet)
    assert report.name == "horse2zebra"
    assert report.count("warning") == 4
    report = check_set(folder, quiet, name="maps")
    assert told(report)[2] == ("warning", "testA holds 4 images; the published maps has 1,098", [])
    domains = {
        f"train/{name}/{i}.png": picture(i + 9 * n) for n, name in enumerate(("cat", "dog", "wild")) for i in range(2)
    }
    report = check_set(write_folder(tmp_path / "afhq", domains), quiet)
    assert [part.official for part in report.parts] == [5153, 4739, 4738]


def test_the_table_and_the_json_say_the_same(tmp_path: Path) -> None:
    members = clean() | {f"trainA/wide{i}.png": picture(80 + i, (60 + 4 * i, 40)) for i in range(8)}
    members["trainA/bad.png"] = b""
    report = check(tmp_path, members)
    assert sizes_in_words(report.parts[0]) == "shorter side 36, median 40, to 40; longest 88; 12 not square"
    made = to_json(report)
    assert made["errors"] == 1
    first = made["folders"][0]
    assert (first["images"], first["usable"], first["not_square"]) == (13, 12, 12)
    assert first["shorter_side"] == {"min": 36, "median": 40.0, "max": 40}
    assert made["findings"][0]["files"][0].startswith("trainA/bad.png: ")


def test_images_without_any_data_are_told(tmp_path: Path) -> None:
    void = io.BytesIO()
    Image.fromarray(np.full((40, 40), np.nan, np.float32)).save(void, "TIFF")
    found = told(check(tmp_path, clean() | {"trainA/void.tiff": void.getvalue()}))
    assert (
        "warning",
        "1 of 5 images of trainA holds only no-data values: nothing to learn from",
        ["trainA/void.tiff"],
    ) in found
