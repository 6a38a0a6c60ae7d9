"""From the name of a set and its archives, or any folder of images, to a folder that training reads, and its check."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from unpaired.data.check import Report, check_set
from unpaired.data.inspection import Progress
from unpaired.data.layouts import COLLECTION, OFFICIAL, Kind, Layout, class_folders, find_layout, how_to_get
from unpaired.data.prepare_plan import (
    Item,
    Plan,
    held_out,
    items_of,
    looked_at,
)
from unpaired.data.prepare_scale import label_square, photo_square, shorter_side
from unpaired.data.prepare_settings import NEAR, PrepareSettings
from unpaired.data.prepare_write import Written, write_plan
from unpaired.data.sources import Folder, Source, open_source
from unpaired.errors import ConfigError, DataError, nearest

_CLASSES = ("source_class", "target_class")
_OWN_SPLIT = ("test_fraction", "test_count")
_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}
_CITYSCAPES = re.compile(r"(?:.*/)?(?P<split>train|val)/[^/]+/(?P<frame>[^/]+)_(?P<what>gtFine_color|leftImg8bit)\.png")


@dataclass(frozen=True)
class Prepared:
    """A set that was written and checked."""

    plan: Plan
    written: Written
    report: Report


def prepare(
    what: str,
    archives: Sequence[str | Path],
    out: str | Path,
    settings: PrepareSettings,
    progress: Progress,
    *,
    near: int = NEAR,
) -> Prepared:
    """Write a set in a layout that training reads, and check it. What is there already from the same call stays.

    Args:
        what: A name of ``RECIPES``, or a folder (or archive) of images in subfolders.
        archives: The archives or unpacked folders of a named set; nothing is ever downloaded.
        out: New folder, empty folder, or one that the same call began.
        settings: Which files are written.
        progress: Told how far it is.
        near: See :func:`check_set`.

    Raises:
        ConfigError: An archive was not named, or a setting has no meaning for this set.
        DataError: An archive or ``out`` cannot be used.
        OSError: A file cannot be written; the same call goes on.
    """
    out = Path(out)
    if what in RECIPES:
        if not archives:
            raise ConfigError(how_to_get(what))
        paths, recipe = [Path(archive) for archive in archives], RECIPES[what]
    else:
        if archives:
            raise ConfigError(
                f"'{what}' is not a known set ({', '.join(RECIPES)}), and a folder of your own takes no archives; "
                f"leave out {archives[0]}"
            )
        paths, recipe = [Path(what)], folder
    for path in paths:
        if what in RECIPES and not path.exists():
            raise DataError(f"{path}: there is no such file or folder; {how_to_get(what)}")
    if what not in RECIPES and not paths[0].exists():
        raise DataError(f"{what}: is neither a folder nor a known set ({', '.join(RECIPES)})")
    sources = [open_source(path) for path in paths]
    if settings.link and not all(isinstance(source, Folder) for source in sources):
        raise ConfigError("link works with folders, not with archives; leave it out")
    plan = recipe(what, sources, settings, progress)
    written = write_plan(plan, out, progress)
    report = check_set(out, progress, known=written.info, near=near)
    return Prepared(plan, written, report)


def _with_val(
    items: Sequence[Item], settings: PrepareSettings, progress: Progress, *, look: bool = True
) -> tuple[list[Item], list[str]]:
    """Take ``val_count`` images of each domain out of the training images, equal pictures together.

    Args:
        items: Of all splits.
        settings: ``val_count`` and ``seed``.
        progress: Told how far it is.
        look: Decode the training images first; without it only names keep images together.
    """
    if not settings.val_count:
        return list(items), []
    if any(item.split == "val" for item in items):
        raise ConfigError("val_count does not apply here: there are val images already")
    training = [item for item in items if item.split == "train"]
    others = [item for item in items if item.split != "train"]
    problems: list[str] = []
    if look and any(item.info is None for item in training):
        training, problems = looked_at(training, progress)
    quotas = {item.domain: settings.val_count for item in training}
    return [*held_out(training, "val", quotas, settings.seed), *others], problems


def collection(name: str, sources: Sequence[Source], settings: PrepareSettings, progress: Progress) -> Plan:
    """A set of the CycleGAN collection: trainA, trainB, testA and testB as they are."""
    source = _only(name, sources)
    settings.refuse((*_CLASSES, "domains"), f"{name} has two domains, A and B")
    settings.refuse(_OWN_SPLIT, f"{name} has its own test images")
    layout = find_layout(source.images, source.path)
    expected = f"expected {name}/trainA, trainB, testA and testB"
    if layout is None or layout.kind != "two":
        raise DataError(f"{source.path}: {expected}; found {source.found()}")
    _check_root(name, source, layout)
    return _as_laid_out(name, source, layout, settings, progress)


def cityscapes(name: str, sources: Sequence[Source], settings: PrepareSettings, progress: Progress) -> Plan:
    """Cityscapes: colour label maps (A) and photos (B) of the same frames, squares of 256 pixels."""
    settings.refuse((*_CLASSES, "domains"), "Cityscapes has two domains, label maps and photos")
    settings.refuse(_OWN_SPLIT, "the 500 frames of Cityscapes' val split are the test images, as the field has it")
    side = settings.size or 256
    frames: dict[str, dict[tuple[str, str], tuple[Source, str]]] = {"A": {}, "B": {}}
    for source in sources:
        for file in source.images:
            match = _CITYSCAPES.fullmatch(file)
            if match:
                domain = "A" if match["what"] == "gtFine_color" else "B"
                frames[domain][match["split"], match["frame"]] = (source, file)
    if not frames["A"] and not frames["B"] and len(sources) == 1:
        layout = find_layout(sources[0].images, sources[0].path)
        if layout is not None and layout.kind == "two":  # as the CycleGAN authors gave it out once
            _check_root(name, sources[0], layout)
            return _as_laid_out(name, sources[0], layout, settings, progress)
    settings.refuse(("link",), "the frames are scaled down")
    for domain, what, where in (
        ("A", "colour label maps", "gtFine/{train,val}/CITY/..._gtFine_color.png (gtFine_trainvaltest.zip)"),
        ("B", "photos", "leftImg8bit/{train,val}/CITY/..._leftImg8bit.png (leftImg8bit_trainvaltest.zip)"),
    ):
        if not any(split == "train" for split, _ in frames[domain]):
            found = "; ".join(f"{source.path}: {source.found()}" for source in sources)
            raise DataError(f"cityscapes: no {what} for training: expected {where}; found {found}")
    changes = {"A": label_square(side), "B": photo_square(side)}
    items = [
        Item(source, file, "test" if split == "val" else split, domain, frame, changes[domain])
        for domain in "AB"
        for (split, frame), (source, file) in frames[domain].items()
    ]
    alone = sorted(frame for _, frame in frames["A"].keys() ^ frames["B"].keys())
    paired = [item for item in items if item.stem not in alone]
    problems = [f"{frame}: has only a label map or only a photo; left out" for frame in alone]
    for split in ("train", "test"):
        if not any(item.split == split for item in paired):
            raise DataError(
                f"cityscapes: no frame of {split} has both a label map and a photo; use archives of the same release"
            )
    paired, _ = _with_val(paired, settings, progress, look=False)
    remarks = (
        "A: label maps in the official colours, pixels taken from the original, not averaged. B: photos, antialiased.",
        "Same name = true pair. pix2pix's set is JPEG with blended label colours; its scores are not comparable.",
    )
    used = {"size": side, "val_count": settings.val_count, "seed": settings.seed}
    return Plan(name, "two", ("label", "photo"), tuple(paired), used, tuple(sources), tuple(problems), remarks)


def afhq(name: str, sources: Sequence[Source], settings: PrepareSettings, progress: Progress) -> Plan:
    """AFHQ in either version: two of its classes as A and B, or all three as domains."""
    source = _only(name, sources)
    settings.refuse(_OWN_SPLIT, "AFHQ has its own test images")
    layout = find_layout(source.images, source.path)
    if layout is None or layout.kind != "domains":
        raise DataError(
            f"{source.path}: expected afhq/train/{{cat,dog,wild}} and afhq/val or test/...; found {source.found()}"
        )
    if not settings.domains:
        settings = replace(
            settings, source_class=settings.source_class or "cat", target_class=settings.target_class or "dog"
        )
    second = any(file.split == "test" for file in layout.files)
    return _as_laid_out("afhq_v2" if second else "afhq", source, layout, settings, progress)


def folder(name: str, sources: Sequence[Source], settings: PrepareSettings, progress: Progress) -> Plan:
    """Any folder or archive of images in subfolders: split here, unless it is split already."""
    source = _only(name, sources)
    own_name = source.path.resolve().name.removesuffix(".zip")
    layout = find_layout(source.images, source.path)
    if layout is not None:
        settings.refuse(_OWN_SPLIT, f"{source.path} is split into training and test images already")
        if layout.kind == "two":
            settings.refuse((*_CLASSES, "domains"), f"{source.path} has two domains, A and B")
        return _as_laid_out(own_name, source, layout, settings, progress)
    classes, beside = class_folders(source.images)
    if len(classes) < 2:
        raise DataError(
            f"{source.path}: expected two or more folders of images, one per domain; found {source.found()}"
        )
    if _SPLITS.issuperset(name.lower() for name in classes):
        raise DataError(
            f"{source.path}: {' and '.join(classes)} are splits, not domains: expected two folders of images in each, "
            "or one folder per domain that is split here"
        )
    kind, rename = _renaming(source, tuple(classes), settings)
    placed = [file for files in classes.values() for file in files]
    change = shorter_side(settings.size) if settings.size else None
    items = [replace(item, split="train") for item in items_of(source, placed, rename, change)]
    items, problems = looked_at(items, progress)
    counts = {domain: sum(item.domain == domain for item in items) for domain in rename.values()}
    fraction = 0.1 if settings.test_fraction is None else settings.test_fraction
    quotas = {
        domain: settings.test_count if settings.test_count is not None else _share(count, fraction)
        for domain, count in counts.items()
    }
    items = held_out(items, "test", quotas, settings.seed)
    items, _ = _with_val(items, settings, progress)
    used = _used(settings) | ({"test_count": settings.test_count} if settings.test_count is not None else
                              {"test_fraction": fraction})  # fmt: skip
    remarks = [f"{domain} is {old}" for old, domain in rename.items()] if kind == "two" else []
    if beside:
        remarks.append(f"left out: {len(beside):,} images beside the folders, such as {beside[0]}")
    return Plan(
        own_name, kind, tuple(rename), tuple(items), used, (source,), tuple(problems), tuple(remarks)
    )  # fmt: skip


def _share(count: int, fraction: float) -> int:
    return max(1, round(count * fraction)) if fraction else 0


def _only(name: str, sources: Sequence[Source]) -> Source:
    if len(sources) != 1:
        raise ConfigError(f"{name} is prepared from one archive or folder, and {len(sources)} were named")
    return sources[0]


def _check_root(name: str, source: Source, layout: Layout) -> None:
    """Refuse the archive of another set of the collection."""
    root = PurePosixPath(layout.root).name
    if root in OFFICIAL and root != name:
        raise DataError(f"{source.path}: holds {root}, not {name}; prepare {root}, or name the archive of {name}")


def _as_laid_out(name: str, source: Source, layout: Layout, settings: PrepareSettings, progress: Progress) -> Plan:
    """Keep the split that a set has."""
    kind = layout.kind
    if kind == "two":
        rename = {"A": "A", "B": "B"}
    else:
        kind, rename = _renaming(source, layout.domains, settings)
    change = shorter_side(settings.size) if settings.size else None
    items = items_of(source, layout.files, rename, change, _test_split(layout))
    items, problems = _with_val(items, settings, progress)
    return Plan(name, kind, tuple(rename), tuple(items), _used(settings), (source,), tuple(problems))


def _test_split(layout: Layout) -> str:
    """The split that tests: ``val`` where there is no ``test``, as in AFHQ's first version."""
    splits = {file.split for file in layout.files}
    return "val" if "val" in splits and "test" not in splits else "test"


