"""Whether a client still waits for its answer.

One that has closed its side has either left, or has said all it has to say and waits, as `nc -N`
does. Both look the same until something is sent: only the connection of one that has left is then
reset. So a piece of the answer is sent that holds whatever the answer will be: the letters with
which every head begins, one at a time, or a comment between the events of a stream.
"""

from __future__ import annotations

import select
import socket
import threading
import time

from .pacing import Outgoing

_HEAD = b"HTTP/1.1 "
"""With what the head of every answer begins."""
_COMMENT = b":\n\n"
"""Between two events: a client passes it over (WHATWG HTML, 9.2.6)."""
_FIRST_S = 1.0
"""Seconds from the first piece to the second; from there to the next it is twice as long each
time, so that the letters of a head last for four minutes."""


class Presence:
    """What is known of the client of one connection."""

    def __init__(self, connection: socket.socket, outgoing: Outgoing) -> None:
        self._connection, self._outgoing = connection, outgoing
        self._left = False
        # A router asks from two threads.
        self._asked = threading.Lock()
        self.begin()

    def begin(self) -> None:
        """Another answer is waited for."""
        self._next, self._pause = 0.0, _FIRST_S

    def left(self, streams: bool) -> bool:
        """Whether the client has left; `streams` says that the events of an answer have begun."""
        with self._asked:
            try:
                self._left = self._left or self._seen_leaving(streams)
            except (OSError, ValueError):
                self._left = True
            return self._left

    def _seen_leaving(self, streams: bool) -> bool:
        if self._connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return True
        ready, _, _ = select.select([self._connection], [], [], 0)
        if not ready or self._connection.recv(1, socket.MSG_PEEK):
            return False
        if time.monotonic() >= self._next:
            self._send_a_piece(streams)
        return False

    def _send_a_piece(self, streams: bool) -> None:
        self._next, self._pause = time.monotonic() + self._pause, 2 * self._pause
        if streams:
            self._outgoing.write(_COMMENT)
            return
        letter = _HEAD[self._outgoing.ahead :][:1]
        if letter:
            self._outgoing.ahead += self._connection.send(letter)
