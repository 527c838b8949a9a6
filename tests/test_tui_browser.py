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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

import pytest

from packager.cli import main
from packager.cli.serve import COOKIE, is_loopback
from packager.errors import ExitCode
from packager.package.verify import verify
from tests.support import browser
from tests.support.make_checkpoint import write_tiny


@dataclass
class Served:
    """A server that runs: its address, its token, the folder it was started in."""

    base: str
    token: str
    folder: Path


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
        yield Served(found[1], found[2], folder)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)


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
    cookie = f"{COOKIE}={served.token}"
    host = served.base.partition("://")[2]
    assert status(served.base) == 403
    assert status(f"{served.base}/ws") == 403
    assert status(f"{served.base}/static/js/textual.js") == 403
    assert status(f"{served.base}/?token=wrong") == 403
    assert status(f"{served.base}/?token={served.token}") == 302
    assert status(served.base, Cookie=cookie) == 200
    assert status(served.base, Cookie=cookie, Host="evil.example") == 403
    assert status(served.base, Cookie=cookie, Host="evil.example:80") == 403
    assert status(f"{served.base}/ws", Cookie=cookie, Origin="http://evil.example") == 403
    assert status(served.base, Cookie=cookie, Origin=f"http://{host}") == 200


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
            await page.evaluate("document.querySelector('.xterm-helper-textarea').focus()")
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

    asyncio.run(visit())
    package = served.folder / "tiny-gguf-q8_0"
    assert verify(package) == []
    assert json.loads((package / "manifest.json").read_text())["measured"]["decode_tps"] > 0
    assert pictures[0].startswith(b"\x89PNG") and len(pictures[0]) > 20_000
