"""The HTML report: one valid, self-contained, escaped page, written whole or not at all."""

from __future__ import annotations

import base64
import hashlib
import io
import math
import re
from pathlib import Path

import numpy as np
import pytest
from pages import Page
from PIL import Image

from unpaired import reports
from unpaired.errors import ConfigError, UserError
from unpaired.reports import Encoding, ScoreColumn, ScoreRow, score_table, write_html_report


def picture(seed: int, side: int = 48) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


COLUMNS = [
    ScoreColumn("swd", "SWD", "lower", digits=1, unit="x 1e-3", protocol="how <it> was measured"),
    ScoreColumn("psnr", "PSNR", "higher", digits=1, unit="dB", gain="difference"),
]
ROWS = [
    ScoreRow("Input", {"swd": 100.0, "psnr": 7.5}),
    ScoreRow("QS-Attn", {"swd": 25.0, "psnr": 11.0}, note="200 images"),
    ScoreRow("CUT", {"swd": 125.0, "psnr": None}),
    ScoreRow("Real against real", {"swd": 18.0}, reference=True),
]


def all_blocks() -> list[reports.Block]:
    return [
        reports.heading("Black & colour", "A <subtitle>"),
        reports.facts({"Checkpoint": "runs/x_1/<best>.pt", "Seed": 0}),
        score_table(COLUMNS, ROWS),
        reports.gallery(["Input", "Made"], [("cat", (picture(0), picture(1))), ("dog", (picture(2, 16), None))]),
        reports.figure(picture(3), "A grid"),
        reports.charts([reports.curve_svg({"loss": [(0, 2.0), (1, 1.0)]}, "Losses", "images", "loss")]),
        reports.notes(["<script>alert(1)</script>"]),
        reports.command("unpaired train --out 'a & b' --note \"x\""),
    ]


def test_a_whole_report_is_valid_self_contained_and_escaped(tmp_path: Path) -> None:
    path = write_html_report(tmp_path / "new" / "report.html", "Black & <colour>", all_blocks())
    html = path.read_text(encoding="utf-8")
    assert html.startswith("<!DOCTYPE html>")
    page = Page(html)
    assert page.count("h1") == page.count("title") - page.count("svg") == page.count("main") == 1
    assert page.count("script") == page.count("link") == page.count("iframe") == 0
    assert ("title", "Black & <colour>") in page.texts
    assert ("p", "<script>alert(1)</script>") in page.texts
    assert ("code", "unpaired train --out 'a & b' --note \"x\"") in page.texts
    assert "url(" not in html
    assert "@import" not in html
    references = [value for _, attrs in page.elements for name, value in attrs.items() if name in ("src", "href")]
    assert references
    assert all(value.startswith("data:image/png;base64,") for value in references)
    outside = set(re.findall(r"https?://[^\"' <]+", html))
    assert outside <= {"http://www.w3.org/2000/svg"}
    assert "@media screen and (prefers-color-scheme: dark)" in html  # paper stays white
    assert any(tag == "meta" and attrs.get("name") == "viewport" for tag, attrs in page.elements)


def test_images_are_stored_without_loss_with_words_and_size(tmp_path: Path) -> None:
    page = Page(reports.gallery(["Input", "Made"], [("cat", (picture(0), picture(1, 16)))]))
    images = [attrs for tag, attrs in page.elements if tag == "img"]
    assert [attrs["alt"] for attrs in images] == ["cat: Input", "cat: Made"]
    assert (images[0]["width"], images[0]["height"]) == ("48", "48")
    assert "pixels" in (images[1].get("class") or "")
    stored = Image.open(io.BytesIO(base64.b64decode(images[0]["src"].split(",")[1])))
    np.testing.assert_array_equal(np.asarray(stored), np.asarray(picture(0)))


def cells(block: str) -> dict[str, list[str]]:
    """Row label -> its cells as HTML."""
    found = {}
    for row in re.findall(r"<tr[^>]*>(.*?)</tr>", block.split("<tbody>")[1]):
        label = re.search(r'<th scope="row">([^<]*)', row)
        assert label is not None
        found[label[1]] = re.findall(r"<td[^>]*>.*?</td>", row)
    return found


