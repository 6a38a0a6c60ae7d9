"""The web application of a study (Starlette): three files, pictures by random id, and five things to ask."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unpaired.study import api
from unpaired.study.records import Rater, StoreError
from unpaired.study.store import Store
from unpaired.web.guard import Application, Guard

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
        assert isinstance(error, api.RefusedError)
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
    handlers: Any = {api.RefusedError: refused, StoreError: out_of_order}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), host, what="study", longest_body=LONGEST_BODY)


_NOT_KEPT = {"cache-control": "no-store"}


class _Pages:
    """Requests in, answers out; what they mean is decided in ``api``."""

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
            raise api.RefusedError(404, "this study has no such picture")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise StoreError(f"a picture is missing from {path.parent} ({error.strerror})") from error
        kept = {"cache-control": "private, max-age=86400, immutable"}
        return self._response(content, media_type="image/png", headers=kept)

    def overview(self, request: Request) -> Response:
        return self._json(api.overview(self._store, self._rater(request)), headers=_NOT_KEPT)

    async def enter(self, request: Request) -> Response:
        rater, token = await self._in_thread(api.enter, self._store, await _body(request))
        found = await self._in_thread(api.overview, self._store, rater)
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
        answer = self._json(await self._in_thread(api.overview, self._store, None), headers=_NOT_KEPT)
        answer.delete_cookie(self._cookie, httponly=True, samesite="strict")
        return answer

    async def vote(self, request: Request) -> Response:
        body = await _body(request)
        rater = await self._in_thread(self._rater, request)
        if rater is None:
            raise api.RefusedError(401, "enter a name first")
        return self._json(await self._in_thread(api.vote, self._store, rater, body), headers=_NOT_KEPT)

    def _rater(self, request: Request) -> Rater | None:
        token = request.cookies.get(self._cookie)
        return self._store.rater(token) if token else None


async def _body(request: Request) -> Any:
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError):
        raise api.RefusedError(400, "the request is not JSON") from None
