"""ModelScope on loopback: a real HTTP server that speaks the part of its API which fetching a model
takes, as its published client asks for it.

`/api/v1/models/{repo}/repo/files` lists at a branch or commit, `/api/v1/models/{repo}/repo` hands a
file over, large ones by a redirect to another host; ranges are served.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "4f0e1b6d2c3a59687786950413223140ffeeddcc"
OLDER = "00112233445566778899aabbccddeeff00112233"
LARGE = 4096


@dataclass
class ModelScope:
    """One repository, its faults, and what was asked of it: path, and whether a token came."""

    repo_id: str
    files: dict[str, bytes]
    token: str | None = None
    knows_commits: bool = True
    cut_after: dict[str, list[int]] = field(default_factory=dict)
    altered: dict[str, bytes] = field(default_factory=dict)
    held: dict[str, threading.Event] = field(default_factory=dict)
    """Files whose second half is sent once the event is set."""
    status: int | None = None
    requests: list[tuple[str, str, bool]] = field(default_factory=list)
    """Host as the client wrote it, path with query, token."""
    endpoint: str = ""

    def bodies(self, name: str) -> int:
        """How many requests were answered with bytes of a file."""
        digest = hashlib.sha256(self.files[name]).hexdigest()
        wanted = (f"/cdn/{digest}", f"FilePath={name}")
        large = len(self.files[name]) >= LARGE
        return sum((wanted[0] if large else wanted[1]) in path for _, path, _ in self.requests)

    def listing(self) -> list[dict[str, Any]]:
        """Rows as the server has them; the last file was written by the newest commit."""
        return [
            {
                "Name": name.rpartition("/")[2],
                "Path": name,
                "Type": "blob",
                "Size": len(data),
                "Sha256": hashlib.sha256(data).hexdigest(),
                "IsLFS": len(data) >= LARGE,
                "Revision": COMMIT if number == len(self.files) - 1 else OLDER,
                "CommittedDate": 1_700_000_000 + number,
            }
            for number, (name, data) in enumerate(self.files.items())
        ]


@contextmanager
def serve(site: ModelScope) -> Iterator[ModelScope]:
    """Serve on a free port of 127.0.0.1 until the block ends. The storage of large files is the
    same server by another name, localhost."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"site": site}))
    server.daemon_threads = True
    site.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    site: ModelScope
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        site, parts = self.site, urlsplit(self.path)
        bearer = self.headers.get("Authorization", "")
        cookie = self.headers.get("Cookie", "")
        site.requests.append(
            (str(self.headers.get("Host")), unquote(self.path), bool(bearer or cookie))
        )
        if parts.path.startswith("/cdn/"):
            self._body(parts.path.removeprefix("/cdn/"))
            return
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if site.status is not None:
            self._json({"Code": site.status, "Message": "no"}, site.status)
        elif site.token is not None and bearer != f"Bearer {site.token}":
            self._json({"Code": 10010205001, "Message": "no access"}, 403)
        elif not parts.path.startswith(f"/api/v1/models/{site.repo_id}/repo"):
            self._json({"Code": 10010205001, "Message": "not found"}, 404)
        elif query.get("Revision") not in ("master", *((COMMIT,) if site.knows_commits else ())):
            self._json({"Code": 10010205001, "Message": "no such revision"}, 404)
        elif parts.path.endswith("/repo/files"):
            self._json({"Code": 200, "Data": {"Files": site.listing()}, "Success": True})
        elif query.get("FilePath") not in site.files:
            self._json({"Code": 10010205001, "Message": "no such file"}, 404)
        else:
            self._file(query["FilePath"])

    def _file(self, name: str) -> None:
        data = self.site.files[name]
        digest = hashlib.sha256(data).hexdigest()
        if len(data) < LARGE:
            self._body(digest)
            return
        port = self.site.endpoint.rpartition(":")[2]
        self.send_response(302)
        self.send_header("Location", f"http://localhost:{port}/cdn/{digest}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _body(self, digest: str) -> None:
        site = self.site
        name = next(
            name for name, data in site.files.items() if hashlib.sha256(data).hexdigest() == digest
        )
        data = site.altered.get(name, site.files[name])
        span = self.headers.get("Range", "")
        start = int(span.removeprefix("bytes=").rstrip("-")) if span else 0
        self.send_response(206 if span else 200)
        self.send_header("Content-Length", str(len(data) - start))
        if span:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        cuts = site.cut_after.get(name, [])
        if cuts:
            self.wfile.write(data[start : start + cuts.pop(0)])
            self.close_connection = True
            return
        middle = start + (len(data) - start) // 2
        self.wfile.write(data[start:middle])
        if name in site.held:
            site.held[name].wait(30)
        self.wfile.write(data[middle:])

    def _json(self, body: dict[str, Any], status: int = 200) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
