"""Raters and votes of a study, in its SQLite file. Safe for several raters and processes at once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import sqlite3
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from unpaired.errors import DataError
from unpaired.files import parse_json
from unpaired.study.records import (
    DATABASE,
    IMAGES,
    Rater,
    StoreError,
    Study,
    Vote,
    now,
    open_database,
    open_read_only,
    read_study,
)

MOST_RATERS = 10_000
_ALIKE = str.maketrans({"\u2019": "'", "\u2010": "-", "\u200c": None, "\u200d": None})
"""In names: the typographic apostrophe, the hyphen, and the joiners, which cannot be seen."""


class NameTakenError(Exception):
    """A rater of this name takes part already; ``rater`` is that one."""

    def __init__(self, rater: Rater) -> None:
        super().__init__(rater.name)
        self.rater = rater


class Store:
    """A study folder: ``study.sqlite`` and ``images/``.

    Raises:
        DataError: The folder holds no study that this version can read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / DATABASE
        if not self._path.is_file():
            raise DataError(f"{folder}: holds no study ({DATABASE} is missing)")
        if not _lies_in(folder, self._path):
            raise DataError(f"{self._path}: leads out of the study's folder; put the file itself there")
        self._unwritable = ""
        self._open: Callable[[Path], AbstractContextManager[sqlite3.Connection]] = open_database
        try:
            self.study = self._read_study()
        except StoreError as error:
            self._open, self._unwritable = open_read_only, str(error)
            try:
                self.study = self._read_study()
            except StoreError as other:
                raise DataError(f"{self._path}: cannot be read as a study: {other}") from other
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{self._path}: is damaged ({error!r:.80}); restore a copy of it") from error
        shown = {image.file: image for image in self.study.images.values()}
        self.by_file = shown
        self._files = {
            *shown,
            *self.study.target_examples,
            *(file for image in shown.values() for file in image.translations.values()),
        }

    def _read_study(self) -> Study:
        with self._open(self._path) as connection:
            return read_study(connection, self._path)

    def require_writing(self) -> None:
        """Raise ``DataError`` where no vote could be kept."""
        try:
            with self._writing() as connection:
                written = "INSERT INTO study VALUES ('served', ?) ON CONFLICT DO UPDATE SET value = excluded.value"
                connection.execute(written, (json.dumps(now()),))
        except StoreError as error:
            raise DataError(
                f"{self._path} cannot take votes ({error}): the disk may be full or read-only. Those that were given "
                "can be read with --table, and written to another disk with --export FILE"
            ) from error

    def picture(self, file: str) -> Path | None:
        """The PNG behind an id; ``None`` for anything that is not an id of this study.

        Raises:
            StoreError: It is missing, or leads out of the folder: a study may come from other people.
        """
        if file not in self._files:
            return None
        folder = self.folder / IMAGES
        path = folder / f"{file}.png"
        if not (os.path.isfile(path) and _lies_in(folder, path) and _lies_in(self.folder, folder)):
            raise StoreError(f"{path}: is missing, is no file, or leads out of the study's folder; restore a copy")
        return path

    def enter(self, name: str | None, *, resume: bool = False) -> tuple[Rater, str]:
        """Start or resume a rater's session.

        Args:
            name: Name of the rater; ``None`` makes up a random one.
            resume: Continue as the rater of this name, if there is one.

        Returns:
            The rater and the secret token of the session.

        Raises:
            NameTakenError: There is a rater of this name and ``resume`` is false.
            StoreError: The study is full, or its file cannot be written.
        """
        token = secrets.token_urlsafe(24)
        with self._writing() as connection:
            called = name or f"rater-{secrets.token_hex(3)}"
            row = connection.execute("SELECT id FROM raters WHERE folded_name = ?", (_folded(called),)).fetchone()
            if row is not None and not resume:
                raise NameTakenError(_rater(connection, row[0]))
            if row is None:
                if connection.execute("SELECT count(*) FROM raters").fetchone()[0] >= MOST_RATERS:
                    raise StoreError(f"it already has {MOST_RATERS:,} raters, the most it can hold")
                row = connection.execute(
                    "INSERT INTO raters (name, folded_name, started) VALUES (?, ?, ?) RETURNING id",
                    (called, _folded(called), now()),
                ).fetchone()
            connection.execute("INSERT INTO sessions VALUES (?, ?)", (_digest(token), row[0]))
            return _rater(connection, row[0]), token

    def rater(self, token: str) -> Rater | None:
        """The rater with this session token, if any."""
        with self._open(self._path) as connection:
            row = connection.execute("SELECT rater FROM sessions WHERE token_digest = ?", (_digest(token),)).fetchone()
            return _rater(connection, row[0]) if row else None

    def leave(self, token: str) -> None:
        """End the session of a token; the votes stay."""
        with self._writing() as connection:
            connection.execute("DELETE FROM sessions WHERE token_digest = ?", (_digest(token),))

    def answers(self, rater: int) -> dict[tuple[int, str], int]:
        """(image, question) -> method, of one rater."""
        with self._open(self._path) as connection:
            rows = connection.execute("SELECT image, question, method FROM votes WHERE rater = ?", (rater,))
            return {(image, question): method for image, question, method in rows}

    def vote(self, rater: int, image: int, question: str, method: int, shown: Sequence[int]) -> int:
        """Count a vote; it replaces an earlier one on the same image and question, which is archived.

        Returns:
            How many votes of this rater count now.
        """
        with self._writing() as connection:
            connection.execute(
                "INSERT INTO votes (rater, image, question, method, shown, time) VALUES (?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (rater, image, question) DO UPDATE "
                "SET method = excluded.method, shown = excluded.shown, time = excluded.time "
                "WHERE method <> excluded.method",
                (rater, image, question, method, json.dumps(list(shown)), now()),
            )
            return _rater(connection, rater).votes

    def raters(self) -> list[Rater]:
        """All raters, in the order in which they began."""
        with self._open(self._path) as connection:
            ids = [row[0] for row in connection.execute("SELECT id FROM raters ORDER BY id")]
            return [_rater(connection, rater) for rater in ids]

    def votes(self) -> list[Vote]:
        """Every vote that counts, in the order in which they were given."""
        names = {method.id: method.name for method in self.study.methods}
        with self._open(self._path) as connection:
            rows = connection.execute(
                "SELECT votes.time, raters.name, images.name, votes.question, votes.method, votes.shown, ("
                "  SELECT count(*) FROM earlier_votes AS e"
                "  WHERE e.rater = votes.rater AND e.image = votes.image AND e.question = votes.question) "
                "FROM votes JOIN raters ON raters.id = votes.rater JOIN images ON images.id = votes.image "
                "ORDER BY votes.time, votes.rater, votes.image, votes.question"
            )
            try:
                return [
                    Vote(time, rater, image, question, names[method], tuple(names[k] for k in parse_json(shown)), times)
                    for time, rater, image, question, method, shown, times in rows
                ]
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(f"{self._path}: a vote is damaged ({error!r:.80}); restore a copy of it") from error

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all or nothing of it is on the disk when the block ends."""
        if self._unwritable:
            raise StoreError(self._unwritable)
        with open_database(self._path) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                if connection.in_transaction:  # SQLite rolls back by itself when the disk is full
                    connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")


def _rater(connection: sqlite3.Connection, rater: int) -> Rater:
    row = connection.execute(
        "SELECT id, name, started, (SELECT count(*) FROM votes WHERE votes.rater = raters.id) FROM raters WHERE id = ?",
        (rater,),
    ).fetchone()
    return Rater(*row)


def _lies_in(folder: Path, path: Path) -> bool:
    """Whether an entry of a folder is in fact there, whatever links it is made of."""
    return os.path.dirname(os.path.realpath(path)) == os.path.realpath(folder)


def _folded(name: str) -> str:
    """A normal form, equal for names that look alike."""
    return unicodedata.normalize("NFKC", name).translate(_ALIKE).casefold()


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
