"""What all endless sequences of training samples share: sample ``k`` is a function of (seed, k) alone."""

from __future__ import annotations

import bisect
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from unpaired.data.augment import apply
from unpaired.data.cache import ImageCache
from unpaired.data.channels import repeat_channels
from unpaired.data.pixels import PixelFormat
from unpaired.data.sets import Several
from unpaired.data.settings import DataConfig, Formats
from unpaired.data.transforms import load_resized, random_crop
from unpaired.errors import ConfigError, DataError, UserError

# Keys that keep the random numbers of different purposes apart. Only raw bits of seeded generators are used, because
# numpy guarantees those, and not its shuffles, to be the same in every version.
CROPS, TRANSFORMS = 2, 6
_STAND_INS = 100
"""Damaged images in a row after which training ends."""


@dataclass(frozen=True)
class ImageChanges:
    """What is done to images beyond the settings.

    Attributes:
        transform: A user's transform, applied to each loaded image before the crop (:mod:`unpaired.data.augment`).
        stand_in: The next image of the domain takes the place of one that cannot be read.
    """

    transform: Callable[..., Any] | None = None
    stand_in: bool = False


AS_THEY_ARE = ImageChanges()


def random_bits(count: int, *key: int) -> np.ndarray:
    """``count`` random integers in [0, 2**64), a function of ``key``."""
    return np.random.PCG64(np.random.SeedSequence(key)).random_raw(count)


@functools.lru_cache(maxsize=64)
def permutation(count: int, *key: int) -> np.ndarray:
    """A permutation of 0 to ``count - 1``, a function of ``key``."""
    return np.argsort(random_bits(count, *key), kind="stable").astype(np.int32 if count < 2**31 else np.int64)


