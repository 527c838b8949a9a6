"""Log-ins for registries, where podman, skopeo and docker leave them, by their own rules.

Sources: containers-auth.json(5) of github.com/containers/image, pkg/docker/config/config.go for the
order of files and of keys; github.com/docker/cli, cli/config for DOCKER_CONFIG and helpers;
github.com/docker/docker-credential-helpers for what a helper is asked and answers.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packager.errors import PackError, bad_input, usage
from packager.json_values import JsonObject
from packager.shipping.known_registries import canonical, known

_LARGEST = 1 << 20
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HELPER_S = 60.0
_IDENTITY = "<token>"  # the user name under which helpers keep an identity token
_DOCKER_HUB = (
    "https://index.docker.io/v1/"  # the name under which docker and its helpers keep Docker Hub
)


@dataclass(frozen=True, slots=True)
class Login:
    """A user with a password, or an identity token that is exchanged for others. `source` says
    where it stands."""

    source: str
    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The value of an Authorization header after Basic."""
        return base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


@dataclass(frozen=True, slots=True)
class Search:
    """The log-in that was found, and what kept a helper from answering, as sentences."""

    login: Login | None
    troubles: tuple[str, ...] = ()


def find(host: str, name: str, environment: Mapping[str, str] = os.environ) -> Search:
    """The log-in for a repository of a registry: of the first file that has one, the most exact
    key.

    Raises PackError: 2 where REGISTRY_AUTH_FILE names no file, 6 for a file that is not what it
    should be.
    """
    troubles: list[str] = []
    for path in files(environment):
        data = _read(path)
        if data is None:
            continue
        login = _in_file(path, data, host, name, environment, troubles)
        if login is not None:
            return Search(login, tuple(troubles))
    return Search(None, tuple(troubles))


def files(environment: Mapping[str, str]) -> list[Path]:
    """The files that may hold log-ins, in the order in which podman and skopeo read them; docker's
    come last."""
    named = environment.get("REGISTRY_AUTH_FILE")
    if named:
        if not Path(named).is_file():
            raise usage(
                f"REGISTRY_AUTH_FILE names {named}, which is not a file.",
                "Log in with --authfile, or leave the variable unset.",
            )
        return [Path(named)]
    home = Path(environment.get("HOME") or Path.home())
    config = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    docker = Path(environment.get("DOCKER_CONFIG") or home / ".docker")
    paths = [config / "containers" / "auth.json", docker / "config.json", home / ".dockercfg"]
    if sys.platform == "linux":
        runtime = environment.get("XDG_RUNTIME_DIR") or f"/run/containers/{os.getuid()}"
        paths.insert(
            0,
            Path(runtime) / "containers" / "auth.json"
            if environment.get("XDG_RUNTIME_DIR")
            else Path(runtime) / "auth.json",
        )
    return paths


def _read(path: Path) -> JsonObject | None:
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST + 1)
    except (FileNotFoundError, NotADirectoryError, PermissionError, IsADirectoryError):
        return None
    try:
        data = json.loads(text) if len(text) <= _LARGEST else None
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise _broken(path)
    # The oldest form has the log-ins at the top.
    return {"auths": data} if path.name == ".dockercfg" else data


def _in_file(
    path: Path,
    data: JsonObject,
    host: str,
    name: str,
    environment: Mapping[str, str],
    troubles: list[str],
) -> Login | None:
    helpers, auths = data.get("credHelpers", {}), data.get("auths", {})
    if not isinstance(helpers, dict) or not isinstance(auths, dict):
        raise _broken(path)
    wanted = canonical(host)
    own = [helper for key, helper in helpers.items() if canonical(_registry_of(key)) == wanted]
    for helper in [*own, *([data["credsStore"]] if data.get("credsStore") else [])]:
        login = _ask(helper, host, path, environment, troubles)
        if login is not None:
            return login
    entries = {_normal(key): entry for key, entry in auths.items()}
    for key in _keys(wanted, name):
        login = _login(entries.get(key), path)
        if login is not None:
            return login
    return None


def _keys(host: str, name: str) -> Iterator[str]:
    """The repository, everything above it, the host."""
    parts = name.split("/")
    for length in range(len(parts), 0, -1):
        yield "/".join([host, *parts[:length]])
    yield host


def _registry_of(key: str) -> str:
    return key.partition("://")[2].partition("/")[0] if "://" in key else key.partition("/")[0]


def _normal(key: str) -> str:
    """A key as podman writes it: without a scheme, and without the path where docker wrote one with
    a scheme."""
    if "://" in key:
        return canonical(_registry_of(key))
    host, slash, path = key.strip("/").partition("/")
    return f"{canonical(host)}{slash}{path}"


def _login(entry: Any, path: Path) -> Login | None:
    if entry is None:
        return None
    if not isinstance(entry, dict):
        raise _broken(path)
    texts = {key: entry.get(key) or "" for key in ("auth", "username", "password", "identitytoken")}
    if not all(isinstance(value, str) for value in texts.values()):
        raise _broken(path)
    username, password = texts["username"], texts["password"]
    if texts["auth"]:
        try:
            username, colon, password = (
                base64.b64decode(texts["auth"], validate=True).decode().partition(":")
            )
        except (binascii.Error, UnicodeDecodeError):
            raise _broken(path) from None
        if not colon:
            raise _broken(path)
        password = password.strip("\0")  # docker pads with them
    if not username and not texts["identitytoken"]:
        return None
    return Login(str(path), username, password, texts["identitytoken"])


def _ask(
    helper: Any, host: str, path: Path, environment: Mapping[str, str], troubles: list[str]
) -> Login | None:
    """What a credential helper has for a host. What keeps it from answering becomes a sentence: a
    registry may need no log-in."""
    if not isinstance(helper, str) or not _HELPER.fullmatch(helper):
        raise _broken(path)
    program = f"docker-credential-{helper}"
    registry = known(host)
    server = _DOCKER_HUB if registry is not None and registry.key == "docker.io" else host
    try:
        done = subprocess.run(
            [program, "get"],
            input=server.encode(),
            capture_output=True,
            timeout=_HELPER_S,
            check=False,
            env=dict(environment),
        )
    except FileNotFoundError:
        troubles.append(f"{path} keeps its log-ins with {program}, which is not installed.")
        return None
    except (OSError, subprocess.TimeoutExpired) as error:
        troubles.append(f"{program} does not answer ({type(error).__name__}).")
        return None
    if done.returncode:
        if b"not found" not in done.stdout + done.stderr:
            troubles.append(f"{program} ended with exit code {done.returncode}.")
        return None
    try:
        answer = json.loads(done.stdout[:_LARGEST])
        username, secret = answer["Username"], answer["Secret"]
        if not isinstance(username, str) or not isinstance(secret, str):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
        troubles.append(f"{program} gives no log-in.")
        return None
    if username == _IDENTITY:
        return Login(program, identity_token=secret)
    return Login(program, username, secret) if username else None


def _broken(path: Path) -> PackError:
    return bad_input(
        f"{path} is not a log-in file of docker, podman or skopeo.",
        "Log in again with one of them.",
    )
