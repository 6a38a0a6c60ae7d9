"""``unpaired serve`` in a process of its own, asked by real clients: every answer is the right one, or one line."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from doc_pages import DOCS, blocks
from tiny import tiny_trained
from unpaired import cli
from unpaired.inference import Translator

for package in ("fastapi", "uvicorn", "python_multipart"):
    pytest.importorskip(package, reason='needs pip install "unpaired[serve]"')

TOKEN = {"Authorization": "Bearer a secret"}


class Server:
    def __init__(self, run: Path, *words: str, **environment: str) -> None:
        code = "import sys; from unpaired.cli.serve import main; sys.exit(main(sys.argv[1:]))"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, str(run), "--port", "0", "--device", "cpu", *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment},
        )  # fmt: skip
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        assert said.startswith("serving "), self.process.communicate(timeout=60)
        self.address = next(word for word in said.split() if word.startswith("http")).rstrip("/;")

    def end(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGINT)
        _, err = self.process.communicate(timeout=60)
        return self.process.returncode, err


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_trained(tmp_path_factory.mktemp("rest"))


@pytest.fixture(scope="module")
def server(run: Path) -> Iterator[Server]:
    limits = ["--megapixels", "0.01", "--megabytes", "0.1", "--batch", "3"]
    server = Server(run, *limits, UNPAIRED_TOKEN="a secret\n")
    yield server
    code, err = server.end()
    assert (code, err) == (0, "")


def picture(seed: int, kind: str = "PNG", size: tuple[int, int] = (24, 20), **options: Any) -> bytes:
    coarse = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8))
    held = io.BytesIO()
    coarse.resize(size, Image.Resampling.BICUBIC).save(held, kind, **options)
    return held.getvalue()


def test_fifty_clients_at_once_each_get_their_own_image(server: Server, run: Path) -> None:
    given = [picture(seed, size=(16 + seed % 5, 20)) for seed in range(50)]

    def ask(content: bytes) -> httpx.Response:
        return httpx.post(f"{server.address}/translate", content=content, headers=TOKEN, timeout=120)

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(ask, given))
    translator = Translator.from_pretrained(run, device="cpu")
    for content, answer in zip(given, answers, strict=True):
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
        expected = translator.translate(Image.open(io.BytesIO(content)))
        assert np.array_equal(Image.open(io.BytesIO(answer.content)), expected)


def turned() -> bytes:
    exif = Image.Exif()
    exif[274] = 6
    return picture(1, "JPEG", exif=exif, dpi=(72, 72))


@pytest.mark.parametrize(
    ("content", "query", "kind", "size"),
    [
        (picture(1), "", "PNG", (24, 20)),
        (picture(1, "JPEG"), "", "JPEG", (24, 20)),
        (picture(1, "WEBP"), "", "WEBP", (24, 20)),
        (picture(1, "TIFF"), "", "TIFF", (24, 20)),
        (picture(1, "GIF"), "", "GIF", (24, 20)),
        (picture(1, "JPEG"), "?format=png", "PNG", (24, 20)),
        (turned(), "", "JPEG", (20, 24)),
        (picture(1, size=(33, 31)), "", "PNG", (33, 31)),
    ],
)
def test_an_image_comes_back_as_its_own_kind(
    server: Server, content: bytes, query: str, kind: str, size: tuple[int, int]
) -> None:
    answer = httpx.post(f"{server.address}/translate{query}", content=content, headers=TOKEN, timeout=60)
    made = Image.open(io.BytesIO(answer.content))
    assert (answer.headers["content-type"], made.format, made.size) == (f"image/{kind.lower()}", kind, size)


def test_the_example_of_the_page(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photo.jpg").write_bytes(turned())
    code = blocks(DOCS / "serving.md", "python")[1].replace("http://127.0.0.1:8000", server.address)
    exec(code.replace('"secret"', '"a secret"'))
    assert Image.open("night.png").size == (20, 24)


def test_a_batch_names_each_result_or_what_is_wrong_with_it(server: Server) -> None:
    files = [
        ("images", ("a.png", picture(3))),
        ("images", ("../b.txt", b"text")),
        ("images", ("c", picture(4, "WEBP"))),
    ]
    answer = httpx.post(f"{server.address}/batch", files=files, headers=TOKEN, timeout=60).json()["images"]
    assert [one["name"] for one in answer] == ["a.png", "b.txt", "c"]
    assert answer[1]["error"].startswith("b.txt: the content is text")
    assert [one["content_type"] for one in (answer[0], answer[2])] == ["image/png", "image/webp"]
    alone = httpx.post(f"{server.address}/translate", content=picture(3), headers=TOKEN, timeout=60).content
    assert base64.b64decode(answer[0]["data"]) == alone


@pytest.mark.parametrize(
    ("path", "content", "headers", "status", "words"),
    [
        ("/translate", picture(1), {}, 401, "Bearer TOKEN"),
        ("/translate", picture(1), {"Authorization": "Bearer \xe9"}, 401, "Bearer TOKEN"),
        ("/batch", picture(1), {}, 401, "Bearer TOKEN"),
        ("/translate", b"", TOKEN, 400, "holds no image"),
        ("/translate", b"hello", TOKEN, 400, "the content is text"),
        ("/translate", picture(1)[:200], TOKEN, 400, "truncated or damaged"),
        ("/translate", picture(1, size=(200, 60)), TOKEN, 413, "200 x 60 pixels are more than the limit"),
        ("/translate", bytes(100_001), TOKEN, 413, "at most 100,000 bytes"),
        ("/translate?format=xyz", picture(1), TOKEN, 415, "known: "),
        ("/translate?reverse=true", picture(1), TOKEN, 400, "reverse"),
        ("/translate?style_seed=x", picture(1), TOKEN, 422, "style_seed"),
        ("/translate?domain=night", picture(1), TOKEN, 400, "domain"),
        ("/translate?fromat=png", picture(1), TOKEN, 422, "no parameter 'fromat' (did you mean 'format'?)"),
        ("/batch?size=5", picture(1), TOKEN, 422, "no parameter 'size'"),
        ("/translate", b"--x", {**TOKEN, "Content-Type": "multipart/form-data; boundary=x"}, 415, "goes to /batch"),
        ("/batch", b"hello", TOKEN, 400, "holds no file"),
        ("/elsewhere", b"hello", TOKEN, 404, "Not Found"),
        ("/translate", picture(1), {**TOKEN, "Origin": "http://evil"}, 403, "other sites"),
        ("/translate", picture(1), {**TOKEN, "Host": "evil"}, 421, "not served as 'evil'"),
    ],
)
def test_what_is_refused_is_one_line_of_json(
    server: Server, path: str, content: bytes, headers: dict[str, str], status: int, words: str
) -> None:
    sent = {name: value.encode("latin-1") for name, value in headers.items()}
    answer = httpx.post(server.address + path, content=content, headers=sent, timeout=60)
    assert answer.status_code == status
    assert words in answer.json()["error"]
    assert "\n" not in answer.json()["error"]
    assert httpx.get(f"{server.address}/health").json()["status"] == "ok"


@pytest.mark.parametrize(
    ("path", "megabytes", "headers", "status"),
    [
        ("/translate", 30, TOKEN, 413),
        ("/translate", 1, {}, 401),
        ("/batch", 30, TOKEN, 413),
        ("/elsewhere", 1, TOKEN, 404),
        ("/translate", 30, {**TOKEN, "Origin": "http://evil"}, 403),
    ],
)
def test_a_client_that_is_still_sending_gets_the_answer(
    server: Server, path: str, megabytes: int, headers: dict[str, str], status: int
) -> None:
    """The standard library's client sends all of the body before it reads."""
    request = urllib.request.Request(server.address + path, data=bytes(megabytes * 10**6), headers=headers)
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(request, timeout=60)
    assert raised.value.code == status
    assert json.loads(raised.value.read())["error"]


