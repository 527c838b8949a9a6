"""How a registry wants to be talked to: its challenge, and the token or the header that answers it.

A registry names the place that gives tokens itself, so a hostile one could name anybody's. The
log-in goes to the registry's own host, to a host that is known to serve it, or to one that the user
allowed, and never from TLS to none.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from packager.errors import PackError, unreachable
from packager.shipping.credentials import Login
from packager.shipping.known_registries import known

if TYPE_CHECKING:
    import requests

_LARGEST_ANSWER = 1 << 20
_TOKEN_S = 30.0
_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
_LONGEST_TOKEN = 1 << 16
_PAIR = re.compile(r'([A-Za-z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_LARGEST_CHALLENGE = 1 << 14


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a 401 asks for: `scheme` is basic or bearer; realm and service belong to the second."""

    scheme: str
    realm: str = ""
    service: str = ""


def challenge(header: str) -> Challenge | None:
    """The strongest of the ways that a WWW-Authenticate header offers and we know; None where there
    is none."""
    text = header[:_LARGEST_CHALLENGE]
    bearer = re.search(r"(?:^|,)\s*bearer\s+", text, re.IGNORECASE)
    if bearer:
        rest = text[bearer.end() :]
        pairs = {
            name.casefold(): quoted or plain
            for name, quoted, plain in reversed(_PAIR.findall(rest))
        }
        return Challenge("bearer", pairs.get("realm", ""), pairs.get("service", ""))
    if re.search(r"(?:^|,)\s*basic(\s|$)", text, re.IGNORECASE):
        return Challenge("basic")
    return None


def check_realm(registry: str, base: str, realm: str, allowed: Collection[str]) -> None:
    """Raise PackError (exit code 5) for a realm that a log-in for the registry `registry` at `base`
    must not go to."""
    try:
        here, there = urlsplit(base), urlsplit(realm)
        host, port = there.hostname or "", there.port
    except ValueError:
        raise odd(registry, "names no valid address for tokens") from None
    if (
        there.scheme not in ("http", "https")
        or not host
        or there.username is not None
        or not realm.isprintable()
    ):
        raise odd(registry, "names no valid address for tokens")
    named = shown_host(host, port)
    if here.scheme == "https" and there.scheme != "https":
        raise unreachable(
            f"{registry} wants the log-in sent to {named} without TLS, which is refused.",
            "Tell whoever runs that registry.",
        )
    if there.netloc.casefold() == here.netloc.casefold() and there.scheme == here.scheme:
        return
    listed = known(registry)
    known_to_serve = (
        there.scheme == "https" and port is None and listed is not None and host in listed.tokens
    )
    if not known_to_serve and named not in {name.casefold() for name in allowed}:
        raise unreachable(
            f"{registry} wants the log-in sent to another host, {named}, which is refused.",
            f"If that host belongs to it, add --token-host {named}.",
        )
    if there.scheme != "https":
        raise unreachable(
            f"{registry} wants the log-in sent to {named} without TLS, which is refused.",
            "Tell whoever runs that registry.",
        )


def shown_host(host: str, port: int | None) -> str:
    """A host as it is named to a person: ASCII that does nothing but show itself."""
    plain = host.casefold().encode("ascii", "backslashreplace").decode()
    return f"{plain}:{port}" if port is not None else plain


def token(
    session: requests.Session,
    registry: str,
    asked: Challenge,
    login: Login | None,
    scope: str,
    timeout: tuple[float, float],
) -> str:
    """A bearer token for `scope`, from a realm that was checked. Raises PackError (exit code 5) for
    an answer that is none."""
    wanted = {"scope": scope, **({"service": asked.service} if asked.service else {})}
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    # The keywords of requests, which has no type for all of them together.
    how: dict[str, Any] = {
        "timeout": timeout,
        "allow_redirects": False,
        "stream": True,
        "auth": as_it_is,
    }
    if login is not None and login.identity_token:
        form = {
            "grant_type": "refresh_token",
            "refresh_token": login.identity_token,
            "client_id": "qwen-pack",
            **wanted,
        }
        answer = session.post(asked.realm, data=form, headers=headers, **how)
    else:
        if login is not None:
            headers["Authorization"] = f"Basic {login.basic}"
        answer = session.get(asked.realm, params=wanted, headers=headers, **how)
    with answer:
        if answer.is_redirect:
            raise odd(registry, "redirects the log-in to another address")
        if answer.status_code in (400, 401, 403):
            return ""
        if answer.status_code != 200:
            raise odd(registry, f"answers {answer.status_code} when it is asked for a token")
        data = _whole(answer, registry)
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        body = None
    bearer = (body.get("token") or body.get("access_token")) if isinstance(body, dict) else None
    if not isinstance(bearer, str) or len(bearer) > _LONGEST_TOKEN or not _TOKEN.fullmatch(bearer):
        raise odd(registry, "gives no token when it is asked for one")
    return bearer


def _whole(answer: requests.Response, registry: str) -> bytes:
    """The body of an answer, bounded in bytes and in time, and never unpacked."""
    if answer.headers.get("Content-Encoding", "identity").casefold() != "identity":
        raise odd(registry, "compresses a token although that was refused")
    end = time.monotonic() + _TOKEN_S
    data = b""
    while piece := answer.raw.read1(1 << 16, decode_content=False):
        data += piece
        if len(data) > _LARGEST_ANSWER:
            raise odd(registry, "sends a token without end")
        if time.monotonic() > end:
            raise odd(registry, "takes too long to send a token")
    return data


def as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """An `auth` that changes nothing: without one, requests would look for a log-in in ~/.netrc and
    send that."""
    return request


def odd(registry: str, what: str) -> PackError:
    """The sentence for what no registry does."""
    return unreachable(
        f"{registry} {what}, which no registry does.",
        "Check the name; or tell whoever runs that registry.",
    )
