"""Registries on loopback: Debian's docker-registry as it is, and one of our own that lies on
demand."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

Answer = tuple[int, dict[str, str], bytes]


HTPASSWD = "builder:$2y$05$3LkrsU4Ji1nCNsaRdfQQEedlhg74C.kg0FJfibtxmsP15u5rt/d9."
"""The user `builder` with the password `open sesame: 1`, as htpasswd -B writes it."""


@contextmanager
def real_registry(folder: Path, htpasswd: str | None = None) -> Iterator[str]:
    """Debian's docker-registry over an empty folder; yields HOST:PORT. Skips where it is not
    installed.

    With the text of an htpasswd file it asks for a Basic log-in.
    """
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("needs docker-registry, which Debian packages under that name")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = folder / "registry.yml"
    store = f"storage: {{filesystem: {{rootdirectory: {folder / 'store'}}}}}"
    auth = ""
    if htpasswd is not None:
        (folder / "htpasswd").write_text(htpasswd)
        auth = f"auth: {{htpasswd: {{realm: Registry Realm, path: {folder / 'htpasswd'}}}}}\n"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\n{store}\n{auth}http: {{addr: '127.0.0.1:{port}'}}\n"
    )
    server = subprocess.Popen(
        [program, "serve", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
    )
    try:
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=20)


@contextmanager
def lying_registry(
    answers: dict[str, Answer | Callable[[BaseHTTPRequestHandler], None]],
) -> Iterator[str]:
    """A server that gives `answers` by path to GET, 404 to the rest; a callable writes the answer
    itself. Yields HOST:PORT."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = answers.get(self.path)
            if callable(found):
                found(self)
                return
            status, headers, body = found or (404, {}, b"{}")
            self.send_response(status)
            for key, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            return None

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *arguments: object) -> None:
            """A client that hangs up, or was killed, is nothing to print."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
