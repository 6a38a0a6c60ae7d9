"""The real sets, where they are at hand: what is in them is known."""

from __future__ import annotations

from collections import Counter

from official_archives import quiet

from tiny import shared_data
from unpaired.data import EMBEDDED
from unpaired.data.check import check_set


def test_horse2zebra_is_what_it_is_known_to_be() -> None:
    report = check_set(shared_data("horse2zebra"), quiet)
    kinds = Counter((finding.level, finding.kind) for finding in report.findings)
    assert kinds == {
        ("warning", "leak"): 1, ("note", "modes"): 1, ("note", "duplicates"): 2, ("note", "similar"): 3,
        ("note", "profile"): 4,
    }  # fmt: skip
    found = {finding.words: finding.files for finding in report.findings}
    assert found["1 picture of testA is in trainA, too"] == ["testA/n02381460_1160.jpg = trainA/n02381460_3811.jpg"]
    assert len(found["8 pictures of trainA are there more than once"]) == 8
    assert len(found["16 pictures of trainB are there more than once"]) == 16
    assert len(found["7 of 1,334 images of trainB are gray (mode L)"]) == 7
    assert [(len(part.images), part.official) for part in report.parts] == [(n, n) for n in (1067, 1334, 120, 140)]
    similar = [line for finding in report.findings if finding.kind == "similar" for line in finding.files]
    assert len(similar) == 7  # looked at: each is one photo in two versions
    assert "testB/n02391049_5240.jpg ~ trainB/n02391049_2136.jpg" in similar


def test_the_drawings_as_they_were_have_one_face_in_common() -> None:
    report = check_set(shared_data("fluent"), quiet, near=-1)
    (leak,) = (finding for finding in report.findings if finding.kind == "leak")
    assert leak.files == ["testA/cat-face.png = trainA/grinning-cat.png"]
    assert report.count("error") == 0


def test_the_embedded_drawings_have_no_leak() -> None:
    report = check_set(EMBEDDED["fluent"], quiet)
    assert report.count("error") == report.count("warning") == 0
    assert {part.folder: len(part.images) for part in report.parts} == {
        "trainA": 619, "trainB": 614, "valA": 200, "valB": 200, "testA": 120, "testB": 120,
    }  # fmt: skip
    similar = [line for finding in report.findings if finding.kind == "similar" for line in finding.files]
    assert similar
    assert not [line for line in similar if "test" in line]
