"""Log-ins: found where podman, skopeo and docker leave them, and sent to nobody but the registry
they are for."""

from __future__ import annotations

import base64
import gzip
import json
import os
import shutil
import ssl
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from packager.cli import main
from packager.errors import ExitCode, PackError
from packager.shipping import credentials
from packager.shipping.registry import pull, push
from packager.shipping.registry_auth import Challenge, challenge, check_realm
from packager.shipping.registry_client import Repository
from tests.support.make_package import write_package
from tests.support.oci_registry import HTPASSWD, real_registry
from tests.test_shipping_archive import AGREED, finish, tree

USER, PASSWORD = "builder", "open sesame: 1"
SECRET = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
Handler = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without log-ins."""
    place = tmp_path / "home"
    (place / "run").mkdir(parents=True)
    for name in ("REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place / "run"))
    return place


def auths(path: Path, **keys: dict[str, Any]) -> Path:
    """A file of log-ins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"auths": keys}))
    return path


def entry(user: str = USER, password: str = PASSWORD) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def helper(folder: Path, name: str, script: str) -> str:
    """A credential helper in the search path; returns the new path."""
    folder.mkdir(exist_ok=True)
    program = folder / f"docker-credential-{name}"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


# Where a log-in is found.


def test_each_tool_has_its_own_file_and_the_first_that_knows_the_registry_counts(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {
        "docker": home / ".docker" / "config.json",
        "podman": home / ".config" / "containers" / "auth.json",
        "runtime": home / "run" / "containers" / "auth.json",
    }
    for user, path in places.items():
        auths(path, **{"r.example": entry(user)})
        login = credentials.find("r.example", "team/tiny").login
        assert login is not None and (login.username, login.password, login.source) == (
            user,
            PASSWORD,
            str(path),
        )
    auths(home / "elsewhere" / "config.json", **{"r.example": entry("moved")})
    monkeypatch.setenv("DOCKER_CONFIG", str(home / "elsewhere"))
    for user in ("podman", "runtime"):
        places[user].unlink()
    found = credentials.find("r.example", "x").login
    assert found is not None and found.username == "moved"
    monkeypatch.setenv(
        "REGISTRY_AUTH_FILE", str(auths(home / "named.json", **{"other.example": entry()}))
    )
    assert credentials.find("r.example", "x").login is None
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(home / "absent.json"))
    with pytest.raises(PackError, match="REGISTRY_AUTH_FILE") as caught:
        credentials.find("r.example", "x")
    assert caught.value.exit_code == ExitCode.USAGE


def test_the_most_exact_key_counts_and_docker_hub_has_many_names(home: Path) -> None:
    auths(
        home / "run" / "containers" / "auth.json",
        **{
            "r.example": entry("host"),
            "r.example/team": entry("team"),
            "r.example/team/tiny": entry("tiny"),
            "https://index.docker.io/v1/": entry("hub"),
            "docker.io/team": entry("hub-team"),
            "http://old.example/v1/": entry("old"),
            "R.UPPER.example:5000": entry("upper"),
        },
    )

    def user(host: str, name: str) -> str | None:
        login = credentials.find(host, name).login
        return login.username if login else None

    assert [
        user("r.example", name)
        for name in ("team/tiny", "team/tiny/more", "team/other", "teams/tiny")
    ] == [
        "tiny",
        "tiny",
        "team",
        "host",
    ]
    assert [
        user(host, "library/x") for host in ("docker.io", "index.docker.io", "registry-1.docker.io")
    ] == ["hub"] * 3
    assert user("docker.io", "team/x") == "hub-team"
    assert user("old.example", "x") == "old"
    assert user("r.upper.example:5000", "x") == "upper"
    assert (
        user("r.example.evil", "x") is None
        and user("evil-r.example", "x") is None
        and user("r.example:444", "x") is None
    )


def test_a_credential_helper_is_asked_and_what_keeps_it_from_answering_is_said(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = home / ".docker" / "config.json"
    config.parent.mkdir()
    answer = (
        'read -r server; printf \'{"Username":"%s","Secret":"s","ServerURL":"%s"}\' "$server" '
        '"$server"'
    )
    monkeypatch.setenv("PATH", helper(tmp_path / "bin", "mine", answer))
    config.write_text(
        json.dumps(
            {"auths": {"r.example": {}}, "credHelpers": {"r.example": "mine", "docker.io": "mine"}}
        )
    )

    def found(host: str) -> credentials.Search:
        return credentials.find(host, "x", os.environ)

    first, hub = found("r.example").login, found("docker.io").login
    assert first and first.username == "r.example" and first.password == "s"
    assert hub and hub.username == "https://index.docker.io/v1/"
    assert found("other.example").login is None
    config.write_text(json.dumps({"credsStore": "mine"}))
    assert found("other.example").login is not None
    config.write_text(json.dumps({"credsStore": "absent", "auths": {"r.example": entry()}}))
    search = found("r.example")
    assert search.login and "docker-credential-absent, which is not installed" in search.troubles[0]
    helper(tmp_path / "bin", "mine", 'printf \'{"Username":"<token>","Secret":"identity"}\'')
    config.write_text(json.dumps({"credsStore": "mine"}))
    token = found("r.example").login
    assert token and token.identity_token == "identity" and not token.username
    for script in ("exit 3", "echo nothing", "echo '[]'", "echo '{\"Username\": 1}'"):
        helper(tmp_path / "bin", "mine", script)
        assert found("r.example").login is None and found("r.example").troubles


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "[]",
            '{"auths": []}',
            '{"auths": {"r.example": 1}}',
            '{"auths": {"r.example": {"auth": "%%%"}}}',
            "[" * 99_999,
        ),
        *(
            '{"auths": {"r.example": {"auth": "bm8="}}}',
            '{"auths": {"r.example": {"auth": 5}}}',
            '{"credsStore": "../../evil"}',
        ),
    ],
)
def test_a_file_that_is_no_file_of_log_ins_is_named(home: Path, text: str) -> None:
    path = home / ".docker" / "config.json"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(PackError) as caught:
        credentials.find("r.example", "x")
    assert caught.value.exit_code == ExitCode.INPUT and str(path) in str(caught.value)


