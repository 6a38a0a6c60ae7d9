"""Archives in the official layouts, of synthetic images."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CITYSCAPES_COLOURS = np.array([(128, 64, 128), (70, 70, 70), (107, 142, 35), (0, 0, 142), (0, 0, 0)], np.uint8)


def pixels(seed: int, size: tuple[int, int] = (40, 36)) -> Image.Image:
    """A smooth random colour image."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def picture(
    seed: int, size: tuple[int, int] = (40, 36), mode: str = "RGB", format: str = "PNG", **options: Any
) -> bytes:
    """The content of an image file."""
    file = io.BytesIO()
    pixels(seed, size).convert(mode).save(file, format, **options)
    return file.getvalue()


def write_zip(path: Path, members: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    """A zip archive, members in the order given."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def write_folder(path: Path, members: Mapping[str, bytes]) -> Path:
    """The same, unpacked."""
    for name, content in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def horse2zebra(counts: tuple[int, int, int, int] = (6, 5, 3, 2), root: str = "horse2zebra/") -> dict[str, bytes]:
    """Members of horse2zebra.zip, all different: trainA, trainB, testA, testB."""
    folders = zip(("trainA", "trainB", "testA", "testB"), counts, strict=True)
    return {
        f"{root}{folder}/n{number}.jpg": picture(100 * place + number, format="JPEG")
        for place, (folder, count) in enumerate(folders)
        for number in range(count)
    }


def label_map(seed: int, size: tuple[int, int] = (64, 32)) -> Image.Image:
    """Blocks of official colours, RGBA as Cityscapes has it."""
    width, height = size
    classes = np.random.default_rng(seed).integers(0, len(CITYSCAPES_COLOURS), (height // 4, width // 4))
    colours = CITYSCAPES_COLOURS[classes.repeat(4, 0).repeat(4, 1)]
    return Image.fromarray(np.dstack([colours, np.full((height, width), 255, np.uint8)]))


def frames(train: int = 5, val: int = 2) -> dict[str, list[str]]:
    """Split -> ``CITY/CITY_SEQUENCE_FRAME`` in two cities."""
    names = [f"{city}/{city}_{i:06d}_000019" for i in range(4) for city in ("aachen", "ulm")]
    return {"train": names[:train], "val": [name.replace("ulm", "lindau") for name in names[:val]]}


def cityscapes(train: int = 5, val: int = 2) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Members of gtFine_trainvaltest.zip and leftImg8bit_trainvaltest.zip, with what else lies in them."""
    labels: dict[str, bytes] = {
        "README": b"",
        "license.txt": b"terms",
        "gtFine/test/berlin/berlin_0_0_gtFine_color.png": b"",
    }
    photos: dict[str, bytes] = {"README": b"", "leftImg8bit/test/berlin/berlin_0_0_leftImg8bit.png": b""}
    for split, names in frames(train, val).items():
        for number, name in enumerate(names):
            seed = number + 50 * (split == "val")
            file = io.BytesIO()
            label_map(seed).save(file, "PNG")
            labels[f"gtFine/{split}/{name}_gtFine_color.png"] = file.getvalue()
            labels[f"gtFine/{split}/{name}_gtFine_labelIds.png"] = picture(seed, (64, 32), "L")
            labels[f"gtFine/{split}/{name}_gtFine_polygons.json"] = b"{}"
            photos[f"leftImg8bit/{split}/{name}_leftImg8bit.png"] = picture(seed, (64, 32))
    return labels, photos


def afhq(version: int = 1, train: int = 4, held_out: int = 2, root: str = "afhq/") -> dict[str, bytes]:
    """Members of afhq.zip of either version."""
    test, suffix, format = ("val", "jpg", "JPEG") if version == 1 else ("test", "png", "PNG")
    return {
        f"{root}{split}/{name}/{name}_{number:06d}.{suffix}": picture(
            1000 * c + 100 * s + number, (32, 32), format=format
        )
        for s, (split, count) in enumerate((("train", train), (test, held_out)))
        for c, name in enumerate(("cat", "dog", "wild"))
        for number in range(count)
    }


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but the record, by its name."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "preparation.json"
    }


def quiet(stage: str, done: int, total: int) -> None:
    """Progress that nobody watches."""
    assert 1 <= done <= total, stage
