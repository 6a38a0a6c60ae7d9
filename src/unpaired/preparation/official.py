"""What is published about the field's sets: how many images there are, and where their owners give them out."""

from __future__ import annotations

from dataclasses import dataclass

COLLECTION_ADDRESS = "http://efrosgans.eecs.berkeley.edu/cyclegan/datasets/"
CITYSCAPES_ADDRESS = "https://www.cityscapes-dataset.com/downloads/"
AFHQ_ADDRESS = "https://github.com/clovaai/stargan-v2"

Counts = dict[tuple[str, str], int]
"""(split, domain) -> images; domains are A and B, or a class."""


def _two(train_a: int, train_b: int, test_a: int, test_b: int) -> Counts:
    return {("train", "A"): train_a, ("train", "B"): train_b, ("test", "A"): test_a, ("test", "B"): test_b}


def _classes(train: tuple[int, int, int], test: tuple[int, int, int]) -> Counts:
    names = ("cat", "dog", "wild")
    return {
        (split, name): count
        for split, counts in (("train", train), ("test", test))
        for name, count in zip(names, counts, strict=True)
    }


COLLECTION: dict[str, Counts] = {
    "apple2orange": _two(995, 1019, 266, 248),
    "cezanne2photo": _two(525, 6287, 58, 751),
    "facades": _two(400, 400, 106, 106),
    "horse2zebra": _two(1067, 1334, 120, 140),
    "iphone2dslr_flower": _two(1812, 3325, 569, 480),
    "maps": _two(1096, 1096, 1098, 1098),
    "monet2photo": _two(1072, 6287, 121, 751),
    "summer2winter_yosemite": _two(1231, 962, 309, 238),
    "ukiyoe2photo": _two(562, 6287, 263, 751),
    "vangogh2photo": _two(400, 6287, 400, 751),
}
"""The CycleGAN authors' sets, each one ``NAME.zip`` with trainA, trainB, testA and testB."""

OFFICIAL: dict[str, Counts] = {
    **COLLECTION,
    "cityscapes": _two(2975, 2975, 500, 500),
    "afhq": _classes((5153, 4739, 4738), (500, 500, 500)),
    "afhq_v2": _classes((5065, 4678, 4593), (493, 491, 483)),
}
"""Every set whose counts are known. AFHQ's are those of its two versions."""


@dataclass(frozen=True)
class Offer:
    """Where the owners of a set give it out."""

    files: tuple[str, ...]
    """Names of the archives."""
    address: str
    """Where to get them; nothing here ever opens it."""
    words: str = ""
    """What else to know."""


def offer(name: str) -> Offer:
    """Where to get a set that :data:`OFFICIAL` knows."""
    if name == "cityscapes":
        return Offer(
            ("gtFine_trainvaltest.zip", "leftImg8bit_trainvaltest.zip"), CITYSCAPES_ADDRESS, "after a registration"
        )
    if name.startswith("afhq"):
        return Offer(("afhq.zip",), AFHQ_ADDRESS, "its README links the archive of either version")
    return Offer((f"{name}.zip",), COLLECTION_ADDRESS)
