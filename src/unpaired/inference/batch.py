"""Translate image files with a translator: read, batch images of one size, translate, write."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unpaired.data import (
    IMAGE_SUFFIXES,
    Picture,
    PixelFormat,
    Remarks,
    can_hold,
    encode,
    left_behind,
    read_picture,
    resize_values,
)
from unpaired.errors import DataError
from unpaired.files import write_atomically
from unpaired.inference.translator import Translator

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
"""What is wrong with the disk and not with one file."""


@dataclass(frozen=True)
class _Item:
    path: Path
    values: np.ndarray
    original_size: tuple[int, int]
    picture: Picture
    page: int
    pages: int


@dataclass
class Outcome:
    """What became of the images so far."""

    remarks: Remarks
    written: int = 0
    problems: list[str] = field(default_factory=list)
    lost: Counter[str] = field(default_factory=Counter)
    """What has no place in the results -> in how many."""

    def lines(self) -> Iterator[str]:
        """What was left out, lost or skipped."""
        if line := self.remarks.line:
            yield line
        yield from self.remarks.warnings
        if self.lost:
            lost = (f"{name} of {count} image{'s' * (count != 1)}" for name, count in self.lost.most_common())
            yield f"not in the results: {'; '.join(lost)}"
        yield from (f"skipped: {message}" for message in self.problems)

    def add(self, part: Outcome) -> None:
        """Count what became of further images."""
        self.remarks.include(part.remarks)
        self.written += part.written
        self.problems = sorted(self.problems + part.problems)
        self.lost += part.lost


def misfit(suffix: str, made: PixelFormat, pages: int = 1) -> str:
    """Why a kind of file cannot hold a result of so many pages, and which kinds can; empty if it can."""
    if can_hold(suffix, made.dtype, made.channels, pages):
        return ""
    able = {kind for each, kind in IMAGE_SUFFIXES.items() if can_hold(each, made.dtype, made.channels, pages)}
    *others, last = sorted(kind.lower() for kind in able)
    return (
        f"a {suffix} file cannot hold {f'{pages} pages of ' * (pages > 1)}{made.words}, which this run makes; use "
        f"{', '.join(others)}{' or ' * bool(others)}{last} (--format, or the suffix of --out)"
        f"{', or --pages first' * (pages > 1)}"
    )


def translate_files(
    translator: Translator,
    targets: Mapping[Path, Path],
    request: Mapping[str, Any],
    side: int | None,
    batch_size: int,
    done: Outcome,
    track: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, total: items,
) -> None:
    """Translate each file into its target; what cannot be read, translated or written costs itself only.

    Args:
        translator: Translates.
        targets: File -> where its translation goes, whole or not at all; folders are made.
        request: What a translation should be, in the words of ``Translator.translate``.
        side: Shorter side to scale images to, in pixels; None leaves them as they are. Results have the original size.
        batch_size: Most images, of equal size, at a time.
        done: What became of the images is added here.
        track: Shows progress: the items and the number of files -> the items.

    Raises:
        OSError: Nothing more can be written: the disk is full or broken.
    """
    taken, made_of = translator.sides(request["reverse"])

    def translate(group: Sequence[_Item]) -> np.ndarray:
        return translator.translate(np.stack([item.values for item in group]), **request)

    pages: dict[Path, list[tuple[np.ndarray, Picture]]] = {}
    items = track(_read(targets, side, taken, made_of, done, translator.free_bytes), len(targets))
    for group in _groups(items, batch_size):
        for item, values in _translated(group, translate, done.problems):
            made = pages.setdefault(item.path, [])
            made.append((resize_values(values, item.original_size), item.picture))
            if not item.page + 1 == item.pages == len(made):  # not the last one, or one is missing
                continue
            try:
                done.lost.update(_save(pages.pop(item.path), targets[item.path]))
                done.written += 1
            except DataError as error:
                done.problems.append(str(error))


def _translated(
    group: Sequence[_Item], translate: Callable[[Sequence[_Item]], np.ndarray], problems: list[str]
) -> Iterator[tuple[_Item, np.ndarray]]:
    """Each item with its translation; a batch that fails is taken apart, so that one image does not cost the others."""
    try:
        images = translate(group)
    except (DataError, MemoryError, RuntimeError) as error:
        if not (isinstance(error, DataError) or _out_of_memory(error)):
            raise
        width, height = _size(group[0].values)
        in_memory = f"{width} x {height} pixels do not fit into memory; use --size N"
        if len(group) == 1:
            problems.append(f"{group[0].path}: {error if isinstance(error, DataError) else in_memory}")
            return
    else:
        yield from zip(group, images, strict=True)
        return
    for item in group:
        yield from _translated([item], translate, problems)


def _out_of_memory(error: Exception) -> bool:
    """Whether ``error`` says that memory ran out; torch's allocator on the CPU says so in words only."""
    named = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return named or "can't allocate memory" in str(error) or "not enough memory" in str(error)


def _size(values: np.ndarray) -> tuple[int, int]:
    """Width and height."""
    return values.shape[1], values.shape[0]


def _read(
    targets: Mapping[Path, Path],
    side: int | None,
    taken: PixelFormat,
    made: PixelFormat,
    done: Outcome,
    free: Callable[[], int],
) -> Iterator[_Item]:
    for path, target in targets.items():
        page, pages = 0, 1
        while page < pages:
            try:
                picture = read_picture(path, taken, page, free)
            except DataError as error:
                done.problems.append(str(error))
                break
            if page == 0:
                pages = picture.description.pages if done.remarks.frames else 1
                if words := misfit(target.suffix, made, pages):
                    done.problems.append(f"{path}: {words}")
                    break
                done.remarks.add(picture.description, picture.invalid is not None)
                done.remarks.add_values(path, picture)
            values = picture.values
            size = _size(values)
            if side is not None and min(size) != side:
                scale = side / min(size)
                values = resize_values(values, (round(size[0] * scale), round(size[1] * scale)))
            yield _Item(path, values, size, picture, page, pages)
            page += 1


def _groups(items: Iterable[_Item], batch_size: int) -> Iterator[list[_Item]]:
    """Consecutive items of one size, at most ``batch_size`` of them."""
    group: list[_Item] = []
    for item in items:
        if group and (len(group) == batch_size or group[0].values.shape != item.values.shape):
            yield group
            group = []
        group.append(item)
    if group:
        yield group


def _save(pages: Sequence[tuple[np.ndarray, Picture]], target: Path) -> list[str]:
    """Write one image, whole or not at all, with what was attached to its source; returns what has no place there.

    Raises:
        DataError: This one cannot be written.
        OSError: Nothing more can be written: the disk is full or broken.
    """
    images, pictures = zip(*pages, strict=True)
    channels, attached = images[0].shape[2], pictures[0].description.attached
    holes = [picture.invalid_for(channels) for picture in pictures]
    try:
        content = encode(images, target.suffix, attached, holes, [picture.duration for picture in pictures])
    except DataError as error:
        raise DataError(f"cannot write {target}: {error}; use png (--format, or the suffix of --out)") from error
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, content)
    except OSError as error:
        if error.errno in _DISK:
            words = f"{error.strerror}: solve this, then run the same command with --skip-existing to continue"
            raise OSError(error.errno, words, str(target)) from error
        raise DataError(f"cannot write {target}: {error.strerror or error}") from error
    return left_behind(attached, target.suffix, channels, holes=any(hole is not None for hole in holes))
