"""Log-ins are found where podman, skopeo and docker leave them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from packager.cli import main
from packager.errors import ExitCode, PackError
from packager.shipping import credentials
from packager.shipping.registry import pull, push
from tests.support.make_package import write_package
from tests.support.oci_registry import HTPASSWD, real_registry
from tests.support.registry_logins import (
    PASSWORD,
    USER,
    auths,
    empty_home,
    entry,
    helper,
)
from tests.support.shipping_packages import AGREED, finish, tree


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return empty_home(tmp_path, monkeypatch)


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
