"""The settings of a preparation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Annotated

from pydantic import Field

from unpaired.config import CountOrZero, Seed, settings
from unpaired.errors import ConfigError

NEAR = 4
"""Bits of 64 in which the hashes of similar pictures differ at most, unless another number is given."""


@settings
class PrepareSettings:
    """Which files a preparation writes."""

    size: Annotated[int, Field(ge=8, le=2**14)] | None = None
    """Scale images down, antialiased, to this many pixels: the shorter side, or both sides of a Cityscapes square (256
    unless given). They stay what they are, and are stored as TIFF or NPY if they were, else as PNG. Smaller images are
    copied. Unset copies all files as they are."""
    source_class: str | None = None
    """Class or subfolder that becomes trainA and testA. AFHQ: cat unless given."""
    target_class: str | None = None
    """Class or subfolder that becomes trainB and testB. AFHQ: dog unless given."""
    domains: bool = False
    """Write train/CLASS and test/CLASS with all classes, for methods of several domains, instead of trainA, trainB."""
    test_fraction: Annotated[float, Field(ge=0, lt=1)] | None = None
    """FOLDER: the share of each subfolder that is held out as test images; 0.1 unless given."""
    test_count: CountOrZero | None = None
    """FOLDER: how many images of each subfolder are held out as test images, instead of a share."""
    val_count: CountOrZero = 0
    """Move this many training images of each domain to val; training then chooses its best weights on val, not test."""
    seed: Seed = 0
    """Seed of the choice of the held-out images."""
    link: bool = False
    """Make links to the files of a folder instead of copies."""

    def __post_init__(self) -> None:
        if self.test_fraction is not None and self.test_count is not None:
            raise ConfigError("give test_fraction or test_count, not both")
        if self.domains and (self.source_class is not None or self.target_class is not None):
            raise ConfigError("source_class and target_class name two of several classes; domains takes all: give one")
        if self.source_class is not None and self.source_class == self.target_class:
            raise ConfigError(f"source_class and target_class are both '{self.source_class}'; name two")
        if self.link and self.size is not None:
            raise ConfigError("link keeps the files as they are, size makes new ones: give one of the two")

    def refuse(self, names: Iterable[str], why: str) -> None:
        """Raise ``ConfigError`` where a setting was given that has no meaning here."""
        defaults = {field.name: field.default for field in fields(self)}
        for name in names:
            if getattr(self, name) != defaults[name]:
                raise ConfigError(f"{name} does not apply here: {why}")
