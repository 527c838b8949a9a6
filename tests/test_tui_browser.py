"""The interface in a browser: who is let in, and one build from the first key to the package in a
real Chromium."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

import pytest

from packager.cli import main
from packager.cli.tabs import MOST_TABS, Doorman
from packager.cli.tui_browser import is_loopback
from packager.errors import ExitCode
from packager.package.verify import verify
from tests.support import browser
from tests.support.make_checkpoint import write_tiny

pytestmark = pytest.mark.slow


@dataclass
class Served:
    """A server that runs: its address, its token, the folder it was started in, its process."""

    base: str
    token: str
    folder: Path
    process: subprocess.Popen[str]

    @property
    def cookie(self) -> str:
        """What the token is exchanged for, as a browser sends it."""
        with pytest.raises(HTTPError) as caught:
            build_opener(NoRedirect).open(f"{self.base}/?token={self.token}", timeout=30)
        return str(caught.value.headers["Set-Cookie"].partition(";")[0])


@pytest.fixture
def served(tmp_path: Path, own_cache: Path) -> Iterator[Served]:
    folder = tmp_path / "here"
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "packager.cli", "tui", "--serve", "--port", str(port)]
    process = subprocess.Popen(
        command,
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "QWEN_PACK_CACHE": str(own_cache)},
    )
    assert process.stderr is not None
    try:
        found = next(
            match
            for line in process.stderr
            if (match := re.search(r"(http://127\.0\.0\.1:\d+)/\?token=(\S+)", line))
        )
        yield Served(found[1], found[2], folder, process)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(120)


class NoRedirect(HTTPRedirectHandler):
    """A redirection is an answer like any other."""

    def redirect_request(self, *_: object) -> None:
        return None


def status(address: str, **headers: str) -> int:
    """The status code of one request."""
    request = Request(
        address, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    try:
        with build_opener(NoRedirect).open(request, timeout=30) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


def test_only_who_has_the_token_gets_in_and_only_under_the_servers_own_name(served: Served) -> None:
    cookie = served.cookie
    host = served.base.partition("://")[2]
    assert status(served.base) == 403
    assert status(f"{served.base}/ws") == 403
    assert status(f"{served.base}/static/js/textual.js") == 403
    assert status(f"{served.base}/?token=wrong") == 403
    assert status(f"{served.base}/?token={served.token}") == 302
    assert status(served.base, Cookie=cookie) == 200
    assert status(served.base, Cookie=cookie, Host="evil.example") == 403
    assert status(served.base, Cookie=cookie, Host="evil.example:80") == 403
    assert status(served.base, Cookie=cookie, Host="localhost<b>:80") == 403
    assert status(f"{served.base}/ws", Cookie=cookie, Origin="http://evil.example") == 403
    assert status(f"{served.base}/ws", Cookie=cookie, Origin=f"https://{host}") == 403
    assert status(f"{served.base}/ws", Cookie=cookie, Origin="http://127.0.0.1:1") == 403
    assert status(f"{served.base}/ws", Cookie=cookie) == 403
    assert (
        status(f"{served.base}/ws", Cookie=cookie, Origin=f"http://{host}", Host="evil.example")
        == 403
    )
    assert (
        status(f"{served.base}/ws", Cookie=cookie, Origin=f"http://{host}") == 400
    )  # let in, and no web socket
    assert status(served.base, Cookie=cookie, Origin=f"http://{host}") == 200


def test_the_cookie_is_of_one_server_alone_and_is_not_the_token(served: Served) -> None:
    name, _, value = served.cookie.partition("=")
    assert served.base.rpartition(":")[2] in name and value != served.token
    assert re.fullmatch(r"qwen_pack_\d+_[0-9a-f]{8}", name)
    assert status(served.base, Cookie=f"qwen_pack_token={served.token}") == 403
    assert status(served.base, Cookie=f"{name}={served.token}") == 403


def test_every_answer_keeps_its_address_to_itself(served: Served) -> None:
    for address, cookie in (
        ("/", served.cookie),
        ("/", ""),
        (f"/?token={served.token}", ""),
        ("/static/js/textual.js", served.cookie),
    ):
        request = Request(f"{served.base}{address}", headers={"Cookie": cookie})
        try:
            headers = build_opener(NoRedirect).open(request, timeout=30).headers
        except HTTPError as error:
            headers = error.headers
        assert (
            headers["Referrer-Policy"] == "no-referrer" and headers["Cache-Control"] == "no-store"
        )
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


def test_the_page_is_of_this_server_alone_has_a_name_and_fits_a_narrow_window(
    served: Served,
) -> None:
    request = Request(served.base, headers={"Cookie": served.cookie})
    page = build_opener(NoRedirect).open(request, timeout=30).read().decode()
    host = served.base.partition("://")[2]
    assert "<title>qwen-pack</title>" in page and 'rel="icon" href="data:' in page
    assert f'data-session-websocket-url="ws://{host}/ws"' in page
    assert "columns = 60, rows = 20" in page and "width=device-width" in page
    assert not re.findall(r"(?:src|href)=.https?:", page)
    for address in re.findall(r"/static/[\w./-]+", page):
        assert status(f"{served.base}{address}", Cookie=served.cookie) == 200


async def open_tabs(served: Served, count: int) -> tuple[list[Any], Any]:
    """So many tabs by their sockets, and the session that holds them."""
    import aiohttp

    host = served.base.partition("://")[2]
    session = aiohttp.ClientSession(headers={"Cookie": served.cookie, "Origin": f"http://{host}"})
    return [
        await session.ws_connect(f"{served.base}/ws?width=99999999999&height=30")
        for _ in range(count)
    ], session


def children(process: subprocess.Popen[str]) -> dict[int, list[str]]:
    """The processes that a server started, with their command lines."""
    import psutil

    return {
        child.pid: child.cmdline() for child in psutil.Process(process.pid).children(recursive=True)
    }


def gone(pids: Any) -> bool:
    import psutil

    end = time.monotonic() + 60
    while any(
        psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        for pid in pids
    ):
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_a_tab_is_isolated_shows_no_secret_and_ends_with_the_server(
    served: Served, ending: signal.Signals
) -> None:
    # Whoever serves in a folder with weights does not run the Python beside them.
    for name in ("click", "json", "textual", "numpy", "packager"):
        (served.folder / f"{name}.py").write_text(
            f"open({str(served.folder / 'ran')!r}, 'a').write({name!r})\n"
        )

    async def visit() -> dict[int, list[str]]:
        tabs, session = await open_tabs(served, 1)
        first = await tabs[0].receive(timeout=60)
        assert first.data
        started = children(served.process)
        served.process.send_signal(ending)
        served.process.wait(120)
        await session.close()
        return started

    started = asyncio.run(visit())
    assert started and gone(started)
    assert not (served.folder / "ran").exists()
    for words in (*started.values(), [*map(str, served.process.args)]):
        assert served.token not in " ".join(words) and (
            "-P" in words or words == list(map(str, served.process.args))
        )


def test_tabs_are_bounded_in_number_and_what_no_page_sends_ends_one(served: Served) -> None:
    async def visit() -> None:
        import aiohttp

        tabs, session = await open_tabs(served, MOST_TABS)
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await open_tabs(served, 1)
        assert caught.value.status == 429
        for tab, text in zip(
            tabs,
            ("5", "[]", "{", '["stdin", 5]', '["resize", {}]', '["resize", null]', "[" * 100_000),
            strict=False,
        ):
            await tab.send_str(text)
        await tabs[-1].close()
        await session.close()

    asyncio.run(visit())
    assert served.process.poll() is None
    served.process.send_signal(signal.SIGINT)
    assert served.process.stderr is not None
    said = served.process.stderr.read()
    assert served.token not in said and "Traceback" not in said


def test_the_doorman_counts_tabs_at_a_time_and_within_a_minute() -> None:
    now = [0.0]
    door = Doorman(2, 3, lambda: now[0])
    assert [door.enter() is None for _ in range(3)] == [True, True, False]
    door.leave()
    assert door.enter() is None
    door.leave()
    assert "within a minute" in (door.enter() or "")
    now[0] = 61.0
    assert door.enter() is None and door.open == 2


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "example.org", "::"])
def test_an_interface_that_others_reach_is_refused_with_what_it_would_mean(
    host: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tui", "--serve", "--host", host]) == ExitCode.USAGE
    error = capsys.readouterr().err
    assert "as you" in error and "ssh -L" in error and "--i-know-it-is-exposed" in error


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1", "[::1]"])
def test_loopback_has_several_names(host: str) -> None:
    assert is_loopback(host)


def test_a_taken_port_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["tui", "--serve", "--port", str(port)]) == ExitCode.USAGE
    assert f"Port {port}" in capsys.readouterr().err


@pytest.mark.engine
@pytest.mark.skipif(
    browser.program() is None, reason="needs a Chromium: " + ", ".join(browser.PROGRAMS)
)
@pytest.mark.thorough(
    "test_the_whole_way_from_a_device_to_a_package_and_its_deletion_by_keys_alone"
)
def test_a_browser_drives_one_build_from_the_first_key_to_the_package(
    served: Served, tmp_path: Path
) -> None:
    checkpoint = write_tiny(tmp_path / "tiny", hidden=256, intermediate=512)
    pictures: list[bytes] = []

    async def visit() -> None:
        async with browser.Browser(tmp_path / "profile") as page:
            await page.open(f"{served.base}/?token={served.token}")
            await page.see("this machine")
            assert "token" not in await page.evaluate("location.href")
            assert await page.evaluate("document.title") == "qwen-pack"
            # The keys go to the terminal without a click.
            focused = "document.activeElement.matches('.xterm-helper-textarea')"
            await page.until(focused)
            await page.rest()
            # A person looks before the next key; so does the test.
            for keys, seen in (
                ("/", "f1"),
                ("laptop-cpu", "A mainstream x86-64 laptop"),
                ("Enter", "Choose"),
                ("Enter", "Limits on laptop-cpu"),
            ):
                await page.press(keys)
                await page.see(seen)
            await page.press("Tab", "hhhh", *["Tab"] * 8, "End")
            await page.see("ath of the checkpoint's folder")
            for keys, seen in (
                (str(checkpoint), "tiny"),
                ("Enter", "openvino:int4"),
                ("/", "f1"),
                ("gguf:q8_0", "tiny as gguf:Q8_0"),
                ("Enter", "Plan it"),
                ("Enter", "was named by the user"),
            ):
                await page.press(keys)
                await page.see(seen)
            await page.press("b")
            await page.see("Predicted and measured")
            pictures.append(await page.picture())
            served.process.send_signal(signal.SIGINT)
            await page.until("getComputedStyle(document.querySelector('#ended')).display == 'flex'")
            own = (f"{served.base}/", "data:")
            assert [url for url in page.asked if not url.startswith(own)] == []

    asyncio.run(visit())
    package = served.folder / "tiny-gguf-q8_0"
    assert verify(package) == []
    assert json.loads((package / "manifest.json").read_text())["measured"]["decode_tps"] > 0
    assert pictures[0].startswith(b"\x89PNG") and len(pictures[0]) > 20_000
