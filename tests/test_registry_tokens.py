"""A log-in is sent to nobody but the registry it is for, and to whom the user allows."""

from __future__ import annotations

import gzip
import ssl
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from packager.errors import ExitCode, PackError
from packager.shipping.registry_auth import Challenge, challenge, check_realm
from packager.shipping.registry_client import Repository
from tests.support.certificates import self_signed
from tests.support.registry_logins import (
    MANIFEST,
    SECRET,
    Handler,
    Served,
    asks,
    auths,
    empty_home,
    entry,
    gives,
    reply,
    server,
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return empty_home(tmp_path, monkeypatch)


def ask(registry: Served, home: Path, *allowed: str) -> PackError:
    """Ask for a manifest with a log-in at hand; nothing here ever gives one."""
    auths(home / ".docker" / "config.json", **{registry.host: entry()})
    with pytest.raises(PackError) as caught:
        Repository(f"{registry.host}/team/x:v1", allowed).manifest()
    assert caught.value.exit_code == ExitCode.SOURCE
    assert str(caught.value).isprintable(), str(caught.value)
    return caught.value


def test_a_realm_at_another_host_hears_nothing_until_the_user_allows_it(home: Path) -> None:
    with server() as registry, server() as thief:
        thief.answers["/token"] = gives("abc")
        registry.answers[MANIFEST] = asks(f"http://{thief.host}/token")
        error = ask(registry, home)
        assert thief.host in error.message and f"--token-host {thief.host}" in error.hint
        assert thief.heard == []


def test_the_registry_itself_may_give_tokens_for_what_we_ask_and_nothing_more(home: Path) -> None:
    def manifest(handler: BaseHTTPRequestHandler) -> None:
        if handler.headers.get("Authorization") == "Bearer abc":
            reply(handler, 200, b"{}")
        else:
            asks(f"http://{registry.host}/token", scope="repository:secrets/all:pull,push,delete")(
                handler
            )

    with server() as registry:
        registry.answers |= {MANIFEST: manifest, "/token": gives("abc")}
        auths(home / ".docker" / "config.json", **{registry.host: entry()})
        assert Repository(f"{registry.host}/team/x:v1").manifest() == b"{}"
    asked = [line for line in registry.heard if "/token" in line[0]]
    assert asked == [("GET /token?scope=repository%3Ateam%2Fx%3Apull&service=s", f"Basic {SECRET}")]


def test_an_identity_token_is_exchanged_where_it_belongs(home: Path) -> None:
    bodies: list[bytes] = []

    def manifest(handler: BaseHTTPRequestHandler) -> None:
        reply(handler, 200, b"{}") if handler.headers.get("Authorization") else asks(
            f"http://{registry.host}/token"
        )(handler)

    def exchange(handler: BaseHTTPRequestHandler) -> None:
        bodies.append(handler.rfile.read(int(handler.headers["Content-Length"])))
        reply(handler, 200, b'{"access_token": "abc"}')

    with server() as registry:
        registry.answers |= {MANIFEST: manifest, "/token": exchange}
        auths(
            home / ".docker" / "config.json",
            **{registry.host: {"identitytoken": "identity", "auth": ""}},
        )
        assert Repository(f"{registry.host}/team/x:v1").manifest() == b"{}"
    assert b"grant_type=refresh_token" in bodies[0] and b"refresh_token=identity" in bodies[0]


REALMS: dict[str, tuple[str, str, tuple[str, ...], str | None]] = {
    "its own host": ("r.example", "https://r.example/token", (), None),
    "its own host in capitals": ("r.example", "https://R.Example/token", (), None),
    "docker hub": ("docker.io", "https://auth.docker.io/token", (), None),
    "allowed": ("r.example", "https://auth.example/t", ("auth.example",), None),
    "allowed with a port": ("r.example", "https://auth.example:444/t", ("auth.example:444",), None),
    "another host": ("r.example", "https://evil.example/t", (), "another host, evil.example"),
    "a host that begins the same": ("r.example", "https://r.example.evil/t", (), "r.example.evil"),
    "another port": ("r.example", "https://r.example:444/t", (), "r.example:444"),
    "an allowed host at another port": (
        "r.example",
        "https://auth.example:1/t",
        ("auth.example",),
        "auth.example:1",
    ),
    "docker's for others": ("r.example", "https://auth.docker.io/token", (), "auth.docker.io"),
    "without TLS": ("r.example", "http://r.example/token", (), "without TLS"),
    "allowed without TLS": ("r.example", "http://auth.example/t", ("auth.example",), "without TLS"),
    "with a user": ("r.example", "https://r.example@evil.example/t", (), "no valid address"),
    "a file": ("r.example", "file:///etc/passwd", (), "no valid address"),
    "nothing": ("r.example", "", (), "no valid address"),
    "a broken address": ("r.example", "https://[evil/t", (), "no valid address"),
    "an escape": ("r.example", "https://evil.example/\x1b[2J", (), "no valid address"),
    "letters of another script": ("r.example", "https://r.ex\u0430mple/t", (), "another host"),
}


@pytest.mark.parametrize("case", REALMS)
def test_a_log_in_goes_to_the_registry_and_to_whom_the_user_allows(case: str) -> None:
    registry, realm, allowed, word = REALMS[case]
    base = (
        "https://registry-1.docker.io/v2/x"
        if registry == "docker.io"
        else f"https://{registry}/v2/x"
    )
    if word is None:
        check_realm(registry, base, realm, allowed)
        return
    with pytest.raises(PackError) as caught:
        check_realm(registry, base, realm, allowed)
    assert (
        caught.value.exit_code == ExitCode.SOURCE
        and word in str(caught.value)
        and str(caught.value).isascii()
    )


def test_a_redirect_takes_the_log_in_nowhere_else(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = self_signed(tmp_path, "127.0.0.1", "127.0.0.2")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    # An address of loopback that is not plain by our rule: it is spoken to in TLS, as every other
    # host.
    with (
        server(context, "127.0.0.2") as registry,
        server(context, "127.0.0.2") as store,
        server(host="127.0.0.2") as plain,
    ):

        def manifest(handler: BaseHTTPRequestHandler) -> None:
            if not handler.headers.get("Authorization"):
                reply(handler, 401, WWW_Authenticate='Basic realm="x"')
            else:
                reply(handler, 307, Location=f"https://{store.host}/there")

        store.answers["/there"] = lambda handler: reply(handler, 200, b"{}")
        registry.answers[MANIFEST] = manifest
        auths(
            home / ".docker" / "config.json", **{registry.host: entry(), store.host: entry("other")}
        )
        (home / ".netrc").write_text("machine 127.0.0.2 login evil password evil\n")
        assert Repository(f"{registry.host}/team/x:v1").manifest() == b"{}"
        assert [login for _, login in registry.heard] == [None, f"Basic {SECRET}"]
        assert store.heard == [("GET /there", None)]
        # A 401 of the store is not answered, and no realm without TLS is.
        store.answers["/there"] = lambda handler: reply(
            handler, 401, WWW_Authenticate='Basic realm="x"'
        )
        ask(registry, home)
        assert {login for _, login in store.heard} == {None}
        registry.answers[MANIFEST] = asks(f"http://{plain.host}/token")
        assert "without TLS" in ask(registry, home, plain.host).message
        registry.answers[MANIFEST] = lambda handler: reply(
            handler, 307, Location=f"http://{plain.host}/there"
        )
        assert "refused" in ask(registry, home).message
        assert plain.heard == []


def _endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(bytes(1 << 16))


def _dripping(handler: BaseHTTPRequestHandler) -> None:
    """Until nobody listens: who reads to the end never gets there."""
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)


BOMB = gzip.compress(bytes(50 << 20))
TOKENS: dict[str, Handler] = {
    "a list": lambda h: reply(h, 200, b'["abc"]'),
    "a number": lambda h: reply(h, 200, b"5"),
    "a number as token": gives(5),
    "nothing": lambda h: reply(h, 200, b""),
    "null": lambda h: reply(h, 200, b"null"),
    "an empty token": gives(""),
    "a token with a line break": gives("abc\r\nX-Evil: 1"),
    "a token with an escape": gives("abc\x1b[2J"),
    "a token without end": gives("a" * 100_000),
    "no JSON": lambda h: reply(h, 200, b"<html>\x1b[2J"),
    "lists without end": lambda h: reply(h, 200, b"[" * 500_000),
    "a body without end": _endless,
    "a body that drips": _dripping,
    "a bomb": lambda h: reply(h, 200, BOMB, Content_Encoding="gzip"),
    "a redirect": lambda h: reply(h, 302, Location="http://127.0.0.1:1/"),
    "an escape as reason": lambda h: reply(h, 500, reason="\x1b[2J\x1b]0;evil\x07"),
    "no entry": lambda h: reply(h, 403),
}


@pytest.mark.parametrize("case", TOKENS)
def test_an_odd_answer_to_a_request_for_a_token_is_one_sentence(
    case: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("packager.shipping.registry_auth._TOKEN_S", 1.0)
    with server() as registry:
        registry.answers |= {
            MANIFEST: asks(f"http://{registry.host}/token"),
            "/token": TOKENS[case],
        }
        ask(registry, home)


CHALLENGES = {
    'Bearer realm="https://a/t",service="s"': Challenge("bearer", "https://a/t", "s"),
    "bearer realm=https://a/t": Challenge("bearer", "https://a/t", ""),
    'Basic realm="Registry Realm"': Challenge("basic"),
    'Basic realm="x", Bearer realm="https://a/t"': Challenge("bearer", "https://a/t", ""),
    "Negotiate": None,
    "": None,
    'Digest realm="basic"': None,
}


@pytest.mark.parametrize("header", CHALLENGES)
def test_a_challenge_is_read_as_it_is_written(header: str) -> None:
    assert challenge(header) == CHALLENGES[header]


@pytest.mark.parametrize(
    "header",
    [None, "Negotiate", "Bearer", 'Bearer realm="', "\x80\x81", "Bearer " + "a=b," * 50_000],
)
def test_a_challenge_that_we_cannot_answer_is_one_sentence(header: str | None, home: Path) -> None:
    with server() as registry:
        registry.answers[MANIFEST] = lambda handler: reply(
            handler, 401, **({"WWW_Authenticate": header} if header else {})
        )
        ask(registry, home)


def test_a_registry_is_asked_under_the_name_that_answers() -> None:
    assert Repository("docker.io/qwen:v1")._base == "https://registry-1.docker.io/v2/library/qwen"
    assert (
        Repository("index.docker.io/team/qwen:v1")._base
        == "https://registry-1.docker.io/v2/team/qwen"
    )
    assert Repository("r.example/qwen:v1")._base == "https://r.example/v2/qwen"


def test_packed_bodies_and_escapes_in_reasons_are_refused_everywhere(home: Path) -> None:
    with server() as registry:
        registry.answers[MANIFEST] = lambda handler: reply(
            handler, 200, BOMB, Content_Encoding="gzip"
        )
        assert "compresses its answer" in ask(registry, home).message
        registry.answers[MANIFEST] = lambda handler: reply(
            handler, 500, reason="\x1b[31mevil\x9b2J"
        )
        assert "500" in ask(registry, home).message
