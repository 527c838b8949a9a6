"""OCI: layouts that other tools read, a real registry there and back, and a hostile one that gains
nothing."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from packager.errors import ExitCode, PackError
from packager.package import manifest
from packager.shipping.export import export
from packager.shipping.oci import images
from packager.shipping.registry import pull, push
from packager.shipping.registry_client import parse_reference
from packager.shipping.shipment import prepare
from tests.support.make_package import body, write_package
from tests.support.oci_registry import lying_registry, real_registry
from tests.support.shipping_packages import AGREED, CHATML, exported, finish, refused, tree
from tests.support.tiny_gguf import tiny_gguf

pytestmark = pytest.mark.engine

SCHEMAS = Path(__file__).parent / "schemas"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "tiny").mkdir()
    return write_package(tmp_path / "tiny")


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    """A package whose model is one GGUF, with a ChatML template and a licence text."""
    folder = tmp_path / "gguf"
    (folder / "model").mkdir(parents=True)
    files = {
        "model/tiny.gguf": tiny_gguf(b"GGUF" * 99),
        "LICENSE": b"do what you like",
        "chat_template.jinja": CHATML.encode(),
        "README.md": b"#",
    }
    rows = []
    for path, data in files.items():
        (folder / path).write_bytes(data)
        rows.append({"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    facts = {
        "files": rows,
        "runtime": {"name": "llama.cpp", "version": "1"},
        "recipe": {"id": "gguf:Q4_K_M", "kv": "f16"},
    }
    (tmp_path / "as").mkdir()
    manifest.write(
        folder,
        {**body(write_package(tmp_path / "as")), **facts, "created": "2026-01-01T00:00:00+00:00"},
    )
    return folder


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with real_registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


def test_the_configuration_follows_the_schema_of_model_pack(package: Path, gguf: Path) -> None:
    schema = json.loads((SCHEMAS / "modelpack-config.json").read_text())
    for folder in (package, gguf):
        image = images(prepare(folder, allow_dummy=True, accepted=("unstated",)))[0]
        config = json.loads(image.blobs[0].data or b"")
        jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).validate(
            config
        )
        assert config["modelfs"]["diffIds"] == [
            layer["digest"] for layer in json.loads(image.manifest.data or b"")["layers"]
        ]


def test_the_first_layer_is_the_model_and_one_blob_stands_under_three_manifests(gguf: Path) -> None:
    found = images(prepare(gguf, allow_dummy=True, accepted=("unstated",)))
    assert [image.suffix for image in found] == ["", "-docker", "-ollama"]
    first = [json.loads(image.manifest.data or b"")["layers"][0] for image in found]
    assert len({row["digest"] for row in first}) == 1
    assert [row["mediaType"] for row in first] == [
        "application/vnd.cncf.model.weight.v1.raw",
        "application/vnd.docker.ai.gguf.v3",
        "application/vnd.ollama.image.model",
    ]


def test_a_layout_is_the_same_bytes_every_time_and_every_blob_is_what_its_name_says(
    gguf: Path, tmp_path: Path
) -> None:
    one, two = (exported(gguf, "oci", tmp_path / name) for name in ("one", "two"))
    assert tree(one) == tree(two)
    for blob in (one / "blobs" / "sha256").iterdir():
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    refs = [
        row["annotations"]["org.opencontainers.image.ref.name"]
        for row in json.loads((one / "index.json").read_bytes())["manifests"]
    ]
    assert refs == ["latest", "latest-docker", "latest-ollama"]


@pytest.mark.skipif(not shutil.which("skopeo"), reason="needs skopeo")
def test_skopeo_copies_a_layout(gguf: Path, tmp_path: Path) -> None:
    layout = exported(gguf, "oci", tmp_path / "layout")
    subprocess.run(
        ["skopeo", "copy", "--quiet", f"oci:{layout}:latest", f"dir:{tmp_path / 'copy'}"],
        check=True,
    )
    blobs = {
        hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "copy").iterdir()
    }
    assert {entry.sha256 for entry in manifest.read(gguf).files} <= blobs


def test_a_package_goes_to_a_registry_and_comes_back(
    registry: str, gguf: Path, tmp_path: Path
) -> None:
    tags = finish(push(gguf, f"{registry}/team/tiny:v1", **AGREED))
    assert list(tags) == ["v1", "v1-docker", "v1-ollama"]
    assert tree(finish(pull(f"{registry}/team/tiny:v1", tmp_path / "back")).path) == tree(gguf)
    assert tree(
        finish(pull(f"{registry}/team/tiny@{tags['v1']}", tmp_path / "pinned")).path
    ) == tree(gguf)
    assert finish(push(gguf, f"{registry}/team/tiny:v1", **AGREED)) == tags


def test_a_damaged_package_gets_no_tag_where_the_registry_has_the_true_bytes(
    registry: str, gguf: Path, tmp_path: Path
) -> None:
    finish(push(gguf, f"{registry}/team/same:v1", **AGREED))
    (gguf / "model" / "tiny.gguf").write_bytes(tiny_gguf(b"GGUG" * 99))
    refused(
        lambda: push(gguf, f"{registry}/team/same:v2", **AGREED),
        ExitCode.INPUT,
        "not what the manifest says",
    )
    refused(
        lambda: pull(f"{registry}/team/same:v2", tmp_path / "back"),
        ExitCode.SOURCE,
        "has no team/same:v2",
    )


@pytest.mark.skipif(not shutil.which("skopeo"), reason="needs skopeo")
def test_skopeo_reads_all_three_manifests_from_the_registry(registry: str, gguf: Path) -> None:
    tags = finish(push(gguf, f"{registry}/team/three:v1", **AGREED))
    for tag, digest in tags.items():
        answer = subprocess.run(
            [
                "skopeo",
                "inspect",
                "--raw",
                "--tls-verify=false",
                f"docker://{registry}/team/three:{tag}",
            ],
            check=True,
            capture_output=True,
        )
        assert f"sha256:{hashlib.sha256(answer.stdout).hexdigest()}" == digest


def test_what_a_registry_does_not_have_is_said(
    registry: str, package: Path, tmp_path: Path
) -> None:
    refused(
        lambda: pull(f"{registry}/team/absent:v1", tmp_path / "back"),
        ExitCode.SOURCE,
        "has no team/absent:v1",
    )
    refused(
        lambda: pull("127.0.0.1:1/team/tiny:v1", tmp_path / "back"),
        ExitCode.SOURCE,
        "cannot be reached",
    )
    refused(
        lambda: push(package, "127.0.0.1:1/team/tiny:v1", **AGREED),
        ExitCode.SOURCE,
        "cannot be reached",
    )
    refused(lambda: push(package, f"{registry}/team/tiny:v1"), ExitCode.USAGE, "--allow-dummy")


def test_a_tag_that_is_no_package_is_named(registry: str, gguf: Path, tmp_path: Path) -> None:
    finish(push(gguf, f"{registry}/team/other:v1", **AGREED))
    refused(
        lambda: pull(f"{registry}/team/other:v1-ollama", tmp_path / "back"),
        ExitCode.INPUT,
        "ModelPack",
    )


@pytest.mark.parametrize(
    "reference",
    [
        "tiny",
        "tiny:v1",
        "host/",
        "host/UPPER:v1",
        "host/a:b/c",
        "host/a@sha256:12",
        "http://host/a:v1",
        "host/../a:v1",
        "",
    ],
)
def test_what_is_no_reference_is_refused(reference: str) -> None:
    with pytest.raises(PackError) as caught:
        parse_reference(reference)
    assert caught.value.exit_code == ExitCode.USAGE


# A hostile registry: an honest answer to everything, then one lie.


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


def test_an_export_of_a_layout_that_fails_leaves_nothing(package: Path, tmp_path: Path) -> None:
    (package / "model/model.bin").write_bytes(bytes(700))
    refused(lambda: export(package, "oci", tmp_path / "out", **AGREED), ExitCode.INPUT)
    assert not (tmp_path / "out").exists()
