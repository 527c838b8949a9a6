"""Hubs and registries that lie: an answer is any bytes on a socket, mutated like other inputs."""

from __future__ import annotations

import gzip
import json
import os
import random
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

from tests.attack import mutate
from tests.attack.inputs import Kind, Wrong
from tests.attack.packages import AGREED, OLD, finish, tree, write_files

_ENDLESS = b"\r\nX-Endless: "
_MOST_ENDLESS = 256 << 20
"""So much an endless answer sends before it ends after all: more than anybody should read."""
_REPOSITORY = "tests/tiny"
_COMMIT = "c1899de289a04d12100db370d81485cdf75e47ca"


class _Server:
    """Answers every connection with `answer(path)` and closes it, on a free port of 127.0.0.1."""

    def __init__(self) -> None:
        self.answer: Callable[[str], bytes] = lambda path: b""
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.host = f"127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        try:
            with connection:
                connection.settimeout(20)
                request = b""
                while b"\r\n\r\n" not in request and (piece := connection.recv(65536)):
                    request += piece
                data = self.answer(
                    request.split(b" ")[1].decode("latin-1") if b" " in request else ""
                )
                connection.sendall(data)
                if _ENDLESS in data:
                    for _ in range(_MOST_ENDLESS >> 20):
                        connection.sendall(b"[" * (1 << 20))
                # A peer that has not read all is not cut off by a reset.
                connection.shutdown(socket.SHUT_WR)
                connection.settimeout(1)
                connection.recv(1)
        except OSError:
            return


_servers: dict[int, _Server] = {}


def _server() -> _Server:
    """One for each worker: threads do not survive a fork."""
    if os.getpid() not in _servers:
        _servers[os.getpid()] = _Server()
    return _servers[os.getpid()]


def response(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """An HTTP answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def of_answers(random_: random.Random, data: bytes) -> bytes:
    """Head or body changed, compressed beyond measure, endless, or a redirect."""
    head, _, body = data.partition(b"\r\n\r\n")
    match random_.randrange(9):
        case 0:
            return mutate.of_bytes(random_, data)
        case 1:
            return mutate.of_text(random_, head) + b"\r\n\r\n" + body
        case 2:
            bomb = gzip.compress(bytes(random_.choice((1 << 10, 1 << 26))))
            return response(bomb, "200 OK", "Content-Encoding: gzip")
        case 3:
            return (
                b"HTTP/1.1 200 OK" + _ENDLESS + b"1\r\n\r\n" + body[: random_.randrange(len(body))]
            )
        case 4:
            place = random_.choice(
                ("/again", "http://127.0.0.1:1/x", "ftp://x/", "//\x1b[31m", "", "http://[::")
            )
            status = random_.choice(
                ("301 Moved", "302 Found", "307 X\x1b[2J", "401 Who", "429 Slow", "503 No")
            )
            challenge = random_.choice(
                ("Bearer", 'Bearer realm="http://127.0.0.1:1/t",service="x"', "Basic", "Bearer =")
            )
            return response(b"{}", status, f"Location: {place}", f"WWW-Authenticate: {challenge}")
        case 5:
            words = (
                b"[]",
                b"3",
                b'"x"',
                b"null",
                b"\n",
                b"{" * 9999,
                b'{"token": []}',
                b'{"siblings": 1}',
                b"\xff",
            )
            return response(random_.choice(words))
        case _:
            return response(mutate.of_json(random_, body))


def _seed_hub(folder: Path) -> bytes:
    rows = [
        {
            "rfilename": name,
            "size": 500,
            "blobId": "0" * 40,
            "lfs": {"sha256": "0" * 64, "size": 500, "pointerSize": 9},
        }
        for name in ("model.safetensors", "config.json", "tokenizer.json", "LICENSE")
    ]
    body = {
        "id": _REPOSITORY,
        "modelId": _REPOSITORY,
        "sha": _COMMIT,
        "tags": ["license:mit"],
        "siblings": rows,
    }
    return response(json.dumps({**body, "private": False, "cardData": {"license": "mit"}}).encode())


def _ask_hub(folder: Path, data: bytes) -> None:
    from huggingface_hub import constants

    from packager.sources.hub_listing import list_checkpoint

    server = _server()
    constants.HF_HUB_OFFLINE = False
    constants.ENDPOINT = f"http://{server.host}"
    constants.HF_HUB_DOWNLOAD_TIMEOUT = 5
    server.answer = lambda path: data
    found = list_checkpoint(_REPOSITORY, None)
    for file in found.files:
        if "/" in file.name or file.size < 0:
            raise Wrong(f"a file of the name {file.name!r}")


def _seed_registry(folder: Path) -> bytes:
    from packager.shipping.oci import images
    from packager.shipping.shipment import prepare

    package = write_files(folder / "package", OLD)
    image = images(prepare(package, **AGREED))[0]
    _blobs.clear()
    for blob in image.blobs:
        body = blob.data if blob.entry is None else (package / blob.entry.path).read_bytes()
        _blobs[blob.digest] = body or b""
    media = f"Content-Type: {image.manifest.media_type}"
    _genuine[:] = [response(image.manifest.data or b"", "200 OK", media)]
    return _genuine[0]


_blobs: dict[str, bytes] = {}


def _pull(folder: Path, data: bytes) -> None:
    from packager.shipping.registry import pull

    server = _server()
    # By the mutant itself: the manifest is mutated, or what comes for the second blob.
    manifest_too = struct.unpack("<B", data[-1:])[0] % 3 if data else 1

    def answer(path: str) -> bytes:
        if "/manifests/" in path:
            return data if manifest_too else _genuine[0]
        digest = path.rpartition("/")[2]
        if digest in _blobs and (manifest_too or digest != sorted(_blobs)[1]):
            return response(_blobs[digest])
        return data

    server.answer = answer
    (folder / "in").mkdir(exist_ok=True)
    finish(pull(f"{server.host}/a/b:t", folder / "in" / "out"))
    if tree(folder / "in" / "out") != tree(folder / "package"):
        raise Wrong("another package was pulled")


_genuine: list[bytes] = []

SERVERS: tuple[Kind, ...] = (
    Kind("answer of a hub", _seed_hub, of_answers, _ask_hub, 10),
    Kind("answer of a registry", _seed_registry, of_answers, _pull, 10),
)
"""What servers say; not part of the mutants of a test run, whose network is its own."""

__all__ = ["SERVERS", "response"]
