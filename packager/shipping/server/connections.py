"""Connections of a small server: so many at once, each with a thread of its own; JSON back."""

from __future__ import annotations

import argparse
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.client import HTTPMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedReader
from typing import Any

from packager.errors import usage

from .pacing import Incoming, Outgoing, TooSlow
from .presence import Presence

# Any: sockets and addresses as Python's own servers hand them on, and JSON on its way out.

CHAT = "/v1/chat/completions"
TRANSCRIPTIONS = "/v1/audio/transcriptions"
LONGEST = 4 << 20
"""Bytes of a request of text at most."""
LARGEST = 32 << 20
"""Bytes of a request with pictures or sound at most: a photograph of 50 million pixels has 30 MB as
JPEG, and no model looks at more than four million; twelve minutes of WAV have 24 MB, and OpenAI
takes 25."""
_LARGE_AT_ONCE = 4
"""Requests of more than LONGEST that are here at once."""
_AT_ONCE = 128
_IDLE_S, _LAST_S = 1.0, 10.0
"""Seconds for which a client that was refused may be silent, and may go on in all."""
_CONTINUE = "100-continue"
_DIGITS = 15
"""Of a length at most: Python makes no number of thousands of them."""
_KINDS = {
    **dict.fromkeys((400, 408, 413), "invalid_request_error"),
    404: "not_found_error",
}


def room(text: str) -> int:
    """How many requests may wait, of a command line: less than none would refuse every request.
    Raises argparse.ArgumentTypeError."""
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 0 or more")
    return int(text)


