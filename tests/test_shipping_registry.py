"""OCI: layouts that other tools read, and a real registry there and back."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

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
from tests.support.oci_registry import real_registry
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


def test_an_export_of_a_layout_that_fails_leaves_nothing(package: Path, tmp_path: Path) -> None:
    (package / "model/model.bin").write_bytes(bytes(700))
    refused(lambda: export(package, "oci", tmp_path / "out", **AGREED), ExitCode.INPUT)
    assert not (tmp_path / "out").exists()
