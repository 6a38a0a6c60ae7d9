"""Charts, sheets for papers, points and heat maps: values where they belong, every pixel kept, words escaped."""

from __future__ import annotations

import io
import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unpaired.errors import ConfigError
from unpaired.grids import heat_map
from unpaired.reporting.figures import PALETTE, Cell, Sheet, bar_colours, line_chart

SVG = "{http://www.w3.org/2000/svg}"
QUERY_COLOUR = (255, 64, 129)


def lines_of(svg: str, colour: str = PALETTE[0]) -> list[list[tuple[float, float]]]:
    """The points of each unbroken part of the lines of one colour, y downwards."""
    found = []
    for path in ElementTree.fromstring(svg).iter(f"{SVG}path"):
        if f"stroke: {colour}" in path.attrib.get("style", "") and "clip-path" in path.attrib:
            parts = path.attrib["d"].split("M")[1:]
            found += [[tuple(map(float, pair.split())) for pair in part.split("L")] for part in parts]
    return found


def words_of(svg: str) -> set[str]:
    return {(element.text or "").strip() for element in ElementTree.fromstring(svg).iter(f"{SVG}text")}


def test_a_falling_loss_falls_on_the_paper() -> None:
    svg = line_chart({"loss": [(0, 4.0), (1000, 2.0), (2000, 1.0)]}, "Training", "images seen", "loss")
    (line,) = lines_of(svg)
    xs, ys = zip(*line, strict=True)
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)
    assert ys[1] - ys[0] == pytest.approx(2 * (ys[2] - ys[1]), abs=0.2)
    assert ys[0] < ys[2]  # SVG counts y downwards
    assert {"Training", "images seen", "loss", "0", "1k", "2k"} <= words_of(svg)


@pytest.mark.parametrize(
    ("values", "negative"), [([0, 0], False), ([0, 3], False), ([0.1, 0.1], False), ([-1, 2], True)]
)
def test_the_axis_is_negative_only_where_values_are(values: list[float], negative: bool) -> None:
    svg = line_chart({"share": list(enumerate(values))}, "t", "x", "y")
    labels = re.findall(r">(\u2212?[\d.]+)<", svg)
    assert any(label.startswith("\u2212") for label in labels) == negative, labels


def test_values_that_are_not_finite_break_the_line_and_are_counted() -> None:
    points = [(0, 1.0), (1, 2.0), (2, math.nan), (3, 1.0), (4, 2.0), (5, math.inf), (6, 3.0), (7, 1.0)]
    svg = line_chart({"loss": points}, "t", "x", "y")
    assert [len(line) for line in lines_of(svg)] == [2, 2, 2]
    assert "loss (2 not finite)" in words_of(svg)
    for series in ({}, {"loss": []}, {"loss": [(0, math.nan)]}):
        assert "no values yet" in words_of(line_chart(series, "t", "x", "y"))


def test_smoothing_is_unbiased_and_draws_the_raw_line_behind() -> None:
    raw, smooth = lines_of(line_chart({"a": [(0, 1.0), (1, 3.0)]}, "t", "x", "y", smoothing=0.5))
    share = (smooth[0][1] - smooth[1][1]) / (raw[0][1] - raw[1][1])
    assert share == pytest.approx(((0.5 * 1.0 + 3.0) / 1.5 - 1.0) / 2.0, abs=0.01)
    with pytest.raises(ConfigError, match="under 1"):
        line_chart({"a": [(0, 1.0)]}, "t", "x", "y", smoothing=1.0)


def test_a_chart_in_a_page_takes_the_ink_of_the_page_and_one_of_its_own_brings_paper() -> None:
    series = {'<b>&"$x_1$': [(0, 1.0), (1, 2.0)]}
    inline, alone = (line_chart(series, "<t>", "x", "&y", standalone=x) for x in (False, True))
    assert {'<b>&"$x_1$', "<t>", "&y"} <= words_of(inline)
    assert inline.startswith("<svg ")
    assert not re.search(r"<script|<style|#010203|href=\"(?!#)", inline)
    assert not re.search(r' id="(?![mp][0-9a-f]{10}")', inline)  # names that another chart of a page might have
    assert ElementTree.fromstring(inline).attrib["width"] == "100%"
    assert "currentColor" in inline
    assert "currentColor" not in alone
    assert "fill: #ffffff" in alone
    assert inline == line_chart(series, "<t>", "x", "&y")


def test_series_keep_their_colours_and_many_differ() -> None:
    assert lines_of(line_chart({"b": [(0, 1.0), (1, 2.0)]}, "t", "x", "y", places={"a": 0, "b": 1}), PALETTE[1])
    many = {f"run {number}": [(0, 1.0), (1, 2.0)] for number in range(len(PALETTE) + 1)}
    svg = line_chart(many, "t", "x", "y")
    assert (len(lines_of(svg)), "stroke-dasharray" in svg) == (2, True)  # the first and the ninth, which is dashed


