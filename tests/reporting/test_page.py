"""The HTML page: valid, self-contained, escaped, written whole or not at all; all is there without its script."""

from __future__ import annotations

import base64
import hashlib
import io
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from recorded_runs import KID, PSNR, evaluation, write_run
from unpaired.errors import ConfigError, UserError
from unpaired.reporting import page
from unpaired.reporting.figures import line_chart
from unpaired.reporting.page import Encoding, html_page, write_page
from unpaired.reporting.pictures import Panel, View
from unpaired.reporting.tables import collect

VOID = {"meta", "img", "br", "wbr", "link", "hr", "input"}


class Reader(HTMLParser):
    """Checks how elements are nested while it collects them and their texts."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(html)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute twice: {tag} {attrs}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes the wrong element"

    def handle_data(self, data: str) -> None:
        if self.open and data.strip():
            self.texts.append((self.open[-1], data.strip()))

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        return [found for name, found in self.elements if name == tag and attributes.items() <= found.items()]


def noise(seed: int, side: int = 48) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def panels() -> list[Panel]:
    grey = Image.new("RGB", (64, 64), (128, 128, 128))
    first = View("QS-Attn", grey, np.array([[0.0, 2.0], [1.0, 1.0]]), np.array([0, 3]), "selects <by> entropy")
    second = View("CUT", grey, np.array([[2.0, 4.0], [4.0, 4.0]]), np.array([0]))
    return [Panel(image, tap, [first, second]) for image in ("horse", "zebra & co") for tap in ("block1", "block5")]


@pytest.fixture(scope="module")
def sections(tmp_path_factory: pytest.TempPathFactory) -> list[page.Section]:
    rows = {"input": {KID: 90.0}, "ema": {KID: 1 / 3, PSNR: math.inf}, "last": {KID: 0.5, PSNR: -math.inf},
            "best": {KID: 0.1}}  # fmt: skip
    run = write_run(tmp_path_factory.mktemp("page") / "run", evaluation(rows))
    pairs = [(name, Image.new("RGB", (64, 48), "red"), Image.new("RGB", (64, 48), "blue")) for name in ("a", '<b>&"c')]
    return [
        page.heading("Black & colour", "A <subtitle>"),
        page.facts({"Checkpoint": "runs/x_1/<best>.pt", "Seed": 0}),
        page.score_table(collect([run], names=["<ours>"])),
        page.before_after(pairs, note="why & how"),
        page.gallery(["Input", "Made"], [("cat", (noise(0), noise(1))), ("dog", (noise(2, 16), None))]),
        page.filmstrips([("run <1>", ["input", "500"], [[noise(0), noise(1)], [noise(2), None]])]),
        page.charts([line_chart({"loss": [(0, 2.0), (1, 1.0)]}, "Losses", "images", "loss")] * 2),
        page.significance_viewer(panels()),
        page.table(["", "a<b"], [["seed", 3]], title="Runs"),
        page.notes(["<script>alert(1)</script>"]),
        page.command("unpaired train --out 'a & b' --note \"x\""),
    ]


@pytest.fixture(scope="module")
def html(sections: list[page.Section]) -> str:
    return html_page("Black & <colour>", sections, footer="<end>")


def test_how_to_use_the_sliders_is_said_above_them(html: str) -> None:
    assert html.index("why &amp; how") < html.index('class="pairs"')


def test_the_page_is_valid_self_contained_and_escaped(html: str) -> None:
    found = Reader(html)
    assert html.startswith("<!DOCTYPE html>")
    assert len(found.all("h1")) == len(found.all("main")) == len(found.all("script")) == 1
    assert found.all("link") == found.all("iframe") == []
    for text in (
        ("title", "Black & <colour>"), ("p", "<script>alert(1)</script>"), ("h3", "run <1>"), ("footer", "<end>"),
        ("code", "unpaired train --out 'a & b' --note \"x\""), ("th", "a<b"), ("p", "why & how"),
        ("small", "selects <by> entropy; 2 of 4 locations; 0.00 to 2.00 nats"), ("h3", "zebra & co, block5"),
        ("th", "<ours>, EMA"), ("summary", "How each score is measured"),
    ):  # fmt: skip
        assert text in found.texts, text
    assert "url(" not in html.replace("url(#", "")
    assert "@import" not in html
    references = [
        value or "" for _, attrs in found.elements for name, value in attrs.items() if name in ("src", "href")
    ]
    assert references
    assert all(value.startswith(("data:image/", "#")) for value in references)
    assert set(re.findall(r"https?://[^\"' <]+", html)) <= {"http://www.w3.org/2000/svg"}
    assert "@media screen and (prefers-color-scheme: dark)" in html  # paper stays white
    assert found.all("meta", name="viewport")


def test_the_policy_allows_exactly_the_one_script(html: str) -> None:
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (meta,) = Reader(html).all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; " in str(meta)
    assert not re.search(r"\son\w+=", html)  # no handler in an attribute: the policy would stop it
    assert script.isascii()


def test_scores_sort_by_exact_values_and_mark_the_best(html: str) -> None:
    body = html.split('<table class="scores')[1].split("</table>")[0]
    assert re.findall(r'data-value="([^"]+)"', body) == ["90.0", repr(1 / 3), "Infinity", "0.5", "-Infinity", "0.1"]
    assert re.findall(r'class="best"[^>]*>([^<]+)', body) == ["0.333", "∞"]
    assert '<th scope="col" data-better="higher">PSNR to truth&nbsp;↑<small>higher is better, dB</small>' in body
    assert '<tr class="reference"><th scope="row">input (untranslated)</th>' in body
    assert body.count(">\N{EN DASH}</td>") == 2
    assert "kid_lite0_x1e3_200v200: kernel distance on Lite0" in html


def test_images_have_words_and_size_and_lose_nothing(html: str) -> None:
    images = {found["alt"]: found for found in Reader(html).all("img")}
    (cat, dog) = (images[name] for name in ("cat: Input", "dog: Input"))
    assert (cat["width"], cat["height"], dog["class"]) == ("48", "48", "pixels")
    stored = Image.open(io.BytesIO(base64.b64decode(str(cat["src"]).split(",")[1])))
    np.testing.assert_array_equal(np.asarray(stored), np.asarray(noise(0)))
    assert {"a: before", "a: after", '<b>&"c: before', "1: input", "2: input"} <= images.keys()


def test_without_a_script_everything_is_there(html: str) -> None:
    found = Reader(html)
    shown = [attrs for attrs in found.all("div", **{"class": "panel"}) if "hidden" not in attrs]
    assert [(attrs["data-image"], attrs["data-tap"]) for attrs in shown] == [
        ("0", "0"), ("0", "1"), ("1", "0"), ("1", "1"),
    ]  # fmt: skip
    assert "hidden" in found.all("div", **{"class": "controls"})[0]  # they do nothing without the script
    radios = found.all("input", type="radio")
    assert [radio["name"] for radio in radios] == ["viewer-image"] * 2 + ["viewer-tap"] * 2
    assert ["checked" in radio for radio in radios] == [True, False, True, False]
    assert all("hidden" in slider for slider in found.all("input", type="range"))


def test_points_lie_at_the_centres_of_their_locations_and_encoders_share_one_scale(html: str) -> None:
    drawings = re.findall(r'<svg viewBox="0 0 4 4".*?aria-label="([^"]+)">(.*?)</svg>', html, re.DOTALL)
    assert [words for words, _ in drawings[:2]] == [
        "horse, block1, QS-Attn: 2 selected points", "horse, block1, CUT: 1 selected points",
    ]  # fmt: skip
    assert re.findall(r' d="([^"]+)"', drawings[0][1]) == ["M1 1h0M3 3h0"] * 2  # ring and dot
    maps = {}
    for found in Reader(html).all("img"):
        data = base64.b64decode(str(found["src"]).split(",")[1])
        maps[found["alt"]] = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    first, second = (maps[f"horse, block1, {name}: entropy"] for name in ("QS-Attn", "CUT"))
    side = first.shape[0] // 4
    np.testing.assert_array_equal(first[side, 3 * side], second[side, side])  # both 2 nats
    assert first[side, side].sum() > second[side, side].sum() > second[side, 3 * side].sum()
    assert ("span", "4.00 nats") in Reader(html).texts


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: page.gallery(["Input", "Made"], [("cat", [noise(0)])]), "row 'cat' has 1 pictures for 2 columns"),
        (lambda: page.filmstrips([("run", ["input", "500"], [[noise(0)]])]), "has 1 pictures for 2 columns"),
        (lambda: page.table(["", "a"], [["seed"]], title="Runs"), "row 'seed' has 1 cells for 2 columns"),
    ],
)
def test_rows_of_the_wrong_length_are_refused(make: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()


def photo(side: int) -> Image.Image:
    return noise(5, 6).resize((side, side), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    ("image", "encoding", "kind", "side"),
    [
        (photo(128), Encoding(), "png", 128),
        (photo(128), Encoding(80), "webp", 128),
        (photo(128), Encoding(80, largest_side=96), "webp", 96),
        (photo(64), Encoding(80), "png", 64),  # an icon
        (Image.new("RGB", (128, 128), "red"), Encoding(80), "png", 128),  # a drawing
    ],
)
def test_photos_follow_the_encoding_and_drawings_lose_nothing(
    image: Image.Image, encoding: Encoding, kind: str, side: int
) -> None:
    head, _, data = page.data_uri(image, encoding).partition(",")
    assert head == f"data:image/{kind};base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (side, side)


def test_pages_that_cannot_be_written_are_named_and_the_old_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    for bad in (tmp_path, tmp_path / "file" / "report.html", tmp_path / ("n" * 300 + ".html")):
        with pytest.raises(UserError, match="cannot write the report") as caught:
            write_page(bad, "t", [])
        assert str(bad) in str(caught.value)
    path = write_page(tmp_path / "r.html", "old", []).path

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("unpaired.files.os.fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        write_page(path, "new", [])
    assert "<title>old</title>" in path.read_text()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "r.html"]


def test_text_that_is_not_encodable_is_still_written(tmp_path: Path) -> None:
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    path = write_page(tmp_path / "r.html", "t", [page.facts({"File": name})]).path
    assert "caf&#56553;.png" in path.read_text(encoding="utf-8")
