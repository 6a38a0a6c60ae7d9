"""Uploaded pictures: what is taken, under which name, and in which words the rest is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from unpaired.data import IMAGE_SUFFIXES, PixelFormat, read_image_of
from unpaired.data.reading import describe
from unpaired.errors import DataError
from unpaired.files import lies_within
from unpaired.studio.limits import Limits

_COLOUR = PixelFormat(colour_profiles="convert")
_LONGEST_NAME = 80


def shown_name(path: str | Path) -> str:
    """The last part of a file's name, safe to show and to use as a file name.

    >>> shown_name("../../etc/pass wd.png"), shown_name("..\\\\secret<b>.png"), shown_name("..")
    ('pass wd.png', 'secret_b_.png', 'picture')
    """
    last = re.split(r"[/\\]", str(path))[-1]
    kept = re.sub(r"[^\w .()+-]", "_", last).strip(" .")
    stem, dot, suffix = kept.rpartition(".")
    short = f"{stem[: _LONGEST_NAME - len(suffix) - 1]}{dot}{suffix}" if dot and len(suffix) < 8 else kept
    return short[:_LONGEST_NAME] or "picture"


def check_upload(path: str | Path, root: Path, limits: Limits) -> tuple[Path, tuple[int, int]]:
    """Look at an uploaded file without decoding it.

    Args:
        path: What the browser says it uploaded.
        root: The folder that uploads lie in.
        limits: The studio's limits.

    Returns:
        The file, and the width and height that its header claims.

    Raises:
        DataError: It is no upload, too large, of a wrong type, or claims too many pixels.
    """
    name = shown_name(path)
    file = inside(path, root, name)
    try:
        size = file.stat().st_size
    except OSError:
        raise DataError(f"{name}: the upload is gone; choose it again") from None
    if size > limits.bytes:
        raise DataError(f"{name}: {size / 1e6:.1f} MB are more than the limit of {limits.megabytes:g} MB")
    if size == 0:
        raise DataError(f"{name}: the file is empty")
    if file.suffix.lower() not in IMAGE_SUFFIXES:
        kinds = ", ".join(sorted(set(IMAGE_SUFFIXES.values())))
        raise DataError(f"{name}: the suffix is not that of a picture; accepted are {kinds}")
    with _called(file, name):
        facts = describe(file)
    if facts.width * facts.height > limits.pixels:
        raise DataError(
            f"{name}: {facts.width:,} x {facts.height:,} pixels are more than the limit of {limits.megapixels:g} "
            "megapixels; scale it down, or use 'unpaired translate' for large pictures"
        )
    return file, (facts.width, facts.height)


def open_upload(path: str | Path, root: Path, limits: Limits, pixels: PixelFormat = _COLOUR) -> Image.Image:
    """Read an uploaded file as ``read_image_of`` does, once ``check_upload`` lets it pass.

    Raises:
        DataError: It is refused or damaged; the message names it without any folder.
    """
    file, _ = check_upload(path, root, limits)
    with _called(file, shown_name(path)):
        return read_image_of(pixels, file)


@contextmanager
def _called(file: Path, name: str) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise DataError(f"{name}{str(error).removeprefix(str(file))}") from None


def inside(path: str | Path, root: Path, name: str) -> Path:
    """The uploaded file at ``path``; anything outside of ``root`` raises ``DataError``, which calls it ``name``."""
    try:
        file = Path(path).resolve()
        uploaded = lies_within(file, root)
    except (OSError, TypeError, ValueError):  # a loop of links, no text, a name with a zero byte
        uploaded = False
    if not uploaded:
        raise DataError(f"{name}: only files that were uploaded to this page are read")
    return file


def check_paths(sent: Any, root: Path) -> None:
    """Refuse a request that names files other than uploads: Gradio would copy or fetch whatever a ``path`` says.

    Raises:
        DataError: A ``path`` in it, however deep, is no file in ``root``.
    """
    if isinstance(sent, dict):
        if "path" in sent:
            inside(sent["path"], root, "the request")
        sent = list(sent.values())
    for value in sent if isinstance(sent, list) else ():
        check_paths(value, root)
