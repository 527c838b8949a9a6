"""What ModelScope says about one repository, and its files, over HTTP.

Its published client (modelscope and modelscope-hub on the package index) is not used: it reads a
stored login as a pickle, and keeps whatever bytes came. Addresses, fields and the layout of the
cache are the client's: `repo/files` lists, `repo?FilePath=` hands a file over.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx

from packager.checkpoint.folder import belongs, is_pickle, is_weights, refuse_oversize
from packager.errors import PackError, bad_input, unreachable, usage
from packager.limits import FOLDER_NAMES, HUB_ANSWER_BYTES

DEFAULT = "https://www.modelscope.cn"
BRANCH = "master"
TIMEOUT_S = 10.0
WAYS_ON = "Give a folder that you have with --weights PATH, or take the weights from --weights hub."
_COMMIT = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_REVISION = re.compile(r"[\w][\w./-]{0,199}", re.ASCII)
_REDIRECTS = 5
_REDIRECTED = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file: its name from the top of the repository, bytes, sha256, and the commit that wrote
    it with its time, where the server says."""

    name: str
    size: int
    sha256: str
    commit: str | None
    time: int


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a checkpoint; `commit` is what they are pinned to, None where the server knows
    no commit that has exactly these files: the digests pin them all the same."""

    revision: str
    commit: str | None
    files: tuple[RemoteFile, ...]


def endpoint() -> str:
    """The server: MODELSCOPE_ENDPOINT, or the MODELSCOPE_DOMAIN of older clients."""
    given = os.environ.get("MODELSCOPE_ENDPOINT") or os.environ.get("MODELSCOPE_DOMAIN") or DEFAULT
    address = given if given.lower().startswith(("http://", "https://")) else f"https://{given}"
    return address.rstrip("/")


def list_checkpoint(repo_id: str, revision: str | None) -> Listing:
    """The files at a branch, tag or commit (None: the main branch), pinned to a commit.

    Raises PackError: exit code 2 for a revision that is none, 5 when the server cannot be reached
    or does not let us in, 6 when there are no safetensors.
    """
    wanted = revision or BRANCH
    if not _REVISION.fullmatch(wanted):
        raise usage(f"{wanted!r} is not a revision.", "Name a branch, a tag or a commit.")
    files = _files(repo_id, wanted)
    if _COMMIT.fullmatch(wanted):
        return Listing(wanted, wanted, files)
    newest = max(
        (file for file in files if file.commit is not None),
        key=lambda file: file.time,
        default=None,
    )
    if newest is None or newest.commit is None:
        return Listing(wanted, None, files)
    try:
        pinned = _files(repo_id, newest.commit)
    except PackError:
        return Listing(wanted, None, files)
    same = _digests(pinned) == _digests(files)
    return Listing(wanted, newest.commit if same else None, files)


def file_address(repo_id: str, revision: str, name: str) -> str:
    """Where the server hands a file over."""
    query = httpx.QueryParams({"Revision": revision, "FilePath": name})
    return f"{endpoint()}/api/v1/models/{repo_id}/repo?{query}"


@contextmanager
def opened(url: str, headers: dict[str, str]) -> Iterator[httpx.Response]:
    """The answer to a request, redirects followed. The token goes to the server itself alone.

    Raises httpx's exceptions, and PackError (exit code 5) for a server that redirects for ever.
    """
    home = _origin(endpoint())
    with httpx.Client(timeout=TIMEOUT_S, follow_redirects=False) as client:
        for _ in range(_REDIRECTS):
            asked = {**headers, **(_authorization() if _origin(url) == home else {})}
            with client.stream("GET", url, headers=asked) as response:
                if response.status_code not in _REDIRECTED:
                    yield response
                    return
                url = _redirected(url, response.headers.get("Location", ""))
            if _origin(url)[0] not in ("http", "https"):
                break
    raise unreachable(f"{endpoint()} redirects without end.", WAYS_ON)


@contextmanager
def server_errors(repo_id: str, revision: str | None) -> Iterator[None]:
    """Raise PackError (exit code 5) in place of httpx's exceptions."""
    host = endpoint()
    try:
        yield
    except httpx.HTTPStatusError as error:
        raise _status(error.response.status_code, host, repo_id, revision) from error
    except httpx.TimeoutException as error:
        raise unreachable(
            f"{host} did not answer in time.", f"Run the same command again to continue. {WAYS_ON}"
        ) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise unreachable(
            f"{host} cannot be reached: {error}.",
            f"Check the network and MODELSCOPE_ENDPOINT. {WAYS_ON}",
        ) from error


