"""What all endless sequences of training samples share: sample ``k`` is a function of (seed, k) alone."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from unpaired.data.cache import ImageCache
from unpaired.data.channels import repeat_channels
from unpaired.data.transforms import DataConfig, Formats, load_resized, random_crop
from unpaired.errors import ConfigError, UserError

# Keys that keep the random numbers of different purposes apart. Only raw bits of seeded generators are used, because
# numpy guarantees those, and not its shuffles, to be the same in every version.
CROPS = 2


def random_bits(count: int, *key: int) -> np.ndarray:
    """``count`` random integers in [0, 2**64), a function of ``key``."""
    return np.random.PCG64(np.random.SeedSequence(key)).random_raw(count)


@functools.lru_cache(maxsize=64)
def permutation(count: int, *key: int) -> np.ndarray:
    """A permutation of 0 to ``count - 1``, a function of ``key``."""
    return np.argsort(random_bits(count, *key), kind="stable")


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
        source: (b, c, S, S) of the source format's type.
        target: (b, c, S, S) of the target format's type.
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

    Raises:
        ConfigError: The seed is negative.
    """

    def __init__(
        self, domains: Sequence[Sequence[Path]], config: DataConfig, seed: int, formats: Formats | None = None
    ) -> None:
        if seed < 0:
            raise ConfigError(f"seed is {seed}: it must be 0 or greater")
        self.domain_sizes = [len(files) for files in domains]
        self.paths = [path for files in domains for path in files]
        self.config = config
        self.seed = seed
        self.formats = formats or config.plain_formats
        self.channels = max(pixels.channels for pixels in self.formats)
        self._cache = ImageCache(len(self.paths), int(config.cache_gib * 2**30), config.num_workers)

    @property
    @abstractmethod
    def images_per_epoch(self) -> int:
        """Samples of one epoch, after which every image was used at least once."""

    @abstractmethod
    def choose(self, k: int) -> Choice:
        """Which images sample ``k`` shows, ``k`` at least 0."""

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
            ``source`` and ``target``, float32 (C, S, S) in [-1, 1] with S = ``image_size`` and C = ``channels``,
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
        """Values (..., c, S, S) of the source (role 0) or the target (1) as networks see them, (..., C, S, S)."""
        return repeat_channels(self.formats[role].to_floats(values, pin_memory), self.channels)

    def _crops(self, k: int, choice: Choice) -> tuple[np.ndarray, np.ndarray]:
        draws = [int(x) for x in random_bits(6, self.seed, CROPS, k)]
        source, target = (
            self._cache.get(number, functools.partial(load_resized, self.paths[number], self.config, pixels))
            for number, pixels in zip((choice.source, choice.target), self.formats, strict=True)
        )
        return (
            random_crop(source, self.config, (draws[0], draws[1], draws[2])),
            random_crop(target, self.config, (draws[3], draws[4], draws[5])),
        )

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
