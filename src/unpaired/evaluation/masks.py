"""A person's masks of what may change, read from a folder of mask images or from a file of boxes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unpaired.data import list_images
from unpaired.data.arrays import read_stored
from unpaired.errors import DataError
from unpaired.evaluation.image_files import LazyImages
from unpaired.evaluation.metrics.unchanged import kept_outside, mask_of_boxes


class KeptMasks(LazyImages):
    """Per source, weights (height, width) of what must stay, 0 or 1; ``None`` for a source without a mask.

    Masks are read when they are asked for, so that any number of them fits into memory.

    Args:
        where: A folder of mask images of the sources' names and sizes, non-zero where something may change; or a JSON
            file ``{"boxes": {file name: [[left, top, right, bottom], ...]}}`` in pixels of the source files. Files are
            known by their names up to the suffix; an empty list means that nothing may change.
        sources: The source files that are scored, in order.
        size: Height and width to which the sources are resized.
        given: All source files that there were, where some of them could not be read.

    Raises:
        DataError: There is nothing to read, an entry belongs to no source, a mask has another size than its source or
            is a JPEG, or a box does not lie inside the image.
    """

    def __init__(self, where: Path, sources: Sequence[Path], size: tuple[int, int], given: Sequence[Path] = ()) -> None:
        super().__init__(len(sources), self._kept)
        self.size = size
        entries = _boxes(where) if where.suffix == ".json" or where.is_file() else _masks(where)
        by_stem: dict[str, tuple[str, Callable[[int, int], Tensor]]] = {}
        for name, entry in entries.items():
            if (stem := Path(name).stem) in by_stem:
                raise DataError(f"{where}: '{by_stem[stem][0]}' and '{name}' are of one source; leave one out")
            by_stem[stem] = (name, entry)
        stems = {path.stem for path in (*sources, *given)}
        strange = [name for stem, (name, _) in by_stem.items() if stem not in stems]
        if strange:
            more = f" ({len(strange)} such names)" if len(strange) > 1 else ""
            raise DataError(
                f"{where}: there is no source image '{strange[0]}' in {sources[0].parent}{more}; masks and boxes need "
                "the names of the sources"
            )
        self._entries = [by_stem[path.stem][1] if path.stem in by_stem else None for path in sources]
        self._sides = [
            (0, 0) if entry is None else read_stored(path).values.shape[:2]
            for entry, path in zip(self._entries, sources, strict=True)
        ]
        self.masked = sum(entry is not None for entry in self._entries)
        """Sources that have a mask."""
        if not self.masked:
            raise DataError(f"{where}: no source image has a mask or boxes there")
        self.without = [path.name for path, entry in zip(sources, self._entries, strict=True) if entry is None]
        """Names of the sources that have none."""
        for index in range(len(self)):  # so that a person hears of everything that is wrong before any scoring
            self._mask(index)

    def _kept(self, index: int) -> Tensor | None:
        mask = self._mask(index)
        return None if mask is None else kept_outside(mask, *self.size)

    def _mask(self, index: int) -> Tensor | None:
        entry = self._entries[index]
        return None if entry is None else entry(*self._sides[index])


def _boxes(where: Path) -> Mapping[str, Callable[[int, int], Tensor]]:
    try:
        found = json.loads(where.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{where}: there is no such file") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{where}: cannot be read as JSON ({error})") from error
    boxes = found.get("boxes") if isinstance(found, dict) else None
    if not isinstance(boxes, dict) or not boxes or not all(isinstance(each, list) for each in boxes.values()):
        raise DataError(
            f'{where}: expected {{"boxes": {{file name: [[left, top, right, bottom], ...]}}}} with at least one file'
        )

    def reader(name: str, entry: list[Any]) -> Callable[[int, int], Tensor]:
        def read(height: int, width: int) -> Tensor:
            try:
                return mask_of_boxes(entry, height, width)
            except DataError as error:
                raise DataError(f"{where}: '{name}': {error}") from error

        return read

    return {name: reader(name, entry) for name, entry in boxes.items()}


def _masks(where: Path) -> Mapping[str, Callable[[int, int], Tensor]]:
    def reader(path: Path) -> Callable[[int, int], Tensor]:
        def read(height: int, width: int) -> Tensor:
            stored = read_stored(path)
            if stored.values.shape[:2] != (height, width):
                has = f"{stored.values.shape[1]} x {stored.values.shape[0]}"
                raise DataError(
                    f"{path}: the mask is {has} pixels, its source image {width} x {height}; make them alike"
                )
            marked = stored.values != 0
            if stored.alpha:  # colour that cannot be seen marks nothing
                marked = marked[..., :-1] & marked[..., -1:]
            return torch.from_numpy(marked.any(-1))

        return read

    found = list_images(where)
    for path in found:
        if path.suffix.lower() in (".jpg", ".jpeg"):
            raise DataError(f"{path}: JPEG smears masks beyond their edges; save masks as PNG")
    return {path.name: reader(path) for path in found}
