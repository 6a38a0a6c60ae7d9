"""The page's server: what it tells, what it hides, and what it refuses."""

from __future__ import annotations

import asyncio
import json
import os
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served_study import METHODS

from unpaired.errors import DataError
from unpaired.study.records import StoreError
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


def ballot(rater: dict[str, Any], image: int = 0, question: str = "Q", position: int = 0) -> dict[str, Any]:
    """What the page of a rater sends for one choice."""
    item = rater["items"][image]
    return {"rater": rater["id"], "source": item["source"], "question": question, "choice": item["choices"][position]}


def vote(browser: Any, *what: Any) -> Any:
    return browser.post("/api/vote", json=ballot(*what))


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
    for count, (image, question) in enumerate(((i, q) for i in range(4) for q in "QTC"), start=1):
        assert vote(browser, rater, image, question, 1).json() == {"votes": count, "of": 12}
    after = browser.get("/api/study").json()["rater"]
    assert after["votes"] == 12
    assert all(item["answers"] == dict.fromkeys("QTC", item["choices"][1]) for item in after["items"])
    assert enter(client(), resume=True) == after, "the same from another browser"
    for kept in store.votes():
        assert kept.method == kept.shown[1], "what was clicked is what counts, and where it stood"


def test_the_next_person_at_the_same_machine(browser: Any, store: Store) -> None:
    rater = enter(browser)
    token = next(iter(browser.cookies.jar)).value
    assert browser.post("/api/leave", json={"rater": rater["id"]}).json()["rater"] is None
    assert not list(browser.cookies.jar)
    assert store.rater(token) is None, "an old cookie is worth nothing"
    assert enter(browser, "Grace")["votes"] == 0


def test_a_page_that_is_still_open_for_another_person_gives_no_votes(client: Client, store: Store) -> None:
    """Ann's page stays open in one tab; in another, of the same browser, Bob has begun."""
    first, browser = client(), client()
    vote(first, enter(first, "Zoë"), 1, "T")
    ann = enter(browser, "Ann")
    assert vote(browser, ann).status_code == 200
    browser.post("/api/leave", json={"rater": ann["id"]})
    after_leaving = vote(browser, ann)
    assert (after_leaving.status_code, after_leaving.json()) == (401, {"error": "enter a name first"})
    bob = enter(browser, "Bob")
    for path, body in (("vote", ballot(ann)), ("vote", ballot(ann, 2, "C", 1)), ("leave", {"rater": ann["id"]})):
        answer = browser.post(f"/api/{path}", json=body)
        said = "Another person has started in this browser; reload this page."
        assert (answer.status_code, answer.json()) == (409, {"error": said})
    assert vote(browser, bob, 3, "Q").json()["votes"] == 1, "Bob goes on"
    again = enter(browser, "Ann", resume=True)
    assert (again["id"], again["votes"]) == (ann["id"], 1)
    assert vote(browser, bob).status_code == 409
    assert vote(browser, ann, 1).json()["votes"] == 2, "the page of whoever came back is right again"
    assert [(rater.name, rater.votes) for rater in store.raters()] == [("Zoë", 1), ("Ann", 2), ("Bob", 1)]


def test_a_taken_name_is_asked_about(client: Client) -> None:
    first = client()
    vote(first, enter(first, "Ada  Lovelace "))
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
    answers.append(vote(browser, rater))
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
        ({"rater": "1"}, 400, "'rater' must be a whole number"),
        ({"rater": True}, 400, "'rater' must be a whole number"),
        ({"rater": 1.0}, 400, "'rater' must be a whole number"),
        ({"rater": None}, 400, "'rater' must be a whole number"),
        ({"rater": 10**60}, 409, "another person has started"),
        ({"rater": -1}, 409, "another person has started"),
        ({"question": "X"}, 404, "Q, T, C"),
        ({"question": None}, 400, "'question' must be text"),
        ({"choice": "0" * 24}, 404, "not one of this image's versions"),
        ({"choice": ["a"]}, 400, "'choice' must be text"),
        ({"extra": 1}, 400, "must hold exactly: rater, source, question, choice"),
    ],
)
def test_votes_that_are_refused(browser: Any, store: Store, change: dict[str, Any], status: int, words: str) -> None:
    answer = browser.post("/api/vote", json=ballot(enter(browser)) | change)
    assert (answer.status_code, words.lower() in answer.json()["error"].lower()) == (status, True), answer.text
    assert store.votes() == []


