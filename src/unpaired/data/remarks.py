"""What of the files that somebody has is left out or changed: one line, the same at every command."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from unpaired.data.folders import Listing, scan
from unpaired.data.foreign import by_kind
from unpaired.data.pixels import Picture, PixelFormat
from unpaired.data.spread import Spread, range_remarks, spread_in
from unpaired.data.stored import Description

CHANGES = {
    "turned": "are stored rotated or mirrored and are turned as their orientation tag says",
    "frames": "have several frames or pages, of which the first is used",
    "transparency": "have transparency; it is put over white, or --background",
    "profile": "have another colour profile than sRGB, converted unless --colour-profiles ignore",
    "kept": "have a colour profile that is kept, not converted (16-bit values with a profile of tables, or floats)",
    "plain": "are CMYK without a usable profile, converted by a simple formula",
    "no_data": "hold no-data values (declared, masked or not finite), filled and excluded from value ranges",
}
"""Kind of change -> what such images have, in the plural."""
_TOLD_WHOLE = 2
"""So many kinds of files that are not read are told with what to do with them, more with what they are."""
_SHORT = {
    "frames": "further pages or frames of {}", "transparency": "transparency of {}, put over the background",
    "profile": "another colour profile of {}, converted to sRGB", "ignore": "another colour profile of {}, ignored",
    "kept": "another colour profile of {}, kept as it is",
    "no_data": "no data in {}",
}  # fmt: skip


def changes(facts: Description, no_data: int) -> Iterator[str]:
    """What kinds of :data:`CHANGES` an image undergoes in which so many values are no data."""
    found = {"turned": facts.orientation != 1, "frames": facts.pages > 1, "transparency": bool(facts.alpha),
             "profile": facts.convertible, "kept": bool(facts.profile) and not facts.convertible,
             "plain": facts.inks is not None and not facts.profile,
             "no_data": bool(no_data)}  # fmt: skip
    yield from (kind for kind, true in found.items() if true)


@dataclass
class Remarks:
    """Counts of what is left out of some images and of the folders that they lie in."""

    listing: Listing = field(default_factory=Listing)
    frames: bool = False
    """All of them are used, not only the first."""
    pixels: PixelFormat = field(default_factory=PixelFormat)
    """How the images are read."""
    counts: Counter[str] = field(default_factory=Counter)
    spreads: list[tuple[str, Spread]] = field(default_factory=list)
    """Names and values of the images that were added with them."""

    def add(self, facts: Description, no_data: int = 0) -> None:
        """Count one image, in which so many values are no data."""
        for kind in changes(facts, no_data):
            used = (kind == "frames" and self.frames) or (kind == "transparency" and self.pixels.channels in (2, 4))
            if not used:
                ignored = kind in ("profile", "kept") and self.pixels.colour_profiles == "ignore"
                self.counts["ignore" if ignored else kind] += 1

    def add_values(self, name: object, picture: Picture) -> None:
        """Remember the values of one image, for :attr:`warnings`."""
        if (spread := spread_in(picture, self.pixels)) is not None:
            self.spreads.append((str(name), spread))

    def include(self, others: Remarks) -> None:
        """Count what was counted elsewhere."""
        self.counts += others.counts
        self.spreads += others.spreads

    @property
    def warnings(self) -> list[str]:
        """Where values do not suit the range that the images are read with."""
        return [f"warning: {remark.words}" for remark in range_remarks(self.spreads, self.pixels)]

    @property
    def line(self) -> str:
        """``left out or converted: ...``, or nothing where nothing is."""
        words = []
        if others := self.listing.others:
            kinds = by_kind(others)
            named = ", ".join(f"{len(files)} {suffix}" for suffix, (files, _) in kinds.items())
            known: dict[str, list[str]] = {}
            for suffix, (_, what) in kinds.items():
                known.setdefault(what or "", []).append(suffix)
            known.pop("", None)
            are = (
                f"; {' '.join(suffixes)}: {what if len(known) <= _TOLD_WHOLE else re.split('[,;(]', what)[0].strip()}"
                for what, suffixes in known.items()
            )
            words.append(f"{_number(len(others), 'file')} of kinds that are not read ({named}{''.join(are)})")
        if folders := self.listing.subfolders:
            words.append(_number(len(folders), "subfolder"))
        counted = ((text, self.counts[kind]) for kind, text in _SHORT.items() if self.counts[kind])
        words += [text.format(_number(count, "image")) for text, count in counted]
        return f"left out or converted: {'; '.join(words)}" if words else ""


def listing_of(places: Iterable[Path | str], recursive: bool = False) -> Listing:
    """What lies in several folders besides images; places that are no folders hold nothing else."""
    listing = Listing()
    for place in {Path(place) for place in places}:
        if place.is_dir():
            found = scan(place, recursive)
            listing.others += found.others
            listing.subfolders += found.subfolders
    return listing


def _number(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'s' * (count != 1)}"
