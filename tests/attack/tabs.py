"""Tabs of `tui --serve` opened and closed over and over: no growth of memory, handles, processes,
files in the server."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from packager.process import resident_bytes
from tests.attack.commands import REPOSITORY

_WARM_UP = 10
"""Tabs in which the server imports what it needs."""
_MOST_GROWTH_BYTES = 16 << 20
_PATIENCE_S = 120.0
_REFUSED = 429


@dataclass(frozen=True, slots=True)
class Tabs:
    """What grew in the server over the tabs after the warm-up."""

    tabs: int
    memory_bytes: int
    handles: int
    files: int
    children: int

    @property
    def grew(self) -> bool:
        """Whether anything did that must not."""
        return (
            self.memory_bytes > _MOST_GROWTH_BYTES or self.handles + self.files + self.children > 0
        )


def soak_tabs(count: int, cache: Path) -> Tabs:
    """Open `count` tabs one after another, each until it shows something, and close them."""
    with tempfile.TemporaryDirectory(prefix="qwen-pack-tabs-") as folder:
        scratch = Path(folder) / "scratch"
        scratch.mkdir()
        with _served(scratch, cache) as (process, base, token):
            asyncio.run(_visit(base, token, min(_WARM_UP, count)))
            before = _state(process, scratch)
            asyncio.run(_visit(base, token, count))
            after = _state(process, scratch)
    return Tabs(count, *(now - then for now, then in zip(after, before, strict=True)))


@contextmanager
def _served(scratch: Path, cache: Path) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "packager.cli", "tui", "--serve", "--port", str(port)],
        cwd=scratch,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "QWEN_PACK_CACHE": str(cache),
            "TMPDIR": str(scratch),
        },
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if match := re.search(r"(http://127\.0\.0\.1:\d+)/\?token=(\S+)", line):
                yield process, match[1], match[2]
                break
        else:
            raise RuntimeError("the server says no address")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)
        process.stderr.close()


async def _visit(base: str, token: str, count: int) -> None:
    import aiohttp

    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar, headers={"Origin": base}) as session:
        await (await session.get(f"{base}/?token={token}")).read()
        for _ in range(count):
            tab = await _opened(session, base)
            await tab.receive(timeout=_PATIENCE_S)
            await tab.close()


async def _opened(session: aiohttp.ClientSession, base: str) -> aiohttp.ClientWebSocketResponse:  # type: ignore[name-defined]  # noqa: F821
    """A tab; where too many were opened within a minute it is waited for."""
    import aiohttp

    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return await session.ws_connect(f"{base}/ws?width=100&height=30")
        except aiohttp.WSServerHandshakeError as error:
            if error.status != _REFUSED or time.monotonic() > until:
                raise
            await asyncio.sleep(2)


def _state(process: subprocess.Popen[str], scratch: Path) -> tuple[int, int, int, int]:
    """Bytes resident, handles, files, children of the server, once its last tab has ended."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    until = time.monotonic() + _PATIENCE_S
    while children.read_text().split() and time.monotonic() < until:
        time.sleep(0.2)
    files = sum(len(names) for _, _, names in os.walk(scratch))
    handles = len(os.listdir(f"/proc/{process.pid}/fd"))
    return resident_bytes(process.pid), handles, files, len(children.read_text().split())