def test_without_a_token_only_addresses_and_this_machine_are_names_of_it(run: Path) -> None:
    """Else a page of any site could have its own name resolve to the server, and ask as if it were the server's."""
    for token, status in (("", 421), ("secret", 200)):
        server = Server(run, "--host", "0.0.0.0", **({"UNPAIRED_TOKEN": token} if token else {}))
        local = f"http://127.0.0.1:{server.address.rpartition(':')[2]}/health"
        assert httpx.get(local, headers={"Host": "evil.com"}).status_code == status
        for name in ("127.0.0.1", "10.1.2.3:80", "localhost", socket.gethostname()):
            assert httpx.get(local, headers={"Host": name}).status_code == 200
        server.end()


def wait_for_requests(server: Server, count: int) -> None:
    """Until so many are at work and waiting, for a minute at most."""
    end = time.monotonic() + 60
    while httpx.get(f"{server.address}/health", timeout=60).json()["requests"] != count:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_bodies_of_all_requests_together_are_bounded(run: Path) -> None:
    """While two batches at the limit are sent, a third is told to come back, before its body is read."""
    server = Server(run, "--megabytes", "0.5", "--batch", "2")
    port = int(server.address.rpartition(":")[2])
    longest = 2 * 500_000 + 1_000_000
    with contextlib.ExitStack() as held:
        clients = [held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20)) for _ in range(2)]
        for client in clients:
            head = "POST /batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
            client.sendall(f"{head}Content-Length: {longest}\r\n\r\n--x\r\n".encode())
        wait_for_requests(server, 2)
        answer = httpx.post(f"{server.address}/translate", content=picture(1), timeout=60)
        assert (answer.status_code, answer.headers.get("retry-after")) == (503, "1")
    wait_for_requests(server, 0)
    assert httpx.post(f"{server.address}/translate", content=picture(1), timeout=60).status_code == 200
    assert server.end() == (0, "")


def test_beyond_the_queue_clients_are_told_to_come_back(run: Path) -> None:
    server = Server(run, "--queue", "1")
    large = picture(1, size=(700, 700))

    def ask(_: int) -> httpx.Response:
        return httpx.post(f"{server.address}/translate", content=large, timeout=120)

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(ask, range(6)))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 503}
    busy = answers[statuses.index(503)]
    assert (busy.headers["retry-after"], json.loads(busy.text)["error"][:4]) == ("1", "busy")
    assert httpx.get(f"{server.address}/openapi.json").json()["paths"].keys() == {"/health", "/translate", "/batch"}
    assert server.end() == (0, "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--token-file", "absent"], "token_file: absent cannot be read: No such file"),
        (["--token-file", "empty"], "empty: holds no token"),
        (["--queue", "0"], "queue must be at least 1"),
        (["--port", "99999"], "port must be at most 65535"),
        (["--host", "no.such.host.invalid"], "is not an address of this machine"),
    ],
)
def test_what_cannot_be_served_is_one_line(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    words: list[str], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").write_text(" \n")
    assert cli.main(["serve", str(run), "--device", "cpu", *words]) == 2
    assert message in capsys.readouterr().err


def test_without_fastapi_the_extra_is_named(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert cli.main(["serve", str(run)]) == 2
    assert 'pip install "unpaired[serve]"' in capsys.readouterr().err
