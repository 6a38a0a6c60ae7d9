"""The embedded drawings, made from made-up icon sets: who is held out, what leaves training, what is refused."""

from __future__ import annotations

import io
import json
import re
import tarfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from test_published_attention import load

from unpaired.errors import DataError

NAMES = [f"icon-{number:02}" for number in range(24)]
SPLITS = {"trainA": NAMES[:10], "trainB": NAMES[10:20], "testA": NAMES[20:22], "testB": NAMES[20:22]}
"""The last two names are in no split."""
TWINS = ("icon-03", "icon-21")
"""A training image of A that is the mirror image of a test image."""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with a renderer that reads a seed and paints noise in blocks instead of reading SVG."""
    module = load("make_embedded_drawings")

    def paint(document: str) -> Image.Image:
        found = re.search(r"<seed>(\d+)(-mirrored)?</seed>", document)
        assert found is not None
        blocks = np.random.default_rng(int(found[1])).integers(0, 2, (8, 8, 4), np.uint8) * 255
        image = Image.fromarray(np.kron(blocks, np.ones((8, 8, 1), np.uint8)), "RGBA")
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if found[2] else image

    monkeypatch.setattr(module, "render", paint)
    return module


def package(folder: Path, prefix: str, seed: int) -> Path:
    """An icon set as npm packs it."""
    icons = {name: {"body": f"<seed>{seed + number}</seed>"} for number, name in enumerate(NAMES)}
    if prefix == "fluent-emoji-flat":
        icons[TWINS[0]] = {"body": f"<seed>{seed + NAMES.index(TWINS[1])}-mirrored</seed>"}
    content = json.dumps({"prefix": prefix, "icons": icons, "width": 32, "height": 32}).encode()
    path = folder / f"{prefix}.tgz"
    with tarfile.open(path, "w:gz") as archive:
        entry = tarfile.TarInfo("package/icons.json")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return path


@pytest.fixture
def options(script: ModuleType, tmp_path: Path) -> object:
    """Two icon sets and the earlier split of their renderings."""
    packages = {
        "A": package(tmp_path, "fluent-emoji-flat", 100),
        "B": package(tmp_path, "fluent-emoji-high-contrast", 200),
    }
    for split, names in SPLITS.items():
        icons = script.read_icons(packages[split[-1]], script.STYLES[split[-1]])
        (tmp_path / "before" / split).mkdir(parents=True)
        for name in names:
            script.render(script.svg(icons, name)).save(tmp_path / "before" / split / f"{name}.png")
    return script.Options(packages["A"], packages["B"], tmp_path / "before", tmp_path / "out", pairs=6)


def test_splits_are_disjoint_and_leaks_leave_training(script: ModuleType, options, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    counts = script.make(options)
    out = options.out
    names = {folder: {path.stem for path in (out / folder).iterdir()} for folder in counts}
    assert names["valA"] == names["valB"] == set(NAMES[20:22])
    assert names["testA"] == names["testB"]
    assert set(NAMES[22:]) < names["testA"]  # those in no split come first
    assert not names["testA"] & set(TWINS)  # alike in one style is enough
    assert len(names["testA"] & set(NAMES[:10])) == len(names["testA"] & set(NAMES[10:20])) == 2
    assert names["trainA"] == set(NAMES[:10]) - names["testA"] - {TWINS[0]}
    assert names["trainB"] == set(NAMES[10:20]) - names["testA"]
    for folder, found in names.items():
        old = tmp_path / "before" / folder.replace("val", "test")
        for name in found & {path.stem for path in old.iterdir()}:
            assert (out / folder / f"{name}.png").read_bytes() == (old / f"{name}.png").read_bytes()
    with pytest.raises(DataError, match="holds trainA; choose another --out"):
        script.make(options)


def test_a_file_that_is_not_its_rendering_and_another_icon_set_are_refused(script: ModuleType, options) -> None:  # type: ignore[no-untyped-def]
    file = options.before / "trainB" / "icon-12.png"
    image = Image.open(file)
    image.putpixel((5, 5), (1, 2, 3, 4))
    image.save(file)
    with pytest.raises(DataError, match=r"icon-12.png: is not what fluent-emoji-high-contrast looks like"):
        script.make(options)
    with pytest.raises(DataError, match=r"holds the icon set 'fluent-emoji-flat', not 'fluent-emoji-high-contrast'"):
        script.read_icons(options.colour, script.STYLES["B"])
    assert not options.out.exists()


def test_too_few_names(script: ModuleType) -> None:
    splits = {"trainA": {"a", "b"}, "trainB": {"c"}}
    assert script.chosen_names(["a", "b", "c", "d"], splits, 3)[1:] == ["c", "d"]
    with pytest.raises(DataError, match="only 3 names are eligible, 4 were asked for"):
        script.chosen_names(["a", "b", "c", "d"], splits, 4)


def test_difference_of_looks(script: ModuleType) -> None:
    rng = np.random.default_rng(0)
    some, empty = rng.uniform(0, 255, (3, 32, 32, 3)), np.zeros((1, 32, 32, 3))
    difference = script.looks_differ_by(some, np.concatenate([some[:, :, ::-1], empty]))
    assert np.allclose(np.diagonal(difference), 0, atol=1e-12)
    assert np.allclose(difference[:, 3], 1)
    a, b = some[0].ravel(), some[1, :, ::-1].ravel()
    mirrored = some[0, :, ::-1].ravel()
    expected = min(((x - b) ** 2).sum() for x in (a, mirrored)) / ((a**2).sum() + (b**2).sum())
    assert np.isclose(difference[0, 1], expected)
