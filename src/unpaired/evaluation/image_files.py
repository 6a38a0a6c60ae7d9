"""Image sets of any size in bounded memory, and images read by the field's protocol."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from unpaired.data import BYTES, DataConfig, PixelFormat, read_picture, size_words, tensor_of
from unpaired.data.folders import as_images
from unpaired.data.reading import name_of
from unpaired.data.spread import Named, Spread, range_remarks, spread_in
from unpaired.data.transforms import resized_for_protocol
from unpaired.errors import DataError, TrainingError

Item = TypeVar("Item")
SKIPPING = " (--skip-bad leaves such files out)"

_HELD_BYTES = 1 << 26
"""Pixels that stay in memory until a set is large enough to be worth a file."""


class LazyImages(Sequence[Any]):
    """A sequence whose items are made when they are asked for.

    Args:
        count: How many there are.
        make: Makes the item of an index from 0 to count - 1.
    """

    def __init__(self, count: int, make: Callable[[int], Any]) -> None:
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        if not -self._count <= index < self._count:
            raise IndexError(f"image {index} of {self._count}")
        return self._make(index % self._count)


class StoredImages(LazyImages):
    """Images of one shape in bounded memory; items are float32 in [-1, 1].

    They are rounded to 8 bits where the domain has 8, as saved files would be; images of wider types are kept as
    floats. Small sets stay in memory, large ones in a temporary file that is removed with this object.

    Args:
        eight_bits: Round to 8 bits.
    """

    def __init__(self, *, eight_bits: bool = True) -> None:
        super().__init__(0, self._read)
        self._file = tempfile.SpooledTemporaryFile(max_size=_HELD_BYTES, prefix="unpaired-images-")  # noqa: SIM115
        self._shape: tuple[int, ...] = ()
        self._eight_bits = eight_bits
        self._dtype = np.dtype(np.uint8 if eight_bits else np.float32)

    def append(self, image_CHW: Tensor) -> None:
        """Add one image (C, H, W) in [-1, 1]; 8-bit values between two levels are rounded.

        Raises:
            DataError: Its shape is not that of the first one.
            TrainingError: The temporary folder is full.
        """
        floats = image_CHW.detach().to("cpu", torch.float32)
        stored = BYTES.to_values(floats, "uint8") if self._eight_bits else floats.clamp(-1.0, 1.0)
        pixels = np.ascontiguousarray(stored.numpy().transpose(1, 2, 0))
        if not self._shape:
            self._shape = pixels.shape
        if pixels.shape != self._shape:
            raise DataError(f"image {self._count} has shape {pixels.shape} (H, W, C), the first one {self._shape}")
        try:
            self._file.seek(0, 2)
            self._file.write(pixels.tobytes())
        except OSError as error:
            raise TrainingError(
                f"the temporary folder {tempfile.gettempdir()} cannot take the images ({error.strerror or error}); "
                "make room or set TMPDIR to another folder"
            ) from error
        self._count += 1

    def _read(self, index: int) -> Tensor:
        size = int(np.prod(self._shape)) * self._dtype.itemsize
        self._file.seek(index * size)
        pixels = np.frombuffer(bytearray(self._file.read(size)), dtype=self._dtype).reshape(self._shape)
        image = torch.from_numpy(pixels.transpose(2, 0, 1))
        return BYTES.to_floats(image) if self._eight_bits else image.contiguous()


def in_colour(images: Sequence[Tensor]) -> LazyImages:
    """Images as the scores want them: gray ones in three equal channels."""

    def image(index: int) -> Tensor:
        found = images[index]
        return found.expand(3, -1, -1) if len(found) == 1 else found

    return LazyImages(len(images), image)


@dataclass(frozen=True)
class ImageFiles:
    """The images of one folder, read.

    Attributes:
        paths: Files that could be read, in order.
        images: Their images, resized to the protocol's size.
        digests: SHA-256 of each file's content.
        how: How files became images, in words; a part of the key of cached features.
        pixels: What they are made of.
        spreads: Their values, where these could miss the range that becomes [-1, 1].
    """

    paths: tuple[Path, ...]
    images: StoredImages
    digests: tuple[str, ...]
    how: str
    pixels: PixelFormat
    spreads: Named

    @property
    def digest(self) -> str:
        """What identifies the set: 16 hex digits of the SHA-256 over the sorted digests of its files."""
        return hashlib.sha256("".join(sorted(self.digests)).encode()).hexdigest()[:16]

    def range_warnings(self, what: str, option: str) -> list[str]:
        """What there is to say where the values do not suit their range, which ``option`` sets."""
        return [f"Warning: {remark.words}" for remark in range_remarks(self.spreads, self.pixels, what, option)]


def read_files(
    paths: Iterable[str | Path],
    config: DataConfig,
    pixels: PixelFormat | None = None,
    *,
    skip_bad: bool | None = False,
    report: Callable[[str], None] = lambda words: None,
    progress: Callable[[int], None] = lambda done: None,
) -> ImageFiles:
    """Read images as the field's protocol does.

    Args:
        paths: Image files.
        config: ``image_size`` is used, and without ``pixels`` also ``channels`` and ``background``.
        pixels: What they are made of; unset: 8-bit images.
        skip_bad: Leave files out that cannot be read, and report each of them. None: none can be left out, so that the
            error does not offer it.
        report: Told of each file left out.
        progress: Called after each file with the number of files so far.

    Raises:
        DataError: A file cannot be read (without ``skip_bad``), or none can.
    """
    pixels = pixels or config.plain_formats[0]
    kept, images, digests, given = list[Path](), StoredImages(eight_bits=pixels.dtype == "uint8"), list[str](), 0
    spreads = list[tuple[str, Spread]]()
    for given, path in enumerate(as_images(tuple(paths)), start=1):
        try:
            picture = read_picture(path, pixels)
        except DataError as error:
            if not skip_bad:
                raise DataError(f"{error}{SKIPPING * (skip_bad is False)}") from error
            report(f"left out: {error}")
            continue
        finally:
            progress(given)
        images.append(pixels.to_floats(tensor_of(resized_for_protocol(picture.values, config.image_size))))
        if (spread := spread_in(picture, pixels)) is not None:
            spreads.append((name_of(path), spread))
        digests.append(hashlib.sha256(path.read_bytes()).hexdigest())
        kept.append(path)
    if not kept and given:
        raise DataError(f"none of the {given} images can be read, so there is nothing to score")
    how = f"{size_words(config.image_size)} px, {pixels.channels} channels, {pixels.background} behind, bicubic"
    how += ", profiles converted" * (pixels.colour_profiles == "convert")
    if not pixels.plain:
        how += f", {pixels}"
    return ImageFiles(tuple(kept), images, tuple(digests), how, pixels, spreads)


def evenly_spaced(items: Sequence[Item], most: int) -> tuple[Item, ...]:
    """At most so many of the items, from the first on at even distances.

    >>> evenly_spaced(range(6), 3)
    (0, 2, 4)
    """
    count = min(most, len(items))
    return tuple(items[i * len(items) // count] for i in range(count))
