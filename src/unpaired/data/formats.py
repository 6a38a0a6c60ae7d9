"""What the images of the two domains are made of: found from files and settings once, then stored with the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from unpaired.data.mapping import PixelType, ValueMapping, own_range, widest
from unpaired.data.percentiles import set_percentiles
from unpaired.data.pixels import Picture, PixelFormat, read_picture
from unpaired.data.reading import describe
from unpaired.data.sets import sample_of
from unpaired.data.settings import DataConfig, Formats
from unpaired.errors import ConfigError

_LOOKED_AT = 100
"""Files of a domain whose headers are read, evenly spaced, to find its type."""

Range = Literal["dtype", "percentiles"] | tuple[float, float]


def find_formats(source: Sequence[Any], target: Sequence[Any], config: DataConfig) -> Formats:
    """Find the formats of two domains.

    The type of a domain is the widest among its files. Percentiles are those of all pixels of all its files (of very
    large sets and of datasets: of some, evenly spaced), as they are stored, before they are resized.

    Args:
        source: Files of the source domain.
        target: Files of the target domain; none: it is given the format of the source domain.
        config: Channels, pages, ranges.

    Raises:
        DataError: A file cannot be read.
        ConfigError: A range is missing or does not fit the type.
    """
    channels = config.domain_channels
    ranges: tuple[Range, Range] = (
        config.value_range,
        config.value_range if config.target_value_range is None else config.target_value_range,
    )
    found = _format(source, channels[0], ranges[0], config)
    return found, _format(target, channels[1], ranges[1], config) if target else found


def _format(files: Sequence[Any], channels: int, values: Range, config: DataConfig) -> PixelFormat:
    dtype = _widest(files, config)
    others = config.pages, config.background, config.fill_value, config.colour_profiles
    if values == "percentiles":
        # Any mapping will do to read the values that decide upon the right one.
        read = PixelFormat(channels, dtype, ValueMapping(), *others)
        mapping = _by_percentiles(files, read, config.percentiles)
    elif values == "dtype":
        try:
            mapping = own_range(dtype)
        except ConfigError as error:
            raise ConfigError(f"{files[0].parent}: {error}") from error
    else:
        mapping = ValueMapping("range", (float(values[0]),), (float(values[1]),))
    found = PixelFormat(channels, dtype, mapping, *others)
    read_picture(files[0], found)  # settings that do not fit are said before anything begins
    return found


def _widest(files: Sequence[Any], config: DataConfig) -> PixelType:
    """The narrowest type that holds what the files hold."""
    files = sample_of(files)
    count = min(_LOOKED_AT, len(files))
    return widest({describe(files[i * len(files) // count], config.pages).dtype for i in range(count)})


def _by_percentiles(files: Sequence[Any], pixels: PixelFormat, percentiles: tuple[float, float]) -> ValueMapping:
    def images() -> Iterator[Picture]:
        return (read_picture(path, pixels) for path in sample_of(files))

    low, high = set_percentiles(images, percentiles)
    # A channel in which nothing ever differs becomes -1, and comes back as what it was.
    high = np.where(high > low, high, low + np.maximum(1.0, np.abs(low) * 2.0**-20))
    return ValueMapping("percentiles", tuple(map(float, low)), tuple(map(float, high)))
