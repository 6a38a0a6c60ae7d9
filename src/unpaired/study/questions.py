"""The three questions of the paper's user study (Table 2), and the order in which one rater sees things."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T", int, str)


@dataclass(frozen=True)
class Question:
    """One question, asked about every image.

    Attributes:
        label: What tables call it.
        title: What raters read.
        hint: What to look at.
        shows_target: Whether real images of the target domain are shown with it.
    """

    label: str
    title: str
    hint: str
    shows_target: bool = False


QUESTIONS: dict[str, Question] = {
    "Q": Question(
        "image quality",
        "Which version looks most real?",
        "Judge the picture itself: natural, clean, no smears or strange patterns.",
    ),
    "T": Question(
        "target domain conformity",
        "Which version looks most like these real pictures?",
        "Judge the look (colours, texture, style), not what the pictures show.",
        shows_target=True,
    ),
    "C": Question(
        "domain-irrelevant consistency",
        "Which version best keeps what should not change?",
        "Compare with the original: shapes, pose, surroundings, background.",
    ),
}


def shuffled(items: Iterable[T], *key: int | str) -> list[T]:
    """The items in an order that is random in ``key`` and the same on every machine.

    >>> shuffled(range(5), 0, "methods", 1, 2)
    [2, 3, 1, 0, 4]
    """
    prefix = "/".join(map(str, key))
    return sorted(items, key=lambda item: hashlib.sha256(f"{prefix}/{item}".encode()).digest())


def order_of_images(seed: int, rater: int, images: Iterable[int]) -> list[int]:
    """The order in which a rater sees the images."""
    return shuffled(images, seed, "images", rater)


def order_of_methods(seed: int, rater: int, image: int, methods: Iterable[int]) -> list[int]:
    """The methods from left to right, as a rater sees them on one image; the same for its three questions."""
    return shuffled(methods, seed, "methods", rater, image)
