"""Sets of the CycleGAN collection, from their archives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from official_archives import contents, horse2zebra, picture, pixels, quiet, write_zip
from PIL import Image

from unpaired.data import find_training_images, read_image
from unpaired.data.layouts import COLLECTION
from unpaired.data.prepare import Prepared, PrepareSettings, prepare
from unpaired.errors import ConfigError, DataError

DEFAULT_REQUEST = PrepareSettings()


def run(archive: Path, out: Path, name: str = "horse2zebra", settings: PrepareSettings = DEFAULT_REQUEST) -> Prepared:
    return prepare(name, [archive], out, settings, quiet)


@pytest.mark.parametrize("root", ["horse2zebra/", "", "datasets/horse2zebra/"])
def test_files_are_copied_to_the_bit(root: str, tmp_path: Path) -> None:
    members = horse2zebra(root=root)
    done = run(write_zip(tmp_path / "horse2zebra.zip", members | {f"{root}readme.txt": b"x"}), tmp_path / "out")
    assert contents(tmp_path / "out") == {name.removeprefix(root): content for name, content in members.items()}
    assert (done.written.written, done.written.there, done.written.problems) == (16, 0, [])
    assert len(find_training_images(tmp_path / "out").source) == 6
    record = json.loads((tmp_path / "out" / "preparation.json").read_text())
    assert record["finished"] is True
    assert record["name"] == "horse2zebra"


def test_counts_are_compared_with_the_published_ones(tmp_path: Path) -> None:
    done = run(write_zip(tmp_path / "a.zip", horse2zebra()), tmp_path / "out")
    words = [finding.words for finding in done.report.findings if finding.kind == "counts"]
    assert words[0] == "trainA holds 6 images; the published horse2zebra has 1,067"
    assert len(words) == 4
    assert [COLLECTION["horse2zebra"][key] for key in COLLECTION["horse2zebra"]] == [1067, 1334, 120, 140]


def test_a_wrong_archive_is_told_by_what_it_holds(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", horse2zebra(root="apple2orange/"))
    with pytest.raises(DataError, match=r"a\.zip: holds apple2orange, not horse2zebra"):
        run(archive, tmp_path / "out")
    archive = write_zip(tmp_path / "b.zip", {f"photos/{i}.png": b"" for i in range(3)} | {"words/a.txt": b""})
    with pytest.raises(DataError, match=r"b\.zip: expected horse2zebra/trainA.*; found photos/ \(3\)"):
        run(archive, tmp_path / "out")
    with pytest.raises(DataError, match="found no image among 1 files"):
        run(write_zip(tmp_path / "c.zip", {"words/a.txt": b""}), tmp_path / "out")
    two = horse2zebra(root="a/") | horse2zebra(root="b/")
    with pytest.raises(DataError, match=r"holds several sets \(a/, b/\)"):
        run(write_zip(tmp_path / "d.zip", two), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_archive_is_told_where_to_get_and_never_fetched(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"horse2zebra\.zip, never downloaded .*http://efrosgans\.\S+/datasets/,"):
        prepare("horse2zebra", [], tmp_path / "out", DEFAULT_REQUEST, quiet)
    with pytest.raises(DataError, match=r"mine\.zip: there is no such file or folder; .* http://efrosgans"):
        run(tmp_path / "mine.zip", tmp_path / "out")
    archive = write_zip(tmp_path / "a.zip", horse2zebra())
    with pytest.raises(ConfigError, match="from one archive or folder, and 2 were named"):
        prepare("horse2zebra", [archive, archive], tmp_path / "out", DEFAULT_REQUEST, quiet)


@pytest.mark.parametrize(
    "settings",
    [
        PrepareSettings(domains=True), PrepareSettings(source_class="horse"), PrepareSettings(test_count=3),
        PrepareSettings(test_fraction=0.2), PrepareSettings(link=True),
    ],
)  # fmt: skip
def test_settings_without_meaning_are_refused(settings: PrepareSettings, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not apply|not with archives"):
        run(write_zip(tmp_path / "a.zip", horse2zebra()), tmp_path / "out", settings=settings)


def test_size_scales_the_shorter_side_down_and_never_up(tmp_path: Path) -> None:
    members = horse2zebra((2, 2, 1, 1)) | {
        "horse2zebra/trainA/wide.png": picture(70, (80, 40)),
        "horse2zebra/trainA/gray.png": picture(71, (64, 64), "L"),
        "horse2zebra/trainA/clear.png": picture(72, (64, 64), "RGBA"),
        "horse2zebra/trainA/palette.png": picture(73, (64, 64), "P"),
        "horse2zebra/trainA/print.jpg": picture(74, (64, 64), "CMYK", "JPEG"),
        "horse2zebra/trainA/small.png": picture(75, (12, 10)),
    }
    done = run(write_zip(tmp_path / "a.zip", members), tmp_path / "out", settings=PrepareSettings(size=16))
    facts = {path.removeprefix("trainA/"): info for path, info in done.written.info.items()}
    assert (facts["wide.png"].facts.width, facts["wide.png"].facts.height) == (32, 16)
    assert (facts["small.png"].facts.width, facts["small.png"].facts.height) == (12, 10)
    assert (facts["n0.png"].facts.width, facts["n0.png"].facts.height) == (18, 16)  # 40 x 36: 17.8 rounds up
    modes = {name: facts[f"{name}.png"].facts.mode for name in ("wide", "gray", "clear", "palette", "print")}
    assert modes == {"wide": "RGB", "gray": "L", "clear": "RGBA", "palette": "RGB", "print": "RGB"}
    made = read_image(tmp_path / "out" / "trainA" / "wide.png")
    expected = pixels(70, (80, 40)).resize((32, 16), Image.Resampling.BICUBIC)
    assert np.array_equal(np.asarray(made), np.asarray(expected))


def test_sixteen_bits_survive_scaling(tmp_path: Path) -> None:
    deep = (np.arange(64 * 64, dtype=np.uint16) * 16).reshape(64, 64)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    members = horse2zebra((2, 2, 1, 1)) | {"horse2zebra/trainA/deep.png": (tmp_path / "deep.png").read_bytes()}
    run(write_zip(tmp_path / "a.zip", members), tmp_path / "out", settings=PrepareSettings(size=32))
    with Image.open(tmp_path / "out" / "trainA" / "deep.png") as image:
        made = np.asarray(image).astype(np.int64)
    assert image.mode.startswith("I;16")
    inner = slice(4, -4)  # a ramp stays a ramp away from its ends: the mean of each 2 x 2 block
    mean = deep.astype(np.int64).reshape(32, 2, 32, 2).sum((1, 3)) / 4
    assert abs(made[inner, inner] - mean[inner, inner]).max() <= 1


def test_val_images_come_from_training_and_take_their_doubles_along(tmp_path: Path) -> None:
    members = horse2zebra((12, 8, 2, 2))
    for number in range(4):  # every one of these four is there three times
        for copy in ("x", "y"):
            members[f"horse2zebra/trainA/{copy}{number}.jpg"] = members[f"horse2zebra/trainA/n{number}.jpg"]
    archive = write_zip(tmp_path / "a.zip", members)
    done = run(archive, tmp_path / "out", settings=PrepareSettings(val_count=4))
    made = contents(tmp_path / "out")
    sizes = {part.folder: len(part.images) for part in done.report.parts}
    assert sizes == {"trainA": 16, "trainB": 4, "valA": 4, "valB": 4, "testA": 2, "testB": 2}
    assert not {made[name] for name in made if name.startswith("val")} & {
        made[name] for name in made if name.startswith("train")
    }
    assert {*made.values()} == {*members.values()}
    other = run(archive, tmp_path / "other", settings=PrepareSettings(val_count=4, seed=1))
    assert {p.images[0] for p in other.report.parts} != {p.images[0] for p in done.report.parts}
    counts = [finding.words for finding in done.report.findings if finding.kind == "counts"]
    assert counts[0] == "trainA holds 16 images (and 4 in val); the published horse2zebra has 1,067"
    with pytest.raises(DataError, match="A: 19 of 20 training images would be held out for val"):
        run(archive, tmp_path / "third", settings=PrepareSettings(val_count=19))


def test_images_that_cannot_be_used_are_left_out_and_named(tmp_path: Path) -> None:
    members = horse2zebra()
    good = dict(members)
    members["horse2zebra/trainA/cut.jpg"] = members["horse2zebra/trainA/n0.jpg"][:-200]
    members["horse2zebra/trainB/page.jpg"] = b"<html>not found</html>"
    done = run(write_zip(tmp_path / "a.zip", members), tmp_path / "out")
    assert contents(tmp_path / "out") == {name.removeprefix("horse2zebra/"): x for name, x in good.items()}
    first, second = done.written.problems
    assert first.startswith(f"{tmp_path / 'a.zip'}: horse2zebra/trainA/cut.jpg: the image is truncated")
    assert "page.jpg: the content is text, not an image" in second
    assert json.loads((tmp_path / "out" / "preparation.json").read_text())["left_out"] == [first, second]
