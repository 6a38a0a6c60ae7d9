"""The page in a real headless Chromium: keyboard, phone, restart of the server, and what it says when things fail."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from served_study import Served

from unpaired.study.store import Store

expect = pytest.importorskip("playwright.sync_api", reason="needs pip install playwright").expect

_LOADED = """Promise.all([...document.querySelectorAll("#study img")].filter(i => i.offsetParent)
    .map(i => i.decode().then(() => i.naturalWidth)))"""
_SLOW = """() => { const fast = window.fetch;
    window.fetch = (...all) => new Promise(done => setTimeout(done, 1000)).then(() => fast(...all)) }"""
_PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


@pytest.fixture
def visit(chromium: Any, served: Callable[..., Served]) -> Iterator[Callable[..., Any]]:  # pages close before servers
    """Open a study in a browser profile of its own; what goes wrong on the page fails the test."""
    contexts, wrong, asked = [], [], []

    def open_page(server: Served, **options: Any) -> Any:
        context = chromium.new_context(**({"viewport": {"width": 1280, "height": 800}} | options))
        contexts.append(context)
        context.set_default_timeout(15_000)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(server.address)
        page.wait_for_selector("main:not([hidden])")
        return page

    yield open_page
    for context in contexts:
        context.close()
    expected = re.compile(
        r"status of (409|401|400)|ERR_CONNECTION"
    )  # Chromium's own words about answers that we test for
    assert not [words for words in wrong if not expected.search(words)]
    assert all(url.startswith("http://127.0.0.1:") for url in asked), "nothing is loaded from elsewhere"


Visit = Callable[..., Any]
Serve = Callable[..., Served]


def start(page: Any, name: str) -> None:
    """Enter with the keyboard alone: the field has the focus."""
    page.keyboard.type(name)
    page.keyboard.press("Enter")
    page.wait_for_selector("#study:not([hidden])")


def answer(page: Any, key: str) -> None:
    """Choose with a digit and go on with Enter."""
    before = page.text_content("#question")
    page.keyboard.press(key)
    page.keyboard.press("Enter")
    question = page.locator("#finished:not([hidden]), #study:not([hidden]) #question").first
    expect(question).not_to_have_text(before)


def pressed(page: Any) -> list[int]:
    """Which versions are marked as chosen."""
    marks = page.eval_on_selector_all(".choice", "all => all.map(one => one.ariaPressed)")
    return [number for number, mark in enumerate(marks, start=1) if mark == "true"]


def test_two_raters_by_keyboard_with_the_server_killed_in_between(visit: Visit, served: Serve, store: Store) -> None:
    first = served()
    ada, grace = visit(first), visit(first)
    start(ada, "Ada")
    start(grace, "Grace")
    for key in "1213":
        answer(ada, key)
    for key in "33":
        answer(grace, key)
    assert "Picture 2 of 4" in ada.inner_text("header")
    with ada.expect_response("**/api/vote") as kept:
        ada.keyboard.press("2")
    kept.value.finished()
    ada.evaluate("new Promise(done => setTimeout(done))")  # the page has read it, too
    first.end(signal.SIGKILL)

    ada.keyboard.press("3")
    ada.wait_for_selector("#message:not([hidden])")
    assert "does not answer" in ada.inner_text("#message")
    assert pressed(ada) == [2], "what was not kept is not shown as chosen"

    second = served("--port", first.port)
    assert "2 raters (0 finished), 7 votes" in second.said[0]
    answer(ada, "3")
    assert ada.is_hidden("#message")
    grace.reload()
    grace.wait_for_selector("#study:not([hidden])")
    assert "Picture 1 of 4" in grace.inner_text("header")
    assert grace.inner_text("#question") == "Which version best keeps what should not change?"
    for page, left in ((ada, 7), (grace, 10)):
        for _ in range(left):
            answer(page, "1")
        assert page.is_visible("#finished")
        assert "All 12 answers" in page.inner_text("#finished")
    assert [(rater.name, rater.votes) for rater in store.raters()] == [("Ada", 12), ("Grace", 12)]
    places = [vote.shown.index(vote.method) + 1 for vote in store.votes() if vote.rater == "Ada"]
    assert places == [1, 2, 1, 3, 3, *[1] * 7], "digits are places from the left, and votes are methods"
    assert sum(vote.changed for vote in store.votes()) == 1


def test_going_back_changing_and_reading_it_over(visit: Visit, served: Serve, store: Store) -> None:
    page = visit(served())
    start(page, "Ada")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowRight")
    assert page.text_content("#spoken") == "Choose a version first"
    answer(page, "1")
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".choice").nth(0)).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("9")
    assert pressed(page) == [1], "there is no ninth version"
    page.keyboard.press("Control+2")
    assert pressed(page) == [1], "shortcuts of the browser are the browser's"
    page.keyboard.press("3")
    assert pressed(page) == [3]
    page.keyboard.press("ArrowRight")
    expect(page.locator("#question")).to_contain_text("these real pictures")
    (vote,) = store.votes()
    assert (vote.shown.index(vote.method), vote.changed) == (2, 1)
    for _ in range(11):
        answer(page, "2")
    page.click("#review")
    assert page.inner_text("#next") == "Next"
    assert pressed(page) == [3]
    page.keyboard.press("ArrowRight")
    expect(page.locator(".choice").nth(1)).to_have_attribute("aria-pressed", "true")
    page.reload()
    page.wait_for_selector("#finished:not([hidden])")
    page.click("#leave")
    page.wait_for_selector("#welcome:not([hidden])")
    assert page.input_value("#name") == ""
    page.reload()
    page.wait_for_selector("#welcome:not([hidden])")


def test_two_tabs_of_one_browser_are_one_person_at_a_time(visit: Visit, served: Serve, store: Store) -> None:
    server = served()
    ann = visit(server)
    start(ann, "Ann")
    for _ in range(12):
        answer(ann, "1")
    bob = ann.context.new_page()
    bob.goto(server.address)
    bob.click("#leave")
    bob.wait_for_selector("#welcome:not([hidden])")
    start(bob, "Bob")
    answer(bob, "2")

    ann.click("#leave")
    expect(ann.locator("#message")).to_have_text("Another person has started in this browser; reload this page.")
    expect(ann.locator("#finished")).to_be_visible()
    ann.click("#review")
    for key in "23":
        ann.keyboard.press(key)
        ann.keyboard.press("Enter")
        expect(ann.locator("#message")).to_have_text("Another person has started in this browser; reload this page.")
    expect(ann.locator(".choice").nth(0)).to_have_attribute("aria-pressed", "true")
    expect(ann.locator("header")).to_contain_text("Picture 1 of 4")
    assert [(rater.name, rater.votes) for rater in store.raters()] == [("Ann", 12), ("Bob", 1)]
    assert sum(vote.changed for vote in store.votes()) == 0
    ann.reload()
    expect(ann.locator("header")).to_contain_text("Bob")
    answer(bob, "3")
    assert bob.is_hidden("#message")
    assert [(rater.name, rater.votes) for rater in store.raters()] == [("Ann", 12), ("Bob", 2)]


def test_a_key_held_down_answers_once(visit: Visit, served: Serve, store: Store) -> None:
    page = visit(served())
    start(page, "Ada")
    for _ in range(5):
        page.keyboard.down("1")
    page.keyboard.up("1")
    for _ in range(5):
        page.keyboard.down("Enter")
    page.keyboard.up("Enter")
    expect(page.locator("#question")).to_contain_text("these real pictures")
    assert len(store.votes()) == 1
    answer(page, "2")
    for _ in range(2):
        page.keyboard.press("ArrowLeft")
    expect(page.locator("#question")).to_have_text("Which version looks most real?")
    for _ in range(5):
        page.keyboard.down("ArrowRight")
    page.keyboard.up("ArrowRight")
    page.wait_for_timeout(200)
    expect(page.locator("#question")).to_contain_text("these real pictures")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(visit: Visit, served: Serve, scheme: str) -> None:
    page = visit(served(), color_scheme=scheme, **_PHONE)
    page.tap("button.primary")
    page.wait_for_selector("#study:not([hidden])")
    for number in (1, 2, 3):
        sizes = page.evaluate(_LOADED)
        assert len(sizes) == 4 + 2 * (number == 2)
        assert min(sizes) > 0
        assert page.evaluate("document.documentElement.scrollWidth") == 390, "nothing hangs over the side"
        boxes = [box.bounding_box() for box in page.query_selector_all(".choice")]
        assert all(box["width"] > 150 and box["x"] >= 0 and box["x"] + box["width"] <= 390 for box in boxes)
        assert page.query_selector("#next").bounding_box()["y"] < 844, "the way on is always in sight"
        page.tap(f".choice:nth-child({number})")
        expect(page.locator("#next")).to_have_attribute("aria-disabled", "false")
        before = page.text_content("#question")
        page.tap("#next")
        expect(page.locator("#question")).not_to_have_text(before)
    expect(page.locator("header")).to_contain_text("Picture 2 of 4")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    red = int(re.findall(r"\d+", background)[0])
    assert red < 60 if scheme == "dark" else red > 200


def test_what_a_screen_reader_hears(visit: Visit, served: Serve) -> None:
    page = visit(served())
    assert page.get_by_label("Your name or initials").count() == 1
    start(page, "Ada")
    assert page.evaluate("document.activeElement.id") == "question"
    assert "Picture 1 of 4, question 1 of 3: Which version looks most real?" in page.text_content("#spoken")
    group = page.get_by_role("group", name="Which version looks most real?")
    assert [button.get_attribute("aria-label") for button in group.get_by_role("button").all()] == [
        "Version 1", "Version 2", "Version 3",
    ]  # fmt: skip
    assert page.get_by_role("progressbar", name="Answers given").count() == 1
    assert page.eval_on_selector_all("img", "all => all.every(image => image.hasAttribute('alt'))")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.ariaLabel") == "Version 2"
    page.keyboard.press("Enter")
    assert pressed(page) == [2], "Enter chooses what has the focus"
    page.keyboard.press("Enter")
    expect(page.locator("#question")).to_contain_text("these real pictures")
    assert pressed(page) == []
