"""One repository of an OCI registry over HTTP, as the distribution specification has it, with
limits and a sentence per failure.

Nothing that a registry says is trusted: lengths bound what is read, digests decide what is kept,
redirects leave neither TLS nor, without it, the host.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any
from urllib.parse import urljoin, urlsplit

from packager.errors import PackError, bad_input, unreachable, usage
from packager.shipping.known_registries import known
from packager.shipping.oci import DOCKER_MANIFEST, IMAGE_MANIFEST, Blob
from packager.shipping.registry_http import Http, drained, pieces

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LOOPBACK = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?")
_NAME = re.compile(r"[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_LARGEST_MANIFEST = 4 << 20
_CHUNK = 8 << 20


class Repository:
    """HOST/NAME:TAG or HOST/NAME@DIGEST. Plain HTTP is spoken to this machine only."""

    def __init__(self, reference: str, token_hosts: Collection[str] = ()) -> None:
        """`token_hosts` are hosts beside the registry's own that its log-in may go to.

        Raises PackError (usage) for a reference that names no host, repository or tag, and where
        the client is not installed.
        """
        self.host, self.name, self.tag, self.digest = parse_reference(reference)
        self.reference = reference
        registry = known(self.host)
        name, api = self.name, self.host
        if registry is not None:
            api = registry.api
            name = f"{registry.library}/{name}" if registry.library and "/" not in name else name
        scheme = "http" if _LOOPBACK.fullmatch(self.host) else "https"
        self._base = f"{scheme}://{api}/v2/{name}"
        self._http = Http(self.host, self._base, name, token_hosts)

    def has(self, blob: Blob) -> bool:
        """Whether the registry holds the blob already."""
        with self._sentences():
            return bool(self._done("HEAD", f"{self._base}/blobs/{blob.digest}").status_code == 200)

    def upload(self, blob: Blob, chunks: Iterator[bytes]) -> Iterator[int]:
        """Push a blob piece by piece; yields sizes. The registry compares the digest, and so do the
        chunks of a package."""
        with self._sentences():
            answer = self._expect(
                self._done("POST", f"{self._base}/blobs/uploads/", headers={"Content-Length": "0"}),
                202,
            )
            location = self._location(answer, f"{self._base}/blobs/uploads/")
            start = 0
            for piece in _of_size(chunks, _CHUNK):
                headers = {
                    "Content-Range": f"{start}-{start + len(piece) - 1}",
                    "Content-Type": "application/octet-stream",
                }
                answer = self._expect(
                    self._done("PATCH", location, data=piece, headers=headers), 202, 204
                )
                location = self._location(answer, location)
                start += len(piece)
                yield len(piece)
            joint = "&" if urlsplit(location).query else "?"
            self._expect(
                self._done(
                    "PUT", f"{location}{joint}digest={blob.digest}", headers={"Content-Length": "0"}
                ),
                201,
                204,
            )

    def put_manifest(self, blob: Blob, tag: str) -> None:
        """Store a manifest under a tag, byte for byte."""
        assert blob.data is not None
        with self._sentences():
            headers = {"Content-Type": blob.media_type}
            self._expect(
                self._done("PUT", f"{self._base}/manifests/{tag}", data=blob.data, headers=headers),
                201,
            )

    def manifest(self) -> bytes:
        """The manifest of the reference. Raises PackError (exit code 6) when it is not the one
        whose digest was asked for."""
        with self._sentences():
            headers = {"Accept": f"{IMAGE_MANIFEST}, {DOCKER_MANIFEST}"}
            with self._http.ask(
                "GET", f"{self._base}/manifests/{self.digest or self.tag}", False, headers
            ) as answer:
                self._expect(answer, 200)
                data = b"".join(self._bounded(answer, _LARGEST_MANIFEST, "the manifest"))
        if self.digest and f"sha256:{hashlib.sha256(data).hexdigest()}" != self.digest:
            raise bad_input(
                f"{self.reference}: the registry sent another manifest than the one that was asked "
                "for.",
                "Do not use it.",
            )
        return data

    def blob(self, digest: str, size: int, what: str) -> Iterator[bytes]:
        """The bytes of a blob in pieces. Raises PackError (exit code 6) at the end, or as soon as
        they cannot be the right ones."""
        if not DIGEST.fullmatch(digest):
            raise bad_input(f"{self.reference}: {what} has an invalid digest.", "Do not use it.")
        seen, got = hashlib.sha256(), 0
        with (
            self._sentences(),
            self._http.ask("GET", f"{self._base}/blobs/{digest}", False) as answer,
        ):
            if answer.status_code == 404:
                raise unreachable(
                    f"{self.host} has {self.reference}, but not its {what}.",
                    "Pull another tag, or have it pushed again.",
                )
            self._expect(answer, 200)
            for piece in self._bounded(answer, size, what):
                seen.update(piece)
                got += len(piece)
                yield piece
        if got != size or f"sha256:{seen.hexdigest()}" != digest:
            raise bad_input(
                f"{self.reference}: {what} is not what its digest says.",
                "Get it again; if that does not help, do not use it.",
            )

    def _done(self, method: str, url: str, **more: Any) -> Any:
        """An answer of which the status and the headers matter."""
        return drained(self._http.ask(method, url, True, **more))

    def _bounded(self, answer: Any, size: int, what: str) -> Iterator[bytes]:
        """The body of an answer, at most `size` bytes of it."""
        got = 0
        for piece in pieces(answer, self.host):
            got += len(piece)
            if got > size:
                raise bad_input(
                    f"{self.reference}: {what} is longer than the {size} bytes it should have.",
                    "Do not use it.",
                )
            yield piece

    def _location(self, answer: Any, asked: str) -> str:
        location = str(urljoin(asked, answer.headers.get("Location", "")))
        if (urlsplit(location).scheme, urlsplit(location).netloc) != (
            urlsplit(self._base).scheme,
            urlsplit(self._base).netloc,
        ):
            raise unreachable(
                f"{self.host} wants the upload to go to another host "
                f"({urlsplit(location).netloc}).",
                "Push to that registry by its name.",
            )
        return location

    def _expect(self, answer: Any, *status: int) -> Any:
        if answer.status_code in status:
            return answer
        code = answer.status_code
        if code in (401, 403):
            raise self._http.refused()
        if code == 404:
            raise unreachable(
                f"{self.host} has no {self.name}:{self.digest or self.tag}.",
                "Check the name and the tag.",
            )
        reason = _plain(str(answer.reason or ""))
        raise unreachable(
            f"{self.host} answers {f'{code} {reason}'.strip()}.",
            "Try again later; the registry's own log says more.",
        )

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        import requests
        import urllib3

        try:
            yield
        except PackError:
            raise
        except requests.exceptions.SSLError as error:
            raise unreachable(
                f"{self.host} has no certificate that this machine trusts: {_short(error)}.",
                "Add its authority to the system.",
            ) from None
        except (
            requests.exceptions.RequestException,
            urllib3.exceptions.HTTPError,
            HTTPException,
            OSError,
        ) as error:
            raise unreachable(
                f"{self.host} cannot be reached, or stopped answering: {_short(error)}.",
                "Check the name, and try again.",
            ) from None
        except ValueError as error:
            raise unreachable(
                f"{self.host} answers what no registry answers: {_short(error)}.",
                "Check the name.",
            ) from None


def parse_reference(reference: str) -> tuple[str, str, str, str | None]:
    """Host, repository, tag and digest of HOST/NAME[:TAG][@DIGEST]; the tag is `latest` where none
    stands.

    Raises PackError (usage) for anything else.
    """
    rest, at, digest = reference.partition("@")
    host, slash, path = rest.partition("/")
    name, colon, tag = path.partition(":")
    good = (
        slash
        and re.fullmatch(r"[A-Za-z0-9.\-\[\]:]+", host)
        and _NAME.fullmatch(name)
        and (not colon or _TAG.fullmatch(tag))
        and (not at or DIGEST.fullmatch(digest))
    )
    if not good:
        raise usage(
            f"{reference!r} is not a valid registry reference.",
            "Write it like registry.example/team/model:tag.",
        )
    return host, name, tag or "latest", digest or None


def _of_size(chunks: Iterator[bytes], size: int) -> Iterator[bytes]:
    waiting = bytearray()
    for chunk in chunks:
        waiting += chunk
        if len(waiting) >= size:
            yield bytes(waiting)
            waiting.clear()
    if waiting:
        yield bytes(waiting)


def _short(error: BaseException) -> str:
    """Why, in one sentence: the innermost reason, which libraries wrap into their own words."""
    seen = [error]
    while (inner := _within(seen[-1])) is not None and inner not in seen:
        seen.append(inner)
    last = seen[-1]
    why = getattr(last, "strerror", None) or str(last)
    return _plain(str(why).strip().rstrip(".")) or type(last).__name__


def _within(error: BaseException) -> BaseException | None:
    given = (getattr(error, "reason", None), *error.args, error.__cause__)
    return next((inner for inner in given if isinstance(inner, BaseException)), None)


def _plain(text: str) -> str:
    """What a server says, for a sentence: short, and without effect on a terminal."""
    shown = "".join(char if " " <= char <= "~" else "?" for char in text)
    return shown if len(shown) < 160 else f"{shown[:157]}..."
