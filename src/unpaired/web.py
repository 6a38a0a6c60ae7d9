"""Common parts of our web pages: the socket, and an ASGI guard that filters requests and sets security headers."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import json
import logging
import re
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from unpaired.errors import ConfigError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

OWN_FILES_ONLY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""A content security policy: files of this server only, nothing inline."""

_DISCARD_BYTES, _DISCARD_SECONDS = 2**28, 30
"""How much of the body of a request that is refused is read, and thrown away, before the answer."""
_HEADER_SECONDS = 10
"""A connection on which no request begins in so long is closed: silent ones would take every place."""
_BODY_SECONDS, _BODY_RATE = 30, 20_000
"""A body must arrive within so many seconds, and one more for so many bytes; else the client is taken for gone."""

HEADERS = {
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


def is_loopback(host: str) -> bool:
    """Whether a server on ``host`` can be reached from this machine only.

    >>> [is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "192.168.1.5")]
    [True, True, True, False, False]
    """
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


class Guard:
    """ASGI middleware that accepts requests of the page itself and refuses others with a message.

    It protects from DNS rebinding (``Host`` must be an address or a name of this machine) and from cross-site requests
    (``Sec-Fetch-Site`` or ``Origin``, and content types that forms cannot send). Bodies must state their length and
    keep arriving.

    Args:
        application: The ASGI application.
        host: The address that the server is bound to.
        what: The kind of page, for messages.
        policy: The content security policy of every response.
        content_types: Allowed content types of requests with a body; none: any.
        any_name: Accept requests whatever ``Host`` they name, as behind a proxy.
        longest_body: Maximum length of such a body in bytes.
    """

    def __init__(
        self,
        application: Application,
        host: str = "127.0.0.1",
        *,
        what: str,
        policy: str = OWN_FILES_ONLY,
        content_types: tuple[str, ...] = ("application/json",),
        any_name: bool = False,
        longest_body: int,
    ) -> None:
        self._application = application
        self._what, self._content_types, self._longest_body = what, content_types, longest_body
        self.headers = {"content-security-policy": policy, **HEADERS}
        self._only_here, self._any_name = is_loopback(host), any_name
        machine = socket.gethostname().lower()
        self._names = {"localhost"} if self._only_here else {"localhost", host.lower(), machine, f"{machine}.local"}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":  # start and end of the server, not a request
            await self._application(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        left = started = False
        loop = asyncio.get_running_loop()
        arriving = headers.get("content-length", "0") != "0" and "expect" not in headers

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            started = True
            if message["type"] == "http.response.start":
                if arriving:  # a client that is still sending would find the connection reset, and not the answer
                    await _discard(receive_and_notice)
                own = [(name.encode(), value.encode()) for name, value in self.headers.items()]
                message = {**message, "headers": [*message.get("headers", []), *own]}
            await send(message)

        async def receive_and_notice() -> Message:
            nonlocal arriving, left
            try:
                async with asyncio.timeout_at(slowest if arriving else None):
                    message = await receive()
            except TimeoutError:
                message = {"type": "http.disconnect"}
            left = left or message["type"] == "http.disconnect"
            arriving = arriving and not left and message.get("more_body", False)
            return message

        refusal = self._refusal(scope["method"], headers)
        length = int(headers.get("content-length", 0)) if refusal is None else 0
        slowest = loop.time() + _BODY_SECONDS + length / _BODY_RATE
        try:
            if refusal is None:
                await self._application(scope, receive_and_notice, send_with_headers)
            else:
                await _refuse(send_with_headers, *refusal)
        except asyncio.CancelledError:  # the server ends
            if not started:
                await _refuse(send, 503, f"the {self._what} has ended")
        except Exception:
            if not left:  # else nobody waits for the answer that could not be made
                raise

    def _refusal(self, method: str, headers: dict[str, str]) -> tuple[int, str] | None:
        """Status and message, or None if the request is accepted."""
        host = headers.get("host", "")
        if not self._known(_host_name(host)):
            return (
                421,
                f"this {self._what} is not served as '{host[:80]}'; open the address that unpaired printed, or its IP",
            )
        if method in ("GET", "HEAD"):
            return None
        site = headers.get("sec-fetch-site")
        origin = headers.get("origin")
        own_page = site == "same-origin" if site else origin is None or origin.partition("://")[2] == host
        if not own_page:
            return 403, "requests from other sites are refused"
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if self._content_types and kind not in self._content_types:
            return 415, f"a request must be {' or '.join(self._content_types)}"
        length = headers.get("content-length", "")
        if not (length.isascii() and length.isdecimal()) or "transfer-encoding" in headers:  # which would win
            return 411, "a request must state its length, and cannot be sent in chunks"
        if int(length) > self._longest_body:
            return 413, f"a request may have at most {self._longest_body} bytes"
        return None

    def _known(self, name: str) -> bool:
        if self._any_name or name in self._names:
            return True
        return is_loopback(name) if self._only_here else _is_address(name)


async def _discard(receive: Receive) -> None:
    """Take what is left of a body, so much and so long as an honest client may need."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DISCARD_SECONDS):
            taken = 0
            while taken < _DISCARD_BYTES and (message := await receive()).get("more_body", False):
                taken += len(message.get("body", b""))


async def _refuse(send: Send, status: int, words: str) -> None:
    body = json.dumps({"error": words}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),  # the unread body must not be parsed as the next request
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _host_name(host: str) -> str:
    """A ``Host`` header without port and without the brackets of IPv6."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def bound_socket(host: str, port: int) -> socket.socket:
    """A listening socket; uvicorn itself would exit the process on failure.

    Args:
        host: Address to bind to.
        port: 0 means any free port.

    Raises:
        ConfigError: The address cannot be bound.
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"port must be 0 to 65535, not {port}")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=128)
    except (socket.gaierror, UnicodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a valid host name"
        raise ConfigError(f"host: '{host}' is not an address of this machine ({reason})") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"port {port} is in use on {host}; use another --port, or --port 0 for any free one"
            ) from error
        raise ConfigError(f"cannot listen on {host} port {port}: {error.strerror or error}") from error


def page_address(host: str, bound: socket.socket) -> str:
    """The URL to open; with a wildcard address, one that works from other machines."""
    shown = socket.gethostname() if host in ("0.0.0.0", "::") else host
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{bound.getsockname()[1]}/"


def run_server(application: Application, bound: socket.socket) -> None:
    """Answer requests on a bound socket until the process gets SIGINT or SIGTERM."""
    import h11
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Impatient(H11Protocol):
        """Closes connections on which no request arrives."""

        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._wait()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._wait()

        def send_400_response(self, msg: str) -> None:
            with contextlib.suppress(h11.LocalProtocolError):  # an answer has begun, or HEAD allows no body
                super().send_400_response(msg)
            self.transport.close()

        def _wait(self) -> None:
            if self.cycle is None or self.cycle.response_complete:
                self._deadline = self._deadline or self.loop.call_later(_HEADER_SECONDS, self.transport.close)
            elif self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

    config = uvicorn.Config(
        application,
        http=Impatient,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        limit_concurrency=256,
        timeout_graceful_shutdown=2,
    )
    logging.getLogger("uvicorn.error").addFilter(_matters)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # else it ends the process before anything is removed
    try:
        uvicorn.Server(config).run(sockets=[bound])
    except KeyboardInterrupt:  # uvicorn has ended its connections and hands the signal on
        return


def _matters(record: logging.LogRecord) -> bool:
    """A page that is open when the server ends is no error; nor is a client that speaks no HTTP, or stops to."""
    error = record.exc_info[0] if record.exc_info else None
    ours = error is None or error.__module__.partition(".")[0] != "h11"
    return ours and not re.search(r"running task\(s\)|Invalid HTTP request", record.getMessage())