def _authorization() -> dict[str, str]:
    """The token of MODELSCOPE_API_TOKEN, in both forms that the server knows."""
    token = os.environ.get("MODELSCOPE_API_TOKEN", "").strip()
    if not token or not token.isascii() or not token.isprintable():
        return {}
    return {"Authorization": f"Bearer {token}", "Cookie": f"m_session_id={token}"}


def _origin(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port. Raises httpx.InvalidURL."""
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port
    except ValueError as error:
        raise httpx.InvalidURL(str(error)) from None


def _redirected(url: str, location: str) -> str:
    """Where a redirection leads. Raises httpx.InvalidURL."""
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise httpx.InvalidURL(str(error)) from None


def _status(code: int, host: str, repo_id: str, revision: str | None) -> PackError:
    if code in (401, 403):
        return unreachable(
            f"{host} does not let this account read {repo_id} ({code}).",
            f"Set MODELSCOPE_API_TOKEN to a token that may. {WAYS_ON}",
        )
    if code == 404:
        at = f" at revision {revision}" if revision else ""
        return unreachable(
            f"{host} has no repository {repo_id}{at}, or it is private.",
            f"Check the name, or set MODELSCOPE_API_TOKEN. {WAYS_ON}",
        )
    return unreachable(
        f"{host} failed to answer for {repo_id} (status {code}).", f"Try again later. {WAYS_ON}"
    )


def _files(repo_id: str, revision: str) -> tuple[RemoteFile, ...]:
    query = httpx.QueryParams({"Revision": revision, "Recursive": "True"})
    body = _json(f"{endpoint()}/api/v1/models/{repo_id}/repo/files?{query}", repo_id, revision)
    data = body.get("Data") if isinstance(body, dict) else None
    rows = data.get("Files") if isinstance(data, dict) else data
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise _no_server()
    if len(rows) > FOLDER_NAMES:
        raise bad_input(
            f"{repo_id} lists {len(rows)} files.", "Name a repository that holds one model."
        )
    names = [str(row.get("Path")) for row in rows if row.get("Type") != "tree"]
    if not any(map(is_weights, names)):
        pickles = [name for name in names if is_pickle(name)]
        what = f"holds its weights as a pickle ({pickles[0]})" if pickles else "has no safetensors"
        raise bad_input(
            f"{repo_id} {what}.", "Name the repository with the unquantized safetensors."
        )
    return tuple(
        _file(repo_id, row)
        for row in rows
        if row.get("Type") != "tree" and belongs(str(row.get("Path")))
    )


# Any: JSON from outside, each field checked here.
def _file(repo_id: str, row: dict[str, Any]) -> RemoteFile:
    name, size, digest = str(row.get("Path")), row.get("Size"), row.get("Sha256")
    if type(size) is not int or size < 0 or not _DIGEST.fullmatch(str(digest)):
        raise unreachable(
            f"{endpoint()} does not give the size and sha256 of {name} in {repo_id}, so it cannot "
            "be checked.",
            WAYS_ON,
        )
    refuse_oversize(f"{repo_id}: {name}", name, size)
    commit, time = row.get("Revision"), row.get("CommittedDate")
    return RemoteFile(
        name,
        size,
        str(digest),
        str(commit) if _COMMIT.fullmatch(str(commit)) else None,
        time if type(time) is int else 0,
    )


def _digests(files: tuple[RemoteFile, ...]) -> dict[str, str]:
    return {file.name: file.sha256 for file in files}


def _json(url: str, repo_id: str, revision: str | None) -> Any:
    data = bytearray()
    with server_errors(repo_id, revision), opened(url, {}) as response:
        response.raise_for_status()
        for piece in response.iter_bytes(1 << 16):
            data += piece
            if len(data) > HUB_ANSWER_BYTES:
                raise unreachable(
                    f"{endpoint()} sends an answer of more than {HUB_ANSWER_BYTES} bytes.", WAYS_ON
                )
    try:
        return json.loads(bytes(data))
    except (ValueError, RecursionError):
        raise _no_server() from None


def _no_server() -> PackError:
    return unreachable(
        f"{endpoint()} does not answer like ModelScope.",
        f"Check MODELSCOPE_ENDPOINT and the network. {WAYS_ON}",
    )
