"""Paths of Windows, on any system: sorted, shown and left out of pages as those of others."""

from __future__ import annotations

import operator
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import pytest

from unpaired.files import folders_pattern, last_part
from unpaired.reporting.page import breakable

KNOWN = [PureWindowsPath(r"C:\Users\me two\unpaired\x"), PurePosixPath("/home/me/unpaired/x")]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (r"C:\Users\me two\unpaired\runs\cut", r"runs\cut"),
        ("C:/Users/me two/unpaired/runs/cut", "runs/cut"),
        ("/home/me/unpaired/runs/cut", "runs/cut"),
        (r"D:\data\horses\testA of D:\other", r"testA of other"),
        (r"'\\server\share\horses'", r"'horses'"),
        (r"runs\cut and runs/cut", r"runs\cut and runs/cut"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("50 / 60 or a/b", "50 / 60 or a/b"),
    ],
)
def test_pages_name_no_folders_of_a_machine(text: str, shown: str) -> None:
    assert folders_pattern(KNOWN).sub("", text) == shown


@pytest.mark.parametrize("kind", [PureWindowsPath, PurePosixPath])
def test_images_have_one_order_on_every_system(kind: Any) -> None:
    names = ["B.png", "a.png", "b.png", "a-b/1.png", "a/1.png", "A/2.png"]
    ordered = sorted(map(kind, names), key=operator.attrgetter("parts"))
    assert [path.as_posix() for path in ordered] == ["A/2.png", "B.png", "a/1.png", "a-b/1.png", "a.png", "b.png"]


@pytest.mark.parametrize(
    "place", ["/home/me/horses", "C:\\Users\\me\\horses", "horses", "data/horses/", "data\\horses"]
)
def test_the_name_of_recorded_data_is_the_same_on_every_system(place: str) -> None:
    assert last_part(place) == "horses"


def test_long_paths_break_into_lines_on_pages() -> None:
    assert breakable(r"runs\a_b/<c>") == r"runs\<wbr>a_<wbr>b/<wbr>&lt;c&gt;"
