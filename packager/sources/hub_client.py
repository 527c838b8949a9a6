"""The hub's client with answers of bounded length: it reads whatever an endpoint sends into memory.

Files are streamed by `hub_download`, which knows how long they are; everything else that a hub
says is small.
"""

from __future__ import annotations

from collections.abc import Iterator

import httpx
from huggingface_hub import set_client_factory
from huggingface_hub.utils._http import default_client_factory

from packager.errors import unreachable
from packager.limits import HUB_ANSWER_BYTES, HUB_PACKED_BYTES
from packager.sources.hub_errors import WAYS_ON

_API = "/api/"


def bound_answers() -> None:
    """Every client that the library makes from now on refuses endless answers."""
    set_client_factory(_client)


def _client() -> httpx.Client:
    client: httpx.Client = default_client_factory()
    client.event_hooks["response"] = [*client.event_hooks["response"], _bound]
    return client


def _bound(response: httpx.Response) -> None:
    """An answer of the API, an error or a redirect ends where none is longer: none is a file."""
    file = _API not in response.request.url.path and response.status_code in (200, 206)
    if not file and isinstance(response.stream, httpx.SyncByteStream):
        packed = response.headers.get("Content-Encoding", "identity") != "identity"
        response.stream = _Bounded(
            response.stream,
            HUB_PACKED_BYTES if packed else HUB_ANSWER_BYTES,
            response.request.url.host,
        )


class _Bounded(httpx.SyncByteStream):
    """A stream that ends with a PackError (exit code 5) after so many bytes."""

    def __init__(self, stream: httpx.SyncByteStream, most: int, host: str) -> None:
        self._stream, self._most, self._host = stream, most, host

    def __iter__(self) -> Iterator[bytes]:
        got = 0
        for piece in self._stream:
            got += len(piece)
            if got > self._most:
                raise unreachable(
                    f"{self._host} sends an answer of more than {self._most} bytes.",
                    f"Check HF_ENDPOINT and the network. {WAYS_ON}",
                )
            yield piece

    def close(self) -> None:
        self._stream.close()
