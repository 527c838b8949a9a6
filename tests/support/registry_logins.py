"""Files of log-ins as the tools leave them, and registries on loopback that ask for one."""

from __future__ import annotations

import base64
import json
import os
import ssl
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

USER, PASSWORD = "builder", "open sesame: 1"
SECRET = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
Handler = Callable[[BaseHTTPRequestHandler], None]


def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without log-ins."""
    home = tmp_path / "home"
    (home / "run").mkdir(parents=True)
    for name in ("REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home / "run"))
    return home


def auths(path: Path, **keys: dict[str, Any]) -> Path:
    """A file of log-ins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"auths": keys}))
    return path


def entry(user: str = USER, password: str = PASSWORD) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def helper(folder: Path, name: str, script: str) -> str:
    """A credential helper in the search path; returns the new path."""
    folder.mkdir(exist_ok=True)
    program = folder / f"docker-credential-{name}"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


@dataclass
class Served:
    """A server on loopback, and what was asked of it: method and path with the log-in that came
    along."""

    host: str
    answers: dict[str, Handler]
    heard: list[tuple[str, str | None]] = field(default_factory=list)


@contextmanager
def server(context: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Iterator[Served]:
    """A server whose answers, by path without its question, write themselves; 404 for the rest."""
    served = Served("", {})

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.heard.append((f"{self.command} {self.path}", self.headers.get("Authorization")))
            found = served.answers.get(self.path.partition("?")[0])
            if found is None:
                reply(self, 404)
            else:
                with suppress(OSError):
                    found(self)

        do_POST = do_PUT = do_HEAD = do_PATCH = do_GET

        def log_message(self, *arguments: object) -> None:
            return None

    listening = ThreadingHTTPServer((host, 0), Answering)
    listening.daemon_threads = True
    if context is not None:
        listening.socket = context.wrap_socket(listening.socket, server_side=True)
    served.host = f"{host}:{listening.server_address[1]}"
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()


def reply(
    handler: BaseHTTPRequestHandler,
    status: int,
    body: bytes = b"",
    reason: str | None = None,
    **headers: str,
) -> None:
    handler.send_response(status, reason)
    for name, value in {
        "Content-Length": str(len(body)),
        **{key.replace("_", "-"): value for key, value in headers.items()},
    }.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def asks(realm: str, **more: str) -> Handler:
    """A 401 that names a realm."""
    rest = "".join(f',{key}="{value}"' for key, value in more.items())
    return lambda handler: reply(
        handler, 401, WWW_Authenticate=f'Bearer realm="{realm}",service="s"{rest}'
    )


def gives(token: Any) -> Handler:
    return lambda handler: reply(handler, 200, json.dumps({"token": token}).encode())


MANIFEST = "/v2/team/x/manifests/v1"
