"""Requests to one registry: log-ins by its own rules, redirects by ours, nothing read without a
bound.

No redirect leads from TLS to none, or without TLS to another host; the log-in follows none to
another host.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from packager.errors import ExitCode, PackError, unreachable, usage
from packager.shipping import credentials, registry_auth
from packager.shipping.registry_auth import as_it_is, shown_host

if TYPE_CHECKING:
    import requests

_TIMEOUT = (10.0, 60.0)  # seconds to connect, and between two pieces of an answer
_MOST_REDIRECTS = 5
_KEPT_BYTES = 1 << 16  # an answer nobody reads is read so far, to keep the connection
_DIGITS = 15  # of a length at most: Python makes no number of thousands of them
_SLOWEST, _SLOW_S = 1024, 60.0  # bytes a second, over so many seconds


class Http:
    """One registry and one repository in it. `allowed` are hosts beside its own that its log-in may
    go to."""

    def __init__(self, registry: str, base: str, name: str, allowed: Collection[str] = ()) -> None:
        """Raises PackError (usage) where the client is not installed."""
        self._registry, self._base, self._name, self._allowed = registry, base, name, allowed
        self._session = _session()
        self._authorization = ""
        self._search: credentials.Search | None = None

    def ask(
        self,
        method: str,
        url: str,
        push: bool,
        headers: dict[str, str] | None = None,
        data: bytes | None = None,
    ) -> requests.Response:
        """One answer, its body not read yet. A 401 is answered once, with the log-in that there
        is."""
        answer = self._followed(method, url, headers or {}, data)
        if answer.status_code != 401:
            return answer
        asked = registry_auth.challenge(answer.headers.get("WWW-Authenticate", ""))
        # Only the registry itself is logged in to, not where it sends us for a blob.
        if asked is None or not _same(answer.url, self._base):
            return answer
        answer.close()
        self._authorization = self._answer_to(asked, push)
        return self._followed(method, url, headers or {}, data)

    def refused(self) -> PackError:
        """The sentence for a registry that does not let us in."""
        host, login = self._registry, self._search.login if self._search else None
        if login is None:
            troubles = " ".join(self._search.troubles) if self._search else ""
            hint = f"docker login {host}, podman login {host} or skopeo login {host}."
            return PackError(
                f"{host} asks for a log-in with the right to do this.",
                f"{troubles} {hint}".strip(),
                ExitCode.SOURCE,
            )
        return PackError(
            f"{host} asks for a log-in with the right to do this, and the one in {login.source} "
            "does not have it.",
            f"docker login {host}, podman login {host} or skopeo login {host}.",
            ExitCode.SOURCE,
        )

    def _answer_to(self, asked: registry_auth.Challenge, push: bool) -> str:
        if asked.scheme == "bearer":
            registry_auth.check_realm(self._registry, self._base, asked.realm, self._allowed)
        if self._search is None:
            self._search = credentials.find(self._registry, self._name)
        login = self._search.login
        if asked.scheme == "basic":
            if login is None or not login.username:
                raise self.refused()
            return f"Basic {login.basic}"
        # The scope is ours to say: what the registry names could reach further than this
        # repository.
        scope = f"repository:{self._name}:{'pull,push' if push else 'pull'}"
        token = registry_auth.token(self._session, self._registry, asked, login, scope, _TIMEOUT)
        if not token:
            raise self.refused()
        return f"Bearer {token}"

    def _followed(
        self, method: str, url: str, headers: dict[str, str], data: bytes | None
    ) -> requests.Response:
        for _ in range(_MOST_REDIRECTS + 1):
            own = {"Accept-Encoding": "identity", **headers}
            if self._authorization and _same(url, self._base):
                own["Authorization"] = self._authorization
            answer = self._session.request(
                method,
                url,
                headers=own,
                data=data,
                timeout=_TIMEOUT,
                allow_redirects=False,
                stream=True,
                auth=as_it_is,
            )
            if not answer.is_redirect:
                return answer
            target = urljoin(answer.url, answer.headers["Location"])
            answer.close()
            self._check_redirect(method, url, target)
            url = target
        raise unreachable(f"{self._registry} redirects in a loop.", "Try again later.")

    def _check_redirect(self, method: str, url: str, target: str) -> None:
        if _same(url, target):
            return
        try:
            there = urlsplit(target)
            named = f"{there.scheme}://{shown_host(there.hostname or '', there.port)}"
        except ValueError:
            raise registry_auth.odd(self._registry, "redirects to no valid address") from None
        if (
            urlsplit(url).scheme == there.scheme == "https"
            and method in ("GET", "HEAD")
            and there.username is None
        ):
            return
        raise unreachable(
            f"{self._registry} redirects to {named.encode('ascii', 'backslashreplace').decode()}, "
            "which is refused.",
            "Name that registry itself.",
        )


def drained(answer: requests.Response) -> requests.Response:
    """The answer with its body read where it is short, so that the connection serves again, else
    closed."""
    length = answer.headers.get("Content-Length", "")
    if length.isdecimal() and len(length) <= _DIGITS and int(length) <= _KEPT_BYTES:
        left = int(length)
        while left > 0 and (piece := answer.raw.read1(left, decode_content=False)):
            left -= len(piece)
    answer.close()
    return answer


def pieces(answer: requests.Response, registry: str) -> Iterator[bytes]:
    """The body as it comes, not unpacked. Raises PackError (exit code 5) for one that all but
    stands still."""
    if answer.headers.get("Content-Encoding", "identity").casefold() != "identity":
        raise registry_auth.odd(registry, "compresses its answer although that was refused")
    since, got = time.monotonic(), 0
    while piece := answer.raw.read1(1 << 20, decode_content=False):
        got += len(piece)
        now = time.monotonic()
        if now - since >= _SLOW_S:
            if got < _SLOWEST * _SLOW_S:
                raise unreachable(
                    f"{registry} sends less than {_SLOWEST} bytes a second.", "Try again later."
                )
            since, got = now, 0
        yield piece


def _same(one: str, other: str) -> bool:
    """Whether two addresses are of one host, port and scheme."""
    first, second = urlsplit(one), urlsplit(other)
    return (first.scheme, first.netloc.casefold()) == (second.scheme, second.netloc.casefold())


def _session() -> requests.Session:
    try:
        import requests
    except ImportError:
        raise usage(
            "Registries need the requests library, which is not installed.",
            "pip install 'qwen-pack[ship]'",
        ) from None
    from http.cookiejar import DefaultCookiePolicy

    session = requests.Session()
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers["User-Agent"] = "qwen-pack"
    return session
