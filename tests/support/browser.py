"""A headless Chromium, driven through its DevTools protocol: what the served interface is tested
and pictured with."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import shutil
import subprocess
import time
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.terminal_cells import TerminalCells

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_PATIENCE_S = 90.0
_NAMED = {
    "Enter": ("\r", 13),
    "Tab": ("\t", 9),
    "Escape": ("", 27),
    "End": ("", 35),
    "Home": ("", 36),
}


def program() -> str | None:
    """The browser, None where there is none."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class Browser(AbstractAsyncContextManager["Browser"]):
    """One page. Keeps what the terminal in it shows, made from what its web socket received, so
    that a test can wait for words on the screen."""

    def __init__(self, profile: Path, size: tuple[int, int] = (1280, 800)) -> None:
        self._profile, self._size = profile, size
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._terminal, self._frames = TerminalCells(), 0
        self.asked: list[str] = []
        """Every address that the page asked for."""

    async def __aenter__(self) -> Browser:
        name = program()
        assert name is not None
        flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--remote-debugging-port=0",
        ]
        self._process = subprocess.Popen(
            [
                name,
                *flags,
                f"--user-data-dir={self._profile}",
                f"--window-size={self._size[0]},{self._size[1]}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        port = await self._port()
        self._session = aiohttp.ClientSession()
        async with self._session.get(f"http://127.0.0.1:{port}/json") as answer:
            page = next(row for row in await answer.json() if row["type"] == "page")
        self._socket = await self._session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0)
        self._reader = asyncio.create_task(self._read())
        for domain in ("Network", "Page", "Runtime"):
            await self.call(f"{domain}.enable")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reader.cancel()
        await self._session.close()
        self._process.terminate()
        self._process.wait(120)

    async def _port(self) -> int:
        file, end = self._profile / "DevToolsActivePort", time.monotonic() + _PATIENCE_S
        while not (file.is_file() and file.read_text().strip()):
            assert self._process.poll() is None and time.monotonic() < end, (
                "the browser did not start"
            )
            await asyncio.sleep(0.05)
        return int(file.read_text().split()[0])

    async def _read(self) -> None:
        async for message in self._socket:
            data = json.loads(message.data)
            if "id" in data:
                self._answers.pop(data["id"]).set_result(data)
            elif data.get("method") == "Network.requestWillBeSent":
                self.asked.append(data["params"]["request"]["url"])
            elif data.get("method") == "Network.webSocketFrameReceived":
                frame = data["params"]["response"]
                self._frames += 1
                # The terminal's bytes come in binary frames; text ones are messages to the page.
                if frame["opcode"] == 2:
                    self._terminal.feed(base64.b64decode(frame["payloadData"]))

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol, and its result."""
        number = next(self._ids)
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        answer = await asyncio.wait_for(self._answers.get(number) or asyncio.Future(), _PATIENCE_S)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    async def open(self, address: str) -> None:
        """Go to an address."""
        await self.call("Page.navigate", url=address)

    async def evaluate(self, script: str) -> Any:
        """The value of an expression in the page."""
        return (await self.call("Runtime.evaluate", expression=script))["result"].get("value")

    async def until(self, script: str) -> None:
        """Wait until an expression in the page is true."""
        end = time.monotonic() + _PATIENCE_S
        while not await self.evaluate(script):
            assert time.monotonic() < end, f"never true: {script}"
            await asyncio.sleep(0.05)

    async def see(self, words: str) -> None:
        """Wait until the words stand on the screen."""
        end = time.monotonic() + _PATIENCE_S
        while words not in self._terminal.text:
            assert time.monotonic() < end, f"never seen: {words!r}; shown:\n{self._terminal.text}"
            await asyncio.sleep(0.05)

    async def rest(self, quiet_s: float = 0.5) -> None:
        """Wait until nothing new was received for a moment: a page that takes the focus sends
        events of its own."""
        end, before = time.monotonic() + _PATIENCE_S, -1
        while before != self._frames:
            assert time.monotonic() < end, "the page never came to rest"
            before = self._frames
            await asyncio.sleep(quiet_s)

    async def press(self, *keys: str) -> None:
        """Keys by name (Enter, Tab), everything else letter by letter."""
        for key in keys:
            for name in [key] if key in _NAMED else key:
                text, code = _NAMED.get(name, (name, 0))
                down = {"key": name, "windowsVirtualKeyCode": code} if code else {"key": name}
                await self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **down)
                await self.call("Input.dispatchKeyEvent", type="keyUp", **down)

    async def picture(self) -> bytes:
        """The page as a PNG."""
        return base64.b64decode((await self.call("Page.captureScreenshot", format="png"))["data"])
