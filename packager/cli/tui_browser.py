"""The terminal interface in a browser: loopback only, behind a token, every other host name and
origin refused.

Who reaches the page can build and delete packages as the user who started it. So the address
carries a secret token, which is exchanged for a cookie at the first visit, and the server answers
to the names it was started under alone: a page elsewhere that lets its own name point here (DNS
rebinding) is refused by the Host header.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from packager.cli.output import say
from packager.cli.ports import free_port
from packager.errors import usage

if TYPE_CHECKING:
    from aiohttp import web

_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
_SHUTDOWN_S = 3.0
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


@dataclass(frozen=True)
class Secrets:
    """What lets a browser in: the token in the address, and the cookie that it is exchanged for,
    both of this server alone.

    Cookies know no ports: without a name of its own every server on this machine would be sent
    those of the others.
    """

    port: int
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    session: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    instance: str = field(default_factory=lambda: secrets.token_hex(4))

    @property
    def cookie(self) -> str:
        """The name of the cookie."""
        return f"qwen_pack_{self.port}_{self.instance}"


def guard(own: Secrets, names: frozenset[str]) -> Callable[..., Awaitable[web.StreamResponse]]:
    """The middleware that stands before every page and the socket: known host names, own origin,
    the token or its cookie."""
    from aiohttp import web

    @web.middleware
    async def middleware(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        host = request.headers.get("Host", "")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if not _HOST.fullmatch(host) or (names and name.casefold() not in names):
            raise web.HTTPForbidden(text="This server does not answer to that name.")
        origin = request.headers.get("Origin")
        # Every browser names the page that opens a socket.
        if (origin is not None or request.path == "/ws") and origin != f"http://{host}":
            raise web.HTTPForbidden(text="Another page may not talk to this server.")
        given = request.query.get("token")
        if given is not None and _equal(given, own.token) and request.path == "/":
            # The secret leaves the address bar and the history: the page itself is asked for again
            # without it.
            answer = web.HTTPFound("/")
            answer.set_cookie(own.cookie, own.session, httponly=True, samesite="Strict", path="/")
            raise answer
        if not _equal(request.cookies.get(own.cookie, ""), own.session):
            raise web.HTTPForbidden(
                text="The address lacks its token; use the one that the terminal shows."
            )
        return await handler(request)

    return middleware


def _equal(given: str, secret: str) -> bool:
    return hmac.compare_digest(given.encode(errors="surrogateescape"), secret.encode())


async def _protect(request: web.Request, answer: web.StreamResponse) -> None:
    """Headers of every answer: no address goes to another host, nothing is kept, no other page
    holds this one in a frame."""
    answer.headers["Referrer-Policy"] = "no-referrer"
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["X-Content-Type-Options"] = "nosniff"
    answer.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    sockets = f"ws://{request.host}" if _HOST.fullmatch(request.host) else "'none'"
    own = (
        "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' "
        "'unsafe-inline'; img-src 'self' data:"
    )
    answer.headers["Content-Security-Policy"] = (
        f"{own}; font-src 'self' data:; connect-src 'self' {sockets}; frame-ancestors 'none'; "
        "base-uri 'none'; form-action 'none'"
    )


def serve(host: str, port: int, consent: bool) -> None:
    """Serve until Ctrl-C; one process of the interface per browser tab."""
    check_host(host, consent)
    free_port(host, port)
    # Late: they belong to the extra for the interface.
    from aiohttp import web

    from packager.cli.tabs import TabServer

    own = Secrets(port)
    every_address = host in ("0.0.0.0", "::")
    itself = frozenset() if every_address else frozenset({host})
    names = _LOOPBACK_NAMES if is_loopback(host) else itself
    shown = f"[{host}]" if ":" in host and not host.startswith("[") else host
    names = names | {shown.casefold()} if names else names

    class Guarded(TabServer):
        """The server behind the guard, saying its address on stderr."""

        async def _make_app(self) -> web.Application:
            app: web.Application = await super()._make_app()
            app.middlewares.append(guard(own, names))
            app.on_response_prepare.append(_protect)
            return app

        def serve(self, debug: bool = False) -> None:
            """Until Ctrl-C, without an access log: it would hold the token."""
            web.run_app(
                self._make_app(),
                host=self.host,
                port=self.port,
                print=announce,
                access_log=None,
                shutdown_timeout=_SHUTDOWN_S,
            )

    def announce(*_: object) -> None:
        say(f"Open http://{shown}:{port}/?token={own.token}", err=True)
        say("Anyone with this address acts as you. Ctrl-C ends it.", err=True)

    # The command stands in no process list: the tabs start their own.
    Guarded(
        "qwen-pack", host=host, port=port, title="qwen-pack", public_url=f"http://{shown}:{port}"
    ).serve()
