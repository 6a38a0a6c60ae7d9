"""The viewer of significance: all there without a script, points in place, one scale for all encoders of a panel."""

from __future__ import annotations

import base64
import io
import math
import re

import numpy as np
import pytest
from pages import Page
from PIL import Image

from unpaired.reports import Encoding, Panel, View, html_page, significance_viewer

GREY = Image.new("RGB", (64, 64), (128, 128, 128))


def view(name: str, entropy: np.ndarray, indices: list[int], note: str = "") -> View:
    return View(name, GREY, entropy, np.array(indices), note)


def panels() -> list[Panel]:
    first = view("QS-Attn", np.array([[0.0, 2.0], [1.0, 1.0]]), [0, 3], "selects <by> entropy")
    second = view("CUT", np.array([[2.0, 4.0], [4.0, 4.0]]), [0])
    return [Panel(image, tap, [first, second]) for image in ("horse", "zebra & co") for tap in ("block1", "block5")]


def pictures(block: str, words: str) -> list[np.ndarray]:
    found = re.findall(rf'src="data:image/\w+;base64,([^"]+)" alt="{re.escape(words)}"', block)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int) for data in found]


def test_every_image_tap_and_encoder_is_on_the_page_without_a_script() -> None:
    block = significance_viewer(panels())
    page = Page(block)
    shown = [attrs for tag, attrs in page.elements if "panel" in (attrs.get("class") or "").split()]
    assert [(attrs["data-image"], attrs["data-tap"]) for attrs in shown] == [
        ("0", "0"),
        ("0", "1"),
        ("1", "0"),
        ("1", "1"),
    ]
    assert not any("hidden" in attrs for attrs in shown)
    controls = next(attrs for _, attrs in page.elements if attrs.get("class") == "controls")
    assert "hidden" in controls  # they do nothing without the script
    assert page.count("figure") == 8
    assert ("h3", "zebra & co, block5") in page.texts
    assert ("small", "selects <by> entropy; 2 of 4 locations; 0.00 to 2.00 nats") in page.texts


def test_choices_are_radio_buttons_that_keys_can_move() -> None:
    html = html_page("t", [significance_viewer(panels(), key="a"), significance_viewer(panels(), key="b")])
    radios = [attrs for tag, attrs in Page(html).elements if tag == "input"]
    assert {attrs["type"] for attrs in radios} == {"radio"}
    names = [attrs["name"] for attrs in radios]
    assert sorted(set(names)) == ["a-image", "a-tap", "b-image", "b-tap"]
    assert [names.count(name) for name in ("a-image", "a-tap")] == [2, 2]
    assert sum("checked" in attrs for attrs in radios) == 4
    assert html.count("<script>") == 1


def test_all_encoders_of_a_panel_share_one_scale() -> None:
    block = significance_viewer(panels()[:1])
    (first,) = pictures(block, "horse, block1, QS-Attn: entropy")
    (second,) = pictures(block, "horse, block1, CUT: entropy")
    side = first.shape[0] // 4
    np.testing.assert_array_equal(first[side, 3 * side], second[side, side])  # both 2 nats
    assert first[side, side].sum() > second[side, side].sum() > second[side, 3 * side].sum()
    assert {"0.00 nats, most significant", "4.00 nats"} <= {text for _, text in Page(block).texts}


def test_points_lie_at_the_centres_of_their_locations() -> None:
    block = significance_viewer(panels()[:1])
    drawings = re.findall(r'<svg viewBox="0 0 4 4".*?aria-label="([^"]+)">(.*?)</svg>', block)
    assert [words for words, _ in drawings] == [
        "horse, block1, QS-Attn: 2 selected points", "horse, block1, CUT: 1 selected points",
    ]  # fmt: skip
    assert re.findall(r' d="([^"]+)"', drawings[0][1]) == ["M1 1h0M3 3h0"] * 2  # ring and dot


@pytest.mark.parametrize("entropy", [np.full((2, 2), math.nan), np.full((2, 2), 3.0)])
def test_maps_without_a_range_and_without_points_are_shown(entropy: np.ndarray) -> None:
    assert "0 of 4 locations" in significance_viewer([Panel("a", "block1", [view("x", entropy, [])])])
    assert Page(significance_viewer([])).count("figure") == 0


def test_photos_follow_the_encoding() -> None:
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 256, (128, 128, 3), dtype=np.uint8))
    panel = Panel("a", "block1", [View("x", photo, np.ones((8, 8)), np.array([1]))])
    small = significance_viewer([panel], encoding=Encoding(70, 64))
    assert len(small) < len(significance_viewer([panel], encoding=Encoding(70))) < len(significance_viewer([panel]))
