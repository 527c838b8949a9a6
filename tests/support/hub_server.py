"""A hub on loopback: a real HTTP server that speaks the part of the hub's API which fetching a
model takes.

`/api/models/{repo}[/revision/{rev}]` lists, `/{repo}/resolve/{rev}/{file}` redirects large files to
`/cdn/{sha256}` (as the hub does) and serves small ones itself; both answer HEAD and Range. Faults
are switched on by attributes.
"""

from __future__ import annotations

import hashlib
import json
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c1899de289a04d12100db370d81485cdf75e47ca"
LARGE = 4096
"""Files from this size on are kept in large-file storage (a small limit, so that tiny checkpoints
have some)."""


@dataclass
class Request:
    """What one request asked for, and how many bytes of a body went back."""

    method: str
    path: str
    headers: dict[str, str]
    sent: int = 0


@dataclass
class Hub:
    """One repository, its faults, and what was asked of it."""

    repo_id: str
    files: dict[str, bytes]
    branches: dict[str, str] = field(default_factory=lambda: {"main": COMMIT})
    license: str | None = "apache-2.0"
    token: str | None = None
    """Requests must carry this access token."""
    gated: bool = False
    status: int | None = None
    """Answer everything with this status."""
    cut_after: dict[str, list[int]] = field(default_factory=dict)
    """Per file, for its first requests: close the connection after so many bytes of body."""
    stall_after: dict[str, int] = field(default_factory=dict)
    """Per file: after so many bytes of body send nothing more until the server ends."""
    altered: dict[str, bytes] = field(default_factory=dict)
    """Per file: what is sent instead of the bytes that are listed."""
    ignore_range: bool = False
    silent: bool = False
    """Answer nothing until the server ends."""
    ended: threading.Event = field(default_factory=threading.Event)
    requests: list[Request] = field(default_factory=list)
    endpoint: str = ""

    def bodies(self, name: str) -> list[Request]:
        """The GET requests that were answered with bytes of a file."""
        digest = hashlib.sha256(self.files[name]).hexdigest()
        paths = {f"/cdn/{digest}", f"/{self.repo_id}/resolve/{COMMIT}/{name}"}
        return [
            request
            for request in self.requests
            if request.method == "GET" and request.path in paths and request.sent
        ]

    def asked(self) -> list[str]:
        """The paths that were asked for, without the client's own housekeeping."""
        return [request.path for request in self.requests if request.path != "/api/agent-harnesses"]

    def listing(self) -> dict[str, Any]:
        """The answer of the model info call with `blobs=true`."""
        tags = [f"license:{self.license}"] if self.license else []
        return {
            "id": self.repo_id,
            "modelId": self.repo_id,
            "sha": COMMIT,
            "private": False,
            "tags": tags,
            "downloads": 0,
            "likes": 0,
            "cardData": {"license": self.license} if self.license else {},
            "siblings": [self._sibling(name, data) for name, data in self.files.items()],
        }

    def _sibling(self, name: str, data: bytes) -> dict[str, Any]:
        row = {"rfilename": name, "size": len(data), "blobId": git_blob(data)}
        if len(data) >= LARGE:
            row["lfs"] = {
                "sha256": hashlib.sha256(data).hexdigest(),
                "size": len(data),
                "pointerSize": 134,
            }
        return row


def git_blob(data: bytes) -> str:
    """git's object id of a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def repository(folder: Path, **more: bytes) -> dict[str, bytes]:
    """The files of a folder, as a repository holds them."""
    return {**{path.name: path.read_bytes() for path in sorted(folder.iterdir())}, **more}


@contextmanager
def serve(hub: Hub, certificate: Path | None = None) -> Iterator[Hub]:
    """Serve on a free port of 127.0.0.1 until the block ends; `hub.endpoint` is the address. A
    `certificate` (with its key) means TLS."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    hub.endpoint = f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()
    try:
        yield hub
    finally:
        hub.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Stay quiet: the requests are in `hub.requests`."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        self.request_record = Request(self.command, path, dict(self.headers))
        hub.requests.append(self.request_record)
        if hub.silent:
            hub.ended.wait(60)
            self.close_connection = True
        elif hub.status:
            self._refuse(hub.status, "", "out of order")
        elif hub.token and self.headers.get("Authorization") not in (f"Bearer {hub.token}", None):
            self._refuse(401, "", "Invalid credentials in Authorization header")
        elif api := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self._info(api[1], api[2] or "main")
        elif file := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(file[1], file[2], file[3])
        elif path.startswith("/cdn/"):
            self._cdn(path.removeprefix("/cdn/"))
        else:
            self._refuse(404, "", "not found")

    def _allowed(self, repo_id: str, revision: str) -> bool:
        hub = self.hub
        if repo_id != hub.repo_id:
            # The hub does not tell strangers which repositories do not exist.
            self._refuse(401, "RepoNotFound", "Repository not found")
        elif hub.gated:
            self._refuse(403, "GatedRepo", "Access to this model is restricted")
        elif hub.token and "Authorization" not in self.headers:
            self._refuse(401, "RepoNotFound", "Repository not found")
        elif revision not in hub.branches and revision not in hub.branches.values():
            self._refuse(404, "RevisionNotFound", "Invalid rev id")
        else:
            return True
        return False

    def _info(self, repo_id: str, revision: str) -> None:
        if self._allowed(repo_id, revision):
            body = json.dumps(self.hub.listing()).encode()
            self._send(200, body, {"Content-Type": "application/json"})

    def _resolve(self, repo_id: str, revision: str, name: str) -> None:
        if not self._allowed(repo_id, revision):
            return
        data = self.hub.files.get(name)
        if data is None:
            return self._refuse(404, "EntryNotFound", "Entry not found")
        common = {"X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if len(data) >= LARGE:
            digest = hashlib.sha256(data).hexdigest()
            linked = {
                "X-Linked-Size": str(len(data)),
                "X-Linked-Etag": f'"{digest}"',
                "Location": f"/cdn/{digest}",
            }
            return self._send(302, b"", {**common, **linked})
        return self._file(name, {**common, "ETag": f'"{git_blob(data)}"'})

    def _cdn(self, digest: str) -> None:
        for name, data in self.hub.files.items():
            if hashlib.sha256(data).hexdigest() == digest:
                return self._file(name, {"ETag": f'"{digest}"', "Accept-Ranges": "bytes"})
        return self._refuse(404, "", "no such object")

    def _file(self, name: str, headers: dict[str, str]) -> None:
        data = self.hub.altered.get(name, self.hub.files[name])
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted and not self.hub.ignore_range else 0
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        cuts = self.hub.cut_after.get(name)
        stop = cuts.pop(0) if cuts and self.command == "GET" else self.hub.stall_after.get(name)
        self._send(
            206 if start else 200, data[start:], headers, stop, stall=name in self.hub.stall_after
        )

    def _refuse(self, status: int, code: str, message: str) -> None:
        self._send(
            status,
            message.encode(),
            {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})},
        )

    def _send(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str],
        cut_after: int | None = None,
        stall: bool = False,
    ) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            part = body if cut_after is None else body[:cut_after]
            self.request_record.sent = len(part)
            self.wfile.write(part)
        if cut_after is not None:
            self.wfile.flush()
            if stall:
                self.hub.ended.wait(60)
            self.close_connection = True
