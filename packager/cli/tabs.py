"""The processes behind the tabs of the served interface: started isolated, bounded in number and
rate, ended with the server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web
from jinja2 import Environment, StrictUndefined, Template
from textual_serve.app_service import AppService
from textual_serve.server import Server, to_int

from packager.process import PARENT
from packager.python import python_command, python_environment
from tui.app import LEAST

MOST_TABS = 8
MOST_A_MINUTE = 30
_MINUTE_S = 60.0
_GRACE_S = 5.0
_PAGE = Path(__file__).with_name("tab_page.jinja")
_LARGEST_MESSAGE = 1 << 20
_MOST_COLUMNS, _MOST_ROWS = 1000, 500


class Doorman:
    """Counts tabs: so many at a time, and so many new ones within any minute."""

    def __init__(
        self,
        most: int = MOST_TABS,
        a_minute: int = MOST_A_MINUTE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most, self._a_minute, self._clock = most, a_minute, clock
        self._opened: deque[float] = deque()
        self.open = 0

    def enter(self) -> str | None:
        """Let one tab in; or why not, as a sentence."""
        now = self._clock()
        while self._opened and now - self._opened[0] >= _MINUTE_S:
            self._opened.popleft()
        if self.open >= self._most:
            return f"{self._most} tabs are already open; close one."
        if len(self._opened) >= self._a_minute:
            return f"{self._a_minute} tabs were opened within a minute; wait a moment."
        self._opened.append(now)
        self.open += 1
        return None

    def leave(self) -> None:
        """One tab is gone."""
        self.open -= 1


class Tab(AppService):
    """One process of the interface. It dies with this server, however that ends."""

    async def _open_app_process(self, width: int = 80, height: int = 24) -> Process:
        environment = python_environment(
            {**self._build_environment(width, height), PARENT: str(os.getpid())}
        )
        command = python_command("packager.cli", "tui")
        self._process = process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment
        )
        assert process.stdin is not None
        self._stdin = process.stdin
        return process

    async def stop(self) -> None:
        """Ask the process to end, and end it where it does not."""
        try:
            await asyncio.wait_for(super().stop(), _GRACE_S)
        except TimeoutError:
            self._task = None
        finally:
            process = self._process
            if process is not None and process.returncode is None:
                with contextlib.suppress(ProcessLookupError, TimeoutError):
                    await asyncio.wait_for(process.wait(), 1)
                with contextlib.suppress(ProcessLookupError):
                    process.kill()


class TabServer(Server):
    """textual-serve with tabs of ours."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._doorman = Doorman()
        self._tabs: set[asyncio.Task[Any]] = set()

    async def on_startup(self, app: web.Application) -> None:
        """Say nothing: nobody listens before the application has started."""

    async def on_shutdown(self, app: web.Application) -> None:
        """End every tab: its process would go on with what it builds, and the browser show a
        picture of it."""
        for task in self._tabs:
            task.cancel()
        if self._tabs:
            await asyncio.wait(self._tabs, timeout=_GRACE_S + 1)

    async def handle_index(self, request: web.Request) -> web.StreamResponse:
        """The page, whose addresses are those that the browser came by: the cookie is for that name
        alone."""
        page = _page().render(socket=f"ws://{request.host}/ws", columns=LEAST[0], rows=LEAST[1])
        return web.Response(text=page, content_type="text/html")

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """One tab, from its first key to its last."""
        why_not = self._doorman.enter()
        if why_not is not None:
            raise web.HTTPTooManyRequests(text=why_not)
        task = asyncio.current_task()
        assert task is not None
        self._tabs.add(task)
        try:
            return await self._tab(request)
        finally:
            self._tabs.discard(task)
            self._doorman.leave()

    async def _tab(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(heartbeat=15, max_msg_size=_LARGEST_MESSAGE)
        await socket.prepare(request)

        async def close() -> None:
            await socket.close()

        tab = Tab(
            self.command,
            write_bytes=socket.send_bytes,
            write_str=socket.send_str,
            close=close,
            download_manager=self.download_manager,
            debug=False,
        )
        try:
            asked = request.query
            await tab.start(
                _within(asked.get("width"), 80, _MOST_COLUMNS),
                _within(asked.get("height"), 24, _MOST_ROWS),
            )
            await self._hear(socket, tab)
        finally:
            await tab.stop()
            await socket.close()
        return socket

    async def _hear(self, socket: web.WebSocketResponse, tab: Tab) -> None:
        """Hand on what the browser sends, until it says what no page of ours says."""
        async for message in socket:
            if message.type != WSMsgType.TEXT:
                continue
            try:
                kind, data = [*message.json(), None][:2]
                if kind == "stdin":
                    await tab.send_bytes(data.encode())
                elif kind == "resize":
                    await tab.set_terminal_size(
                        _within(data["width"], 80, _MOST_COLUMNS),
                        _within(data["height"], 24, _MOST_ROWS),
                    )
                elif kind == "ping":
                    await socket.send_json(["pong", data])
                elif kind == "blur":
                    await tab.blur()
                elif kind == "focus":
                    await tab.focus()
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
                return


@cache
def _page() -> Template:
    """A page of ours: it asks no other host for anything, takes the keys without a click, and says
    when the session is over."""
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    return environment.from_string(_PAGE.read_text(encoding="utf-8"))


def _within(value: Any, otherwise: int, most: int) -> int:
    return max(1, min(most, to_int(str(value)[:12], otherwise)))
