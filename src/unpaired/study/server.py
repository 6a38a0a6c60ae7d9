"""The server of a study's page: a Starlette application and the checks of everything that it receives.

Names of methods and images never leave the server. Requests are not trusted: types, lengths and ids are checked before
the store is asked. Importing this module needs the optional packages of ``unpaired[study]``.
"""

from __future__ import annotations

import json
import logging
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from unpaired.study.records import QUESTIONS, Rater, StoreError, order_of_images, order_of_methods, printable
from unpaired.study.store import NameTakenError, Store
from unpaired.web import (
    Application,
    Guard,
    bound_socket,
    is_loopback,
    page_address,
    run_server,
)

_LOG = logging.getLogger(__name__)
_PAGE = Path(__file__).parent / "page"
_FILES = {
    "index.html": "text/html",
    "study.css": "text/css",
    "study.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
_COOKIE_SECONDS = 180 * 24 * 3600
LONGEST_BODY = 4096
"""Bytes of a request; votes and names are far shorter."""
LONGEST_NAME = 40
_LONGEST_ID = 64
_PUNCTUATION = " .-_'\u2019\u00b7\u30fb\u2010\u2011\u05be\u05f3\u05f4\u200c\u200d"
"""Of names: the last ones are the typographic apostrophe, the points of Catalan and of Japanese, the hyphens, the three
signs of Hebrew, and the two joiners of Persian and Sinhala."""
_PIXEL_ART_SIDE = 100
"""Images up to this side are enlarged without smoothing, so that raters do not judge the browser's interpolation."""
_KINDS = {str: f"text of at most {_LONGEST_ID} characters", bool: "true or false", int: "a whole number"}
_NOT_KEPT = {"cache-control": "no-store"}


class RefusedError(Exception):
    """A request that is refused, with its HTTP status and message."""

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
        answers, items = store.answers(rater.id), []
        for number in order_of_images(study.seed, rater.id, study.images):
            image = study.images[number]
            files = image.translations
            choices = [files[method] for method in order_of_methods(study.seed, rater.id, number, files)]
            given = {key: files[answers[number, key]] for key in QUESTIONS if (number, key) in answers}
            items.append({"source": image.file, "width": image.size[0], "height": image.size[1], "choices": choices,
                          "answers": given})  # fmt: skip
        found["rater"] = {"id": rater.id, "name": rater.name, "votes": rater.votes, "items": items}
    return found


def enter(store: Store, body: Any) -> tuple[Rater, str]:
    """Admit the sender of ``{"name": "...", "resume": false}``; an empty name gets a random one.

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
    """Count ``{"rater": rater id, "source": file id, "question": "Q", "choice": file id}``.

    Raises:
        RefusedError: The page is another rater's, an id is unknown, or the choice does not belong to the source.
    """
    fields = _fields(body, {"rater": int, "source": str, "question": str, "choice": str})
    _check_same(rater, fields["rater"])
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


def _check_same(rater: Rater, of_page: int) -> None:
    """Refuse what a page sends for a rater who is no longer this browser's: its tabs share one cookie."""
    if rater.id != of_page:
        raise RefusedError(409, "Another person has started in this browser; reload this page.")


def _fields(body: Any, kinds: dict[str, type]) -> dict[str, Any]:
    """The named values of a request, each of its type and no others."""
    if not isinstance(body, dict) or body.keys() != kinds.keys():
        raise RefusedError(400, f"the request must hold exactly: {', '.join(kinds)}")
    for name, kind in kinds.items():
        value = body[name]
        if type(value) is not kind or (isinstance(value, str) and len(value) > _LONGEST_ID):
            raise RefusedError(400, f"'{name}' must be {_KINDS[kind]}")
    return body


def _checked_name(text: str) -> str | None:
    """A name that is safe in any table: spreadsheets run what begins with =, +, - or @."""
    name = " ".join(unicodedata.normalize("NFC", text).split())
    if not name:
        return None
    if len(name) > LONGEST_NAME:
        raise RefusedError(400, f"a name has at most {LONGEST_NAME} characters")
    if not name[0].isalnum() or not all(map(_belongs_to_names, name)):
        raise RefusedError(
            400, "a name begins with a letter or digit and holds only letters, accents, digits, spaces and . - _ '"
        )
    return name


def _belongs_to_names(letter: str) -> bool:
    """Whether a name may hold this: combining marks are the vowels of many scripts."""
    return letter.isalnum() or letter in _PUNCTUATION or unicodedata.category(letter) in ("Mn", "Mc")


def make_app(store: Store, host: str = "127.0.0.1") -> Application:
    """The application for one study, behind the guard of our pages.

    Args:
        store: The study.
        host: The address that it will be served at; decides which host names it answers to.
    """
    cookie = f"unpaired_study_{store.study.id}"  # cookies are shared by all ports of a machine

    def answer(content: Any, status: int = 200) -> Response:
        return JSONResponse(content, status, _NOT_KEPT)

    def rater_of(request: Request) -> Rater | None:
        token = request.cookies.get(cookie)
        return store.rater(token) if token else None

    def picture(request: Request) -> Response:
        """A PNG without a date: translations are made one method after the other, and dates would tell them apart."""
        path = store.picture(request.path_params["file"])
        if path is None:
            raise RefusedError(404, "this study has no such picture")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise StoreError(f"{path}: cannot be read ({error.strerror})") from error
        return Response(content, 200, {"cache-control": "private, max-age=86400, immutable"}, "image/png")

    def study(request: Request) -> Response:
        return answer(overview(store, rater_of(request)))

    async def entered(request: Request) -> Response:
        rater, token = await run_in_threadpool(enter, store, await _body(request))
        found = answer(await run_in_threadpool(overview, store, rater))
        found.set_cookie(cookie, token, max_age=_COOKIE_SECONDS, httponly=True, samesite="strict",
                         secure=request.url.scheme == "https")  # fmt: skip
        return found

    async def left(request: Request) -> Response:
        fields = _fields(await _body(request), {"rater": int})
        if (rater := await run_in_threadpool(rater_of, request)) is not None:
            _check_same(rater, fields["rater"])
            await run_in_threadpool(store.leave, request.cookies[cookie])
        found = answer(await run_in_threadpool(overview, store, None))
        found.delete_cookie(cookie, httponly=True, samesite="strict")
        return found

    async def voted(request: Request) -> Response:
        body = await _body(request)
        rater = await run_in_threadpool(rater_of, request)
        if rater is None:
            raise RefusedError(401, "enter a name first")
        return answer(await run_in_threadpool(vote, store, rater, body))

    def unusable(request: Request, error: Exception) -> Response:
        """Paths of this machine are for its log, not for raters."""
        _LOG.error(printable(f"{request.method} {request.url.path}: {error}"))
        return answer({"error": "The study cannot be used just now. Try again, or tell the person who runs it."}, 503)

    routes = [
        *(Route("/" if name == "index.html" else f"/{name}", _static(name)) for name in _FILES),
        Route("/picture/{file}", picture),
        Route("/api/study", study),
        *(Route(f"/api/{name}", handler, methods=["POST"])
          for name, handler in (("enter", entered), ("leave", left), ("vote", voted))),
    ]  # fmt: skip
    handlers: Any = {
        RefusedError: lambda _, error: answer(error.body, error.status),
        StoreError: unusable,
    }
    return Guard(Starlette(routes=routes, exception_handlers=handlers), host, what="study", longest_body=LONGEST_BODY)


def _static(name: str) -> Callable[[Request], Response]:
    content = (_PAGE / name).read_bytes()
    return lambda request: Response(content, 200, {"cache-control": "no-cache"}, _FILES[name])


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
        ConfigError: The address cannot be bound to.
    """
    with bound_socket(host, port) as bound:
        if not is_loopback(host):
            print(
                f"warning: bound to {host}, so other machines can reach this study, without password or encryption: "
                "whoever reaches it can vote",
                file=sys.stderr,
            )
        ready(page_address(host, bound))
        run_server(make_app(store, host), bound)
