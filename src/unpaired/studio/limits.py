"""What the studio takes from a browser at most."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from unpaired.config import settings
from unpaired.data.sizes import MAX_IMAGE_PIXELS

Megapixels = Annotated[float, Field(gt=0, le=MAX_IMAGE_PIXELS / 1e6)]
Megabytes = Annotated[float, Field(gt=0, le=10_000)]
Pictures = Annotated[int, Field(ge=1, le=10_000)]
Requests = Annotated[int, Field(ge=1, le=10_000)]


@settings
class Limits:
    """Limits of the studio, for one request."""

    megapixels: Megapixels = 4.0
    """Most pixels of one picture, in millions."""
    megabytes: Megabytes = 20.0
    """Most bytes of one file, in millions."""
    batch: Pictures = 32
    """Most pictures at a time."""
    queue: Requests = 16
    """Most waiting requests; further ones are told to try again later."""

    @property
    def pixels(self) -> int:
        """Most pixels of one picture."""
        return int(self.megapixels * 1e6)

    @property
    def bytes(self) -> int:
        """Most bytes of one file."""
        return int(self.megabytes * 1e6)
