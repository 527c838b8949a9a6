"""Requests that no client of OpenAI's sends, and answers that fail half way: what the small server
says then, and that nothing of one request is taken for another."""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from packager.errors import ExitCode
from packager.shipping.router.keeper import Keeper
from packager.shipping.router.main import Server as RouterServer
from packager.shipping.router.table import Entry, Table, Unusable
from packager.shipping.server import connections, main, presence
from packager.shipping.server.settings import Settings
from tests.conftest import REPOSITORY
from tests.support.serving import Letters
from tests.support.shipping_packages import CHATML, exported, gguf_package

KNOWN = Settings("x", "x", Path(), CHATML, 1000, "f16", "CPU", frozenset((0,)), (), {}, None)
EVIL = b"GET /evil HTTP/1.1\r\n\r\n"


class Breaks(Letters):
    """A model that says `ab` and then fails, as an engine does whose memory ends."""

    def generate(
        self, ids: list[int], most: int, sampling: Any, schema: Any, on_token: Callable[[int], bool]
    ) -> None:
        for letter in "ab":
            on_token(ord(letter))
        raise RuntimeError("failed to decode")


@pytest.fixture
def port() -> Iterator[int]:
    """Where a server of that model answers."""
    with main.Server(("127.0.0.1", 0), Breaks(), KNOWN, 4) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def said(port: int, *rows: str, body: bytes = b"") -> tuple[bytes, bytes]:
    """Head and body of all that comes back for a request, until the connection ends."""
    with socket.create_connection(("127.0.0.1", port), 60) as client:
        client.sendall("\r\n".join([*rows, "", ""]).encode() + body)
        client.shutdown(socket.SHUT_WR)
        told = b""
        while piece := client.recv(1 << 16):
            told += piece
    head, _, rest = told.partition(b"\r\n\r\n")
    return head, rest


def test_a_body_that_comes_with_a_get_is_not_taken_for_the_next_request(port: int) -> None:
    head, rest = said(port, "GET /health HTTP/1.1", f"Content-Length: {len(EVIL)}", body=EVIL)
    assert head.startswith(b"HTTP/1.1 200") and json.loads(rest) == {"status": "ok"}
    chunk = b"%x\r\n%s\r\n0\r\n\r\n" % (len(EVIL), EVIL)
    head, rest = said(port, "GET /health HTTP/1.1", "Transfer-Encoding: chunked", body=chunk)
    assert head.startswith(b"HTTP/1.1 413") and b"\r\nConnection: close" in head
    assert "Content-Length" in json.loads(rest)["error"]["message"]


def test_a_request_of_two_lengths_is_refused_and_nothing_behind_it_is_read(port: int) -> None:
    lengths = ("Content-Length: 0", f"Content-Length: {len(EVIL)}")
    head, rest = said(port, "POST /v1/chat/completions HTTP/1.1", *lengths, body=EVIL)
    assert head.startswith(b"HTTP/1.1 413") and b"\r\nConnection: close" in head
    assert set(json.loads(rest)) == {"error"}


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("PUT /v1/models HTTP/1.1", 501),
        ("OPTIONS /v1/chat/completions HTTP/1.1", 501),
        ("PRI * HTTP/2.0", 505),
        ("\x16\x03\x01 not http", 400),
        ("GET /" + "a" * 70_000 + " HTTP/1.1", 414),
        ("\r\n".join(["GET /health HTTP/1.1", *(f"A{at}: b" for at in range(200))]), 431),
    ],
    ids=["method", "method that browsers ask with", "version", "no line", "long line", "headers"],
)
def test_what_is_no_request_is_refused_in_the_form_of_every_other_refusal(
    port: int, line: str, status: int
) -> None:
    head, rest = said(port, line)
    assert head.startswith(b"HTTP/1.1 %d" % status) and b"application/json" in head
    error = json.loads(rest)["error"]
    assert error["code"] == status and error["message"]


def test_a_refusal_of_a_head_has_no_body(port: int) -> None:
    head, rest = said(port, "HEAD /health HTTP/1.1")
    assert head.startswith(b"HTTP/1.1 501") and rest == b""


@pytest.mark.parametrize("stream", [False, True])
def test_an_engine_that_fails_in_an_answer_is_said_in_the_form_of_that_answer(
    port: int, stream: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"messages": [{"role": "user", "content": "hi"}], "stream": stream}
    body = json.dumps(asked).encode()
    rows = ("POST /v1/chat/completions HTTP/1.1", f"Content-Length: {len(body)}")
    with socket.create_connection(("127.0.0.1", port), 60) as client:
        client.sendall("\r\n".join([*rows, "", ""]).encode() + body)
        told = b""
        while piece := client.recv(1 << 16):
            told += piece
    head, _, rest = told.partition(b"\r\n\r\n")
    assert told.count(b"HTTP/1.1 ") == 1
    if not stream:
        assert head.startswith(b"HTTP/1.1 500") and json.loads(rest)["error"]["code"] == 500
        return
    assert head.startswith(b"HTTP/1.1 200")
    events = [json.loads(row.removeprefix("data: ")) for row in rest.decode().split("\n\n") if row]
    assert "choices" in events[0] and "engine failed" in events[-1]["error"]["message"]


