"""What the worker of the need screen tells it."""

from __future__ import annotations

from textual.message import Message


class Unserved(Message):
    """The use cases that no runtime serves yet."""

    def __init__(self, names: frozenset[str]) -> None:
        super().__init__()
        self.names = names
