"""The page's server: what it tells, what it hides, and what it refuses."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served_study import METHODS

from unpaired.study.store import Store
from unpaired.web import HEADERS, OWN_FILES_ONLY

pytest.importorskip("starlette", reason='needs pip install "unpaired[study]"')
testclient = pytest.importorskip("starlette.testclient", reason="the test client needs httpx", exc_type=ImportError)

from unpaired.study.server import LONGEST_BODY, make_app  # noqa: E402 - only where Starlette is

Client = Callable[..., Any]
ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture
def client(store: Store) -> Client:
    """Browsers of the study; each call opens another one."""
    app = make_app(store)
    return lambda **options: testclient.TestClient(app, base_url=ADDRESS, **options)


@pytest.fixture
def browser(client: Client) -> Any:
    return client()


def enter(browser: Any, name: str = "Ada", resume: bool = False) -> dict[str, Any]:
    """Enter a name; the rater's part of the answer."""
    answer = browser.post("/api/enter", json={"name": name, "resume": resume})
    assert answer.status_code == 200, answer.text
    return answer.json()["rater"]


def vote(browser: Any, item: dict[str, Any], question: str = "Q", position: int = 0) -> Any:
    choice = item["choices"][position]
    return browser.post("/api/vote", json={"source": item["source"], "question": question, "choice": choice})


# ---------------------------------------------------------------------------------------------------------------------
# a rater's way
# ---------------------------------------------------------------------------------------------------------------------
def test_from_the_first_page_to_the_last_vote(browser: Any, client: Client, store: Store) -> None:
    before = browser.get("/api/study").json()
    assert before["rater"] is None
    assert (before["images"], before["methods"], before["hard_pixels"]) == (4, 3, True)
    assert [question["key"] for question in before["questions"]] == ["Q", "T", "C"]
    rater = enter(browser)
    assert [item["answers"] for item in rater["items"]] == [{}] * 4
    for count, (item, question) in enumerate(((i, q) for i in rater["items"] for q in "QTC"), start=1):
        assert vote(browser, item, question, 1).json() == {"votes": count, "of": 12}
    after = browser.get("/api/study").json()["rater"]
    assert after["votes"] == 12
    assert all(item["answers"] == dict.fromkeys("QTC", item["choices"][1]) for item in after["items"])
    assert enter(client(), resume=True) == after, "the same from another browser"
    for kept in store.votes():
        assert kept.method == kept.shown[1], "what was clicked is what counts, and where it stood"


def test_the_next_person_at_the_same_machine(browser: Any, store: Store) -> None:
    enter(browser)
    token = next(iter(browser.cookies.jar)).value
    assert browser.post("/api/leave", json={}).json()["rater"] is None
    assert not list(browser.cookies.jar)
    assert store.rater(token) is None, "an old cookie is worth nothing"
    assert enter(browser, "Grace")["votes"] == 0


def test_a_taken_name_is_asked_about(client: Client) -> None:
    first = client()
    vote(first, enter(first, "Ada  Lovelace ")["items"][0])
    answer = client().post("/api/enter", json={"name": "ada lovelace", "resume": False})
    assert answer.status_code == 409
    assert answer.json()["taken"] == {"name": "Ada Lovelace", "votes": 1, "of": 12}
    assert not answer.cookies


def test_the_cookie_is_nobody_elses(browser: Any, store: Store) -> None:
    answer = browser.post("/api/enter", json={"name": "", "resume": False})
    cookie = answer.headers["set-cookie"]
    assert f"unpaired_study_{store.study.id}=" in cookie, "studies on other ports have other cookies"
    for part in ("HttpOnly", "SameSite=strict", "Path=/", "Max-Age="):
        assert part in cookie
    assert "Secure" not in cookie
    assert re.fullmatch(r"rater-[0-9a-f]{6}", answer.json()["rater"]["name"])


# ---------------------------------------------------------------------------------------------------------------------
# blind
# ---------------------------------------------------------------------------------------------------------------------
def test_nothing_that_reaches_the_browser_names_a_method_or_a_file(browser: Any, store: Store, made: Path) -> None:
    rater = enter(browser)
    answers = [browser.get(path) for path in ("/", "/study.js", "/study.css", "/icon.svg", "/api/study")]
    files = [file for item in rater["items"] for file in (item["source"], *item["choices"])]
    answers += [browser.get(f"/picture/{file}") for file in files]
    answers.append(vote(browser, rater["items"][0]))
    names = {*METHODS, str(made), made.name, *(image.name for image in store.study.images.values())}
    for answer in answers:
        assert answer.status_code == 200
        said = (answer.content + repr(answer.headers).encode()).lower()
        found = [name for name in names if re.search(rb"\b%b\b" % re.escape(name.lower().encode()), said)]
        assert not found, (answer.url, found)
        assert "last-modified" not in answer.headers, "translations are made one method after the other"
        assert "etag" not in answer.headers
    assert len(set(files)) == len(files) == 16


