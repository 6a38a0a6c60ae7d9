"""Which files a run is trained on, wherever they lie: their names and sizes, what has changed, which are damaged."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

from unpaired.data.inspection import in_threads
from unpaired.data.mapping import ValueMapping
from unpaired.data.pixels import PixelFormat, read_values
from unpaired.data.sets import sample_of, stamps
from unpaired.data.settings import DataConfig
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


def unreadable(
    domains: Sequence[Sequence[Any]], config: DataConfig, progress: Callable[[int, int], object]
) -> dict[Any, str]:
    """Decode every file once, in threads, as training would; of very large sets and of datasets some, evenly spaced.

    Args:
        domains: Source and target files, or those of several domains.
        config: How images are read.
        progress: Told how many files are done, and of how many.

    Returns:
        Those that training could not use, and why.
    """
    plain = [replace(pixels, fill_value=config.fill_value) for pixels in config.plain_formats]
    formats = plain if len(domains) == len(plain) else repeat(plain[0])

    def look(item: tuple[Any, PixelFormat]) -> str:
        path, pixels = item
        try:
            read_values(path, pixels)
        except DataError:  # it may hold what is no 8-bit picture
            try:
                read_values(path, replace(pixels, dtype="float32", mapping=ValueMapping()))
            except DataError as error:
                return str(error)
        return ""

    everything = [(path, pixels) for files, pixels in zip(domains, formats, strict=False) for path in sample_of(files)]
    threads = None if all(isinstance(path, Path) for path, _ in everything) else 1  # others' code may not stand several
    found = {}
    for number, ((path, _), reason) in enumerate(
        zip(everything, in_threads(look, everything, threads), strict=True), 1
    ):
        progress(number, len(everything))
        if reason:
            found[path] = reason
    return found
