"""A Hub on loopback that keeps what is uploaded: as much of its protocol as uploading and fetching a model needs."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class ServedHub:
    """Repositories by name: a list of commits, each a mapping from file name to content."""

    repositories: dict[str, list[dict[str, bytes]]] = field(default_factory=dict)
    url: str = ""
    refuse: int | None = None
    """Status with which every request is answered, if set."""
    requests: list[str] = field(default_factory=list)

    def commit_id(self, name: str, number: int) -> str:
        return hashlib.sha1(f"{name} {number}".encode()).hexdigest()


@contextmanager
def serve_hub() -> Iterator[ServedHub]:
    hub = ServedHub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def answer(self, status: int, content: bytes = b"{}", **headers: str) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key.replace("_", "-"), value)
            if "Content_Length" not in headers:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def dispatch(self) -> None:
            path = self.path.split("?")[0]
            hub.requests.append(f"{self.command} {path}")
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length) if length else self.chunks()
            if hub.refuse is not None:
                return self.answer(hub.refuse, json.dumps({"error": "refused"}).encode())
            if path == "/api/validate-yaml":
                return self.answer(200, b'{"errors": [], "warnings": []}')
            if path == "/api/repos/create":
                asked = json.loads(body)
                name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
                name = name if "/" in name else f"me/{name}"
                hub.repositories.setdefault(name, [])
                return self.answer(200, json.dumps({"url": f"{hub.url}/{name}", "name": name, "id": name}).encode())
            if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
                files = [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]]
                return self.answer(200, json.dumps({"files": files}).encode())
            if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
                return self.commit(match[1], body)
            if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
                return self.info(match[1], match[2] or "main")
            if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)(/.*)?", path):
                return self.tree(match[1], match[2])
            if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                return self.file(match[1], match[2], match[3])
            return self.answer(404)

        do_GET = do_POST = do_HEAD = dispatch  # noqa: N815

        def chunks(self) -> bytes:
            found = b""
            if self.headers.get("Transfer-Encoding") == "chunked":
                while size := int(self.rfile.readline(), 16):
                    found += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            return found

        def commit(self, name: str, body: bytes) -> None:
            files = dict(hub.repositories[name][-1]) if hub.repositories[name] else {}
            for line in body.decode().splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            hub.repositories[name].append(files)
            commit = hub.commit_id(name, len(hub.repositories[name]) - 1)
            answer = {"commitOid": commit, "commitUrl": f"{hub.url}/{name}/commit/{commit}", "success": True}
            self.answer(200, json.dumps(answer).encode())

        def found(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
            commits = hub.repositories.get(name)
            if not commits:
                self.answer(404, b'{"error": "Repository not found"}', X_Error_Code="RepoNotFound")
                return None
            ids = [hub.commit_id(name, number) for number in range(len(commits))]
            if revision == "main":
                return ids[-1], commits[-1]
            if revision in ids:
                return revision, commits[ids.index(revision)]
            self.answer(404, b'{"error": "Invalid rev id"}', X_Error_Code="RevisionNotFound")
            return None

        def info(self, name: str, revision: str) -> None:
            if found := self.found(name, revision):
                files = [{"rfilename": file, "size": len(content)} for file, content in found[1].items()]
                answer = {"id": name, "modelId": name, "sha": found[0], "siblings": files, "private": False, "tags": []}
                self.answer(200, json.dumps(answer).encode())

        def tree(self, name: str, revision: str) -> None:
            if found := self.found(name, revision):
                entries = [
                    {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for file, content in found[1].items()
                ]
                self.answer(200, json.dumps(entries).encode())

        def file(self, name: str, revision: str, path: str) -> None:
            found = self.found(name, revision)
            if found is None:
                return
            commit, files = found
            if path not in files:
                self.answer(404, b'{"error": "Entry not found"}', X_Error_Code="EntryNotFound")
                return
            content = files[path]
            self.answer(200, content, ETag=f'"{hashlib.sha1(content).hexdigest()}"', X_Repo_Commit=commit,
                        Accept_Ranges="bytes", Content_Length=str(len(content)))  # fmt: skip

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
