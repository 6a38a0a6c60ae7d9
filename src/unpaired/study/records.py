"""The questions and records of a study, and its SQLite file."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import re
import secrets
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from unpaired.errors import DataError
from unpaired.files import parse_json

T = TypeVar("T", int, str)


@dataclass(frozen=True)
class Question:
    """One question, asked about every image."""

    label: str
    """Its name in tables."""
    title: str
    """The question that raters read."""
    hint: str
    """What to look at."""
    shows_target: bool = False
    """Whether real images of the target domain are shown with it."""


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
"""The three questions of the paper's user study (Table 2)."""

DATABASE = "study.sqlite"
IMAGES = "images"
FORMAT = 1

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line breaks, changes of direction, and bytes of file names that are not UTF-8."""

_KEYS = ", ".join(f"'{key}'" for key in QUESTIONS)
_SCHEMA = f"""
CREATE TABLE study (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE methods (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, origin TEXT NOT NULL);
CREATE TABLE images (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, file TEXT NOT NULL UNIQUE,
    width INTEGER NOT NULL, height INTEGER NOT NULL
);
CREATE TABLE translations (
    image INTEGER NOT NULL REFERENCES images, method INTEGER NOT NULL REFERENCES methods, file TEXT NOT NULL UNIQUE,
    PRIMARY KEY (image, method)
);
CREATE TABLE target_examples (id INTEGER PRIMARY KEY, name TEXT NOT NULL, file TEXT NOT NULL UNIQUE);
CREATE TABLE raters (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, folded_name TEXT NOT NULL UNIQUE, started TEXT NOT NULL
);
CREATE TABLE sessions (token_digest TEXT PRIMARY KEY, rater INTEGER NOT NULL REFERENCES raters);
CREATE TABLE votes (
    rater INTEGER NOT NULL REFERENCES raters, image INTEGER NOT NULL, question TEXT NOT NULL, method INTEGER NOT NULL,
    shown TEXT NOT NULL, time TEXT NOT NULL,
    PRIMARY KEY (rater, image, question),
    FOREIGN KEY (image, method) REFERENCES translations (image, method),
    CHECK (question IN ({_KEYS}))
);
CREATE TABLE earlier_votes (
    id INTEGER PRIMARY KEY, rater INTEGER NOT NULL REFERENCES raters, image INTEGER NOT NULL REFERENCES images,
    question TEXT NOT NULL, method INTEGER NOT NULL REFERENCES methods, time TEXT NOT NULL
);
CREATE TRIGGER keep_earlier_vote BEFORE UPDATE ON votes BEGIN
    INSERT INTO earlier_votes (rater, image, question, method, time)
    VALUES (old.rater, old.image, old.question, old.method, old.time);
END;
"""


class StoreError(Exception):
    """The file of a running study could not be read or written just now."""


@dataclass(frozen=True)
class Method:
    """One of the systems that are compared."""

    id: int
    name: str
    origin: str
    """Where its images came from."""


@dataclass(frozen=True)
class StudyImage:
    """One source image with its translations."""

    id: int
    name: str
    file: str
    """Id of the source image's file."""
    size: tuple[int, int]
    translations: Mapping[int, str]
    """Id of the method -> id of its file."""


@dataclass(frozen=True)
class Study:
    """What a study shows; fixed once made."""

    id: str
    """16 hex digits, random."""
    seed: int
    """Of the orders in which raters see images and methods."""
    settings: dict[str, Any]
    """How it was made, as plain values."""
    methods: tuple[Method, ...]
    images: dict[int, StudyImage]
    """By id."""
    target_examples: tuple[str, ...]
    """Ids of the files with real images of the target domain."""

    @property
    def votes_per_rater(self) -> int:
        """Votes of a rater who has finished."""
        return len(self.images) * len(QUESTIONS)


@dataclass(frozen=True)
class Rater:
    """One person who takes part."""

    id: int
    name: str
    started: str
    votes: int


def counted(raters: Sequence[Rater], study: Study) -> str:
    """The number of raters and of those who answered everything, in words."""
    finished = sum(rater.votes == study.votes_per_rater for rater in raters)
    return f"{len(raters)} rater{'s' * (len(raters) != 1)} ({finished} finished)"


@dataclass(frozen=True)
class Vote:
    """One vote that counts."""

    time: str
    rater: str
    image: str
    question: str
    method: str
    shown: tuple[str, ...]
    """Names of the methods as they stood on the screen, left to right."""
    changed: int
    """How often the rater changed it."""


@contextlib.contextmanager
def open_database(path: Path, *, create: bool = False) -> Iterator[sqlite3.Connection]:
    """Connect to a database; every caller has its own connection, so threads and processes share only the file.

    Raises:
        StoreError: SQLite reported an error.
    """
    uri = f"{path.resolve().as_uri()}?mode={'rwc' if create else 'rw'}"
    try:
        connection = sqlite3.connect(uri, uri=True, timeout=15, isolation_level=None)
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA synchronous = FULL")  # acknowledged votes survive a power failure
            yield connection
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise StoreError(str(error)) from error


@contextlib.contextmanager
def open_read_only(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a study whose disk is full or cannot be written to.

    If there is a write-ahead log (of earlier versions) or a journal (of a killed process), a copy is read.

    Raises:
        StoreError: SQLite reported an error, or there is no room for the copy.
    """
    beside = [path.with_name(path.name + end) for end in ("-wal", "-journal")]
    waiting = [file for file in beside if file.is_file() and file.stat().st_size]
    with contextlib.ExitStack() as stack:
        try:
            if waiting:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="unpaired-study-")))
                for file in (path, *waiting):
                    shutil.copyfile(file, folder / file.name)
                path = folder / path.name
            way = "mode=rw" if waiting else "immutable=1"
            connection = sqlite3.connect(f"{path.resolve().as_uri()}?{way}", uri=True, isolation_level=None)
            yield stack.enter_context(contextlib.closing(connection))
        except OSError as error:
            raise StoreError(
                f"{error}; its last votes lie in {waiting[0]} and are read in a copy, which TMPDIR can put elsewhere"
            ) from error
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error


def create_database(
    path: Path,
    *,
    seed: int,
    settings: Mapping[str, Any],
    methods: Sequence[tuple[str, str]],
    images: Sequence[tuple[str, str, tuple[int, int], Sequence[str]]],
    target_examples: Sequence[tuple[str, str]],
) -> None:
    """Write the file of a new study.

    Args:
        path: Where; nothing is there yet.
        seed: Of the orders of images and methods.
        settings: How the study was made, as plain values.
        methods: Name and origin of each.
        images: Name, id of the source file, its size, and the id of each method's file, in the order of ``methods``.
        target_examples: Name and id of each file.

    Raises:
        StoreError: It cannot be written.
    """
    facts = {"format": FORMAT, "id": secrets.token_hex(8), "seed": seed, "made": now(), "settings": dict(settings)}
    rows: dict[str, Iterable[Sequence[Any]]] = {
        "study VALUES (?, ?)": [(key, json.dumps(value)) for key, value in facts.items()],
        "methods VALUES (?, ?, ?)": [(k, *row) for k, row in enumerate(methods)],
        "images VALUES (?, ?, ?, ?, ?)": [(i, name, file, *size) for i, (name, file, size, _) in enumerate(images)],
        "translations VALUES (?, ?, ?)": [
            (i, k, file) for i, (*_, files) in enumerate(images) for k, file in enumerate(files)
        ],
        "target_examples (name, file) VALUES (?, ?)": target_examples,
    }
    with open_database(path, create=True) as connection:
        connection.executescript(_SCHEMA)
        connection.execute("BEGIN")
        for into, values in rows.items():
            connection.executemany(f"INSERT INTO {into}", values)
        connection.execute("COMMIT")


def now() -> str:
    """The time in UTC, to the millisecond."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


def read_study(connection: sqlite3.Connection, path: Path) -> Study:
    facts = {key: parse_json(value) for key, value in connection.execute("SELECT key, value FROM study")}
    if facts.get("format") != FORMAT:
        raise DataError(f"{path} has format {facts.get('format')}, but this version of unpaired reads {FORMAT}")
    translations: dict[int, dict[int, str]] = {}
    for image, method, file in connection.execute("SELECT image, method, file FROM translations"):
        translations.setdefault(image, {})[method] = file
    rows = connection.execute("SELECT id, name, file, width, height FROM images ORDER BY id")
    examples = connection.execute("SELECT file FROM target_examples ORDER BY id")
    return Study(
        id=facts["id"],
        seed=facts["seed"],
        settings=facts["settings"],
        methods=tuple(Method(*row) for row in connection.execute("SELECT id, name, origin FROM methods ORDER BY id")),
        images={i: StudyImage(i, name, file, (w, h), translations[i]) for i, name, file, w, h in rows},
        target_examples=tuple(row[0] for row in examples),
    )


def printable(text: str) -> str:
    r"""The text with escapes for what a terminal would obey or UTF-8 cannot hold.

    >>> printable("caf\udce9 \x1b[2J.png")
    'caf\\udce9 \\x1b[2J.png'
    """
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def shuffled(items: Iterable[T], *key: int | str) -> list[T]:
    """The items in a pseudorandom order given by ``key``, the same on every machine.

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
