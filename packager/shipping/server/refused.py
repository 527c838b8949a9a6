"""A request that cannot be answered, and the status that says so."""

from __future__ import annotations


class Refused(Exception):
    """The sentence goes to the client; `status` is HTTP's."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status
