"""Several domains: one folder of images each, and the balanced sequence of samples between all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unpaired.data.folders import UnpairedFiles, as_images, missing
from unpaired.data.places import check_count, images_in
from unpaired.data.samples import AS_THEY_ARE, Choice, ImageChanges, SampleStream, permutation
from unpaired.data.settings import DataConfig, Formats
from unpaired.errors import ConfigError, DataError, nearest

_LAYOUT = "expected one folder of images per domain, DIR/train/<domain> (and, for scores, DIR/test/<domain>)"
# Purposes of random numbers; 0 to 2 are those of two domains and of the crops.
_PAIR_ORDER, _SOURCE_ORDER, _TARGET_ORDER = 3, 4, 5


@dataclass(frozen=True)
class DomainFiles:
    """The image files of several domains."""

    names: tuple[str, ...]
    """Names of the domains, sorted, case-sensitively; a domain's number is its position here."""
    files: tuple[Sequence[Any], ...]
    """Images of each domain, sorted by name; equal positions mean nothing."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "files", tuple(map(as_images, self.files)))

    def __repr__(self) -> str:
        counts = (f"{len(files):,} files of {name}" for name, files in zip(self.names, self.files, strict=True))
        return f"DomainFiles({', '.join(counts)})"

    def pair(self, source: str, target: str) -> UnpairedFiles:
        """The files of two domains, one translated to the other. Raises ``ConfigError`` for a name that is unknown."""
        return UnpairedFiles(self.files[self.number(source)], self.files[self.number(target)])

    def number(self, name: str) -> int:
        """Position of a domain. Raises ``ConfigError`` for a name that is unknown."""
        if name not in self.names:
            raise ConfigError(f"there is no domain '{name}'{nearest(name, self.names)}; known: {', '.join(self.names)}")
        return self.names.index(name)


def domain_names(data: Path | str, split: str = "train") -> tuple[str, ...]:
    """Names of the domains in ``data``: the folders in ``data/train``, sorted; hidden ones are skipped.

    Raises:
        DataError: A folder is missing, cannot be read, or holds fewer than two others.
    """
    data = Path(data)
    place = data / split
    if not place.is_dir():
        if (data / f"{split}A").is_dir():
            raise DataError(
                f"{data}: holds {split}A and {split}B, the layout of two domains; {_LAYOUT}, or a method of two domains"
            )
        problem = f"{data}: is a file, not a folder" if data.is_file() else missing(place if data.is_dir() else data)
        raise DataError(f"{problem}; {_LAYOUT}")
    try:
        names = sorted(entry.name for entry in place.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{place}: cannot be read: {error.strerror or error}") from error
    if len(names) < 2:
        found = f"only one domain ({names[0]})" if names else "no folder"
        raise DataError(f"{place}: holds {found}; at least two domains are needed, three or more are recommended")
    return tuple(names)


def find_domains(data: Path | str, recursive: bool = False, least: int = 2) -> DomainFiles:
    """Find the training images of all domains, ``data/train/<domain>``.

    Args:
        data: A folder that holds ``train`` with one folder per domain.
        recursive: Descend into the subfolders of a domain's folder.
        least: How many images a domain needs.

    Raises:
        DataError: A folder is missing, cannot be read or holds too few images, or there are fewer than 2 domains.
    """
    names = domain_names(data)
    places = [Path(data) / "train" / name for name in names]
    files = tuple(images_in(place, recursive) for place in places)
    for place, found in zip(places, files, strict=True):
        check_count(place, found, least)
    return DomainFiles(names, files)


class MultiDomainStream(SampleStream):
    """Sample ``k`` of an endless, reproducible sequence between several domains: ``stream[k]``.

    D domains make D (D - 1) ordered pairs of a source and another target. Each cycle of so many samples takes every
    pair once, in an order of its own. A domain's images are walked in passes, once as sources and once more as targets:
    a pass is a permutation of its own that uses every image once. So is no domain seen more often than another, however
    many images it has. The number of processes, the batch size and where a run was interrupted change nothing.

    Args:
        files: At least one file in each of at least two domains.
        config: How images are read and cropped. No image is read yet.
        seed: 0 or greater.
        formats: What images are made of, as sources and as targets; unset: 8-bit images, whatever the files are.
        turns, changes: As :class:`SampleStream` has them.

    Raises:
        ConfigError: The seed is negative.
        DataError: A domain has no file, or there are fewer than two.
    """

    def __init__(
        self,
        files: DomainFiles,
        config: DataConfig,
        seed: int,
        formats: Formats | None = None,
        turns: Sequence[int] = (),
        changes: ImageChanges = AS_THEY_ARE,
    ) -> None:
        if len(files.names) < 2:
            raise DataError(f"at least two domains are needed, not {len(files.names)}")
        for name, found in zip(files.names, files.files, strict=True):
            if not found:
                raise DataError(f"the domain {name} has no image")
        super().__init__(files.files, config, seed, formats, turns, changes)
        self.files = files
        count = len(files.names)
        self._pairs = [(s, t) for s in range(count) for t in range(count) if s != t]
        self._first_path = np.cumsum([0, *self.domain_sizes]).tolist()

    @property
    def samples_per_pass(self) -> int:
        """Samples after which every image of every domain was a source and a target at least once.

        These are whole cycles. Where D domains have n images each and D - 1 divides n, an epoch is D n samples.
        """
        cycles = -(-max(self.domain_sizes) // (len(self.files.names) - 1))
        return cycles * len(self._pairs)

    def choose(self, k: int) -> Choice:
        if k < 0:
            raise IndexError(f"samples are numbered from 0, got {k}")
        cycle, place = divmod(k, len(self._pairs))
        order = permutation(len(self._pairs), self.seed, _PAIR_ORDER, cycle)
        pairs = [self._pairs[number] for number in order[: place + 1]]
        source, target = pairs[-1]
        # Each cycle uses every domain D - 1 times as source and as target; what came before in this one adds to that.
        before = cycle * (len(self.files.names) - 1) - 1
        source_use = before + sum(s == source for s, _ in pairs)
        target_use = before + sum(t == target for _, t in pairs)
        return Choice(
            self._path_number(source, source_use, _SOURCE_ORDER),
            self._path_number(target, target_use, _TARGET_ORDER),
            (source, target),
        )

    def _path_number(self, domain: int, use: int, purpose: int) -> int:
        return self._first_path[domain] + self._file_number(use, self.domain_sizes[domain], purpose, domain)
