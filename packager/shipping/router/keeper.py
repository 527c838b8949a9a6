"""The one package that is in memory: its server is a process of its own, so that what the engine
took is free again when another package takes its place."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from packager.shipping.router import check
from packager.shipping.router.table import Entry, Unusable

_CLOSING_S = 10.0


class Busy(Exception):
    """Too many requests are waiting."""


class Gone(Exception):
    """The client left before its turn."""


class Keeper:
    """Starts the package that a request needs, after the answers of the one before have ended.

    Requests have their turn in the order they came; those for the package that is in memory are
    let through together, and its server lets them wait for the engine.
    """

    def __init__(self, start: Path, room: int) -> None:
        self._start, self._room = start, room
        self._changed = threading.Condition()
        self._waiting: list[object] = []
        self._answering = 0
        self._entry: Entry | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self._compared: set[str] = set()

    @property
    def name(self) -> str | None:
        """The package that is in memory."""
        running = self._process is not None and self._process.poll() is None
        return self._entry.name if self._entry and self._port and running else None

    def lost(self, port: int) -> None:
        """The server at that port does not answer: the next request starts it again. A process that
        was killed may still count as running for a moment."""
        with self._changed:
            if self._port == port:
                self._port = 0

    @contextmanager
    def turn(self, entry: Entry, gone: Callable[[], bool]) -> Iterator[int]:
        """The port of the package's server on this machine, for one request.

        Raises Busy, Gone, and Unusable where the package cannot be opened.
        """
        ticket = object()
        with self._changed:
            if len(self._waiting) > self._room:
                raise Busy
            self._waiting.append(ticket)
        try:
            self._wait(ticket, entry, gone)
            # First in the row: nobody else starts or counts before this one has left it.
            if self.name != entry.name:
                self._open(entry)
            port = self._port
            with self._changed:
                self._answering += 1
        finally:
            with self._changed:
                self._waiting.remove(ticket)
                self._changed.notify_all()
        try:
            yield port
        finally:
            with self._changed:
                self._answering -= 1
                self._changed.notify_all()

    def _wait(self, ticket: object, entry: Entry, gone: Callable[[], bool]) -> None:
        with self._changed:
            while self._waiting[0] is not ticket or (self._answering and self.name != entry.name):
                if gone():
                    raise Gone
                self._changed.wait(0.2)

    def _open(self, entry: Entry) -> None:
        self.close()
        if entry.name not in self._compared:
            check.compare(entry)
            self._compared.add(entry.name)
        words = ["--settings", str(entry.settings), "--port", "0", "--while-stdin"]
        process = subprocess.Popen(
            [sys.executable, str(self._start), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._process, self._entry = process, entry
        assert process.stdout is not None
        line = process.stdout.readline().decode(errors="replace").strip()
        port = urlsplit(line).port if line.startswith("http://127.0.0.1:") else None
        if not port:
            self.close()
            raise Unusable(
                f"the engine does not open {entry.name}; the server's own output says why."
            )
        self._port = port

    def close(self) -> None:
        """End the package's server; returns when its memory is free."""
        process, self._process, self._entry, self._port = self._process, None, None, 0
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        try:
            process.wait(_CLOSING_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
