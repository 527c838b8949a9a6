"""A hostile registry gains nothing: an honest answer to everything, then one lie."""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from packager.errors import ExitCode, PackError
from packager.shipping.oci import images
from packager.shipping.registry import pull
from packager.shipping.shipment import prepare
from tests.support.make_package import write_package
from tests.support.oci_registry import lying_registry
from tests.support.shipping_packages import finish, refused, tree

pytestmark = pytest.mark.engine


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "tiny").mkdir()
    return write_package(tmp_path / "tiny")


def answers(folder: Path) -> dict[str, Any]:
    image = images(prepare(folder, allow_dummy=True, accepted=("unstated",)))[0]
    rows: dict[str, Any] = {"/v2/evil/manifests/v1": (200, {}, image.manifest.data or b"")}
    for blob in image.blobs:
        data = (
            blob.data
            if blob.data is not None
            else (folder / (blob.entry.path if blob.entry else "")).read_bytes()
        )
        rows[f"/v2/evil/blobs/{blob.digest}"] = (200, {}, data)
    return rows


def blob_path(folder: Path, name: str) -> str:
    data = (folder / name).read_bytes()
    return f"/v2/evil/blobs/sha256:{hashlib.sha256(data).hexdigest()}"


def changed(rows: dict[str, Any], change: Any) -> dict[str, Any]:
    image = json.loads(rows["/v2/evil/manifests/v1"][2])
    change(image)
    return {**rows, "/v2/evil/manifests/v1": (200, {}, json.dumps(image).encode())}


def endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    with suppress(OSError):
        while True:
            handler.wfile.write(bytes(1 << 16))


def layer(image: dict[str, Any], path: str) -> dict[str, Any]:
    return next(
        row for row in image["layers"] if row["annotations"]["org.cncf.model.filepath"] == path
    )


def _set(path: str, **fields: Any) -> Any:
    return lambda image: layer(image, path).update(fields)