def test_scores_mark_the_best_and_tell_the_gain_in_the_right_direction() -> None:
    rows = cells(score_table(COLUMNS, ROWS))
    assert rows["Input"] == ["<td>100.0</td>", "<td>7.5</td>"]
    assert rows["QS-Attn"][0] == '<td class="best">25.0<small class="good">75 % better</small></td>'
    assert rows["QS-Attn"][1] == '<td class="best">11.0<small class="good">3.5 dB better</small></td>'
    assert '<small class="bad">25 % worse</small>' in rows["CUT"][0]
    assert "best" not in rows["CUT"][0]
    assert rows["CUT"][1] == "<td>\N{EN DASH}</td>"
    assert rows["Real against real"][0] == "<td>18.0</td>"  # a reference: not best, no gain


def test_scores_ties_baselines_and_odd_values() -> None:
    column = [ScoreColumn("a", "A", "lower", digits=2)]
    tie = cells(score_table(column, [ScoreRow("x", {"a": 0.501}), ScoreRow("y", {"a": 0.504})]))
    assert all("best" in row[0] for row in tie.values())  # equal as printed: both
    assert "0.6 % worse" in tie["y"][0]
    odd = cells(
        score_table(
            column,
            [
                ScoreRow("x", {"a": 0.0}),
                ScoreRow("y", {"a": math.inf}),
                ScoreRow("z", {"a": math.nan}),
                ScoreRow("w", {}),
            ],
        )
    )
    assert odd["y"] == ["<td>∞</td>"]
    assert odd["z"] == odd["w"] == ["<td>\N{EN DASH}</td>"]
    moved = cells(score_table(column, [ScoreRow("x", {"a": 2.0}), ScoreRow("y", {"a": 1.0})], baseline="y"))
    assert "100 % worse" in moved["x"][0]
    alone = cells(score_table(column, [ScoreRow("x", {"a": 2.0})]))
    assert alone["x"] == ["<td>2.00</td>"]
    same = cells(score_table(column, [ScoreRow("x", {"a": 2.0}), ScoreRow("y", {"a": 2.0})]))
    assert "no change" in same["y"][0]
    with pytest.raises(ConfigError, match="'q' is no row of the table; rows: x"):
        score_table(column, [ScoreRow("x", {})], baseline="q")


def test_headers_carry_direction_unit_and_protocol() -> None:
    block = score_table(COLUMNS, ROWS)
    assert "SWD&nbsp;↓<small>lower is better, x 1e-3</small>" in block
    assert "PSNR&nbsp;↑<small>higher is better, dB</small>" in block
    assert "SWD: how &lt;it&gt; was measured" in block


def test_gallery_refuses_a_row_of_the_wrong_length() -> None:
    with pytest.raises(ConfigError, match="row 'cat' has 1 pictures for 2 columns"):
        reports.gallery(["Input", "Made"], [("cat", [picture(0)])])


