"""The report page in a real browser: it opens from disk, says nothing to the console, sorts, and its viewer works."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from recorded_runs import KID, PSNR, evaluation, training_line, write_lines, write_run
from unpaired.grids import image_grid
from unpaired.reporting.pictures import Gallery, Panel, View
from unpaired.reporting.report import write_report
from unpaired.reporting.run_folders import read_runs

IMAGES, TAPS, NAMES = ("horse", "zebra"), ("block1", "block5"), ("QS-Attn", "CUT")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of two recorded runs, with pictures of many colours."""
    root = tmp_path_factory.mktemp("browser")
    rng = np.random.default_rng(0)

    def photo() -> Image.Image:
        coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        return coarse.resize((96, 96), Image.Resampling.BICUBIC)

    values = {
        "qs_attn": ({KID: 31.0, PSNR: 14.5}, {KID: 9.5, PSNR: 12.0}),
        "cut": ({KID: 40.0}, {KID: 120.0, PSNR: 13}),
    }
    for method, (ema, last) in values.items():
        rows = {"input": {KID: 150.0, PSNR: 9.0}, "ema": ema, "last": last, "real": {KID: 1.0}}
        run = write_run(root / method, evaluation(rows), method=method)
        times = (100, 200, 300)
        write_lines(run / "scores.jsonl", [training_line(seen, "ema", {KID: 900 / seen}) for seen in times])
        log = [{"images_seen": seen, "images_per_second": 2.0, "terms": {"adversarial": 1 / seen}} for seen in times]
        write_lines(run / "log.jsonl", log)
        (run / "samples").mkdir()
        for seen in times:
            grid = image_grid({head: [photo() for _ in range(2)] for head in ("input", "average (EMA)", "last")})
            grid.save(run / "samples" / f"{seen:09d}.png")
    columns = {head: [photo() for _ in IMAGES] for head in ("input", *NAMES, "truth")}
    panels = [
        Panel(image, tap, [View(name, photo(), rng.random((24, 24)), np.arange(0, 500, 9), "a note") for name in NAMES])
        for image in IMAGES
        for tap in TAPS
    ]
    runs = read_runs([root / "qs_attn", root / "cut"])
    gallery = Gallery(list(IMAGES), columns, panels, TAPS)
    return write_report(root / "a report.html", runs, gallery, images="2 of 2 images").path


