"""Serving the studio until Ctrl-C: temporary folder, Gradio's environment, the guard, uvicorn."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unpaired.errors import require_packages
from unpaired.reporting.page import asset
from unpaired.studio.limits import Limits
from unpaired.web import (
    Application,
    Guard,
    Message,
    Receive,
    Send,
    bound_socket,
    is_loopback,
    page_address,
    run_server,
)

if TYPE_CHECKING:
    from unpaired.studio.app import Shown
    from unpaired.studio.runs import StudioRun

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; media-src 'self' data: blob:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
"""Gradio's page needs inline scripts and styles, but nothing from another server."""
_PAGES = 128
"""Pages whose state is kept, the last used ones; each takes about a megabyte. One beyond has to translate again."""
_WRONG = (AttributeError, AssertionError, LookupError, TypeError, ValueError)
"""What Gradio raises for requests that its page never sends."""
_OVERHEAD = 1_000_000
"""Bytes of an upload besides the files."""


def serve(
    runs: Sequence[StudioRun],
    host: str,
    port: int,
    limits: Limits,
    *,
    refresh_seconds: float = 5.0,
    note: str = "",
    ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve a studio until the process is interrupted; its temporary folder is removed then.

    Args:
        runs: What to show; may be empty.
        host: Address to bind to.
        port: 0 takes any free one.
        limits: Limits of one request.
        refresh_seconds: Between two looks at a training.
        note: A sentence below the heading.
        ready: Called with the page's address once the socket is open.

    Raises:
        BackendError: Gradio is missing.
        ConfigError: The address cannot be bound to.
    """
    require_packages("the studio", "studio", "gradio", "uvicorn")  # imported later, in an environment of its own
    with bound_socket(host, port) as bound, tempfile.TemporaryDirectory(prefix="unpaired-studio-") as folder:
        root = Path(folder).resolve()
        os.environ.update(GRADIO_TEMP_DIR=str(root), GRADIO_ANALYTICS_ENABLED="False")  # read by Gradio at its import
        from unpaired.studio.app import Shown

        if not is_loopback(host):
            print(
                f"warning: bound to {host}, so other machines can reach this studio, without password or encryption: "
                "whoever reaches it can translate pictures and see the runs",
                file=sys.stderr,
            )
        ready(page_address(host, bound))
        run_server(make_app(Shown(runs, root, limits, refresh_seconds, note), host), bound)


def make_app(shown: Shown, host: str = "127.0.0.1") -> Application:
    """The studio as an application, guarded; Gradio's environment must be set as :func:`serve` does."""
    import gradio as gr
    from fastapi import FastAPI
    from fastapi.exceptions import RequestValidationError

    from unpaired.studio.app import make_page
    from unpaired.studio.theme import CSS, theme

    page = make_page(shown)
    page.state_session_capacity = _PAGES  # Gradio's own bound is 10,000
    page.has_launched = True  # else Gradio checks no paths, since it was not started by its own server
    no_docs: dict[str, Any] = {"docs_url": None, "redoc_url": None, "openapi_url": None}
    outer = FastAPI(**no_docs)
    app: Any = gr.mount_gradio_app(
        outer,
        page,
        path="",
        server_name=host,
        allowed_paths=[],
        max_file_size=shown.limits.bytes,
        ssr_mode=False,
        enable_monitoring=False,
        show_error=True,
        footer_links=[],
        theme=theme(),
        css=CSS,
        head=f"<script>{asset('page.js')}</script>",
        app_kwargs={**no_docs, "exception_handlers": {RequestValidationError: _refused, Exception: _refused}},
    )
    return Guard(
        _OwnFilesOnly(app),
        host,
        what="studio",
        policy=POLICY,
        content_types=("application/json", "multipart/form-data"),
        longest_body=shown.limits.bytes * shown.limits.batch + _OVERHEAD,
    )


def _refused(request: Any, error: Exception) -> Any:
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse

    if isinstance(error, (*_WRONG, RequestValidationError)):
        return JSONResponse({"error": "this page sends no such request"}, 400)
    return JSONResponse({"error": "the studio failed; its log says why"}, 500)


class _OwnFilesOnly:
    """Takes links to other servers out of Gradio's page, which would be asked for before the policy refuses them."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in ("/", ""):
            try:
                await self._application(scope, receive, send)
            except _WRONG:  # answered by _refused
                pass
            except RuntimeError as error:
                if not _told(error):
                    raise
                await send({"type": "http.response.body"})  # the end of what it began to say
            except asyncio.CancelledError:  # a page was still listening when the studio ended
                if scope["type"] != "http":
                    raise
            return
        held: list[bytes] = []
        start: Message = {}

        async def hold(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            held.append(message.get("body", b""))
            if not message.get("more_body", False):
                page = without_other_servers(b"".join(held).decode()).encode()
                headers = [pair for pair in start["headers"] if pair[0].lower() != b"content-length"]
                await send({**start, "headers": [*headers, (b"content-length", str(len(page)).encode())]})
                await send({"type": "http.response.body", "body": page})

        plain = [pair for pair in scope["headers"] if pair[0].lower() != b"accept-encoding"]
        await self._application({**scope, "headers": plain}, receive, hold)


def _told(error: RuntimeError) -> bool:
    """Whether a stream of Gradio's has said what is wrong and then raised it, as for a page opened before a restart."""
    from starlette.exceptions import HTTPException

    return isinstance(error.__cause__, HTTPException)


def without_other_servers(page: str) -> str:
    """Remove ``<link>`` and ``<script>`` elements of a page whose address is on another server.

    >>> without_other_servers('<link rel="a" href="https://a.b/c"><script src="./own.js"></script>')
    '<script src="./own.js"></script>'
    """
    page = re.sub(r'<script[^>]*\bsrc="(?:https?:)?//[^>]*>\s*</script>', "", page)
    return re.sub(r'<link[^>]*\bhref="(?:https?:)?//[^>]*>', "", page)
