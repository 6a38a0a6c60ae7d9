"""The images of a domain that are no folder: items of a dataset, several sets with weights; and samples of any."""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from unpaired.data.folders import FolderFiles, ImageSet, Listing
from unpaired.data.mapping import BYTES
from unpaired.data.reading import Given, Item
from unpaired.errors import ConfigError, DataError

WHOLE = 50_000
"""Of sets up to so many files each is looked at before training; of larger ones :data:`SAMPLE`, evenly spaced."""
SAMPLE = 2_000
_PYTHON_SAMPLE = 16
"""Of datasets that are given as objects, which may be slow, and are not to be read before processes are forked."""
_OVERSHOOT = 1.001


class Dataset(ImageSet):
    """The items of a map-style dataset.

    Args:
        items: Anything with a length and items by number, such as a torch ``Dataset``.
        label: What it is called in messages and records.
        pick: Takes the image out of an item: a file, an open one, a Pillow image, an array, or a tensor (C, H, W) of
            integers or of floats in [-1, 1], which are taken as 8-bit pictures.
        fingerprint: What changes when its images do; unset: a digest over some of them.
        looks: How many are read before training, evenly spaced.
    """

    def __init__(
        self, items: Any, label: str, pick: Callable[[Any], Any], fingerprint: str = "", looks: int = _PYTHON_SAMPLE
    ) -> None:
        self.items, self.label, self.pick, self.looks = items, label, pick, looks
        if not len(items):
            raise DataError(f"{label}: the dataset is empty")
        self._fingerprint = fingerprint

    def __len__(self) -> int:
        return len(self.items)

    def _at(self, number: int) -> DatasetItem:
        return DatasetItem(self, number)

    @property
    def fingerprint(self) -> str:
        """What it was given, or 16 hex digits over some of its images."""
        if not self._fingerprint:
            digest = hashlib.sha256(str(len(self)).encode())
            for item in sample_of(self):
                digest.update(item.read_bytes())
            self._fingerprint = digest.hexdigest()[:16]
        return self._fingerprint

    def stamps(self) -> Iterator[tuple[str, int, int]]:
        yield f"{self.label} {self.fingerprint}", len(self), 0


class DatasetItem(Item):
    """One image of a dataset. It has the parts of a path that messages, records and scores use."""

    def __init__(self, images: Dataset, number: int) -> None:
        self._images, self._number = images, number
        self.name, self.parent = str(number), Path(images.label)
        self.stem = str(self)  # equal numbers in two datasets are no pair

    def __str__(self) -> str:
        return f"{self.parent}, image {self._number}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DatasetItem) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def get(self) -> Given:
        try:
            found = self._images.pick(self._images.items[self._number])
        except DataError:
            raise
        except Exception as error:  # the code of whoever made the dataset
            why = (str(error) or type(error).__name__).splitlines()[0]
            raise DataError(f"{self}: the dataset cannot return it ({type(error).__name__}: {why})") from error
        if isinstance(found, torch.Tensor):
            return _values(found, self)
        if isinstance(found, str | Path | np.ndarray | Image.Image) or hasattr(found, "read"):
            return found
        raise DataError(f"{self}: is {type(found).__name__}, not a PIL image, an array or a tensor (C, H, W)")

    def read_bytes(self) -> bytes:
        """The file, or the pixels."""
        found: Any = self.get()
        if isinstance(found, str | Path):
            return Path(found).read_bytes()
        return found.read() if hasattr(found, "read") else np.asarray(found).tobytes()


def _values(image_CHW: torch.Tensor, where: Item) -> np.ndarray:
    if image_CHW.ndim != 3:
        raise DataError(f"{where}: is a tensor {tuple(image_CHW.shape)}, not (C, H, W)")
    if not image_CHW.is_floating_point():
        return image_CHW.movedim(0, -1).cpu().numpy()
    largest = float(image_CHW.abs().max())
    if not largest <= _OVERSHOOT:
        raise DataError(f"{where}: float tensors must lie in [-1, 1], and this one holds {largest:g}; scale it, or "
                        "give integers")  # fmt: skip
    return BYTES.to_values(image_CHW, "uint8").movedim(0, -1).numpy()