def _renaming(source: Source, classes: tuple[str, ...], settings: PrepareSettings) -> tuple[Kind, dict[str, str]]:
    """The layout to write, and class -> domain."""
    if settings.domains:
        return "domains", {name: name for name in classes}
    pair = [settings.source_class, settings.target_class]
    for name in pair:
        if name is not None and name not in classes:
            raise ConfigError(
                f"{source.path}: there is no class '{name}'{nearest(name, classes)}; found {', '.join(classes)}"
            )
    if len(classes) == 2:
        others = [name for name in classes if name not in pair]
        pair = [name or others.pop(0) for name in pair]
    source_class, target_class = pair
    if source_class is None or target_class is None:
        raise ConfigError(
            f"{source.path}: holds {len(classes)} classes ({', '.join(classes[:8])}); name two with source_class and "
            "target_class, or take all with domains"
        )
    return "two", {source_class: "A", target_class: "B"}


def _used(settings: PrepareSettings) -> dict[str, Any]:
    names = ("size", "source_class", "target_class", "domains", "val_count", "seed", "link")
    return {name: getattr(settings, name) for name in names}


RECIPES: dict[str, Callable[[str, Sequence[Source], PrepareSettings, Progress], Plan]] = {
    **dict.fromkeys(COLLECTION, collection),
    "cityscapes": cityscapes,
    "afhq": afhq,
}
"""Name -> recipe; every other name is a folder or an archive."""
