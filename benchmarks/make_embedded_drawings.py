"""Make the embedded drawings: render two icon sets, and hold out a validation and a fresh test split.

    npm pack @iconify-json/fluent-emoji-flat@1.2.6 @iconify-json/fluent-emoji-high-contrast@1.2.6
    pip install cairosvg==2.9.1
    python benchmarks/make_embedded_drawings.py --colour iconify-json-fluent-emoji-flat-1.2.6.tgz \\
        --contrast iconify-json-fluent-emoji-high-contrast-1.2.6.tgz --before ../shared/data/fluent --out /tmp/fluent

``--before`` is the set as it was until November 29, 2026: trainA, trainB and 200 test pairs, whose split into names is
random and written down nowhere else. Every file of it is first compared with its rendering: all pixels have to be
equal. The 200 pairs, on which settings were chosen, become valA and valB. The test split is new:

1. A name is eligible if its picture is unlike every other icon of the sets, in both styles: the difference of looks
   (:func:`looks_differ_by`) is at least 0.25, mirrored copies included, and ``unpaired data check`` calls no other
   picture similar. Below 0.1 pictures look alike, from 0.2 on they show different things (looked at, by steps).
2. Every eligible name that is in no split yet, then names of trainA and of trainB in turn, in the order of a hash of
   the name, until there are enough. They leave training; the version that training lacked is rendered.
3. Training images that equal a validation image or differ by less than 0.02 (nothing but a beard or the hand of a
   clock) leave training, too.

CairoSVG is needed here only, not by the package. The icons are MIT, Copyright (c) Microsoft Corporation.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image

from unpaired.data.check import NEAR
from unpaired.data.inspection import equal_pictures, inspect, similar_pictures
from unpaired.errors import DataError

SIDE = 64
"""Pixels of a drawing."""
UNLIKE = 0.25
"""Difference of looks from which a picture is unlike another."""
EQUAL = 0.02
"""Difference of looks below which a picture is nearly equal to another."""
STYLES = {"A": "fluent-emoji-flat", "B": "fluent-emoji-high-contrast"}
"""Domain -> icon set."""


@dataclass(frozen=True)
class Options:
    """Where things are."""

    colour: Path
    """The package fluent-emoji-flat as npm packs it (.tgz)."""
    contrast: Path
    """The package fluent-emoji-high-contrast as npm packs it (.tgz)."""
    before: Path
    """The set until November 29, 2026: trainA, trainB, testA, testB."""
    out: Path
    """Folder for trainA, trainB, valA, valB, testA, testB; it must not hold any of them."""
    pairs: int = 120
    """Test pairs."""


def read_icons(package: Path, name: str) -> dict[str, Any]:
    """The icon set in an npm package: ``icons`` (name -> body, left, top, width, height) and default sizes."""
    with tarfile.open(package) as archive:
        file = archive.extractfile("package/icons.json")
        found: dict[str, Any] = json.load(file) if file else {}
    if found.get("prefix") != name:
        raise DataError(f"{package}: holds the icon set '{found.get('prefix')}', not '{name}'")
    return found


def svg(icons: Mapping[str, Any], name: str) -> str:
    """One icon as an SVG document of 64 x 64 pixels."""
    icon = icons["icons"][name]
    box = [icon.get(key, icons.get(key, default)) for key, default in
           (("left", 0), ("top", 0), ("width", 16), ("height", 16))]  # fmt: skip
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{SIDE}" height="{SIDE}" viewBox="{" ".join(map(str, box))}">{icon["body"]}</svg>'
    )


def render(document: str) -> Image.Image:
    """An SVG document as a 64 x 64 RGBA picture."""
    import cairosvg

    png = cairosvg.svg2png(document.encode(), output_width=SIDE, output_height=SIDE)
    return Image.open(io.BytesIO(png)).convert("RGBA")


def looks(pictures: list[Image.Image]) -> np.ndarray:
    """RGBA pictures -> ``(n, 32, 32, 3)``, ink on white paper at half the size: 0 is white, 255 full ink."""
    white = Image.new("RGBA", (SIDE, SIDE), "white")
    flat = np.stack([np.asarray(Image.alpha_composite(white, picture).convert("RGB")) for picture in pictures])
    half = SIDE // 2
    return 255 - flat.astype(np.float64).reshape(len(flat), half, 2, half, 2, 3).mean((2, 4))


def looks_differ_by(these: np.ndarray, those: np.ndarray) -> np.ndarray:
    """How much each picture differs from each other one, as it is or mirrored, whichever is less.

    ``|a - b|^2 / (|a|^2 + |b|^2)``, summed over pixels of ink: 0 for equal pictures, 1 where no ink coincides.

    Args:
        these: ``(n, 32, 32, 3)`` of :func:`looks`.
        those: ``(m, 32, 32, 3)``.

    Returns:
        ``(n, m)``.
    """
    a, a_mirrored, b = (each.reshape(len(each), -1) for each in (these, these[:, :, ::-1], those))
    ink = np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1)[None], 1.0)
    shared = np.maximum(a @ b.T, a_mirrored @ b.T)
    difference: np.ndarray = np.maximum(ink - 2 * shared, 0) / ink
    return difference


def png_bytes(picture: Image.Image) -> bytes:
    """A picture as the smallest PNG that Pillow writes."""
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def eligible_names(names: list[str], rendered: Mapping[str, list[Image.Image]]) -> list[str]:
    """Names whose picture is unlike every other one in both styles.

    Args:
        names: All names that exist in both styles.
        rendered: Domain -> pictures in the order of ``names``.
    """
    alike: set[str] = set()
    for pictures in rendered.values():
        seen = looks(pictures)
        difference = looks_differ_by(seen, seen)
        np.fill_diagonal(difference, np.inf)
        alike.update(name for name, least in zip(names, difference.min(1), strict=True) if least < UNLIKE)
        facts = {name: inspect(png_bytes(each), name) for name, each in zip(names, pictures, strict=True)}
        alike.update(itertools.chain.from_iterable([*equal_pictures(facts), *similar_pictures(facts, NEAR)]))
    return [name for name in names if name not in alike]


def chosen_names(eligible: list[str], splits: Mapping[str, set[str]], pairs: int) -> list[str]:
    """The names of the test split: unused ones first, then those of trainA and trainB in turn, in the order of a hash.

    Raises:
        DataError: There are too few eligible names.
    """

    def order(name: str) -> bytes:
        return hashlib.blake2b(f"test:{name}".encode()).digest()

    used = set().union(*splits.values())
    unused = sorted((name for name in eligible if name not in used), key=order)
    train_a, train_b = (
        sorted((name for name in eligible if name in splits[split]), key=order) for split in ("trainA", "trainB")
    )
    turns = [name for both in zip(train_a, train_b, strict=False) for name in both]
    found = [*unused, *turns][:pairs]
    if len(found) < pairs:
        raise DataError(f"pairs: only {len(found)} names are eligible, {pairs} were asked for")
    return sorted(found)


def make(options: Options) -> dict[str, int]:
    """Write the six folders and return the number of files in each.

    Raises:
        DataError: The icon sets are others, a file of the earlier set is not its rendering, or ``out`` is in use.
    """
    taken = [f"{split}{domain}" for split in ("train", "val", "test") for domain in "AB"]
    if there := [name for name in taken if (options.out / name).exists()]:
        raise DataError(f"{options.out}: holds {there[0]}; choose another --out")
    icons = {"A": read_icons(options.colour, STYLES["A"]), "B": read_icons(options.contrast, STYLES["B"])}
    names = sorted(set(icons["A"]["icons"]) & set(icons["B"]["icons"]))
    rendered = {domain: [render(svg(icons[domain], name)) for name in names] for domain in "AB"}
    picture = {domain: dict(zip(names, rendered[domain], strict=True)) for domain in "AB"}

    before = {name: sorted((options.before / name).glob("*.png")) for name in ("trainA", "trainB", "testA", "testB")}
    for folder, paths in before.items():
        for path in paths:
            with Image.open(path) as stored:
                if stored.convert("RGBA").tobytes() != picture[folder[-1]][path.stem].tobytes():
                    raise DataError(f"{path}: is not what {STYLES[folder[-1]]} looks like when rendered here")
    print(f"{sum(map(len, before.values()))} files of {options.before} equal their renderings in all pixels")

    splits = {folder: {path.stem for path in paths} for folder, paths in before.items()}
    eligible = eligible_names(names, rendered)
    chosen = chosen_names(eligible, splits, options.pairs)
    print(f"{len(names)} names in both styles, {len(eligible)} eligible, {len(chosen)} chosen")

    for domain in "AB":
        train = [path for path in before[f"train{domain}"] if path.stem not in set(chosen)]
        validation = before[f"test{domain}"]
        seen = [looks([picture[domain][path.stem] for path in paths]) for paths in (train, validation)]
        difference = looks_differ_by(*seen)
        for path, row in zip(train, difference, strict=True):
            if row.min() < EQUAL:
                like = validation[int(row.argmin())].name
                print(f"left out: train{domain}/{path.name} (differs by {row.min():.4f} from val{domain}/{like})")
        train = [path for path, row in zip(train, difference, strict=True) if row.min() >= EQUAL]
        for folder, paths in ((f"train{domain}", train), (f"val{domain}", validation)):
            (options.out / folder).mkdir(parents=True)
            for path in paths:
                shutil.copyfile(path, options.out / folder / path.name)
        test = options.out / f"test{domain}"
        test.mkdir()
        old = {path.stem: path for path in before[f"train{domain}"]}
        for name in chosen:
            content = old[name].read_bytes() if name in old else png_bytes(picture[domain][name])
            (test / f"{name}.png").write_bytes(content)
    return {name: len(list((options.out / name).iterdir())) for name in taken}


if __name__ == "__main__":
    for folder, count in make(tyro.cli(Options)).items():
        print(f"{count:5} {folder}")