def test_unwritable_paths_are_named_and_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for bad in (tmp_path, tmp_path / "file" / "report.html", tmp_path / ("n" * 300 + ".html")):
        with pytest.raises(UserError, match="cannot write the report") as caught:
            write_html_report(bad, "t", [])
        assert str(bad) in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_failed_write_keeps_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_html_report(tmp_path / "r.html", "old", [])
    before = path.read_bytes()

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("unpaired.reports.html.os.fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        write_html_report(path, "new", [])
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["r.html"]
    monkeypatch.undo()
    assert b"<title>new</title>" in write_html_report(path, "new", []).read_bytes()


def test_text_that_is_not_encodable_is_still_written(tmp_path: Path) -> None:
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    path = write_html_report(tmp_path / "r.html", "t", [reports.facts({"File": name})])
    assert "caf&#56553;.png" in path.read_text(encoding="utf-8")


# ---------------------------------------------------------------------------------------------------------------------
# scripts
# ---------------------------------------------------------------------------------------------------------------------
def policy_of(html: str) -> dict[str, str]:
    content = next(
        attrs["content"]
        for tag, attrs in Page(html).elements
        if tag == "meta" and attrs.get("http-equiv") == "Content-Security-Policy"
    )
    assert content is not None
    return {name: rest for name, _, rest in (part.strip().partition(" ") for part in content.split(";"))}


def test_a_page_without_a_script_allows_none() -> None:
    html = reports.html_page("t", [score_table(COLUMNS, ROWS), reports.notes(['data-script="sort"'])])
    assert policy_of(html)["script-src"] == "'none'"
    assert policy_of(html)["default-src"] == "'none'"
    assert "<script" not in html


def test_a_page_with_a_script_allows_exactly_that_one() -> None:
    html = reports.html_page("t", [score_table(COLUMNS, ROWS, sortable=True)])
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = policy_of(html)
    assert policy["script-src"] == f"'sha256-{digest}'"
    assert policy["img-src"] == "data:"
    assert "unsafe" not in policy["script-src"]
    assert not re.search(r"\son\w+=", html)  # no handler in an attribute: the policy would stop it
    assert script.isascii()
    assert Page(html).count("script") == 1


def test_pages_carry_only_the_scripts_that_they_use() -> None:
    html = reports.html_page("t", [score_table(COLUMNS, ROWS, sortable=True)])
    assert "aria-sort" in html
    assert "panel.hidden" not in html


def test_a_sortable_table_reads_the_same_and_keeps_exact_values() -> None:
    plain, sortable = score_table(COLUMNS, ROWS), score_table(COLUMNS, ROWS, sortable=True)
    stripped = re.sub(r' data-[\w-]+="[^"]*"', "", sortable).replace(
        '<th scope="col">Name</th>', '<th scope="col"></th>'
    )
    assert re.sub(r'<p class="note script-only" hidden>.*?</p>', "", stripped) == plain
    assert "data-" not in plain
    exact = score_table(
        [ScoreColumn("a", "A", "higher", digits=1)],
        [
            ScoreRow("x", {"a": 1 / 3}),
            ScoreRow("y", {"a": math.inf}),
            ScoreRow("z", {"a": -math.inf}),
            ScoreRow("w", {}),
        ],
        sortable=True,
    )
    assert re.findall(r'data-value="([^"]+)"', exact) == [repr(1 / 3), "Infinity", "-Infinity"]
    assert '<th scope="col" data-better="higher">' in exact


def test_details_stand_under_their_value() -> None:
    rows = [ScoreRow("x", {"a": 1.0, "b": 2.0}, details={"a": "± <0.1>"})]
    found = cells(score_table([ScoreColumn("a", "A", "lower", 1), ScoreColumn("b", "B", "lower", 1)], rows))
    assert found["x"] == ["<td>1.0<small>± &lt;0.1&gt;</small></td>", "<td>2.0</td>"]


# ---------------------------------------------------------------------------------------------------------------------
# pictures and words
# ---------------------------------------------------------------------------------------------------------------------
def photo(side: int = 128) -> Image.Image:
    coarse = np.random.default_rng(5).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def stored_image(block: str) -> tuple[str, Image.Image]:
    kind, data = re.findall(r'src="data:image/(\w+);base64,([^"]+)"', block)[0]
    return kind, Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


def test_photos_are_stored_small_and_drawings_without_loss() -> None:
    encoding = Encoding(quality=88)
    kind, stored = stored_image(reports.gallery(["a"], [("x", [photo()])], encoding=encoding))
    assert kind == "webp"
    error = np.abs(np.asarray(stored, dtype=float) - np.asarray(photo(), dtype=float)).mean()
    assert 0 < error < 3
    drawing = Image.new("RGB", (128, 128), (255, 255, 255))
    drawing.paste((10, 20, 30), (20, 20, 70, 90))
    for image in (drawing, photo(64)):
        kind, stored = stored_image(reports.gallery(["a"], [("x", [image])], encoding=encoding))
        assert kind == "png"
        np.testing.assert_array_equal(np.asarray(stored), np.asarray(image))


def test_large_pictures_are_scaled_down_and_keep_their_place_on_the_page() -> None:
    block = reports.gallery(["a"], [("x", [photo(128)])], encoding=Encoding(80, largest_side=96))
    assert stored_image(block)[1].size == (96, 96)
    assert 'width="128" height="128"' in block
    assert stored_image(reports.gallery(["a"], [("x", [photo(80)])], encoding=Encoding(80, 96)))[1].size == (80, 80)


def test_filmstrips_and_tables_name_their_columns_and_refuse_uneven_rows() -> None:
    strip = reports.filmstrips([("run <1>", ["input", "500"], [[picture(0), picture(1)], [picture(2), None]])])
    page = Page(strip)
    assert [text for tag, text in page.texts if tag == "th"] == ["input", "500"]
    assert ("h3", "run <1>") in page.texts
    assert [attrs["alt"] for tag, attrs in page.elements if tag == "img"] == ["1: input", "1: 500", "2: input"]
    with pytest.raises(ConfigError, match="1 pictures for 2 columns"):
        reports.filmstrips([("run", ["input", "500"], [[picture(0)]])])
    words = reports.table(["", "a<b"], [["seed", 3]], title="Runs")
    assert {("th", "a<b"), ("th", "seed"), ("td", "3")} <= set(Page(words).texts)
    with pytest.raises(ConfigError, match="'seed' has 1 cells for 2 columns"):
        reports.table(["", "a"], [["seed"]], title="Runs")
