"""Pairs with a slider: all that is said is escaped, both pictures are there without a script, and it is allowed."""

from __future__ import annotations

import re

from PIL import Image

from unpaired.reports import before_after, html_page


def test_each_pair_has_both_pictures_a_slider_and_its_name() -> None:
    pairs = [(name, Image.new("RGB", (64, 48), "red"), Image.new("RGB", (64, 48), "blue")) for name in ("a", '<b>&"c')]
    page = html_page("title", [before_after(pairs, title="Pairs <1>", note="why & how")])
    figures = re.findall(r"<figure>.*?</figure>", page, re.DOTALL)
    assert len(figures) == 2
    for figure in figures:
        assert len(re.findall(r"<img[^>]*src=\"data:image/png;base64", figure)) == 2
        assert re.search(r'<input type="range" min="0" max="100" value="50" aria-label="[^"<>]+" hidden>', figure)
    assert "<b>" not in page
    assert "&lt;b&gt;&amp;&quot;c: before" in page
    assert "&lt;b&gt;&amp;&quot;c: after" in page
    assert "Pairs &lt;1&gt;" in page
    assert "why &amp; how" in page


def test_the_script_of_the_sliders_is_on_pages_that_have_some_and_is_the_one_allowed() -> None:
    picture = Image.new("RGB", (8, 8))
    with_pairs, without = (
        html_page("title", [before_after(pairs)] if pairs else []) for pairs in ([("a", picture, picture)], [])
    )
    assert with_pairs.count("<script>") == 1
    assert "sliding" in with_pairs.split("<script>")[1]
    assert re.search(r"script-src 'sha256-[^']+'", with_pairs)
    assert "<script" not in without
    assert "script-src 'none'" in without
