"""The page of a study: what it may ask and say, the web application (Starlette) around that, and serving it.

Names of methods and images never leave. Whatever comes in is a stranger's: types, lengths and ids are checked before
the store hears of them.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unpaired.study.records import QUESTIONS, Rater, StoreError, order_of_images, order_of_methods
from unpaired.study.store import NameTakenError, Store
from unpaired.web import (
    Application,
    Guard,
    bound_socket,
    is_loopback,
    page_address,
    require_packages,
    run_server,
)

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

_PAGE = Path(__file__).parent / "page"
_FILES = {
    "/": ("index.html", "text/html"),
    "/study.css": ("study.css", "text/css"),
    "/study.js": ("study.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_COOKIE_SECONDS = 180 * 24 * 3600
LONGEST_BODY = 4096
"""Bytes of a request; votes and names are far shorter."""
LONGEST_NAME = 40
_LONGEST_ID = 64
_PUNCTUATION = " .-_'"
_PIXEL_ART_SIDE = 100
"""Images up to this side are enlarged with hard pixels, so that the browser's smoothing is not what is judged."""
_NOT_KEPT = {"cache-control": "no-store"}


class RefusedError(Exception):
    """A request that cannot be met, and the HTTP status and words that say so."""

    def __init__(self, status: int, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": message, **more}


def overview(store: Store, rater: Rater | None) -> dict[str, Any]:
    """All that the page needs: the questions and, for a rater, every image in this rater's order with the answers.

    Files are named by random ids. ``choices`` are the translations from left to right.
    """
    study = store.study
    found: dict[str, Any] = {
        "images": len(study.images),
        "methods": len(study.methods),
        "questions": [
            {"key": key, "title": row.title, "hint": row.hint, "shows_target": row.shows_target}
            for key, row in QUESTIONS.items()
        ],
        "target_examples": study.target_examples,
        "hard_pixels": all(max(image.size) <= _PIXEL_ART_SIDE for image in study.images.values()),
        "rater": None,
    }
    if rater is not None:
        found["rater"] = {"name": rater.name, "votes": rater.votes, "items": _items(store, rater)}
    return found


def enter(store: Store, body: Any) -> tuple[Rater, str]:
    """Let in who sent ``{"name": "...", "resume": false}``; an empty name gets a random one.

    Raises:
        RefusedError: The name cannot be used, or is somebody's already.
    """
    fields = _fields(body, {"name": str, "resume": bool})
    name = _checked_name(fields["name"])
    try:
        return store.enter(name, resume=fields["resume"])
    except NameTakenError as error:
        known = error.rater
        raise RefusedError(
            409,
            f"'{known.name}' takes part already.",
            taken={"name": known.name, "votes": known.votes, "of": store.study.votes_per_rater},
        ) from None


def vote(store: Store, rater: Rater, body: Any) -> dict[str, int]:
    """Count ``{"source": file id, "question": "Q", "choice": file id}``.

    Raises:
        RefusedError: An id is unknown, or the choice does not belong to the source.
    """
    fields = _fields(body, {"source": str, "question": str, "choice": str})
    image = store.by_file.get(fields["source"])
    if image is None:
        raise RefusedError(404, "this study has no such image")
    if fields["question"] not in QUESTIONS:
        raise RefusedError(404, f"there is no such question; they are {', '.join(QUESTIONS)}")
    methods = {file: method for method, file in image.translations.items()}
    if fields["choice"] not in methods:
        raise RefusedError(404, "the choice is not one of this image's versions")
    shown = order_of_methods(store.study.seed, rater.id, image.id, image.translations)
    votes = store.vote(rater.id, image.id, fields["question"], methods[fields["choice"]], shown)
    return {"votes": votes, "of": store.study.votes_per_rater}


def _items(store: Store, rater: Rater) -> list[dict[str, Any]]:
    study, answers = store.study, store.answers(rater.id)
    items = []
    for number in order_of_images(study.seed, rater.id, study.images):
        image = study.images[number]
        files = image.translations
        given = {key: answers.get((number, key)) for key in QUESTIONS}
        items.append(
            {
                "source": image.file,
                "width": image.size[0],
                "height": image.size[1],
                "choices": [files[method] for method in order_of_methods(study.seed, rater.id, number, files)],
                "answers": {key: files[method] for key, method in given.items() if method is not None},
            }
        )
    return items


def _fields(body: Any, kinds: dict[str, type]) -> dict[str, Any]:
    """The named values of a request, each of its type and no others."""
    if not isinstance(body, dict) or body.keys() != kinds.keys():
        raise RefusedError(400, f"the request must hold exactly: {', '.join(kinds)}")
    for name, kind in kinds.items():
        value = body[name]
        if not isinstance(value, kind) or (isinstance(value, str) and len(value) > _LONGEST_ID):
            words = f"text of at most {_LONGEST_ID} characters" if kind is str else "true or false"
            raise RefusedError(400, f"'{name}' must be {words}")
    return body


def _checked_name(text: str) -> str | None:
    """A name that is safe in any table: spreadsheets run what begins with =, +, - or @."""
    name = " ".join(unicodedata.normalize("NFC", text).split())
    if not name:
        return None
    if len(name) > LONGEST_NAME:
        raise RefusedError(400, f"a name has at most {LONGEST_NAME} characters")
    if not name[0].isalnum() or not all(letter.isalnum() or letter in _PUNCTUATION for letter in name):
        raise RefusedError(
            400, "a name begins with a letter or digit and holds only letters, digits, spaces and . - _ '"
        )
    return name


def make_app(store: Store, host: str = "127.0.0.1") -> Application:
    """The application for one study, guarded.

    Args:
        store: The study.
        host: The address it will be served at; decides which names it answers to.
    """
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    pages = _Pages(store)

    def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, RefusedError)
        return JSONResponse(error.body, error.status, _NOT_KEPT)

    def out_of_order(_: Request, error: Exception) -> Response:
        return JSONResponse({"error": f"the study's file cannot be used just now: {error}"}, 503, _NOT_KEPT)

    routes = [
        *(Route(path, pages.static(*file)) for path, file in _FILES.items()),
        Route("/picture/{file}", pages.picture),
        Route("/api/study", pages.overview),
        Route("/api/enter", pages.enter, methods=["POST"]),
        Route("/api/leave", pages.leave, methods=["POST"]),
        Route("/api/vote", pages.vote, methods=["POST"]),
    ]
    handlers: Any = {RefusedError: refused, StoreError: out_of_order}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), host, what="study", longest_body=LONGEST_BODY)


