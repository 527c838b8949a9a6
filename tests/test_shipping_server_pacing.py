"""A client that keeps the server waiting: how long it holds a place, and that the place is free
again."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from packager.shipping.server import connections, pacing

PATIENCE_S = 1.0
LONG_S = 12.0
"""What no place is held for here."""
EVENTS = 1 << 15
"""Of a kilobyte each: more than the sockets of one connection hold."""


class Echo(connections.JsonHandler):
    """Answers with the length of a body, or with a stream of events."""

    def do_POST(self) -> None:
        self.with_body(connections.LONGEST, lambda body: self.send(200, len(body)))

    def do_GET(self) -> None:
        self.begin_events()
        for number in range(EVENTS):
            self.event({"number": number, "text": "x" * 1000})


@contextmanager
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a server with one place."""
    monkeypatch.setattr(pacing, "WAITED_S", PATIENCE_S)
    monkeypatch.setattr(connections, "_AT_ONCE", 1)
    with connections.BoundedServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def connected(port: int, room: int | None = None) -> socket.socket:
    """A client of the server, with so much room for what comes."""
    client = socket.socket()
    if room is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    client.settimeout(LONG_S)
    client.connect(("127.0.0.1", port))
    return client


def free_after(port: int, begin: float) -> float:
    """Seconds until another client is answered."""
    while time.monotonic() - begin < LONG_S:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=LONG_S)
        with suppress(OSError, http.client.HTTPException):
            client.request("POST", "/", b"ok", {"Connection": "close"})
            assert client.getresponse().read() == b"2"
            break
        time.sleep(0.1)
    return time.monotonic() - begin


def in_the_background(step: Callable[[], object], ends: threading.Event) -> None:
    """Do a step again and again, ten times a second, until it fails or the test ends."""

    def work() -> None:
        with suppress(OSError):
            while not ends.wait(0.1):
                step()

    threading.Thread(target=work, daemon=True).start()


@pytest.mark.parametrize(
    "sent",
    [
        b"P",
        b"POST / HTTP/1.1\r\nX-Slow: ",
        b"POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 100000\r\nExpect: 100-continue\r\n\r\n",
    ],
)
def test_a_request_that_comes_byte_by_byte_is_answered_408_and_its_place_is_free(
    monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    ends, begin = threading.Event(), time.monotonic()
    with place(monkeypatch) as port, connected(port) as client:
        client.sendall(sent)
        in_the_background(lambda: client.send(b"x"), ends)
        told = b""
        try:
            while piece := client.recv(1 << 16):
                told += piece
        finally:
            ends.set()
        told = told.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert told.startswith(b"HTTP/1.1 408 ") and b"did not come whole in time" in told
        assert b"\r\nConnection: close\r\n" in told
        # Half a second more, and what is on its way then is thrown away for a second.
        assert free_after(port, begin) < PATIENCE_S + 4


def test_a_client_that_says_nothing_is_let_go_without_a_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begin = time.monotonic()
    with place(monkeypatch) as port, connected(port) as client:
        assert client.recv(1) == b""
        assert free_after(port, begin) < PATIENCE_S + 4


@pytest.mark.parametrize("bytes_of_a_second", [0, 1 << 14])
def test_an_answer_that_is_read_too_slowly_is_given_up_and_its_place_is_free(
    monkeypatch: pytest.MonkeyPatch, bytes_of_a_second: int
) -> None:
    """Not read at all, or at a quarter of the pace that gives time back."""
    ends, begin = threading.Event(), time.monotonic()
    with place(monkeypatch) as port, connected(port, 1 << 12) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 200"
        if bytes_of_a_second:
            in_the_background(lambda: client.recv(bytes_of_a_second // 10), ends)
        try:
            assert free_after(port, begin) < LONG_S
        finally:
            ends.set()


def test_a_slow_line_that_goes_on_is_waited_for_in_both_directions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three times as long as a client may be silent."""
    monkeypatch.setattr(pacing, "RATE", 1 << 13)
    body, piece = bytes(30 << 11), 1 << 11
    with place(monkeypatch) as port, connected(port, 1 << 12) as client:
        head = f"POST / HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(head.encode())
        for begin in range(0, len(body), piece):
            time.sleep(PATIENCE_S / 10)
            client.sendall(body[begin : begin + piece])
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert answer.read() == str(len(body)).encode()
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        end, read = time.monotonic() + 3 * PATIENCE_S, 0
        while time.monotonic() < end:
            time.sleep(PATIENCE_S / 20)
            read += len(client.recv(1 << 16))
        assert read and client.recv(1)