def test_pictures_are_the_ones_that_were_made(browser: Any, store: Store) -> None:
    item = enter(browser)["items"][0]
    image = store.by_file[item["source"]]
    answer = browser.get(f"/picture/{image.translations[1]}")
    assert answer.headers["content-type"] == "image/png"
    assert answer.content == (store.folder / "images" / f"{image.translations[1]}.png").read_bytes()
    assert answer.content.startswith(b"\x89PNG")
    assert not re.search(rb"tEXt|iTXt|zTXt|tIME|eXIf", answer.content), "a PNG can carry words and dates, too"


# ---------------------------------------------------------------------------------------------------------------------
# refusals
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", ["/", "/study.js", "/api/study", "/nothing", "/picture/none"])
def test_every_answer_carries_the_headers(browser: Any, path: str) -> None:
    answer = browser.get(path)
    for name, value in {**HEADERS, "content-security-policy": OWN_FILES_ONLY}.items():
        assert answer.headers[name] == value


def test_the_page_needs_no_exception_from_its_policy(browser: Any) -> None:
    policy = OWN_FILES_ONLY
    assert "unsafe" not in policy
    assert "http" not in policy
    page = browser.get("/").text
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", page)
    for path in ("/", "/study.js", "/study.css"):
        assert not re.search(r"https?://(?!www\.w3\.org)|innerHTML|eval\(|@import", browser.get(path).text)


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"source": "0" * 24}, 404, "no such image"),
        ({"source": "../study.sqlite"}, 404, "no such image"),
        ({"source": 7}, 400, "'source' must be text of at most 64"),
        ({"source": "a" * 65}, 400, "'source' must be text of at most 64"),
        ({"question": "X"}, 404, "Q, T, C"),
        ({"question": None}, 400, "'question' must be text"),
        ({"choice": "0" * 24}, 404, "not one of this image's versions"),
        ({"choice": ["a"]}, 400, "'choice' must be text"),
        ({"extra": 1}, 400, "must hold exactly: source, question, choice"),
    ],
)
def test_votes_that_are_refused(browser: Any, store: Store, change: dict[str, Any], status: int, words: str) -> None:
    item = enter(browser)["items"][0]
    body = {"source": item["source"], "question": "Q", "choice": item["choices"][0]}
    answer = browser.post("/api/vote", json=body | change)
    assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text
    assert store.votes() == []


def test_a_version_of_another_image_is_refused(browser: Any, store: Store) -> None:
    one, other = enter(browser)["items"][:2]
    for choice in (other["choices"][0], one["source"], store.study.target_examples[0]):
        body = {"source": one["source"], "question": "Q", "choice": choice}
        assert browser.post("/api/vote", json=body).status_code == 404
    assert store.votes() == []


@pytest.mark.parametrize(
    ("name", "words"),
    [("=1+1", "begins with"), ("@x", "begins with"), ("-x", "begins with"), ("<b>", "begins with"), ("a;b", "only"),
     ("a\x00b", "only"), ("a\u202eb", "only"), ("x" * 41, "at most 40"), ("x" * 70, "at most 64"), (7, "text"),
     (None, "text"), ("a,b", "only"), ("a|b", "only")],
)  # fmt: skip
def test_names_that_are_refused(browser: Any, store: Store, name: Any, words: str) -> None:
    answer = browser.post("/api/enter", json={"name": name, "resume": False})
    assert (answer.status_code, words in answer.json()["error"]) == (400, True), answer.text
    assert store.raters() == []


