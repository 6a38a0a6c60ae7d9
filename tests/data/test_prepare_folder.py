"""Any folders of images: split by content, doubles and pairs on one side."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from official_archives import contents, horse2zebra, picture, quiet, write_folder, write_zip

from unpaired.data.inspection import ImageInfo
from unpaired.data.prepare import Prepared, PrepareSettings, prepare
from unpaired.data.prepare_plan import Item, held_out
from unpaired.data.sources import Folder
from unpaired.data.stored import Description
from unpaired.errors import ConfigError, DataError


def run(folder: Path, out: Path, **changes: object) -> Prepared:
    return prepare(str(folder), [], out, PrepareSettings(**changes), quiet)  # type: ignore[arg-type]


def photos(cats: int = 20, dogs: int = 10) -> dict[str, bytes]:
    members = {f"cats/c{i}.png": picture(i) for i in range(cats)}
    return members | {f"dogs/d{i}.jpg": picture(500 + i, format="JPEG") for i in range(dogs)}


def sizes(done: Prepared) -> dict[str, int]:
    return {part.folder: len(part.images) for part in done.report.parts}


@pytest.mark.parametrize("packed", [False, True])
def test_two_folders_become_a_and_b(packed: bool, tmp_path: Path) -> None:
    members = {f"my photos/{name}": content for name, content in photos().items()}
    place = write_zip(tmp_path / "p.zip", members) if packed else write_folder(tmp_path / "p", members)
    done = run(place, tmp_path / "out")
    assert sizes(done) == {"trainA": 18, "trainB": 9, "testA": 2, "testB": 1}  # a tenth
    assert sorted(contents(tmp_path / "out").values()) == sorted(members.values())
    assert done.plan.remarks == ("A is cats", "B is dogs")
    assert {path.suffix for path in (tmp_path / "out").glob("*B/*")} == {".jpg"}


def test_counts_shares_and_direction_are_chosen(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "photos", photos())
    done = run(folder, tmp_path / "1", test_count=4, val_count=3, source_class="dogs")
    assert sizes(done) == {"trainA": 3, "trainB": 13, "valA": 3, "valB": 3, "testA": 4, "testB": 4}
    assert {path.name[0] for path in (tmp_path / "1").glob("*A/*")} == {"d"}
    assert sizes(run(folder, tmp_path / "2", test_fraction=0.5)) == {"trainA": 10, "trainB": 5, "testA": 10, "testB": 5}
    assert sizes(run(folder, tmp_path / "3", test_fraction=0.0)) == {"trainA": 20, "trainB": 10}
    with pytest.raises(DataError, match="B: 9 of 10 training images would be held out for test"):
        run(folder, tmp_path / "4", test_count=9)


def test_the_split_depends_on_content_and_seed_alone(tmp_path: Path) -> None:
    members = photos()
    renamed = {
        f"{name.split('/')[0]}/{os.path.basename(name)[::-1].replace('.', '_')}.{name[-3:]}": content
        for name, content in reversed(members.items())
    }

    def held_out(name: str, members: dict[str, bytes], seed: int = 0) -> set[bytes]:
        run(write_folder(tmp_path / name, members), tmp_path / f"{name}_out{seed}", test_count=4, seed=seed)
        made = contents(tmp_path / f"{name}_out{seed}")
        return {content for path, content in made.items() if path.startswith("test")}

    first = held_out("one", members)
    assert held_out("two", renamed) == first
    assert held_out("one", members, seed=1) != first


def test_doubles_stay_on_one_side_in_whatever_format(tmp_path: Path) -> None:
    members = photos(12, 12)
    for number in range(6):
        members[f"cats/copy{number}.bmp"] = picture(number, format="BMP")
        members[f"cats/copy{number}.tif"] = picture(number, format="TIFF")
    for seed in range(4):
        done = run(write_folder(tmp_path / "photos", members), tmp_path / f"out{seed}", test_count=8, seed=seed)
        assert not [finding for finding in done.report.findings if finding.kind == "leak"]
        assert sizes(done)["testB"] == 8
        assert 6 <= sizes(done)["testA"] <= 8


def test_pairs_stay_pairs(tmp_path: Path) -> None:
    members = {
        f"{domain}/{i:03d}.png": picture(i + 300 * d) for d, domain in enumerate(("in", "out")) for i in range(20)
    }
    del members["out/007.png"]
    run(write_folder(tmp_path / "photos", members), tmp_path / "made", test_count=5, val_count=5)
    names = {
        folder: {p.name for p in (tmp_path / "made" / folder).iterdir()}
        for folder in ("testA", "testB", "valA", "valB")
    }
    assert names["testA"] - {"007.png"} == names["testB"] - {"007.png"}
    assert names["valA"] - {"007.png"} == names["valB"] - {"007.png"}
    assert {len(found) for found in names.values()} <= {4, 5}  # a partner of nobody may take a place


@settings(max_examples=60, deadline=None)
@given(
    pictures=st.lists(st.tuples(st.sampled_from("AB"), st.integers(0, 8), st.integers(0, 12)), max_size=30),
    quotas=st.fixed_dictionaries({"A": st.integers(0, 12), "B": st.integers(0, 12)}),
    seed=st.integers(0, 2**32),
    shuffle=st.randoms(use_true_random=False),
)
def test_holding_out_keeps_its_promises(pictures, quotas, seed, shuffle) -> None:  # type: ignore[no-untyped-def]
    source = Folder(Path(__file__).parent)
    items = [
        Item(source, f"{i}.png", "train", domain, f"{name}", None, info(b"%d" % content))
        for i, (domain, name, content) in enumerate(pictures)
    ]
    count = Counter(item.domain for item in items)
    possible = {domain: max(0, min(quota, count[domain] - 2)) for domain, quota in quotas.items()}
    if possible != quotas and any(quota and count[domain] - quota < 2 for domain, quota in quotas.items()):
        with pytest.raises(DataError, match="training needs 2 at least"):
            held_out(items, "test", quotas, seed)
    found = held_out(items, "test", possible, seed)
    chosen = [item for item in found if item.split == "test"]
    left = [item for item in found if item.split == "train"]
    assert all(Counter(item.domain for item in chosen)[domain] <= quota for domain, quota in possible.items())
    assert not {item.info.digest for item in chosen} & {item.info.digest for item in left}
    shuffle.shuffle(items)
    again = [item for item in held_out(items, "test", possible, seed) if item.split == "test"]
    assert {item.name for item in again} == {item.name for item in chosen}


def info(digest: bytes) -> ImageInfo:
    return ImageInfo(Description("PNG", "RGB", 8, 8, "uint8", 3, np.empty), 0, digest, bytes(8), bytes(192))


def test_three_folders_need_a_choice(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "photos", photos() | {f"owls/o{i}.png": picture(900 + i) for i in range(6)})
    with pytest.raises(
        ConfigError, match=r"holds 3 classes \(cats, dogs, owls\); name two .* or take all with domains"
    ):
        run(folder, tmp_path / "out")
    with pytest.raises(ConfigError, match="name two"):
        run(folder, tmp_path / "out", source_class="owls")
    done = run(folder, tmp_path / "out", domains=True)
    assert sizes(done)["train/owls"] == 5
    assert sizes(done)["test/cats"] == 2
    pair = run(folder, tmp_path / "pair", source_class="owls", target_class="cats")
    assert sizes(pair) == {"trainA": 5, "trainB": 18, "testA": 1, "testB": 2}


def test_links_point_to_the_originals(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "photos", photos())
    done = run(folder, tmp_path / "out", link=True)
    links = [path for path in (tmp_path / "out").glob("*/*") if path.is_symlink()]
    assert len(links) == 30
    assert all(path.resolve().parent.parent == folder.resolve() for path in links)
    assert done.report.images == 30
    assert run(folder, tmp_path / "out", link=True).written.there == 30
    with pytest.raises(ConfigError, match="link keeps the files"):
        run(folder, tmp_path / "other", link=True, size=32)
    with pytest.raises(ConfigError, match="link works with folders"):
        run(write_zip(tmp_path / "p.zip", photos()), tmp_path / "other", link=True)


def test_names_of_deeper_files_are_flat_and_never_collide(tmp_path: Path) -> None:
    members = {
        "cats/a/1.png": picture(1), "cats/b/1.png": picture(2), "cats/a__1.png": picture(3),
        "cats/A__1.PNG": picture(4),
        **{f"dogs/{i}.png": picture(10 + i) for i in range(3)},
    }  # fmt: skip
    run(write_folder(tmp_path / "photos", members), tmp_path / "out", test_fraction=0.0)
    made = contents(tmp_path / "out")
    assert sorted(made.values()) == sorted(members.values())
    names = [name.casefold() for name in made if name.startswith("trainA")]
    assert sorted(names) == ["traina/a__1-2.png", "traina/a__1-3.png", "traina/a__1.png", "traina/b__1.png"]


def test_a_folder_that_is_split_already_stays_split(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "mine", horse2zebra(root="") | {"license.txt": b"x"})
    done = run(folder, tmp_path / "out", val_count=2)
    assert sizes(done) == {"trainA": 4, "trainB": 3, "valA": 2, "valB": 2, "testA": 3, "testB": 2}
    assert done.report.name is None
    with pytest.raises(ConfigError, match="split into training and test images already"):
        run(folder, tmp_path / "other", test_count=2)
    with pytest.raises(ConfigError, match="val_count does not apply here: there are val images already"):
        run(tmp_path / "out", tmp_path / "other", val_count=1)


def test_what_is_no_set_of_folders_is_told_by_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected two or more folders of images.*; found images \(2\)"):
        run(write_folder(tmp_path / "flat", {"1.png": picture(1), "2.png": picture(2)}), tmp_path / "out")
    with pytest.raises(DataError, match=r"expected two or more folders of images.*; found cats/ \(1\)"):
        run(write_folder(tmp_path / "one", {"cats/1.png": picture(1)}), tmp_path / "out")
    with pytest.raises(DataError, match=r"neither a folder nor a known set .*horse2zebra.*cityscapes, afhq"):
        run(tmp_path / "hoarse2zebra", tmp_path / "out")
    with pytest.raises(ConfigError, match="a folder of your own takes no archives"):
        prepare(str(tmp_path / "one"), [tmp_path / "flat"], tmp_path / "out", PrepareSettings(), quiet)
    splits = write_folder(
        tmp_path / "splits", {f"{s}/{i}.png": picture(i) for s in ("train", "Test") for i in range(4)}
    )
    with pytest.raises(DataError, match="Test and train are splits, not domains"):
        run(splits, tmp_path / "out")
    loose = write_folder(tmp_path / "loose", photos() | {"cover.png": picture(7)})
    assert run(loose, tmp_path / "out").plan.remarks[-1] == "left out: 1 images beside the folders, such as cover.png"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": 4}, "size must be at least 8"), ({"test_fraction": 1.0}, "below 1"),
        ({"test_count": -1}, "test_count must be at least 0"), ({"val_count": -1}, "val_count must be at least 0"),
        ({"test_count": 1, "test_fraction": 0.1}, "not both"),
        ({"source_class": "a", "target_class": "a"}, "name two"), ({"seed": -1}, "seed must be at least 0"),
    ],
)  # fmt: skip
def test_settings_are_checked(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        PrepareSettings(**changes)  # type: ignore[arg-type]
