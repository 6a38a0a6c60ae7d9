"""Folders and zip archives (read without unpacking) of images, both as names and bytes."""

from __future__ import annotations

import bz2
import copy
import hashlib
import lzma
import os
import re
import stat
import struct
import threading
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from unpaired.data.folders import is_image_name, missing
from unpaired.errors import DataError

LARGEST_FILE = 2**30
"""Bytes that one file in an archive may unpack to."""
LARGEST_RATIO = 200
"""How many times its size in the archive a file above :data:`SUSPICIOUS` may unpack to; images hardly shrink."""
SUSPICIOUS = 2**26
"""Bytes; below this, any ratio passes (a flat picture without compression of its own)."""
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
_AGAIN = "download it again"
_KINDS = {
    b"\x1f\x8b": "a gzip or tar.gz file; unpack it and name the folder",
    b"BZh": "a bzip2 or tar.bz2 file; unpack it and name the folder",
    b"7z\xbc\xaf": "a 7z archive; unpack it and name the folder",
    b"Rar!": "a rar archive; unpack it and name the folder",
    b"version https://git-lfs": "a Git LFS pointer; run 'git lfs pull'",
}


class Source(ABC):
    """Files below one place, by their names relative to it with ``/`` between folders; hidden ones do not count."""

    def __init__(self, path: Path, sizes: dict[str, int]) -> None:
        self.path = path
        self.sizes = dict(sorted(sizes.items()))
        """Name -> bytes, sorted by name."""

    @property
    def images(self) -> list[str]:
        """Names with the suffix of an image, sorted."""
        return [name for name in self.sizes if is_image_name(name)]

    def listing(self) -> str:
        """A digest of all names and sizes: the same for the same archive, wherever it lies."""
        lines = "\n".join(f"{size} {name}" for name, size in self.sizes.items())
        return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()

    def found(self) -> str:
        """What is there, in words: the folders with the most images."""
        folders = Counter(str(PurePosixPath(name).parent) for name in self.images)
        if not folders:
            return f"no image among {len(self.sizes):,} files" if self.sizes else "nothing"
        shown = ", ".join(f"{'images' if f == '.' else f + '/'} ({n:,})" for f, n in sorted(folders.items())[:4])
        return shown + (f" and {len(folders) - 4:,} more folders" if len(folders) > 4 else "")

    def where(self, name: str) -> str:
        """What to call a file in messages."""
        return f"{self.path}: {name}"

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The content of a file. Raises ``DataError`` if it cannot be read; may be called from several threads."""


class Folder(Source):
    """A folder and everything below it, links followed."""

    def __init__(self, path: Path) -> None:
        try:
            super().__init__(path, dict(_walk(path, "", set())))
        except OSError as error:
            raise DataError(f"{error.filename or path}: cannot be read: {error.strerror or error}") from error
        except RecursionError:
            raise DataError(f"{path}: its folders are nested too deep; name one further down") from None

    def where(self, name: str) -> str:
        return str(self.path / name)

    def read(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise DataError(f"{self.path / name}: cannot be read: {error.strerror or error}") from error


def _walk(folder: Path, prefix: str, above: set[tuple[int, int]]) -> Iterator[tuple[str, int]]:
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:  # a link to a folder around it
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_junk(entry.name):
                continue
            if entry.is_dir():
                yield from _walk(folder / entry.name, f"{prefix}{entry.name}/", above | {here})
            elif entry.is_file():
                yield prefix + entry.name, entry.stat().st_size
            elif entry.is_symlink():
                raise DataError(f"{folder / entry.name}: the link points to nothing; fix it, or move it elsewhere")


class Zip(Source):
    """A zip archive. Everything that can be known from its directory is checked at once, before anything is read."""

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise DataError(f"{path}: {_what_it_is_instead(path, error)}") from error
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
        except Exception as error:  # a directory that is damaged in other ways
            raise DataError(f"{path}: the archive is damaged ({error}); {_AGAIN}") from error
        try:
            for name in self._zip.NameToInfo:
                _check_name(path, name)
            members = {
                name: info
                for name, info in self._zip.NameToInfo.items()
                if name and not info.is_dir() and not any(is_junk(part) for part in name.split("/"))
            }
            whole = path.stat().st_size
            for info in members.values():
                _check_member(path, info, whole)
        except BaseException:
            self._zip.close()
            raise
        self._members = members
        self._lock = threading.Lock()
        super().__init__(path, {name: info.file_size for name, info in members.items()})

    def read(self, name: str) -> bytes:
        member = self._members[name]
        packed = copy.copy(member)  # read as it is stored: zipfile unpacks without a limit, whatever the header says
        packed.compress_type, packed.file_size = zipfile.ZIP_STORED, member.compress_size
        packed.CRC = None  # type: ignore[assignment]  # of what is unpacked
        try:
            with self._lock:  # zipfile counts its open members without one
                content = self._zip.read(packed)
            return _unpacked(content, member)
        except Exception as error:  # each way of compressing has exceptions of its own, and so have unknown features
            raise DataError(f"{self.where(name)} is damaged ({error}); {_AGAIN}") from error


def _unpacked(content: bytes, member: zipfile.ZipInfo) -> bytes:
    """What was compressed, never more than the header says. Raises ``ValueError``, and what the methods raise."""
    size = member.file_size
    if member.compress_type == zipfile.ZIP_DEFLATED:
        content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, size + 1)
    elif member.compress_type == zipfile.ZIP_BZIP2:
        content = bz2.BZ2Decompressor().decompress(content, size + 1)
    elif member.compress_type == zipfile.ZIP_LZMA:  # behind two bytes of version and two of size, as in .lzma files
        alone = content[4:9] + struct.pack("<Q", size) + content[9:]
        content = lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(alone, size + 1)
    if len(content) != size or zlib.crc32(content) != member.CRC:
        raise ValueError("it does not unpack to what its header says")
    return content


def _check_name(path: Path, name: str) -> None:
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or "\\" in name or ".." in name.split("/"):
        raise DataError(
            f"{path}: holds a file whose path leads out of its folder ({_shown(name)}); do not trust this archive"
        )


def _shown(name: str) -> str:
    """A name that may be anything, fit for one line."""
    return name.encode("ascii", "backslashreplace").decode()[:100]


def _check_member(path: Path, info: zipfile.ZipInfo, whole: int) -> None:
    shown = _shown(info.filename)
    if info.flag_bits & 1:
        raise DataError(f"{path}: is encrypted ({shown}); unpack it with its password and name the folder")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise DataError(f"{path}: holds a link ({shown}); unpack it and name the folder")
    if info.compress_type not in _METHODS:
        raise DataError(
            f"{path}: {shown} is compressed by method {info.compress_type}, which Python does not read; "
            "unpack it and name the folder"
        )
    ratio = info.file_size / max(1, min(info.compress_size, whole))
    if info.file_size > LARGEST_FILE or (info.file_size > SUSPICIOUS and ratio > LARGEST_RATIO):
        raise DataError(
            f"{path}: {shown} claims to unpack from {info.compress_size:,} to {info.file_size:,} bytes, "
            "which no image does; do not trust this archive"
        )


def _what_it_is_instead(path: Path, error: Exception) -> str:
    """Describe a file that is no whole zip archive, from its first bytes."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        return f"the file is empty (0 bytes); {_AGAIN}"
    for start, words in _KINDS.items():
        if head.startswith(start):
            return f"is {words}"
    if head.startswith(b"PK"):
        return f"the archive is truncated or damaged ({error}; {size:,} bytes are here); {_AGAIN}"
    if re.match(rb"\s*<(!doctype|html|\?xml)", head, re.IGNORECASE):
        return f"is a web page, not an archive; {_AGAIN}, logged in where that is asked for"
    if head[257:262] == b"ustar":
        return "is a tar archive; unpack it and name the folder"
    return f"is not a zip archive; {_AGAIN}"


def open_source(path: Path) -> Source:
    """Open a folder or a zip archive.

    Raises:
        DataError: It is neither, cannot be read, or is not to be trusted.
    """
    if path.is_dir():
        return Folder(path)
    if not path.exists():
        raise DataError(missing(path))
    if not path.is_file():
        raise DataError(f"{path}: is a pipe or a device, not a folder or a zip archive")
    return Zip(path)


def is_junk(name: str) -> bool:
    """Whether a file or folder is what operating systems leave behind, or hidden."""
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "desktop.ini")
