"""The SQLite file of a study: one vote each, everything kept, whatever happens to the process."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from served_study import METHODS

from unpaired.errors import DataError
from unpaired.study.records import DATABASE, QUESTIONS, StoreError, open_database, order_of_images, order_of_methods
from unpaired.study.store import NameTakenError, Store


def asked(store: Store, command: str, values: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """What SQLite answers on a connection of the test's own; nothing stays open."""
    with contextlib.closing(sqlite3.connect(store.folder / DATABASE)) as connection, connection:
        connection.execute("PRAGMA foreign_keys = ON")
        return connection.execute(command, values).fetchall()


def test_what_was_planned_is_what_is_stored(store: Store) -> None:
    study = store.study
    assert [(method.name, "images in" in method.origin) for method in study.methods] == [(m, True) for m in METHODS]
    assert [image.name for image in study.images.values()] == [f"image{i}.png" for i in (0, 1, 3, 4)]
    assert all(image.translations.keys() == {0, 1, 2} and image.size == (40, 32) for image in study.images.values())
    assert (len(study.target_examples), study.votes_per_rater) == (2, 4 * 3)
    assert len(list((store.folder / "images").iterdir())) == 4 * 4 + 2


def test_a_later_vote_replaces_an_earlier_one_and_both_are_kept(store: Store) -> None:
    rater, _ = store.enter("Ada")
    assert store.vote(rater.id, 0, "Q", 1, [2, 1, 0]) == 1
    assert store.vote(rater.id, 0, "Q", 2, [2, 1, 0]) == 1
    assert store.vote(rater.id, 0, "Q", 2, [2, 1, 0]) == 1, "the same vote again changes nothing"
    assert store.vote(rater.id, 0, "T", 0, [2, 1, 0]) == 2
    assert store.answers(rater.id) == {(0, "Q"): 2, (0, "T"): 0}
    first, second = store.votes()
    assert (first.question, first.method, first.changed) == ("Q", "cyclegan", 1)
    assert first.shown == ("cyclegan", "cut", "ours")
    assert (second.method, second.changed) == ("ours", 0)
    assert asked(store, "SELECT method FROM earlier_votes") == [(1,)]


def test_the_file_itself_refuses_a_second_vote_and_what_does_not_exist(store: Store) -> None:
    rater, _ = store.enter("Ada")
    store.vote(rater.id, 0, "Q", 1, [0, 1, 2])
    insert = "INSERT INTO votes (rater, image, question, method, shown, time) VALUES (?, ?, ?, ?, '[]', '')"
    for values in ((1, 0, "Q", 2), (2, 0, "Q", 1), (1, 99, "Q", 1), (1, 1, "Q", 7), (1, 1, "X", 1)):
        with pytest.raises(sqlite3.IntegrityError):
            asked(store, insert, values)
    for rater_id, image, question, method in ((2, 0, "Q", 1), (1, 99, "Q", 1), (1, 0, "X", 1), (1, 0, "Q", 9)):
        with pytest.raises(StoreError, match="constraint failed"):
            store.vote(rater_id, image, question, method, [0])
    assert len(store.votes()) == 1


def test_names_are_one_persons(store: Store) -> None:
    ada, first = store.enter("Ada Lovelace")
    for same in ("Ada Lovelace", "ADA LOVELACE", "\uff21da Lovelace"):
        with pytest.raises(NameTakenError) as taken:
            store.enter(same)
        assert taken.value.rater == ada
    again, second = store.enter("ada lovelace", resume=True)
    assert again == ada
    assert first != second
    assert store.rater(first) == store.rater(second) == ada
    store.leave(first)
    assert store.rater(first) is None
    assert store.rater(second) == ada
    assert store.rater("made up") is None
    new, _ = store.enter("Grace", resume=True)
    assert new.id != ada.id
    nameless = {store.enter(None)[0].name for _ in range(5)}
    assert len(nameless) == 5


def test_secrets_are_not_in_the_file(store: Store) -> None:
    _, token = store.enter("Ada")
    content = b"".join(path.read_bytes() for path in store.folder.glob("study.sqlite*"))
    assert b"Ada" in content
    assert token.encode() not in content


