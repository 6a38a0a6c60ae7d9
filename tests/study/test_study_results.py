"""Results of studies: the warning about positions in simulated studies, and tables that are safe to open."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("scipy", reason='needs pip install "unpaired[study]"')

from tiny import write_images
from unpaired.cli.study import main
from unpaired.study.records import QUESTIONS, Vote, order_of_methods
from unpaired.study.results import biased_positions, votes_csv
from unpaired.study.store import Store

RATERS, IMAGES = 6, 10


def simulated(seed: int, methods: int, same: float, leftmost: float = 0.0) -> list[Vote]:
    """The votes of raters who each have a favourite method, on pages ordered as a study orders them.

    Args:
        seed: Of the study.
        methods: How many are compared.
        same: How often the answer to the first question about an image is given to another one, too.
        leftmost: How often a rater takes what stands on the left, whatever it is.
    """
    rng, votes = np.random.default_rng([seed, methods, int(100 * same)]), []
    for rater in range(RATERS):
        liked = rng.dirichlet(np.full(methods, 0.3))
        for image in range(IMAGES):
            shown = order_of_methods(seed, rater, image, range(methods))
            first = int(rng.choice(methods, p=liked))
            for question in QUESTIONS:
                method = first if rng.random() < same else int(rng.choice(methods, p=liked))
                if rng.random() < leftmost:
                    method = shown[0]
                names = tuple(f"m{k}" for k in shown)
                votes.append(Vote("", f"r{rater}", f"i{image}", question, f"m{method}", names, 0))
    return votes


@pytest.mark.parametrize("methods", [2, 3, 9])
@pytest.mark.parametrize("same", [0.0, 0.8, 1.0])
def test_positions_are_rarely_called_biased_where_they_are_not(methods: int, same: float) -> None:
    """At most one study in a hundred; counted as independent, questions with one answer gave up to 27."""
    studies = 300
    alarms = sum(bool(biased_positions(simulated(seed, methods, same), methods)) for seed in range(studies))
    assert alarms <= 9, "binomial, 1 %: p < 0.001 of more"


@pytest.mark.parametrize("methods", [2, 3, 9])
@pytest.mark.parametrize("same", [0.0, 1.0])
def test_a_bias_of_positions_is_found(methods: int, same: float) -> None:
    found = [biased_positions(simulated(seed, methods, same, leftmost=0.5), methods) for seed in range(30)]
    assert sum(map(bool, found)) >= 27
    assert all(counts[0] == max(counts) and sum(counts) == RATERS * IMAGES for one in found for counts in one.values())


def test_a_bias_on_one_question_is_named() -> None:
    votes = simulated(1, 3, 1.0)
    left = [Vote("", v.rater, v.image, "T", v.shown[0], v.shown, 0) if v.question == "T" else v for v in votes]
    assert biased_positions(left, 3) == {"T": [60, 0, 0]}
    assert biased_positions([], 3) == {}
    assert biased_positions([v for v in left if v.question == "T"], 3) == {"T": [60, 0, 0]}
    assert biased_positions([v for v in left if v.question == "Q"], 3) == {}


# ---------------------------------------------------------------------------------------------------------------------
# tables
# ---------------------------------------------------------------------------------------------------------------------
NAMES = (
    ("=HYPERLINK(1).png", "'=HYPERLINK(1).png"),
    ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
    ("+1", "'+1"),
    ("-1+1", "'-1+1"),
    ("@SUM(1)", "'@SUM(1)"),
    (" =1", "' =1"),
    ("\uff1d1", "'\uff1d1"),
    ("a;=1", "a;'=1"),
    ("a; @x;b", "a;' @x;b"),
    ("\t=1", "\\t=1"),
    ("\r=1\n+2", "\\r=1\\n+2"),
    ("\x1b[2Ja", "\\x1b[2Ja"),
    ("a\x00\x7f\x9b", "a\\x00\\x7f\\x9b"),
    ("gnp\u202eexe", "gnp\\u202eexe"),
    ("a\u2028=1", "a\\u2028=1"),
    ('a","=1', 'a","=1'),
    ("a-b=c+d@e.png", "a-b=c+d@e.png"),
    ("caf\u00e9 \u5199\u771f\u3000\U0001f40e\u200d.png", "caf\u00e9 \u5199\u771f\u3000\U0001f40e\u200d.png"),
)


@pytest.mark.parametrize(("name", "written"), NAMES)
def test_every_text_of_the_export_is_guarded(name: str, written: str) -> None:
    """Spreadsheets run what looks like a formula, terminals what follows an escape."""
    (row,) = csv.DictReader(votes_csv([Vote("2026", name, name, "Q", name, (name, "b"), 3)]).splitlines())
    assert [row[column] for column in ("rater", "image", "method")] == [written] * 3
    assert row["shown"] == f"{written} | b"
    assert (row["position"], row["changed"]) == ("1", "3")


def test_awkward_names_from_the_files_to_the_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, folder in enumerate(("source", "target", "=cmd()", "+b")):
        write_images(tmp_path / folder, 2, size=(40, 32), seed=seed)
        (tmp_path / folder / "image0.png").rename(tmp_path / folder / "=HYPERLINK(1).png")
        (tmp_path / folder / "image1.png").rename(tmp_path / folder / "\x1b[2J;@x.png")
    words: list[Any] = [tmp_path / "=cmd()", tmp_path / "+b", "--out", tmp_path / "study", "--no-serve"]
    words += ["--source", tmp_path / "source", "--target", tmp_path / "target"]
    assert main([str(word) for word in words]) == 0
    store = Store(tmp_path / "study")
    rater, _ = store.enter("Ada")
    for image in store.study.images:
        store.vote(rater.id, image, "Q", image, [0, 1])
    capsys.readouterr()
    assert main([str(store.folder), "--export", str(tmp_path / "votes.csv")]) == 0
    rows = list(csv.reader((tmp_path / "votes.csv").read_text().splitlines()))
    assert {row[2] for row in rows[1:]} == {"'=HYPERLINK(1).png", "\\x1b[2J;'@x.png"}
    assert {row[4] for row in rows[1:]} == {"'=cmd()", "'+b"}
    capsys.readouterr()
    assert main([str(store.folder), "--table", "--format", "csv"]) == 0
    rows += csv.reader(capsys.readouterr().out.splitlines())
    cells = [part for row in rows for cell in row for part in cell.split(";")]
    assert not [cell for cell in cells if re.match(r"\s*[=+\-@]", cell) or not cell.isprintable()]


@pytest.mark.parametrize("form", ["text", "markdown", "csv"])
def test_escapes_of_other_peoples_studies_reach_no_terminal(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    for method in store.study.methods:
        for part in ("name", "origin"):
            object.__setattr__(method, part, f"\x1b[2J\u202e{getattr(method, part)}")
    rater, _ = store.enter("Ada")
    store.vote(rater.id, 0, "Q", 1, [0, 1, 2])
    monkeypatch.setattr("unpaired.cli.study.Store", lambda folder: store)
    assert main([str(store.folder), "--table", "--format", form]) == 0
    said = capsys.readouterr().out
    assert "cut" in said
    assert not set(said) & {"\x1b", "\u202e"}
