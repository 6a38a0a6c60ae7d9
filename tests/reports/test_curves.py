"""Line charts: well-formed SVG, the right shape of line, gaps where values are missing."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unpaired.errors import ConfigError
from unpaired.reports import curve_svg
from unpaired.reports.curves import PALETTE, nice_ticks, smoothed, tick_label

SVG = "{http://www.w3.org/2000/svg}"


def lines_of(svg: str) -> list[list[tuple[float, float]]]:
    found = ElementTree.fromstring(svg).iter(f"{SVG}polyline")
    return [[tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()] for line in found]


def words_of(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_a_falling_loss_falls_on_the_paper() -> None:
    svg = curve_svg({"loss": [(0, 4.0), (100, 2.0), (200, 1.0)]}, "Training", "images seen", "loss")
    (line,) = lines_of(svg)
    xs, ys = zip(*line, strict=True)
    assert list(xs) == sorted(xs)
    assert list(ys) == sorted(ys)  # SVG counts y downwards
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)
    assert ys[1] - ys[0] == pytest.approx(2 * (ys[2] - ys[1]), abs=0.2)
    assert {"Training", "images seen", "loss", "0", "100", "200"} <= set(words_of(svg))


def test_not_finite_values_break_the_line_and_are_counted() -> None:
    points = [(0, 1.0), (1, 2.0), (2, math.nan), (3, 1.0), (4, math.inf), (5, 3.0), (6, 1.0)]
    svg = curve_svg({"loss": points}, "t", "x", "y")
    assert [len(line) for line in lines_of(svg)] == [2, 2]
    assert svg.count("<circle") == 1  # a lone value between two gaps
    assert "loss (2 not drawable)" in words_of(svg)
    assert "nan" not in svg.lower().replace("not drawable", "")


def test_nothing_to_draw_says_so() -> None:
    for series in ({}, {"loss": []}, {"loss": [(0, math.nan)]}):
        assert "no values yet" in words_of(curve_svg(series, "t", "x", "y"))


def test_long_series_are_thinned_and_keep_their_spike() -> None:
    points = [(x, 1.0) for x in range(50_000)]
    points[31_234] = (31_234, 90.0)
    svg = curve_svg({"loss": points}, "t", "x", "y")
    (line,) = lines_of(svg)
    assert len(line) <= 700
    heights = [y for _, y in line]
    assert max(heights) - min(heights) > 150
    assert len(svg) < 20_000


def test_long_series_keep_their_gap() -> None:
    points = [(x, math.nan if 20_000 <= x < 30_000 else 1.0) for x in range(50_000)]
    assert len(lines_of(curve_svg({"loss": points}, "t", "x", "y"))) == 2


def test_smoothing_draws_the_raw_line_faintly_behind() -> None:
    zigzag = [(x, float(x % 2)) for x in range(40)]
    svg = curve_svg({"loss": zigzag}, "t", "x", "y", smoothing=0.9)
    raw, smooth = lines_of(svg)
    assert max(y for _, y in smooth[20:]) - min(y for _, y in smooth[20:]) < 0.2 * (raw[0][1] - raw[1][1])


def test_smoothing_is_unbiased_and_steps_over_gaps() -> None:
    assert [y for _, y in smoothed([(0, 5.0), (1, 5.0), (2, 5.0)], 0.99)] == pytest.approx([5.0, 5.0, 5.0])
    values = smoothed([(0, 1.0), (1, math.nan), (2, 3.0)], 0.5)
    assert math.isnan(values[1][1])
    assert values[2][1] == pytest.approx((0.5 * 1.0 + 3.0) / 1.5)
    with pytest.raises(ConfigError, match="under 1"):
        curve_svg({"a": [(0, 1.0)]}, "t", "x", "y", smoothing=1.0)


def test_logarithmic_axis_spaces_powers_evenly() -> None:
    svg = curve_svg({"a": [(0, 100.0), (1, 10.0), (2, 1.0), (3, 0.0)]}, "t", "x", "y", log_y=True)
    ys = [y for _, y in lines_of(svg)[0]]
    assert ys[1] - ys[0] == pytest.approx(ys[2] - ys[1], abs=0.2)
    assert "a (1 not drawable)" in words_of(svg)


def test_words_are_escaped_and_no_id_or_script_is_used() -> None:
    svg = curve_svg({'<b>&"': [(0, 1.0)]}, "<t>", "<x>", "&y")
    assert {'<b>&"', "<t>", "<x>", "&y"} <= set(words_of(svg))
    assert re.search(r"\bid=|<script|<style", svg) is None


@given(
    st.lists(st.tuples(st.floats(-1e300, 1e300), st.floats()), max_size=12),
    st.booleans(),
    st.sampled_from([0.0, 0.9]),
)
@settings(max_examples=300, deadline=None)
def test_any_numbers_give_well_formed_svg_inside_the_paper(points, log_y: bool, smoothing: float) -> None:
    svg = curve_svg({"a": sorted(points)}, "t", "x", "y", log_y=log_y, smoothing=smoothing)
    for line in lines_of(svg):
        assert all(0 <= x <= 500 and 0 <= y <= 310 for x, y in line)


def test_ticks_are_round_and_labels_short() -> None:
    assert nice_ticks(0, 1) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert nice_ticks(-3, 3, 3) == [-2.0, 0.0, 2.0]
    assert nice_ticks(0.00011, 0.00019, 4) == pytest.approx([0.00012, 0.00014, 0.00016, 0.00018])
    assert nice_ticks(5, 5) == [5]
    assert [tick_label(value) for value in (-2500.0, 0.3, 1e6)] == ["-2.5k", "0.3", "1M"]


def test_a_series_looks_alike_in_every_chart() -> None:
    alone = ElementTree.fromstring(curve_svg({"b": [(0, 1.0), (1, 2.0)]}, "t", "x", "y", places={"a": 0, "b": 1}))
    (line,) = alone.iter(f"{SVG}polyline")
    assert line.attrib["stroke"] == PALETTE[1]
    many = {f"run {number}": [(0, 1.0), (1, 2.0)] for number in range(len(PALETTE) + 1)}
    lines = list(ElementTree.fromstring(curve_svg(many, "t", "x", "y")).iter(f"{SVG}polyline"))
    looks = {(line.attrib["stroke"], line.attrib.get("stroke-dasharray")) for line in lines}
    assert len(looks) == len(many)


def test_a_marked_point_is_ringed_where_it_lies() -> None:
    points = [(0, 3.0), (10, 1.0), (20, 2.0)]
    svg = curve_svg({"score": points}, "t", "x", "y", marks={"score": (10, 1.0), "other": (0, 0.0)})
    (ring,) = (element for element in ElementTree.fromstring(svg).iter(f"{SVG}circle"))
    (line,) = lines_of(svg)
    assert (float(ring.attrib["cx"]), float(ring.attrib["cy"])) == line[1]
    assert ring.attrib["fill"] == "none"
    assert "<circle" not in curve_svg({"score": points}, "t", "x", "y", marks={"score": (10, math.nan)})


def test_a_standalone_chart_brings_ink_paper_and_size() -> None:
    root = ElementTree.fromstring(curve_svg({"a": [(0, 1.0), (1, 2.0)]}, "t", "x", "y", standalone=True))
    assert (root.attrib["width"], root.attrib["height"], root.attrib["color"]) == ("500", "310", "#202124")
    assert next(root.iter(f"{SVG}rect")).attrib["fill"] == "#ffffff"
    in_page = ElementTree.fromstring(curve_svg({"a": [(0, 1.0)]}, "t", "x", "y"))
    assert in_page.attrib["width"] == "100%"
    assert "color" not in in_page.attrib


def test_a_long_legend_makes_the_chart_higher_not_the_lines_flatter() -> None:
    few = curve_svg({"a": [(0, 0.0), (1, 1.0)]}, "t", "x", "y")
    many = curve_svg({f"a rather long name {number}": [(0, 0.0), (1, 1.0)] for number in range(16)}, "t", "x", "y")
    heights = [line[0][1] - line[1][1] for line in (lines_of(few)[0], lines_of(many)[0])]
    assert heights[1] > 0.9 * heights[0]
    assert 'viewBox="0 0 500 310"' in few