def python_dataset(items: Any, role: str) -> Dataset:
    """A dataset that somebody hands over: its items are images, or begin with one, or have one under ``image``.

    Raises:
        ConfigError: It has no length or no items by number.
        DataError: It is empty.
    """
    if isinstance(items, torch.utils.data.IterableDataset) or not (
        hasattr(items, "__len__") and hasattr(items, "__getitem__")
    ):
        raise ConfigError(f"{role}: is {type(items).__name__}, not a map-style dataset (with __len__ and __getitem__)")
    label = f"python:{type(items).__module__}.{type(items).__qualname__}"
    return Dataset(items, label, _image_in, str(getattr(items, "_fingerprint", "")))


def _image_in(item: Any) -> Any:
    if isinstance(item, Mapping):
        if "image" not in item:
            raise DataError(f"an item has {', '.join(map(str, item))} and no 'image'; give the images alone")
        return item["image"]
    return item[0] if isinstance(item, tuple | list) and item else item


class Several(ImageSet):
    """Sets one after the other. ``weights`` says how often each is shown; without any, each image equally often."""

    def __init__(self, parts: Sequence[Sequence[Any]], weights: Sequence[float] = ()) -> None:
        self.parts, self.weights = tuple(parts), tuple(weights)
        self._ends = np.cumsum([0, *map(len, self.parts)]).tolist()

    def __len__(self) -> int:
        return self._ends[-1]

    def _at(self, number: int) -> Any:
        part = bisect.bisect_right(self._ends, number) - 1
        return self.parts[part][number - self._ends[part]]

    def stamps(self) -> Iterator[tuple[str, int, int]]:
        for part in self.parts:
            yield from stamps(part)

    def bounds(self, number: int) -> tuple[int, int]:
        """First and one past the last image of the part in which image ``number`` is."""
        part = bisect.bisect_right(self._ends, number) - 1
        return self._ends[part], self._ends[part + 1]

    def first_of(self, part: int) -> int:
        """Number of the first image of a part."""
        return self._ends[part]


def stamps(images: Sequence[Any]) -> Iterator[tuple[str, int, int]]:
    """Name, bytes and time in ns of each file, or what stands for them (:meth:`ImageSet.stamps`)."""
    if isinstance(images, ImageSet):
        yield from images.stamps()
        return
    for path in images:
        if isinstance(path, DatasetItem):
            yield str(path), 0, 0
        else:
            status = path.stat()
            yield path.name, status.st_size, status.st_mtime_ns


def _flat(images: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for part in images.parts if isinstance(images, Several) else ():
        yield from _flat(part)
    if not isinstance(images, Several):
        yield images


def dataset_stamps(images: Sequence[Any]) -> Iterator[tuple[str, int, int]]:
    """The :func:`stamps` of those parts that are datasets: label and fingerprint, and number of images."""
    for part in _flat(images):
        if isinstance(part, Dataset):
            yield from part.stamps()


def without(images: Sequence[Any], skip: Collection[Any]) -> Sequence[Any]:
    """The same set but for some images; a dataset, or one that is too large to be looked at whole, is left as it is."""
    if not skip or isinstance(images, Dataset) or (len(images) > WHOLE and not isinstance(images, Several)):
        return images
    if isinstance(images, Several):
        return Several([without(part, skip) for part in images.parts], images.weights)
    return tuple(image for image in images if image not in skip)


def sample_of(images: Sequence[Any]) -> Sequence[Any]:
    """The images that are looked at before training: all of a folder that is not large, else evenly spaced ones."""
    if isinstance(images, Several):
        return tuple(image for part in images.parts for image in sample_of(part))
    count = images.looks if isinstance(images, Dataset) else len(images) if len(images) <= WHOLE else SAMPLE
    if count >= len(images):
        return images
    return tuple(images[i * len(images) // count] for i in range(count))


def rest_of(images: Sequence[Any]) -> Listing:
    """What else lies in the folders of a set."""
    found = Listing()
    for part in _flat(images):
        if isinstance(part, FolderFiles):
            found.others += part.rest.others
            found.subfolders += part.rest.subfolders
    return found
