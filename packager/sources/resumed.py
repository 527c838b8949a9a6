"""A file over HTTP that goes on where the connection was cut, in this run or in one before."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import httpx

from packager.errors import PackError

RETRIES = 3
"""Cuts without a byte between that end it."""
_PAUSE_S = 0.5

Opened = Callable[[dict[str, str]], AbstractContextManager[httpx.Response]]
"""The answer to a request for the file with these headers, its status seen to be right."""


def complete(
    opened: Opened,
    partial: Path,
    size: int,
    on_bytes: Callable[[int], None],
    altered: Callable[[str], PackError],
) -> None:
    """Fetch what is missing of a file of `size` bytes into `partial`; `on_bytes` hears of its
    bytes, those that were there first.

    Raises what `altered` makes of the words for a file of another size, of which nothing is kept,
    and httpx's exceptions when the connection fails; what has come by then stays for the next run.
    """
    try:
        _completed(opened, partial, size, on_bytes)
    except _OtherSize as words:
        partial.unlink(missing_ok=True)
        raise altered(str(words)) from None


class _OtherSize(Exception):
    """What came is no file of the listed size."""


def _completed(opened: Opened, partial: Path, size: int, on_bytes: Callable[[int], None]) -> None:
    if _size(partial) > size:
        partial.unlink()
    have = _size(partial)
    on_bytes(have)
    left = RETRIES
    while have != size or not partial.exists():
        try:
            _fetch_from(opened, partial, have, size, on_bytes)
        except (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ReadTimeout):
            left = left - 1 if _size(partial) <= have else RETRIES
            if left == 0:
                raise
            time.sleep(_PAUSE_S)
        else:
            if _size(partial) < size:
                raise _OtherSize(f"ended before its {size} bytes")
        have = _size(partial)


def _fetch_from(
    opened: Opened,
    partial: Path,
    have: int,
    size: int,
    on_bytes: Callable[[int], None],
) -> None:
    """One request for everything from byte `have` on, appended to `partial`."""
    # Compressed in transit, byte positions would be those of the compressed text.
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    with opened(headers) as response, partial.open("ab") as stream:
        if have and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            # The server sends the whole file: what is there would stand in front of it.
            stream.truncate(0)
            on_bytes(-have)
            have = 0
        for chunk in response.iter_raw():
            have += len(chunk)
            if have > size:
                raise _OtherSize(f"has more than its {size} bytes")
            stream.write(chunk)
            on_bytes(len(chunk))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
