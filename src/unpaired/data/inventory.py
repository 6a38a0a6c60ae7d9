"""Which files a run is trained on, wherever they lie: their names and sizes, what has changed, which are damaged."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from pathlib import Path
from typing import Any

from unpaired.data.inspection import facts_of, in_threads
from unpaired.data.mapping import ValueMapping
from unpaired.data.pixels import PixelFormat, fitted
from unpaired.data.reading import load, name_of
from unpaired.data.remarks import Remarks
from unpaired.data.sets import Several, rest_of, sample_of, stamps
from unpaired.data.settings import DataConfig, Formats
from unpaired.data.spread import Spread, range_remarks, spread_of
from unpaired.data.stored import Description
from unpaired.data.transforms import loaded_size
from unpaired.errors import DataError

Inventory = list[list[tuple[str, int]]]
"""Name and bytes of each file of each domain; a name that is not UTF-8 has surrogates, as Python's paths do."""


def names_digest(images: Sequence[Any]) -> str:
    """What a run remembers of its training images: 16 hex digits over their names, in order."""
    digest = hashlib.sha256()
    for number, (name, _, _) in enumerate(stamps(images)):
        digest.update(b"\n" * (number > 0) + os.fsencode(name))
    return digest.hexdigest()[:16]


def state_digest(images: Sequence[Any]) -> str:
    """16 hex digits over names, sizes and times of files: equal digests, equal files, wherever they lie."""
    digest = hashlib.sha256()
    for name, size, time in stamps(images):
        digest.update(os.fsencode(name) + f"\0{size} {time}\0".encode())
    return digest.hexdigest()[:16]


def inventory(domains: Sequence[Sequence[Any]]) -> Inventory:
    """The files of each domain as a run remembers them."""
    return [[(name, size) for name, size, _ in stamps(images)] for images in domains]


def inventory_json(domains: Sequence[Sequence[Any]]) -> bytes:
    """:func:`inventory` as JSON, without a Python object for each file."""
    parts = (b", ".join(json.dumps([name, size]).encode() for name, size, _ in stamps(images)) for images in domains)
    return b"[" + b", ".join(b"[" + part + b"]" for part in parts) + b"]"


def changes(before: Inventory, now: Inventory) -> dict[str, list[str]]:
    """Names of the files that were ``removed``, ``added`` or have another size (``changed``); empty if all agree."""
    found: dict[str, list[str]] = {"removed": [], "added": [], "changed": []}
    for old, new in zip(before, now, strict=True) if len(before) == len(now) else ():
        there, here = (Counter(map(tuple, files)) for files in (old, new))
        removed, added = ({str(name) for name, _ in files} for files in (there - here, here - there))
        for kind, names in (("removed", removed - added), ("added", added - removed), ("changed", removed & added)):
            found[kind] += sorted(names)
    if len(before) != len(now):
        found["changed"].append(f"{len(before)} domains, now {len(now)}")
    return {kind: names for kind, names in found.items() if names}


@dataclass
class Seen:
    """What decoding the training images once has shown.

    Attributes:
        remarks: What it leaves out of them.
        spreads: Of each domain, names and values of its images.
        total: How many there are; of large sets only some were decoded.
        bad: Those that training could not use, and why.
        decoded: How many were decoded.
    """

    remarks: Remarks
    spreads: list[list[tuple[str, Spread]]]
    total: int
    bad: dict[Any, str] = field(default_factory=dict)
    decoded: int = 0

    def lines(self, formats: Formats, domains: Sequence[str]) -> Iterator[str]:
        """What a person should know before training: what is left out, and where values do not suit their range.

        Args:
            formats: Of source and target images; several domains share the first.
            domains: Their names.
        """
        if line := self.remarks.line:
            seen = f" (of {self.decoded:,} of {self.total:,} images)" if self.decoded < self.total else ""
            yield line + seen
        for number, (name, images) in enumerate(zip(domains, self.spreads, strict=True)):
            target = number if len(domains) == len(formats) else 0
            option = "--target-value-range" if target else "--value-range"
            for remark in range_remarks(images, formats[target], f"{name} images", option):
                yield f"Warning: {remark.words}."


def look_over(domains: Sequence[Sequence[Any]], config: DataConfig, progress: Callable[[int, int], object]) -> Seen:
    """Decode every file once, in threads, as training would; of very large sets and of datasets some, evenly spaced.

    Args:
        domains: Source and target files, or those of several domains.
        config: How images are read and brought to size.
        progress: Told how many files are done, and of how many.
    """
    plain = [replace(pixels, fill_value=config.fill_value, pages=config.pages) for pixels in config.plain_formats]
    formats = plain if len(domains) == len(plain) else repeat(plain[0])

    def look(item: tuple[int, Any, PixelFormat]) -> DataError | tuple[Description, bool, Spread | None]:
        _, path, pixels = item
        try:
            stored = load(path, pages=pixels.pages, channels=pixels.channels, profiles=pixels.colour_profiles)
            try:
                values = fitted(stored, pixels, name_of(path))
            except DataError:  # it may hold what is no 8-bit picture
                values = fitted(stored, replace(pixels, dtype="float32", mapping=ValueMapping()), name_of(path))
            loaded_size(values.shape[1], values.shape[0], path, config)
        except DataError as error:
            return error
        return facts_of(stored.description), stored.invalid is not None, spread_of(stored)

    everything = [(number, path, pixels) for number, (files, pixels) in enumerate(zip(domains, formats, strict=False))
                  for path in sample_of(files)]  # fmt: skip
    own = all(isinstance(path, Path) for _, path, _ in everything)
    threads = None if own else 1  # others' code may not stand several
    found = Seen(Remarks(rest_of(Several(domains)), pixels=plain[0]), [[] for _ in domains], sum(map(len, domains)))
    results = in_threads(look, everything, threads)
    for (number, path, _), seen in zip(everything, results, strict=True):
        found.decoded += 1
        progress(found.decoded, len(everything))
        if isinstance(seen, DataError):
            found.bad[path] = str(seen)
            continue
        facts, no_data, spread = seen
        found.remarks.add(facts, no_data)
        if spread is not None:
            found.spreads[number].append((short_name(path), spread))
    return found


def short_name(image: Any) -> str:
    """What an image is called in lists: its folder's name and its own."""
    return f"{image.parent.name}/{image.name}"
