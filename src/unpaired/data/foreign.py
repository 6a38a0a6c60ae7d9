"""Files that are no images here, known by their first bytes: what each is, and what to do with it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

HEAD = 512
"""Bytes that are looked at."""
_VIDEO = (
    "a video; extract its frames first, e.g. 'ffmpeg -i FILE frames/%05d.png' (translate takes a clip.mp4 as it is)"
)
_MEDICAL = "a medical image; save its slices as 16-bit PNG or TIFF, or as .npy"
_OTHER = "save it as PNG or TIFF first"
_RAW = "a camera's raw file; develop it, and save it as 16-bit TIFF"
_TIFF = "a kind of TIFF that is not read (a camera's raw file or a slide?); save it as 8- or 16-bit gray or RGB TIFF"
_KINDS: tuple[tuple[int, bytes, str], ...] = (
    (4, b"ftyphei", f"a HEIC photo; {_OTHER}"),
    (4, b"ftypmif1", f"a HEIC photo; {_OTHER}"),
    (4, b"ftypavi", f"an AVIF image; {_OTHER}"),
    (4, b"ftyp", _VIDEO),
    (4, b"moov", _VIDEO),
    (8, b"AVI ", _VIDEO),
    (0, b"\x1aE\xdf\xa3", _VIDEO),
    (0, b"\0\0\1\xba", _VIDEO),
    (0, b"0&\xb2u\x8ef\xcf\x11", _VIDEO),  # WMV
    (128, b"DICM", f"DICOM, {_MEDICAL}"),
    (344, b"n+1\0", f"NIfTI, {_MEDICAL}"),
    (344, b"ni1\0", f"NIfTI, {_MEDICAL}"),
    (0, b"\x1f\x8b", "compressed by gzip (.nii.gz?); unpack it, and save its slices or pages as PNG or TIFF"),
    (0, b"PK\3\4", "a zip archive; unpack it, or give it to 'unpaired data prepare'"),
    (0, b"NRRD", f"NRRD, {_MEDICAL}"),
    (0, b"ObjectType =", f"MetaImage, {_MEDICAL}"),
    (0, b"<svg", f"an SVG drawing; {_OTHER}"),
    (0, b"<?xml", f"an XML file, perhaps an SVG drawing; {_OTHER}"),
    (0, b"%PDF", f"a PDF; {_OTHER}"),
    (0, b"8BPS", f"a Photoshop file; {_OTHER}"),
    (0, b"\0\0\0\x0cjP  ", f"a JPEG 2000 image; {_OTHER}"),
    (0, b"\xffO\xffQ", f"a JPEG 2000 image; {_OTHER}"),
    (0, b"\0\0\0\x0cJXL ", f"a JPEG XL image; {_OTHER}"),
    (0, b"\xff\n", f"a JPEG XL image; {_OTHER}"),
    (0, b"\0\0\1\0", f"an icon; {_OTHER}"),
    (8, b"CR\2\0", _RAW),
    (0, b"FUJIFILMCCD-RAW", _RAW),
    (0, b"II*\0", _TIFF),
    (0, b"MM\0*", _TIFF),
    (0, b"v/1\1", "an OpenEXR image; save it as TIFF in float32, or as .npy"),
    (0, b"#?RADIANCE", "a Radiance HDR image; save it as TIFF in float32, or as .npy"),
    (0, b"SIMPLE  =", "a FITS image; save it as TIFF in float32, or as .npy"),
    (0, b"\x89HDF", "an HDF5 file; save its images as TIFF, or as .npy"),
)


def foreign(head: bytes) -> str | None:
    """What a file is and what to do with it, by its first :data:`HEAD` bytes; None where that is not known."""
    return next((words for at, magic, words in _KINDS if head[at:].startswith(magic)), None)


def foreign_file(path: Path) -> str | None:
    """:func:`foreign` of a file; None, too, where it cannot be read."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        return foreign(file.read(HEAD))
    return None


def by_kind(paths: Iterable[Path]) -> dict[str, tuple[list[Path], str | None]]:
    """Files by suffix, sorted, with what the first of each is."""
    found: dict[str, list[Path]] = {}
    for path in paths:
        found.setdefault(path.suffix.lower() or "no suffix", []).append(path)
    return {suffix: (files, foreign_file(files[0])) for suffix, files in sorted(found.items())}
