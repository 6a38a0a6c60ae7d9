"""A small REST server around one translator: POST an image, get an image (FastAPI, ``unpaired[serve]``)."""

# Annotations are not deferred here: FastAPI reads those of functions within functions.
import asyncio
import base64
import hmac
import io
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import metadata
from typing import Annotated, Any, TypeVar

import numpy as np
from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from unpaired.data import IMAGE_SUFFIXES, can_hold, encode, read_picture
from unpaired.data.reading import described
from unpaired.errors import DataError, UserError, nearest
from unpaired.inference import Translator
from unpaired.studio.limits import Limits
from unpaired.studio.uploads import shown_name
from unpaired.web import Application, Guard, is_loopback

Made = TypeVar("Made")
_OVERHEAD = 1_000_000
"""Bytes of a batch besides its images."""
_UPLOAD_SECONDS = 60
"""How long a body may take to arrive; a slow one would hold a place in the queue."""
_KINDS = {kind: suffix for suffix, kind in reversed(IMAGE_SUFFIXES.items())}
_IMAGE: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_FILES = {"type": "object", "properties": {"images": {"type": "array", "items": _IMAGE["schema"]}}}


class RefusedError(Exception):
    """A request that is answered by a status and one sentence."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status, self.words = status, words


class _Places:
    """The bounded queue: requests at work and waiting, one of them at the networks at a time.

    ``most_bytes`` bounds the sum of their bodies; a single request is always taken.
    """

    def __init__(self, count: int, most_bytes: int) -> None:
        self.count, self.taken = count, 0
        self._most_bytes, self._bytes = most_bytes, 0
        self._turn, self._pool = asyncio.Lock(), ThreadPoolExecutor(1, "translating")

    @contextmanager
    def one(self, request: Request) -> Iterator[None]:
        """A place for the time of the block; taken before the body is read, so that memory is bounded, too."""
        length = int(request.headers["content-length"])  # the guard has seen to it that there is one
        if self.taken >= self.count or (self.taken and self._bytes + length > self._most_bytes):
            raise RefusedError(503, f"busy: {self.taken} requests are waiting; try again in a moment")
        self.taken += 1
        self._bytes += length
        try:
            yield
        finally:
            self.taken -= 1
            self._bytes -= length

    async def run(self, request: Request, work: Callable[[], Made]) -> Made:
        """Run ``work`` in the thread of the networks once it is its turn and somebody still waits for it."""
        async with self._turn:
            if await request.is_disconnected():
                raise RefusedError(499, "the client has left")
            try:
                return await asyncio.get_running_loop().run_in_executor(self._pool, work)
            except (MemoryError, RuntimeError) as error:  # PyTorch says that memory ran out with a RuntimeError
                if not isinstance(error, MemoryError) and "memory" not in str(error):
                    raise
                raise RefusedError(413, "the image does not fit into memory; scale it down") from error


class _Content(io.BytesIO):
    """An upload, which messages call by its name."""

    name = "image"

    def __str__(self) -> str:
        return self.name


def translate_upload(
    translator: Translator, content: bytes, limits: Limits, kind: str = "same", name: str = "image", **request: Any
) -> tuple[bytes, str]:
    """An image file in memory as its translation.

    Args:
        translator: Used by one caller at a time.
        content: The file; of an animation the first frame is taken.
        limits: Bytes and pixels, by the header, before anything is decoded.
        kind: Type of the result, such as ``png``; ``same`` is that of the image.
        name: What messages call it.
        request: As of :meth:`Translator.translate`.

    Returns:
        The file, with the colour profile and resolution of the input, and its media type.

    Raises:
        RefusedError: It is too large, or the type cannot hold the result.
        DataError: It is damaged or no image.
    """
    if len(content) > limits.bytes:
        raise RefusedError(413, f"{name}: more than the limit of {limits.megabytes:g} MB")
    file = _Content(content)
    file.name = name
    taken, made = translator.sides(request.get("reverse", False))
    with described(file, pages=taken.pages, channels=taken.channels) as facts:
        if facts.width * facts.height > limits.pixels:
            words = (
                f"{facts.width:,} x {facts.height:,} pixels are more than the limit of {limits.megapixels:g} megapixels"
            )
            raise RefusedError(413, f"{name}: {words}")
    suffix = _KINDS[facts.kind] if kind == "same" else f".{kind.lower()}"
    if suffix not in IMAGE_SUFFIXES or not can_hold(suffix, made.dtype, made.channels):
        known = [s[1:] for s in IMAGE_SUFFIXES if can_hold(s, made.dtype, made.channels)]
        words = (
            f"format: '{suffix[1:]}' cannot hold {made.words}{nearest(suffix[1:], known)}; known: {', '.join(known)}"
        )
        raise RefusedError(415, words)
    picture = read_picture(file, taken)
    values = translator.translate(np.ascontiguousarray(picture.values), **request)
    attached = picture.description.attached
    body = encode(values, suffix, attached, [picture.invalid_for(values.shape[2])])
    media = IMAGE_SUFFIXES[suffix].lower()
    return bytes(body), "application/octet-stream" if media == "npy" else f"image/{media}"


def make_app(
    translator: Translator, name: str, limits: Limits, token: str = "", host: str = "127.0.0.1"
) -> Application:
    """The server as an application; a token, where there is one, is asked for by all but ``/health``."""
    app = FastAPI(
        title=f"unpaired: {name}", version=metadata.version("unpaired"), docs_url=None, redoc_url=None,
        description="POST an image, get its translation. Errors are {\"error\": \"one sentence\"}.",
    )  # fmt: skip
    longest_body = limits.bytes * limits.batch + _OVERHEAD
    places = _Places(limits.queue, 2 * longest_body)

    def authorised(request: Request) -> None:
        given = request.headers.get("authorization", "").encode("latin-1", "replace")
        if token and not hmac.compare_digest(given, f"Bearer {token}".encode()):
            raise RefusedError(401, "the header 'Authorization: Bearer TOKEN' is missing or wrong")

    def asked(
        http: Request,
        reverse: Annotated[bool, Query(description="From the target to the source domain.")] = False,
        style_seed: Annotated[int | None, Query(description="Seed of the style.")] = None,
        domain: Annotated[str | None, Query(description="Name of the wanted domain.")] = None,
    ) -> dict[str, Any]:
        request: dict[str, Any] = {"reverse": reverse, "style_seed": style_seed, "domain": domain}
        known = ("format", *request)
        for key in http.query_params:
            if key not in known:
                words = f"there is no parameter '{key[:80]}'{nearest(key, known)}; known: {', '.join(known)}"
                raise RefusedError(422, words)
        translator.request(**request)
        return request

    Asked = Annotated[dict[str, Any], Depends(asked)]
    Kind = Annotated[str, Query(alias="format", description="Type of the result, such as png; same: of the image.")]

    @app.get("/health")
    def health() -> dict[str, Any]:
        return {"status": "ok", "model": name, "method": translator.method.title, "device": str(translator.device),
                "requests": places.taken, "places": places.count, "version": app.version}  # fmt: skip

    @app.post(
        "/translate", dependencies=[Depends(authorised)], response_class=Response,
        openapi_extra={"requestBody": {"required": True, "content": {"image/*": _IMAGE}}},
        responses={200: {"content": {"image/*": _IMAGE}}},
    )  # fmt: skip
    async def translate(request: Request, wanted: Asked, kind: Kind = "same") -> Response:
        """The body is one image file of any type that the package reads; so is the answer."""
        if request.headers.get("content-type", "").startswith("multipart/"):
            raise RefusedError(415, "a form goes to /batch; here the body is the file (curl --data-binary @photo.jpg)")
        with places.one(request):
            content = await _arrived(request, limits.bytes)
            body, media = await places.run(
                request, lambda: translate_upload(translator, content, limits, kind, **wanted)
            )
        return Response(body, media_type=media)

    @app.post(
        "/batch", dependencies=[Depends(authorised)],
        openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FILES}}}},
    )  # fmt: skip
    async def batch(request: Request, wanted: Asked, kind: Kind = "same") -> dict[str, list[dict[str, str]]]:
        """A form with several files; per file, in order, its ``name``, ``content_type`` and ``data`` (base64), or
        ``error``."""
        made = []
        with places.one(request):
            form = await _in_time(request.form(max_files=limits.batch, max_fields=16))  # large files lie on the disk
            try:
                files = [value for _, value in form.multi_items() if not isinstance(value, str)]
                if not files:
                    raise DataError("the form holds no file; send each as a field 'images' (curl -F images=@photo.jpg)")
                for file in files:
                    file_name = shown_name(file.filename or "image")
                    content = await file.read(limits.bytes + 1)

                    def work(file_name: str = file_name, content: bytes = content) -> tuple[bytes, str]:
                        return translate_upload(translator, content, limits, kind, file_name, **wanted)

                    try:
                        body, media = await places.run(request, work)
                        data = base64.b64encode(body).decode()
                        made.append({"name": file_name, "content_type": media, "data": data})
                    except (UserError, RefusedError) as error:
                        made.append({"name": file_name, "error": str(error)})
            finally:
                await form.close()
        return {"images": made}

    def refused(status: int, words: str) -> JSONResponse:
        headers = {503: {"retry-after": "1"}, 401: {"www-authenticate": "Bearer"}}.get(status)
        return JSONResponse({"error": " ".join(words.split())}, status, headers)

    def invalid(request: Request, error: Any) -> JSONResponse:
        first = error.errors()[0]
        return refused(422, f"{first['loc'][-1]}: {first['msg']}")

    app.add_exception_handler(RefusedError, lambda request, error: refused(error.status, error.words))
    app.add_exception_handler(UserError, lambda request, error: refused(400, str(error)))
    app.add_exception_handler(HTTPException, lambda request, error: refused(error.status_code, str(error.detail)))
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, lambda request, error: refused(500, "the server failed; its log says why"))
    return Guard(
        app,
        host,
        what="server",
        content_types=(),
        any_name=not is_loopback(host) and bool(token),
        longest_body=longest_body,
    )


async def _arrived(request: Request, longest: int) -> bytes:
    if int(request.headers["content-length"]) > longest:
        raise RefusedError(413, f"a request may have at most {longest:,} bytes here")
    body = await _in_time(request.body())
    if not body:
        raise DataError("the request holds no image; send the file as its body (curl --data-binary @photo.jpg)")
    return body


async def _in_time(body: Awaitable[Made]) -> Made:
    try:
        return await asyncio.wait_for(body, _UPLOAD_SECONDS)
    except TimeoutError:
        raise RefusedError(408, f"the body did not arrive within {_UPLOAD_SECONDS} seconds") from None