def test_a_version_of_another_image_is_refused(browser: Any, store: Store) -> None:
    rater = enter(browser)
    one, other = rater["items"][:2]
    for choice in (other["choices"][0], one["source"], store.study.target_examples[0]):
        assert browser.post("/api/vote", json=ballot(rater) | {"choice": choice}).status_code == 404
    assert store.votes() == []


@pytest.mark.parametrize(
    ("name", "words"),
    [("=1+1", "begins with"), ("@x", "begins with"), ("-x", "begins with"), ("<b>", "begins with"), ("a;b", "only"),
     ("a\x00b", "only"), ("a\u202eb", "only"), ("x" * 41, "at most 40"), ("x" * 70, "at most 64"), (7, "text"),
     (None, "text"), ("a,b", "only"), ("a|b", "only"), ("a\x1b[2J", "only"), ("a\x7f", "only"), ("a\x85b\x9b", "only"),
     ("a\ud800", "only"), ("a&lt;", "only"), ("a*b*", "only"), ("a`b", "only"), ("[a](b)", "begins with"),
     ("\u0301a", "begins with"), ("\u2019a", "begins with"), ("\u200da", "begins with"), ("a\u2066b", "only"),
     ("a\ufeffb", "only"), ("a\u20ddb", "only"), ("a\u2028=1", "only"), ("\u200d", "begins with"), ("a\"b", "only")],
)  # fmt: skip
def test_names_that_are_refused(browser: Any, store: Store, name: Any, words: str) -> None:
    content = json.dumps({"name": name, "resume": False})
    answer = browser.post("/api/enter", content=content, headers={"content-type": "application/json"})
    assert (answer.status_code, words in answer.json()["error"]) == (400, True), answer.text
    assert store.raters() == []


@pytest.mark.parametrize(
    "name",
    [
        "Ada", "Zoë Müller-O'Neil Jr.", "李雷", "r_07", "  two   words ", "O\u2019Brien", "D\u2019Arcy-Jones",
        "हिन्दी", "श्रीनिवास", "ศิริพร", "தமிழ்ச்செல்வி", "ශ්\u200dරී", "Nguyễn Thị Hương", "Ọmọ́wùmí", "Łukasz Żółć",
        "Marcel·lí", "ジョン・スミス", "Jean\u2010Luc", "Ka\u02bbiulani", "\u0420\u043e\u043c\u0430\u043d",
        "\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd", "\u05d2\u05f3\u05d5\u05df",  # Hebrew with points, with a geresh
        "\u0645\u064f\u062d\u064e\u0645\u064e\u0651\u062f",  # Arabic with vowels
        "\u0639\u0644\u06cc\u200c\u0631\u0636\u0627",  # Persian with a joiner
    ],
)  # fmt: skip
def test_names_that_are_taken(browser: Any, name: str) -> None:
    assert enter(browser, name)["name"] == unicodedata.normalize("NFC", " ".join(name.split()))


@pytest.mark.parametrize(
    ("one", "other"),
    [("O\u2019Brien", "o'brien"), ("Zoe\u0308", "ZOË"), ("Jean\u2010Luc", "Jean-Luc"), ("Jean\u2011Luc", "Jean-Luc"),
     ("\u0639\u0644\u06cc\u200c\u0631\u0636\u0627", "\u0639\u0644\u06cc\u0631\u0636\u0627")],
)  # fmt: skip
def test_names_that_look_alike_are_one_persons(client: Client, one: str, other: str) -> None:
    """A telephone writes another apostrophe than a desk does."""
    enter(client(), one)
    assert client().post("/api/enter", json={"name": other, "resume": False}).status_code == 409


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
FIELDS = st.fixed_dictionaries({"rater": JSON, "source": JSON, "question": JSON, "choice": JSON})
ENTRY = st.fixed_dictionaries({"name": JSON, "resume": JSON})


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=JSON | FIELDS | ENTRY | st.fixed_dictionaries({"rater": JSON}),
    path=st.sampled_from(["/api/vote", "/api/enter", "/api/leave"]),
)
def test_nothing_that_is_sent_breaks_the_server(store: Store, body: Any, path: str) -> None:
    browser = testclient.TestClient(make_app(store), base_url=ADDRESS)
    browser.post("/api/enter", json={"name": "Ada", "resume": True})
    answer = browser.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
    assert answer.status_code in (200, 400, 404, 409, 413)
    assert store.votes() == []