def export_of(folder: Path) -> Path:
    """An export of a package that no engine is shown."""
    chat = {"chat": {"ends": [{"id": 1, "text": "<|im_end|>"}]}}
    return exported(gguf_package(folder / "package", **chat), "docker", folder / "out")


def test_fewer_places_than_none_are_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    for text, wanted in (("0", 0), ("16", 16)):
        assert connections.room(text) == wanted
    for text in ("-4", "²", "", "1.5", "9" * 5000):
        with pytest.raises(argparse.ArgumentTypeError):
            connections.room(text)
    run = subprocess.run(
        [sys.executable, "serve.py", "--port", "0", "--waiting", "-4"],
        cwd=export_of(tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == ExitCode.USAGE and "'-4' is not a whole number" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_router_without_places_to_wait_still_answers_one_request(tmp_path: Path) -> None:
    """The package cannot be opened here; what counts is that it is tried."""
    entry = Entry("a", tmp_path, "0" * 64, tmp_path / "settings.json")
    keeper = Keeper(tmp_path / "serve_package.py", 0)
    with pytest.raises(Unusable), keeper.turn(entry, lambda: False):
        pass


DIES = """
import os, socket
server = socket.create_server(("127.0.0.1", 0))
print(f"http://127.0.0.1:{server.getsockname()[1]}/v1", flush=True)
client, _ = server.accept()
with client.makefile("rb") as request:
    head = iter(request.readline, b"\\r\\n")
    length = next(int(line[15:]) for line in head if line.lower().startswith(b"content-length:"))
    for line in head:
        pass
    request.read(length)
client.sendall(ANSWER)
client.shutdown(socket.SHUT_WR)
os._exit(1)
"""
"""A package's server whose engine ends it in the middle of an answer. It has read the whole request: what
is left unread at its end resets the connection."""


EVENTS = "Content-Type: text/event-stream\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "ends"),
    [
        ('Content-Length: 100\r\n\r\n{"id": ', '{"id": '),
        (EVENTS + 'data: {"id": 1}\n\n', '"code": 502}}\n\n'),
        (EVENTS + 'data: {"id": 1}\n\ndata: {"i', '"code": 502}}\n\n'),
        (EVENTS + 'data: {"id": 1}\n\ndata: [DONE]\n\n', '{"id": 1}\n\ndata: [DONE]\n\n'),
    ],
    ids=["whole", "stream", "half an event", "all of it"],
)
def test_an_answer_whose_rest_will_not_come_is_ended_by_the_router(
    tmp_path: Path, answer: str, ends: str
) -> None:
    sent = f"HTTP/1.1 200 OK\r\n{answer}".encode()
    (tmp_path / "serve_package.py").write_text(DIES.replace("ANSWER", repr(sent)))
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"sees": False, "hears": False}))
    entry = Entry("a", tmp_path, "0" * 64, settings)
    keeper = Keeper(tmp_path / "serve_package.py", 4)
    keeper._compared.add("a")
    body = json.dumps({"model": "chat"}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
    with RouterServer(("127.0.0.1", 0), Table({"chat": entry}, {}), keeper) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        # Less than a connection without a request is kept.
        with socket.create_connection(("127.0.0.1", server.server_port), 20) as client:
            client.sendall(head.encode() + body)
            told = b""
            while piece := client.recv(1 << 16):
                told += piece
        server.shutdown()
    keeper.close()
    assert told.endswith(ends.encode()) and told.count(b"HTTP/1.1 ") == 1


THINKS = """
import contextlib, socket, sys
from pathlib import Path
server = socket.create_server(("127.0.0.1", 0))
print(f"http://127.0.0.1:{server.getsockname()[1]}/v1", flush=True)
client, _ = server.accept()
client.recv(1 << 16)
client.settimeout(WAITS)
try:
    left = client.recv(1) == b""
except TimeoutError:
    left = False
Path(sys.argv[0]).with_name("left").write_text(str(left))
with contextlib.suppress(OSError):
    client.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\n{}")
sys.stdin.buffer.read()
"""
"""A package's server that answers after a while, or when the router has left."""


@pytest.mark.parametrize("leaves", [False, True])
def test_a_router_tells_a_client_that_waits_from_one_that_has_left(
    tmp_path: Path, leaves: bool
) -> None:
    waits = "30" if leaves else "1.5"
    (tmp_path / "serve_package.py").write_text(THINKS.replace("WAITS", waits))
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"sees": False, "hears": False}))
    entry = Entry("a", tmp_path, "0" * 64, settings)
    keeper = Keeper(tmp_path / "serve_package.py", 4)
    keeper._compared.add("a")
    body = json.dumps({"model": "chat"}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
    told = b""
    with RouterServer(("127.0.0.1", 0), Table({"chat": entry}, {}), keeper) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        client = socket.create_connection(("127.0.0.1", server.server_port), 20)
        client.sendall(head.encode() + body)
        client.shutdown(socket.SHUT_WR)
        if leaves:
            client.close()
        else:
            with client:
                while piece := client.recv(1 << 16):
                    told += piece
        end = time.monotonic() + 20
        while not (tmp_path / "left").exists() and time.monotonic() < end:
            time.sleep(0.05)
        server.shutdown()
    keeper.close()
    assert (tmp_path / "left").read_text() == str(leaves)
    if not leaves:
        assert told.startswith(b"HTTP/1.1 200 OK\r\n") and told.endswith(b"\r\n\r\n{}")


def ends_as_first_process() -> list[str]:
    """Words that make a command the first process of a namespace, as in a container; none where
    that is not allowed."""
    words = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]
    if shutil.which("unshare") is None:
        return []
    run = subprocess.run([*words, "true"], capture_output=True, check=False)
    return words if run.returncode == 0 else []


