"""Where the images of a run lie: two domains or several, for training and for scores."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from unpaired.config import FilePath, Positive, settings
from unpaired.data.augment import PYTHON, load_transform
from unpaired.data.domains import DomainFiles, MultiDomainStream, domain_names, find_domains
from unpaired.data.folders import UnpairedFiles, is_dataset, list_images
from unpaired.data.formats import find_formats
from unpaired.data.huggingface import pair_of
from unpaired.data.places import check_count, find_test_images, find_training_images, images_in
from unpaired.data.samples import ImageChanges, SampleStream
from unpaired.data.sets import Several, python_dataset, without
from unpaired.data.settings import DataConfig, Formats
from unpaired.data.stream import UnpairedStream
from unpaired.errors import ConfigError, nearest


@dataclass(frozen=True, eq=False)
class Objects:
    """Images and a transform that are handed over in Python.

    Attributes:
        source, target: Map-style datasets of the two domains, or neither.
        held_out: Two more, for scores.
        transform: Applied to each loaded image (:mod:`unpaired.data.augment`).
    """

    source: Any = None
    target: Any = None
    held_out: tuple[Any, Any] | None = None
    transform: Callable[..., Any] | None = None


@settings
class DatasetConfig:
    """Where the images lie: one folder in the field's layout, or one folder per domain.

    A folder may also be ``hf:NAME``, which the library ``datasets`` reads (:mod:`unpaired.data.huggingface`).
    """

    folder: FilePath | None = None
    """Folder with trainA and trainB (and testA, testB)."""
    source: FilePath | tuple[FilePath, ...] | None = None
    """Folder of the source domain, or several, instead of the layout above."""
    target: FilePath | tuple[FilePath, ...] | None = None
    """Folder of the target domain, or several, instead of the layout above."""
    direction: Literal["AtoB", "BtoA"] = "AtoB"
    """Which domain of the folder is the source; with ``source`` and ``target`` it is AtoB."""
    held_out_source: FilePath | None = None
    """Folder of held-out source images for scores during training, instead of valA or testA in the folder."""
    held_out_target: FilePath | None = None
    """Folder of held-out target images, instead of valB or testB in the folder."""
    domains: FilePath | None = None
    """Folder with train/<domain> (and test/<domain>) for multi-domain methods, instead of DATA."""
    scored_domains: tuple[str, str] | None = None
    """Source and target among several domains for scores and sample grids; unset means the first two names."""
    source_weights: tuple[Positive, ...] = ()
    """How often the images of each source folder are shown, in proportion; unset: every image equally often."""
    target_weights: tuple[Positive, ...] = ()
    """The same for the target folders."""
    objects: Annotated[Any, Field(exclude=True)] = field(default=None, compare=False, repr=False)
    """An :class:`Objects`; what is given in Python and cannot be stored."""

    def __post_init__(self) -> None:
        if self.objects is not None and not isinstance(self.objects, Objects):
            raise ConfigError("unknown setting 'objects'")
        for role in ("source", "target"):
            weights, places = getattr(self, f"{role}_weights"), places_of(getattr(self, role))
            if weights and len(weights) != len(places):
                raise ConfigError(
                    f"{role}_weights: {len(weights)} numbers for {len(places)} folders of {role}; give one for each "
                    "folder, or none"
                )
        if self.domains is None:
            if self.scored_domains is not None:
                raise ConfigError(
                    "scored_domains names two of several domains, so it needs 'domains'; set both or none"
                )
            return
        if self.folder is not None or self.source is not None or self.target is not None:
            raise ConfigError("give either DATA (or --source and --target) for two domains, or --domains for several")
        if self.direction != "AtoB":
            raise ConfigError("direction is for two domains; with 'domains' give scored_domains, source first")
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
        if self.objects is not None and self.objects.held_out is not None:
            held_out = [python_dataset(items, "held_out") for items in self.objects.held_out]
            return UnpairedFiles(*held_out), f"{held_out[0].label} and {held_out[1].label}"
        named = [place for place in (self.held_out_source, self.held_out_target) if place is not None]
        if is_dataset(self.folder) and not named:
            pairs = ((split, pair_of(self.folder, split)) for split in splits)
            return next(((self._turned(pair), f"{split} of {self.folder}") for split, pair in pairs if pair), None)
        if named:
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

    def training_images(self, least: int = 2) -> TrainingImages:
        """All training images, listed now; at least so many in each domain.

        Raises:
            UserError: They cannot be used.
        """
        transform = self.objects.transform if self.objects is not None else None
        if self.direction != "AtoB" and (self.source is not None or self.target is not None):
            raise ConfigError("direction: applies to DATA only; with source and target, swap these instead")
        if self.domains is not None:
            return TrainingImages(find_domains(self.domains, least=least), self.scored_pair(), transform)
        if self.objects is not None and self.objects.source is not None:
            source, target = (python_dataset(getattr(self.objects, role), role) for role in ("source", "target"))
            return TrainingImages(UnpairedFiles(source, target), transform=transform)
        named = [*places_of(self.source), *places_of(self.target)]
        if any(str(place).startswith(PYTHON) for place in named):
            raise ConfigError(f"{named[0]}: was given in Python; call unpaired.train(..., source=, target=) again")
        if self.folder is None and self.source is not None and self.target is not None:
            files = UnpairedFiles(_joined(self.source, self.source_weights), _joined(self.target, self.target_weights))
        else:
            firsts = [(*places_of(place), None)[0] for place in (self.source, self.target)]
            files = find_training_images(self.folder, firsts[0], firsts[1], least=0)
        for place, found in ((self.source, files.source), (self.target, files.target)):
            check_count((*places_of(place), found[0].parent)[0], found, least)
        return TrainingImages(files.swapped() if self.direction == "BtoA" else files, transform=transform)

    def training_files(self, least: int = 2) -> UnpairedFiles:
        """The training images of the two domains, or of the scored pair of several; errors as of the above."""
        return self.training_images(least).pair

    def stream(
        self, data: DataConfig, seed: int, formats: Formats | None = None, turns: Sequence[int] = ()
    ) -> SampleStream:
        """The endless sequence of training samples. Raises ``UserError`` where the images cannot be used."""
        return self.training_images(data.least_images).stream(data, seed, formats, turns)

    def example_files(self, count: int, images: TrainingImages | None = None) -> Sequence[Any]:
        """Source images to look at: held out if there are any, else of training, evenly spread over the names."""
        held_out = None
        if self.objects is not None and self.objects.held_out is not None:
            held_out = self.held_out_files()
        found: Sequence[Any]
        if held_out is not None:
            found = held_out[0].source
        elif is_dataset(self.folder):
            pairs = (pair_of(self.folder, split) for split in ("val", "test"))
            found = next((self._turned(pair).source for pair in pairs if pair), ()) or self._training(images).source
        else:
            held = (self._places(split) for split in ("val", "test"))
            folder = next((place[0] for place in held if place and place[0].is_dir()), None)
            found = list_images(folder) if folder else self._training(images).source
        return [found[i * len(found) // count] for i in range(min(count, len(found)))]

    def _training(self, images: TrainingImages | None) -> UnpairedFiles:
        return images.pair if images is not None else self.training_files(1)

    def _turned(self, pair: Sequence[Any]) -> UnpairedFiles:
        files = UnpairedFiles(*pair)
        return files.swapped() if self.direction == "BtoA" else files


@dataclass(frozen=True)
class TrainingImages:
    """The training images of a run, listed once.

    Attributes:
        files: Of two domains, or of several.
        scored: Names of the two that are scored, where there are several.
        transform: As of :class:`~unpaired.data.samples.ImageChanges`, where one was given as an object.
        stand_in: As there.
    """

    files: UnpairedFiles | DomainFiles
    scored: tuple[str, str] = ("", "")
    transform: Callable[..., Any] | None = None
    stand_in: bool = False

    @property
    def domains(self) -> tuple[Sequence[Any], ...]:
        """The images of each domain."""
        files = self.files
        return tuple(files.files) if isinstance(files, DomainFiles) else (files.source, files.target)

    @property
    def pair(self) -> UnpairedFiles:
        """Source and target, or the scored ones of several domains."""
        return self.files.pair(*self.scored) if isinstance(self.files, DomainFiles) else self.files

    def without(self, skip: Collection[Any]) -> TrainingImages:
        """The same but for images that cannot be read; what is found to be damaged later is stood in for."""
        kept = tuple(without(images, skip) for images in self.domains)
        files = DomainFiles(self.files.names, kept) if isinstance(self.files, DomainFiles) else UnpairedFiles(*kept)
        return replace(self, files=files, stand_in=True)

    def stream(
        self, data: DataConfig, seed: int, formats: Formats | None = None, turns: Sequence[int] = ()
    ) -> SampleStream:
        """The endless sequence of training samples. Raises ``UserError`` where the settings do not fit."""
        transform = self.transform or (load_transform(data.transform) if data.transform else None)
        changes = ImageChanges(transform, self.stand_in)
        if isinstance(self.files, DomainFiles):
            return MultiDomainStream(self.files, data, seed, formats, turns, changes)
        return UnpairedStream(self.files, data, seed, formats, turns, changes)

    def formats(self, data: DataConfig) -> Formats:
        """What the images of both domains are made of; several domains share one format.

        Percentiles, where they are asked for, are taken from the training images now.

        Raises:
            UserError: An image cannot be read, or the settings do not fit the images.
        """
        if isinstance(self.files, UnpairedFiles):
            return find_formats(self.files.source, self.files.target, data)
        if (data.target_channels or data.channels) != data.channels or data.target_value_range is not None:
            raise ConfigError("target_channels, target_value_range: several domains share one format; drop them")
        source, _ = find_formats(Several(self.domains), (), data)
        return source, source


def places_of(given: Path | tuple[Path, ...] | None) -> tuple[Path, ...]:
    """The folders of a domain."""
    return () if given is None else (given,) if isinstance(given, Path) else given


def _joined(given: Path | tuple[Path, ...], weights: tuple[float, ...]) -> Sequence[Any]:
    """The images of one domain, of all its places."""
    parts = [images_in(place) for place in places_of(given)]
    return Several(parts, weights) if len(parts) > 1 else parts[0]