BIN = "model/model.bin"
LIES: dict[str, tuple[Any, ExitCode, str]] = {
    "a tampered blob": (
        lambda f, r: {**r, blob_path(f, BIN): (200, {}, b"WEIGHTS" * 100)},
        ExitCode.INPUT,
        "digest",
    ),
    "a shorter blob": (
        lambda f, r: {**r, blob_path(f, BIN): (200, {}, b"weights")},
        ExitCode.INPUT,
        "digest",
    ),
    "a body shorter than it claims": (
        lambda f, r: {**r, blob_path(f, BIN): (200, {"Content-Length": "700"}, b"x")},
        ExitCode.SOURCE,
        "stopped",
    ),
    "an endless body": (lambda f, r: {**r, blob_path(f, BIN): endless}, ExitCode.INPUT, "longer"),
    "an endless manifest": (
        lambda f, r: {**r, "/v2/evil/manifests/v1": endless},
        ExitCode.INPUT,
        "longer",
    ),
    "a digest that leads outside": (
        lambda f, r: changed(r, _set(BIN, digest="sha256:../../etc")),
        ExitCode.INPUT,
        "digest",
    ),
    "a digest of another kind": (
        lambda f, r: changed(r, _set(BIN, digest="md5:" + "0" * 32)),
        ExitCode.INPUT,
        "digest",
    ),
    "a digest of another blob": (
        lambda f, r: changed(r, _set(BIN, digest="sha256:" + "0" * 64)),
        ExitCode.INPUT,
        "differ",
    ),
    "a wrong length": (lambda f, r: changed(r, _set(BIN, size=5)), ExitCode.INPUT, "differ"),
    "a length that is none": (
        lambda f, r: changed(r, _set(BIN, size="many")),
        ExitCode.INPUT,
        "an invalid size",
    ),
    "a path that leads outside": (
        lambda f, r: changed(r, _set(BIN, annotations={"org.cncf.model.filepath": "../evil"})),
        ExitCode.INPUT,
        "unsafe",
    ),
    "an absolute path": (
        lambda f, r: changed(r, _set(BIN, annotations={"org.cncf.model.filepath": "/tmp/evil"})),
        ExitCode.INPUT,
        "unsafe",
    ),
    "a layer too few": (
        lambda f, r: changed(r, lambda i: i["layers"].remove(layer(i, BIN))),
        ExitCode.INPUT,
        "differ",
    ),
    "a layer twice": (
        lambda f, r: changed(r, lambda i: i["layers"].append(layer(i, BIN))),
        ExitCode.INPUT,
        "unsafe",
    ),
    "no manifest": (
        lambda f, r: changed(r, lambda i: i["layers"].remove(layer(i, "manifest.json"))),
        ExitCode.INPUT,
        "not a package",
    ),
    "another artifact": (
        lambda f, r: changed(r, lambda i: i.update(artifactType="x/y")),
        ExitCode.INPUT,
        "ModelPack",
    ),
    "no JSON": (
        lambda f, r: {**r, "/v2/evil/manifests/v1": (200, {}, b"<html>")},
        ExitCode.INPUT,
        "ModelPack",
    ),
    "a redirect to another host": (
        lambda f, r: {**r, blob_path(f, BIN): (307, {"Location": "http://127.0.0.2:9/x"}, b"")},
        ExitCode.SOURCE,
        "refused",
    ),
    "a redirect to itself": (
        lambda f, r: {**r, blob_path(f, BIN): (307, {"Location": blob_path(f, BIN)}, b"")},
        ExitCode.SOURCE,
        "in a loop",
    ),
    "a demand for a log-in": (
        lambda f, r: {**r, blob_path(f, BIN): (401, {}, b"")},
        ExitCode.SOURCE,
        "log-in",
    ),
    "a blob that is gone": (
        lambda f, r: {**r, blob_path(f, BIN): (404, {}, b"")},
        ExitCode.SOURCE,
        f"not its {BIN}",
    ),
    "an error": (lambda f, r: {**r, blob_path(f, BIN): (500, {}, b"")}, ExitCode.SOURCE, "500"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_hostile_registry_leaves_nothing_and_ends_in_one_sentence(
    package: Path, tmp_path: Path, lie: str
) -> None:
    change, code, word = LIES[lie]
    with lying_registry(change(package, answers(package))) as host:
        refused(lambda: pull(f"{host}/evil:v1", tmp_path / "out" / "back"), code, word)
    assert not list((tmp_path / "out").iterdir()) if (tmp_path / "out").exists() else True


def test_an_honest_registry_of_that_kind_is_believed(package: Path, tmp_path: Path) -> None:
    with lying_registry(answers(package)) as host:
        assert tree(finish(pull(f"{host}/evil:v1", tmp_path / "back")).path) == tree(package)


def test_a_pinned_digest_is_compared(package: Path, tmp_path: Path) -> None:
    rows = answers(package)
    rows[f"/v2/evil/manifests/sha256:{'0' * 64}"] = rows["/v2/evil/manifests/v1"]
    with lying_registry(rows) as host:
        refused(
            lambda: pull(f"{host}/evil@sha256:{'0' * 64}", tmp_path / "back"),
            ExitCode.INPUT,
            "another manifest",
        )


# How a connection can end without an answer, and the system's or the library's words for it.
UNANSWERED = {
    "refused": "Connection refused",
    "closed": "Remote end closed connection",
    "reset": "Connection reset by peer",
}


def end_without_answer(server: socket.socket, ending: str) -> None:
    """Take one connection and its request, and end it in that way.

    The request is read first: closing with unread bytes is a reset, so that which of the two the
    client sees would be a matter of time.
    """
    connection, _ = server.accept()
    connection.recv(65536)
    if ending == "reset":  # no waiting for what was not sent: the system answers with a reset
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.parametrize("ending", UNANSWERED)
def test_why_a_registry_cannot_be_reached_is_said_and_not_how_libraries_wrap_it(
    tmp_path: Path, ending: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if ending == "refused":
            server.close()
        else:
            threading.Thread(target=end_without_answer, args=(server, ending), daemon=True).start()
        with pytest.raises(PackError) as caught:
            finish(pull(f"127.0.0.1:{port}/team/tiny:v1", tmp_path / "back"))
    assert caught.value.exit_code == ExitCode.SOURCE
    assert UNANSWERED[ending] in caught.value.message and "Pool" not in caught.value.message
    assert not caught.value.message.endswith("..")
