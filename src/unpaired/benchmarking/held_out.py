"""The images that the runs of a data set are scored on."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unpaired.data import UnpairedFiles, find_test_images
from unpaired.errors import DataError
from unpaired.training import DatasetConfig


@dataclass(frozen=True)
class HeldOut:
    """Held-out images, source first.

    Attributes:
        files: Of both domains.
        wish: What a translator is asked for, beside the image.
    """

    files: UnpairedFiles
    wish: Mapping[str, Any]

    @functools.cached_property
    def digests(self) -> tuple[str, str]:
        """What identifies source and target images in a record of an evaluation."""
        return _digest(self.files.source), _digest(self.files.target)


def held_out(dataset: DatasetConfig) -> HeldOut:
    """The test images of a data set: those named, else testA and testB, else the test folders of two domains.

    Raises:
        DataError: There are none.
    """
    if dataset.held_out_source is not None or dataset.held_out_target is not None:
        files, where = find_test_images(None, dataset.held_out_source, dataset.held_out_target), "held_out_source"
    elif dataset.domains is not None:
        source, target = dataset.scored_pair()
        folder = dataset.domains / "test"
        files, where = find_test_images(None, folder / source, folder / target), str(folder)
        if files is not None:
            return HeldOut(files, {"domain": target})
    else:
        files = None if dataset.folder is None else find_test_images(dataset.folder)
        where = str(dataset.folder or dataset.source)
        if files is not None and dataset.direction == "BtoA":
            files = files.swapped()
    if files is None:
        raise DataError(
            f"{where}: there are no held-out images to score; add testA and testB to the folder, or name "
            "held_out_source and held_out_target"
        )
    return HeldOut(files, {})


def _digest(paths: Sequence[Path]) -> str:
    """As ``evaluation.image_files.ImageFiles.digest``, without decoding an image."""
    try:
        digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror or error}") from error
    return hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()[:16]
