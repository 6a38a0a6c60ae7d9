"""Our servers against clients that send too much, too slowly or nothing, and their end by a signal."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

for package in ("starlette", "uvicorn"):
    pytest.importorskip(package, reason='needs pip install "unpaired[study]"')

_SERVER = """
import asyncio
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
import unpaired.web as web

web._HEADER_SECONDS = web._BODY_SECONDS = 1

async def count(request):
    return PlainTextResponse(str(len(await request.body())))

async def wait(request):
    await asyncio.sleep(60)

app = Starlette(routes=[Route("/count", count, methods=["POST"]), Route("/wait", wait)])
with web.bound_socket("127.0.0.1", 0) as bound:
    print(bound.getsockname()[1], flush=True)
    web.run_server(web.Guard(app, what="page", longest_body=1000), bound)
print("ended")
"""


@pytest.fixture
def server() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A small server in a process of its own, and its port; nothing may be said on stderr."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    yield process, int(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "ended\n", "")


def sent(port: int, *parts: bytes, pause: float = 0) -> bytes:
    """Everything that comes back, until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        for part in parts:
            with contextlib.suppress(ConnectionError):
                client.sendall(part)
            time.sleep(pause)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while more := client.recv(65536):
                answer += more
        return answer


def post(*headers: str, path: str = "count") -> bytes:
    lines = [f"POST /{path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers, "", ""]
    return "\r\n".join(lines).encode()


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        (["Content-Length: 5", "Connection: close"], b"12345", b"200"),
        (["Content-Length: 1000", "Connection: close"], bytes(1000), b"200"),
        (["Content-Length: 1001"], bytes(1001), b"413"),
        ([], b"", b"411"),
        (["Transfer-Encoding: chunked"], b"7d0\r\n" + bytes(2000) + b"\r\n0\r\n\r\n", b"411"),
        (["Transfer-Encoding: chunked", "Content-Length: 5"], b"7d0\r\n" + bytes(2000) + b"\r\n0\r\n\r\n", b"411"),
        (["Content-Length: 5", "Transfer-Encoding: chunked"], b"7d0\r\n" + bytes(2000) + b"\r\n0\r\n\r\n", b"411"),
        (["Content-Length: 5", "Content-Length: 2000"], bytes(2000), b"400"),
        (["Content-Length: -1"], b"", b"400"),
        (["Content-Length: 5x"], b"12345", b"400"),
    ],
)
def test_no_body_is_longer_than_the_limit(
    server: tuple[subprocess.Popen[str], int], headers: list[str], body: bytes, status: bytes
) -> None:
    assert sent(server[1], post(*headers), body).split()[1] == status


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "BREW"])
@pytest.mark.parametrize("path", ["count", "wait", "nowhere"])
@pytest.mark.parametrize("pause", [0.0, 0.2], ids=["at once", "later"])
def test_a_body_that_breaks_is_answered_or_left(
    server: tuple[subprocess.Popen[str], int], method: str, path: str, pause: float
) -> None:
    """Whether or not an answer has begun, and where none may have a body."""
    for length in ([], ["Content-Length: 5"]):
        head = post("Transfer-Encoding: chunked", *length, path=path).replace(b"POST", method.encode(), 1)
        answer = sent(server[1], head, b"2\r\nab\r\n", b"null-encoding: chunked\r\n", b"2\r\nab\r\n", pause=pause)
        assert not answer or answer.startswith(b"HTTP/1.1 4")


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [b"POST /count HTTP/1.1\r\nHost: local"],
        [post("Content-Length: 9"), b"1234"],
        [post("Content-Length: 5") + b"12345" + b"POST /count HT"],
        [post("Content-Length: 5") + b"12345", b"POST", b" /count", b" HTTP/1.1\r\n", b"Host"],
    ],
    ids=["silent", "half a header", "half a body", "half a second request", "a second request, byte by byte"],
)
def test_who_stops_sending_loses_the_connection(server: tuple[subprocess.Popen[str], int], parts: list[bytes]) -> None:
    begun = time.monotonic()
    sent(server[1], *parts, pause=0.2)
    assert time.monotonic() - begun < 8


def test_silent_connections_do_not_keep_others_out(server: tuple[subprocess.Popen[str], int]) -> None:
    with contextlib.ExitStack() as held:
        for _ in range(260):
            held.enter_context(socket.create_connection(("127.0.0.1", server[1]), timeout=20))
        time.sleep(2)
        assert b"200" in sent(server[1], post("Content-Length: 5", "Connection: close"), b"12345")


def test_a_slow_but_steady_answer_is_waited_for(server: tuple[subprocess.Popen[str], int]) -> None:
    """The limits are on what a client sends, not on how long its answer takes."""
    with socket.create_connection(("127.0.0.1", server[1]), timeout=2.5) as client:
        client.sendall(b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with pytest.raises(TimeoutError):
            client.recv(1)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM that a program could answer")
def test_sigterm_ends_a_server_as_ctrl_c_does(server: tuple[subprocess.Popen[str], int]) -> None:
    process, port = server
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert client.recv(65536).split()[1] == b"503"
    process.wait(timeout=20)
