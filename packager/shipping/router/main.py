"""The HTTP side: the paths of a package's own server, with the package that the request's kind of
task is routed to; /v1/models, /v1/routes, /health."""

from __future__ import annotations

import argparse
import http.client
import json
import signal
import socket
import sys
import threading
import traceback
from pathlib import Path
from typing import Any
from urllib.parse import quote

from packager.errors import ExitCode, PackError
from packager.shipping.router import check
from packager.shipping.router.keeper import Busy, Gone, Keeper
from packager.shipping.router.table import Entry, Table, Unknown, Unusable, read
from packager.shipping.server import forms, retrieval
from packager.shipping.server.connections import (
    CHAT,
    LARGEST,
    LONGEST,
    TRANSCRIPTIONS,
    BoundedServer,
    JsonHandler,
    room,
)
from packager.shipping.server.refused import Refused

# Any: JSON of OpenAI's protocol on its way in, of which `model` and `metadata` are looked at.

KIND = "X-Qwen-Pack-Kind"
"""The header that names a kind of task; it counts before `metadata.kind`, and that before
`model`."""
_PATHS = (CHAT, TRANSCRIPTIONS, *retrieval.PATHS.values())
"""What packages answer."""
_ANSWER_S = 3600
_LAST_EVENTS = (b"data: [DONE]", b'data: {"type": "transcript.text.done"', b'data: {"error"')
"""How the last event of an answer begins that has come to its end."""
_PASSED_ON = ("Content-Type", "Content-Length", "Cache-Control", "Retry-After")


class Server(BoundedServer):
    """The table, the one package in memory, and a thread per connection."""

    def __init__(self, address: tuple[str, int], table: Table, keeper: Keeper) -> None:
        super().__init__(address, Handler)
        self.table, self.keeper = table, keeper
        files = any(entry.takes_files for entry in table.packages.values())
        self.most = LARGEST if files else LONGEST


