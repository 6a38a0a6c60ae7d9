"""Writing files so that nothing already made is lost, and reading lines of JSON that a crash may have cut short."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from io import BufferedRandom, BufferedReader
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any, Literal, overload

_NO_FILE = "is a pipe or a device, not a file"


def last_part(place: str) -> str:
    """The last part of a path that was recorded on any system, or all of it where it has no such part.

    >>> last_part("/home/me/horses"), last_part("C:\\\\Users\\\\me\\\\horses"), last_part(".")
    ('horses', 'horses', '.')
    """
    return PureWindowsPath(place).name or place


def without_folders(places: Iterable[Path] = ()) -> Callable[[str], str]:
    """A function that takes the folders out of a text that absolute paths lie in, to keep user names and the like
    private: those above ``places``, the working and the home folder, and whatever else looks like folders."""
    inside = [Path.cwd() / "x", Path.home() / "x", *places]
    pattern = folders_pattern({whole for path in inside for whole in (path.absolute(), path.resolve())})
    return lambda text: pattern.sub("", text)


def folders_pattern(known: Iterable[PurePath]) -> re.Pattern[str]:
    """What matches the folders that absolute paths lie in, with either slash, and whatever else looks like folders."""
    above = {folder.parts for path in known for folder in path.parents if folder != folder.parent}
    listed = [r"[/\\]".join(re.escape(part.rstrip("/\\")) for part in (*parts, "")) for parts in above]
    named = "|".join(sorted(listed, key=len, reverse=True))
    name = r"[\w.@%+~-]+"
    others = rf"[A-Za-z]:[/\\](?:{name}[/\\])*|\\\\(?:{name}\\)+|[/\\](?:{name}[/\\])+"
    return re.compile(rf"(?<![\w.~/\\])(?:{named}|{others})")


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside ``path``, which takes its name once the block has ended well.

    Raises:
        OSError: That failed, or ``path`` is a folder, a pipe or a device; it is as it was.
    """
    if not path.name:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with contextlib.suppress(FileNotFoundError):  # a pipe or a device would be replaced by a file
        if not stat.S_ISREG(mode := path.stat().st_mode) and not stat.S_ISDIR(mode):
            raise OSError(errno.EINVAL, _NO_FILE, str(path))
    name = os.fsdecode(os.fsencode(path.name)[:200])  # names have 255 bytes at most
    temporary = path.with_name(f".{name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def lies_within(path: Path, folder: Path) -> bool:
    """Whether ``path`` is a file in ``folder``, at any depth, wherever links lead. OSError for loops of them."""
    return path.is_file() and path.resolve().is_relative_to(folder.resolve())


def write_atomically(path: Path, *parts: bytes | memoryview) -> None:
    """Write ``parts`` to ``path`` so that a reader sees the old file or the whole new one, never a piece.

    Raises:
        OSError: The write failed; ``path`` is as it was.
    """
    with written_whole(path) as temporary, temporary.open("wb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


@overload
def open_file(path: str | Path, mode: Literal["rb"] = "rb") -> BufferedReader: ...
@overload
def open_file(path: str | Path, mode: Literal["a+b"]) -> BufferedRandom: ...
def open_file(path: str | Path, mode: Literal["rb", "a+b"] = "rb") -> BufferedReader | BufferedRandom:
    """Open a file to read its bytes, or to add some.

    Raises:
        OSError: It cannot be opened, or is a folder, or a pipe or a device, which may have no end.
    """

    def opened(name: str, flags: int) -> int:
        number = os.open(name, flags | getattr(os, "O_NONBLOCK", 0), 0o666)
        kind = os.fstat(number).st_mode
        if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):  # a folder is refused by open()
            os.close(number)
            raise OSError(errno.EINVAL, _NO_FILE, name)
        return number

    return open(path, mode, opener=opened)  # type: ignore[return-value]


def contents(path: str | Path) -> bytes:
    """All bytes of a file; errors as of :func:`open_file`."""
    with open_file(path) as file:
        return file.read()


def read_json(path: str | Path) -> Any:
    """What a JSON file holds.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no JSON, or nested too deep to be any of ours.
    """
    return parse_json(contents(path))


def parse_json(text: str | bytes) -> Any:
    """The same of text. Raises ``ValueError``."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def owner_of_temporary(path: Path) -> int | None:
    """The process that writes (or wrote, and was killed) a temporary file of :func:`write_atomically`; else None."""
    found = re.fullmatch(r"\..+\.(\d+)\.tmp", path.name, re.DOTALL)
    return int(found[1]) if found else None


def is_running(pid: int) -> bool:
    """Whether there is a process of this number; where the system cannot tell without harm, yes."""
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def ignore(warning: str) -> None:
    """Ignore a warning."""


def read_json_lines(path: Path, warn: Callable[[str], object] = ignore) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ``("FILE, line N", object)`` for every whole line of a JSON Lines file; nothing if there is no such file.

    Args:
        path: The file.
        warn: Called with one sentence per damaged line, such as the last one after a crash. Such lines are skipped.

    Raises:
        OSError: The file exists but cannot be read.
    """
    try:
        lines = contents(path).splitlines()
    except FileNotFoundError:
        return
    for number, line in enumerate(lines, 1):
        where = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            entry = parse_json(line)
            reason = "" if isinstance(entry, dict) else "it is not a JSON object"
        except ValueError:
            reason = "it is not complete JSON, as if writing it had been interrupted"
        if not reason:
            yield where, entry
        else:
            warn(f"{where} is skipped: {reason}")


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a JSON Lines file; see :func:`read_json_lines`."""
    return [entry for _, entry in read_json_lines(path)]