@pytest.fixture
def opened(chromium: Any, report: Path) -> Iterator[Any]:
    """The page as a person opens it, with what the browser complains of checked afterwards."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(10_000)
    complaints: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri())
    yield page
    assert complaints == []
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
    context.close()


def column(page: Any, number: int) -> list[str]:
    return [
        cell.split("\n")[0].strip()
        for cell in page.locator(f"table.scores tbody tr > :nth-child({number})").all_inner_texts()
    ]


def test_every_image_loads(opened: Any) -> None:
    widths = opened.evaluate("Array.from(document.images).map((image) => image.naturalWidth)")
    assert len(widths) == 4 + 2 * 4 + 2 * 2 * 4 + 2 + 2 * 2 * 2 * 2  # pairs, grid, strips, thumbnails, viewer
    assert min(widths) > 0


def test_a_click_sorts_best_first_then_worst_first_then_as_given(opened: Any) -> None:
    given, kid = column(opened, 1), opened.get_by_role("button", name="KID (Lite0)")
    header = opened.locator("table.scores thead th").nth(1)
    kid.click()
    assert column(opened, 2) == ["1.0", "9.5", "31.0", "40.0", "120.0", "150.0"]  # by number: 9.5 before 31.0
    assert header.get_attribute("aria-sort") == "ascending"
    kid.click()
    assert column(opened, 2) == ["150.0", "120.0", "40.0", "31.0", "9.5", "1.0"]
    assert header.get_attribute("aria-sort") == "descending"
    kid.click()
    assert column(opened, 1) == given
    assert header.get_attribute("aria-sort") is None


def test_enter_sorts_and_higher_is_better_where_it_is(opened: Any) -> None:
    opened.get_by_role("button", name="PSNR").focus()
    opened.keyboard.press("Enter")
    assert column(opened, 3) == ["14.5", "13.0", "12.0", "9.0", "–", "–"]  # noqa: RUF001 - the dash of a missing value
    sorted_headers = opened.locator("table.scores th[aria-sort]")
    assert sorted_headers.count() == 1
    opened.get_by_role("button", name="Name").focus()
    opened.keyboard.press("Space")
    names = column(opened, 1)
    assert names == sorted(names, key=str.lower)
    assert sorted_headers.count() == 1


def shown(page: Any) -> list[str]:
    return page.locator(".panel:visible h3").all_inner_texts()


def test_the_viewer_shows_one_panel_chosen_by_mouse_or_keys(opened: Any) -> None:
    assert shown(opened) == ["horse, block1"]
    opened.locator('label[title="zebra"]').click()
    assert shown(opened) == ["zebra, block1"]
    opened.locator(".places label", has_text="block5").click()
    assert shown(opened) == ["zebra, block5"]
    opened.keyboard.press("ArrowLeft")  # the places
    assert shown(opened) == ["zebra, block1"]
    opened.locator('input[data-kind="image"]:checked').focus()
    opened.keyboard.press("ArrowRight")  # round to the first image
    assert shown(opened) == ["horse, block1"]
    box, overlay = (opened.locator(f".panel:visible .overlay {kind}").first.bounding_box() for kind in ("img", "svg"))
    assert box == pytest.approx(overlay, abs=1)


def pointed_at(page: Any, chart: Any, x: float, y: float) -> Any:
    """The tip over ``chart`` while a mouse moves about ``(x, y)`` of its box.

    Scrolling hides the tip, and the browser reports a scroll only with a later frame, so one move may come too early: a
    person's mouse goes on moving, and so does this one.
    """
    chart.scroll_into_view_if_needed()
    tip = page.locator(".tip")
    for move in range(100):
        box = chart.bounding_box()
        page.mouse.move(box["x"] + x * box["width"] + move % 2, box["y"] + y * box["height"])
        page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        if tip.count():
            return tip
    raise AssertionError("no tip appeared")


def test_pictures_enlarge_and_charts_tell_their_values(opened: Any) -> None:
    opened.locator(".gallery img").first.click()
    enlarged = opened.locator("dialog.enlarged img")
    assert enlarged.bounding_box()["height"] > 600
    opened.keyboard.press("Escape")
    enlarged.wait_for(state="hidden")
    chart = opened.locator("svg.chart").first
    told = pointed_at(opened, chart, 0.93, 0.5).inner_text().split("\n")
    assert told[0] == "300 images"
    assert told[1].partition(": ")[0] in NAMES
    assert chart.locator("circle.pointed").count() == len(told) - 1


def test_the_slider_uncovers_the_whole_picture(opened: Any) -> None:
    pair = opened.locator(".pairs .pair").first
    boxes = [pair.bounding_box(), *(image.bounding_box() for image in pair.locator("img").all())]
    assert boxes[1] == pytest.approx(boxes[0], abs=1)
    assert boxes[2] == pytest.approx(boxes[0], abs=1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_sticks_out_at_any_width(chromium: Any, report: Path, width: int, scheme: str) -> None:
    context = chromium.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    wide = "Array.from(document.querySelectorAll('.scroll')).filter((x) => x.scrollWidth > x.clientWidth + 1).length"
    assert page.evaluate(wide) == 0  # nor does any table need to be pushed aside
    paper, ink = page.evaluate(
        "(() => { const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]; })()"
    )
    light = [sum(map(int, re.findall(r"\d+", colour))) for colour in (paper, ink)]
    assert (light[0] > light[1]) == (scheme == "light")
    context.close()


def test_without_scripts_everything_is_there(chromium: Any, report: Path) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    assert shown(page) == [f"{image}, {tap}" for image in IMAGES for tap in TAPS]
    assert not page.locator(".controls").is_visible()
    assert page.locator("table.scores button").count() == 0
    context.close()


def test_a_script_that_is_not_the_pages_own_does_not_run(chromium: Any, report: Path, tmp_path: Path) -> None:
    html = report.read_text(encoding="utf-8")
    changed = tmp_path / "changed.html"
    changed.write_text(html.replace("<main>", "<main><script>document.title = 'taken'</script>"), encoding="utf-8")
    context = chromium.new_context()
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(changed.as_uri())
    assert page.title() == "unpaired: QS-Attn and CUT on drawings"
    assert any("Content Security Policy" in words for words in complaints)
    assert shown(page) == ["horse, block1"]  # its own ran
    context.close()


def test_on_paper_the_chosen_panel_stays_and_the_controls_go(opened: Any) -> None:
    opened.emulate_media(media="print")
    assert shown(opened) == ["horse, block1"]
    assert not opened.locator(".controls").is_visible()
    assert not opened.locator(".script-only").first.is_visible()