def test_a_study_takes_only_so_many_raters(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unpaired.study.store.MOST_RATERS", 2)
    store.enter("one")
    store.enter("two")
    with pytest.raises(StoreError, match="2 raters"):
        store.enter("three")
    assert len(store.raters()) == 2


def test_raters_at_the_same_time(store: Store) -> None:
    """Eight people in threads, each voting and changing the mind; a ninth always about the same thing."""
    same, _ = store.enter("everywhere")

    def one(number: int) -> None:
        own = Store(store.folder)
        rater, _ = own.enter(f"rater {number}")
        for image in own.study.images:
            for question in QUESTIONS:
                own.vote(rater.id, image, question, number % 3, [0, 1, 2])
                own.vote(rater.id, image, question, (number + 1) % 3, [0, 1, 2])
        own.vote(same.id, 0, "Q", number % 3, [0, 1, 2])

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    votes = store.votes()
    assert len(votes) == 8 * store.study.votes_per_rater + 1
    assert all(vote.changed == 1 for vote in votes if vote.rater != "everywhere")
    assert [rater.votes for rater in store.raters()] == [1] + [store.study.votes_per_rater] * 8


_VOTER = """
import itertools, sys
from pathlib import Path
from typing import Any
from unpaired.study.store import Store
store = Store(Path(sys.argv[1]))
for number in itertools.count():
    rater, _ = store.enter(f"rater {number}")
    for image in store.study.images:
        for question in "QTC":
            store.vote(rater.id, image, question, 0, [0, 1, 2])
            print("kept", flush=True)
"""


def test_votes_survive_being_killed(store: Store) -> None:
    process = subprocess.Popen([sys.executable, "-c", _VOTER, str(store.folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    kept = 0
    while kept < 25:  # in the middle of the third rater, and of whatever comes after the line was printed
        assert process.stdout.readline() == "kept\n"
        kept += 1
    os.kill(process.pid, signal.SIGKILL)
    kept += process.stdout.read().count("kept\n")
    assert process.wait() == -signal.SIGKILL
    again = Store(store.folder)
    assert kept <= len(again.votes()) <= kept + 1
    assert asked(store, "PRAGMA integrity_check") == [("ok",)]
    before = len(again.votes())
    rater, _ = again.enter("later")
    again.vote(rater.id, 0, "Q", 1, [0, 1, 2])
    assert len(again.votes()) == before + 1


def test_what_is_no_study_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no study \(study.sqlite is missing\)"):
        Store(tmp_path)
    asked(store, "UPDATE study SET value = '7' WHERE key = 'format'")
    with pytest.raises(DataError, match="has format 7, but this version of unpaired reads 1"):
        Store(store.folder)
    for path in store.folder.glob("study.sqlite-*"):
        path.unlink()
    for content in (b"", b"not a database " * 100):
        (store.folder / DATABASE).write_bytes(content)
        with pytest.raises(DataError, match="cannot be read as a study"):
            Store(store.folder)


def test_a_locked_file_is_an_error_and_not_a_lost_vote(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    rater, _ = store.enter("Ada")
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **k | {"timeout": 0.05}))
    with open_database(store.folder / DATABASE) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            store.vote(rater.id, 0, "Q", 0, [0, 1, 2])
        assert store.votes() == [], "reading goes on"
    assert store.vote(rater.id, 0, "Q", 0, [0, 1, 2]) == 1


@pytest.mark.parametrize("waiting", [False, True], ids=["whole", "votes wait in a WAL"])
def test_votes_are_read_where_nothing_can_be_written(
    store: Store, monkeypatch: pytest.MonkeyPatch, waiting: bool
) -> None:
    connect, held = sqlite3.connect, sqlite3.connect(store.folder / "study.sqlite")
    if waiting:  # as earlier versions wrote, and a killed process leaves it
        held.execute("PRAGMA journal_mode = WAL")
    rater, _ = store.enter("Ann")
    image = next(iter(store.study.images.values()))
    store.vote(rater.id, image.id, "Q", 0, [*image.translations])

    def read_only(place: str, **options: Any) -> Any:
        if str(store.folder) in place and "immutable=1" not in place:
            raise sqlite3.OperationalError("unable to open database file")
        return connect(place, **options)

    monkeypatch.setattr("unpaired.study.records.sqlite3.connect", read_only)
    opened = Store(store.folder)
    assert [vote.rater for vote in opened.votes()] == ["Ann"]
    with pytest.raises(DataError, match=r"cannot take votes \(unable to open database file\).*--export"):
        opened.require_writing()
    held.close()


def test_orders_are_random_fixed_and_balanced() -> None:
    assert order_of_methods(0, 1, 2, range(3)) == order_of_methods(0, 1, 2, [2, 0, 1]), "whatever the order it had"
    assert order_of_images(0, 1, range(30)) == order_of_images(0, 1, range(30)) != order_of_images(1, 1, range(30))
    assert len({tuple(order_of_images(0, rater, range(30))) for rater in range(50)}) == 50
    places = itertools.product(range(60), range(100))
    counts = Counter(tuple(order_of_methods(3, rater, image, range(3))) for rater, image in places)
    assert len(counts) == 6
    assert sum((n - 1000) ** 2 / 1000 for n in counts.values()) < 20.5, "chi-squared, p > 0.001"