def test_a_file_that_cannot_be_written_says_so_and_recovers(
    browser: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    rater, path = enter(browser), store._path
    monkeypatch.setattr(store, "_path", path.with_name("gone"))
    assert vote(browser, rater).status_code == 503
    monkeypatch.setattr(store, "_path", path)
    assert vote(browser, rater).json()["votes"] == 1


UNUSABLE = {"error": "The study cannot be used just now. Try again, or tell the person who runs it."}


@pytest.mark.parametrize(
    "asked", ["GET /api/study", "POST /api/enter", "POST /api/vote", "POST /api/leave", "GET /picture/x"]
)
def test_raters_read_no_paths_and_the_log_has_them(
    browser: Any, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, asked: str
) -> None:
    """Whatever goes wrong with a file: here reading a copy of votes that wait in a journal, and a picture."""
    rater = enter(browser)
    method, path = asked.split()
    if path.startswith("/picture"):
        wrong = store.folder / "images" / f"{rater['items'][0]['source']}.png"
        path = f"/picture/{wrong.stem}"
        wrong.unlink()
    else:
        wrong = store.folder / "study.sqlite-journal"
        broken = StoreError(f"no space left; its last votes lie in {wrong}\x1b[2J")
        for name in ("_open", "_writing"):
            monkeypatch.setattr(store, name, Mock(side_effect=broken))
    bodies = {"enter": {"name": "Bob", "resume": False}, "vote": ballot(rater), "leave": {"rater": rater["id"]}}
    answer = browser.request(method, path, json=bodies.get(path.rpartition("/")[2]))
    assert (answer.status_code, answer.json()) == (503, UNUSABLE)
    (said,) = caplog.messages
    assert said.startswith(f"{method} {path}: ")
    assert str(wrong) in said
    assert "\x1b" not in said


@pytest.mark.parametrize("kind", ["outside", "beside", "relative", "loop", "folder", "pipe", "gone", "images"])
def test_pictures_that_lead_elsewhere_are_not_served(
    browser: Any, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """A study may come from other people, who may have put links into it."""
    (tmp_path / "secret.png").write_bytes(b"secret")
    file = enter(browser)["items"][0]["choices"][0]
    images = store.folder / "images"
    path = images / f"{file}.png"
    if kind == "images":
        images.rename(tmp_path / "elsewhere")
        images.symlink_to(tmp_path / "elsewhere")
    else:
        path.unlink()
    targets = {"outside": "/etc/passwd", "beside": store.folder / "study.sqlite", "loop": path,
               "relative": "../../secret.png", "gone": "nothing"}  # fmt: skip
    if kind in targets:
        path.symlink_to(targets[kind])
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    answer = browser.get(f"/picture/{file}")
    assert (answer.status_code, answer.json()) == (503, UNUSABLE)
    assert caplog.messages == [f"GET /picture/{file}: {path}: is missing, is no file, or leads out of the study's "
                               "folder; restore a copy"]  # fmt: skip


@pytest.mark.parametrize("file", ["../study", "..", "/etc/passwd", "a\x00b", "../../secret", "x" * 5000])
def test_ids_that_are_paths_lead_nowhere(store: Store, tmp_path: Path, file: str) -> None:
    """Also the ids in the file of a study are other people's."""
    for place in (tmp_path / "secret.png", store.folder / "study.png"):
        place.write_bytes(b"secret")
    store._files.add(file)
    with pytest.raises(StoreError, match="leads out of the study's folder"):
        store.picture(file)


def test_a_study_in_a_folder_that_is_a_link(store: Store, tmp_path: Path) -> None:
    """Where the whole study lies is its owner's affair."""
    (tmp_path / "link").symlink_to(store.folder)
    linked = Store(tmp_path / "link")
    assert all(linked.picture(file) for file in linked.by_file)


def test_a_database_that_leads_elsewhere_is_refused(store: Store, tmp_path: Path) -> None:
    (store.folder / "study.sqlite").rename(tmp_path / "other.sqlite")
    (store.folder / "study.sqlite").symlink_to(tmp_path / "other.sqlite")
    with pytest.raises(DataError, match=r"study.sqlite: leads out of the study's folder; put the file itself there"):
        Store(store.folder)


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