ENDS = """
import os, signal, sys, threading, time
from pathlib import Path
from packager.shipping.server import main
assert os.getpid() == 1
class Slow:
    pass
main.loaded = lambda known, unit: Slow()
sys.argv = ["serve.py", "--port", "0"]
# To itself: a signal from within its namespace is what a first process may ignore.
threading.Timer(1, os.kill, (1, signal.SIGTERM)).start()
threading.Timer(20, os._exit, (9,)).start()
main.main(Path(SETTINGS))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs namespaces of Linux")
def test_a_server_that_is_the_first_process_of_a_container_ends_when_it_is_told_to(
    tmp_path: Path,
) -> None:
    first = ends_as_first_process()
    if not first:
        pytest.skip("no namespaces here")
    settings = export_of(tmp_path) / "server" / "settings.json"
    run = subprocess.run(
        [*first, sys.executable, "-c", ENDS.replace("SETTINGS", repr(str(settings)))],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0 and run.stdout.startswith("http://"), run.stderr


class Waits(Letters):
    """A model that says a letter as often as it is let, until somebody ends it."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.begun, self.ended = seconds, threading.Event(), threading.Event()

    def generate(
        self, ids: list[int], most: int, sampling: Any, schema: Any, on_token: Callable[[int], bool]
    ) -> None:
        self.begun.set()
        end = time.monotonic() + self.seconds
        while time.monotonic() < end and on_token(ord("a")):
            time.sleep(0.02)
        self.ended.set()


@contextmanager
def waiting(seconds: float) -> Iterator[tuple[int, Waits]]:
    """Where a server of that model answers, and the model."""
    engine = Waits(seconds)
    with main.Server(("127.0.0.1", 0), engine, KNOWN, 4) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port, engine
        server.shutdown()


def question(version: str, **more: Any) -> bytes:
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}], **more}).encode()
    head = f"POST /v1/chat/completions HTTP/{version}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_has_closed_its_own_side_alone_gets_its_answer(
    version: str, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `nc -N` does; looked at often, so that every letter of the head goes ahead."""
    monkeypatch.setattr(presence, "_FIRST_S", 0.001)
    with (
        waiting(2.0) as (port, _),
        socket.create_connection(("127.0.0.1", port), 60) as client,
    ):
        client.sendall(question(version, stream=stream))
        client.shutdown(socket.SHUT_WR)
        told = b""
        while piece := client.recv(1 << 16):
            told += piece
    head, _, rest = told.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n") and told.count(b"HTTP/1.1 ") == 1
    if not stream:
        assert json.loads(rest)["choices"][0]["message"]["content"].startswith("aaa")
        return
    events = [row for row in rest.decode().split("\n\n") if row]
    assert events[-1] == "data: [DONE]" and ":" in events
    assert all(row == ":" or row.startswith("data: ") for row in events)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("first", [False, True], ids=["at once", "its own side first"])
def test_the_answer_of_a_client_that_has_left_is_given_up(stream: bool, first: bool) -> None:
    with waiting(60.0) as (port, engine):
        client = socket.create_connection(("127.0.0.1", port), 60)
        client.sendall(question("1.1", stream=stream))
        assert engine.begun.wait(30)
        if first:
            client.shutdown(socket.SHUT_WR)
            time.sleep(0.1)
        client.close()
        assert engine.ended.wait(20), "the engine goes on for nobody"


def test_a_client_that_leaves_while_it_waits_for_its_turn_is_forgotten() -> None:
    with waiting(60.0) as (port, engine):
        ahead = socket.create_connection(("127.0.0.1", port), 60)
        ahead.sendall(question("1.1"))
        assert engine.begun.wait(30)
        behind = socket.create_connection(("127.0.0.1", port), 60)
        behind.sendall(question("1.1"))
        behind.close()
        time.sleep(1)
        engine.begun.clear()
        ahead.close()
        assert engine.ended.wait(20) and not engine.begun.wait(1)