def test_a_login_does_not_show_its_secret() -> None:
    assert PASSWORD not in repr(credentials.Login("file", USER, PASSWORD, PASSWORD))


# A registry that asks for a Basic log-in.


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with real_registry(tmp_path_factory.mktemp("registry"), f"{HTPASSWD}\n") as host:
        yield host


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "tiny").mkdir()
    return write_package(tmp_path / "tiny")


def test_a_package_goes_to_a_registry_with_htpasswd_and_comes_back(
    locked: str, package: Path, tmp_path: Path, home: Path
) -> None:
    auths(home / ".docker" / "config.json", **{locked: entry()})
    finish(push(package, f"{locked}/team/tiny:v1", **AGREED))
    assert tree(finish(pull(f"{locked}/team/tiny:v1", tmp_path / "back")).path) == tree(package)


@pytest.mark.skipif(not shutil.which("skopeo"), reason="needs skopeo")
def test_the_log_in_that_skopeo_writes_is_used(
    locked: str, package: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["skopeo", "login", "--tls-verify=false", "--username", USER, "--password-stdin", locked]
    subprocess.run(line, input=PASSWORD.encode(), check=True, capture_output=True)
    assert list(home.rglob("auth.json"))
    finish(push(package, f"{locked}/team/skopeo:v1", **AGREED))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(home / "own.json"))
    subprocess.run(line, input=PASSWORD.encode(), check=True, capture_output=True)
    shutil.rmtree(home / "run")
    finish(push(package, f"{locked}/team/skopeo:v2", **AGREED))


def test_a_log_in_that_is_missing_or_wrong_is_said_with_the_file_that_holds_it(
    locked: str, package: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "push",
        str(package),
        f"{locked}/team/no:v1",
        "--allow-dummy",
        "--accept-license",
        "unstated",
    ]
    assert main(words) == ExitCode.SOURCE
    error = capsys.readouterr().err
    assert "asks for a log-in" in error and f"podman login {locked}" in error
    path = auths(home / ".docker" / "config.json", **{locked: entry(password="wrong")})
    assert main(words) == ExitCode.SOURCE
    error = capsys.readouterr().err
    assert str(path) in error and "wrong" not in error


# Registries that want the log-in for somebody else.


@dataclass
class Served:
    """A server on loopback, and what was asked of it: method and path with the log-in that came
    along."""

    host: str
    answers: dict[str, Handler]
    heard: list[tuple[str, str | None]] = field(default_factory=list)


@contextmanager
def server(context: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Iterator[Served]:
    """A server whose answers, by path without its question, write themselves; 404 for the rest."""
    served = Served("", {})

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.heard.append((f"{self.command} {self.path}", self.headers.get("Authorization")))
            found = served.answers.get(self.path.partition("?")[0])
            if found is None:
                reply(self, 404)
            else:
                with suppress(OSError):
                    found(self)

        do_POST = do_PUT = do_HEAD = do_PATCH = do_GET

        def log_message(self, *arguments: object) -> None:
            return None

    listening = ThreadingHTTPServer((host, 0), Answering)
    listening.daemon_threads = True
    if context is not None:
        listening.socket = context.wrap_socket(listening.socket, server_side=True)
    served.host = f"{host}:{listening.server_address[1]}"
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()


def reply(
    handler: BaseHTTPRequestHandler,
    status: int,
    body: bytes = b"",
    reason: str | None = None,
    **headers: str,
) -> None:
    handler.send_response(status, reason)
    for name, value in {
        "Content-Length": str(len(body)),
        **{key.replace("_", "-"): value for key, value in headers.items()},
    }.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def asks(realm: str, **more: str) -> Handler:
    """A 401 that names a realm."""
    rest = "".join(f',{key}="{value}"' for key, value in more.items())
    return lambda handler: reply(
        handler, 401, WWW_Authenticate=f'Bearer realm="{realm}",service="s"{rest}'
    )


def gives(token: Any) -> Handler:
    return lambda handler: reply(handler, 200, json.dumps({"token": token}).encode())


MANIFEST = "/v2/team/x/manifests/v1"


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
    "with a user": ("r.example", "https://r.example@evil.example/t", (), "no place"),
    "a file": ("r.example", "file:///etc/passwd", (), "no place"),
    "nothing": ("r.example", "", (), "no place"),
    "a broken address": ("r.example", "https://[evil/t", (), "no place"),
    "an escape": ("r.example", "https://evil.example/\x1b[2J", (), "no place"),
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
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    name = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1,IP:127.0.0.2"]
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-keyout",
        key,
        "-out",
        certificate,
        *name,
    ]
    if not shutil.which("openssl"):
        pytest.skip("needs openssl")
    subprocess.run(made, check=True, capture_output=True)
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
    handler.send_response(200)
    handler.end_headers()
    for _ in range(600):
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
    started = time.monotonic()
    with server() as registry:
        registry.answers |= {
            MANIFEST: asks(f"http://{registry.host}/token"),
            "/token": TOKENS[case],
        }
        ask(registry, home)
    assert time.monotonic() - started < 20


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
        assert "unpacked" in ask(registry, home).message
        registry.answers[MANIFEST] = lambda handler: reply(
            handler, 500, reason="\x1b[31mevil\x9b2J"
        )
        assert "500" in ask(registry, home).message