def decay_turns(lengths: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """Where the learning rate begins to fall, and where it is raised again, for :class:`SampleStream`.

    Args:
        lengths: First sample of each stretch of the training, and how many samples, counted from the start of the run,
            are trained at the full learning rate by the schedule that holds in it. The first stretch begins at 0; a
            further one begins where a run was made longer.

    Returns:
        Samples in rising order; decay begins at the first, ends at the second, and so on.

    >>> decay_turns([(0, 50)]), decay_turns([(0, 50), (100, 200)]), decay_turns([(0, 50), (100, 80)])
    ((50,), (50, 100, 200), (50,))
    """
    turns: list[int] = []
    for number, (first, constant) in enumerate(lengths):
        decays = len(turns) % 2 == 1
        if decays and constant > first:
            turns.append(first)
            decays = False
        begin = max(first, constant)
        if not decays and (number + 1 == len(lengths) or begin < lengths[number + 1][0]):
            turns.append(begin)
    return tuple(turns)


class Choice(NamedTuple):
    """What one sample shows.

    Attributes:
        source: Number of the source image among the stream's ``paths``.
        target: Number of the target image among them.
        domains: Positions of their domains, where there are several to choose from.
    """

    source: int
    target: int
    domains: tuple[int, int] | None = None


@dataclass(frozen=True)
class Stacked:
    """A local batch as a loading process hands it on.

    Attributes:
        source: (b, c, H, W) of the source format's type.
        target: (b, c, H, W) of the target format's type.
        index: (b,) int64.
        domains: (b, 2) int64, source and target, where there are several domains.
    """

    source: torch.Tensor
    target: torch.Tensor
    index: torch.Tensor
    domains: torch.Tensor | None


class SampleStream(Dataset[dict[str, Any]], ABC):
    """Base of the endless, reproducible sequences of samples: ``stream[k]``.

    The number of processes, the batch size and where a run was interrupted cannot change what ``stream[k]`` is.

    Args:
        domains: The files of each domain.
        config: How images are read and cropped. No image is read yet.
        seed: 0 or greater.
        formats: What source and target images are made of; unset: 8-bit images, whatever the files are.
        turns: Samples where loading changes, in order: from the first on they are loaded with ``config.in_decay``, from
            the second on as before again, and so on (:func:`decay_turns`). Without any, decay never begins.
        changes: Whether images are transformed, and what becomes of those that cannot be read.

    Raises:
        ConfigError: The seed is negative.
    """

    def __init__(
        self,
        domains: Sequence[Sequence[Any]],
        config: DataConfig,
        seed: int,
        formats: Formats | None = None,
        turns: Sequence[int] = (),
        changes: ImageChanges = AS_THEY_ARE,
    ) -> None:
        if seed < 0:
            raise ConfigError(f"seed is {seed}: it must be 0 or greater")
        self.domains = domains
        self.domain_sizes = [len(files) for files in domains]
        self.paths = Several(domains)
        self.changes = changes
        self.config, self._config_in_decay = config, config.in_decay
        self.seed = seed
        self.formats = formats or config.plain_formats
        self.channels = max(pixels.channels for pixels in self.formats)
        self.turns = tuple(turns) if config.changes_with_decay else ()
        self._cache, self._caches_decay = self._new_cache(), False

    def _new_cache(self) -> ImageCache:
        return ImageCache(len(self.paths), int(self.config.cache_gib * 2**30), self.config.num_workers)

    @property
    def images_per_epoch(self) -> int:
        """Samples that count as one epoch: as the settings say, else until every image was used at least once."""
        return self.config.images_per_epoch or self.samples_per_pass

    @property
    @abstractmethod
    def samples_per_pass(self) -> int:
        """Samples after which every image was used at least once."""

    @abstractmethod
    def choose(self, k: int) -> Choice:
        """Which images sample ``k`` shows, ``k`` at least 0."""

    def in_decay(self, k: int) -> bool:
        """Whether sample ``k`` is loaded as images are once the learning rate falls."""
        return bisect.bisect_right(self.turns, k) % 2 == 1

    def cache_for(self, *, decay: bool) -> None:
        """Keep in memory, from now on, the images of samples before the decay or of those in it.

        The two are of different sizes, and no sample of the one kind follows one of the other for long, so both never
        share the memory: a new cache takes the place of the old one, whose memory goes back to the system once the
        processes that still read from it have ended. Samples of the other kind are right, too, but not kept.
        """
        if decay != self._caches_decay:
            self._cache, self._caches_decay = self._new_cache(), decay

    @property
    def cached_bytes(self) -> int:
        """Bytes of decoded images in memory now."""
        return self._cache.used_bytes

    def _file_number(self, use: int, count: int, *purpose: int) -> int:
        """Which of ``count`` files the use number ``use`` takes: in each pass every one once, in a new order."""
        number_of_pass, position = divmod(use, count)
        return int(permutation(count, self.seed, *purpose, number_of_pass)[position])

    def __getitem__(self, k: int) -> dict[str, Any]:
        """Return sample ``k``.

        Returns:
            ``source`` and ``target``, float32 (C, H, W) in [-1, 1] with H and W of ``image_size`` and C = ``channels``,
            the larger count of the two domains, ``index`` = k and, where there are several domains, their positions
            ``source_domain`` and ``target_domain``.

        Raises:
            DataError: One of the two files cannot be used.
        """
        choice = self.choose(k)
        source, target = self._crops(k, choice)
        return {
            "source": self.to_floats(torch.from_numpy(source), 0),
            "target": self.to_floats(torch.from_numpy(target), 1),
            "index": k,
            **(dict(zip(("source_domain", "target_domain"), choice.domains, strict=True)) if choice.domains else {}),
        }

    def to_floats(self, values: torch.Tensor, role: int, pin_memory: bool = False) -> torch.Tensor:
        """Values (..., c, H, W) of the source (role 0) or the target (1) as networks see them, (..., C, H, W)."""
        return repeat_channels(self.formats[role].to_floats(values, pin_memory), self.channels)

    def _crops(self, k: int, choice: Choice) -> tuple[np.ndarray, np.ndarray]:
        draws = [int(x) for x in random_bits(12, self.seed, CROPS, k)]
        decay = self.in_decay(k)
        config = self._config_in_decay if decay else self.config
        source, target = (
            self._changed(self._loaded(number, config, pixels, keep=decay == self._caches_decay), k, role)
            for role, (number, pixels) in enumerate(zip((choice.source, choice.target), self.formats, strict=True))
        )
        # Row, column and horizontal flip of both came first; what was added to a crop later is drawn behind them.
        return (
            random_crop(source, config, (*draws[0:3], draws[6], *draws[8:10])),
            random_crop(target, config, (*draws[3:6], draws[7], *draws[10:12])),
        )

    def _loaded(self, number: int, config: DataConfig, pixels: PixelFormat, *, keep: bool) -> np.ndarray:
        first, last = self.paths.bounds(number)
        for turn in range(_STAND_INS):
            load = functools.partial(load_resized, self.paths[number], config, pixels)
            try:
                return self._cache.get(number, load) if keep else load()
            except DataError:
                if not self.changes.stand_in or turn + 1 == min(_STAND_INS, last - first):
                    raise
            number = number + 1 if number + 1 < last else first
        raise AssertionError("the last turn returns or raises")

    def _changed(self, values_HWC: np.ndarray, k: int, role: int) -> np.ndarray:
        """An image through the user's transform, whose draws are a function of the seed, k and the role."""
        if self.changes.transform is None:
            return values_HWC
        seed = int(random_bits(1, self.seed, TRANSFORMS, role, k)[0]) >> 1
        return apply(self.changes.transform, values_HWC, seed, self.config.crop_size)

    def __getitems__(self, indices: list[int]) -> Stacked | UserError:
        """Return a whole local batch in the files' types; called by the loading process.

        Bytes are a quarter of the floats to hand from process to process.

        A file that cannot be used is returned, not raised: it must reach the person as it is, without the traceback
        that the loader would wrap around it.
        """
        try:
            choices = [self.choose(k) for k in indices]
            samples = [self._crops(k, choice) for k, choice in zip(indices, choices, strict=True)]
        except UserError as error:
            return error
        source, target = (torch.from_numpy(np.stack(domain)) for domain in zip(*samples, strict=True))
        pairs = [choice.domains for choice in choices if choice.domains is not None]
        domains = torch.tensor(pairs, dtype=torch.int64) if pairs else None
        return Stacked(source, target, torch.tensor(indices, dtype=torch.int64), domains)