@pytest.mark.parametrize("name", ["Ada", "Zoë Müller-O'Neil Jr.", "李雷", "r_07", "  two   words "])
def test_names_that_are_taken(browser: Any, name: str) -> None:
    assert enter(browser, name)["name"] == " ".join(name.split())


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"{", {}, 400),
        (b"\xff\xfe", {}, 400),
        (b"[" * 4000, {}, 400),
        (b"null", {}, 400),
        (b"[]", {}, 400),
        (b"x" * (LONGEST_BODY + 1), {}, 413),
        (b"{}", {"content-type": "text/plain"}, 415),
        (b"{}", {"content-type": "application/x-www-form-urlencoded"}, 415),
        (b"{}", {"content-length": "-1"}, 411),
        (b"{}", {"origin": "http://evil.example"}, 403),
        (b"{}", {"origin": "null"}, 403),
        (b"{}", {"origin": "http://127.0.0.1:9"}, 403),
        (b"{}", {"sec-fetch-site": "cross-site"}, 403),
        (b"{}", {"sec-fetch-site": "same-site", "origin": ADDRESS}, 403),
        (b"{}", {"host": "evil.example"}, 421),
    ],
)
def test_requests_that_are_refused(browser: Any, content: bytes, headers: dict[str, str], status: int) -> None:
    enter(browser)
    for path in ("/api/vote", "/api/enter"):
        answer = browser.post(path, content=content, headers={"content-type": "application/json", **headers})
        assert answer.status_code == status, answer.text
        assert answer.json()["error"]


@pytest.mark.parametrize(
    ("bound", "host", "let_in"),
    [
        ("127.0.0.1", "127.0.0.1:8000", True), ("127.0.0.1", "localhost:8000", True), ("::1", "[::1]:8000", True),
        ("127.0.0.1", "evil.example:8000", False), ("127.0.0.1", "192.168.1.5:8000", False),
        ("127.0.0.1", "127.0.0.1.evil.example", False), ("127.0.0.1", "", False),
        ("0.0.0.0", "192.168.1.5:8000", True), ("0.0.0.0", "[fe80::1]:8000", True), ("0.0.0.0", "localhost", True),
        ("0.0.0.0", "evil.example:8000", False), ("lab.example", "lab.example:80", True),
    ],
)  # fmt: skip
def test_names_that_the_server_answers_to(store: Store, bound: str, host: str, let_in: bool) -> None:
    """A page elsewhere may have its own domain point here (DNS rebinding): such a name is not ours."""
    browser = testclient.TestClient(make_app(store, bound), base_url=ADDRESS)
    answer = browser.get("/api/study", headers={"host": host})
    assert answer.status_code == (200 if let_in else 421)
    assert let_in or "methods" not in answer.text


@pytest.mark.parametrize(
    "path", ["/picture/../study.sqlite", "/picture/..%2Fstudy.sqlite", "/picture/%2e%2e%2fstudy.sqlite", "/picture/",
             "/study.sqlite", "/images/x.png", "/picture/" + "a" * 5000, "/picture/%00", "/../../etc/passwd"]
)  # fmt: skip
def test_no_path_leads_out(browser: Any, path: str) -> None:
    answer = browser.get(path)
    assert answer.status_code == 404
    assert b"SQLite" not in answer.content


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
FIELDS = st.fixed_dictionaries({"source": JSON, "question": JSON, "choice": JSON})
ENTRY = st.fixed_dictionaries({"name": JSON, "resume": JSON})


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=JSON | FIELDS | ENTRY, path=st.sampled_from(["/api/vote", "/api/enter"]))
def test_nothing_that_is_sent_breaks_the_server(store: Store, body: Any, path: str) -> None:
    browser = testclient.TestClient(make_app(store), base_url=ADDRESS)
    browser.post("/api/enter", json={"name": "Ada", "resume": True})
    answer = browser.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
    assert answer.status_code in (200, 400, 404, 409, 413)
    assert store.votes() == []


def test_a_file_that_cannot_be_written_says_so_and_recovers(
    browser: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = enter(browser)["items"][0]
    path = store._path
    monkeypatch.setattr(store, "_path", path.with_name("gone"))
    answer = vote(browser, item)
    assert answer.status_code == 503
    assert "cannot be used just now" in answer.json()["error"]
    monkeypatch.setattr(store, "_path", path)
    assert vote(browser, item).json()["votes"] == 1
    (store.folder / "images" / f"{item['source']}.png").unlink()
    assert browser.get(f"/picture/{item['source']}").status_code == 503


def test_a_client_that_leaves_ends_no_request_in_a_traceback(store: Store) -> None:
    headers = {"host": "127.0.0.1", "content-type": "application/json", "content-length": "9"}
    scope = {
        "type": "http", "method": "POST", "path": "/api/vote", "query_string": b"", "scheme": "http", "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip

    async def leave() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pass

    asyncio.run(make_app(store)(scope, leave, send))