class _Pages:
    """Requests in, answers out; what they mean is decided above."""

    def __init__(self, store: Store) -> None:
        from starlette.concurrency import run_in_threadpool
        from starlette.responses import JSONResponse, Response

        self._store = store
        self._in_thread, self._response, self._json = run_in_threadpool, Response, JSONResponse
        self._cookie = f"unpaired_study_{store.study.id}"  # cookies are shared by all ports of a machine

    def static(self, name: str, media_type: str) -> Callable[[Request], Response]:
        content = (_PAGE / name).read_bytes()

        def answer(_: Request) -> Response:
            return self._response(content, media_type=media_type, headers={"cache-control": "no-cache"})

        return answer

    def picture(self, request: Request) -> Response:
        """A PNG without a date: translations are made one method after the other, and dates would tell them apart."""
        path = self._store.picture(request.path_params["file"])
        if path is None:
            raise RefusedError(404, "this study has no such picture")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise StoreError(f"a picture is missing from {path.parent} ({error.strerror})") from error
        kept = {"cache-control": "private, max-age=86400, immutable"}
        return self._response(content, media_type="image/png", headers=kept)

    def overview(self, request: Request) -> Response:
        return self._json(overview(self._store, self._rater(request)), headers=_NOT_KEPT)

    async def enter(self, request: Request) -> Response:
        rater, token = await self._in_thread(enter, self._store, await _body(request))
        found = await self._in_thread(overview, self._store, rater)
        answer = self._json(found, headers=_NOT_KEPT)
        answer.set_cookie(
            self._cookie, token, max_age=_COOKIE_SECONDS, httponly=True, samesite="strict",
            secure=request.url.scheme == "https",
        )  # fmt: skip
        return answer

    async def leave(self, request: Request) -> Response:
        await _body(request)
        token = request.cookies.get(self._cookie)
        if token is not None:
            await self._in_thread(self._store.leave, token)
        answer = self._json(await self._in_thread(overview, self._store, None), headers=_NOT_KEPT)
        answer.delete_cookie(self._cookie, httponly=True, samesite="strict")
        return answer

    async def vote(self, request: Request) -> Response:
        body = await _body(request)
        rater = await self._in_thread(self._rater, request)
        if rater is None:
            raise RefusedError(401, "enter a name first")
        return self._json(await self._in_thread(vote, self._store, rater, body), headers=_NOT_KEPT)

    def _rater(self, request: Request) -> Rater | None:
        token = request.cookies.get(self._cookie)
        return self._store.rater(token) if token else None


async def _body(request: Request) -> Any:
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError):
        raise RefusedError(400, "the request is not JSON") from None


def serve(store: Store, host: str, port: int, ready: Callable[[str], None] = lambda address: None) -> None:
    """Serve a study until the process is interrupted.

    Args:
        store: The study.
        host: Address to bind to.
        port: 0 takes any free one.
        ready: Called with the page's address once requests are answered.

    Raises:
        BackendError: The optional packages are missing.
        ConfigError: The address cannot be bound to.
    """
    require_packages("the page of a study", "study", "starlette", "uvicorn")

    with bound_socket(host, port) as bound:
        if not is_loopback(host):
            print(
                f"warning: bound to {host}, so other machines can reach this study, without password or encryption: "
                "whoever reaches it can vote",
                file=sys.stderr,
            )
        ready(page_address(host, bound))
        run_server(make_app(store, host), bound)
