"""User-supplied masks of what may change, read from a folder of mask images or from a file of boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unpaired.data import list_images
from unpaired.data.reading import describe, load
from unpaired.errors import DataError
from unpaired.evaluation.metrics.unchanged import kept_outside, mask_of_boxes
from unpaired.files import read_json


def read_kept(
    where: Path, sources: Sequence[Path], size: tuple[int, int], given: Sequence[Path] = ()
) -> list[Tensor | None]:
    """Whether each pixel of each source must stay, (height, width) bool; ``None`` for a source without a mask.

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
    entries: dict[str, Any] = (
        _boxes(where) if where.suffix == ".json" or where.is_file() else {path.name: path for path in _images(where)}
    )
    by_stem: dict[str, str] = {}
    for name in entries:
        if (stem := Path(name).stem) in by_stem:
            raise DataError(f"{where}: '{by_stem[stem]}' and '{name}' are of one source; leave one out")
        by_stem[stem] = name
    stems = {path.stem for path in (*sources, *given)}
    if strange := [name for stem, name in by_stem.items() if stem not in stems]:
        more = f" ({len(strange)} such names)" if len(strange) > 1 else ""
        raise DataError(
            f"{where}: there is no source image '{strange[0]}' in {sources[0].parent}{more}; masks and boxes need "
            "the names of the sources"
        )
    if not by_stem.keys() & {path.stem for path in sources}:
        raise DataError(f"{where}: no source image has a mask or boxes there")
    found: list[Tensor | None] = []
    for source in sources:
        if source.stem not in by_stem:
            found.append(None)
            continue
        name = by_stem[source.stem]
        facts = describe(source)
        height, width = facts.height, facts.width
        if isinstance(entries[name], Path):
            mask = _mask(entries[name], height, width)
        else:
            try:
                mask = mask_of_boxes(entries[name], height, width)
            except DataError as error:
                raise DataError(f"{where}: '{name}': {error}") from error
        found.append(kept_outside(mask, *size) > 0)
    return found


def _boxes(where: Path) -> dict[str, list[Any]]:
    try:
        found = read_json(where)
    except FileNotFoundError:
        raise DataError(f"{where}: there is no such file") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{where}: cannot be read as JSON ({error})") from error
    boxes = found.get("boxes") if isinstance(found, dict) else None
    if not isinstance(boxes, dict) or not boxes or not all(isinstance(each, list) for each in boxes.values()):
        raise DataError(
            f'{where}: expected {{"boxes": {{file name: [[left, top, right, bottom], ...]}}}} with at least one file'
        )
    return boxes


def _images(where: Path) -> list[Path]:
    found = list_images(where)
    for path in found:
        if path.suffix.lower() in (".jpg", ".jpeg"):
            raise DataError(f"{path}: JPEG smears masks beyond their edges; save masks as PNG")
    return found


def _mask(path: Path, height: int, width: int) -> Tensor:
    stored = load(path)
    if stored.values.shape[:2] != (height, width):
        has = f"{stored.values.shape[1]} x {stored.values.shape[0]}"
        raise DataError(f"{path}: the mask is {has} pixels, its source image {width} x {height}; make them alike")
    marked = stored.values != 0
    if stored.description.alpha:  # colour that cannot be seen marks nothing
        marked = marked[..., :-1] & marked[..., -1:]
    return torch.from_numpy(marked.any(-1))
