"""The terminal interface in a browser: loopback only, behind a token, every other host name and
origin refused.

Who reaches the page can build and delete packages as the user who started it. So the address
carries a secret token, which becomes a cookie at the first visit, and the server answers to the
names it was started under alone: a page elsewhere that lets its own name point here (DNS rebinding)
is refused by the Host header.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import shlex
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import click

from packager.errors import usage

if TYPE_CHECKING:
    from aiohttp import web

COOKIE = "qwen_pack_token"
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})


def check_host(host: str, consent: bool) -> None:
    """Refuse every interface but loopback, unless the person has said that this is meant. Raises
    PackError (usage)."""
    if is_loopback(host) or consent:
        return
    raise usage(
        f"{host} can be reached from other machines: whoever has the address could build and "
        "delete packages as you, "
        "and the token in it travels unencrypted.",
        "Use an SSH tunnel (ssh -L 8000:127.0.0.1:8000 THIS-MACHINE), or add "
        "--i-know-it-is-exposed.",
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def guard(token: str, names: frozenset[str]) -> Callable[..., Awaitable[web.StreamResponse]]:
    """The middleware that stands before every page: known host names only, own origin only, the
    token or its cookie."""
    from aiohttp import web

    @web.middleware
    async def middleware(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        host = request.headers.get("Host", "")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if names and name not in names:
            raise web.HTTPForbidden(text="This server does not answer to that name.")
        origin = request.headers.get("Origin")
        if origin is not None and origin.partition("://")[2] != host:
            raise web.HTTPForbidden(text="Another page may not talk to this server.")
        given = request.query.get("token")
        if (
            given is not None
            and hmac.compare_digest(given.encode(), token.encode())
            and request.path == "/"
        ):
            # The secret leaves the address bar and the history: the page itself is asked for again
            # without it.
            answer = web.HTTPFound("/")
            answer.set_cookie(COOKIE, token, httponly=True, samesite="Strict", path="/")
            raise answer
        if not hmac.compare_digest(request.cookies.get(COOKIE, "").encode(), token.encode()):
            raise web.HTTPForbidden(
                text="The address lacks its token; use the one that the terminal shows."
            )
        answer_ = await handler(request)
        answer_.headers.setdefault("Referrer-Policy", "no-referrer")
        return answer_

    return middleware


def serve(host: str, port: int, consent: bool) -> None:
    """Serve until Ctrl-C; one process of the interface per browser tab."""
    check_host(host, consent)
    _check_free(host, port)
    from aiohttp import web
    from textual_serve.server import Server

    token = secrets.token_urlsafe(24)
    names = (
        _LOOPBACK_NAMES
        if is_loopback(host)
        else frozenset({host})
        if host not in ("0.0.0.0", "::")
        else frozenset()
    )
    shown = f"[{host}]" if ":" in host else host

    class Guarded(Server):
        """textual-serve behind the guard, saying its address on stderr."""

        async def _make_app(self) -> web.Application:
            app: web.Application = await super()._make_app()
            app.middlewares.append(guard(token, names))
            return app

        async def on_startup(self, app: web.Application) -> None:
            """Say nothing yet: nobody listens before the application has started."""

        def serve(self, debug: bool = False) -> None:
            """Until Ctrl-C, without an access log: it would hold the token."""
            web.run_app(
                self._make_app(), host=self.host, port=self.port, print=announce, access_log=None
            )

    def announce(*_: object) -> None:
        click.echo(f"Open http://{shown}:{port}/?token={token}", err=True)
        click.echo("Anyone with this address acts as you. Ctrl-C ends it.", err=True)

    command = shlex.join([sys.executable, "-m", "packager.cli", "tui"])
    Guarded(
        command, host=host, port=port, title="qwen-pack", public_url=f"http://{shown}:{port}"
    ).serve()


def _check_free(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise usage(
                f"Port {port} on {host} cannot be used: {error.strerror}.",
                "Choose another with --port.",
            ) from None