def test_a_marked_point_is_ringed_where_it_lies() -> None:
    points = [(0, 3.0), (10, 1.0), (20, 2.0)]
    svg = line_chart({"score": points}, "t", "x", "y", marks={"score": (10, 1.0), "other": (0, 0.0)})
    line = next(line for line in lines_of(svg) if len(line) == 3)
    ring = rf'<use href="#\w+" x="([\d.]+)" y="([\d.]+)" style="fill-opacity: 0; stroke: {PALETTE[0]}'
    places = re.findall(ring, svg)
    assert [tuple(map(float, place)) for place in places] == [pytest.approx(line[1], abs=0.01)]


@given(st.lists(st.tuples(st.floats(-1e300, 1e300), st.floats()), max_size=12), st.sampled_from([0.0, 0.9]))
@settings(max_examples=25, deadline=None)
def test_any_numbers_give_well_formed_svg(points: list[tuple[float, float]], smoothing: float) -> None:
    ElementTree.fromstring(line_chart({"a": sorted(points)}, "t", "x", "y", smoothing=smoothing))


# ---------------------------------------------------------------------------------------------------------------------
# sheets
# ---------------------------------------------------------------------------------------------------------------------
def noise(seed: int, side: int = 256) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def drawn(sheet: Sheet) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(sheet.save("png"))).convert("RGB"))


@pytest.mark.parametrize("side", [64, 256])
def test_a_png_shows_pictures_pixel_by_pixel(side: int) -> None:
    sheet = Sheet([("input", [Cell(noise(3, side)), None]), ("b", [None, Cell(noise(4, side))])], ["run $1", ""])
    expected = np.asarray(noise(4, side)).repeat(256 // side, 0).repeat(256 // side, 1)
    np.testing.assert_array_equal(drawn(sheet)[-256:, -256:], expected)
    assert Image.open(io.BytesIO(sheet.save("png"))).info["dpi"] == pytest.approx((256, 256), abs=0.1)


def test_points_land_on_their_picture() -> None:
    pixels = drawn(Sheet([("", [Cell(Image.new("RGB", (256, 256), "white"), [(0.25, 0.75)], 0.04)])]))
    rows, columns = np.nonzero((pixels == QUERY_COLOUR).all(-1))
    assert rows.mean() - (pixels.shape[0] - 256) == pytest.approx(192, abs=1)
    assert columns.mean() == pytest.approx(64, abs=1)


def test_a_pdf_has_its_pictures_without_loss_and_its_font_inside() -> None:
    sheet = Sheet([("QS-Attn (é)", [Cell(noise(1), dots=[(0.5, 0.25)])])], bars={"QS-Attn (é)": ("0.00", "5.55 nats")})
    pdf = sheet.save("pdf", "a title")
    assert pdf.startswith(b"%PDF-")
    assert b"/Width 256" in pdf
    assert b"/DCTDecode" not in pdf  # no JPEG
    assert b"/FontFile2" in pdf
    assert b"(a title)" in pdf
    assert pdf == sheet.save("pdf", "a title")


def test_sheets_need_pictures_in_columns_of_one_length() -> None:
    for columns in ([], [("a", [])], [("a", [None])], [("a", [Cell(noise(0))]), ("b", [])]):
        with pytest.raises(ConfigError, match="a sheet needs columns of one length"):
            Sheet(columns)


# ---------------------------------------------------------------------------------------------------------------------
# what query selection chose
# ---------------------------------------------------------------------------------------------------------------------
def test_small_entropy_is_warm_and_large_is_cold() -> None:
    entropy = torch.full((4, 4), 5.0)
    entropy[0, 3] = 1.0
    pixels = np.asarray(heat_map(Image.new("RGB", (64, 64), (128, 128, 128)), entropy, size=200)).astype(int)
    warm, cold = pixels[25, 175], pixels[175, 25]
    assert warm[0] > 180 > 80 > cold.max()
    assert abs(warm - bar_colours(9)[0]).max() <= 2
    assert abs(cold - bar_colours(9)[-1]).max() <= 2


@pytest.mark.parametrize("values", [np.full((3, 3), 2.0), np.full((3, 3), np.nan), np.array([[1.0, np.inf]])])
def test_flat_maps_and_maps_that_are_not_finite_are_drawn(values: np.ndarray) -> None:
    assert heat_map(Image.new("L", (16, 16), 90), values, size=64).height == 64
    with pytest.raises(ConfigError, match="must be a map"):
        heat_map(Image.new("RGB", (16, 16)), values.reshape(-1))