class Handler(JsonHandler):
    """The requests of one connection."""

    server: Server

    def do_GET(self) -> None:
        """/health, /v1/models, /v1/routes."""
        table = self.server.table
        names = [*table.kinds, *table.packages]
        models = [{"id": name, "object": "model", "owned_by": "qwen-pack"} for name in names]
        # Any: JSON of answers.
        known: dict[str, Any] = {
            "/health": {"status": "ok", "in_memory": self.server.keeper.name},
            "/v1/models": {"object": "list", "data": models},
            "/v1/routes": {
                "routes": {kind: entry.name for kind, entry in table.kinds.items()},
                "unserved": table.unserved,
            },
        }
        self.page(known)

    def do_POST(self) -> None:
        """Hand the request to the package that it is routed to."""
        most = LARGEST if self.path == TRANSCRIPTIONS else self.server.most
        self.with_body(most, self._answer)

    def _answer(self, body: bytes) -> None:
        if self.path not in _PATHS:
            # Before a package is opened for it.
            self.refuse("there is no such page", 404)
            return
        try:
            entry = self._entry(body)
            # An engine that has ended since its last answer is started again, once.
            if not self._handed_on(body, entry) and not self._handed_on(body, entry):
                self.refuse("the engine ended before it answered; ask again", 502)
        except Unknown as refusal:
            self.refuse(str(refusal), 404)
        except Refused as refusal:
            self.refuse(str(refusal), refusal.status)
        except Busy:
            self.refuse("too many requests are waiting: try again later", 503)
        except Unusable as error:
            print(error, file=sys.stderr, flush=True)
            self.refuse(str(error), 500)
        except (Gone, OSError):
            self.close_connection = True
        except Exception:
            traceback.print_exc()
            self.close_connection = True
            self.refuse("the server failed; its own output says how", 500)

    def _entry(self, body: bytes) -> Entry:
        kind, content = self.headers.get(KIND), self._content_type()
        if forms.is_form(content):
            # A sound that is to be written down.
            return self.server.table.chosen(kind, forms.read(content, body).text("model"))
        try:
            given = json.loads(body)
        except (ValueError, RecursionError):
            given = None
        if not isinstance(given, dict):
            raise Unknown("the request is not a JSON object, so it names no kind of task")
        extra = given.get("metadata")
        if kind is None and isinstance(extra, dict):
            kind = extra.get("kind")
        return self.server.table.chosen(kind, given.get("model"))

    def _content_type(self) -> str:
        return self.headers.get("Content-Type", "application/json")

    def _handed_on(self, body: bytes, entry: Entry) -> bool:
        """Whether the package has answered; False where its server ended before."""
        with self.server.keeper.turn(entry, self.gone) as port:
            answered = self._hand_on(port, body, entry)
            if not answered:
                self.server.keeper.lost(port)
        return answered

    def _hand_on(self, port: int, body: bytes, entry: Entry) -> bool:
        """Pass on the package's answer, as it comes."""
        there = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_S)
        try:
            answer = self._asked(there, body)
            if answer is None:
                return False
            self._copy(answer, entry)
            return True
        finally:
            there.close()

    def _asked(
        self, there: http.client.HTTPConnection, body: bytes
    ) -> http.client.HTTPResponse | None:
        """The head of the answer; None where the server has ended. Raises Gone where the client
        has left."""
        done = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(there, done), daemon=True)
        try:
            there.request("POST", self.path, body, {"Content-Type": self._content_type()})
            watcher.start()
            return there.getresponse()
        except (http.client.HTTPException, OSError):
            if self.gone():
                raise Gone from None
            return None
        finally:
            done.set()
            if watcher.is_alive():
                watcher.join()

    def _watch(self, there: http.client.HTTPConnection, done: threading.Event) -> None:
        """Leave the package's server as soon as the client has left, so that it gives up the
        answer."""
        while not done.wait(0.2):
            if self.gone() and there.sock is not None:
                there.sock.shutdown(socket.SHUT_RDWR)
                return

    def _copy(self, answer: http.client.HTTPResponse, entry: Entry) -> None:
        self.send_response(answer.status)
        for name in _PASSED_ON:
            value = answer.headers.get(name)
            if value is not None:
                self.send_header(name, value)
        self.send_header("X-Qwen-Pack-Package", quote(entry.name))
        if answer.headers.get("Content-Length") is None:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        kind = answer.headers.get("Content-Type", "")
        self.begun(kind)
        last = b""
        while piece := answer.read1(1 << 16):
            self.wfile.write(piece)
            self.wfile.flush()
            last += piece
            last = last[last.rfind(b"\n\n", 0, -2) + 2 :] if b"\n\n" in last[:-2] else last
        if answer.length:
            # The package's server has ended, and what is left will not come.
            self.close_connection = True
        elif kind.startswith("text/event-stream") and not last.startswith(_LAST_EVENTS):
            if not last.endswith(b"\n\n"):
                self.wfile.write(b"\n\n")
            self.refuse("the engine ended before its answer did; ask again", 502)


def main(root: Path) -> None:
    """Check the table in the folder `root`, and serve until somebody ends it."""
    parser = argparse.ArgumentParser(
        description="Serve several packages over OpenAI's protocol, each for its kinds of task."
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--route", type=Path, default=root / "route.json", help="another table")
    parser.add_argument(
        "--waiting", type=room, default=16, help="requests that may wait for their turn"
    )
    given = parser.parse_args()
    try:
        table = read(given.route)
        for entry in table.packages.values():
            check.manifest_of(entry)
        keeper = Keeper(root / "serve_package.py", given.waiting)
        server = Server((given.host, given.port), table, keeper)
    except Unusable as error:
        parser.exit(ExitCode.INPUT, f"{error}\n")
    except PackError as error:
        parser.exit(error.exit_code, f"{error}\n")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(server.address_of(given.host), flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        keeper.close()
