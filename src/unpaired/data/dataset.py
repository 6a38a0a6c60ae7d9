"""Where the images of a run lie: two domains or several, for training and for scores."""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

from unpaired.config import FilePath, settings
from unpaired.data.domains import DomainFiles, MultiDomainStream, domain_names, find_domains
from unpaired.data.folders import UnpairedFiles, find_test_images, find_training_images, list_images
from unpaired.data.formats import find_formats
from unpaired.data.inspection import in_threads
from unpaired.data.reading import describe
from unpaired.data.remarks import Remarks, listing_of
from unpaired.data.samples import SampleStream
from unpaired.data.settings import DataConfig, Formats
from unpaired.data.stored import Description, Pages
from unpaired.data.stream import UnpairedStream
from unpaired.errors import ConfigError, DataError, nearest


@settings
class DatasetConfig:
    """Where the images lie: one folder in the field's layout, or one folder per domain."""

    folder: FilePath | None = None
    """Folder with trainA and trainB (and testA, testB)."""
    source: FilePath | None = None
    """Folder of the source domain, instead of the layout above."""
    target: FilePath | None = None
    """Folder of the target domain, instead of the layout above."""
    direction: Literal["AtoB", "BtoA"] = "AtoB"
    """Which domain of the folder is the source."""
    held_out_source: FilePath | None = None
    """Folder of held-out source images for scores during training, instead of valA or testA in the folder."""
    held_out_target: FilePath | None = None
    """Folder of held-out target images, instead of valB or testB in the folder."""
    domains: FilePath | None = None
    """Folder with train/<domain> (and test/<domain>) for methods of several domains, instead of DATA."""
    scored_domains: tuple[str, str] | None = None
    """Source and target among several domains for scores and sample grids; unset means the first two names."""

    def __post_init__(self) -> None:
        if self.domains is None:
            if self.scored_domains is not None:
                raise ConfigError(
                    "scored_domains names two of several domains, so it needs 'domains'; set both or none"
                )
            return
        if self.folder is not None or self.source is not None or self.target is not None:
            raise ConfigError("give either DATA (or --source and --target) for two domains, or --domains for several")
        if self.direction != "AtoB":
            raise ConfigError("direction is a matter of two domains; with 'domains' say scored_domains, source first")
        if self.scored_domains is not None and self.scored_domains[0] == self.scored_domains[1]:
            raise ConfigError(f"scored_domains names '{self.scored_domains[0]}' twice; name a source and a target")

    def scored_pair(self) -> tuple[str, str]:
        """Source and target domain for scores and grids, where there are several domains.

        Raises:
            DataError: The folder cannot be used.
            ConfigError: A name that was given is not among its domains.
        """
        assert self.domains is not None
        known = domain_names(self.domains)
        for name in self.scored_domains or ():
            if name not in known:
                raise ConfigError(
                    f"scored_domains: there is no domain '{name}'{nearest(name, known)}; known: {', '.join(known)}"
                )
        return self.scored_domains or (known[0], known[1])

    @property
    def shown_domain(self) -> str | None:
        """The target domain of scores and pictures, where there are several domains."""
        return None if self.domains is None else self.scored_pair()[1]

    def held_out_files(self, splits: Sequence[str] = ("val", "test")) -> tuple[UnpairedFiles, str] | None:
        """Images for scores and their name: those given, else of the first split there is (valA and valB, say).

        Of several domains they are the scored pair's. During training the validation images are scored, if there are
        any.

        Raises:
            DataError: A folder that is named, or one of two that belong together, cannot be used.
            ConfigError: Only one of the two was named, or a scored domain is unknown.
        """
        if self.held_out_source is not None or self.held_out_target is not None:
            found = find_test_images(None, self.held_out_source, self.held_out_target)
            words = f"{self.held_out_source} and {self.held_out_target}"
            return None if found is None else (found, words)
        for split in splits:
            places = self._places(split)
            if places and all(place.is_dir() for place in places):
                source, target = (tuple(list_images(place)) for place in places)
                words = f"{split}A and {split}B of {self.folder}"
                if self.domains is not None:
                    words = f"{' and '.join(f'{split}/{place.name}' for place in places)} of {self.domains}"
                return UnpairedFiles(source, target), words
        return None

    def _places(self, split: str) -> tuple[Path, ...]:
        """Folders of the source and the target images of a split, whether or not they exist."""
        if self.domains is not None:
            return tuple(self.domains / split / name for name in self.scored_pair())
        if self.folder is None:
            return ()
        a, b = (self.folder / f"{split}{letter}" for letter in "AB")
        return (b, a) if self.direction == "BtoA" else (a, b)

    def training_files(self, least: int = 2, skip: Collection[Path] = ()) -> UnpairedFiles:
        """The training images of the two domains, or of the scored pair of several; at least so many of each.

        Files in ``skip`` are left out.

        Raises:
            UserError: They cannot be used.
        """
        if self.domains is not None:
            return self.training_domains(least, skip).pair(*self.scored_pair())
        files = find_training_images(self.folder, self.source, self.target, least=least)
        files = UnpairedFiles(_without(files.source, skip), _without(files.target, skip))
        return files.swapped() if self.direction == "BtoA" else files

    def training_domains(self, least: int = 2, skip: Collection[Path] = ()) -> DomainFiles:
        """The training images of several domains but ``skip``. Raises ``DataError`` if they cannot be used."""
        assert self.domains is not None
        found = find_domains(self.domains, least=least)
        return DomainFiles(found.names, tuple(_without(files, skip) for files in found.files))

    def left_out(self, data: DataConfig, skip: Collection[Path] = ()) -> str:
        """What training leaves out of the folders and of their images, in one line, from their headers; or nothing.

        Raises:
            UserError: The images cannot be found.
        """
        if self.domains is not None:
            files = [path for found in self.training_domains(data.least_images, skip).files for path in found]
        else:
            found = self.training_files(data.least_images, skip)
            files = [*found.source, *found.target]
        remarks = Remarks(listing_of({path.parent for path in files}), pixels=data.plain_formats[0])
        for facts in in_threads(functools.partial(_described, pages=data.pages), files):
            if facts is not None:
                remarks.add(facts)
        return remarks.line

    def stream(
        self,
        data: DataConfig,
        seed: int,
        formats: Formats | None = None,
        turns: Sequence[int] = (),
        skip: Collection[Path] = (),
    ) -> SampleStream:
        """The endless sequence of training samples, without the files in ``skip``.

        Raises:
            UserError: The images cannot be used.
        """
        if self.domains is not None:
            return MultiDomainStream(self.training_domains(data.least_images, skip), data, seed, formats, turns)
        return UnpairedStream(self.training_files(data.least_images, skip), data, seed, formats, turns)

    def formats(self, data: DataConfig, skip: Collection[Path] = ()) -> Formats:
        """What the training images of both domains but ``skip`` are made of; several domains share one format.

        Percentiles, where they are asked for, are taken from all training images now.

        Raises:
            UserError: An image cannot be read, or the settings do not fit the images.
        """
        if self.domains is None:
            files = self.training_files(data.least_images, skip)
            return find_formats(files.source, files.target, data)
        if (data.target_channels or data.channels) != data.channels or data.target_value_range is not None:
            raise ConfigError("target_channels, target_value_range: several domains share one format; drop them")
        everything = [path for files in self.training_domains(data.least_images, skip).files for path in files]
        source, _ = find_formats(everything, (), data)
        return source, source

    def example_files(self, count: int, skip: Collection[Path] = ()) -> Sequence[Path]:
        """Source images to look at: held out if there are any, evenly spread over the sorted names."""
        places = (self._places(split) for split in ("val", "test"))
        folder = next((place[0] for place in places if place and place[0].is_dir()), None)
        paths = list_images(folder) if folder else self.training_files(1, skip).source
        return [paths[i * len(paths) // count] for i in range(min(count, len(paths)))]


def _without(files: Sequence[Path], skip: Collection[Path]) -> tuple[Path, ...]:
    return tuple(path for path in files if path not in skip)


def _described(path: Path, pages: Pages) -> Description | None:
    try:
        return describe(path, pages)
    except DataError:  # said where the image is read
        return None
