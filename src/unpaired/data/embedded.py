"""The data set that travels with the package: 64 x 64 drawings of Fluent emoji, with and without colour (MIT)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from unpaired.data.folders import UnpairedFiles, pair_by_name
from unpaired.data.places import find_test_images, find_training_images
from unpaired.errors import DataError, nearest

Direction = Literal["drawing_to_colour", "colour_to_drawing"]

EMBEDDED = {"fluent": Path(__file__).parent / "fluent"}
"""Name -> folder in the field's layout (trainA, trainB, valA, valB, testA, testB)."""


@dataclass(frozen=True)
class EmbeddedDataset:
    """An embedded data set in one direction."""

    name: str
    direction: Direction
    root: Path
    """The folder; beside the images it holds LICENSE and NOTICE."""
    train: UnpairedFiles
    """619 colour and 614 black files; the two domains show different emoji."""
    validation: UnpairedFiles
    """200 + 200 files, for choosing settings and weights; equal positions show the same emoji. None equals or nearly
    equals a file of ``train``. (Until November 29, 2026, these were the test files.)"""
    test: UnpairedFiles
    """120 + 120 files, for the final score; equal positions show the same emoji. Each is unlike every file of ``train``
    and ``validation``, by its name and by its look in both domains; so none is a smiley or one of a family of signs."""

    @property
    def test_pairs(self) -> list[tuple[Path, Path]]:
        """Input and ground truth for each test image."""
        return pair_by_name(self.test.source, self.test.target)


def embedded_dataset(name: str = "fluent", direction: Direction = "drawing_to_colour") -> EmbeddedDataset:
    """Return the files of an embedded data set.

    The images are RGBA, 64 x 64; read them over white. On disk A is colour and B is the black line drawing; the
    default direction exchanges them, because colouring drawings is the task to show.

    Args:
        name: ``"fluent"``.
        direction: ``"drawing_to_colour"`` (source: drawings) or ``"colour_to_drawing"``.

    Raises:
        DataError: The name or direction is unknown, or the files were left out of the installation.
    """
    if name not in EMBEDDED:
        raise DataError(
            f"there is no embedded data set '{name}'{nearest(name, EMBEDDED)}; known: {', '.join(EMBEDDED)}"
        )
    if direction not in ("drawing_to_colour", "colour_to_drawing"):
        raise DataError(f"the direction '{direction}' is unknown; use drawing_to_colour or colour_to_drawing")
    root = EMBEDDED[name]
    if not root.is_dir():
        raise DataError(f"{root}: the embedded images are missing from this installation; install the package again")
    train, test = find_training_images(root), find_test_images(root)
    validation = find_test_images(None, root / "valA", root / "valB")
    if test is None or validation is None:
        raise DataError(f"{root}: testA and testB are missing from this installation; install the package again")
    if direction == "drawing_to_colour":
        train, validation, test = train.swapped(), validation.swapped(), test.swapped()
    return EmbeddedDataset(name, direction, root, train, validation, test)