class BoundedServer(ThreadingHTTPServer):
    """A thread per connection, as long as there are not too many of them."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        """Raises PackError (usage) for an address that cannot be used."""
        host, port = address
        if ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__(address, handler)
        except (OSError, OverflowError, TypeError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not a valid port or host"
            raise usage(
                f"Port {port} on {host} cannot be used: {reason}.",
                "Choose another with --port or --host.",
            ) from None
        self.connections = threading.BoundedSemaphore(_AT_ONCE)
        self.large = threading.BoundedSemaphore(_LARGE_AT_ONCE)

    def address_of(self, host: str) -> str:
        """Where a client finds it, by the host that it was started with."""
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_port}/v1"

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for a connection; one too many is closed."""
        if not self.connections.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves in the middle is no fault of the server's."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class JsonHandler(BaseHTTPRequestHandler):
    """The requests of one connection, which are answered in JSON."""

    server: BoundedServer
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        """Read and write with an eye on the clock."""
        self.connection = self.request
        self._incoming, self._outgoing = Incoming(self.connection), Outgoing(self.connection)
        self._presence = Presence(self.connection, self._outgoing)
        self.rfile = BufferedReader(self._incoming)
        self.wfile = self._outgoing

    def handle_one_request(self) -> None:
        """Read a request and answer it; one that does not come whole in time is refused."""
        self._incoming.begin()
        self._outgoing.begin()
        self._presence.begin()
        # What an answer looks at, also where the first line of the request has not come.
        self.requestline, self.request_version, self.command = "", self.protocol_version, ""
        self.headers = HTTPMessage()
        self._part: str | None = None
        try:
            super().handle_one_request()
        except TooSlow:
            self._outgoing.begin()
            self.close_connection = True
            self.refuse("the request did not come whole in time", 408)
            self._throw_away()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What Python's own server refuses before it asks this one: a method, a line, a header."""
        # It has read no version yet, or one that is not spoken here: without one no head is sent.
        self.request_version = self.protocol_version
        self._refuse_unread(message or "the request cannot be read", int(code))

    # Any: JSON on its way out.
    def page(self, pages: Mapping[str, Any]) -> None:
        """Answer a GET with one of these pages. A body that comes along is read first: left unread,
        it would be taken for the next request."""

        def answer(_: bytes) -> None:
            if self.path in pages:
                self.send(200, pages[self.path])
            else:
                self.refuse("there is no such page", 404)

        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            self.with_body(LONGEST, answer)
        else:
            answer(b"")

    def with_body(self, most: int, answer: Callable[[bytes], None]) -> None:
        """Call `answer` with the body of a request of at most `most` bytes; of those longer than
        LONGEST only so many are here at once."""
        length = self.length(most)
        if length is None:
            return
        if length <= LONGEST:
            answer(self._body(length))
        elif self.server.large.acquire(blocking=False):
            try:
                answer(self._body(length))
            finally:
                self.server.large.release()
        else:
            self._refuse_unread("too many large requests are here: try again later", 503)

    def handle_expect_100(self) -> bool:
        """The client waits until it is told to send its body: `with_body` tells it, and not before
        it is known that the body will be read."""
        return True

    def _waits(self) -> bool:
        return self.headers.get("Expect", "").lower() == _CONTINUE

    def _body(self, length: int) -> bytes:
        if self._waits() and self.request_version != "HTTP/1.0":
            self.send_response_only(100)
            self.end_headers()
        return self.rfile.read(length)

    def _refuse_unread(self, sentence: str, status: int) -> None:
        """Refuse a request whose body stays unread."""
        self.close_connection = True
        self.refuse(sentence, status)
        if not self._waits():
            self._throw_away()

    def _throw_away(self) -> None:
        """Read what is on its way: a connection that is closed before takes the answer with it
        (RFC 9112, 9.6)."""
        end, left = time.monotonic() + _LAST_S, 2 * LARGEST
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            while left > 0 and time.monotonic() < end:
                self._incoming.begin(_IDLE_S)
                piece = self.rfile.read1(1 << 16)
                if not piece:
                    return
                left -= len(piece)

    def length(self, most: int) -> int | None:
        """Bytes of the request's body; None where it does not say, or says more than `most`: then
        the refusal is sent."""
        # Two that differ end the request at two places, by who reads it (RFC 9112, 6.3).
        lengths = set(self.headers.get_all("Content-Length", []))
        given = lengths.pop() if len(lengths) == 1 else ""
        digits = given.isascii() and given.isdigit() and len(given) <= _DIGITS
        # In chunks a body is as long as they say, whatever the other header says.
        if digits and int(given) <= most and "Transfer-Encoding" not in self.headers:
            return int(given)
        self._refuse_unread(f"a request needs a Content-Length of at most {most}", 413)
        return None

    def gone(self) -> bool:
        """Whether the client has left; one that has only closed its side waits for its answer."""
        return self._presence.left(streams=self._part is not None)

    def begin_events(self) -> None:
        """The head of an answer in events (WHATWG HTML, 9.2)."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.close_connection = True
        self.end_headers()
        self.begun("text/event-stream")

    def begun(self, kind: str) -> None:
        """An answer of that content type has begun: a refusal is no answer of its own any more."""
        self._part = kind

    def event(self, value: Any) -> None:
        """One event, at once."""
        self.wfile.write(b"data: " + json.dumps(value).encode() + b"\n\n")
        self.wfile.flush()

    def refuse(self, sentence: str, status: int) -> None:
        """An error in OpenAI's form: an answer, or where one has begun the last of its events."""
        kind = _KINDS.get(status, "server_error")
        error = {"error": {"message": sentence, "type": kind, "code": status}}
        if self._part is None:
            self.send(status, error)
        elif self._part.startswith("text/event-stream"):
            self.event(error)

    def send(self, status: int, value: Any) -> None:
        """An answer as a whole: JSON, or a text as it is."""
        text = isinstance(value, str)
        body = value.encode() if text else json.dumps(value).encode()
        self.send_response(status)
        kind = "text/plain; charset=utf-8" if text else "application/json"
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if status == 503:
            self.send_header("Retry-After", "1")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *words: Any) -> None:
        """Requests are nobody's business."""
