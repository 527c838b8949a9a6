"""How long a client may keep a small server waiting, while it sends its request and while it takes
the answer: a client that gives or takes one byte after another would hold its place for ever."""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any

# Any: buffers as Python's own servers hand them on.

WAITED_S = 60.0
"""Seconds that a server waits for a client in all, for a request and again for its answer. A
request of text has some kilobytes, and comes in the second in which it is sent."""
RATE = 1 << 16
"""Bytes that give back a second of them, half a Mbit/s: a photograph of 30 MB comes whole over a
slow line, in eight minutes."""
_PIECE = 1 << 16
"""Bytes that are sent at once, each with the time that is left."""


class TooSlow(Exception):
    """A client has not sent its request in time. No OSError: the server still answers."""


class Pace:
    """The seconds that a client has left."""

    def __init__(self) -> None:
        self.left = WAITED_S

    def wait(self, connection: socket.socket, step: Callable[[], int]) -> int:
        """What `step` gives, the bytes that it moved. Raises TimeoutError where the client takes
        longer than is left."""
        if self.left <= 0:
            raise TimeoutError
        connection.settimeout(self.left)
        begin = time.monotonic()
        moved = step()
        self.left = min(WAITED_S, self.left - (time.monotonic() - begin) + moved / RATE)
        return moved


class Incoming(io.RawIOBase):
    """What a client sends. The time of a request begins with its first byte."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.begin()

    def begin(self, idle: float | None = None) -> None:
        """From now on something else is waited for, so many seconds until it begins; WAITED_S where
        that is not said."""
        self._idle, self._pace = idle or WAITED_S, Pace()
        self._begun = False

    def readable(self) -> bool:
        """It is."""
        return True

    # Any: a buffer that is written to.
    def readinto(self, buffer: Any) -> int:
        """The next bytes; 0 at the end. Raises TooSlow, and TimeoutError where nothing has
        begun."""
        take = partial(self._connection.recv_into, buffer)
        if not self._begun:
            self._connection.settimeout(self._idle)
            size = take()
            self._begun = True
            return size
        try:
            return self._pace.wait(self._connection, take)
        except TimeoutError:
            raise TooSlow from None


class Outgoing(io.BufferedIOBase):
    """What a client is sent, without a buffer."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.begin()

    def begin(self) -> None:
        """From now on another answer is sent."""
        self._pace = Pace()
        self.ahead = 0
        """Bytes of what is written next that the client has already."""

    def writable(self) -> bool:
        """It is."""
        return True

    # Any: bytes in any form.
    def write(self, data: Any) -> int:
        """Send all of it. Raises TimeoutError where the client takes too long to read it."""
        view, done = memoryview(data).cast("B"), self.ahead
        self.ahead = 0
        while done < len(view):
            piece = view[done : done + _PIECE]
            done += self._pace.wait(self._connection, partial(self._connection.send, piece))
        return done
