"""One repository of an OCI registry over HTTP: oras does names, log-ins and requests, this adds
limits and a sentence per failure.

Nothing that a registry says is trusted: lengths bound what is read, digests decide what is kept,
redirects leave neither TLS nor, without it, the host.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urljoin, urlsplit

from packager.errors import ExitCode, PackError, bad_input, unreachable, usage
from packager.shipping.oci import DOCKER_MANIFEST, IMAGE_MANIFEST, Blob

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LOOPBACK = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?")
_NAME = re.compile(r"[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_LARGEST_MANIFEST = 4 << 20
_CHUNK = 8 << 20
_TIMEOUT = (10, 60)  # seconds to connect, and between two pieces of an answer


class Repository:
    """HOST/NAME:TAG or HOST/NAME@DIGEST. Plain HTTP is spoken to this machine only."""

    def __init__(self, reference: str) -> None:
        """Raises PackError (usage) for a reference that names no host, repository or tag, and where
        the client is not installed."""
        self.host, self.name, self.tag, self.digest = parse_reference(reference)
        self.reference = reference
        plain = bool(_LOOPBACK.fullmatch(self.host))
        self._base = f"{'http' if plain else 'https'}://{self.host}/v2/{self.name}"
        self._client = _client(self.host, plain)
        import oras.container

        with self._sentences():
            self._client.auth.load_configs(
                oras.container.Container(f"{self.name}:x", registry=self.host)
            )

    def has(self, blob: Blob) -> bool:
        """Whether the registry holds the blob already."""
        with self._sentences():
            return bool(self._ask("HEAD", f"{self._base}/blobs/{blob.digest}").status_code == 200)

    def upload(self, blob: Blob, chunks: Iterator[bytes]) -> Iterator[int]:
        """Push a blob piece by piece; yields sizes. The registry compares the digest, and so do the
        chunks of a package."""
        with self._sentences():
            answer = self._expect(
                self._ask("POST", f"{self._base}/blobs/uploads/", headers={"Content-Length": "0"}),
                202,
            )
            place = self._location(answer, f"{self._base}/blobs/uploads/")
            start = 0
            for piece in _of_size(chunks, _CHUNK):
                headers = {
                    "Content-Range": f"{start}-{start + len(piece) - 1}",
                    "Content-Type": "application/octet-stream",
                }
                answer = self._expect(
                    self._ask("PATCH", place, data=piece, headers=headers), 202, 204
                )
                place = self._location(answer, place)
                start += len(piece)
                yield len(piece)
            joint = "&" if urlsplit(place).query else "?"
            self._expect(
                self._ask(
                    "PUT", f"{place}{joint}digest={blob.digest}", headers={"Content-Length": "0"}
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
                self._ask("PUT", f"{self._base}/manifests/{tag}", data=blob.data, headers=headers),
                201,
            )

    def manifest(self) -> bytes:
        """The manifest of the reference. Raises PackError (exit code 6) when it is not the one
        whose digest was asked for."""
        with self._sentences():
            answer = self._ask(
                "GET",
                f"{self._base}/manifests/{self.digest or self.tag}",
                headers={"Accept": f"{IMAGE_MANIFEST}, {DOCKER_MANIFEST}"},
                stream=True,
            )
            with answer:
                self._expect(answer, 200)
                data = b"".join(_bounded(answer, _LARGEST_MANIFEST, "the manifest", self.reference))
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
            raise bad_input(
                f"{self.reference}: {what} has a digest that is none.", "Do not use it."
            )
        seen, got = hashlib.sha256(), 0
        with self._sentences():
            answer = self._ask("GET", f"{self._base}/blobs/{digest}", stream=True)
            with answer:
                if answer.status_code == 404:
                    raise unreachable(
                        f"{self.host} has {self.reference}, but not its {what}.",
                        "Pull another tag, or have it pushed again.",
                    )
                self._expect(answer, 200)
                for piece in _bounded(answer, size, what, self.reference):
                    seen.update(piece)
                    got += len(piece)
                    yield piece
        if got != size or f"sha256:{seen.hexdigest()}" != digest:
            raise bad_input(
                f"{self.reference}: {what} is not what its digest says.",
                "Get it again; if it stays so, do not use it.",
            )

    def _ask(self, method: str, url: str, **more: Any) -> Any:
        headers = {"Accept-Encoding": "identity", **more.pop("headers", {})}
        return self._client.do_request(url, method, headers=headers, **more)

    def _location(self, answer: Any, asked: str) -> str:
        place = str(urljoin(asked, answer.headers.get("Location", "")))
        if (urlsplit(place).scheme, urlsplit(place).netloc) != (
            urlsplit(self._base).scheme,
            urlsplit(self._base).netloc,
        ):
            raise unreachable(
                f"{self.host} wants the upload to go to another host ({urlsplit(place).netloc}).",
                "Push to that registry by its name.",
            )
        return place

    def _expect(self, answer: Any, *status: int) -> Any:
        if answer.status_code in status:
            return answer
        code = answer.status_code
        if code in (401, 403):
            raise _login(self.host)
        if code == 404:
            raise unreachable(
                f"{self.host} has no {self.name}:{self.digest or self.tag}.",
                "Look at the name and the tag.",
            )
        raise unreachable(
            f"{self.host} answers {code} {answer.reason}.",
            "Try again later; the registry's own log says more.",
        )

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        import oras.auth
        import requests

        try:
            yield
        except PackError:
            raise
        except requests.exceptions.SSLError as error:
            raise unreachable(
                f"{self.host} has no certificate that this machine trusts: {error}.",
                "Add its authority to the system.",
            ) from None
        except requests.exceptions.TooManyRedirects:
            raise unreachable(
                f"{self.host} sends us round in circles.", "Try again later."
            ) from None
        except (requests.exceptions.RequestException, OSError) as error:
            raise unreachable(
                f"{self.host} cannot be reached, or stopped answering: {_short(error)}.",
                "Look at the name, and try again.",
            ) from None
        except oras.auth.AuthenticationException:
            raise _login(self.host) from None
        except ValueError as error:
            if "authentication" in str(error):
                raise _login(self.host) from None
            raise unreachable(
                f"{self.host} answers what no registry answers: {_short(error)}.",
                "Look at the name.",
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
            f"{reference!r} is no place in a registry.",
            "Write it like registry.example/team/model:tag.",
        )
    return host, name, tag or "latest", digest or None


def _client(host: str, plain: bool) -> Any:
    try:
        import requests
        from oras.provider import Registry
    except ImportError:
        raise usage(
            "Registries take the oras library, which is not installed.",
            "pip install 'qwen-pack[ship]'",
        ) from None

    class Session(requests.Session):  # type: ignore[misc]
        """Every request with a time limit; no redirect from TLS to none, nor, without TLS, to
        another host."""

        def request(self, *arguments: Any, **named: Any) -> Any:
            named.setdefault("timeout", _TIMEOUT)
            return super().request(*arguments, **named)

        def get_redirect_target(self, response: Any) -> str | None:
            target = super().get_redirect_target(response)
            if target:
                here, there = urlsplit(response.url), urlsplit(urljoin(response.url, target))
                same = (here.scheme, here.netloc) == (there.scheme, there.netloc)
                if not same and not here.scheme == there.scheme == "https":
                    raise unreachable(
                        f"{here.netloc} sends us to {there.scheme}://{there.netloc}, which is "
                        "refused.",
                        "Name that registry itself.",
                    )
            return None if target is None else str(target)

    class Client(Registry):  # type: ignore[misc]
        """Each request once: the caller decides what is asked again, and nobody waits a minute for
        a name that does not exist."""

        def do_request(self, *arguments: Any, **named: Any) -> Any:
            return Registry.do_request.__wrapped__(self, *arguments, **named)

    client = Client(hostname=host, insecure=plain)
    session = Session()
    session.cookies.set_policy(client.session.cookies.get_policy())
    session.max_redirects = 5
    client.session = client.auth.session = session
    return client


def _bounded(answer: Any, size: int, what: str, reference: str) -> Iterator[bytes]:
    """The body of an answer, at most `size` bytes of it."""
    got = 0
    for piece in answer.iter_content(1 << 20):
        got += len(piece)
        if got > size:
            raise bad_input(
                f"{reference}: {what} is longer than the {size} bytes it should have.",
                "Do not use it.",
            )
        yield piece


def _of_size(chunks: Iterator[bytes], size: int) -> Iterator[bytes]:
    waiting = bytearray()
    for chunk in chunks:
        waiting += chunk
        if len(waiting) >= size:
            yield bytes(waiting)
            waiting.clear()
    if waiting:
        yield bytes(waiting)


def _login(host: str) -> PackError:
    return PackError(
        f"{host} asks for a log-in that has the right to this.",
        f"docker login {host}, or skopeo login {host}",
        ExitCode.SOURCE,
    )


def _short(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text if len(text) < 160 else f"{text[:157]}..."
